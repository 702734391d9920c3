"""Thesis, chapter 4: what is wrong in print, each with the computation that shows it."""

import functools
from typing import Any

import numpy as np

from experiments.claims.options import delayed, games, single
from jaxmarl_fac.report.errata import Erratum, Shown, show
from jaxmarl_fac.soft import options

SOURCE = "Thesis, chapter 4"
EXACT = 1e-6
SINGLE = (
    "the example with two states (action a leads to state a; r = 0, 1 and 2, 0; γ = .9, P(a = z|z) = .9, "
    "p = .5)"
)
DELAYED = "the example with one state (R = [[2, 0], [0, 1]], γ = .5, P(a = z|z) = .9, p = .5)"


@functools.cache
def of_single() -> dict[str, Any]:
    """What section 4.1 comes to on the worked example, by equation."""
    game = games.single_example()
    return _by_equation(single.errata(game, options.solve(game, options.SINGLE)))


@functools.cache
def of_delayed() -> dict[str, Any]:
    """The same for section 4.2."""
    game = games.delayed_example()
    return _by_equation(delayed.errata(game, options.solve(game, options.DELAYED)))


def _by_equation(found: dict[str, Any]) -> dict[str, Any]:
    return {name.partition(":")[0]: numbers for name, numbers in found.items()}


def master() -> Shown:
    """V^H of two options."""
    found = of_single()["4.6, C.3"]
    printed, right, total = (
        float(found[name])
        for name in (
            "V^H(V = (0, log 7)) as printed",
            "V^H(V = (0, log 7))",
            "sum of the printed probabilities",
        )
    )
    carried = float(of_single()["4.6"]["largest error"])
    return show(
        abs(printed - right) > EXACT and abs(total - 1) > EXACT,
        "V = (0, log 7), m = 2: as printed V^H = {printed:.6f} and the probabilities of the two options "
        "sum to "
        "{total:.6f}; right is {right:.6f}. Carried on, values of "
        + SINGLE
        + " are off by up to {carried:.3f}.",
        printed=printed,
        right=right,
        total=total,
        carried=carried,
    )


def message() -> Shown:
    """V(s', z) in place of U."""
    error = float(of_single()["4.8"]["largest error"])
    return show(
        error > EXACT,
        "Read with the V(s, z) of (4.5), no option ever ends: values of "
        + SINGLE
        + " are off by up to {error:.3f}.",
        error=error,
    )


def single_loss() -> Shown:
    """Where the loss (4.28) is least."""
    error = float(of_single()["4.28"]["largest error"])
    return show(
        error > EXACT,
        "Where the printed loss is least, Q = βr - γV: values of "
        + SINGLE
        + " are off by up to {error:.3f}.",
        error=error,
    )


def ends() -> Shown:
    """B of the agent for that of the other."""
    chance = float(of_delayed()["4.11, 4.12, 4.14"]["probability that the two differ"])
    return show(
        chance > EXACT,
        "In "
        + DELAYED
        + " the two differ with probability {chance:.3f}, at the mean over previous options: then the "
        "other would draw a new option where it goes on, or the reverse.",
        chance=chance,
    )


def two_tables() -> Shown:
    """Q(s, z̄_o, z_i) and Q(s, z̄_o, z̄_i)."""
    found = of_delayed()["4.20, 4.18"]
    q, w = np.asarray(found["Q(z̄_o, z_i)"]), np.asarray(found["W(z̄_o, z̄_i)"])
    return show(
        np.abs(q - w).max() > EXACT,
        "In "
        + DELAYED
        + " the first is [[{q[0][0]:.6f}, {q[0][1]:.6f}], [{q[1][0]:.6f}, {q[1][1]:.6f}]], the second "
        "[[{w[0][0]:.6f}, {w[0][1]:.6f}], [{w[1][0]:.6f}, {w[1][1]:.6f}]].",
        q=q,
        w=w,
    )


def missing_action() -> Shown:
    """The other's value without the agent's action."""
    error = float(of_delayed()["4.29, 4.30"]["error of the best table without it"])
    return show(
        error > EXACT,
        "In " + DELAYED + " the best table without a_i is off by {error:.3f} somewhere.",
        error=error,
    )


def missing_logarithm() -> Shown:
    """π/P in place of its logarithm."""
    error = float(of_delayed()["4.32"]["largest error"])
    return show(
        error > EXACT,
        "In " + DELAYED + " and with the right policy, the printed target is off by up to {error:.3f}.",
        error=error,
    )


def delayed_loss() -> Shown:
    """Where the loss (4.41) is least."""
    error = float(of_delayed()["4.41"]["largest error"])
    return show(
        error > EXACT,
        "Where the printed loss is least, Q = βr - γQ': values of "
        + DELAYED
        + " are off by up to {error:.3f}.",
        error=error,
    )


def time_index() -> Shown:
    """The option of this step for that of the step before."""
    error = float(of_delayed()["C.17, C.18"]["largest difference of Q(z̄_o, z_i) between options"])
    return show(
        error > EXACT,
        "z_T is drawn only after b_T. In "
        + DELAYED
        + " Q(z̄_o, z_i) differs by up to {error:.3f} between the options.",
        error=error,
    )


ERRATA = (
    Erratum(
        "thesis-4.6",
        SOURCE,
        "Equations 4.6 and C.3",
        "V^H(s) = (1/m) log Σ_z exp V(s, z)",
        "V^H(s) = log[(1/m) Σ_z exp V(s, z)]",
        master,
    ),
    Erratum(
        "thesis-4.8",
        SOURCE,
        "Equations 4.7 and 4.8",
        "V(s, z) is both the value of an option and that before its termination",
        "two tables, as in C.6: the second, U, belongs into 4.8",
        message,
    ),
    Erratum("thesis-4.28", SOURCE, "Equation 4.28", "(Q - βr + γV)²", "(Q - βr - γU)²", single_loss),
    Erratum(
        "thesis-4.11",
        SOURCE,
        "Equations 4.11, 4.12 and 4.14",
        "the other's option depends on the agent's termination, b^i",
        "on its own, b^(-i)",
        ends,
    ),
    Erratum(
        "thesis-4.20",
        SOURCE,
        "Equations 4.18 and 4.20",
        "Q(s, z̄_o, z_i) and Q(s, z̄_o, z̄_i) under one letter",
        "two tables",
        two_tables,
    ),
    Erratum(
        "thesis-4.29",
        SOURCE,
        "Equations 4.29 and 4.30",
        "Q(s, z_i, z_o) and Q(s, z_i)",
        "Q(s, z_i, z_o, a_i) and Q(s, z_i, a_i)",
        missing_action,
    ),
    Erratum("thesis-4.32", SOURCE, "Equation 4.32", "Q - π/P", "Q - log(π/P)", missing_logarithm),
    Erratum("thesis-4.41", SOURCE, "Equation 4.41", "(Q - βr + γ E Q')²", "(Q - βr - γ E Q')²", delayed_loss),
    Erratum("thesis-c.17", SOURCE, "Equations C.17 and C.18", "z_T^i", "z_(T-1)^i", time_index),
)
