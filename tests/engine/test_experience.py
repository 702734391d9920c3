"""Mapping over batches of trajectories, with observations of their own and with shared ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.base import Observation
from jaxmarl_fac.experience import Trajectory, over_batch
from tests.helpers import but_slow

B, N, FEATURES, ACTIONS = 5, 2, 3, 4


def batch_of(length, shared, rng, extras=True):
    """A batch of trajectories; shared observations lack the batch axis."""
    leading = (length + 1,) if shared else (B, length + 1)
    observation = Observation(
        rng.normal(size=(*leading, N, FEATURES)).astype(np.float32),
        rng.normal(size=(*leading, FEATURES)).astype(np.float32),
        rng.random(size=(*leading, N, ACTIONS)) < 0.7,
        np.broadcast_to(np.arange(length + 1), leading),
    )
    steps = rng.normal(size=(4, B, length)).astype(np.float32)
    return jax.tree.map(
        jnp.asarray,
        Trajectory(
            observation=observation,
            first=rng.random(size=(B, length + 1)) < 0.3,
            carry={"hidden": rng.normal(size=(B, N, 2)).astype(np.float32)} if extras else (),
            actions=rng.integers(ACTIONS, size=(B, length, N)),
            extras={"log_prob": steps[0]} if extras else (),
            reward=steps[1],
            discount=steps[2],
            mask=steps[3],
        ),
    )


def one_of(batch, i, shared):
    """Trajectory i by itself."""
    own = jax.tree.map(lambda leaf: leaf[i], batch._replace(observation=()))
    seen = batch.observation if shared else jax.tree.map(lambda leaf: leaf[i], batch.observation)
    return own._replace(observation=seen)


def everything(trajectory, *others):
    """A number for each step that depends on all there is."""
    seen, carry = trajectory.observation, trajectory.carry["hidden"].sum()
    per_step = (
        seen.agents_view[:-1].sum((1, 2))
        + 2 * seen.global_state[1:].sum(1)
        + 3 * (seen.action_mask[:-1].sum((1, 2)) + seen.step_count[1:])
        + 5 * trajectory.first[:-1]
        + trajectory.actions @ jnp.arange(7, 7 + N)
        + trajectory.extras["log_prob"] * trajectory.reward
        + trajectory.discount
        - 4 * trajectory.mask
    )
    return {"steps": per_step + carry + sum(others), "total": per_step.sum()}


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("length", but_slow([1, 2, 6], [2]))
def test_over_batch_is_one_trajectory_after_the_other(length, shared):
    rng = np.random.default_rng(length)
    batch, other = batch_of(length, shared, rng), jnp.arange(float(B))
    found = over_batch(everything, batch, other, 2 * other)
    for i in range(B):
        expected = everything(one_of(batch, i, shared), other[i], 2 * other[i])
        jax.tree.map(
            lambda got, want, i=i: np.testing.assert_allclose(got[i], want, rtol=1e-5), found, expected
        )


@pytest.mark.parametrize("shared", [False, True])
def test_what_depends_on_shared_observations_alone_is_computed_once(shared):
    rows = []

    def function(trajectory):
        doubled = jax.lax.cond(True, lambda x: 2 * x, lambda x: x, trajectory.observation.agents_view)
        return doubled.sum() + trajectory.reward.sum()

    batch = batch_of(3, shared, np.random.default_rng(0))
    text = str(jax.make_jaxpr(lambda batch: over_batch(function, batch))(batch))
    shape = f"f32[4,{N},{FEATURES}]" if shared else f"f32[{B},4,{N},{FEATURES}]"
    rows = [line for line in text.splitlines() if "mul 2.0" in line]
    assert rows and all(shape in line for line in rows)


def test_agents_need_neither_memory_nor_extras():
    batch = batch_of(2, False, np.random.default_rng(0), extras=False)
    found = over_batch(lambda trajectory: (trajectory.reward, trajectory.carry), batch)
    np.testing.assert_array_equal(found[0], batch.reward)
    assert found[1] == ()


def test_a_number_for_each_agent_is_mapped_too():
    """Games with a reward per agent, and observations of one agent without features."""
    batch = batch_of(3, True, np.random.default_rng(0))
    rewards = jnp.arange(B * 3.0 * N).reshape(B, 3, N)
    found = over_batch(lambda trajectory: trajectory.reward, batch._replace(reward=rewards))
    np.testing.assert_array_equal(found, rewards)
