"""LTQL, experiment 2: the line world."""

from typing import Any

import numpy as np
from matplotlib.ticker import EngFormatter

import baselines
from baselines import probes
from envs.team_mdp import line_world
from experiments.claims.ltql.defects import DEFECTS, format_shares
from jaxmarl_fac.experiment import Experiment
from jaxmarl_fac.loop import Result
from jaxmarl_fac.report.claims import Claim, Outcome, Workshop
from jaxmarl_fac.report.curves import BETTER_THAN_BEFORE, gain_over_before
from jaxmarl_fac.report.figures import learning_curves, name_ends, panels
from jaxmarl_fac.report.styles import label_of, line_styles
from jaxmarl_fac.report.verdicts import Every, Part, Rule, share
from jaxmarl_fac.statistics import bootstrap_interval

#: LTQL online, as in the release's tables, and from replay, as in the slide's algorithm box.
LOGICAL = ("ltql-tabular", "ltql-tabular-replay")
LINE_NAMES = (
    *LOGICAL,
    "hysteretic-tabular",
    "distributed-tabular",
    "iql-tabular",
    "qmix",
    "qtran-base",
)


def train_line(workshop: Workshop, name: str) -> Result:
    """The published constants, the same number of steps and the same epsilon for all."""
    tabular = "-tabular" in name
    settings: dict[str, Any] = {} if tabular else {"learning_rate": 1e-3, "replay_size": 50_000}
    experiment = Experiment(
        algorithm=baselines.make(name, "team-mdp", **settings),
        environment=line_world(),
        seeds=workshop.seeds(smoke=2, quick=20, paper=100),
        env_steps=workshop.choose(smoke=400, quick=100_000, paper=100_000),
        # Networks step four games side by side: an update for every four steps.
        num_envs=1 if tabular else 4,
        evaluations=workshop.choose(smoke=2, quick=50, paper=100),
        evaluation_episodes=1,
        probe=probes.noise_free_return,
    )
    return workshop.train(f"line-{name}", experiment)


def team_mdp(workshop: Workshop) -> Outcome:
    """The line world: returns of greedy play without noise."""
    results = {name: train_line(workshop, name) for name in LINE_NAMES}
    returns = {name: result.history.arrays()["noise_free_return"] for name, result in results.items()}
    steps = results["ltql-tabular"].history.arrays()["env_steps"]
    shares = {name: share(values[-1] >= 10 - 1e-3) for name, values in returns.items()}
    ours: dict[str, Any] = {}
    for name, values in returns.items():
        outcomes, counts = np.unique(values[-1].round(3), return_counts=True)
        ours[name] = {
            "return_10_fraction": shares[name],
            "return": bootstrap_interval(values[-1]),
            "final_returns": {
                f"{outcome:g}": int(number) for outcome, number in zip(outcomes, counts, strict=True)
            },
        }
    figure, axes = panels(1, 2, (6.2, 3.9))
    figure.suptitle(
        f"Line world: greedy play without noise, equal steps and equal epsilon ({len(steps) - 1} tests)"
    )
    learning_curves(axes[0, 0], steps, returns, reference=10, title="return")
    styles = line_styles(list(returns))
    for name, values in returns.items():
        shade, dashes = styles[name]
        wins = 100 * (values >= 10 - 1e-3).mean(1)
        axes[0, 1].plot(steps, wins, dashes, color=shade, label=label_of(name))
    axes[0, 1].set(xlabel="environment steps", ylabel="% of seeds", title="seeds at the optimum")
    axes[0, 1].xaxis.set_major_formatter(EngFormatter(sep=""))
    axes[0, 1].grid(alpha=0.25)
    seeds = returns["ltql-tabular"].shape[1]
    name_ends(axes[0, 1], axes[0, 1].lines, f"{seeds} seeds")
    equals = [name for name, each in shares.items() if name not in LOGICAL and each.value >= 0.95]
    why = (
        f"Return 10 at the end on: {format_shares(shares)} of {seeds} seeds"
        + (f"; so, against the paper, {', '.join(equals)} does as well as LTQL" if equals else "")
        + ". Here all have the same steps and epsilon; in the published comparison epsilon stayed above .5 "
        "for LTQL and QTRAN and fell to .05 for the others."
    )
    measured = {_optimal(name): found for name, found in shares.items()} | gain_over_before(returns)
    paper = {"ltql": "return 10 on all seeds", "others": "do not reach it", "defects": DEFECTS}
    return Outcome(figure, paper, ours, measured, why)


def _optimal(name: str) -> str:
    return f"share of {name}'s seeds that return 10"


RULE = Rule(
    (
        Every(tuple(Part(_optimal(name), at_least=0.95) for name in LOGICAL)),
        Part(_optimal("iql-tabular"), at_most=0.5),
        Part(_optimal("qmix"), at_most=0.5),
    ),
    learned=BETTER_THAN_BEFORE,
    given="After 100,000 steps, greedy play without noise: ",
)

CLAIMS = (
    Claim(
        "team_mdp",
        "LTQL, experiment 2",
        "In the line world LTQL wins on all seeds, online and from replay; the others do not.",
        RULE,
        {"smoke": "1 min", "quick": "5 min on 2 cores", "paper": "20 min on 2 cores"},
        team_mdp,
    ),
)
