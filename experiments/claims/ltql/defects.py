"""What was unequal in LTQL's published comparison."""

from jaxmarl_fac.statistics import Interval

#: What was unequal in the published comparison, as read in the authors' release.
DEFECTS = (
    "QMIX and QTRAN had batch 256, learning rate 1e-6, 5 updates an epoch and gamma .98, the others 1024, "
    "1e-5, 50 and .99, and their state held the distance where time was meant; epsilon fell over 200,000 "
    "steps for LTQL and QTRAN and over 50,000 for the others in the line world; the matrix script's IQL "
    "curve is one step from the table of distributed Q-learning; wins were counted by the return summed "
    "over test games; 2 seeds of the pursuit"
)


def format_shares(shares: dict[str, Interval]) -> str:
    """Names with percentages, as text."""
    return ", ".join(f"{name} {interval.value:.0%}" for name, interval in shares.items())
