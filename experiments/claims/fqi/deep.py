"""Theorems 3 and 4 of the lecture with networks: VDN beside methods that can represent any IGM value."""

from typing import Any

import numpy as np

import baselines
import envs
from baselines.probes import joint_tables
from experiments.claims.fqi.stability import GAMMA
from jaxmarl_fac.experiment import Experiment
from jaxmarl_fac.loop import Result
from jaxmarl_fac.report.claims import Claim, Outcome, Workshop
from jaxmarl_fac.report.figures import learning_curves, panels
from jaxmarl_fac.report.styles import line_styles
from jaxmarl_fac.report.verdicts import Either, Part, Rule, share
from jaxmarl_fac.statistics import bootstrap_interval

#: Episodes are truncated early (without termination), so that the absorbing state does not fill the data.
DEEP_TIME_LIMIT = 10
TARGET_PERIOD = 100
STARTS = 100
DEEP: dict[str, Any] = {
    "hidden": (32,),
    "learning_rate": 5e-3,
    "batch_size": 64,
    "replay_size": 2000,
    "learning_starts": STARTS,
    "target_period": TARGET_PERIOD,
    "gamma": GAMMA,
}

DEEP_NAMES = ("vdn", "qtran-base", "qplex")


def train_deep(workshop: Workshop, name: str) -> tuple[Result, int]:
    """The two-state game with epsilon = 1, and how often the target was copied."""
    copies = workshop.choose(smoke=3, quick=40, paper=100)
    settings = {**DEEP, **({"double_q": False} if name == "vdn" else {})}
    experiment = Experiment(
        algorithm=baselines.make(name, **settings),
        environment=envs.make("team-mdp-divergence", time_limit=DEEP_TIME_LIMIT),
        seeds=workshop.seeds(smoke=2, quick=8, paper=64),
        env_steps=STARTS + copies * TARGET_PERIOD,
        evaluations=copies,
        evaluation_episodes=1,
        probe=joint_tables,
    )
    return workshop.train(f"mmdp-{name}", experiment), copies


def measure(values: dict[str, np.ndarray]) -> dict[str, Any]:
    """What the rule judges, from largest joint values `(evaluations, seeds)` by algorithm."""
    measured = {GROWN: share(values["vdn"][-1] > 200)}
    measured |= {_exceeded(name): share(curve.max(0) > 110) for name, curve in values.items()}
    last = {name: bootstrap_interval(curve[-1]) for name, curve in values.items()}
    best = max(last, key=lambda name: last[name].low)
    return measured | {
        "largest value at the end": last[best],
        "largest value before training": bootstrap_interval(values[best][0]),
    }


def deep_mmdp(workshop: Workshop) -> Outcome:
    """Networks on the two-state game with epsilon = 1: which values diverge and which stay bounded."""
    curves: dict[str, np.ndarray] = {}
    ours: dict[str, Any] = {}
    for name in DEEP_NAMES:
        result, copies = train_deep(workshop, name)
        arrays = result.history.arrays()
        joint = arrays["q_jt" if "q_jt" in arrays else "q_tot"]  # (evaluations, seeds, 2, 2)
        curves[name] = joint.max((2, 3))
        ours[name] = {
            "final_value": bootstrap_interval(curves[name][-1]),
            "above_200_at_the_end_fraction": share(curves[name][-1] > 200),
            "once_above_110_fraction": share(curves[name].max(0) > 110),
        }
    exact = {"additive": float(0.75 * (1.2375**copies - 1) / 0.2375), "igm": float(100 * (1 - GAMMA**copies))}
    ours["exact_after_as_many_iterations"] = exact
    seeds = curves["vdn"].shape[1]
    figure, axes = panels(1, 1, (6.2, 4.0))
    learning_curves(
        axes[0, 0],
        arrays["env_steps"],
        curves,
        ylabel="largest joint value in the first state",
        reference=100,
        reference_label="$V^*$ = 100",
        title=f"Two-state game, ε = 1, γ = {GAMMA}: target copied {copies} times\n(dotted: exact additive)",
    )
    steps = STARTS + np.arange(1, copies + 1) * TARGET_PERIOD
    additive = 0.75 * (1.2375 ** np.arange(1, copies + 1) - 1) / 0.2375
    axes[0, 0].plot(steps, additive, ":", color=line_styles(["vdn"])["vdn"][0])
    axes[0, 0].set_yscale("symlog", linthresh=1)
    axes[0, 0].set_ylim(bottom=0)
    finals = "; ".join(
        f"{name} {ours[name]['final_value'].value:.4g} [{ours[name]['final_value'].low:.4g}, "
        f"{ours[name]['final_value'].high:.4g}]"
        for name in curves
    )
    why = (
        f"Joint value of the first state after {copies} copies of the target, {seeds} seeds: {finals} (V* "
        f"= 100; exact iteration would be at {exact['additive']:.4g} in the additive class and at "
        f"{exact['igm']:.4g} in the IGM class)."
    )
    return Outcome(figure, {"vdn": "diverges", "qplex": "bounded"}, ours, measure(curves), why)


GROWN = "share of vdn's seeds above 200 at the end"


def _exceeded(name: str) -> str:
    return f"share of {name}'s seeds ever above 110"


RULE = Rule(
    (
        Part(GROWN, at_least=0.95),
        Either(tuple(Part(_exceeded(name), at_most=0.05) for name in DEEP_NAMES[1:])),
    ),
    learned=Part("largest value at the end", above="largest value before training"),
    given="Values are the largest joint value of the first state (V* = 100): ",
)

CLAIMS = (
    Claim(
        "deep_mmdp",
        "lecture, theorems 3 and 4 with networks",
        "On the two-state game with epsilon = 1 VDN's values diverge; those of IGM-complete methods stay "
        "bounded.",
        RULE,
        {"smoke": "30 s", "quick": "1 min", "paper": "10 min"},
        deep_mmdp,
    ),
)
