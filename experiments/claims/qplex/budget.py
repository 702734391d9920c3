"""QPLEX, matrix games: success against the number of training steps."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.ticker import EngFormatter

from experiments.claims.qplex.games import (
    FREE,
    GAMES,
    LONG_GAMES,
    RELEASE_STEPS,
    optimal,
    table_of,
    train_long,
)
from jaxmarl_fac.report.claims import Claim, Outcome, Workshop
from jaxmarl_fac.report.curves import BETTER_THAN_RANDOM, gain_over_random
from jaxmarl_fac.report.figures import panels
from jaxmarl_fac.report.styles import label_of, line_styles
from jaxmarl_fac.report.verdicts import Either, Part, Rule, as_percent, share
from jaxmarl_fac.statistics import Interval, bootstrap_interval


def budget(workshop: Workshop) -> Outcome:
    """How the share of QPLEX's seeds that greedily play the optimum grows with training."""
    names = ("qplex", FREE, "qtran-base")
    histories = {name: train_long(workshop, name) for name in names}
    ours: dict[str, Any] = {}
    figure, axes = panels(1, len(LONG_GAMES), (5.2, 3.4))
    for column, game in enumerate(LONG_GAMES):
        title, payoff = GAMES[game]
        ours[game] = {}
        shares = {}
        for name in names:
            arrays = histories[name][game].arrays()
            budgets = arrays["env_steps"][1:]  # the evaluation before training does not count
            good = optimal(arrays["episode_return"][1:], payoff)  # (evaluations, seeds)
            by_budget = {int(step): share(row) for step, row in zip(budgets, good, strict=True)}
            first = np.where(good.any(0), budgets[np.argmax(good, 0)], np.inf)
            ours[game][name] = {
                "greedy_optimal_fraction": share(good[-1]),
                "ever_optimal_fraction": share(good.any(0)),
                "median_first_optimal_step": float(np.median(first)),
                "by_budget": by_budget,
                "where_not_optimal": values_where_not_optimal(
                    histories[name][game].last, table_of(name), payoff
                ),
            }
            shares[name] = {step: as_percent(fraction) for step, fraction in by_budget.items()}
        _draw_shares(axes[0, column], shares, title, legend=column == len(LONG_GAMES) - 1)
    history = histories["qplex"]["matrix-qplex"]
    steps, seeds = history.last_env_steps, len(history.last["episode_return"])
    figure.suptitle(f"Seeds whose greedy joint action is optimal, ε = 1, {seeds} seeds, 95 % Wilson bands")
    stopped, free, qtran = (ours["matrix-qplex"][name]["greedy_optimal_fraction"] for name in names)
    at_end = [histories[name]["matrix-qplex"].last["episode_return"] for name in names]
    measured = {STOPPED: stopped, FREELY: free}
    measured |= gain_over_random(at_end, GAMES["matrix-qplex"][1].mean())
    ever = ours["matrix-qplex"]["qplex"]["ever_optimal_fraction"].value
    tied = ours["matrix-qplex"][FREE]["where_not_optimal"]
    trap = (
        f"Without it the other {tied['seeds']} seeds value the optimum at "
        f"{tied['value_of_optimum'].value:.2f} and their greedy joint action at "
        f"{tied['value_of_greedy'].value:.2f}, where the mean of both payoffs is "
        f"{tied['mean_payoff_of_both'].value:.2f}: a value with IGM cannot put the optimum above what is "
        "greedy, and equal values of unequal utilities take lambda = 0, which passes them no gradient. "
        if tied["seeds"]
        else ""
    )
    why = (
        f"After {steps:,} steps on QPLEX's game greedy play is optimal on {stopped.value:.0%} "
        f"[{stopped.low:.0%}, {stopped.high:.0%}] of {seeds} seeds with the stop-gradient, {free.value:.0%} "
        f"[{free.low:.0%}, {free.high:.0%}] without, {qtran.value:.0%} for QTRAN-base; on QTRAN's game "
        + ", ".join(f"{ours['matrix-qtran'][name]['greedy_optimal_fraction'].value:.0%}" for name in names)
        + f". With the stop-gradient {ever:.0%} of seeds were optimal at some evaluation. "
        + trap
        + ("" if steps >= RELEASE_STEPS else f"The release trains {RELEASE_STEPS:,} steps: scale paper does.")
    )
    return Outcome(figure, {"env_steps": RELEASE_STEPS}, ours, measured, why)


def values_where_not_optimal(
    tables: Mapping[str, np.ndarray], joint: str, payoff: np.ndarray
) -> dict[str, Any]:
    """Learned values of the optimum and of the greedy joint action, on seeds that do not play the optimum.

    Args:
        tables: `joint_tables` of all seeds `(seeds, ...)`.
        joint: name of the joint value.
        payoff: of the game, `(A, A)`.
    """
    best = np.unravel_index(np.argmax(payoff), payoff.shape)
    greedy = tuple(tables["greedy_actions"].T)  # of every seed
    every = np.arange(len(greedy[0]))
    short = ~optimal(payoff[greedy], payoff)
    if not short.any():
        return {"seeds": 0}
    return {
        "seeds": int(short.sum()),
        "value_of_optimum": bootstrap_interval(tables[joint][every, *best][short], np.mean),
        "value_of_greedy": bootstrap_interval(tables[joint][every, *greedy][short], np.mean),
        "mean_payoff_of_both": bootstrap_interval((payoff[greedy][short] + payoff.max()) / 2, np.mean),
    }


def _draw_shares(axes: Any, shares: Mapping[str, Mapping[int, Interval]], title: str, legend: bool) -> None:
    for name, (colour, dashes) in line_styles(list(shares)).items():
        steps = list(shares[name])
        middle = [fraction.value for fraction in shares[name].values()]
        low = [fraction.low for fraction in shares[name].values()]
        high = [fraction.high for fraction in shares[name].values()]
        axes.plot(steps, middle, dashes, color=colour, label=label_of(name))
        axes.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))  # 200k
    axes.grid(alpha=0.25)
    axes.set(xlabel="environment steps", ylabel="% of seeds", title=title)
    axes.set_ylim(-4, 104)
    if legend:
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize="small")


STOPPED = "share of seeds that greedily play the optimum with the stop-gradient"
FREELY = "share of seeds that greedily play the optimum without it"

CLAIMS = (
    Claim(
        "budget",
        "QPLEX, matrix games (the quoted outcomes are unverified)",
        "With enough steps QPLEX finds the optimum of its own paper's game.",
        Rule(
            (Part(STOPPED, at_least=0.9),),
            partly=Either((Part(STOPPED, at_least=0.5), Part(FREELY, at_least=0.5))),
            learned=BETTER_THAN_RANDOM,
            given="After 20,000 steps at scale quick, the release's 210,000 at scale paper: ",
        ),
        {"smoke": "20 s more than curves", "quick": "2 min more than curves", "paper": "40 min on 2 cores"},
        budget,
    ),
)
