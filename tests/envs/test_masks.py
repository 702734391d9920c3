"""Over 100,000 steps of every environment with masks: nobody ever chooses an unavailable action."""

import importlib.util
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import baselines
import envs
from jaxmarl_fac.game import GameSpec
from tests.helpers import but_slow, clock_at

STEPS = 100_000
#: One id of every environment in which actions may be unavailable, and how many times `STEPS` its games may
#: last at the most, for some are over before their time.
MASKED = {
    "matrix-ltql": 1.0,
    "team-mdp-line": 1.0,
    "private-cards": 1.0,
    "stag-hunt-p2": 1.15,
    "stag-hunt-p2-masked": 1.15,
    "jumanji:LevelBasedForaging-v0": 1.25,
    "jumanji:RobotWarehouse-v0": 1.6,
    "jumanji:Connector-v3": 1.6,
    **({"smax:3s_vs_5z": 4.0} if importlib.util.find_spec("jaxmarl") else {}),
}
#: From greedy to uniform, over this many steps; half of the games explore as training does when it is over.
EPSILONS, EPSILON_STEPS = np.asarray([0.0, 0.05, 0.05, 0.05, 0.05, 0.3, 0.7, 1.0]), 1000


def play(env: Any, algorithm: Any, games: int, episodes: int) -> Any:
    """Random learners, each with an epsilon of its own, in `games` side by side, `episodes` times over.

    Epsilon must fall from 1 to 0 in `EPSILON_STEPS`.

    Returns how many steps they played before their games were over, how many actions they chose that were
    not available, how often each action was chosen, `(A,)`, and was not available, `(n, A)`.
    """
    learner = algorithm.bind(GameSpec.of(env))
    env_steps = np.resize(np.round((1 - EPSILONS) * EPSILON_STEPS), games).astype(np.int32)
    clocks = jax.vmap(clock_at)(env_steps)
    params = jax.vmap(lambda key: learner.init(key).params)(jax.random.split(jax.random.key(0), games))

    def step(carry: Any, key: jax.Array) -> Any:
        state, memory, going = carry
        seen = jax.vmap(env.observe)(state)
        decisions = jax.vmap(learner.act)(params, memory, seen, clocks, jax.random.split(key, games))
        actions, memory = decisions.actions, decisions.carry
        hot = jax.nn.one_hot(actions, env.num_actions, dtype=bool)  # (games, n, A)
        counts = jnp.where(going[:, None, None], jnp.stack([hot, hot & ~seen.action_mask]), False)
        shut = (going[:, None, None] & ~seen.action_mask).sum(0)
        state, timestep = jax.vmap(env.step)(state, actions)
        return (state, memory, going & ~timestep.last()), (going.sum(), counts.sum((1, 2)), shut)

    def episode(_: None, key: jax.Array) -> Any:
        reset_key, key = jax.random.split(key)
        state, timestep = jax.vmap(env.reset)(jax.random.split(reset_key, games))
        begin_keys = jax.random.split(key, games)
        memory = jax.vmap(learner.begin)(params, jax.vmap(env.observe)(state), begin_keys)
        start = state, memory, ~timestep.last()
        _, sums = jax.lax.scan(step, start, jax.random.split(key, env.time_limit))
        return None, jax.tree.map(lambda leaf: leaf.sum(0), sums)

    keys = jax.random.split(jax.random.key(1), episodes)
    _, (steps, counts, shut) = jax.lax.scan(episode, None, keys)
    counts = counts.sum(0)
    return steps.sum(), counts[1].sum(), counts[0], shut.sum(0)


@pytest.mark.parametrize("env_id", but_slow(MASKED, ["matrix-ltql"]))
def test_unavailable_actions_are_never_chosen(env_id: str) -> None:
    env = envs.make(env_id)
    games = 1000 if env.time_limit < 10 else 80
    episodes = math.ceil(MASKED[env_id] * STEPS / (games * env.time_limit))
    # Recurrent agents on one of them; they choose from the same mask.
    memory = {"recurrent": True, "consumes": "episodes"} if env_id.startswith("stag-hunt") else {}
    exploration = {"epsilon_start": 1.0, "epsilon_end": 0.0, "epsilon_steps": EPSILON_STEPS}
    algorithm = baselines.make("vdn", hidden=(8,), **exploration, **memory)
    run = jax.jit(lambda env: play(env, algorithm, games, episodes))
    steps, wrong, chosen, shut = map(np.asarray, run(env))
    assert wrong == 0
    assert steps >= STEPS
    assert (chosen > 0).all()  # all of them are chosen where they can be,
    assert shut.sum() > 0.01 * steps  # and it is not that all of them always can


@pytest.mark.slow
def test_no_other_environment_has_masks() -> None:
    """So that a new one is put on the list."""
    kinds = {type(envs.make(env_id)) for env_id in MASKED}
    others = {type(env): env for env in map(envs.make, envs.ENVIRONMENTS) if type(env) not in kinds}
    assert len(others) >= 4
    for env in others.values():
        assert bool(env.observe(env.reset(jax.random.key(0))[0]).action_mask.all()), env
