import itertools
import json

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from jumanji.testing.env_not_smoke import check_env_does_not_smoke, check_env_specs_does_not_smoke
from matplotlib.patches import Rectangle
from PIL import Image

from envs import registry
from envs.matrix_games import (
    END,
    PR2_PAYOFFS,
    QTRAN_PAYOFF,
    THESIS_PAYOFF,
    MatrixGame,
    check_payoff,
    general_sum_game,
    load_game,
    matrix_game,
    n_step_matrix_game,
    penalty_payoff,
    random_game,
    random_payoffs,
    random_state_game,
    staged_game,
    two_gaussians_payoff,
    two_step_game,
    zero_sum_game,
)
from tests.helpers import but_slow
from tests.reference import matrix_game as reference

KEY = jax.random.key(0)
A, B, C = 0, 1, 2


def play(env, joint_actions, key=KEY):
    """The states and time steps of one episode, the first ones included."""
    state, timestep = env.reset(key)
    states, timesteps = [state], [timestep]
    for joint in joint_actions:
        state, timestep = env.step(state, jnp.asarray(joint))
        states.append(state)
        timesteps.append(timestep)
    return states, timesteps


# What the games pay


@pytest.mark.parametrize(
    ("env_id", "shape", "best", "cells"),
    [
        ("matrix-qtran", (3, 3), 8, {(A, A): 8, (A, B): -12, (C, A): -12, (B, B): 0, (B, C): 0}),
        ("matrix-qplex", (3, 3), 8, {(A, A): 8, (A, C): -12, (B, B): 6, (B, C): 0, (C, C): 6}),
        ("matrix-qplex-10", (3, 3), 10.4, {(A, A): 10.4, (A, B): 0, (A, C): 10, (B, B): 10, (C, C): 10}),
        ("matrix-ltql", (2, 3), 2, {(0, 1): 2, (1, 1): 1, (1, 2): 2, (0, 0): 0, (1, 0): 0}),
        ("matrix-thesis", (3, 3), 10, {(0, 0): 2, (0, 2): 3, (1, 1): 4, (2, 0): 1, (2, 1): 0, (2, 2): 10}),
        ("matrix-climbing", (3, 3), 11, {(A, A): 11, (A, B): -30, (B, C): 6, (C, B): 0, (C, C): 5}),
        ("matrix-climbing-t", (3, 3), 11, {(A, A): 11, (A, B): -30, (B, C): 0, (C, B): 6, (C, C): 5}),
        ("matrix-penalty", (3, 3), 10, {(A, A): 10, (A, C): -100, (C, A): -100, (B, B): 2, (C, C): 10}),
        ("matrix-21x21", (21, 21), 10, {(5, 15): 10, (15, 5): 5, (0, 20): -40, (5, 14): 9, (18, 5): 4}),
    ],
)
def test_payoff_of_every_game(env_id, shape, best, cells):
    env = registry.make(env_id)
    payoff = np.asarray(env.joint_payoff())
    assert payoff.shape == shape == env.action_counts
    assert payoff.max() == np.float32(best)
    step = jax.jit(env.step)
    state, _ = env.reset(KEY)
    for joint, pays in cells.items():
        after, timestep = step(state, jnp.asarray(joint))
        assert float(timestep.reward) == np.float32(pays)
        assert (bool(timestep.last()), float(timestep.discount)) == (True, 0)
        assert after.last_actions.tolist() == list(joint)


def test_two_gaussians_game():
    payoff = two_gaussians_payoff()
    np.testing.assert_allclose(payoff, reference.two_gaussians(), rtol=1e-15)
    assert np.unravel_index(payoff.argmax(), payoff.shape) == (5, 15)
    assert payoff.max() == 10
    assert payoff.min() == -40
    assert payoff.mean() == pytest.approx(-5.30285, abs=5e-6)
    wide = [[5 - ((15 - u1) / 3) ** 2 - ((5 - u2) / 3) ** 2 for u2 in range(21)] for u1 in range(21)]
    assert (payoff > np.asarray(wide)).sum() == 90  # the narrow peak's cells
    around = payoff[14:17, 4:7].copy()
    assert around[1, 1] == 5 == around.max()  # a local optimum


def test_penalty_is_a_parameter():
    payoff = np.asarray(registry.make("matrix-penalty", k=-10).joint_payoff())
    np.testing.assert_array_equal(payoff, [[10, 0, -10], [0, 2, 0], [-10, 0, 10]])
    assert penalty_payoff(0)[0][2] == 0


@pytest.mark.parametrize(
    "env_id",
    but_slow(
        [name for name, entry in registry.ENVIRONMENTS.items() if entry.family == "matrix"],
        ["matrix-qtran", "matrix-pr2", "two-step", "random-state"],
    ),
)
def test_jumanji_finds_nothing(env_id):
    env = registry.make(env_id)
    check_env_does_not_smoke(env)
    check_env_specs_does_not_smoke(env)
    assert env.fully_observable
    assert env.stateless == (env_id not in ("two-step", "n-step-matrix", "random-state"))
    np.testing.assert_array_equal(env.action_spec.num_values, [env.num_actions] * env.num_agents)


# A reward per agent


def test_zero_sum_game_of_the_thesis():
    env = registry.make("matrix-thesis-zero-sum")
    thesis = np.asarray(THESIS_PAYOFF, float)
    for joint in np.ndindex(3, 3):
        _, (first, last) = play(env, [joint])
        np.testing.assert_array_equal(first.reward, [0, 0])
        np.testing.assert_array_equal(last.reward, [thesis[joint], -thesis[joint]])
        assert float(last.discount) == 0 and bool(last.last())
    np.testing.assert_array_equal(env.joint_payoff(), np.stack([thesis, -thesis], -1))
    assert env.reward_spec.shape == (2,)
    assert registry.make("matrix-thesis").reward_spec.shape == ()


def test_pr2s_game_has_no_pure_equilibrium_and_mixes_half_and_half():
    """Each agent is indifferent where the other mixes half and half."""
    payoff = np.asarray(registry.make("matrix-pr2").joint_payoff())
    np.testing.assert_array_equal(payoff[..., 0], [[0, 3], [1, 2]])
    np.testing.assert_array_equal(payoff[..., 1], [[3, 2], [0, 1]])
    np.testing.assert_array_equal(payoff[..., 0] @ [0.5, 0.5], [1.5, 1.5])
    np.testing.assert_array_equal([0.5, 0.5] @ payoff[..., 1], [1.5, 1.5])


