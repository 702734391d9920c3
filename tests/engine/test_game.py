import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs.differential_game import differential_game
from envs.matrix_games import general_sum_game, matrix_game, two_step_game
from envs.predator_prey import PredatorPrey
from jaxmarl_fac.game import GameSpec, refuse_numbers, refuse_reward_per_agent
from tests.helpers import first_observation


def facts(env):
    """Without the parts that a test does not look at."""
    spec = GameSpec.of(env)
    names = ("num_agents", "num_actions", "action_counts", "view_size", "state_size", "time_limit")
    return tuple(getattr(spec, name) for name in names)


def test_facts():
    assert facts(matrix_game(np.zeros((2, 3, 4)))) == (3, 4, (2, 3, 4), 1, 1, 1)
    assert facts(two_step_game()) == (2, 2, (2, 2), 3, 3, 2)
    assert facts(differential_game()) == (2, 0, (), 1, 1, 1)
    env = PredatorPrey(jnp.float32(0.5), time_limit=50)
    views, state = (leaf.shape[-1] for leaf in first_observation(env)[:2])
    assert facts(env) == (2, 5, (5, 5), views, state, 50)
    spec = GameSpec.of(two_step_game())
    assert (spec.name, spec.stateless, spec.fully_observable, spec.one_hot_views) == (
        "MatrixGame",
        False,
        True,
        True,
    )
    assert not spec.reward_per_agent
    assert GameSpec.of(matrix_game(np.zeros((2, 2)))).stateless
    assert GameSpec.of(general_sum_game([np.zeros((2, 2))] * 2)).reward_per_agent
    assert not GameSpec.of(env).one_hot_views


@pytest.mark.parametrize("env_id", envs.ENVIRONMENTS)
def test_every_game_has_a_spec_that_can_be_a_key(env_id):
    env = envs.make(env_id)
    spec, again = GameSpec.of(env), GameSpec.of(envs.make(env_id))
    assert spec == again and hash(spec) == hash(again)
    assert {spec: "known"}[again] == "known"
    # For networks: shapes and types of what is seen, and every action can be taken.
    given, seen = spec.observation(), jax.eval_shape(lambda: first_observation(env))
    for name in seen._fields:
        own, real = getattr(given, name), getattr(seen, name)
        if own is None or real is None:  # games without public observations
            assert own is real and name in ("public_view", "private")
            continue
        assert (own.shape, own.dtype) == (real.shape, real.dtype), name
    assert given.action_mask.all() and not given.agents_view.any() and not given.global_state.any()
    assert (seen.agents_view.shape[-1], seen.global_state.shape[-1]) == (spec.view_size, spec.state_size)
    shown = 0 if seen.public_view is None else seen.public_view.shape[-1]
    assert spec.public_size == shown and (spec.num_private > 0) == (shown > 0)


def test_public_and_private_observations():
    cards, tiger = GameSpec.of(envs.make("private-cards")), GameSpec.of(envs.make("tiger"))
    assert (cards.public_size, cards.num_private, cards.view_size) == (4, 2, 8)
    assert (tiger.public_size, tiger.num_private, tiger.view_size) == (0, 0, 3)  # all is the agent's own


def test_games_that_differ_in_parameters_alone_have_the_same_spec():
    one, other = matrix_game([[1, 2], [3, 4]]), matrix_game([[5, 6], [7, 8]])
    assert GameSpec.of(one) == GameSpec.of(other) and hash(GameSpec.of(one)) == hash(GameSpec.of(other))
    for different in (
        matrix_game(np.zeros((2, 3))),
        matrix_game(np.zeros((2, 2)), stages=2),
        matrix_game(np.zeros((2, 2, 2))),
        general_sum_game([np.zeros((2, 2))] * 2),
    ):
        assert GameSpec.of(different) != GameSpec.of(one)


def test_it_is_the_same_for_every_game_of_a_batch():
    """Also inside of a vmap, where payoffs are not known; what depends on those is each game's own."""
    payoffs = -np.arange(8.0).reshape(2, 2, 2)
    alone = [matrix_game(payoff) for payoff in payoffs]
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *alone)
    seen = []

    def bounds_of(env):
        spec = GameSpec.of(env)
        seen.append(spec)
        assert hash(spec) == hash(GameSpec.of(alone[0]))
        return (
            spec.return_lower_bound(0.9),
            spec.best_reward_of_worst_action(1),
            spec.observation().agents_view,
        )

    least, worst, views = jax.jit(jax.vmap(bounds_of))(batch)
    assert seen[0] == GameSpec.of(alone[0]) == GameSpec.of(alone[1])
    assert least.tolist() == [-3, -7]
    assert (
        worst.tolist()
        == [float(GameSpec.of(game).best_reward_of_worst_action(1)) for game in alone]
        == [-1, -5]
    )
    assert views.shape == (2, 2, 1)


def test_a_spec_may_be_a_static_argument():
    compiled = []

    def count(spec, number):
        compiled.append(spec)
        return number * spec.num_agents

    counted = jax.jit(count, static_argnums=0)
    for payoff in (np.zeros((2, 2)), np.ones((2, 2)), np.ones((2, 2, 2))):
        assert counted(GameSpec.of(matrix_game(payoff)), 5) == 5 * payoff.ndim
    assert len(compiled) == 2


def test_bounds_of_games_of_numbers():
    low, high = GameSpec.of(differential_game()).bounds()
    spec = differential_game().action_spec
    np.testing.assert_array_equal(low, np.broadcast_to(spec.minimum, 2))
    np.testing.assert_array_equal(high, np.broadcast_to(spec.maximum, 2))
    assert low.shape == high.shape == (2,) and (low < high).all()


def test_what_a_game_does_not_know():
    spec = GameSpec.of(PredatorPrey(jnp.float32(0.5)))
    assert spec.return_lower_bound(0.9) is None
    assert float(spec.best_reward_of_worst_action(0)) == 0


def test_games_that_an_algorithm_cannot_play(bad_input):
    numbers, pairs = GameSpec.of(differential_game()), GameSpec.of(general_sum_game([np.eye(2)] * 2))
    team = GameSpec.of(two_step_game())
    with bad_input("the algorithm needs discrete actions, but DifferentialGame has continuous ones"):
        refuse_numbers(numbers)
    with bad_input("learns from a reward of the whole team, and MatrixGame has one per agent"):
        refuse_reward_per_agent(pairs)
    for refuse in (refuse_numbers, refuse_reward_per_agent):
        refuse(team)
    refuse_numbers(pairs)
    refuse_reward_per_agent(numbers)
