import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.matrix_games import two_step_game
from jaxmarl_fac.memory.rollout import Latest
from tests.engine.memory.games import NUMBERED, record

# The latest step


@pytest.mark.parametrize("env", [NUMBERED, two_step_game()], ids=["stateless", "two-step"])
def test_the_latest_memory_holds_the_last_step_of_every_environment(env):
    memory = Latest(num_envs=3)
    actions = np.random.default_rng(0).integers(2, size=(7, 3, env.num_agents))
    buffer, seen = record(env, memory, 7, jnp.asarray(actions), jax.random.key(4))
    batch = memory.sample(env, buffer, jnp.int32(7), jax.random.key(1))
    np.testing.assert_array_equal(batch.actions, actions[-1])
    np.testing.assert_array_equal(batch.reward, seen[2][-3:])
    np.testing.assert_array_equal(batch.discount, seen[3][-3:])
    if not env.stateless:
        np.testing.assert_array_equal(batch.observation.agents_view, seen[0].agents_view[-3:])
        np.testing.assert_array_equal(batch.next_observation.agents_view, seen[4].agents_view[-3:])