def test_three_agents_with_a_reward_each():
    payoffs = np.random.default_rng(0).normal(size=(3, 2, 3, 4)).astype(np.float32)
    env = general_sum_game(payoffs)
    assert env.action_counts == (2, 3, 4) and env.num_agents == 3
    for joint in np.ndindex(2, 3, 4):
        np.testing.assert_array_equal(play(env, [joint])[1][1].reward, payoffs[(slice(None), *joint)])


def test_a_batch_of_pairs_equals_each_alone():
    payoffs = jax.random.normal(jax.random.key(0), (20, 2, 3, 2))
    template = general_sum_game(payoffs[0])
    moved = jnp.moveaxis(payoffs, 1, -1)[:, None]  # (20, 1, 3, 2, 2)

    def reward(payoff):
        env = template.replace(payoff=payoff)
        return env.step(env.reset(KEY)[0], jnp.asarray([2, 1]))[1].reward

    np.testing.assert_array_equal(jax.jit(jax.vmap(reward))(moved), payoffs[:, :, 2, 1])


@pytest.mark.parametrize(
    ("payoffs", "says"),
    [
        ([[[1, 2]], [[1], [2]]], "shapes (1, 2), (2, 1)"),
        ([[[1, 2], [3, 4]]], "got 1 payoff(s), one per agent, with 2 axes"),
        ([[[1, 2], [3, 4]]] * 3, "got 3 payoff(s), one per agent, with 2 axes: a game of n agents"),
        (np.zeros((2, 2, 2, 2)), "got 2 payoff(s), one per agent, with 3 axes"),
        ([], "got 0 payoff(s), one per agent: a game of n agents needs n payoffs of n axes"),
        ([[[1, 2], [3, 4]], [[1, 2], [3]]], "the payoff of agent 2 is ragged"),
        ([[[1, float("inf")]], [[1, 2]]], "the payoff of agent 1 holds NaN or infinite"),
    ],
)
def test_bad_payoffs_per_agent(bad_input, payoffs, says):
    with bad_input(says):
        general_sum_game(payoffs)


def test_zero_sum_games_are_for_two(bad_input):
    with bad_input("got 2 payoff(s), one per agent, with 3 axes"):
        zero_sum_game(np.zeros((2, 2, 2)))


# Several stages


def test_two_step_game_by_hand():
    env = two_step_game()
    for first, stage in ((0, 1), (1, 2)):
        for other, last in itertools.product(range(2), itertools.product(range(2), repeat=2)):
            states, timesteps = play(env, [(first, other), last])
            pays = 7 if stage == 1 else [[0, 1], [1, 8]][last[0]][last[1]]
            assert [float(timestep.reward) for timestep in timesteps[1:]] == [0, pays]
            assert [float(timestep.discount) for timestep in timesteps[1:]] == [1, 0]
            assert [bool(timestep.last()) for timestep in timesteps] == [False, False, True]
            assert [int(state.stage) for state in states] == [0, stage, stage]
            assert [int(timestep.observation.step_count) for timestep in timesteps] == [0, 1, 2]
            np.testing.assert_array_equal(timesteps[1].observation.agents_view, np.eye(3)[[stage, stage]])
            np.testing.assert_array_equal(timesteps[1].observation.global_state, np.eye(3)[stage])


# MAVEN's m-step matrix game

GOOD = {2: [(0, 0), (1, 1)], 4: [(0, 0), (0, 1), (1, 0), (1, 1)]}


def rewards_of(env, joints):
    """The rewards of one episode, which must end with the last of the joint actions and no sooner."""
    _, timesteps = play(env, joints)
    assert [bool(timestep.last()) for timestep in timesteps] == [False] * len(joints) + [True]
    assert [float(timestep.discount) for timestep in timesteps] == [1] * len(joints) + [0]
    return [float(timestep.reward) for timestep in timesteps[1:]]


def test_n_step_matrix_game_by_hand():
    """10 steps: 13 at best, 10 in the other branch, and any deviation ends the episode."""
    env = registry.make("n-step-matrix")
    assert (env.time_limit, env.num_stages, env.action_counts) == (10, 19, (2, 2))
    assert rewards_of(env, [(0, 0)] * 9 + [(1, 1)]) == [1] * 9 + [4]
    for last in ((0, 0), (0, 1), (1, 0)):
        assert rewards_of(env, [(0, 0)] * 9 + [last]) == [1] * 10
    assert rewards_of(env, [(1, 1)] * 10) == [1] * 10
    assert rewards_of(env, [(1, 1)] * 9 + [(0, 1)]) == [1] * 9 + [0]
    assert rewards_of(env, [(0, 1)]) == rewards_of(env, [(1, 0)]) == [0]
    assert rewards_of(env, [(0, 0), (0, 0), (1, 1)]) == [1, 1, 0]
    assert rewards_of(env, [(1, 1), (1, 0)]) == [1, 0]
    four = registry.make("n-step-matrix", good_branches=4)
    assert four.num_stages == 1 + 4 * 9
    assert rewards_of(four, [(0, 1)] * 10) == rewards_of(four, [(1, 0)] * 10) == [1] * 10
    assert rewards_of(four, [(0, 0)] * 9 + [(1, 1)]) == [1] * 9 + [4]
    assert rewards_of(four, [(1, 0), (1, 1)]) == [1, 0]


@pytest.mark.parametrize("good_branches", [2, 4])
def test_everybody_sees_step_and_branch(good_branches):
    """One-hot each: steps 0 to 10, then branches (0, 0), (0, 1), (1, 0) and (1, 1)."""
    env = n_step_matrix_game(good_branches=good_branches)
    assert not env.one_hot_views
    for joint in GOOD[good_branches]:
        _, timesteps = play(env, [joint] * 9)
        for steps, timestep in enumerate(timesteps):
            branch = 2 * joint[0] + joint[1] if steps else 0
            expected = np.concatenate([np.eye(11)[steps], np.eye(4)[branch]])
            np.testing.assert_array_equal(timestep.observation.global_state, expected)
            np.testing.assert_array_equal(timestep.observation.agents_view, [expected] * 2)


