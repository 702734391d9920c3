"""What ReMIX's figures share: hyper-parameters and worlds by scale, ablations and their rule."""

from collections.abc import Mapping
from typing import Any

import numpy as np

import baselines
from baselines.families import FAMILY_ENV_STEPS
from baselines.registry import own_settings
from jaxmarl_fac.algorithm import Algorithm
from jaxmarl_fac.report.claims import Scale
from jaxmarl_fac.report.curves import LAST_RETURN
from jaxmarl_fac.report.verdicts import Condition, Part, Rule
from jaxmarl_fac.statistics import Interval, bootstrap_interval

REMIX, QMIX, WEIGHTED = "remix", "qmix", ("ow-qmix", "cw-qmix")

#: Figure 5: what is left out of the weights, by the factor's name.
ABLATIONS: dict[str, dict[str, Any]] = {
    "no Bellman error": {"bellman": False},
    "no underestimation": {"underestimation": False},
    "no gradient": {"gradient": False},
    "no on-policy": {"recent_fraction": 0.0},
}
#: The worst one, according to the paper.
WORST = "no Bellman error"

#: Table 2 of the paper and its text; what both leave open is PyMARL2's, on which it builds: 8 environments,
#: one update after each 8 episodes, so that 25 updates are the table's 200 episodes, and a GRU of 64.
PAPER: dict[str, Any] = {
    "num_envs": 8,
    "consumes": "episodes",
    "recurrent": True,
    "hidden": (64,),
    "mixer_embed": 32,
    "hypernet_hidden": (64,),
    "kernels": 4,
    "kernel_hidden": (64,),
    "batch_size": 128,
    "replay_size": 10_000,
    "optimiser": "adam",
    "learning_rate": 1e-3,
    "max_grad_norm": 10.0,
    "td_lambda": 0.6,
    "central_factor": 0.5,
    "target_period": 25,
    "update_period": 200,
    "learning_starts": 128 * 200,
    "epsilon_start": 0.995,
    "epsilon_end": 0.05,
    "epsilon_steps": 100_000,
    "rollout_length": None,  # of policy gradients: an episode of each environment
}
#: What replaces it at the scales "quick" and "long" (which has more seeds), where agents need no memory: on
#: 6 x 6 cells a view of 5 x 5 hides little. One update for 200 steps, as in Weighted QMIX's release. Replay
#: holds all episodes, as the paper's does, where they are longer. QTRAN sees there what its agents see.
QUICK: dict[str, Any] = {
    "recurrent": False,
    "batch_size": 32,
    "replay_size": 34_000,
    "central_hidden": (64, 64, 64),
    "global_state": False,
    "update_period": 25,
    "target_period": 40,
    "learning_starts": 2_000,
}
SMOKE: dict[str, Any] = {
    "env_steps": 200,
    "num_envs": 4,
    "hidden": (8,),
    "batch_size": 4,
    "replay_size": 12,
    "central_hidden": (8,),
    "critic_hidden": (8,),
    "hypernet_hidden": (8,),
    "kernel_hidden": (8,),
    "update_period": 8,
    "target_period": 2,
    "learning_starts": 20,
    "epsilon_steps": 100,
}
SMALL_WORLD = {"agents": 4, "prey": 4, "height": 6, "width": 6, "time_limit": 30}
#: The paper's world is `stag_hunt`'s default, 10 x 10 cells, 8 agents, 8 prey, 200 steps, with its section
#: D.1's mask; the others have the release's, which leaves moves into occupied cells available.
WORLDS: dict[Scale, dict[str, Any]] = {
    "smoke": {"agents": 2, "prey": 2, "height": 3, "width": 4, "time_limit": 8},
    "quick": SMALL_WORLD,
    "long": SMALL_WORLD,
    "paper": {"mask_occupied": True},
}
SMAX_QUICK = QUICK | {"env_steps": 200_000, "recurrent": True, "epsilon_steps": 20_000, "replay_size": 2_000}
#: For SMAX: the text's alpha, and below the scale "paper" networks and a budget that two cores can do.
SMAX: dict[Scale, dict[str, Any]] = {
    "smoke": SMOKE | {"env_steps": 1000, "update_period": 50},
    "quick": SMAX_QUICK,
    "long": SMAX_QUICK | {"env_steps": 1_000_000, "epsilon_steps": 100_000},
    "paper": {"env_steps": FAMILY_ENV_STEPS["smax"], "update_period": 100},
}


def learner_and_run(name: str, family: str, settings: Mapping[str, Any]) -> tuple[Algorithm, dict[str, Any]]:
    """The algorithm with those of the settings that it has, and the experiment's own ones."""
    run = {field: settings[field] for field in ("env_steps", "num_envs")}
    return baselines.make(name, family, **own_settings(name, settings)), run


def speeds(curves: Mapping[str, np.ndarray]) -> dict[str, Interval]:
    """The IQM over seeds of each algorithm's mean return over training, with its interval."""
    return {name: bootstrap_interval(returns[1:].mean(axis=0)) for name, returns in curves.items()}


#: What the paper reads off its figure 5, on MMM2.
FIG5_PAPER = {
    "map": "MMM2",
    "win_rate": {"no Bellman error": "< 10 %", "no gradient": "about 60 %"},
    "best": REMIX,
}


def ablation_rule(where: str, learned: Condition) -> Rule:
    """Figure 5: every ablation is worse, that of the Bellman error most."""
    mine, worst = f"last return of {REMIX}", f"last return of {WORST}"
    others = [f"last return of {label}" for label in ABLATIONS]
    return Rule(
        (
            *(Part(mine, at_least=other) for other in others),
            Part(worst, at_most=[other for other in others if other != worst]),
            Part(mine, above=worst),
        ),
        learned=learned,
        given=f"{where}. {LAST_RETURN}: ",
    )


def cost(smoke: str, quick: str, long: str) -> Mapping[Scale, str]:
    """A figure's cost at each scale."""
    return {"smoke": smoke, "quick": quick, "long": long, "paper": "accelerator"}
