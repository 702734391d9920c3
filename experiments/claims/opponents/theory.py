"""Thesis, chapters 2 and 3: every statement that can be computed, on random games."""

from typing import Any

import jax
import numpy as np

from experiments.claims.opponents import (
    theory_balancing,
    theory_games,
    theory_inference,
    theory_panels,
    theory_planning,
)
from experiments.claims.opponents.statements import Group, Statement, failures, tried_and_failed
from jaxmarl_fac.report.claims import Claim, Outcome, Workshop
from jaxmarl_fac.report.verdicts import Part, Rule

#: Of all random games. The statements were worked out on those of seed 0.
SEED = 2021
GAMES = 1000

SECTIONS: tuple[dict[str, dict[str, Statement]], ...] = (
    {
        "Inference (2.1)": theory_inference.STATEMENTS,
        "One agent (2.2, 2.4)": theory_planning.STATEMENTS,
    },
    {
        "Several agents (2.5, 3.5.1)": theory_games.STATEMENTS,
        "Opponent models (3.3 to 3.5)": theory_balancing.STATEMENTS,
    },
)
STATEMENTS = {
    name: statement
    for column in SECTIONS
    for section in column.values()
    for name, statement in section.items()
}


def take_measurements(games: int, visits: int, worked_visits: int, seed: int = SEED) -> dict[str, Group]:
    """Everything in float64, by group."""
    with jax.enable_x64(True):
        return {
            "inference": theory_inference.check(games, seed),
            "planning": theory_planning.check(games, seed, visits, worked_visits),
            "games": theory_games.check(games, seed),
            "balancing": theory_balancing.check(games, seed),
        }


def theory(workshop: Workshop) -> Outcome:
    """The statements of chapters 2 and 3, on random games in float64."""
    games = workshop.choose(smoke=50, quick=GAMES, paper=GAMES)
    visits = workshop.choose(smoke=5000, quick=theory_planning.VISITS, paper=theory_planning.VISITS)
    worked = workshop.choose(
        smoke=1000, quick=theory_planning.WORKED_VISITS, paper=theory_planning.WORKED_VISITS
    )
    groups = take_measurements(games, visits, worked)
    fails = {name: each for group in groups.values() for name, each in group.fails.items()}
    measured = {failures(STATEMENTS[name].words): int(each.sum()) for name, each in fails.items()}
    counted = tried_and_failed(fails)
    ours: dict[str, Any] = {
        "games": games,
        "statements": {STATEMENTS[name].words: counted[name] for name in STATEMENTS},
        **{name: group.numbers for name, group in groups.items()},
    }
    figure = theory_panels.draw(SECTIONS, fails, {name: group.shown for name, group in groups.items()}, games)
    true = sum(not each.any() for each in fails.values())
    unsettled = fails[theory_games.NASH_SETTLES]
    friends = groups["games"].numbers["(2.68): R = 4 at (0, 0, 0) and (1, 1, 1)"]
    jumps = groups["games"].numbers["(2.67): factor of the counterexample"]
    rises = int(groups["balancing"].numbers["policy improvement"]["theorem 9, β > 0"]["rises everywhere"])
    gap = groups["balancing"].numbers["pr2 against rommeo"]["uniform priors"]["largest difference"]
    why = (
        f"{true} of {len(fails)} statements are true in all games tried; the others are shown with their "
        f"smallest counterexamples. Nash-Q's operator (2.67) widens distances by up to "
        f"{max(jumps.values()):.0f} where the equilibrium jumps, and never settles in "
        f"{np.mean(unsettled):.1%} of games; with payoffs in common or of sum 0 it is a γ-contraction. "
        f"Friends who mix independently, as (2.68) prints, may get half of what they can be sure of "
        f"({friends['independent']:g} for {friends['correlated']:g}). Theorem 3's condition is sufficient, "
        f"not necessary. (3.41) has its inequality the wrong way round: Q rises everywhere on {rises} games. "
        f"The remark after corollary 10 is true. With uniform priors PR2 and ROMMEO are one policy to "
        f"{gap:.0e}."
    )
    return Outcome(figure, dict.fromkeys(measured, 0), ours, measured, why, games)


RULE = Rule(
    tuple(Part(failures(statement.words), at_most=0) for statement in STATEMENTS.values()),
    given="Each statement as printed, on 1,000 random games in float64 that were not used to work it out (to "
    "1e-9, to 1e-6 where an iteration ends; stochastic Q-iteration: a tenth of the first error after 10,000 "
    "visits): ",
)

CLAIMS = (
    Claim(
        "theory",
        "Thesis, chapters 2 and 3: (2.2) to (2.21), (2.50) to (2.53), (2.64) to (2.68), (3.31) to (3.44)",
        "EM, policy iteration, stochastic and soft iteration, Nash-Q, friend-or-foe and the operators and "
        "updates of opponent models are as the equations, theorems and remarks print.",
        RULE,
        {"smoke": "1 min", "quick": "2 min", "paper": "2 min"},
        theory,
    ),
)