def test_agents_may_see_the_stage_instead():
    """Stage 0, then 1 to 9 in branch (0, 0) and 10 to 18 in branch (1, 1)."""
    env = n_step_matrix_game(one_hot_views=True)
    assert env.one_hot_views
    for joint, first in (((0, 0), 1), ((1, 1), 10)):
        states, timesteps = play(env, [joint] * 9)
        assert [int(state.stage) for state in states] == [0, *range(first, first + 9)]
        for state, timestep in zip(states, timesteps, strict=True):
            np.testing.assert_array_equal(timestep.observation.global_state, np.eye(19)[int(state.stage)])
            np.testing.assert_array_equal(
                timestep.observation.agents_view, np.eye(19)[[int(state.stage)] * 2]
            )


@pytest.mark.parametrize(("good_branches", "pays"), [(2, [[1, 0], [0, 1]]), (4, [[1, 1], [1, 1]])])
def test_the_game_of_one_step_has_no_prize(good_branches, pays):
    env = n_step_matrix_game(1, good_branches)
    np.testing.assert_array_equal(env.joint_payoff(), pays)
    assert env.stateless and (np.asarray(env.next_stage) == END).all()


@settings(max_examples=40, deadline=None)
@given(
    steps=st.integers(1, 12),
    good_branches=st.sampled_from([2, 4]),
    one_hot_views=st.booleans(),
    branch=st.sampled_from(GOOD[4]),
    others=st.lists(st.none() | st.sampled_from(GOOD[4]), min_size=12, max_size=12),
)
def test_n_step_matrix_game_equals_the_reference(steps, good_branches, one_hot_views, branch, others):
    """Episodes that mostly stay in their branch, None, so that they are long."""
    env = n_step_matrix_game(steps, good_branches, one_hot_views)
    plain = reference.NStepMatrixGame(steps, GOOD[good_branches])
    state, _ = env.reset(KEY)
    total = 0.0
    for joint in [branch, *(branch if other is None else other for other in others)]:
        state, timestep = env.step(state, jnp.asarray(joint))
        reward = plain.step(joint)
        total += reward
        assert (float(timestep.reward), bool(timestep.last())) == (reward, plain.over)
        assert float(timestep.discount) == (0 if plain.over else 1)
        if plain.over:
            break
    assert plain.over and total <= (steps + 3 if steps > 1 else 1)


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"steps": 0}, "steps must be from 1 to 32767, not 0"),
        ({"steps": 2.5}, "steps must be a whole number, not 2.5"),
        ({"good_branches": 3}, "good_branches must be 2 or 4, not 3"),
    ],
)
def test_n_step_matrix_games_that_cannot_be(bad_input, parameters, says):
    with bad_input(says):
        registry.make("n-step-matrix", **parameters)


def test_random_state_game_draws_both_states_and_shows_them():
    env = random_state_game()
    payoffs = np.asarray([[[10, 8, 5], [8, 6, 3], [5, 3, 0]], [[0, 3, 5], [3, 6, 8], [5, 8, 10]]])
    np.testing.assert_array_equal(env.payoff, payoffs)
    states, timesteps = jax.jit(jax.vmap(env.reset))(jax.random.split(KEY, 1000))
    drawn = np.asarray(states.stage)
    # 1000 fair coins: 5 standard deviations are 79
    assert abs(drawn.sum() - 500) < 79
    np.testing.assert_array_equal(timesteps.observation.global_state, np.eye(2)[drawn])
    np.testing.assert_array_equal(timesteps.observation.agents_view, np.eye(2)[drawn][:, None].repeat(2, 1))
    joint = jnp.tile(jnp.asarray([2, 1]), (1000, 1))
    _, after = jax.jit(jax.vmap(env.step))(states, joint)
    np.testing.assert_array_equal(after.reward, payoffs[drawn, 2, 1])
    assert np.asarray(after.last()).all()


def test_random_numbers_change_nothing_in_a_one_shot_game():
    env = matrix_game(QTRAN_PAYOFF)
    one, other = env.reset(jax.random.key(1))[1], env.reset(jax.random.key(2))[1]
    jax.tree.map(np.testing.assert_array_equal, one, other)
    np.testing.assert_array_equal(one.observation.agents_view, np.ones((2, 1)))
    np.testing.assert_array_equal(one.observation.global_state, [1])


# Agents that differ, and more than two of them


def test_agents_with_fewer_actions_have_the_rest_masked():
    env = registry.make("matrix-ltql")
    state, timestep = env.reset(KEY)
    assert (env.num_agents, env.num_actions) == (2, 3)
    np.testing.assert_array_equal(timestep.observation.action_mask, [[True, True, False], [True, True, True]])
    after, masked = env.step(state, jnp.asarray([2, 2]))
    assert float(masked.reward) == 2  # as action 1, the row player's last
    assert after.last_actions.tolist() == [1, 2]


def test_one_agent():
    env = matrix_game([8, 0, 2])
    assert (env.num_agents, env.action_counts, env.stateless) == (1, (3,), True)
    assert env.describe() == "a team game of 1 agent with 3 actions"
    for action, pays in enumerate([8, 0, 2]):
        _, timesteps = play(env, [(action,)])
        assert (float(timesteps[1].reward), float(timesteps[1].discount)) == (pays, 0)
    assert float(env.best_reward_of_worst_action(0)) == 0
    assert float(matrix_game([-1, -5]).best_reward_of_worst_action(0)) == -5
    assert play(general_sum_game([[8, 0, 2]]), [(2,)])[1][1].reward.tolist() == [2]
    assert random_game(agents=1, actions=4).action_counts == (4,)
    two = staged_game([[0, 1], [2, 0]], [[0, 1], [0, 1]], [1, 0], time_limit=3)
    _, timesteps = play(two, [(1,), (0,), (1,)])
    assert [float(timestep.reward) for timestep in timesteps[1:]] == [1, 2, 1]


