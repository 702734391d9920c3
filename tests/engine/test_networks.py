"""Agents' networks with and without shared parameters, ids and last actions, against plain NumPy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.base import Observation
from jaxmarl_fac.experience import Trajectory
from jaxmarl_fac.networks import NO_ACTION, AgentMemory, AgentNetwork, RecurrentAgentNetwork
from tests.helpers import but_slow, sets_but_slow
from tests.reference import q_learners, recurrent

T, N, FEATURES, ACTIONS, WIDTHS = 4, 3, 2, 5, (6, 4)
EITHER = (True, False)
RNG = np.random.default_rng(0)
VIEWS = RNG.normal(size=(T + 1, N, FEATURES)).astype(np.float32)
PLAYED = RNG.integers(ACTIONS, size=(T, N))


def trajectory(views, actions, first=None, carry=()):
    """Of agents that saw and did this; an episode from its start on unless `first` says otherwise."""
    length = len(views)
    first = np.arange(length) == 0 if first is None else np.asarray(first)
    return Trajectory(Observation(views, None, None, None), first, carry, actions, (), None, None, None)


def randomised(shapes):
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: jnp.asarray(0.7 * rng.normal(size=leaf.shape), jnp.float32), shapes)


def feed_forward(shared, ids):
    network = AgentNetwork(ACTIONS, WIDTHS, share_parameters=shared, agent_ids=ids)
    params = randomised(jax.eval_shape(network.init, jax.random.key(0), VIEWS[0]))
    return network, params


def with_memory(shared, ids, last_actions):
    network = RecurrentAgentNetwork(ACTIONS, WIDTHS, shared, ids, last_actions)
    params = randomised(jax.eval_shape(network.init, jax.random.key(0), VIEWS[0]))
    return network, params


@pytest.mark.parametrize(
    ("shared", "ids"), sets_but_slow(itertools.product(EITHER, EITHER), [(True, True), (False, False)])
)
def test_feed_forward_agents(shared, ids):
    network, params = feed_forward(shared, ids)
    found = network.apply(params, VIEWS[0])
    each = [q_learners.agent({"agent": params["params"]}, VIEWS[0], i, N) for i in range(N)]
    for got, want in zip(found, zip(*each, strict=True), strict=True):
        np.testing.assert_allclose(got, np.stack(want), rtol=1e-4, atol=1e-5)
    leading = () if shared else (N,)
    kernel = params["params"]["MLP_0"]["Dense_0"]["kernel"]
    assert kernel.shape == (*leading, FEATURES + ids * N, WIDTHS[0])
    for length in (2, T + 1):  # a transition, and an episode
        unrolled = network.apply(params, trajectory(VIEWS[:length], PLAYED[: length - 1]), method="unroll")
        want = [network.apply(params, view) for view in VIEWS[:length]]
        for got, expected in zip(unrolled, zip(*want, strict=True), strict=True):
            np.testing.assert_allclose(got, jnp.stack(expected), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("shared", "ids", "last_actions"),
    sets_but_slow(itertools.product(EITHER, EITHER, EITHER), [(True, True, True), (False, False, False)]),
)
def test_recurrent_agents(shared, ids, last_actions):
    network, params = with_memory(shared, ids, last_actions)
    episode = recurrent.Episode(VIEWS, None, np.ones((T + 1, N, ACTIONS)), PLAYED, None, None)
    expected = recurrent.unroll(params["params"], episode, ids, last_actions)
    found = network.apply(params, trajectory(VIEWS, PLAYED), method="unroll")
    memory = network.fresh(N)
    for t in range(T + 1):
        want = [np.stack(part) for part in zip(*expected[t], strict=True)]
        stepwise = network.apply(params, VIEWS[t], memory)
        for got, alone, right in zip(found, stepwise, want, strict=True):
            np.testing.assert_allclose(got[t], right, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(alone, right, rtol=1e-4, atol=1e-5)
        memory = AgentMemory(stepwise[1], jnp.asarray(PLAYED[min(t, T - 1)]))
    width = FEATURES + last_actions * ACTIONS + ids * N
    leading = () if shared else (N,)
    assert params["params"]["encoder"]["Dense_0"]["kernel"].shape == (*leading, width, WIDTHS[0])


@pytest.mark.parametrize("starts", but_slow([(), (0,), (2,), (0, 3), (1, 4), (0, 1, 2, 3, 4)], [(0, 3)]))
@pytest.mark.parametrize(("shared", "ids", "last_actions"), [(True, True, True), (False, False, True)])
def test_recurrent_agents_across_the_borders_of_episodes(shared, ids, last_actions, starts):
    """A rollout unrolled again from what was stored at its start, against acting step by step.

    Agents forget where an episode begins and nowhere else, and carry on from the memory that is stored.
    """
    network, params = with_memory(shared, ids, last_actions)
    first = np.isin(np.arange(T + 1), starts)
    rng = np.random.default_rng(3)
    hidden = jnp.asarray(rng.uniform(-1, 1, size=(N, WIDTHS[-1])), jnp.float32)
    stored = AgentMemory(hidden, jnp.asarray(rng.integers(ACTIONS, size=N)))
    found = network.apply(params, trajectory(VIEWS, PLAYED, first, stored), method="unroll")
    memory = stored
    for t in range(T + 1):
        if first[t]:
            memory = AgentMemory(jnp.zeros_like(hidden), jnp.full(N, NO_ACTION))
        stepwise = network.apply(params, VIEWS[t], memory)
        for got, want in zip(found, stepwise, strict=True):
            np.testing.assert_allclose(got[t], want, rtol=1e-5, atol=1e-6)
        memory = AgentMemory(stepwise[1], jnp.asarray(PLAYED[min(t, T - 1)]))
    # And what is stored counts, until an episode begins.
    other = network.apply(
        params, trajectory(VIEWS, PLAYED, first, AgentMemory(hidden + 0.3, stored[1])), method="unroll"
    )
    changed = np.abs(np.asarray(other[0]) - found[0]).max(axis=(1, 2)) > 1e-6
    np.testing.assert_array_equal(changed, np.arange(T + 1) < min(starts, default=T + 1))


@pytest.mark.parametrize("memory", but_slow(EITHER, [False]))
def test_an_agents_utilities_depend_on_its_own_parameters_alone(memory):
    network, params = with_memory(False, True, True) if memory else feed_forward(False, True)
    derivatives = jax.jacrev(lambda params: network.apply(params, VIEWS[0])[0])(params)
    unused = ("hr", "hz", "hn") if memory else ()  # of a hidden state that is 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(derivatives):
        depends = np.asarray(leaf != 0).any(axis=tuple(range(3, leaf.ndim)))  # (n, A, n)
        if not any(f"'{name}'" in jax.tree_util.keystr(path) for name in unused):
            assert depends[np.arange(N), :, np.arange(N)].any(axis=-1).all(), path
        assert not depends[~np.eye(N, dtype=bool)[:, None].repeat(ACTIONS, 1)].any()


@pytest.mark.parametrize("memory", EITHER)
def test_without_ids_agents_that_see_the_same_have_the_same_utilities(memory):
    """Unless they have parameters of their own."""
    views = np.tile(VIEWS[0, 0], (N, 1))
    for shared, ids in itertools.product(EITHER, EITHER):
        network, params = with_memory(shared, ids, True) if memory else feed_forward(shared, ids)
        utilities = np.asarray(network.apply(params, views)[0])
        if shared and not ids:
            np.testing.assert_allclose(utilities, utilities[[0] * N], rtol=1e-6)
        else:
            assert np.abs(utilities[0] - utilities[1:]).min(axis=1).max() > 1e-3


def test_only_agents_that_see_their_last_actions_depend_on_them():
    for last_actions in EITHER:
        network, params = with_memory(True, True, last_actions)
        one, other = (
            network.apply(params, trajectory(VIEWS, actions), method="unroll")[0]
            for actions in (PLAYED, (PLAYED + 1) % ACTIONS)
        )
        np.testing.assert_array_equal(one[0], other[0])
        assert (np.asarray(one[1:]) == other[1:]).all() != last_actions


def test_agents_of_their_own_start_apart():
    network = AgentNetwork(ACTIONS, WIDTHS, share_parameters=False)
    params = jax.jit(network.init)(jax.random.key(0), VIEWS[0])
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        assert leaf.shape[0] == N
        if path[-1].key == "kernel":
            assert all((leaf[i] != leaf[j]).mean() > 0.9 for i in range(N) for j in range(i))
