"""ReMIX, section 2.3, lemmas 1 to 6, theorem 1 and equations 5 to 31: each statement on random games."""

from typing import Any, NamedTuple

import jax
import numpy as np
from matplotlib.axes import Axes

from envs.matrix_games import QTRAN_PAYOFF
from experiments.claims.remix import statements as of
from experiments.claims.remix import weights as by
from jaxmarl_fac.exact.regret import largest_boltzmann_gap
from jaxmarl_fac.report.claims import Claim, Outcome, Workshop
from jaxmarl_fac.report.figures import annotated_matrix, bar_counts, panels
from jaxmarl_fac.report.styles import PALETTE
from jaxmarl_fac.report.verdicts import Part, Rule, share

GAMES, STARTS, STEPS = 1000, 3, 300
#: Weights are optimal if they leave no more than this share of what uniform ones leave beyond the least.
TOLERANCE = 0.01
#: Weights are settled if no more than this part of them still moves.
SETTLED = 1e-3

THEOREM_1 = "theorem 1"
STATEMENTS = {
    of.RETURN: "2.3: η = E r / (1 - γ) under d",
    of.LEMMA_1: "lemma 1: slopes of a mixer",
    of.LEMMA_2: "lemma 2: total variation, f ≤ C",
    of.LEMMA_3: "lemma 3: |∂d/∂π| ≤ ε d",
    of.SMALL: "below (28): ε_0 ≤ d",
    of.LEMMA_4: "lemma 4: Boltzmann's gap ≤ 1",
    of.LEMMA_5: "lemma 5: performance difference",
    of.EQUATION_5: "(5): regret bound, no + 1",
    of.EQUATION_18: "(18): regret bound",
    of.EQUATION_20: "(20): Jensen for exp(-x)",
    of.EQUATION_6: "(6) lies above (5)'s right-hand side",
    of.EQUATION_23: "(23): Σ p (Q_k - y) = 0",
    of.EQUATION_24: "(24): ∂Q_k/∂p",
    of.EQUATION_25: "(25): ∂d/∂p",
    of.EQUATION_26: "(26): ∂L/∂p = 0 (for any p)",
    of.EQUATION_27: "(27): ∂L/∂p",
    of.EQUATION_28: "(28) follows from (24), (25), (27)",
    of.SIGN: "(28) is never below 0",
    of.DENOMINATOR: "(28): ν - λ is not 0",
    of.EQUATION_30: "(30), (29): ε_k's sign as in (28)",
    of.LEMMA_6: "lemma 6, (29)-(31): an optimal p is (17)",
    THEOREM_1: "theorem 1: w minimises regret",
}


def failures(statement: str) -> str:
    """What the rule calls it."""
    return f"failures of {statement}"


class Measurements(NamedTuple):
    """All that the figure shows."""

    statements: of.Found
    weights: dict[str, dict[str, by.Projection]]  # by game
    fails: of.Fails  # of all statements


def take_measurements(games: int, steps: int) -> Measurements:
    """Everything in float64."""
    with jax.enable_x64(True):
        statements = of.check_statements(games)
        payoffs = {f"{count}×{count}": by.random_payoffs(games, count, count) for count in (2, 3)}
        payoffs["QTRAN's game"] = np.asarray([QTRAN_PAYOFF], float)
        weights = {name: by.compare(payoff, STARTS, steps) for name, payoff in payoffs.items()}

    regret = {
        kind: np.concatenate([found[kind].regret for found in weights.values()])
        for kind in (by.UNIFORM, by.PRINTED, by.OPTIMAL)
    }
    allowed = TOLERANCE * np.maximum(regret[by.UNIFORM] - regret[by.OPTIMAL], 0)
    fails = statements.fails | {THEOREM_1: regret[by.PRINTED] - regret[by.OPTIMAL] > allowed + of.EXACT}
    return Measurements(statements, weights, {name: fails[name] for name in STATEMENTS})