def test_three_agents():
    payoff = np.arange(24.0).reshape(2, 3, 4)
    env = matrix_game(payoff)
    assert (env.num_agents, env.num_actions) == (3, 4)
    np.testing.assert_array_equal(
        env.reset(KEY)[1].observation.action_mask, [[1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    )
    for joint in np.ndindex(payoff.shape):
        _, timesteps = play(env, [joint])
        assert float(timesteps[1].reward) == 12 * joint[0] + 4 * joint[1] + joint[2]


# Against the slow reference, and in batches


def test_equals_the_reference_step_by_step():
    """500 episodes of a game of 3 agents and 4 stages, with actions beyond the masks among them."""
    rng = np.random.default_rng(3)
    stages, counts, limit = 4, (2, 3, 2), 6
    payoffs = rng.normal(size=(stages, *counts)).astype(np.float32)
    ways = np.full((stages, *counts), END)
    for stage in range(stages - 1):  # only forward, so that it ends
        ways[stage] = rng.choice([END, *range(stage + 1, stages)], size=counts)
    plain_ways = [
        {joint: int(ways[stage][joint]) for joint in np.ndindex(*counts) if ways[stage][joint] != END}
        for stage in range(stages)
    ]
    env = staged_game(payoffs, ways, [0.5, 0.3, 0.2, 0.0], limit)
    games = 500
    actions = rng.integers(3, size=(games, limit, 3))

    def episode(key, actions):
        def step(state, joint):
            state, timestep = env.step(state, joint)
            return state, (timestep.reward, state.stage, timestep.last(), timestep.discount, state.step_count)

        state, _ = env.reset(key)
        return state.stage, jax.lax.scan(step, state, actions)[1]

    keys = jax.random.split(KEY, games)
    starts, outcomes = jax.tree.map(np.asarray, jax.jit(jax.vmap(episode))(keys, actions))
    compared = 0
    for i in range(games):
        game = reference.MatrixGame(payoffs, plain_ways, int(starts[i]))
        for t in range(limit):
            reward = game.step(actions[i, t])
            seen = [leaf[i, t] for leaf in outcomes]
            assert seen == [np.float32(reward), game.stage, game.over, 0 if game.over else 1, game.steps]
            compared += 1
            if game.over:
                break
    assert compared > 2 * games / 1.5  # many went through several stages
    assert set(starts) == {0, 1, 2}


def test_a_batch_of_310_games_equals_each_alone():
    payoffs = random_payoffs(seed=5, games=310)
    one = matrix_game(payoffs[0])
    games = one.replace(
        payoff=payoffs[:, None],
        next_stage=jnp.broadcast_to(one.next_stage, (310, 1, 3, 3)),
        start=jnp.ones((310, 1)),
    )
    joints = jnp.asarray(list(itertools.product(range(3), repeat=2)))

    def rewards(env):
        state, _ = env.reset(KEY)
        return jax.vmap(lambda joint: env.step(state, joint)[1].reward)(joints)

    together = np.asarray(jax.jit(jax.vmap(rewards))(games))
    np.testing.assert_array_equal(together, np.asarray(payoffs).reshape(310, 9))
    alone = jax.jit(rewards)
    for i in range(0, 310, 31):
        np.testing.assert_array_equal(together[i], alone(matrix_game(payoffs[i])))


def test_game_i_is_the_same_however_many_are_drawn():
    few, many = np.asarray(random_payoffs(7, 3)), np.asarray(random_payoffs(7, 310))
    np.testing.assert_array_equal(few, many[:3])
    assert len(np.unique(many)) == many.size  # all differ
    assert 0 <= many.min() < 0.01
    assert 0.99 < many.max() < 1
    # 2790 uniform draws: 5 standard deviations of the mean are .0273
    assert abs(many.mean() - 0.5) < 0.0273
    np.testing.assert_array_equal(random_game(7, agents=2, actions=3).joint_payoff(), many[0])
    assert (np.asarray(random_payoffs(8, 3)) != few).all()


# Repeated games


@pytest.mark.parametrize(
    ("env_id", "parameters", "shape"),
    [
        ("matrix-qtran", {}, (3, 3)),
        ("matrix-penalty", {"k": -7.0}, (3, 3)),
        ("matrix-21x21", {}, (21, 21)),
        ("matrix-random", {"agents": 3, "actions": 2}, (2, 2, 2)),
        ("differential-grid", {"points": 5}, (5, 5)),
        ("matrix-ltql", {}, (2, 3)),
    ],
)
def test_a_repeated_game_pays_by_the_same_table_in_every_stage(env_id, parameters, shape):
    once = np.asarray(registry.make(env_id, **parameters).joint_payoff())
    env = registry.make(env_id, **parameters, stages=4)
    joints = np.random.default_rng(1).integers(0, shape, size=(4, len(shape)))
    plain = reference.MatrixGame(
        [once] * 4, [dict.fromkeys(np.ndindex(shape), stage + 1) for stage in range(3)] + [{}], stage=0
    )
    states, timesteps = play(env, joints)
    for stage, joint in enumerate(joints):
        observation, after = timesteps[stage].observation, timesteps[stage + 1]
        np.testing.assert_array_equal(observation.global_state, np.eye(4)[stage])
        np.testing.assert_array_equal(observation.agents_view, np.tile(np.eye(4)[stage], (len(shape), 1)))
        assert float(after.reward) == plain.step(joint)
        assert (bool(after.last()), float(after.discount)) == (plain.over, 0.0 if plain.over else 1.0)
        assert int(states[stage + 1].stage) == plain.stage
    assert plain.over and env.time_limit == 4 and not env.stateless


def test_rewards_of_a_repeated_game_add_up():
    """QTRAN's game three times, 8 - 12 + 0; PR2's twice, (0, 3) and (1, 0)."""
    _, timesteps = play(registry.make("matrix-qtran", stages=3), [(A, A), (A, B), (C, C)])
    assert sum(float(timestep.reward or 0) for timestep in timesteps) == -4
    env = registry.make("matrix-pr2", stages=2)
    _, timesteps = play(env, [(0, 0), (1, 0)])
    assert [timestep.reward.tolist() for timestep in timesteps] == [[0, 0], [0, 3], [1, 0]]
    assert env.general_sum and env.reward_spec.shape == (2,)
    _, timesteps = play(zero_sum_game(THESIS_PAYOFF, stages=2), [(2, 2), (0, 0)])
    assert timesteps[1].reward.tolist() == [10, -10] and timesteps[2].reward.tolist() == [2, -2]


def test_one_stage_is_the_one_shot_game():
    once = registry.make("matrix-qplex")
    jax.tree.map(np.testing.assert_array_equal, once, registry.make("matrix-qplex", stages=1))
    assert once.payoff.shape == (1, 3, 3)
    assert (np.asarray(once.next_stage) == END).all() and once.next_stage.dtype == jnp.int8
    assert (once.start.tolist(), once.time_limit, once.stateless) == ([1], 1, True)


def test_the_longest_repeated_game_ends():
    env = matrix_game([[1, 2], [3, 4]], stages=127)
    state, _ = env.reset(KEY)

    def step(state, _):
        state, timestep = env.step(state, jnp.asarray([1, 0]))
        return state, (timestep.reward, timestep.last())

    last, (rewards, over) = jax.lax.scan(step, state, length=127)
    assert (float(rewards.sum()), over.tolist()) == (3 * 127, [False] * 126 + [True])
    assert (int(last.step_count), int(last.stage)) == (127, 126)


@pytest.mark.parametrize("stages", [0, -1, 32_768, 2.0, 2**40])
def test_stages_that_cannot_be(bad_input, stages):
    for env_id in ("matrix-qtran", "matrix-random", "matrix-pr2", "matrix-thesis-zero-sum"):
        must = "a whole number" if stages == 2.0 else "from 1 to 32767"
        with bad_input(f"stages must be {must}, not {stages}"):
            registry.make(env_id, stages=stages)


# Staged games, and sizes at the limits of their integers


def endless(stages, time_limit):
    """Two agents go round `stages` stages of [[stage, stage + .5]] until the time is up."""
    payoffs = np.arange(float(stages))[:, None, None] + np.asarray([[0, 0.5]])
    following = np.broadcast_to((np.arange(stages)[:, None, None] + 1) % stages, payoffs.shape)
    return staged_game(payoffs, following, np.eye(stages)[0], time_limit)


def last_of(env, steps):
    """The last state, and rewards, discounts and ends `(steps,)` of always playing (0, 1)."""

    def step(state, _):
        state, timestep = env.step(state, jnp.asarray([0, 1]))
        return state, (timestep.reward, timestep.discount, timestep.last())

    state, trace = jax.lax.scan(step, env.reset(KEY)[0], length=steps)
    return state, jax.tree.map(np.asarray, trace)


@pytest.mark.parametrize(
    ("stages", "time_limit", "kinds"),
    [
        (127, 127, (jnp.int8, jnp.int8)),
        (128, 128, (jnp.int8, jnp.int16)),  # used to count -128
        (129, 130, (jnp.int16, jnp.int16)),
        (130, 300, (jnp.int16, jnp.int16)),  # used never to end
        (3, 7, (jnp.int8, jnp.int8)),
        (2, 32_767, (jnp.int8, jnp.int16)),
    ],
)
def test_stages_and_steps_are_counted_right(stages, time_limit, kinds):
    """The clock cuts an endless game: a truncation, discount 1."""
    state, (rewards, discounts, over) = last_of(endless(stages, time_limit), time_limit)
    np.testing.assert_array_equal(rewards, np.arange(time_limit) % stages + 0.5)
    np.testing.assert_array_equal(discounts, np.ones(time_limit))
    np.testing.assert_array_equal(over, np.arange(time_limit) == time_limit - 1)
    assert (int(state.stage), int(state.step_count)) == (time_limit % stages, time_limit)
    assert (state.stage.dtype, state.step_count.dtype) == kinds


def test_a_game_that_ends_in_time_is_not_cut():
    _, timesteps = play(two_step_game(), [(1, 0), (1, 1)])
    assert [float(timestep.discount) for timestep in timesteps] == [1, 1, 0]
    cut = two_step_game().replace(time_limit=1)
    _, timesteps = play(cut, [(1, 0)])
    assert timesteps[1].last() and timesteps[1].discount == 1


STAGED = {"payoffs": np.zeros((2, 2, 3)), "next_stage": np.full((2, 2, 3), END), "start": [1, 0]}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"payoffs": []}, "the stages' payoffs have shapes : give one shape"),
        (
            {"payoffs": [[[1, 2]], [[1], [2]]]},
            "the stages' payoffs have shapes (1, 2), (2, 1): give one shape",
        ),
        ({"payoffs": [[[1, 2]], [[1, None]]]}, "the payoff of stage 1 is ragged or not numeric"),
        ({"next_stage": np.full((2, 3, 2), END)}, "next_stage has shape (2, 3, 2) and start (2,)"),
        ({"next_stage": np.full((2, 2, 3), 2)}, "next_stage must hold stages from 0 to 1, or -1 for the end"),
        ({"next_stage": np.full((2, 2, 3), 0.5)}, "next_stage must hold stages from 0 to 1"),
        ({"next_stage": np.full((2, 2, 3), -2)}, "next_stage must hold stages from 0 to 1"),
        ({"next_stage": np.full((2, 2, 3), 256)}, "next_stage must hold stages from 0 to 1"),
        ({"start": [1]}, "start (1,): give (2, 2, 3) and (2,)"),
        ({"start": [0.5, 0.6]}, "start does not sum to 1"),
        ({"start": [1.5, -0.5]}, "start has a negative probability"),
        ({"start": [True, False]}, "start is ragged or not numeric"),
        ({"time_limit": 0}, "time_limit must be from 1 to 32767, not 0"),
        ({"time_limit": 32_768}, "time_limit must be from 1 to 32767, not 32768"),
        ({"time_limit": 2.5}, "time_limit must be a whole number, not 2.5"),
        (
            {"payoffs": [[[1, 2]]], "next_stage": [[[0, 0]]], "start": [1], "time_limit": 1},
            "a game of one stage that does not terminate needs a time_limit above 1",
        ),
    ],
)
def test_bad_stages(bad_input, change, says):
    with bad_input(says):
        staged_game(**{**STAGED, "time_limit": 2, **change})


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"agents": 70}, "agents must be from 1 to 32, not 70"),
        ({"agents": 32}, "a payoff of 3 actions for each of 32 agents would take 2.22e+04 TB of memory"),
        ({"agents": 2.5}, "agents must be a whole number, not 2.5"),
        (
            {"actions": 10**7},
            "a payoff of 10000000 actions for each of 2 agents would take 1.2e+03 TB of memory",
        ),
        ({"actions": 2**31}, "actions must be at most 2147483647"),
        ({"payoff_seed": 2**32}, "payoff_seed must be in [0, 4294967295], not 4294967296"),
        ({"payoff_seed": -1}, "payoff_seed must be in [0, 4294967295], not -1"),
        ({"stages": 10**5}, "stages must be from 1 to 32767, not 100000"),
        ({"actions": 5000, "stages": 20_000}, "would take 6 TB of memory"),
    ],
)
def test_random_games_that_cannot_be(bad_input, parameters, says):
    with bad_input(says):
        registry.make("matrix-random", **parameters)


