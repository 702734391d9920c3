"""Two-player and soft learners that no other figure shows, on small games."""

from typing import Any

import numpy as np

import baselines
from baselines.probes import start_policies
from experiments.claims.overview import TEAM_GAMES, Game, Player, overview, returns, success
from jaxmarl_fac.loop import Result
from jaxmarl_fac.report.claims import Claim, Outcome, Workshop
from jaxmarl_fac.report.verdicts import Part, Rule

#: How far a probability may be from the equilibrium's.
NEAR = 0.1
#: A batch of the release's 512 would cost a minute for each game.
SMALL: dict[str, Any] = {"batch_size": 64, "replay_size": 2_000}
TABULAR = ("soft-q", "gr2-q", "gr2-q-mixture", "nash-q", "friend-q", "foe-q")
#: By Foe-Q.
MISSED = ("matrix-penalty", "matrix-climbing-t")
DEEP = ("balancing-ac", "sac-discrete", "sac")


def equilibrium(result: Result) -> np.ndarray:
    """Whether both policies are uniform, which is the only equilibrium of PR2's game, `(seeds,)`."""
    policies = result.history.last["start_policies"]  # (seeds, 2, 2)
    return np.asarray((np.abs(policies - 0.5) <= NEAR).all((1, 2)))


GAMES = {
    "matrix-pr2": Game("both play near\n(.5, .5)", equilibrium, start_policies),
    **TEAM_GAMES,
    "differential": Game("9 of 10\nor more", returns(9)),
}


def players() -> dict[str, Player]:
    """All learners, with their own defaults but for `SMALL`."""
    tabular = {
        name: Player(
            baselines.make(name, family="matrix"),
            {"smoke": 40, "quick": 1_500, "paper": 20_000},
            {"smoke": 2, "quick": 100, "paper": 1_000},
        )
        for name in TABULAR
    }
    deep = {
        name: Player(
            baselines.make(name, family="matrix", **SMALL),
            {"smoke": 40, "quick": 1_000, "paper": 20_000},
            {"smoke": 2, "quick": 16, "paper": 100},
        )
        for name in DEEP
    }
    return tabular | deep


def small_games(workshop: Workshop) -> Outcome:
    """Every pair that can work."""
    return overview(workshop, players(), GAMES, "Two-player and soft learners: seeds that succeed")


CLAIMS = (
    Claim(
        "overview",
        "Nash-Q (Hu and Wellman, 2003), Friend-or-Foe-Q (Littman, 2001), GR2, Balancing-Q, SAC",
        "Of learners that no other figure shows, Nash-Q and Friend-Q find the optimum of team games and "
        "Nash-Q the "
        "mixed equilibrium of PR2's game; Foe-Q, which expects the worst, misses optima that need trust.",
        Rule(
            (
                *(
                    Part(success(name, game), at_least=0.95)
                    for name in ("nash-q", "friend-q")
                    for game in TEAM_GAMES
                ),
                Part(success("nash-q", "matrix-pr2"), at_least=0.95),
                *(Part(success("foe-q", game), at_most=0.05) for game in MISSED),
            ),
            given="Greedy play after training, in PR2's game the policies: ",
        ),
        {"smoke": "2 min", "quick": "6 min on 2 cores", "paper": "1 h on 2 cores"},
        small_games,
    ),
)
