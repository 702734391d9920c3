"""Lecture on value factorization: what is wrong in print, each with the computation that shows it."""

import jax
import jax.numpy as jnp
import numpy as np

from envs.matrix_games import QTRAN_PAYOFF
from experiments.claims.fqi.closed_form import LECTURE_FIT, LECTURE_PAYOFF, weighted_least_squares
from jaxmarl_fac.exact.equilibria import pure_equilibria
from jaxmarl_fac.exact.projections import additive_fit
from jaxmarl_fac.report.errata import Erratum, Shown, show

SOURCE = "Lecture on value factorization (CSE510, lecture 25)"
EXACT = 1e-9


def example() -> Shown:
    """The fit of the printed payoff, and of QTRAN's game."""
    fit = np.asarray(additive_fit(LECTURE_PAYOFF).q_tot)
    bigger = np.asarray(additive_fit(np.asarray(QTRAN_PAYOFF, float)).q_tot)
    grid = jnp.linspace(0, 1, 103)[1:-1]

    def distance(p: jax.Array, q: jax.Array) -> jax.Array:
        data = [jnp.stack([p, 1 - p]), jnp.stack([q, 1 - q])]
        return jnp.max(jnp.abs(additive_fit(LECTURE_PAYOFF, data).q_tot - LECTURE_FIT))

    nearest = jnp.min(jax.vmap(jax.vmap(distance, (None, 0)), (0, None))(grid, grid))
    return show(
        np.abs(fit - LECTURE_FIT).max() > 0.05 and nearest > 0.05 and fit.argmax() == 0,
        "Uniform data give [[{fit[0][0]:g}, {fit[0][1]:g}], [{fit[1][0]:g}, {fit[1][1]:g}]], whose greedy "
        "action is the "
        "optimal one. The printed table is {nearest:.2f} away from the fits of {tried:,} product "
        "distributions; it "
        "belongs to the 3x3 game with B and C merged ({aa:.4f}, {ab:.4f}, {bb:.4f}).",
        fit=fit,
        nearest=nearest,
        tried=len(grid) ** 2,
        aa=bigger[0, 0],
        ab=bigger[0, 1],
        bb=bigger[1, 1],
    )


def dilemma() -> Shown:
    """Equilibria of the payoff."""
    payoff = jnp.asarray(LECTURE_PAYOFF)
    found = int(pure_equilibria(jnp.stack([payoff, payoff])).sum())
    dilemma = jnp.array([[3.0, 0.0], [5.0, 1.0]])
    of_dilemma = int(pure_equilibria(jnp.stack([dilemma, dilemma.T])).sum())
    return show(
        found != of_dilemma,
        "Both agents share the payoff, which has {found} pure equilibria, the better one optimal for both; "
        "a prisoner's "
        "dilemma has {right}, and it is worse for both than cooperation.",
        found=found,
        right=of_dilemma,
    )


def freedom() -> Shown:
    """Utilities of a linear solve against those of the closed form."""
    draw = np.random.default_rng(0)
    payoff = draw.uniform(-10, 10, (1, 3, 4))
    data = tuple(np.full((1, count), 1 / count) for count in (3, 4))
    solved = weighted_least_squares(payoff, data)
    closed = additive_fit(payoff[0])
    first, second = (np.asarray(a[0] - b) for a, b in zip(solved, closed.utilities, strict=True))
    return show(
        np.ptp(first) < EXACT
        and np.ptp(second) < EXACT
        and abs(first[0]) > EXACT
        and abs(first[0] + second[0]) < EXACT,
        "A random 3x4 payoff: the solution of least norm differs from the formula by w_1 = {one:.6f} in "
        "all of agent 1's "
        "utilities and by w_2 = {two:.6f} in all of agent 2's, and has the same Q_tot.",
        one=first[0],
        two=second[0],
    )


def distribution() -> Shown:
    """The closed form with the data's and with uniform expectations."""
    payoff = np.asarray(QTRAN_PAYOFF, float)
    data = [jnp.array([0.6, 0.2, 0.2])] * 2
    right, uniform = np.asarray(additive_fit(payoff, data).q_tot), np.asarray(additive_fit(payoff).q_tot)
    return show(
        np.abs(right - uniform).max() > EXACT and right.argmax() != uniform.argmax(),
        "QTRAN's game with P(A) = .6: the regression gives {right:.2f} at (A, A), and A is greedy; uniform "
        "expectations "
        "give {uniform:.4f}, and it is not.",
        right=right[0, 0],
        uniform=uniform[0, 0],
    )


def labels() -> Shown:
    """What two equal labels would mean."""
    joint = [(row, column) for row in range(2) for column in range(2)]
    possible = [pair for pair in joint if pair[0] == pair[1]]
    return show(
        len(possible) < len(joint),
        "If both axes were agent 2's action, {possible} of the {cells} cells could occur.",
        possible=len(possible),
        cells=len(joint),
    )


ERRATA = (
    Erratum(
        "lecture-2x2",
        SOURCE,
        "Limited representation",
        "[[8, -12], [-12, 0]] has the additive fit [[-6.5, -5], [-5, -3.5]]",
        "[[0, -4], [-4, -8]]",
        example,
    ),
    Erratum(
        "lecture-dilemma",
        SOURCE,
        "Limited representation",
        "prisoner's dilemma",
        "a coordination game with a common payoff",
        dilemma,
    ),
    Erratum(
        "lecture-labels", SOURCE, "Limited representation, tables", "a_2 on both axes", "a_1 and a_2", labels
    ),
    Erratum(
        "lecture-theorem-1",
        SOURCE,
        "Theorem 1",
        "Q_i = E[y|a_i] - (n - 1)/n E[y]",
        "Q_i = E[y|a_i] - (n - 1)/n E[y] + w_i with any w_i that sum to 0",
        freedom,
    ),
    Erratum(
        "lecture-data",
        SOURCE,
        "Theorem 1",
        "expectations without a distribution",
        "expectations under the factorised data",
        distribution,
    ),
)