def test_numpy_numbers_are_parameters():
    env = registry.make("matrix-random", payoff_seed=np.uint32(3), agents=np.int64(3), stages=np.int8(2))
    plain = registry.make("matrix-random", payoff_seed=3, agents=3, stages=2)
    jax.tree.map(np.testing.assert_array_equal, env, plain)
    assert type(env.time_limit) is int
    largest = registry.make("matrix-random", payoff_seed=2**32 - 1)
    assert (np.asarray(largest.payoff) != np.asarray(registry.make("matrix-random").payoff)).all()


# Properties


def payoffs(*shape):
    return arrays(np.float32, shape, elements=st.floats(-100, 100, width=32, allow_subnormal=False))


@settings(max_examples=25, deadline=None)
@given(data=st.data(), order=st.permutations(range(3)), counts=st.just((2, 3, 4)))
def test_permuting_the_agents_permutes_nothing_but_the_agents(data, order, counts):
    payoff = data.draw(payoffs(*counts))
    joint = [data.draw(st.integers(0, count - 1)) for count in counts]
    env, permuted = matrix_game(payoff), matrix_game(payoff.transpose(order))
    assert permuted.action_counts == tuple(counts[agent] for agent in order)
    _, timesteps = play(env, [joint])
    _, permuted_timesteps = play(permuted, [[joint[agent] for agent in order]])
    assert float(timesteps[1].reward) == float(permuted_timesteps[1].reward) == payoff[tuple(joint)]
    masks = [steps[1].observation.action_mask for steps in (timesteps, permuted_timesteps)]
    np.testing.assert_array_equal(masks[0][jnp.asarray(order)], masks[1])


