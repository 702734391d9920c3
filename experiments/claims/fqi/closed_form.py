"""Theorem 1 of the lecture: the additive regression in closed form, and the lecture's example of it."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from envs.matrix_games import QTRAN_PAYOFF
from jaxmarl_fac.exact.projections import additive_fit
from jaxmarl_fac.report.claims import Claim, Outcome, Workshop
from jaxmarl_fac.report.figures import annotated_matrix, panels
from jaxmarl_fac.report.styles import PALETTE
from jaxmarl_fac.report.verdicts import TOLERANCE, Every, Part, Rule, over_games, share

#: Actions of each agent in theorem 1's games, by the number of agents.
SHAPES = {2: (4, 5), 3: (3, 4, 2), 4: (3, 2, 3, 2)}

#: The lecture's example, as printed.
LECTURE_PAYOFF = np.array([[8.0, -12.0], [-12.0, 0.0]])
LECTURE_FIT = np.array([[-6.5, -5.0], [-5.0, -3.5]])


def weighted_least_squares(payoffs: np.ndarray, data: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    """Additive fits by a linear solve, for G games: utilities, n of `(G, A_i)`.

    The solution of least norm, from the pseudoinverse of the weighted design matrix.

    Args:
        payoffs: `(G, A_1, ..., A_n)`.
        data: n of `(G, A_i)`, the probabilities of the actions.
    """
    games, *counts = payoffs.shape
    joint = np.indices(counts).reshape(len(counts), -1)  # (n, cells)
    design = np.concatenate(
        [np.eye(count)[row] for count, row in zip(counts, joint, strict=True)], axis=1
    )  # (cells, sum A_i)
    weights = math.prod(p[:, row] for p, row in zip(data, joint, strict=True))  # (G, cells)
    root = np.sqrt(weights)
    inverse = np.linalg.pinv(root[:, :, None] * design, rcond=1e-12)  # (G, sum A_i, cells)
    solution = np.einsum("gpc,gc->gp", inverse, root * payoffs.reshape(games, -1))
    return tuple(np.split(solution, np.cumsum(counts)[:-1], axis=1))


def random_data(rng: np.random.Generator, games: int, count: int) -> np.ndarray:
    """Probabilities `(games, count)` drawn from a flat Dirichlet, none below a twentieth of uniform."""
    return 0.05 / count + 0.95 * rng.dirichlet(np.ones(count), games)


def theorem1(workshop: Workshop) -> Outcome:
    """The closed form of the regression, against a linear solve."""
    games = workshop.choose(smoke=50, quick=2000, paper=20_000)
    figure, axes = panels(1, 3, (4.6, 3.7))
    figure.suptitle(f"Theorem 1: {games:,} random games for each number of agents, random factorised data")
    ours: dict[str, Any] = {}
    measured: dict[str, Any] = {}
    for n, counts in SHAPES.items():
        rng = np.random.default_rng(n)
        payoffs = rng.uniform(-10, 10, (games, *counts))
        data = tuple(random_data(rng, games, count) for count in counts)
        with jax.enable_x64(True):
            closed = jax.tree.map(np.asarray, jax.jit(jax.vmap(additive_fit))(payoffs, list(data)))
        solved = weighted_least_squares(payoffs, data)
        solved_q_tot = solved[0]
        for utility in solved[1:]:
            solved_q_tot = solved_q_tot[..., None] + utility.reshape(
                games, *(1,) * (solved_q_tot.ndim - 1), -1
            )
        error = np.abs(closed.q_tot - solved_q_tot).reshape(games, -1).max(1)  # (G,)
        # The freedom of theorem 1: each agent's difference is one number w_i, and these sum to 0.
        freedom = [a - b for a, b in zip(solved, closed.utilities, strict=True)]  # n of (G, A_i)
        constants = np.stack([w.mean(1) for w in freedom])  # (n, G)
        spread = np.max([np.ptp(w, axis=1).max() for w in freedom])
        sums = np.abs(constants.sum(0)).max()
        found = {Q_TOT_ERROR: error.max(), SPREAD: spread, SUM: sums}
        measured |= {f"{n} agents: {name}": number for name, number in found.items()}
        ours[f"{n} agents"] = {
            "actions": counts,
            "games": games,
            "exact_fraction": share(error <= TOLERANCE),
            "largest_q_tot_error": error.max(),
            "largest_spread_of_w_i": spread,
            "largest_sum_of_w_i": sums,
            "largest_w_i": np.abs(constants).max(),
        }
        label = f"n = {n}, {' × '.join(map(str, counts))} actions"
        axes[0, 0].plot(
            solved_q_tot[:40].ravel(),
            closed.q_tot[:40].ravel(),
            ".",
            markersize=3,
            color=PALETTE[n - 2],
            label=label,
        )
        axes[0, 1].hist(
            np.log10(np.maximum(error, 1e-17)), bins=40, histtype="step", color=PALETTE[n - 2], linewidth=1.6
        )
        axes[0, 2].plot(constants[0], constants[1:].sum(0), ".", markersize=2, color=PALETTE[n - 2])
    axes[0, 0].legend(fontsize="small", frameon=False, markerscale=3)
    axes[0, 0].set(xlabel="weighted least squares", ylabel="closed form", title="$Q_{tot}$ of 40 games")
    axes[0, 1].axvline(math.log10(TOLERANCE), color="0.4", linestyle="--")
    axes[0, 1].annotate(
        "accepted below $10^{-6}$ ", (-6, 0.5), xycoords=("data", "axes fraction"), ha="right"
    )
    axes[0, 1].set(
        xlabel="$\\log_{10}$ of a game's largest error in $Q_{tot}$", ylabel="games", title="error"
    )
    axes[0, 2].set(
        xlabel="$w_1$",
        ylabel="$w_2 + ... + w_n$",
        title="what theorem 1 leaves open:\n$w_i = Q_i^{solve} - Q_i^{closed}$, $\\sum_i w_i = 0$",
    )
    worst = max(entry["largest_q_tot_error"] for entry in ours.values())
    why = (
        f"Q_tot of the closed form and of the solve differ by at most {worst:.1e} on {3 * games:,} games "
        "with 2 to 4 agents; single utilities differ by one number w_i for each agent, and these sum to "
        "0. The lecture leaves the w_i out, and writes no distribution under its expectations: it must be "
        "that of the data."
    )
    return Outcome(figure, {"largest_q_tot_error": 0}, ours, measured, why, len(SHAPES) * games)


def lecture_2x2(workshop: Workshop) -> Outcome:
    """The printed table against the closed form of the printed payoff."""
    points = workshop.choose(smoke=21, quick=201, paper=1001)
    with jax.enable_x64(True):
        uniform = np.asarray(additive_fit(LECTURE_PAYOFF).q_tot)
        bigger = np.asarray(additive_fit(np.asarray(QTRAN_PAYOFF, float)).q_tot)
        grid = np.linspace(0, 1, points + 2)[1:-1]  # the probability of action 1
        first, second = (chances.ravel() for chances in np.meshgrid(grid, grid, indexing="ij"))

        def fit(p: jax.Array, q: jax.Array) -> jax.Array:
            return additive_fit(LECTURE_PAYOFF, [jnp.stack([p, 1 - p]), jnp.stack([q, 1 - q])]).q_tot

        fits = over_games(fit, first, second)  # (P^2, 2, 2)
    distance = np.abs(fits - LECTURE_FIT).max((1, 2))
    nearest = int(distance.argmin())
    right = fits.reshape(-1, 4).argmax(1) == 0
    merged = bigger[np.ix_([0, 1], [0, 1])]
    ours = {
        "closed_form_uniform_data": uniform,
        "largest_difference_uniform": np.abs(uniform - LECTURE_FIT).max(),
        "data_distributions_tried": len(fits),
        "nearest": {
            "p_action_1": [first[nearest], second[nearest]],
            "q_tot": fits[nearest],
            "largest_difference": distance[nearest],
        },
        "share_of_distributions_with_optimal_greedy_action": right.mean(),
        "qtran_3x3_uniform_data": bigger,
        "largest_difference_qtran_3x3": np.abs(merged - LECTURE_FIT).max(),
    }
    measured = {UNIFORM_FIT: ours["largest_difference_uniform"], NEAREST_FIT: distance[nearest]}

    figure, axes = panels(1, 5, (3.2, 2.9))
    figure.suptitle("The lecture's example of limited representation (exact, no seeds)")
    labels = ("action 1", "action 2")
    for place, (title, table) in enumerate(
        {
            "payoff, as printed": LECTURE_PAYOFF,
            "fit, as printed": LECTURE_FIT,
            "fit, uniform data": uniform,
            f"nearest fit of any product data,\np = {first[nearest]:.3f}, {second[nearest]:.3f}": fits[
                nearest
            ],
        }.items()
    ):
        best = np.unravel_index(table.argmax(), table.shape)
        mark = (int(best[0]), int(best[1]))
        annotated_matrix(axes[0, place], table, labels, labels, title, mark, limits=(-12, 8))
    best = np.unravel_index(bigger.argmax(), bigger.shape)
    annotated_matrix(
        axes[0, 4],
        bigger,
        "ABC",
        "ABC",
        "QTRAN's 3x3 payoff,\nfit, uniform data",
        (int(best[0]), int(best[1])),
        limits=(-12, 8),
    )
    why = (
        f"With uniform data the printed payoff has the fit {np.round(uniform, 2).tolist()}, whose greedy "
        "action is the optimal one; the printed table differs by up to "
        f"{ours['largest_difference_uniform']:.2f}, and from the fits of {len(fits):,} product "
        f"distributions by at least {distance[nearest]:.2f}. It is near that of the 3x3 game "
        f"[[8,-12,-12],[-12,0,0],[-12,0,0]] ({merged[0, 0]:.2f}, {merged[0, 1]:.2f}, {merged[1, 1]:.2f}). "
        f"Additive values do fail on this payoff for {1 - right.mean():.0%} of the distributions, not for "
        "uniform data. Nor is it a prisoner's dilemma: the agents share one payoff."
    )
    return Outcome(
        figure, {"payoff": LECTURE_PAYOFF.tolist(), "fit": LECTURE_FIT.tolist()}, ours, measured, why
    )


Q_TOT_ERROR = "largest difference of Q_tot in closed form from Q_tot by a weighted least-squares solve"
SPREAD = "largest deviation of an agent's utilities from differing by one number w_i"
SUM = "largest sum of the w_i"


def _exact(n: int) -> Every:
    names = (Q_TOT_ERROR, SPREAD, SUM)
    return Every(tuple(Part(f"{n} agents: {name}", at_most=TOLERANCE) for name in names))


UNIFORM_FIT = "largest difference in a cell of the closed form under uniform data from the printed fit"
NEAREST_FIT = "the same under that product distribution of the data, of a grid, which comes nearest"

CLAIMS = (
    Claim(
        "theorem1",
        "lecture, theorem 1",
        "The additive regression has a closed form: each agent's expected target minus a share of the mean.",
        Rule(
            tuple(map(_exact, SHAPES)),
            given="Over all cells of all games, random payoffs in [-10, 10] and random factorised data: ",
        ),
        {"smoke": "5 s", "quick": "10 s", "paper": "1 min"},
        theorem1,
    ),
    Claim(
        "lecture_2x2",
        "lecture, example of limited representation",
        "The payoff [[8, -12], [-12, 0]] has the additive fit [[-6.5, -5], [-5, -3.5]].",
        Rule((Part(UNIFORM_FIT, at_most=0.05),), partly=Part(NEAREST_FIT, at_most=0.05)),
        {"smoke": "2 s", "quick": "5 s", "paper": "30 s"},
        lecture_2x2,
    ),
)
