"""The matrix games of QPLEX's figures, the learners that train on them, and how often they are optimal."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import baselines
import envs
from baselines.probes import joint_tables
from envs.base import TeamEnvironment
from envs.matrix_games import QPLEX_10_PAYOFF, QPLEX_PAYOFF, QTRAN_PAYOFF
from jaxmarl_fac.algorithm import Algorithm
from jaxmarl_fac.experiment import Experiment
from jaxmarl_fac.loop import Result
from jaxmarl_fac.report.claims import Workshop
from jaxmarl_fac.report.verdicts import share
from jaxmarl_fac.statistics import bootstrap_interval
from jaxmarl_fac.tracking import History

ACTIONS = ("A", "B", "C")
#: Environment id, what figures call it, and its payoff.
GAMES = {
    "matrix-qtran": ("QTRAN's game", np.asarray(QTRAN_PAYOFF, float)),
    "matrix-qplex": ("QPLEX's game", np.asarray(QPLEX_PAYOFF, float)),
    "matrix-qplex-10": ("the 10.4 game", np.asarray(QPLEX_10_PAYOFF, float)),
}
ALGORITHMS = ("vdn", "qmix", "qatten", "qplex", "qtran-base", "cw-qmix", "ow-qmix", "remix")
#: QPLEX whose utilities learn through the advantages too.
FREE = "qplex-gradient"
#: Table 3 of QTRAN gives every network two layers of 32 units: so have the parts that QTRAN has not. As
#: all act at random throughout, recent transitions are like all others, and ReMIX does not sample them apart.
SETTINGS: dict[str, dict[str, Any]] = {
    "qplex": {"kernel_hidden": (32, 32)},
    FREE: {"kernel_hidden": (32, 32), "stop_gradient": False},
    "cw-qmix": {"central_hidden": (32, 32)},
    "ow-qmix": {"central_hidden": (32, 32)},
    "remix": {"central_hidden": (32, 32), "consumes": "transitions", "recent_fraction": 0.0},
}
#: In place of a paper's numbers.
UNPUBLISHED = {
    "note": "QPLEX's curves were not at hand; what is judged is the outcome that is commonly quoted"
}
#: Steps of QPLEX's release on its matrix games, all of them with epsilon = 1.
RELEASE_STEPS = 210_000
LONG_GAMES = ("matrix-qtran", "matrix-qplex")


def learner(name: str) -> Algorithm:
    """The algorithm of this name, which is an id or `FREE`."""
    return baselines.make("qplex" if name == FREE else name, **SETTINGS.get(name, {}))


def train(workshop: Workshop, name: str) -> dict[str, History]:
    """20,000 steps of every game with epsilon = 1, as in QTRAN's table 3, in one program."""
    experiment = Experiment(
        algorithm=learner(name),
        environment=stack_games(tuple(GAMES)),
        games=len(GAMES),
        seeds=workshop.seeds(smoke=2, quick=50, paper=256),
        env_steps=workshop.choose(smoke=200, quick=20_000, paper=20_000),
        evaluations=workshop.choose(smoke=2, quick=20, paper=20),
        evaluation_episodes=1,
        probe=joint_tables,
    )
    return split_by_game(workshop.train(name, experiment), tuple(GAMES))


def train_long(workshop: Workshop, name: str) -> dict[str, History]:
    """The release's budget from the scale `long` on; below `train`'s, whose runs it shares but `FREE`'s."""
    if workshop.scale in ("smoke", "quick") and name != FREE:
        return train(workshop, name)
    experiment = Experiment(
        algorithm=learner(name),
        environment=stack_games(LONG_GAMES),
        games=len(LONG_GAMES),
        seeds=workshop.seeds(smoke=2, quick=50, paper=50),
        env_steps=workshop.choose(smoke=200, quick=20_000, paper=RELEASE_STEPS),
        evaluations=workshop.choose(smoke=2, quick=20, paper=42),
        evaluation_episodes=1,
        probe=joint_tables,
    )
    return split_by_game(workshop.train(f"long-{name}", experiment), LONG_GAMES)


def stack_games(games: tuple[str, ...]) -> TeamEnvironment:
    """A batch of games: they differ in their payoffs only."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(envs.make, games))


def split_by_game(result: Result, games: tuple[str, ...]) -> dict[str, History]:
    """What was measured of each game; lanes are seeds, game by game."""
    arrays = result.history.arrays()
    env_steps = arrays.pop("env_steps")
    seeds = len(result.history.last["episode_return"]) // len(games)
    return {
        game: History(
            {"env_steps": env_steps, **{m: a[:, k * seeds : (k + 1) * seeds] for m, a in arrays.items()}}
        )
        for k, game in enumerate(games)
    }


def summary(history: History, payoff: np.ndarray) -> dict[str, Any]:
    """How often greedy play is optimal at the end, and what it earns."""
    rewards = history.last["episode_return"]
    return {
        "greedy_optimal_fraction": share(optimal(rewards, payoff)),
        "mean_greedy_reward": bootstrap_interval(rewards, np.mean),
    }


def optimal(rewards: np.ndarray, payoff: np.ndarray) -> np.ndarray:
    """Where a greedy reward is the game's largest."""
    return np.asarray(rewards >= payoff.max() - 1e-4)


def table_of(name: str) -> str:
    """The name of an algorithm's joint value among its `joint_tables`."""
    return "q_jt" if name.startswith("qtran") else "q_tot"