@settings(max_examples=25, deadline=None)
@given(payoff=payoffs(3, 3), joint=st.tuples(*[st.integers(-5, 200)] * 2))
def test_rewards_never_leave_the_payoff(payoff, joint):
    _, timesteps = play(matrix_game(payoff), [joint])
    reward = float(timesteps[1].reward)
    assert payoff.min() <= reward <= payoff.max()
    assert reward == payoff[tuple(np.clip(joint, 0, 2))]


# Bad payoffs


@pytest.mark.parametrize(
    ("payoff", "says"),
    [
        ([[1, 2], [3]], "ragged or not numeric"),
        ([["a", 2], [3, 4]], "ragged or not numeric"),
        ([[None, {}], [3, 4]], "ragged or not numeric"),
        ([[float("nan"), 2], [3, 4]], "NaN or infinite"),
        ([[1e39, 2], [3, 4]], "NaN or infinite"),  # more than float32 holds
        ([[]], "empty"),
        ([], "empty"),
        (5, "payoff is a single number: give a list or an array with one axis per agent"),
        (np.zeros((1,) * 33), "payoff has 33 axes, one per agent: give at most 32"),
        (np.zeros((1,) * 64), "payoff has 64 axes"),
        ([[1j, 2], [3, 4]], "ragged or not numeric"),
        (np.asarray([[1j, 2], [3, 4]]), "ragged or not numeric"),
        (np.asarray([["2026-11-26", "2026-11-27"]], "datetime64[D]"), "ragged or not numeric"),
        (np.asarray([[1, 2]], "timedelta64[D]"), "ragged or not numeric"),
        ([[True, False], [False, True]], "ragged or not numeric"),
        ([[True, 2], [3, 4]], "ragged or not numeric"),
        (np.ones((2, 2), bool), "ragged or not numeric"),
        ([["1", "2"], ["3", "4"]], "ragged or not numeric"),
        (np.asarray([["1", "2"]]), "ragged or not numeric"),
        ([[b"1", b"2"]], "ragged or not numeric"),
        ([[10**400, 2], [3, 4]], "NaN or infinite"),
        ([[10**40, 2], [3, 4]], "NaN or infinite"),
    ],
)
def test_bad_payoffs(bad_input, payoff, says):
    with bad_input(says):
        check_payoff(payoff)
    with bad_input(says):
        matrix_game(payoff)


def test_the_largest_number_of_actions_works():
    """In the 8 bits of a stored action, and in the 16 bits of more."""
    for count, dtype in ((127, jnp.int8), (128, jnp.int8), (129, jnp.int16), (32_769, jnp.int32)):
        payoff = np.arange(2.0 * count).reshape(2, count)
        states, timesteps = play(matrix_game(payoff), [(1, count - 1)])
        assert float(timesteps[1].reward) == 2 * count - 1
        assert states[1].last_actions.tolist() == [1, count - 1] and states[1].last_actions.dtype == dtype


@pytest.mark.parametrize("k", [1, 1e-9, float("nan")])
def test_bad_penalties(bad_input, k):
    with bad_input(f"k must be at most 0, not {k}"):
        registry.make("matrix-penalty", k=k)


@pytest.mark.parametrize(("agents", "actions"), [(0, 3), (2, 0), (-1, 3)])
def test_bad_random_games(bad_input, agents, actions):
    says = "agents must be from 1 to 32" if agents < 1 else "actions must be at least 1, not 0"
    with bad_input(says):
        random_game(0, agents, actions)


# Payoff files


def test_payoff_files(tmp_path):
    table = [[1.5, 2, 3], [4, 5, 6]]
    (tmp_path / "game.json").write_text(json.dumps(table))
    np.save(tmp_path / "game.npy", np.asarray(table))
    for path in (tmp_path / "game.json", str(tmp_path / "game.npy")):
        env = load_game(path)
        assert isinstance(env, MatrixGame) and not env.general_sum
        np.testing.assert_array_equal(env.joint_payoff(), table)


