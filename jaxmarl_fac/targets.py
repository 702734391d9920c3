"""What values learn towards: one-step targets and lambda-returns. Pure and unbatched; callers vmap."""

import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from jaxmarl_fac.experience import Trajectory


def td_target(
    reward: jax.Array, discount: jax.Array, gamma: float | jax.Array, next_value: jax.Array
) -> jax.Array:
    """The one-step target `r + gamma d V(s')`, without gradient.

    `discount` is 0 after a termination and 1 otherwise: a truncated episode still bootstraps. Where it is
    known to be 0 beforehand, XLA need not compute `next_value` at all.
    """
    chex.assert_rank([reward, discount, next_value], {0, 1, 2, 3})
    chex.assert_type([reward, discount, next_value], float)
    bootstrapped = reward + gamma * discount * next_value
    return jax.lax.stop_gradient(jnp.where(discount == 0, reward, bootstrapped))


def clipped_double_q_target(
    reward: jax.Array, discount: jax.Array, gamma: float | jax.Array, next_values: jax.Array
) -> jax.Array:
    """`r + gamma d min(Q_1, Q_2)` of twin critics' values `(2,)`, without gradient (TD3, section 4.2)."""
    chex.assert_rank([reward, discount, next_values], [0, 0, 1])
    return td_target(reward, discount, gamma, jnp.min(next_values))


def smoothed_actions(actions: jax.Array, noise: jax.Array, clip: float | jax.Array) -> jax.Array:
    """`clip(a + clip(noise, -c, c), -1, 1)`, target policies' actions with clipped noise (TD3, section 5.3).

    Args:
        actions: in [-1, 1], of any shape.
        noise: of that shape.
        clip: c, the largest noise.
    """
    chex.assert_equal_shape([actions, noise])
    chex.assert_type([actions, noise], float)
    return jnp.clip(actions + jnp.clip(noise, -clip, clip), -1, 1)


