import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxmarl_fac.exploration import (
    boltzmann,
    epsilon_greedy,
    gumbel_softmax,
    linear_epsilon,
    sample_actions,
)
from jaxmarl_fac.values import UNAVAILABLE

MASK = jnp.asarray([[True, True, True, True], [True, False, True, False], [False, False, True, False]])
UTILITIES = jnp.where(MASK, jnp.asarray([[0.0, 3, 1, 2], [5, 9, 5, 9], [7, 8, -4, 9]]), UNAVAILABLE)
SAMPLES = 100_000


@jax.jit
def sample(epsilon):
    """Actions `(SAMPLES, 3)`."""
    keys = jax.random.split(jax.random.key(12), SAMPLES)
    return jax.vmap(epsilon_greedy, (0, None, None, None))(keys, UTILITIES, MASK, epsilon)


def counts(actions):
    return np.stack([np.bincount(column, minlength=4) for column in np.asarray(actions).T])


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.5, 1.0])
def test_unavailable_actions_are_never_chosen(epsilon):
    drawn = counts(sample(jnp.full((3,), epsilon)))
    assert (drawn[~np.asarray(MASK)] == 0).all()
    assert (drawn.sum(axis=1) == SAMPLES).all()


def test_epsilon_1_is_uniform_over_what_is_available():
    drawn = counts(sample(jnp.ones(3)))
    for row, mask in zip(drawn, np.asarray(MASK), strict=True):
        if mask.sum() > 1:
            assert stats.chisquare(row[mask]).pvalue > 1e-4
    # and no less so where two utilities tie
    assert drawn[2].tolist() == [0, 0, SAMPLES, 0]


def test_epsilon_0_is_greedy_and_ties_go_to_the_lowest_index():
    assert (np.asarray(sample(jnp.zeros(3))) == [1, 0, 2]).all()


def test_in_between_is_a_mixture():
    """The best of k available actions has probability 1 - epsilon + epsilon / k."""
    drawn = counts(sample(jnp.full((3,), 0.2)))
    expected = np.asarray([[0.05, 0.85, 0.05, 0.05], [0.9, 0, 0.1, 0], [0, 0, 1, 0]]) * SAMPLES
    for row, want in zip(drawn[:2], expected, strict=False):
        assert stats.chisquare(row[want > 0], want[want > 0]).pvalue > 1e-4


def test_every_agent_may_have_its_own_epsilon():
    drawn = counts(sample(jnp.asarray([0.0, 1.0, 0.5])))
    assert drawn[0].tolist() == [0, SAMPLES, 0, 0]
    # 5 standard deviations of a fair coin
    assert abs(drawn[1, 0] - SAMPLES / 2) < 5 * np.sqrt(SAMPLES) / 2


def test_a_scalar_epsilon_is_for_all_agents():
    keys = jax.random.split(jax.random.key(1), 50)
    scalar, vector = (
        jax.vmap(lambda key, e=e: epsilon_greedy(key, UTILITIES, MASK, e))(keys)
        for e in (jnp.float32(0.4), jnp.full((3,), 0.4))
    )
    np.testing.assert_array_equal(scalar, vector)


def test_agents_explore_independently():
    both = np.asarray(sample(jnp.full((3,), 0.5)))
    # agent 1 explores away from 1 with probability 3/8, agent 2 from 0 with 1/4
    apart = ((both[:, 0] != 1) & (both[:, 1] != 0)).mean()
    assert apart == pytest.approx(3 / 32, abs=5 * np.sqrt(3 / 32 * 29 / 32 / SAMPLES))


@pytest.mark.parametrize(
    ("env_steps", "expected"),
    [(0, 1.0), (1, 0.991), (50, 0.55), (99, 0.109), (100, 0.1), (101, 0.1), (10**9, 0.1)],
)
def test_linear_epsilon(env_steps, expected):
    assert float(linear_epsilon(jnp.int32(env_steps), 1.0, 0.1, 100)) == pytest.approx(expected, abs=1e-6)


def test_linear_epsilon_may_stay_or_drop_at_once():
    for steps in (0, 1, 1000):
        assert float(linear_epsilon(jnp.int32(steps), 1.0, 1.0, 1)) == 1
    assert float(linear_epsilon(jnp.int32(0), 1.0, 0.05, 1)) == 1
    assert float(linear_epsilon(jnp.int32(1), 1.0, 0.05, 1)) == pytest.approx(0.05)


@pytest.mark.parametrize(("start", "end"), [(1.0, 0.0), (0.0, 1.0), (1.0, 0.05)])
def test_compiled_epsilon_never_leaves_its_range(start, end):
    """Compiled, about half of all step counts come out as -5e-8 or 6e-8 beyond or before the end."""
    steps = [*range(1, 100), 250, 500, 1000, 1001, 5000, 10_000, 50_000, 190_000, 3_000_000, 2**31 - 1]
    epsilons = jax.jit(
        lambda counts: jnp.stack(
            [linear_epsilon(counts[i], start, end, count) for i, count in enumerate(steps)]
        )
    )
    for past in (-1, 0, 1):
        counts = np.minimum(np.asarray(steps) + past, 2**31 - 1).astype(np.int32)
        reached = np.asarray(epsilons(counts))
        low, high = np.float32([min(start, end), max(start, end)])
        assert ((reached >= low) & (reached <= high)).all()
        assert past < 0 or (reached == np.float32(end)).all()