def test_payoff_files_with_a_payoff_per_agent(tmp_path):
    (tmp_path / "game.json").write_text(json.dumps({"payoffs": PR2_PAYOFFS}))
    env = load_game(tmp_path / "game.json")
    np.testing.assert_array_equal(env.joint_payoff(), registry.make("matrix-pr2").joint_payoff())
    # Without the word the same numbers are one payoff for three agents.
    (tmp_path / "team.json").write_text(json.dumps(PR2_PAYOFFS))
    assert load_game(tmp_path / "team.json").num_agents == 3


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("game.csv", b"1,2\n3,4", "must end in .json, .npy or .npz"),
        ("game.json", b"[[1, 2], [3, 4", "is not valid json"),
        ("game.json", b"", "is not valid json"),
        ("game.json", b"\xff\xfe\x00", "is not valid json"),
        ("game.json", b'{"payoff": [[1]]}', 'an object must be {"payoffs": [...]}'),
        ("game.json", b'{"payoffs": 5}', 'an object must be {"payoffs": [...]}'),
        ("game.json", b'{"payoffs": [[[1]], [[2]]], "name": "x"}', 'an object must be {"payoffs": [...]}'),
        ("game.json", b'{"payoffs": [[[1, 2]], [[1], [2]]]}', "shapes (1, 2), (2, 1)"),
        ("game.json", b"[[1, 2], [3]]", "ragged or not numeric"),
        ("game.json", b'[["x", 2], [3, 4]]', "ragged or not numeric"),
        ("game.json", b"[[NaN, 2], [3, 4]]", "NaN or infinite"),
        ("game.json", b"5", "payoff is a single number"),
        ("game.json", b"[[], []]", "empty"),
        ("game.json", b'"8"', "ragged or not numeric"),
        ("game.json", b"[" * 100_000, "is not valid json: nested too deeply"),
        ("game.json", b"[" * 70 + b"1" + b"]" * 70, "ragged or not numeric"),
        (
            "game.json",
            b"[" * 40 + b"1" + b"]" * 40,
            "payoff has 40 axes, one per agent: give at most",
        ),
        ("game.json", b"[[1" + b"0" * 400 + b", 2], [3, 4]]", "NaN or infinite"),
        ("game.json", b"[[1" + b"0" * 5000 + b", 2], [3, 4]]", "is not valid json"),
        ("game.json", b'[["1", "2"], ["3", "4"]]', "ragged or not numeric"),
        ("game.json", b"[[true, 2], [3, 4]]", "ragged or not numeric"),
        (
            "game.json",
            b'{"payoffs": [[[true, 2]], [[3, 4]]]}',
            "the payoff of agent 1 is ragged or not numeric",
        ),
        ("game.json", b"null", "ragged or not numeric"),
        ("game.npy", b"PK\x03\x04" + b"\x00" * 40, "is not valid npy: File is not a zip file"),
        ("game.npz", b"PK\x03\x04" + b"\x00" * 40, "is not valid npz: File is not a zip file"),
        ("game.npz", b"", "is not valid npz"),
        ("game.npy", b"", "is not valid npy"),
        ("game.npy", b"not numpy", "is not valid npy"),
        ("game.npy", b"\x93NUMPY\x01\x00\x10", "is not valid npy"),
    ],
)
def test_bad_payoff_files(bad_input, tmp_path, name, content, says):
    path = tmp_path / name
    path.write_bytes(content)
    with bad_input(says):
        load_game(path)
    with bad_input(f"payoff file {path}"):
        load_game(path)


def test_forms_of_payoff_files(tmp_path):
    """A BOM, other encodings, capitals, archives of NumPy's whatever their name."""
    table, pair = [[1.5, 2, 3], [4, 5, 6]], [[[0, 3], [1, 2]], [[3, 2], [0, 1]]]
    for name, text, encoding in (
        ("bom.json", json.dumps(table), "utf-8-sig"),
        ("CAPITALS.JSON", json.dumps(table), "utf-8"),
        ("wide.json", json.dumps(table), "utf-16"),
    ):
        (tmp_path / name).write_text(text, encoding=encoding)
        np.testing.assert_array_equal(load_game(tmp_path / name).joint_payoff(), table)
    np.savez(tmp_path / "one.npz", table)
    np.savez_compressed(tmp_path / "named.npz", reward=np.asarray(table, np.float32))
    (tmp_path / "archive.npy").write_bytes((tmp_path / "one.npz").read_bytes())
    for name in ("one.npz", "named.npz", "archive.npy"):
        env = load_game(tmp_path / name)
        np.testing.assert_array_equal(env.joint_payoff(), table)
        assert not env.general_sum
    np.savez(tmp_path / "payoffs.npz", payoffs=pair)
    np.savez(tmp_path / "two.npz", *pair)
    np.savez(tmp_path / "agents.npz", row=pair[0], column=pair[1])
    for name in ("payoffs.npz", "two.npz", "agents.npz"):
        env = load_game(tmp_path / name, stages=2)
        assert env.general_sum and env.num_stages == 2
        np.testing.assert_array_equal(env.joint_payoff(), np.moveaxis(np.asarray(pair), 0, -1))


def test_bad_archives(bad_input, tmp_path):
    np.savez(tmp_path / "none.npz")
    with bad_input("got 0 payoff(s), one per agent"):
        load_game(tmp_path / "none.npz")
    np.savez(tmp_path / "objects.npz", np.asarray([[1, None]], dtype=object))
    with bad_input("is not valid npz: Object arrays cannot be loaded"):
        load_game(tmp_path / "objects.npz")
    np.savez_compressed(tmp_path / "broken.npz", np.zeros((50, 50)))
    content = bytearray((tmp_path / "broken.npz").read_bytes())
    content[60:90] = bytes(30)
    (tmp_path / "broken.npz").write_bytes(content)
    with bad_input("is not valid npz"):
        load_game(tmp_path / "broken.npz")
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000), }"
    huge = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    (tmp_path / "huge.npy").write_bytes(huge)
    with bad_input("is not valid npy"):
        load_game(tmp_path / "huge.npy")


@pytest.mark.parametrize(
    ("payoff", "says", "unclear"),
    [
        (QTRAN_PAYOFF, "a team game of 2 agents with 3 and 3 actions", False),
        (PR2_PAYOFFS, "a team game of 3 agents with 2, 2 and 2 actions", True),
        (np.zeros((2, 4, 3)), "a team game of 3 agents with 2, 4 and 3 actions", True),
        (np.zeros((3, 2, 2, 2)), "a team game of 4 agents with 3, 2, 2 and 2 actions", True),
        (np.zeros((3, 2, 2)), "a team game of 3 agents with 3, 2 and 2 actions", False),
        (np.zeros((1, 3)), "a team game of 2 agents with 1 and 3 actions", False),
    ],
)
def test_what_is_played_in_words(payoff, says, unclear):
    env = matrix_game(payoff)
    assert (env.describe(), env.could_be_payoffs_per_agent()) == (says, unclear)
    assert matrix_game(payoff, stages=3).describe() == f"{says}, in 3 stages"
    if unclear and len(payoff) == 2:
        game = general_sum_game(payoff)
        assert game.describe().startswith("a game with a reward per agent, of 2 agents with ")
        assert not game.could_be_payoffs_per_agent()


