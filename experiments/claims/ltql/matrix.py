"""LTQL, experiment 1: a matrix game with two optima."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

import baselines
import envs
from baselines import probes
from baselines.probes import joint_tables
from envs.matrix_games import LTQL_PAYOFF
from experiments.claims.ltql.defects import format_shares
from jaxmarl_fac.algorithm import Algorithm
from jaxmarl_fac.exact.projections import monotone_fit
from jaxmarl_fac.experiment import Experiment
from jaxmarl_fac.loop import Result
from jaxmarl_fac.report.claims import Claim, Outcome, Workshop
from jaxmarl_fac.report.curves import BETTER_THAN_RANDOM, gain_over_random
from jaxmarl_fac.report.figures import annotated_matrix, bar_counts, panels
from jaxmarl_fac.report.styles import PALETTE
from jaxmarl_fac.report.verdicts import Every, Part, Rule, as_percent, share
from jaxmarl_fac.statistics import Interval

#: LTQL with the slide's reading of the second condition.
SLIDE = "ltql-tabular-if"
TABULAR = ("ltql-tabular", SLIDE, "distributed-tabular", "iql-tabular")
DEEP = ("qmix", "qtran-base")
#: What q_B and q_U tend to, by the equilibrium that a seed is in, for agents 1 and 2.
LTQL_LIMITS: dict[tuple[int, int], dict[str, tuple[tuple[float, ...], tuple[float, ...]]]] = {
    (0, 1): {"q_u": ((2, 1), (0, 2, 0)), "q_b": ((2, 1.5), (0, 2, 1))},
    (1, 2): {"q_u": ((0, 2), (0, 1, 2)), "q_b": ((1.03, 2), (0, 1.5, 2))},
}
OTHER_LIMITS = {"distributed-tabular": ((2, 2), (0, 2, 2)), "iql-tabular": ((2 / 3, 1), (0, 1.5, 1))}
PAYOFF = np.asarray(LTQL_PAYOFF, float)


def matrix_learner(name: str) -> Algorithm:
    """The release's tables (step .1, alpha 1), and networks with a learning rate that falls to zero."""
    if name == SLIDE:
        return baselines.make("ltql-tabular", second_if="if")
    if name in TABULAR:
        return baselines.make(name)
    return baselines.make(name, learning_rate=5e-3, learning_rate_schedule="linear", target_period=200)


def train_matrix(workshop: Workshop, name: str) -> Result:
    """All with uniform actions: tables for 500 games, networks for ten times as many."""
    tabular = name in TABULAR
    games = workshop.choose(smoke=100, quick=500, paper=500)
    experiment = Experiment(
        algorithm=matrix_learner(name),
        environment=envs.make("matrix-ltql"),
        seeds=workshop.seeds(
            smoke=8 if tabular else 2, quick=300 if tabular else 32, paper=3000 if tabular else 300
        ),
        env_steps=games if tabular else 10 * games,
        evaluations=workshop.choose(smoke=5, quick=50, paper=50),
        evaluation_episodes=1,
        probe=probes.tables if tabular else joint_tables,
    )
    return workshop.train(f"matrix-{name}", experiment)


def greedy_cells(tables: np.ndarray) -> np.ndarray:
    """Greedy joint actions `(seeds, 2)` of tables `(seeds, 2, 1, 3)`; agent 1 has two actions."""
    return np.stack([tables[:, 0, 0, :2].argmax(1), tables[:, 1, 0].argmax(1)], 1)


def in_cell(cells: np.ndarray, cell: tuple[int, int]) -> np.ndarray:
    """Which of the joint actions `(seeds, 2)` are `cell`."""
    return np.asarray((cells == np.asarray(cell)).all(1))


def matrix(workshop: Workshop) -> Outcome:
    """The 2x3 game with two optima: six learners."""
    results = {name: train_matrix(workshop, name) for name in (*TABULAR, *DEEP)}
    shares = {name: share(result.history.last["episode_return"] == 2) for name, result in results.items()}
    ours: dict[str, Any] = {
        name: {"reward_2_fraction": shares[name], "seeds": len(result.history.last["episode_return"])}
        for name, result in results.items()
    }
    worst = 0.0
    for name in ("ltql-tabular", SLIDE):
        last = results[name].history.last
        cells = greedy_cells(last["q_b"])
        for cell, limits in LTQL_LIMITS.items():
            group = in_cell(cells, cell)
            entry: dict[str, Any] = {"fraction": share(group)}
            for table, wanted in limits.items():
                if group.any():
                    mean = last[table][group].mean(0)[:, 0]  # (2, 3)
                    entry[table] = [mean[0, :2], mean[1]]
                    error = max(np.abs(mean[0, :2] - wanted[0]).max(), np.abs(mean[1] - wanted[1]).max())
                    entry[f"largest_error_of_{table}"] = error
                    worst = max(worst, float(error)) if table == "q_u" else worst
            ours[name][f"equilibrium {cell}"] = entry
    for name, wanted in OTHER_LIMITS.items():
        mean = results[name].history.last["table"].mean(0)[:, 0]
        ours[name]["table"] = [mean[0, :2], mean[1]]
        ours[name]["limit"] = wanted
    fit = monotone_fit(PAYOFF)
    ours["best_monotone_fit"] = {"q_tot": fit.q_tot, "sse": fit.sse}
    why = (
        f"Greedy play earns 2 on: {format_shares(shares)} of seeds. q_U is within {worst:.2f} of the limit "
        "of the equilibrium that the seed is in "
        f"({ours['ltql-tabular']['equilibrium (0, 1)']['fraction'].value:.0%} in (0, 1)), with either "
        "reading of the second condition. IQL's values average over the others' actions, and their greedy "
        "action is (1, 1); distributed Q-learning's values tie, so coordination is luck."
    )
    measured: dict[str, Any] = {_optimal(name): found for name, found in shares.items()}
    measured |= {Q_U_ERROR: worst}
    measured |= gain_over_random(
        [result.history.last["episode_return"] for result in results.values()], PAYOFF.mean()
    )
    paper = {"ltql": 1.0, "limits": LTQL_LIMITS[0, 1]}
    return Outcome(_draw_matrix(results, shares), paper, ours, measured, why)


