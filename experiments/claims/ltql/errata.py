"""Logical Team Q-learning: what is wrong in print, each with the computation that shows it."""

import jax.numpy as jnp
import numpy as np

from envs.matrix_games import LTQL_PAYOFF
from envs.team_mdp import TeamModel
from jaxmarl_fac.exact.team import team_residuals
from jaxmarl_fac.report.errata import Erratum, Shown, show

SOURCE = "Logical Team Q-learning (Cassano and Sayed, 2021)"
EXACT = 1e-9


def discount() -> Shown:
    """Values of a state that returns to itself, with r = 1."""
    printed = right = 0.0
    for _ in range(1000):
        printed, right = printed + 0.1 * (1 + printed - printed), right + 0.1 * (1 + 0.9 * right - right)
    return show(
        printed > right + 1,
        "A state that returns to itself, r = 1, γ = .9, μ = .1: after 1,000 updates the printed target has "
        "led to {printed:.1f} "
        "and is still rising, with γ the value is {right:.3f}, near 1/(1 - γ) = 10.",
        printed=printed,
        right=right,
    )


def names() -> Shown:
    """The tables of the algorithm box."""
    initialised, updated = {"q_R", "q_U"}, {"q_B", "q_U"}
    return show(
        initialised != updated,
        "The box initialises {first} and updates {second}: one table under two names.",
        first=" and ".join(sorted(initialised)),
        second=" and ".join(sorted(updated)),
    )


def second_if() -> Shown:
    """One update where both conditions hold."""
    mu, target = 0.1, 1.0
    once = mu * target
    twice = once + mu * (target - once)
    return show(
        twice > once,
        "q_B = 0, target 1, μ = .1, α = 1, the others greedy: one update leads to {once:g}, both to "
        "{twice:g}.",
        once=once,
        twice=twice,
    )


def over_agents() -> Shown:
    """The residual of (2) with and without the maximum over agents, on random q."""
    draw = np.random.default_rng(0)
    model = TeamModel(
        jnp.asarray(draw.dirichlet(np.ones(5), (5, 3, 3))),
        jnp.asarray(draw.uniform(0, 10, (5, 3, 3))),
        jnp.zeros(5, bool),
    )
    q = tuple(jnp.asarray(draw.uniform(0, 10, (5, 3))) for _ in range(2))
    own, all_agents = (
        float(team_residuals(model, 0.9, q, over_agents=each).optimality) for each in (False, True)
    )
    return show(
        abs(own - all_agents) > EXACT,
        "On random q of a random team MDP the residual of (2) is {all_agents:.4f} with the printed maximum "
        "over agents k' and "
        "{own:.4f} without. At a solution all agents have the same maximum, and both are 0.",
        own=own,
        all_agents=all_agents,
    )


def budget() -> Shown:
    """Step size times updates of an epoch."""
    ours, theirs = 1e-5 * 50, 1e-6 * 5
    return show(
        ours > theirs,
        "An epoch of LTQL, Hysteretic and IQL has 50 updates of step size 1e-5 on 1,024 samples, one of "
        "QMIX and QTRAN 5 of 1e-6 on "
        "256: a factor of {factor:g} in steps and of {samples:g} in samples.",
        factor=ours / theirs,
        samples=50 * 1024 / (5 * 256),
    )


def epsilon() -> Shown:
    """ε of both schedules after 50,000 steps."""
    step = 50_000
    slow, fast = (max(0.05, 1 - step / steps) for steps in (200_000, 50_000))
    return show(
        slow > fast,
        "After 50,000 of 100,000 steps LTQL and QTRAN explore with ε = {slow:g}, Hysteretic, IQL and QMIX "
        "with {fast:g}.",
        slow=slow,
        fast=fast,
    )


def one_step() -> Shown:
    """One step of Q-learning from the table of distributed Q-learning."""
    payoff = np.asarray(LTQL_PAYOFF, float)
    distributed = payoff.max(axis=1)  # of agent 1
    right = payoff.mean(axis=1)  # where independent Q-learning ends with uniform actions
    printed = distributed.copy()
    printed[0] += 0.1 * (payoff[0, 0] - printed[0])
    return show(
        np.abs(printed - right).max() > EXACT,
        "Agent 1's table of distributed Q-learning is ({start[0]:g}, {start[1]:g}); one step at (1, 1) "
        "makes it ({printed[0]:g}, "
        "{printed[1]:g}). Independent Q-learning ends at ({right[0]:.3f}, {right[1]:.3f}).",
        start=distributed,
        printed=printed,
        right=right,
    )


def wins() -> Shown:
    """One win, then small losses, over 50 test games."""
    returns = np.full(50, -0.25)
    returns[0] = 10.0
    printed, right = (np.cumsum(returns) > 0).mean(), (returns > 0).mean()
    return show(
        printed > right,
        "One return of 10, then 49 of -.25: the release counts {printed:.0%} of the games as won, "
        "{right:.0%} are.",
        printed=printed,
        right=right,
    )


def two_seeds() -> Shown:
    """How often the range of a few seeds holds the median of all."""
    chance = {seeds: 1 - 2 * 0.5**seeds for seeds in (2, 10)}
    return show(
        chance[2] < 0.95,
        "The range of two seeds holds the median of the distribution with probability {two:g}, that of ten "
        "with {ten:.4f}.",
        two=chance[2],
        ten=chance[10],
    )


ERRATA = (
    Erratum("ltql-discount", SOURCE, "Algorithm box", "r + max q_U(s', a)", "r + γ max q_U(s', a)", discount),
    Erratum("ltql-names", SOURCE, "Algorithm box", "q_R and q_B", "one table, q_B", names),
    Erratum(
        "ltql-second-if",
        SOURCE,
        "Algorithm box, against the authors' release",
        "a second, independent if",
        "elif: else q_B is updated twice where both conditions hold",
        second_if,
    ),
    Erratum(
        "ltql-equation-2",
        SOURCE,
        "Equation (2)",
        "max over a' and k of q^k(s', a', k')",
        "max over a' of q^k alone, as in (1); at a solution both are the same",
        over_agents,
    ),
    Erratum(
        "ltql-release-budget",
        SOURCE,
        "The authors' release, pursuit",
        "QMIX and QTRAN are compared with LTQL",
        "they got a small part of its training",
        budget,
    ),
    Erratum(
        "ltql-release-epsilon",
        SOURCE,
        "The authors' release, team MDP",
        "one exploration for all",
        "LTQL and QTRAN explore far longer than the others",
        epsilon,
    ),
    Erratum(
        "ltql-release-iql",
        SOURCE,
        "The authors' release, matrix game",
        "a curve of independent Q-learning",
        "it is one step away from the table of distributed Q-learning",
        one_step,
    ),
    Erratum(
        "ltql-release-wins",
        SOURCE,
        "The authors' release, team MDP",
        "the share of games won",
        "the share of games after which the summed return is above 0",
        wins,
    ),
    Erratum(
        "ltql-release-seeds",
        SOURCE,
        "The authors' release, pursuit",
        "a shaded range around each curve",
        "it is the range of two seeds, which says little",
        two_seeds,
    ),
)