def theory(workshop: Workshop) -> Outcome:
    """Every statement on random games in float64, and theorem 1's weights against the best ones."""
    games = workshop.choose(smoke=20, quick=GAMES, paper=GAMES)
    found = take_measurements(games, workshop.choose(smoke=100, quick=STEPS, paper=STEPS))
    measured = {failures(name): int(fails.sum()) for name, fails in found.fails.items()}
    ours: dict[str, Any] = {
        "games": games,
        "statements": {
            name: {"tried": len(fails), "failures": int(fails.sum())} for name, fails in found.fails.items()
        },
        "numbers": found.statements.numbers,
        "weights": {name: _about(of_game) for name, of_game in found.weights.items()},
    }
    true = ", ".join(name for name, fails in found.fails.items() if not fails.any())
    numbers, qtran = found.statements.numbers, found.weights["QTRAN's game"]
    two, nine = numbers["equation 5 with two actions"], numbers["equation 18 with nine actions"]
    medians = ", ".join(
        f"{np.median(by.saved(of_game, by.PRINTED)):.0%} in {name} games"
        for name, of_game in found.weights.items()
        if name != "QTRAN's game"
    )
    regrets = ", ".join(f"{kind} {float(qtran[kind].regret[0]):.2f}" for kind in by.KINDS)
    why = (
        f"True in all games: {true}. (5) fails with two actions (regret {two['regret']:.6f} > "
        f"{two['without_one']:.6f}), (18) with nine ({nine['regret']:.6f} > {nine['with_one']:.6f}), and (6) "
        f"lies below (5), not above: in one state it is 0 for all weights. Weights have no scale, so that "
        f"λ* = 0 and (28) divides by 0. Of the regret that uniform weights leave beyond the least, theorem "
        f"1's avoid (median) {medians}. QTRAN's game: "
        f"{regrets}."
    )
    return Outcome(_draw(found, games), dict.fromkeys(measured, 0), ours, measured, why, games)


def _about(found: dict[str, by.Projection]) -> dict[str, Any]:
    return {
        kind: {
            "median regret": np.median(each.regret),
            "greedy action optimal": share(each.greedy),
            "median share of the avoidable regret that is avoided": np.median(by.saved(found, kind)),
            "less regret than uniform weights": share(each.regret < found[by.UNIFORM].regret - of.EXACT),
            "largest residual": each.residual.max(),
            "settled": share(each.residual < SETTLED),
        }
        for kind, each in found.items()
    }


def _draw(found: Measurements, games: int) -> Any:
    title = f"ReMIX's statements on {games:,} random games of each kind (float64)"
    figure, axes = panels(3, 3, (5.2, 3.9), title)
    grid = axes[0, 0].get_gridspec()
    for row in range(3):
        axes[row, 0].remove()
    _draw_statements(figure.add_subplot(grid[:, 0]), found.fails)
    _draw_supremum(axes[0, 1])
    _draw_counterexamples(axes[0, 2], found.statements.numbers)
    _draw_jensen(axes[1, 1], found.statements.bounds)
    _draw_derivative(axes[1, 2], found.statements.numbers)
    _draw_random_games(axes[2, 1], found.weights["3×3"])
    qtran = found.weights["QTRAN's game"]
    bar_counts(
        axes[2, 2],
        [kind.replace(" ", "\n") for kind in by.KINDS],
        {"regret": [float(qtran[kind].regret[0]) for kind in by.KINDS]},
        ylabel="regret",
        title="regret in QTRAN's game, by weights",
        value_format="{:.2f}",
    )
    return figure


def _draw_statements(axes: Axes, fails: of.Fails) -> None:
    """Each statement and whether it holds."""
    axes.set_axis_off()
    axes.set_title("the statements as printed")
    for row, (name, words) in enumerate(STATEMENTS.items()):
        bad, tried = int(fails[name].sum()), len(fails[name])
        verdict = f"false in {bad:,} of {tried:,}" if bad else f"true in {tried:,}"
        height = 1 - (row + 0.7) / len(STATEMENTS)
        shown = words.replace(" - ", " \N{MINUS SIGN} ").replace("(-", "(\N{MINUS SIGN}")
        axes.text(0.0, height, shown, transform=axes.transAxes, fontsize="small")
        axes.text(
            0.6, height, verdict, transform=axes.transAxes, fontsize="small",
            color=PALETTE[3] if bad else "black", fontweight="bold" if bad else "normal",
        )  # fmt: skip


