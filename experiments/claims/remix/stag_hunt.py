"""ReMIX, figures 1, 3, 4 and 5 on DCG's predator-prey (stag hunt)."""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from baselines.families import FAMILY_ENV_STEPS
from envs.stag_hunt import StagHunt, stag_hunt
from experiments.claims.remix.settings import (
    ABLATIONS,
    FIG5_PAPER,
    PAPER,
    QMIX,
    QUICK,
    REMIX,
    SMOKE,
    WEIGHTED,
    WORLDS,
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
from jaxmarl_fac.report.figures import panels
from jaxmarl_fac.report.verdicts import Every, Part, Rule, labelled
from jaxmarl_fac.settings import leaves
from jaxmarl_fac.statistics import Interval, bootstrap_interval, probability_of_improvement

QTRAN = "qtran-base"
#: Of figure 1, by id: the paper's seven, and four relatives.
ALGORITHMS = (
    *("vdn", QMIX, "qatten", "qplex", QTRAN),
    *("vdac-mix", "dop", "fop"),
    *WEIGHTED,
    REMIX,
)
#: The four panels of figure 1, and the reward of a lone catcher.
PUNISHMENTS = {"fig1_p0": 0.0, "fig1_p05": -0.5, "fig1_p15": -1.5, "fig1_p2": -2.0}
#: From this punishment on, the paper says, only ReMIX and Weighted QMIX catch prey well.
HARD = -1.5
#: Least weights of figure 4; the first is the default.
MIN_WEIGHTS = (0.1, 0.5, 0.8)


def hunt_experiment(
    name: str, scale: Scale, seeds: Sequence[int], punishments: Sequence[float], **changed: Any
) -> Experiment:
    """One algorithm on the stag hunt, all punishments in one program.

    Args:
        name: id of the algorithm.
        scale: see `script.Options`.
        seeds: seed numbers.
        punishments: p of each game.
        changed: settings of the algorithm in place of the scale's.
    """
    settings = PAPER | {"env_steps": FAMILY_ENV_STEPS["stag-hunt"], "alpha": 0.1}
    settings |= at_scale(scale, smoke=SMOKE, quick=QUICK, long=QUICK, paper={})
    algorithm, run = learner_and_run(name, "stag-hunt", settings | changed)
    game = jax.tree.map(lambda leaf: jnp.repeat(leaf[None], len(punishments), 0), stag_hunt(**WORLDS[scale]))
    return Experiment(
        algorithm=algorithm,
        environment=game.replace(punishment=jnp.asarray(punishments, jnp.float32)),
        games=len(punishments),
        seeds=tuple(seeds),
        evaluations=at_scale(scale, smoke=2, quick=30, long=30, paper=100),  # every 10,000 steps, as D.2 says
        evaluation_episodes=2 if scale == "smoke" else 32,
        **run,
    )


def hunt(workshop: Workshop, name: str, punishment: float, seeds: Sequence[int], **changed: Any) -> Any:
    """Train one algorithm, unless that is done; what was measured at one punishment, and what is changed.

    An accelerator plays four punishments in the time of one, so at the scale "paper" all of them train in
    one program, which figures 1, 3, 4 and 5 share; at the other scales each trains by itself,
    because two cores are too slow for all four.

    Returns:
        Every metric `(evaluations, seeds, ...)` by name with `env_steps (evaluations,)`, and the experiment.
    """
    together = workshop.scale == "paper" and not changed
    punishments = tuple(PUNISHMENTS.values()) if together else (punishment,)
    experiment = hunt_experiment(name, workshop.scale, seeds, punishments, **changed)
    words = ["hunt", name, *(f"{setting}={value}" for setting, value in changed.items())]
    result = workshop.train("-".join(words if together else [*words, f"p{abs(punishment):g}"]), experiment)
    arrays, game = result.history.arrays(), punishments.index(punishment)
    measured = {
        metric: table
        if metric == "env_steps"
        else table.reshape(len(table), len(punishments), len(seeds), *table.shape[2:])[:, game]
        for metric, table in arrays.items()
    }
    return measured, experiment


def changed_for(experiment: Experiment, name: str, *more: tuple[str, Any, Any]) -> str:
    """In what a stag hunt differs from the paper's, in words; empty if in nothing.

    `more` are further pairs to compare: a name, ours and the paper's.
    """
    paper = hunt_experiment(name, "paper", experiment.seeds, (0.0,))
    game, papers_game = (cast(StagHunt, each.environment) for each in (experiment, paper))
    masks = game.mask_occupied, papers_game.mask_occupied
    changed = settings_diff(experiment, paper, ("mask_occupied", *masks), *more)
    if (game.height, game.width) == (10, 10):
        return changed
    return (
        f"Played on {game.height} x {game.width} cells with {game.num_agents} agents, {game.num_prey} prey "
        f"and {game.time_limit} steps (paper: 10 x 10, 8, 8 and 200). {changed}"
    )


def state_of_qtran(scale: Scale) -> tuple[str, bool, bool]:
    """Whether QTRAN's joint networks see the global state at a scale, and in the paper."""
    both = (hunt_experiment(QTRAN, each, (0,), (0.0,)).algorithm for each in (scale, "paper"))
    ours, papers = (leaves(algorithm)["global_state"].value for algorithm in both)
    return f"global_state of {QTRAN}", ours, papers


def optimum(game: StagHunt) -> float:
    """The best return: every catch takes two agents."""
    return float(np.max(game.capture_reward)) * min(game.num_prey, game.num_agents // 2)


def _measured(curves: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What the rules of all figures judge: last returns, and whether any algorithm catches prey."""
    learning = gain_over_before(curves)
    last = "last return of the best algorithm"
    return labelled("last return", scores(curves)) | learning | {f"interval of the {last}": learning[last]}


#: Avoiding all prey earns 0, and random play may earn more where lone catchers are not punished.
HUNTS = Every((Part("interval of the last return of the best algorithm", above=0), BETTER_THAN_BEFORE))
QMIX_SHARE = "interval of qmix's last return as a share of the optimum"


def fig1_rule(punishment: float) -> Rule:
    """Which algorithms catch prey at a punishment, and which learns it fastest."""
    others = [name for name in ALGORITHMS if name != REMIX]
    mine, qmix = f"last return of {REMIX}", f"last return of {QMIX}"
    parts: tuple[Part, ...]
    if punishment <= HARD:
        parts = (
            Part(QMIX_SHARE, below=0.5),  # relative overgeneralization
            Part("last return of the better Weighted QMIX", above=qmix),
            Part(mine, above=qmix),
            Part(mine, at_least=tuple(f"last return of {name}" for name in WEIGHTED)),
        )
    else:
        parts = (Part(mine, at_least=tuple(f"last return of {name}" for name in others)),)
    speeds_of_others = tuple(f"mean return over training of {name}" for name in others)
    fastest = Part(f"mean return over training of {REMIX}", above=speeds_of_others)
    return Rule((*parts, fastest), learned=HUNTS, given=f"{LAST_RETURN}: ")


def fig1(workshop: Workshop, punishment: float) -> Outcome:
    """Learning curves of all algorithms at one punishment."""
    seeds = workshop.seeds(smoke=2, quick=4, long=10, paper=4)
    curves = {}
    for name in ALGORITHMS:
        measured, experiment = hunt(workshop, name, punishment, seeds)
        curves[name] = measured["episode_return"]
    best = optimum(experiment.environment)  # type: ignore[arg-type]
    last, speed = scores(curves), speeds(curves)
    weighted = max(WEIGHTED, key=lambda name: last[name].value)
    faster = max(WEIGHTED, key=lambda name: speed[name].value)
    ahead = probability_of_improvement(
        curves[REMIX][1:].mean(axis=0), curves[faster][1:].mean(axis=0)
    )  # over training

    title = f"ReMIX figure 1: stag hunt, p = {punishment:g}"
    figure = curves_figure(measured["env_steps"], curves, title, best, zero=True)
    ours = {
        "optimum": best,
        "last_return": last,
        "mean_return_over_training": speed,
        "remix_faster_than_weighted_qmix_probability": {"against": faster, **ahead.to_json()},
    }
    judged = _measured(curves) | labelled("mean return over training", speed)
    judged["last return of the better Weighted QMIX"] = last[weighted]
    judged[QMIX_SHARE] = Interval(*(end / best for end in dataclasses.astuple(last[QMIX])))
    changed = changed_for(experiment, name, state_of_qtran(workshop.scale))
    why = (
        f"Last returns (the optimum is {best:g}): {format_intervals(last)}. Mean returns over training: "
        f"{format_intervals(speed)}. A seed of ReMIX learns faster than one of {faster} with probability "
        f"{ahead.value:.2f} [{ahead.low:.2f}, {ahead.high:.2f}]. {changed}"
    )
    paper = {"best": REMIX, "fastest": REMIX, "good": [REMIX, "wqmix"] if punishment <= HARD else None}
    return Outcome(figure, paper, ours, judged, why.strip())


#: Natural logarithm at which the colours end, as in the paper.
MIN_LOG = -10.0
#: Least share of the sampled steps for a level of the weights to count.
LEVEL_SHARE = 0.01


def levels(shares: np.ndarray) -> int:
    """How many of the bins hold at least `LEVEL_SHARE` of all steps; `shares (evaluations, seeds, bins)`."""
    return int((shares.mean(axis=(0, 1)) >= LEVEL_SHARE).sum())


def fall(weights: np.ndarray) -> Interval:
    """By how much the mean weight `(evaluations, seeds)` falls: first less last quarter, mean over seeds."""
    quarter = max(1, len(weights) // 4)
    return bootstrap_interval(weights[:quarter].mean(axis=0) - weights[-quarter:].mean(axis=0), np.mean)


def fig3(workshop: Workshop) -> Outcome:
    """How the weights of the sampled steps are distributed, over training, at p = -2."""
    seeds = workshop.seeds(smoke=2, quick=4, long=10, paper=4)
    names = (REMIX, *WEIGHTED)
    figure, axes = panels(1, len(names), (4.6, 4.2))
    ours: dict[str, Any] = {}
    curves = {}
    for axis, name in zip(axes[0], names, strict=True):
        measured, experiment = hunt(workshop, name, PUNISHMENTS["fig1_p2"], seeds)
        curves[name] = measured["episode_return"]
        # Before the first update there are none.
        learned = np.isfinite(measured["mean_weight"]).all(axis=1)
        start, weights = int(np.argmax(learned)) - 1, measured["mean_weight"][learned]
        shares = measured["weight_shares"][learned]
        ours[name] = {
            "fall_of_mean_weight": fall(weights),
            "first_mean_weight": weights[0].mean(),
            "last_mean_weight": weights[-1].mean(),
            "levels": levels(shares),
            "last_shares": shares[-1].mean(axis=0),
        }
        draw_weights(axis, measured["env_steps"][[start, -1]], shares.mean(axis=1), name)
    judged = _measured(curves)
    judged |= {FALL.format(name=name): ours[name]["fall_of_mean_weight"] for name in names}
    judged |= {LEVELS.format(name=name): ours[name]["levels"] for name in names}
    figure.colorbar(axes[0, -1].images[0], ax=list(axes[0]), label="log of the share of steps", extend="min")
    figure.suptitle(f"ReMIX figure 3: weights of the sampled steps, p = -2, mean of {len(seeds)} seeds")
    falls = ", ".join(
        f"{name} {ours[name]['first_mean_weight']:.3f} to {ours[name]['last_mean_weight']:.3f} (falls by "
        f"{ours[name]['fall_of_mean_weight'].value:.3f} [{ours[name]['fall_of_mean_weight'].low:.3f}, "
        f"{ours[name]['fall_of_mean_weight'].high:.3f}]; {ours[name]['levels']} levels)"
        for name in names
    )
    why = f"Mean weights: {falls}. {changed_for(experiment, name)}"
    paper = {"trend": "from large to small weights", "levels": {REMIX: "many", "wqmix": 2}}
    return Outcome(figure, paper, ours, judged, why.strip())


FALL = "interval of the fall of {name}'s mean weight, first less last quarter of training, mean over seeds"
LEVELS = f"number of 20 bins of {{name}}'s weights with {LEVEL_SHARE:.0%} or more of all sampled steps"
FIG3_RULE = Rule(
    (
        *(Part(FALL.format(name=name), above=0) for name in (REMIX, *WEIGHTED)),
        Part(LEVELS.format(name=REMIX), above=2),
        *(Part(LEVELS.format(name=name), at_most=2) for name in WEIGHTED),
    ),
    learned=HUNTS,
    given="At p = -2: ",
)


def draw_weights(axes: Axes, ends: np.ndarray, shares: np.ndarray, title: str) -> None:
    """Shares `(evaluations, bins)` of the weights from 0 to 1, as colours on a logarithmic scale.

    `ends` are the environment steps at which the evaluations begin and end.
    """
    logs = np.log(np.maximum(shares, np.exp(MIN_LOG - 1)))
    axes.imshow(
        logs,
        cmap="inferno",
        vmin=MIN_LOG,
        vmax=0,
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        extent=(0, 1, float(ends[0]), float(ends[1])),
    )
    axes.yaxis.set_major_formatter(EngFormatter(sep=""))  # 200k, 1M
    axes.set(title=title, xlabel="weight", ylabel="environment steps")


def variants(
    workshop: Workshop, settings: Mapping[str, Mapping[str, Any]], punishment: float, title: str
) -> tuple[Figure, dict[str, Any], dict[str, Any], str]:
    """Train ReMIX with some settings changed, the first time with none, and draw and score the curves."""
    seeds = workshop.seeds(smoke=2, quick=4, long=10, paper=4)
    runs = {label: hunt(workshop, REMIX, punishment, seeds, **changed) for label, changed in settings.items()}
    measured, experiment = next(iter(runs.values()))
    curves = {label: run[0]["episode_return"] for label, run in runs.items()}
    best = optimum(experiment.environment)
    figure = curves_figure(measured["env_steps"], curves, f"ReMIX {title}", best)
    last = scores(curves)
    ours = {"optimum": best, "last_return": last, "mean_return_over_training": speeds(curves)}
    why = f"Last returns: {format_intervals(last)}. {changed_for(experiment, REMIX)}"
    return figure, ours, _measured(curves), why.strip()


def fig4(workshop: Workshop) -> Outcome:
    """Three least weights at p = -1.5."""
    default = f"w_min = {MIN_WEIGHTS[0]:g}"
    settings = {f"w_min = {least:g}": {"w_min": least} for least in MIN_WEIGHTS} | {default: {}}
    figure, ours, measured, why = variants(
        workshop, settings, PUNISHMENTS["fig1_p15"], "figure 4: least weights, stag hunt, p = -1.5"
    )
    paper = {"good": 0.1, "sub-optimal": 0.5, "damaged": 0.8}
    return Outcome(figure, paper, ours, measured, why)


def fig5(workshop: Workshop) -> Outcome:
    """Four ablations on the stag hunt at p = -2."""
    figure, ours, measured, why = variants(
        workshop, {REMIX: {}, **ABLATIONS}, PUNISHMENTS["fig1_p2"], "figure 5: ablations, stag hunt, p = -2"
    )
    return Outcome(figure, FIG5_PAPER, ours, measured, why)


FIG4_LAST = tuple(f"last return of w_min = {least:g}" for least in MIN_WEIGHTS)
FIG4_RULE = Rule(
    (
        Part(FIG4_LAST[0], at_least=FIG4_LAST[1:]),
        *(Part(FIG4_LAST[0], above=higher) for higher in FIG4_LAST[1:]),
    ),
    learned=HUNTS,
    given=f"At p = -1.5. {LAST_RETURN}: ",
)


def _hunt_claim(figure: str) -> Claim:
    punishment = PUNISHMENTS[figure]
    hard = punishment <= HARD
    claim = "only ReMIX and Weighted QMIX catch prey well" if hard else "ReMIX is best"
    return Claim(
        figure,
        "ReMIX, figure 1",
        f"Stag hunt, p = {punishment:g}: {claim}, and ReMIX learns fastest.",
        fig1_rule(punishment),
        cost("3 min", "25 min on 2 cores", "50 min on 2 cores"),
        partial(fig1, punishment=punishment),
    )


CLAIMS = (
    *map(_hunt_claim, PUNISHMENTS),
    Claim(
        "fig3",
        "ReMIX, figure 3",
        "Over training the weights fall, in ReMIX as in Weighted QMIX, and only ReMIX has medium ones.",
        FIG3_RULE,
        cost(
            "none after fig1_p2",
            "none after fig1_p2, else 10 min on 2 cores",
            "none after fig1_p2, else 25 min on 2 cores",
        ),
        fig3,
    ),
    Claim(
        "fig4",
        "ReMIX, figure 4",
        "A least weight of .1 is good, higher ones are worse.",
        FIG4_RULE,
        cost("40 s", "10 min on 2 cores", "25 min on 2 cores"),
        fig4,
    ),
    Claim(
        "fig5",
        "ReMIX, figure 5, on the stag hunt",
        "Leaving out any factor of the weights lowers the return, the Bellman error most.",
        ablation_rule("At p = -2", HUNTS),
        cost("80 s", "15 min on 2 cores", "40 min on 2 cores"),
        fig5,
    ),
)
