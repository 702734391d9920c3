"""ReMIX, figures 2 and 5 on SMAX."""

from collections.abc import Sequence
from typing import Any

import envs
from envs.adapters import REMIX_MAPS
from experiments.claims.remix.settings import (
    ABLATIONS,
    FIG5_PAPER,
    PAPER,
    QMIX,
    REMIX,
    SMAX,
    WEIGHTED,
    ablation_rule,
    cost,
    learner_and_run,
    speeds,
)
from jaxmarl_fac.experiment import Experiment
from jaxmarl_fac.report.claims import Claim, Outcome, Scale, Workshop, at_scale
from jaxmarl_fac.report.curves import (
    BETTER_THAN_BEFORE,
    LAST_RETURN,
    curves_figure,
    format_intervals,
    gain_over_before,
    scores,
    settings_diff,
)
from jaxmarl_fac.report.figures import learning_curves, panels
from jaxmarl_fac.report.verdicts import Every, Part, Rule, labelled

#: Maps of SMAX that stand for the paper's, those of its own on which it says that ReMIX is best, and the
#: one on which it is ablated (in place of MMM2).
MAPS = ("3s_vs_5z", "5m_vs_6m", "6h_vs_8z")
BEST_ON, ABLATED_ON = ("3s_vs_5z", "6h_vs_8z"), "6h_vs_8z"
MAP_ALGORITHMS = (QMIX, "qplex", *WEIGHTED, REMIX)


def smax_experiment(
    name: str, scale: Scale, seeds: Sequence[int], map_name: str, **changed: Any
) -> Experiment:
    """One algorithm on a map of SMAX; see `hunt_experiment`."""
    algorithm, run = learner_and_run(name, "smax", PAPER | {"alpha": 0.5} | SMAX[scale] | changed)
    return Experiment(
        algorithm=algorithm,
        environment=envs.make(f"smax:{map_name}"),
        seeds=tuple(seeds),
        evaluations=at_scale(scale, smoke=2, quick=20, long=20, paper=100),
        evaluation_episodes=2 if scale == "smoke" else 32,
        **run,
    )


#: A return of SMAX is the enemies' health that was taken, as a share of all, and 1 for a victory.
SMAX_OPTIMUM = 2.0


def about_maps() -> str:
    """Which of the paper's maps SMAX has, and what there is in place of the others."""
    there = ", ".join(each.name for each in REMIX_MAPS if each.env_id)
    missing = "; ".join(
        f"{each.name} ({each.why}" + (f"; nearest: {', '.join(each.nearest)})" if each.nearest else ")")
        for each in REMIX_MAPS
        if not each.env_id
    )
    return (
        f"Of the paper's maps SMAX has {there}. It lacks: {missing}. SMAX is not SMAC: a return is at most "
        "2, and only the order of algorithms compares."
    )


def battle(workshop: Workshop, name: str, map_name: str, **changed: Any) -> Any:
    """Train one algorithm on a map, unless that is done: returns `(evaluations, seeds)`, and the steps."""
    seeds = workshop.seeds(smoke=2, quick=4, paper=4)
    experiment = smax_experiment(name, workshop.scale, seeds, map_name, **changed)
    words = ["smax", map_name, name, *(f"{setting}={value}" for setting, value in changed.items())]
    result = workshop.train("-".join(words), experiment)
    arrays = result.history.arrays()
    told_changes = settings_diff(experiment, smax_experiment(name, "paper", seeds, map_name))
    return arrays["episode_return"], arrays["env_steps"], told_changes


def fig2(workshop: Workshop) -> Outcome:
    """Learning curves on three maps of SMAX."""
    figure, axes = panels(1, len(MAPS), (5.6, 3.6), "ReMIX figure 2, on SMAX")
    ours: dict[str, Any] = {"maps": [each._asdict() for each in REMIX_MAPS]}
    measured: dict[str, Any] = {}
    for axis, map_name in zip(axes[0], MAPS, strict=True):
        curves = {}
        for name in MAP_ALGORITHMS:
            curves[name], env_steps, changed = battle(workshop, name, map_name)
        learning_curves(
            axis,
            env_steps,
            curves,
            title=map_name,
            ylabel="greedy return",
            reference=SMAX_OPTIMUM,
        )
        ours[map_name] = scores(curves)
        on_map = labelled("last return", ours[map_name]) | gain_over_before(curves)
        measured |= {f"{name} on {map_name}": interval for name, interval in on_map.items()}
    found = "; ".join(f"{map_name}: {format_intervals(ours[map_name])}" for map_name in MAPS)
    why = f"Last returns on {found}. {about_maps()} {changed}"
    paper = {"highest": dict.fromkeys(BEST_ON, REMIX)}
    return Outcome(figure, paper, ours, measured, why.strip())


def fig5_smax(workshop: Workshop) -> Outcome:
    """Four ablations on a map of SMAX."""
    returns, env_steps, changed = battle(workshop, REMIX, ABLATED_ON)
    curves = {REMIX: returns}
    for label, settings in ABLATIONS.items():
        curves[label] = battle(workshop, REMIX, ABLATED_ON, **settings)[0]
    title = f"ReMIX figure 5: ablations, SMAX {ABLATED_ON}"
    figure = curves_figure(env_steps, curves, title, SMAX_OPTIMUM)
    last = scores(curves)
    ours = {"last_return": last, "mean_return_over_training": speeds(curves)}
    measured = labelled("last return", last) | gain_over_before(curves)
    why = f"Last returns on {ABLATED_ON}, as SMAX has no MMM2: {format_intervals(last)}. {changed}"
    return Outcome(figure, FIG5_PAPER, ours, measured, why.strip())


def _best_on(map_name: str) -> Part:
    others = tuple(f"last return of {name} on {map_name}" for name in MAP_ALGORITHMS if name != REMIX)
    return Part(f"last return of {REMIX} on {map_name}", at_least=others)


def _learned_on(map_name: str) -> Part:
    before = f"its return before training on {map_name}"
    return Part(f"last return of the best algorithm on {map_name}", above=before)


ON_SMAX = ("fig2", "fig5_smax")


CLAIMS = (
    Claim(
        "fig2",
        "ReMIX, figure 2, on SMAX",
        f"ReMIX is best on {' and on '.join(BEST_ON)}.",
        Rule(
            tuple(map(_best_on, BEST_ON)),
            learned=Every(tuple(map(_learned_on, BEST_ON))),
            given=f"5m_vs_6m, for a hard map that the paper does not name, is not judged. {LAST_RETURN}: ",
        ),
        cost("5 min", "hours on 2 cores", "a day on 2 cores"),
        fig2,
    ),
    Claim(
        "fig5_smax",
        "ReMIX, figure 5, on SMAX 6h_vs_8z",
        "Leaving out any factor of the weights lowers the return, the Bellman error most.",
        ablation_rule("In place of MMM2, which SMAX lacks", BETTER_THAN_BEFORE),
        cost("2 min", "hours on 2 cores", "a day on 2 cores"),
        fig5_smax,
    ),
)
