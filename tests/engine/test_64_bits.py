"""JAX's 64-bit mode: every kind of algorithm and every environment, traced but not compiled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import baselines
import envs
from envs.registry import ENVIRONMENTS
from jaxmarl_fac.experiment import Experiment
from jaxmarl_fac.loop import train
from jaxmarl_fac.program import Program
from jaxmarl_fac.settings import leaves
from tests.helpers import but_slow

#: One of each kind; the others are slow.
FAMILIES = (
    "coma",
    "fmq",
)
#: Games of algorithms that need options, or public observations.
THEIR_GAMES = {
    "soft-options": "four-rooms",
    "delayed-options": "option-mdp-random",
    "bad": "private-cards",
    "bad-particles": "private-cards",
}
RECURRENT = {"consumes": "episodes", "recurrent": True, "minibatches": 1}


@pytest.fixture(autouse=True)
def in_64_bits():
    with jax.enable_x64(True):
        yield


#: The first game of each family.
GAMES = {entry.family: env_id for env_id, entry in reversed(ENVIRONMENTS.items())}.values()


@pytest.mark.parametrize("env_id", [*but_slow(ENVIRONMENTS, GAMES), "jumanji:LevelBasedForaging-v0"])
def test_environments_show_and_pay_in_single_precision_and_keep_their_states(env_id):
    env = envs.make(env_id)
    state, first = jax.eval_shape(env.reset, jax.random.key(0))
    actions = jax.ShapeDtypeStruct((env.num_agents,), jnp.int32 if env.num_actions else jnp.float32)
    following, timestep = jax.eval_shape(env.step, state, actions)
    for leaf, after in zip(jax.tree.leaves(state), jax.tree.leaves(following), strict=True):
        assert (leaf.shape, leaf.dtype) == (after.shape, after.dtype)
    for each in (first, timestep):
        seen = each.observation
        dtypes = [seen.agents_view.dtype, seen.global_state.dtype, each.reward.dtype, each.discount.dtype]
        assert dtypes == [jnp.float32] * 4
        assert (seen.action_mask.dtype, seen.step_count.dtype) == (bool, jnp.int32)


@pytest.mark.parametrize("env_id", ["jumanji:RobotWarehouse-v0", "jumanji:Connector-v3"])
def test_what_jumanji_cannot_play_is_refused(bad_input, env_id):
    with bad_input("cannot be played in 64-bit mode: unset JAX_ENABLE_X64"):
        jax.eval_shape(envs.make(env_id).reset, jax.random.key(0))


def cases():
    for algorithm_id in baselines.ALGORITHMS:
        marks = () if algorithm_id in FAMILIES else pytest.mark.slow
        algorithm = baselines.make(algorithm_id)
        continuous = getattr(getattr(algorithm, "method", None), "continuous", False)
        env_id = THEIR_GAMES.get(algorithm_id, "differential" if continuous else "two-step")
        yield pytest.param(algorithm_id, env_id, {}, marks=marks)
        if "recurrent" in leaves(algorithm):
            settings = baselines.registry.own_settings(algorithm_id, RECURRENT)
            marks = () if algorithm_id == "coma" else pytest.mark.slow
            yield pytest.param(algorithm_id, "two-step", settings, marks=marks)


@pytest.mark.parametrize(("algorithm_id", "env_id", "settings"), list(cases()))
def test_algorithms_run_through_the_loop(algorithm_id, env_id, settings):
    program = Program(
        Experiment(
            algorithm=baselines.make(algorithm_id, **settings),
            environment=envs.make(env_id),
            seeds=(0, 1),
            env_steps=50,
            evaluations=1,
        )
    )
    lanes = jax.eval_shape(jax.vmap(program._init_lane), program.constants)
    number = jax.ShapeDtypeStruct((), jnp.int32)
    after, _ = jax.eval_shape(program._run, lanes, program.constants, number, number)
    assert jax.tree.map(lambda leaf: leaf.dtype, after) == jax.tree.map(lambda leaf: leaf.dtype, lanes)
    jax.eval_shape(jax.vmap(program._evaluate_lane, (0, 0, None)), lanes, program.constants, number)


@pytest.mark.slow
def test_training_and_playing_work():
    experiment = Experiment(
        algorithm=baselines.make(
            "vdn", hidden=(8,), batch_size=4, learning_starts=4, consumes="episodes", recurrent=True
        ),
        environment=envs.make("two-step"),
        seeds=(0,),
        env_steps=30,
        evaluations=1,
    )
    assert np.isfinite(train(experiment).history.last["loss"]).all()
