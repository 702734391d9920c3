"""Buttons and doors: what the other's option of the step before is worth, exactly and to learners."""

from collections.abc import Mapping
from typing import Any

import numpy as np

import baselines
import envs
from experiments.claims.options.learned import exact_solution, return_of, tables_of
from jaxmarl_fac.experiment import Experiment
from jaxmarl_fac.report.claims import Claim, Outcome, Workshop
from jaxmarl_fac.report.figures import bar_counts, learning_curves, panels
from jaxmarl_fac.report.verdicts import Part, Rule
from jaxmarl_fac.statistics import Interval, bootstrap_interval

GAME = "buttons-and-doors"
WITH, WITHOUT = "with the message", "without the message"
#: Of what the message is worth, how much the learners should get.
SHARE = 0.5


def doors_experiment(message: bool, scale: str, seeds: tuple[int, ...]) -> Experiment:
    """Learners with or without the message."""
    return Experiment(
        algorithm=baselines.make("delayed-options", "options", message=message),
        environment=envs.make(GAME),
        seeds=seeds,
        env_steps=400 if scale == "smoke" else 8000,
        num_envs=4,
        evaluations=2 if scale == "smoke" else 8,
        evaluation_episodes=8 if scale == "smoke" else 32,
    )


def doors(workshop: Workshop) -> Outcome:
    """Expected returns of learned policies, by enumeration, beside those of the exact ones."""
    seeds = workshop.seeds(smoke=2, quick=10, paper=20)
    exact_returns: dict[str, float] = {}
    learned: dict[str, np.ndarray] = {}
    curves: dict[str, np.ndarray] = {}
    steps: np.ndarray = np.zeros(0)
    for name, message in ((WITH, True), (WITHOUT, False)):
        experiment = doors_experiment(message, workshop.scale, seeds)
        algorithm, env = experiment.algorithm, experiment.environment
        exact = exact_solution(algorithm, env)
        exact_returns[name] = return_of(exact.solutions, env, exact)
        result = workshop.train(f"doors-{'message' if message else 'silent'}", experiment)
        learned[name] = np.asarray(
            [return_of(tables, env, exact) for tables in tables_of(experiment, result)]
        )
        arrays = result.history.arrays()
        curves[name], steps = arrays["episode_return"], arrays["env_steps"]
    worth = exact_returns[WITH] - exact_returns[WITHOUT]
    gain = difference(learned[WITH], learned[WITHOUT])
    intervals = {name: bootstrap_interval(returns) for name, returns in learned.items()}
    measured = {
        EXACT_WORTH: worth,
        GAIN: gain,
        GOT: gain.value / worth if worth > 0 else 0.0,
        LEARNED: Interval(*(getattr(intervals[WITH], end) / exact_returns[WITH] for end in ENDS)),
    }
    ours = {
        "exact returns": exact_returns,
        "exact worth of the message": worth,
        "learned returns": intervals,
        "learned worth of the message": gain,
        "seeds": {name: returns.tolist() for name, returns in learned.items()},
    }
    why = (
        f"The message is worth {worth:.3f} to the exact policies ({exact_returns[WITH]:.3f} with it, "
        f"{exact_returns[WITHOUT]:.3f} without, expected return of an episode), and {gain.value:.3f} "
        f"[{gain.low:.3f}, {gain.high:.3f}] to the learned ones "
        f"({intervals[WITH].value:.3f} and {intervals[WITHOUT].value:.3f}, {len(seeds)} seeds)."
    )
    return Outcome(
        _draw(steps, curves, exact_returns, intervals, len(seeds)),
        {"worth": "none is given"},
        ours,
        measured,
        why,
    )


ENDS = ("value", "low", "high")


def difference(first: np.ndarray, second: np.ndarray) -> Interval:
    """The mean difference of paired seeds `(seeds,)`, with its bootstrap interval."""
    return bootstrap_interval(first - second, np.mean)


def _draw(
    steps: np.ndarray,
    curves: Mapping[str, np.ndarray],
    exact: Mapping[str, float],
    learned: Mapping[str, Interval],
    seeds: int,
) -> Any:
    figure, axes = panels(1, 2, (5.6, 3.9), f"Buttons and doors: options one step late, {seeds} seeds")
    learning_curves(axes[0, 0], steps, curves, ylabel="return of an episode", title="while learning")
    for name, value in exact.items():
        axes[0, 0].axhline(
            value, color="0.45", linewidth=1, linestyle="--" if name == WITH else ":", zorder=0
        )
    bar_counts(
        axes[0, 1],
        list(exact),
        {"exact": list(exact.values()), "learned": [learned[name].value for name in exact]},
        {"learned": [learned[name] for name in exact]},
        ylabel="expected return of an episode",
        title="policies at the end, by enumeration",
        value_format="{:.2f}",
    )
    return figure


EXACT_WORTH = "what the message is worth to the exact policies"
GAIN = "what it is worth to the learned ones"
GOT = "the share of its exact worth that these get"
LEARNED = "the return of learned policies with the message, as a share of the exact one's"

CLAIMS = (
    Claim(
        "doors",
        "Thesis, section 4.2 (buttons and doors is a game of this suite)",
        "The other's option, one step late, lets agents anticipate what it will do, and coordinate.",
        Rule(
            (
                Part(EXACT_WORTH, above=0),
                Part(GAIN, above=0),
                Part(GOT, at_least=SHARE),
            ),
            learned=Part(LEARNED, above=0.5),
            given="Expected returns of an episode by enumeration; mean over seeds, 95 % intervals: ",
        ),
        {"smoke": "1 min", "quick": "4 min", "paper": "10 min"},
        doors,
    ),
)
