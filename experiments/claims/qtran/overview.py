"""QTRAN and its predecessors on the small games of its release and of Claus and Boutilier."""

import baselines
from experiments.claims.overview import TEAM_GAMES, Player, overview, success
from jaxmarl_fac.report.claims import Claim, Outcome, Workshop
from jaxmarl_fac.report.verdicts import Part, Rule

NAMES = ("iql", "vdn", "qmix", "qtran-base", "qtran-alt")
ONE_OPTIMUM = ("matrix-climbing-t", "two-step", "random-state")


def players() -> dict[str, Player]:
    """Table 3's settings, but for targets that follow often enough for games of two steps."""
    return {
        name: Player(
            baselines.make(name, family="matrix", target_period=500),
            {"smoke": 200, "quick": 10_000, "paper": 20_000},
            {"smoke": 2, "quick": 16, "paper": 100},
        )
        for name in NAMES
    }


def small_games(workshop: Workshop) -> Outcome:
    """Every pair that can work."""
    return overview(
        workshop, players(), TEAM_GAMES, "QTRAN and its predecessors on small games: seeds that succeed"
    )


CLAIMS = (
    Claim(
        "overview",
        "QTRAN, the authors' release (two-step and random-state games); Claus and Boutilier (1998)",
        "QTRAN finds the optimum of small games with one optimum, where VDN misses that of the climbing "
        "game and "
        "of the two-step game.",
        Rule(
            (
                *(
                    Part(success(name, game), at_least=0.9)
                    for name in ("qtran-base", "qtran-alt")
                    for game in ONE_OPTIMUM
                ),
                *(Part(success("vdn", game), at_most=0.1) for game in ONE_OPTIMUM[:2]),
            ),
            given="Greedy returns after 10,000 steps with epsilon = 1: ",
        ),
        {"smoke": "2 min", "quick": "5 min on 2 cores", "paper": "30 min on 2 cores"},
        small_games,
    ),
)