def test_no_rounding_draws_an_action_that_is_not_there():
    keys = jax.random.split(jax.random.key(5), 1000)
    draw = jax.jit(jax.vmap(sample_actions, (0, None)))
    below = jnp.asarray([[-4.7e-8, 0.5, 0.5 + 4.7e-8], [1 + 5e-8, -5e-8, 0.0]])
    drawn = counts(draw(keys, below))
    assert drawn[0, 0] == 0 and drawn[0].sum() == 1000 and min(drawn[0, 1:3]) > 400
    assert drawn[1].tolist() == [1000, 0, 0, 0]
    assert (np.asarray(draw(keys, jnp.full((2, 3), jnp.nan))) == 0).all()
    # and where nothing is wrong, the numbers are distrax's
    policy = jnp.asarray([[0.2, 0.3, 0.5]])
    expected = jax.vmap(lambda key: distrax.Categorical(probs=policy).sample(seed=key))(keys)
    np.testing.assert_array_equal(draw(keys, policy), expected)


def test_greedy_play_below_epsilon_0_is_greedy():
    assert (np.asarray(sample(jnp.full(3, -4.7e-8))) == [1, 0, 2]).all()


def test_boltzmann_policies_by_worked_numbers():
    """At T = 2, utilities 2 log p + 7 are drawn with the probabilities p; what is unavailable never is."""
    policies = np.asarray([[0.5, 0.25, 0.2, 0.05], [0.75, 0, 0.25, 0], [0, 0, 1, 0]])
    utilities = jnp.where(MASK, 2 * jnp.log(policies) + 7, UNAVAILABLE)
    draw = jax.jit(jax.vmap(boltzmann, (0, None, None)))
    keys = jax.random.split(jax.random.key(4), SAMPLES)
    drawn = counts(draw(keys, utilities, 2.0))
    for row, policy in zip(drawn, policies, strict=True):
        possible = policy > 0
        assert (row[~possible] == 0).all()
        if possible.sum() > 1:
            assert stats.chisquare(row[possible], SAMPLES * policy[possible]).pvalue > 1e-4
    # The squares of the probabilities at half of the temperature.
    squares = policies[0] ** 2 / np.sum(policies[0] ** 2)
    colder = counts(draw(keys, utilities, 1.0))
    assert stats.chisquare(colder[0], SAMPLES * squares).pvalue > 1e-4
    assert counts(draw(keys, UTILITIES, 1e-3))[0].tolist() == [0, SAMPLES, 0, 0]


# Straight-through samples


LOGITS = jnp.asarray([[0.0, 1, -1, 2], [1, 8, 0.5, 8], [9, 9, -3, 9]])


def test_straight_through_samples_are_one_hot_and_follow_the_policy():
    draw = jax.jit(jax.vmap(lambda key: gumbel_softmax(key, LOGITS, MASK, 0.5)))
    drawn = np.asarray(draw(jax.random.split(jax.random.key(3), SAMPLES)))  # (SAMPLES, 3, 4)
    assert set(np.unique(drawn)) == {0.0, 1.0}  # to the bit
    assert (drawn.sum(axis=-1) == 1).all()
    found = drawn.sum(axis=0)
    weights = np.where(MASK, np.exp(LOGITS), 0)
    expected = SAMPLES * weights / weights.sum(axis=-1, keepdims=True)
    assert (found[~np.asarray(MASK)] == 0).all()
    for row, want in zip(found[:2], expected, strict=False):
        assert stats.chisquare(row[want > 0], want[want > 0]).pvalue > 1e-4


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_straight_through_gradients_are_those_of_the_relaxed_sample(temperature):
    key, weights = jax.random.key(5), jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)), jnp.float32)

    def relaxed(logits):
        """By hand, over the available actions alone."""
        noise = jax.random.gumbel(key, logits.shape)
        each = jnp.where(MASK, jnp.exp((logits + noise) / temperature), 0)
        return jnp.sum(weights * each / jnp.sum(each, axis=-1, keepdims=True))

    def straight_through(logits):
        return jnp.sum(weights * gumbel_softmax(key, logits, MASK, temperature))

    found = jax.jit(jax.grad(straight_through))(LOGITS)
    np.testing.assert_allclose(found, jax.grad(relaxed)(LOGITS), rtol=1e-4, atol=1e-6)
    assert (found[~MASK] == 0).all()
    assert (found[:2][MASK[:2]] != 0).all()
    np.testing.assert_allclose(found[2], 0, atol=1e-6)  # one action only


def test_worked_numbers_of_a_straight_through_sample():
    """Logits that make up for the noise: the relaxed sample is softmax((log 1, log 2, log 5))."""
    key, probs = jax.random.key(0), jnp.asarray([0.125, 0.25, 0.625])
    logits, mask = jnp.log(8 * probs) - jax.random.gumbel(key, (3,)), jnp.ones(3, bool)
    np.testing.assert_array_equal(gumbel_softmax(key, logits, mask, 1.0), [0, 0, 1])
    jacobian = jax.jacobian(lambda logits: gumbel_softmax(key, logits, mask, 1.0))(logits)
    np.testing.assert_allclose(jacobian, np.diag(probs) - np.outer(probs, probs), atol=1e-6)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
def test_straight_through_gradients_are_finite(scale):
    def value(logits):
        return jnp.sum(gumbel_softmax(jax.random.key(1), logits, MASK, 0.01)[:, 0])

    assert np.isfinite(jax.grad(value)(scale * LOGITS)).all()