def _draw_supremum(axes: Axes) -> None:
    counts = np.unique(np.geomspace(2, 6**8, 200).astype(int))
    axes.plot(
        counts, largest_boltzmann_gap(counts), color=PALETTE[0], label="supremum, W((N \N{MINUS SIGN} 1)/e)"
    )
    axes.axhline(1, color=PALETTE[3], linestyle="--", linewidth=1, label="lemma 4's bound")
    for count, label in ((2, "2: .278"), (9, "9: 1.040"), (36, "36: 1.909"), (6**8, "6⁸: 10.94")):
        height = float(largest_boltzmann_gap(count))
        last = count == 6**8
        axes.plot([count], [height], "o", color=PALETTE[0], markersize=4)
        axes.annotate(
            label, (count, height), xytext=(-6, -8) if last else (6, -3),
            textcoords="offset points", ha="right" if last else "left", va="top",
            fontsize="small",
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set(
        title="lemma 4: the largest gap of a Boltzmann policy",
        ylim=(-1, None),
        xlabel="joint actions N",
        ylabel="max Q \N{MINUS SIGN} E Q",
    )
    axes.legend(fontsize="small", frameon=False, loc="upper left")
    axes.grid(alpha=0.25)


def _draw_counterexamples(axes: Axes, numbers: dict[str, Any]) -> None:
    """Regret beyond (5) in one state where Q* = (20, 0, ..., 0) and Q_k = (z, 0, ..., 0)."""
    ahead = np.linspace(0, 8, 321)
    cases = (
        (2, "equation 5 with two actions", "without_one", PALETTE[0]),
        (9, "equation 18 with nine actions", "with_one", PALETTE[1]),
        (36, "", "", PALETTE[2]),
    )
    for count, name, bound, shade in cases:
        axes.plot(
            ahead, ahead * (count - 1) / (np.exp(ahead) + count - 1), color=shade, label=f"{count} actions"
        )
        if name:
            best, numbers_of = 1 + float(largest_boltzmann_gap(count)), numbers[name]
            axes.plot([best], [best - 1], "o", color=shade, markersize=4)
            axes.annotate(
                f"{numbers_of['regret']:.3f} > {numbers_of[bound]:.3f}", (best, best - 1), xytext=(2, 5),
                textcoords="offset points", fontsize="small",
            )  # fmt: skip
    axes.axhline(0, color="0.45", linewidth=1)
    axes.axhline(1, color=PALETTE[3], linestyle="--", linewidth=1)
    axes.annotate(
        "(18) fails above", (8, 1), xytext=(0, 3), textcoords="offset points", ha="right", fontsize="small"
    )
    axes.annotate(
        "(5) fails above", (8, 0), xytext=(0, -11), textcoords="offset points", ha="right", fontsize="small"
    )
    axes.set(
        title="one state, $Q^* = (20, 0, ..., 0)$, $Q_k = (z, 0, ..., 0)$",
        xlabel="z",
        ylabel="regret minus (5)'s right-hand side",
        ylim=(-0.25, 2.25),
    )
    axes.legend(fontsize="small", frameon=False, loc="upper right")
    axes.grid(alpha=0.25)


def _draw_jensen(axes: Axes, bounds: dict[str, of.RegretBounds]) -> None:
    kinds = (of.ONE_STATE_4, of.ADDITIVE, of.MONOTONE)
    for kind, shade in zip(kinds, PALETTE, strict=False):
        shown = bounds[kind]
        axes.scatter(shown.without_one, shown.jensen, s=4, alpha=0.4, color=shade, label=kind)
    ends = np.asarray(axes.get_xlim())
    axes.plot(ends, ends, color="0.45", linewidth=1, linestyle="--", label="equal")
    axes.set(
        title="Jensen's step lowers the bound",
        xlabel="(5), right-hand side",
        ylabel="(6), which shall lie above it",
    )
    axes.legend(fontsize="small", frameon=False, loc="lower left", markerscale=3)
    axes.grid(alpha=0.25)


def _draw_derivative(axes: Axes, numbers: dict[str, Any]) -> None:
    table = numbers["equation 24 in QTRAN's game, by p(u)"]
    annotated_matrix(
        axes, table["true"], "ABC", "ABC",
        "(24) in QTRAN's game: true ∂Q(A, A)/∂p(u)\n"
        f"printed {table['printed'][0][0]:.0f} at (A, A), 0 elsewhere",
        value_format="{:.2f}",
    )  # fmt: skip


def _draw_random_games(axes: Axes, found: dict[str, by.Projection]) -> None:
    shades = dict(zip(by.KINDS, ("0.45", *PALETTE), strict=False))
    for kind in by.KINDS[:-1]:
        beyond = np.sort(np.maximum(found[kind].regret - found[by.OPTIMAL].regret, 1e-6))
        axes.plot(beyond, np.arange(1, len(beyond) + 1) / len(beyond), color=shades[kind], label=kind)
    axes.set_xscale("log")
    axes.set(
        title="random 3×3 games, additive class, by weights",
        xlabel="regret beyond the least that was found",
        ylabel="share of games",
        ylim=(0, 1),
    )
    axes.legend(fontsize="small", frameon=False, loc="upper left")
    axes.grid(alpha=0.25)


RULE = Rule(
    tuple(Part(failures(name), at_most=0) for name in STATEMENTS),
    given="On 1,000 random games, mixers or distributions of each kind in float64 (bounds: one state with 4 "
    "and with 36 joint actions, additive fits, team MDPs of two agents with additive and monotone values; "
    "weights: 2×2 and 3×3 payoffs and QTRAN's, additive class; optimal means all but 1 % of what lies "
    "between uniform weights and the least that gradient descent finds): ",
)

CLAIMS = (
    Claim(
        "theory",
        "ReMIX, section 2.3, lemmas 1 to 6, theorem 1 and equations 5 to 31",
        "Each statement of the derivation holds, and the weights that it ends in minimise the relaxed "
        "problem and the regret.",
        RULE,
        {"smoke": "1 min", "quick": "2 min", "paper": "2 min"},
        theory,
    ),
)
