"""The picture of the thesis's statements: all of them in words, and what the false ones look like."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from experiments.claims.opponents import theory_balancing, theory_games
from experiments.claims.opponents.statements import Statement
from jaxmarl_fac.report.figures import bar_counts, panels
from jaxmarl_fac.report.styles import PALETTE

#: Lines of a table of statements that one axes has room for.
LINES = 35


def draw(
    tables: Sequence[Mapping[str, Mapping[str, Statement]]],
    fails: Mapping[str, np.ndarray],
    shown: Mapping[str, Mapping[str, Any]],
    games: int,
) -> Any:
    """The whole picture.

    Args:
        tables: for the left and the right column, statements by heading.
        fails: by statement, `(tried,)` bool.
        shown: by group, what its panels need.
        games: how many were tried of each kind.
    """
    title = f"The thesis's statements on {games:,} random games of each kind (float64)"
    figure, axes = panels(5, 3, (5.4, 3.7), title)
    for each in axes[:2].ravel():
        each.remove()
    grid = axes[0, 0].get_gridspec()
    table = grid[:2, :].subgridspec(1, 2, wspace=0.02)
    for column, sections in enumerate(tables):
        _draw_statements(figure.add_subplot(table[0, column]), sections, fails)
    _draw_em(axes[2, 0], shown["inference"])
    _draw_schedules(axes[2, 1], shown["planning"]["schedules"])
    _draw_jump(axes[2, 2], *shown["games"]["jump"])
    _draw_unsettled(axes[3, 0], shown["games"]["unsettled"])
    _draw_friends(axes[3, 1], *shown["games"]["friends"])
    _draw_contraction(axes[3, 2], shown["balancing"]["factors"])
    _draw_orders(axes[4, 0], shown["balancing"]["values"])
    _draw_distances(axes[4, 1], shown["balancing"]["distances"])
    _draw_directions(axes[4, 2], shown["balancing"]["changes"])
    return figure


def _signs(text: str) -> str:
    """With minus signs in place of hyphens before numbers and symbols, and in differences."""
    for before in (" ", "(", "^", "±", "["):
        text = text.replace(f"{before}-", f"{before}\N{MINUS SIGN}")
    return text.replace(" \N{MINUS SIGN} ", " \N{MINUS SIGN} ").replace("-γ", "\N{MINUS SIGN}γ")


def _draw_statements(
    axes: Axes, sections: Mapping[str, Mapping[str, Statement]], fails: Mapping[str, np.ndarray]
) -> None:
    """Each statement, whether it holds, and below a false one its smallest counterexample."""
    axes.set_axis_off()
    line = 0

    def write(x: float, text: str, **style: Any) -> None:
        height = 1 - (line + 0.5) / LINES
        axes.text(x, height, _signs(text), transform=axes.transAxes, fontsize=8.2, va="center", **style)

    for heading, statements in sections.items():
        write(0.0, heading, fontweight="bold")
        line += 1
        for name, (words, counterexample) in statements.items():
            bad, tried = int(fails[name].sum()), len(fails[name])
            write(0.0, words)
            if bad:
                write(0.79, f"false in {bad:,} of {tried:,}", color=PALETTE[3], fontweight="bold")
            else:
                write(0.79, f"true in {tried:,}")
            line += 1
            if bad and counterexample:
                write(0.025, counterexample, color=PALETTE[3])
                line += 1
        line += 0.4  # type: ignore[assignment]


def _draw_em(axes: Axes, shown: Mapping[str, Any]) -> None:
    path = shown["EM"]
    axes.plot(range(len(path)), path, "o-", color=PALETTE[0], label="EM (2.7, 2.10)")
    axes.axhline(shown["limit"], color=PALETTE[2], linestyle="--", label="(2.8) as printed, in one step")
    axes.plot([0, 1], [path[0], shown["part 2"]], "o:", color=PALETTE[3], label="part 2 maximised")
    axes.set(title="EM on five rounds of ten tosses of two coins", xlabel="step", ylabel="log P(X)")
    axes.legend(fontsize="small", frameon=False)
    axes.grid(alpha=0.25)


def _draw_schedules(axes: Axes, schedules: Mapping[str, np.ndarray]) -> None:
    names = {
        "1/t": "1/t: Σα = ∞, Σα² < ∞",
        "t^-.7": "$t^{-.7}$: Σα = ∞, Σα² < ∞",
        "t^-.4": "$t^{-.4}$: Σα² = ∞",
        "constant .1": ".1: Σα² = ∞",
        "t^-2": "$t^{-2}$: Σα < ∞",
    }
    for (name, errors), shade in zip(schedules.items(), PALETTE, strict=False):
        visits = np.unique(np.geomspace(1, len(errors), 300).astype(int))
        axes.plot(visits, errors[visits - 1], color=shade, label=names[name])
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set(
        title="Q-iteration (2.21) on two states, noise N(0, 1)",
        xlabel="visits t of each pair",
        ylabel="max |Q \N{MINUS SIGN} Q*|, root mean square",
    )
    axes.legend(fontsize="small", frameon=False, loc="lower left", title="step sizes", title_fontsize="small")
    axes.grid(alpha=0.25)


def _draw_jump(axes: Axes, x: np.ndarray, paid: np.ndarray) -> None:
    below = x < 0
    for part in (below, ~below):
        axes.plot(x[part], paid[part], color=PALETTE[0])
    for size, factor in zip(theory_games.JUMPS, ("10γ", "100γ"), strict=True):
        axes.plot([-size, size], [3, 1], "o--", color=PALETTE[3], markersize=4, linewidth=1)
        axes.annotate(
            f"x = ±{size:g}: factor {factor}", (size, 1), xytext=(8, 10 if size > 0.05 else 28),
            textcoords="offset points", fontsize="small",
        )  # fmt: skip
    axes.set(
        title="(2.67): the equilibrium of [[3, 0], [3 + x, 1]]",
        xlabel="x",
        ylabel="what it pays each",
        ylim=(0.5, 3.5),
    )
    axes.grid(alpha=0.25)


def _draw_unsettled(axes: Axes, paths: np.ndarray | None) -> None:
    axes.set(title="Nash-Q's operator that never settles", xlabel="sweep", ylabel="value of the equilibrium")
    axes.grid(alpha=0.25)
    if paths is None:
        axes.annotate("none found among these games", (0.5, 0.5), xycoords="axes fraction", ha="center")
        return
    shown = 40
    for player in range(paths.shape[1]):
        for state in range(paths.shape[2]):
            label = f"player {player + 1}, state {state}"
            axes.plot(
                range(shown),
                paths[-shown:, player, state],
                ".-",
                color=PALETTE[2 * player + state],
                label=label,
            )
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.35 * (high - low))
    axes.set_xlabel(f"sweep, of the last {shown} of {len(paths) - 1}")
    axes.legend(fontsize="small", frameon=False, ncols=2, loc="upper center")


def _draw_friends(axes: Axes, independent: np.ndarray, correlated: np.ndarray) -> None:
    axes.scatter(correlated, independent, s=5, alpha=0.5, color=PALETTE[0])
    ends = axes.get_xlim()
    axes.plot(ends, ends, color="0.45", linewidth=1, linestyle="--", label="no loss")
    share = np.mean(correlated - independent > 1e-9)
    axes.set(
        title=f"(2.68): two friends, one foe; less in {share:.0%} of stages",
        xlabel="value if the friends correlate (Littman)",
        ylabel="if they mix independently (as printed)",
    )
    axes.legend(fontsize="small", frameon=False, loc="upper left")
    axes.grid(alpha=0.25)


def _draw_contraction(axes: Axes, factors: Mapping[str, np.ndarray]) -> None:
    count = len(next(iter(factors.values())))
    heights = np.linspace(-0.3, 0.3, count)
    for place, factor in enumerate(factors.values()):
        for pair, (shade, label) in enumerate(
            ((PALETTE[0], "a random pair"), (PALETTE[3], "a table and itself + 1"))
        ):
            named = label if place == 0 else None
            axes.scatter(factor[:, pair], place + heights, s=2, color=shade, label=named)
    axes.set_yticks(range(len(factors)), list(factors), fontsize="small")
    axes.invert_yaxis()
    gamma = theory_balancing.GAMMA
    axes.axvline(gamma, color="0.45", linestyle="--", zorder=0, label=f"γ = {gamma:g}")
    axes.set(title="contraction in chapter 3", xlabel="distance after, as a share of the distance before")
    axes.legend(fontsize="x-small", loc="upper right", frameon=False, markerscale=3)
    axes.set_xlim(right=1.5)  # room for it


def _draw_orders(axes: Axes, values: Mapping[str, tuple[np.ndarray, ...]]) -> None:
    for name, (agent, other, _) in values.items():
        axes.scatter(agent, other, s=4, alpha=0.5, label=name)
    ends = axes.get_xlim()
    axes.plot(ends, ends, color="0.45", linewidth=1, linestyle="--", label="(3.31)")
    axes.set(title="(3.31): V of the same stage", xlabel="agent first", ylabel="other first")
    axes.legend(fontsize="small", frameon=False, markerscale=3, loc="upper left", title="β and β'")


def _draw_distances(axes: Axes, distances: Mapping[str, np.ndarray]) -> None:
    for name, distance in distances.items():
        shares = np.arange(1, len(distance) + 1) / len(distance)
        axes.plot(np.sort(np.maximum(distance, 1e-17)), shares, label=name)
    axes.set_xscale("log")
    axes.set(
        title="PR2 and ROMMEO", xlabel="largest difference of their joint policies", ylabel="share of games"
    )
    axes.legend(fontsize="small", frameon=False, loc="center")
    axes.grid(alpha=0.25)


def _draw_directions(axes: Axes, changes: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
    printed = theory_balancing.PRINTED_DIRECTIONS
    bar_counts(
        axes,
        [f"{name.replace(', ', chr(10))}\n{said}" for name, said in printed.items()],
        {
            "Q rises everywhere": [100 * changes[name][0].mean() for name in printed],
            "Q falls everywhere": [100 * changes[name][1].mean() for name in printed],
        },
        ylabel="% of games",
        title="Q after an update of one side; below: as printed",
        value_format="{:.0f}",
    )
    axes.tick_params(axis="x", labelsize="x-small")
    axes.set_ylim(0, 115)
    legend = axes.get_legend()
    assert legend is not None
    legend.set_bbox_to_anchor((0.5, -0.2))
