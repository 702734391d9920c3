import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized

from jaxmarl_fac.targets import (
    clipped_double_q_target,
    fresh_moments,
    lambda_returns,
    smoothed_actions,
    standardised,
    td_target,
    updated_moments,
)


class TDTargetTest(chex.TestCase):
    """With and without jit."""

    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.parameters(
        # termination, r + 0; truncation and an ordinary step, which both bootstrap
        (2, 0, 10, 2),
        (2, 1, 10, 2 + 0.9 * 10),
        (-1, 1, -5, -5.5),
    )
    def test_td_target(self, reward, discount, next_value, expected):
        target = self.variant(td_target)
        got = target(jnp.float32(reward), jnp.float32(discount), 0.9, jnp.float32(next_value))
        assert float(got) == pytest.approx(expected, abs=1e-6)


def test_a_truncated_step_bootstraps_and_a_terminated_one_does_not():
    """From the time steps that environments give to the target."""
    from_env = [(0.0, 3.0), (1.0, 3.0 + 0.5 * 8)]
    for discount, expected in from_env:
        assert float(td_target(jnp.float32(3), jnp.float32(discount), 0.5, jnp.float32(8))) == expected


def test_what_follows_a_known_end_is_not_computed():
    def target(reward, parameters, state):
        return td_target(reward, jnp.zeros(3), 0.9, jnp.tanh(state @ parameters))

    compiled = jax.jit(target).lower(jnp.ones(3), jnp.ones(4), jnp.ones((3, 4))).compile().as_text()
    assert "tanh" not in compiled
    assert "dot" not in compiled
    assert float(td_target(jnp.float32(3), jnp.float32(0), 0.9, jnp.float32(jnp.inf))) == 3


# TD3


class TD3Test(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.parameters((1, (2, 3), 2.8), (1, (3, 2), 2.8), (0, (2, 3), 1))
    def test_the_lower_of_twin_critics_counts(self, discount, next_values, expected):
        got = self.variant(clipped_double_q_target)(
            jnp.float32(1), jnp.float32(discount), 0.9, jnp.float32(next_values)
        )
        assert float(got) == pytest.approx(expected, abs=1e-6)

    @chex.variants(with_jit=True, without_jit=True)
    def test_target_noise_is_clipped_and_actions_too(self):
        actions, noise = jnp.float32([0.95, 0.5, 0.5, 0.5, -0.95]), jnp.float32([0.5, 0.5, 0.1, -0.5, -0.5])
        got = self.variant(smoothed_actions)(actions, noise, 0.2)
        np.testing.assert_allclose(got, [1, 0.7, 0.6, 0.3, -1], atol=1e-6)


def test_nothing_is_learned_through_a_target():
    def target(next_values):
        return clipped_double_q_target(jnp.float32(1), jnp.float32(1), 0.9, next_values)

    np.testing.assert_array_equal(jax.grad(target)(jnp.float32([2, 3])), 0)


# TD(lambda)


def lambda_returns_by_definition(rewards, discounts, next_values, mask, gamma, lambda_):
    """Sums of n-step returns, `(1 - lambda) sum_n lambda^(n-1) G^(n)`, the last with all that is left."""
    length = int(np.sum(mask))
    returns = np.zeros(len(rewards))
    for t in range(length):
        total, weight = 0.0, 1.0
        for n in range(1, length - t + 1):
            n_step, going = 0.0, 1.0
            for k in range(n):
                n_step += going * rewards[t + k]
                going *= gamma * discounts[t + k]
            n_step += going * next_values[t + n - 1]
            last = n == length - t
            total += (weight if last else (1 - lambda_) * weight) * n_step
            weight *= lambda_
        returns[t] = total
    return returns


class LambdaReturnsTest(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.parameters(
        # By hand from the last step back: gamma = .99, lambda = .6, values of the observations 5, 4, 3, 7
        (1.0, [6.440497, 6.492420, 8.930000]),
        (0.0, [3.995344, 2.376000, 2.000000]),
    )
    def test_worked_numbers(self, last_discount, expected):
        returns = self.variant(lambda_returns, static_argnums=(4, 5))(
            jnp.asarray([1.0, 0, 2]),
            jnp.asarray([1.0, 1, last_discount]),
            jnp.asarray([4.0, 3, 7]),
            jnp.ones(3),
            0.99,
            0.6,
        )
        np.testing.assert_allclose(returns, expected, atol=2e-6)


def random_episodes(count, steps, rng):
    """Episodes of every length, half of them terminated and half cut short; noise after their ends."""
    lengths = 1 + np.arange(count) % steps
    mask = (np.arange(steps) < lengths[:, None]).astype(np.float32)
    discounts = np.ones((count, steps), np.float32)
    discounts[np.arange(count), lengths - 1] = np.arange(count) // steps % 2
    rewards, values = rng.normal(size=(2, count, steps)).astype(np.float32) * 3
    return rewards, discounts, values, mask


@pytest.mark.parametrize("lambda_", [0.0, 0.3, 0.6, 1.0])
def test_lambda_returns_are_sums_of_n_step_returns(lambda_):
    """An episode that is cut short bootstraps from the value after its last step, however it is padded."""
    episodes = random_episodes(24, 6, np.random.default_rng(0))
    ours = jax.jit(jax.vmap(lambda *steps: lambda_returns(*steps, 0.9, lambda_)))(*episodes)
    for episode, returns in zip(zip(*episodes, strict=True), np.asarray(ours), strict=True):
        expected = lambda_returns_by_definition(*episode, 0.9, lambda_)
        real = episode[-1] > 0
        np.testing.assert_allclose(returns[real], expected[real], rtol=1e-5, atol=1e-5)


def test_lambda_0_is_the_one_step_target_bit_for_bit():
    rewards, discounts, values, mask = random_episodes(24, 6, np.random.default_rng(1))
    ours = jax.vmap(lambda *steps: lambda_returns(*steps, 0.9, 0.0))(rewards, discounts, values, mask)
    one_step = td_target(jnp.asarray(rewards), jnp.asarray(discounts), 0.9, jnp.asarray(values))
    np.testing.assert_array_equal(np.asarray(ours)[mask > 0], np.asarray(one_step)[mask > 0])


# Standardised rewards


def test_running_moments_are_those_of_all_numbers_so_far():
    rng = np.random.default_rng(0)
    values = (5 + 3 * rng.normal(size=(6, 7, 2)) * [1, 10]).astype(np.float32)
    mask = (rng.random((6, 7)) < 0.7).astype(np.float32)
    moments, update = fresh_moments(2), jax.jit(updated_moments)
    for batch in range(6):
        moments = update(moments, values[batch], mask[batch])
        seen = values[: batch + 1][mask[: batch + 1] > 0]  # (N, 2)
        assert float(moments.total) == pytest.approx(len(seen), rel=1e-4)
        np.testing.assert_allclose(moments.mean, seen.mean(axis=0), rtol=1e-3)
        np.testing.assert_allclose(moments.variance, seen.var(axis=0), rtol=2e-3)
    np.testing.assert_allclose(
        standardised(values[mask > 0], moments), (seen - seen.mean(axis=0)) / seen.std(axis=0), atol=2e-3
    )


def test_equal_rewards_are_standardised_to_0():
    moments = fresh_moments(1)
    for _ in range(50):
        moments = updated_moments(moments, jnp.full((4, 1), 7.0), jnp.ones(4))
        assert np.abs(standardised(jnp.float32([[7.0]]), moments)).max() < 0.01