def lambda_returns(
    rewards: jax.Array,
    discounts: jax.Array,
    next_values: jax.Array,
    mask: jax.Array,
    gamma: float | jax.Array,
    lambda_: float | jax.Array,
) -> jax.Array:
    """TD(lambda) targets `G_t = r_t + gamma d_t ((1 - lambda) V_{t+1} + lambda G_{t+1})`, without gradient.

    The returns of PyMARL, without off-policy correction. The episode's last step bootstraps from the
    value after it, unless it terminated: an episode that was cut short counts as one that goes on. With
    `lambda_` = 0 these are the one-step targets of `td_target`.

    Args:
        rewards: `(T,)`.
        discounts: `(T,)`, 0 after a termination, else 1.
        next_values: `(T,)`, of what follows each step.
        mask: `(T,)`, 1 for the steps of the episode and 0 after its end.
        gamma: discount factor.
        lambda_: 0 trusts the values, 1 the rewards alone.
    """
    chex.assert_equal_shape([rewards, discounts, next_values, mask])
    chex.assert_rank(rewards, 1)
    chex.assert_type([rewards, discounts, next_values, mask], float)
    if not isinstance(lambda_, jax.Array) and lambda_ == 0:
        return td_target(rewards, discounts, gamma, next_values)
    goes_on = jnp.concatenate([mask[1:], jnp.zeros(1)])  # (T,), whether another step follows

    def back(following: jax.Array, step: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        reward, discount, next_value, goes_on = step
        following = jnp.where(goes_on > 0, following, next_value)  # G_{t+1}
        value = (1 - lambda_) * next_value + lambda_ * following
        target = reward + gamma * discount * value
        return target, target

    steps = (rewards, discounts, next_values, goes_on)
    _, returns = jax.lax.scan(back, jnp.zeros(()), steps, reverse=True)
    return jax.lax.stop_gradient(returns)


def trajectory_returns(
    trajectory: Trajectory, next_values: jax.Array, gamma: float | jax.Array, lambda_: float | jax.Array
) -> jax.Array:
    """`lambda_returns` of a trajectory: `(T,)`, or `(T, n)` for values or rewards of each agent.

    Args:
        trajectory: of T steps.
        next_values: `(T,)` or `(T, n)`, of what follows each step.
        gamma: discount factor.
        lambda_: 0 trusts the values, 1 the rewards alone.
    """
    rewards, discounts, mask = trajectory.reward, trajectory.discount, trajectory.mask
    returns = functools.partial(lambda_returns, gamma=gamma, lambda_=lambda_)
    if next_values.ndim == 1:
        return returns(rewards, discounts, next_values, mask)
    of_each = jax.vmap(returns, in_axes=(1, None, 1, None), out_axes=1)
    rewards = rewards if rewards.ndim == 2 else rewards[:, None]
    return of_each(jnp.broadcast_to(rewards, next_values.shape), discounts, next_values, mask)


def tree_backup_returns(
    rewards: jax.Array,
    discounts: jax.Array,
    values: jax.Array,
    next_values: jax.Array,
    probs: jax.Array,
    mask: jax.Array,
    gamma: float | jax.Array,
    lambda_: float | jax.Array,
    steps: int,
) -> jax.Array:
    """Targets of tree backup, without gradient: values of a policy from the experience of any other one.

    `G_t = Q_t + sum_{l < steps} gamma^l (prod_{1 <= j <= l} lambda pi_{t+j}) delta_{t+l}` with
    `delta_t = r_t + gamma d_t V_{t+1} - Q_t` (Precup et al., 2000; DOP, Wang et al., 2021, section 4.2).

    Args:
        rewards: `(T,)`.
        discounts: `(T,)`, 0 after a termination, else 1.
        values: Q_t `(T,)`, of the joint actions that were played.
        next_values: V_{t+1} `(T,)`, the policy's expected values after each step.
        probs: pi_t `(T,)`, the policy's probabilities of the joint actions that were played.
        mask: `(T,)`, 1 for the steps of the episode and 0 after its end.
        gamma: discount factor.
        lambda_: 0 looks at the next step alone.
        steps: how many steps a target looks ahead, 1 or more.
    """
    chex.assert_equal_shape([rewards, discounts, values, next_values, probs, mask])
    chex.assert_rank(rewards, 1)
    chex.assert_type([rewards, discounts, values, next_values, probs, mask], float)
    errors = mask * (rewards + gamma * discounts * next_values - values)
    # A step is traced back to the one before it, unless an episode ended there.
    traces = jnp.concatenate([(gamma * lambda_ * discounts * mask)[:-1] * (probs * mask)[1:], jnp.zeros(1)])
    returns, weight = values, jnp.ones_like(values)
    for _ in range(min(steps, rewards.shape[0])):
        returns = returns + weight * errors
        weight = weight * traces
        traces = jnp.concatenate([traces[1:], jnp.zeros(1)])
        errors = jnp.concatenate([errors[1:], jnp.zeros(1)])
    return jax.lax.stop_gradient(returns)


# Rewards of mean 0 and variance 1


class Moments(NamedTuple):
    """Running moments of k numbers that were observed together."""

    total: jax.Array  # (), how many were observed
    mean: jax.Array  # (k,)
    variance: jax.Array  # (k,)


def fresh_moments(k: int) -> Moments:
    """Moments before anything was observed: mean 0 and variance 1, with next to no weight."""
    return Moments(jnp.float32(1e-4), jnp.zeros(k), jnp.ones(k))


def updated_moments(moments: Moments, values: jax.Array, mask: jax.Array) -> Moments:
    """Moments that take a batch into account, without going through what was there before.

    (Chan et al., 1983, equation 2.1.)

    Args:
        moments: before.
        values: `(B, k)`.
        mask: `(B,)`, 1 for what counts.
    """
    chex.assert_rank([values, mask], [2, 1])
    chex.assert_type([values, mask], float)
    count = jnp.sum(mask)
    mean = mask @ values / count  # (k,)
    variance = mask @ jnp.square(values - mean) / count
    total, apart = moments.total + count, mean - moments.mean
    share = count / total
    return Moments(
        total=total,
        mean=moments.mean + share * apart,
        variance=(1 - share) * (moments.variance + share * jnp.square(apart)) + share * variance,
    )


def standardised(values: jax.Array, moments: Moments) -> jax.Array:
    """Values `(..., k)`, shifted and scaled by their moments."""
    return (values - moments.mean) / (jnp.sqrt(moments.variance) + 1e-8)
