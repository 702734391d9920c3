"""The card game of the Bayesian action decoder: public agents against independent policy gradients."""

from typing import Any

import numpy as np

import baselines
import envs
from baselines.probes import value_by_starts
from jaxmarl_fac.experiment import Experiment
from jaxmarl_fac.report.claims import Claim, Outcome, Workshop
from jaxmarl_fac.report.curves import BETTER_THAN_BEFORE, gain_over_before
from jaxmarl_fac.report.figures import bar_counts, learning_curves, panels
from jaxmarl_fac.report.styles import line_styles
from jaxmarl_fac.report.verdicts import Part, Rule, share
from jaxmarl_fac.statistics import Interval, bootstrap_interval

OPTIMUM = 10.0
#: Greedy values are sums of payoffs by four; less than this is not the optimum.
NEARLY = 9.99
#: Particles of the public belief.
PARTICLES = 32
#: What all learn by; an episode is two steps, and one row more is its reset. Chosen on other seeds as the
#: weakest entropy with which `bad` always found the optimum.
SHARED = {
    "learning_rate": 1e-2,
    "hidden": (32,),
    "max_grad_norm": 10.0,
    "rollout_length": 3,
    "gamma": 1.0,
    "td_lambda": 1.0,
    "value_coefficient": 0.5,
    "entropy_coefficient": 2.0,
    "entropy_end": 0.01,
}
EXACT, SAMPLED, INDEPENDENT = "bad", "bad-particles", "independent-pg"
#: Independent policy gradients that explore more; no rule judges them.
STRONGER = 8.0
MORE = f"{INDEPENDENT}, entropy {STRONGER:g}"
#: Nothing is shared between independent agents.
OWN: dict[str, Any] = {"share_parameters": False, "agent_ids": False}
#: By name: the algorithm, and settings of its own.
LEARNERS: dict[str, tuple[str, dict[str, Any]]] = {
    EXACT: ("bad", {}),
    SAMPLED: ("bad-particles", {"particles": PARTICLES}),
    INDEPENDENT: ("independent-pg", OWN),
    MORE: ("independent-pg", {**OWN, "entropy_coefficient": STRONGER}),
}
#: Values of the partial policies of player 1 with a best reply, as far as greedy play ends there.
VALUES = (10.0, 9.0, 8.0)

SHARE = f"share of seeds at the optimum of {EXACT}"
MEAN = "mean greedy value of"
APART = f"distance of the mean greedy values of {SAMPLED} and {EXACT}"


def cards(workshop: Workshop) -> Outcome:
    """Greedy values of many seeds of each."""
    curves = {}
    for name, (algorithm_id, own) in LEARNERS.items():
        experiment = Experiment(
            algorithm=baselines.make(algorithm_id, "pomdp", **SHARED | own),
            environment=envs.make("private-cards"),
            seeds=workshop.seeds(smoke=2, quick=100, paper=1000),
            env_steps=workshop.choose(smoke=960, quick=24_000, paper=24_000),
            num_envs=32,
            evaluations=10,
            evaluation_episodes=1,  # the probe says more
            probe=value_by_starts,
        )
        arrays = workshop.train(
            f"cards-{name.replace(', ', '-').replace(' ', '-')}", experiment
        ).history.arrays()
        env_steps, curves[name] = arrays["env_steps"], arrays["value"]
    last = {name: values[-1] for name, values in curves.items()}
    means: dict[str, Interval] = {name: bootstrap_interval(table, np.mean) for name, table in last.items()}
    optimal = {name: share(table >= NEARLY) for name, table in last.items()}
    measured: dict[str, Any] = {f"{MEAN} {name}": mean for name, mean in means.items()}
    measured |= {
        SHARE: optimal[EXACT],
        APART: abs(means[SAMPLED].value - means[EXACT].value),
        **gain_over_before(curves),
    }

    seeds = len(last[EXACT])
    figure, axes = panels(1, 2, (7.0, 3.9), f"A private card and a public action each: {seeds} seeds")
    learning_curves(axes[0, 0], env_steps, curves, reference=OPTIMUM, ylabel="greedy value")
    counts = {
        name: [float(np.mean(np.abs(table - value) < 0.01)) for value in VALUES]
        for name, table in last.items()
    }
    bar_counts(
        axes[0, 1],
        [*(f"{value:g}" for value in VALUES), "other"],
        {name: [100 * each for each in (*row, 1 - sum(row))] for name, row in counts.items()},
        ylabel="% of seeds",
        title="greedy value at the end",
        value_format="{:.0f}",
        colours={name: style.colour for name, style in line_styles(list(curves)).items()},
    )
    ours = {
        name: {"mean greedy value": means[name], "share at the optimum": optimal[name]} for name in curves
    }
    why = (
        f"At the optimum of 10 are {optimal[EXACT].value:.0%} of the seeds of {EXACT}, "
        f"{optimal[SAMPLED].value:.0%} of {SAMPLED} with {PARTICLES} particles and "
        f"{optimal[INDEPENDENT].value:.0%} of {INDEPENDENT}, all by the same settings. With "
        f"{STRONGER:g} instead of {SHARED['entropy_coefficient']:g} as the entropy's weight at the start "
        f"it is {optimal[MORE].value:.0%} of {INDEPENDENT}."
    )
    return Outcome(figure, {EXACT: "close to 10", "policy gradient": "below"}, ours, measured, why)


CLAIMS = (
    Claim(
        "cards",
        "Foerster et al. (2019), the matrix game; thesis, section 5.3",
        "With a public belief, exact or by particles, a public agent finds the optimum of 10 where "
        "independent policy gradients by the same settings often do not.",
        Rule(
            (
                Part(SHARE, at_least=0.8),
                Part(f"{MEAN} {EXACT}", above=f"{MEAN} {INDEPENDENT}"),
                Part(APART, at_most=0.1),
            ),
            learned=BETTER_THAN_BEFORE,
            given="Exact values of greedy play after training, over seeds: ",
        ),
        {"smoke": "1 min", "quick": "5 min", "paper": "40 min"},
        cards,
    ),
)