def test_missing_payoff_files(bad_input, tmp_path):
    for path in (tmp_path / "nothing.json", tmp_path / "nothing.npy", tmp_path / "no-folder" / "game.npy"):
        with bad_input(f"payoff file {path} cannot be read: No such file"):
            load_game(path)
    folder = tmp_path / "folder.json"
    folder.mkdir()
    with bad_input("cannot be read"):
        load_game(folder)


def test_object_arrays_are_not_unpickled(bad_input, tmp_path):
    np.save(tmp_path / "game.npy", np.asarray([[1, None]], dtype=object), allow_pickle=True)
    with bad_input("is not valid npy"):
        load_game(tmp_path / "game.npy")


# Pictures


@pytest.fixture
def axes():
    """The axes on which the viewer draws."""
    plt.close("all")
    yield lambda: plt.figure("Matrix game").axes[0]
    plt.close("all")


def marked(axes):
    """The cells (row, column) with a box around them."""
    boxes = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    return [(box.get_y() + 0.5, box.get_x() + 0.5) for box in boxes]


def test_picture_marks_the_joint_action(tmp_path, axes):
    env = matrix_game(QTRAN_PAYOFF)
    states, _ = play(env, [(A, C)])
    pixels = env.render(states[1], save_path=str(tmp_path / "game.png"))
    assert pixels.ndim == 3
    assert len(np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0)) > 10
    with Image.open(tmp_path / "game.png") as image:
        assert min(image.size) > 200
    assert marked(axes()) == [(A, C)]
    assert axes().get_title() == "joint action (0, 2) pays -12"
    numbers = {text.get_position(): text.get_text() for text in axes().texts}
    assert numbers == {(u2, u1): f"{QTRAN_PAYOFF[u1][u2]:g}" for u1 in range(3) for u2 in range(3)}
    np.testing.assert_array_equal(axes().images[0].get_array(), QTRAN_PAYOFF)


def test_picture_of_a_start_marks_nothing(axes):
    env = two_step_game()
    states, _ = play(env, [(1, 0)])
    env.render(states[0])
    assert marked(axes()) == []
    assert axes().get_title() == "stage 0"


def test_picture_of_three_agents(axes):
    env = matrix_game(np.arange(24.0).reshape(2, 3, 4))
    env.render(play(env, [(1, 2, 3)])[0][1])
    assert marked(axes()) == [(5, 3)]  # rows are agents 1 and 2 together
    assert "pays 23" in axes().get_title()


def test_picture_of_one_agent(axes):
    env = matrix_game([8, 0, 2])
    env.render(play(env, [(2,)])[0][1])
    assert marked(axes()) == [(0, 2)]
    assert axes().get_title() == "joint action (2,) pays 2"
    assert (axes().get_xlabel(), axes().get_ylabel()) == ("agent 1", "")


def test_picture_of_the_n_step_matrix_game(axes):
    env = n_step_matrix_game()
    env.render(play(env, [(0, 0)] * 9 + [(1, 1)])[0][10])
    assert axes().get_title() == "joint action (1, 1) pays 4"
    np.testing.assert_array_equal(axes().images[0].get_array(), [[1, 1], [1, 4]])


def test_picture_of_a_repeated_game(axes):
    env = registry.make("matrix-qtran", stages=2)
    states, _ = play(env, [(A, C), (A, A)])
    for state, title in zip(states, ("stage 0", "(0, 2) pays -12", "(0, 0) pays 8"), strict=True):
        env.render(state)
        assert axes().get_title().endswith(title)
        np.testing.assert_array_equal(axes().images[0].get_array(), QTRAN_PAYOFF)


def test_every_picture_starts_on_an_empty_sheet(axes):
    env = matrix_game(QTRAN_PAYOFF)
    first = env.render(play(env, [(A, C)])[0][1])
    kept = first.copy()
    env.render(play(env, [(B, B)])[0][1])
    assert marked(axes()) == [(B, B)]
    assert len(axes().texts) == 9
    assert len(axes().images) == 1
    np.testing.assert_array_equal(first, kept)  # the caller's pixels are the caller's


def test_picture_of_a_reward_per_agent(axes):
    env = registry.make("matrix-pr2")
    env.render(play(env, [(1, 0)])[0][1])
    assert marked(axes()) == [(1, 0)]
    assert axes().get_title() == "joint action (1, 0) pays 1, 0"
    numbers = {text.get_position(): text.get_text() for text in axes().texts}
    assert numbers == {(0, 0): "0, 3", (1, 0): "3, 2", (0, 1): "1, 0", (1, 1): "2, 1"}
    np.testing.assert_array_equal(axes().images[0].get_array(), PR2_PAYOFFS[0])


def test_picture_of_a_large_game(axes):
    env = registry.make("matrix-21x21")
    env.render(play(env, [(5, 15)])[0][1])
    assert marked(axes()) == [(5, 15)]
    assert not axes().texts  # 441 numbers would be too small


def test_animation(tmp_path):
    env = random_state_game()
    states = [play(env, [joint])[0][1] for joint in ((0, 0), (1, 2), (2, 2))]
    env.animate(states, interval=100, save_path=str(tmp_path / "game.gif"))
    with Image.open(tmp_path / "game.gif") as image:
        assert image.n_frames == 3
        assert image.info["duration"] == 100


def test_the_viewer_shows_the_stage_that_was_paid(axes):
    """After the second step of the two-step game the picture is that of stage 2."""
    env = two_step_game()
    states, _ = play(env, [(1, 0), (1, 1)])
    env.render(states[2])
    assert axes().get_title() == "joint action (1, 1) pays 8"


@pytest.mark.parametrize(
    ("game", "gamma", "least"),
    [
        (matrix_game([[-5, -1], [-3, -8]]), 0.9, -8),
        (matrix_game([[5, 1], [3, 8]]), 0.9, 0),
        (general_sum_game([[[1, 2], [3, 4]], [[-1, 0], [-7, 0]]]), 0.9, -7),
        (two_step_game(), 0.9, 0),
        (two_step_game().replace(payoff=two_step_game().payoff - 10), 0.5, -10 - 5),
    ],
)
def test_no_return_is_below_the_lower_bound(game, gamma, least):
    assert float(game.return_lower_bound(gamma)) == pytest.approx(least)