def _draw_matrix(results: dict[str, Result], shares: dict[str, Interval]) -> Any:
    figure, axes = panels(2, 4, (4.3, 3.3))
    seeds = len(results["ltql-tabular"].history.last["episode_return"])
    networks = len(results["qmix"].history.last["episode_return"])
    figure.suptitle(
        f"LTQL's matrix game, uniform actions: values over games, means over seeds (tables: {seeds} seeds, "
        f"networks: {networks})\ndotted: limits; solid: agent 1's actions, dashed: agent 2's"
    )
    cell = next(iter(LTQL_LIMITS))
    logical = results["ltql-tabular"].history.arrays()
    group = in_cell(greedy_cells(logical["q_b"][-1]), cell)
    for place, table, title in ((0, "q_b", "biased $q_B$"), (1, "q_u", "unbiased $q_U$")):
        _draw_tables(
            axes[0, place],
            logical["env_steps"],
            logical[table][:, group] if group.any() else logical[table],
            LTQL_LIMITS[cell][table],
            f"LTQL, {title}\n{group.sum()} seeds in {cell}",
        )
    for where, name, title in (
        ((0, 2), "distributed-tabular", "distributed Q-learning"),
        ((1, 0), "iql-tabular", "independent Q-learning"),
    ):
        arrays = results[name].history.arrays()
        _draw_tables(axes[where], arrays["env_steps"], arrays["table"], OTHER_LIMITS[name], title)
    fit = monotone_fit(PAYOFF).q_tot
    for column, name, table, limits, title in (
        (1, "qmix", "q_tot", fit, "QMIX, $Q_{tot}$\n(dotted: best monotone fit)"),
        (2, "qtran-base", "q_jt", PAYOFF, "QTRAN-base, $Q_{jt}$\n(dotted: payoff)"),
    ):
        arrays = results[name].history.arrays()
        for i, joint in enumerate(np.ndindex(2, 3)):
            values = arrays[table][:, :, *joint].mean(1)
            axes[1, column].plot(arrays["env_steps"], values, color=PALETTE[i], label=str(joint))
            axes[1, column].axhline(limits[joint], color=PALETTE[i], linestyle=":", linewidth=1)
        axes[1, column].set(xlabel="games", title=title, ylim=(-0.3, 2.4))
        axes[1, column].legend(fontsize="x-small", ncols=2, frameon=False)
        axes[1, column].grid(alpha=0.25)
    annotated_matrix(
        axes[0, 3], PAYOFF, ("0", "1"), ("0", "1", "2"), "payoff", highlight=cell, value_format="{:.0f}"
    )
    bar_counts(
        axes[1, 3],
        ["LTQL", "LTQL,\nslide", "Distr.", "IQL", "QMIX", "QTRAN"],
        {"ours": [100 * shares[name].value for name in results]},
        {"ours": [as_percent(shares[name]) for name in results]},
        ylabel="% of seeds, 95 % Wilson intervals",
        title="greedy play earns 2",
        value_format="{:.0f}",
    )
    axes[1, 3].tick_params(axis="x", labelsize="small")
    axes[1, 3].set_ylim(0, 118)
    return figure


def _draw_tables(
    axes: Axes, games: np.ndarray, tables: np.ndarray, limits: Sequence[Sequence[float]], title: str
) -> None:
    """Mean values of `tables (evaluations, seeds, 2, 1, 3)`."""
    for agent, (count, dashes) in enumerate(((2, "-"), (3, "--"))):
        for action in range(count):
            values = tables[:, :, agent, 0, action].mean(1)
            shade = PALETTE[action + 3 * agent]
            axes.plot(games, values, dashes, color=shade, label=f"$q^{agent + 1}({action})$")
            axes.axhline(limits[agent][action], color=shade, linestyle=":", linewidth=1)
    axes.set(xlabel="games", title=title, ylim=(-0.1, 2.3))
    axes.legend(fontsize="x-small", ncols=2, frameon=False)
    axes.grid(alpha=0.25)


def _optimal(name: str) -> str:
    return f"share of {name}'s seeds that earn 2"


Q_U_ERROR = (
    "largest error of the mean q_U of the seeds in an equilibrium, with either reading of the second "
    "condition, from its limit"
)
RULE = Rule(
    (
        Every(
            (
                Part(_optimal("ltql-tabular"), at_least=0.99),
                Part(_optimal(SLIDE), at_least=0.99),
            )
        ),
        Part(Q_U_ERROR, at_most=0.1),
        Part(_optimal("iql-tabular"), at_most=0.5),
    ),
    learned=BETTER_THAN_RANDOM,
    given="After 500 games with uniform actions: ",
)

CLAIMS = (
    Claim(
        "matrix",
        "LTQL, experiment 1",
        "On a matrix game with two optima LTQL always finds one; the baselines do not.",
        RULE,
        {"smoke": "40 s", "quick": "2 min on 2 cores", "paper": "10 min on 2 cores"},
        matrix,
    ),
)
