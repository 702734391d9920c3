"""Games of one agent: whatever needs no other agent plays and solves them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import baselines
from baselines.registry import ALGORITHMS, lookup, own_settings
from envs.errors import BadInputError
from envs.matrix_games import matrix_game
from envs.team_mdp import team_mdp
from jaxmarl_fac.experiment import Experiment
from jaxmarl_fac.game import GameSpec
from jaxmarl_fac.loop import train
from jaxmarl_fac.program import Program

BANDIT = matrix_game([8, 0, 2])
#: Action a leads to state a; action 1 pays 1 in state 0, action 0 pays 2 in state 1: 7 at most in five steps.
CHAIN = team_mdp(np.broadcast_to(np.eye(2), (2, 2, 2)), [[0, 1], [2, 0]], time_limit=5)
#: They need options, or public observations.
OF_OTHER_GAMES = ("soft-options", "delayed-options", "bad", "bad-particles")
#: All others for discrete actions.
DISCRETE = [
    name
    for name, entry in ALGORITHMS.items()
    if name not in OF_OTHER_GAMES
    and not getattr(getattr(entry.algorithm, "method", None), "continuous", False)
]


def needs_another(algorithm_id):
    """Whether it is for two players, or models one other agent."""
    try:
        lookup(algorithm_id).bind(GameSpec.of(BANDIT))
    except BadInputError as error:
        assert str(error).endswith("has 1 agent: take a game of two")
        return True
    return False


ALONE = [name for name in DISCRETE if not needs_another(name)]


def test_only_what_models_another_agent_refuses_a_game_of_one():
    models = {"balancing-ac"} | {name for name in DISCRETE if type(lookup(name)).__name__ == "SelfPlay"}
    assert set(DISCRETE) - set(ALONE) == models
    assert {
        "iql",
        "qmix",
        "qplex",
        "qtran-alt",
        "ow-qmix",
        "maven",
        "ltql",
        "coma",
        "mappo",
        "sac-discrete",
    } < {*ALONE}


@pytest.mark.slow
@pytest.mark.parametrize("algorithm_id", ALONE)
def test_it_runs_through_the_loop(algorithm_id):
    """Traced, on a game without and on one with states."""
    small = {"hidden": (3,), "batch_size": 2, "replay_size": 4, "learning_starts": 2}
    for env in (BANDIT, CHAIN):
        program = Program(
            Experiment(
                algorithm=baselines.make(algorithm_id, **own_settings(algorithm_id, small)),
                environment=env,
                seeds=(0,),
                env_steps=2000,
                num_envs=2,
                evaluations=1,
            )
        )
        lanes = jax.eval_shape(jax.vmap(program._init_lane), program.constants)
        number = jax.ShapeDtypeStruct((), jnp.int32)
        after, _ = jax.eval_shape(program._run, lanes, program.constants, number, number)
        assert jax.tree.map(lambda leaf: leaf.shape, after) == jax.tree.map(lambda leaf: leaf.shape, lanes)


SETTINGS = {
    "hidden": (16,),
    "learning_rate": 5e-3,
    "target_period": 50,
    "epsilon_end": 0.1,
    "epsilon_steps": 1000,
    "rollout_length": 10,
    "mi_coefficient": 0.1,
    "num_latents": 2,
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "algorithm_id",
    ["iql-tabular", "qmix", "qplex", "maven", "ltql", "a2c", "mappo", "sac-discrete"],
)
def test_it_is_solved(algorithm_id):
    """16 seeds on the chain: at least 15 earn all of the 7."""
    experiment = Experiment(
        algorithm=baselines.make(algorithm_id, **own_settings(algorithm_id, SETTINGS)),
        environment=CHAIN,
        seeds=tuple(range(16)),
        env_steps=40_000 if algorithm_id in ("a2c", "mappo") else 6000,
        num_envs=8 if algorithm_id in ("a2c", "mappo") else 1,
        evaluations=1,
        evaluation_episodes=1,
    )
    assert (train(experiment).history.last["episode_return"] == 7).sum() >= 15
