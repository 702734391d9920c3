"""Thesis, section 4.1: the closed form of soft options for one agent, and what is printed of it."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes

from experiments.claims.options import games
from jaxmarl_fac.report.claims import Claim, Outcome, Workshop
from jaxmarl_fac.report.figures import annotated_matrix, panels
from jaxmarl_fac.report.styles import PALETTE
from jaxmarl_fac.report.verdicts import TOLERANCE, Part, Rule, over_games
from jaxmarl_fac.soft import operators, options
from jaxmarl_fac.soft.planning import fixed_point

GAMES = 1000
#: Of sums and contractions in float64.
EXACT = 1e-9

ERROR = "the largest error of the worked example"
FACTOR = "the largest shrinkage by the Bellman operator of a distance, as a multiple of γ"
GAIN = "the most that other policies gain in the objective (4.4)"
SUM = "the sum of the master policy's probabilities (4.6) as printed, at V = (0, log 7)"


def printed_master_value(values: jax.Array) -> jax.Array:
    """V^H(s) as (4.6) prints it, `(1/m) log Σ_z e^{V(s, z)}`, `()`, of `values (m,)`."""
    return jax.nn.logsumexp(values) / values.shape[0]


def printed_master_sum(values: jax.Array) -> jax.Array:
    """The sum `()` of the master policy `e^{V(s, z)} / m / e^{V^H(s)}` with V^H as printed."""
    return jnp.sum(jnp.exp(values - printed_master_value(values))) / values.shape[0]


def printed_fixed_point(game: options.OptionGame, uses: str) -> jax.Array:
    """V(s, z) `(S, m)` at the fixed point of an equation as it is printed.

    Args:
        game: of one agent, without terminal states.
        uses: "4.6" for V^H as printed; "4.8" for the option's own value V(s', z) in place of U; "4.28" for
            the minimiser of the loss, with minus γ.
    """
    p = game.termination_prior

    def option_values(q: jax.Array) -> jax.Array:
        return operators.log_mean_exp(q, game.action_priors[0], 1.0)

    def operator(q: jax.Array) -> jax.Array:
        values = option_values(q)
        if uses == "4.6":
            master = jax.vmap(printed_master_value)(values)[:, None]
            message = jnp.logaddexp(jnp.log(p) + master, jnp.log1p(-p) + values)
        elif uses == "4.8":
            message = values
        else:
            message = -options.backup(game, options.SINGLE, q).values["termination"]
        following = jnp.einsum("sat,tz->sza", game.transition, message)
        return game.beta * game.reward[:, None] + game.gamma * following

    start = jnp.zeros((*game.action_priors[0].shape,), game.reward.dtype)
    return option_values(fixed_point(operator, start, contraction=game.gamma))


def errata(game: options.OptionGame, solution: options.SoftOptions) -> dict[str, Any]:
    """What is wrong in print, each with numbers."""
    values = jnp.log(jnp.array([1.0, 7.0]))
    right = solution.values["action"]
    found: dict[str, Any] = {
        "4.6, C.3: V^H has 1/m before the logarithm": {
            "V^H(V = (0, log 7)) as printed": printed_master_value(values),
            "V^H(V = (0, log 7))": operators.log_mean_exp(values, 0.5, 1.0),
            "sum of the printed probabilities": printed_master_sum(values),
            "both forms at V = (0, log 3)": printed_master_value(jnp.log(jnp.array([1.0, 3.0]))),
        },
    }
    for equation, what in (
        ("4.6", "V^H as printed, carried on by (4.8)"),
        (
            "4.8",
            "(4.7) and (4.8) call both V(s, z) and U(s, z) V: V(s', z) in place of U, no option ever ends",
        ),
        ("4.28", "the loss has Q - βr + γV for Q - βr - γV"),
    ):
        printed = printed_fixed_point(game, equation)
        found[f"{equation}: {what}"] = {
            "V(s, z) of the worked example": printed,
            "largest error": jnp.max(jnp.abs(printed - right)),
        }
    return jax.tree.map(np.asarray, found)


def exact_single(workshop: Workshop) -> Outcome:
    """The worked example and random games, in float64."""
    count = workshop.choose(smoke=20, quick=GAMES, paper=GAMES)
    with jax.enable_x64(True):
        game = games.single_example()
        solution = options.solve(game, options.SINGLE)
        numbers = games.single_numbers(solution)
        flat = options.solve(games.single_example(np.full((2, 2), 0.5)), options.SINGLE)
        flat_error = max(
            float(jnp.max(jnp.abs(flat.values[name].T - jnp.array(games.SINGLE_FLAT))))
            for name in ("action", "termination", "option")
        )
        wrong = errata(game, solution)
        checks = over_games(
            lambda drawn, key: games.check_fixed_point(drawn, key, options.SINGLE),
            games.random_games(jax.random.key(0), count, agents=1),
            jax.random.split(jax.random.key(1), count),
        )
        gaps = np.linspace(-4, 4, 201)
        sums = {
            m: np.asarray(
                jax.vmap(lambda gap, m=m: printed_master_sum(jnp.zeros(m).at[0].set(gap)))(jnp.asarray(gaps))
            )
            for m in (2, 3, 4)
        }
        printed_sum = float(printed_master_sum(jnp.log(jnp.array([1.0, 7.0]))))

    measured = {
        ERROR: max(games.largest_error(games.SINGLE_NUMBERS, numbers), flat_error),
        FACTOR: float(checks.contraction.max()),
        GAIN: float(checks.gain.max()),
        SUM: printed_sum,
    }
    ours = {
        "worked example": numbers,
        "errata": wrong,
        "games": count,
        "median of the shrinkage, as a multiple of γ": np.median(checks.shrinkage),
        "median of the mean loss of other policies": np.median(checks.improvement),
    }
    printed, right = (
        wrong["4.6, C.3: V^H has 1/m before the logarithm"][name]
        for name in ("V^H(V = (0, log 7)) as printed", "V^H(V = (0, log 7))")
    )
    errors = {
        name.split(":")[0]: float(entry["largest error"])
        for name, entry in wrong.items()
        if "largest error" in entry
    }
    why = (
        f"The worked example comes out to {measured[ERROR]:.0e}. On {count:,} random games the operator "
        f"shrinks every distance by γ at least, and none of {4 * count:,} other policies gains in the "
        f"objective. As printed, V^H is {printed:.6f} at V = (0, log 7), where log[(1/m) Σ e^V] is "
        f"{right:.6f}, and the master policy sums to {printed_sum:.3f}. Values of the worked example by the "
        f"equations as printed are off by {errors['4.6']:.3f} (4.6), {errors['4.8']:.3f} (4.8 with the V of "
        f"4.5) and {errors['4.28']:.3f} (4.28)."
    )
    figure = _draw(numbers, checks, gaps, sums)
    return Outcome(figure, dict(games.SINGLE_NUMBERS), ours, measured, why, count)


def _draw(
    numbers: Mapping[str, np.ndarray], checks: games.Checks, gaps: np.ndarray, sums: Mapping[int, np.ndarray]
) -> Any:
    figure, axes = panels(2, 3, (4.4, 3.5), "Soft options of one agent, exactly (thesis, 4.5 to 4.8)")
    options_, states = ("option 0", "option 1"), ("state 0", "state 1")
    values = np.concatenate([numbers["V(s, z)"], numbers["V^H(s)"][:, None], numbers["U(s, z̄)"]], axis=1)
    annotated_matrix(
        axes[0, 0],
        values,
        states,
        ("V(s, 0)", "V(s, 1)", "$V^H$(s)", "U(s, 0)", "U(s, 1)"),
        "worked example: values",
        value_format="{:.3f}",
    )
    annotated_matrix(
        axes[0, 1],
        numbers["π^H(z|s)"],
        states,
        options_,
        "master policy π$^H$(z|s)",
        limits=(0, 1),
        value_format="{:.3f}",
    )
    annotated_matrix(
        axes[0, 2],
        numbers["π^T(1|s, z̄)"],
        states,
        options_,
        "termination π$^T$(b = 1|s, previous option)",
        limits=(0, 1),
        value_format="{:.3f}",
    )
    for shade, (m, total) in zip(PALETTE, sums.items(), strict=False):
        axes[1, 0].plot(gaps, total, color=shade, label=f"m = {m}")
    axes[1, 0].axhline(1, color="0.45", linestyle="--", linewidth=1, label="corrected", zorder=0)
    axes[1, 0].plot([np.log(7)], [np.sqrt(2)], "o", color=PALETTE[0])
    axes[1, 0].annotate(
        "V = (0, log 7): 1.414",
        (np.log(7), np.sqrt(2)),
        xytext=(-6, 8),
        textcoords="offset points",
        ha="right",
        fontsize="small",
    )
    axes[1, 0].set(
        title="master policy as printed (4.6)",
        xlabel="V(s, 0) less that of the other options",
        ylabel="sum of its probabilities",
    )
    axes[1, 0].legend(fontsize="small", frameon=False, loc="upper left")
    draw_contraction(axes[1, 1], checks)
    draw_losses(axes[1, 2], checks)
    return figure


def draw_contraction(axes: Axes, checks: games.Checks) -> None:
    """By how much distances shrink on random games."""
    axes.hist(checks.shrinkage, bins=list(np.linspace(0, 1.05, 43)), color=PALETTE[0])
    axes.axvline(1, color="0.45", linestyle="--", linewidth=1)
    axes.set(
        title=f"contraction on {len(checks.contraction):,} random games",
        xlabel="shrinkage of the distance of two tables / γ",
        ylabel="games",
    )


def draw_losses(axes: Axes, checks: games.Checks) -> None:
    """What other policies lose on random games."""
    losses = np.log10(np.maximum(checks.improvement, 1e-12))
    axes.hist(losses, bins=40, color=PALETTE[2])
    axes.set(
        title="loss of perturbed policies",
        xlabel="$\\log_{10}$ of the mean loss in the objective",
        ylabel="games",
    )


CLAIMS = (
    Claim(
        "exact_single",
        "Thesis, equations 4.4 to 4.8 and appendix C.1",
        "Soft options of one agent have a closed form: the fixed point of a contraction, whose termination, "
        "master and action policies are optimal.",
        Rule(
            (
                Part(ERROR, at_most=TOLERANCE),
                Part(FACTOR, at_most=1 + EXACT),
                Part(GAIN, at_most=EXACT),
                Part(SUM, equals=1, within=EXACT),
            ),
            given="In float64, on the worked example with two states and on 1,000 random games: ",
        ),
        {"smoke": "10 s", "quick": "20 s", "paper": "20 s"},
        exact_single,
    ),
)
