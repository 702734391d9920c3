"""Targets and losses, in rlax's manner: short, pure and unbatched. Callers vmap and average.

Squared errors carry no factor one half, as in the papers and in PyMARL.
"""

import chex
import jax
import jax.numpy as jnp

#: Stands in for the value of an unavailable action before an argmax or a softmax, never in a mean.
UNAVAILABLE = -1e9


def mask_unavailable(utilities: jax.Array, action_mask: jax.Array) -> jax.Array:
    """Utilities `(n, A)` with `UNAVAILABLE` where the mask `(n, A)` is False."""
    chex.assert_equal_shape([utilities, action_mask])
    return jnp.where(action_mask, utilities, UNAVAILABLE)


def greedy_actions(masked_utilities: jax.Array) -> jax.Array:
    """Every agent's best action: `(n, A)` to `(n,)` int32. Ties go to the lowest index."""
    return jnp.argmax(masked_utilities, axis=-1).astype(jnp.int32)


def chosen(utilities: jax.Array, actions: jax.Array) -> jax.Array:
    """The utilities of the chosen actions: `(n, A)` and `(n,)` to `(n,)`.

    Written as a masked sum: its gradient is a product, where that of a gather is a scatter, which
    costs several times as much once vmapped over samples and seeds.
    """
    chex.assert_rank([utilities, actions], [2, 1])
    hot = jax.nn.one_hot(actions, utilities.shape[-1], dtype=bool)
    return jnp.sum(jnp.where(hot, utilities, 0), axis=-1)


def td_target(
    reward: jax.Array, discount: jax.Array, gamma: float | jax.Array, next_value: jax.Array
) -> jax.Array:
    """The one-step target `r + gamma d V(s')`, without gradient.

    `discount` is 0 after a termination and 1 otherwise: a truncated episode still bootstraps. Where it is
    known to be 0 beforehand, XLA need not compute `next_value` at all.
    """
    bootstrapped = reward + gamma * discount * next_value
    return jax.lax.stop_gradient(jnp.where(discount == 0, reward, bootstrapped))


def lambda_returns(
    rewards: jax.Array,
    discounts: jax.Array,
    next_values: jax.Array,
    mask: jax.Array,
    gamma: float,
    lambda_: float,
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
    if lambda_ == 0:
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


# Weights of squared errors. None has a gradient.


def optimistic_weight(q_tot: jax.Array, target: jax.Array, alpha: float) -> jax.Array:
    """OW-QMIX: 1 where the joint value is too low, else `alpha` (arXiv 2006.10800)."""
    return jnp.where(jax.lax.stop_gradient(q_tot < target), 1.0, alpha)


def central_weight(
    target: jax.Array, greedy_value: jax.Array, actions: jax.Array, greedy: jax.Array, alpha: float
) -> jax.Array:
    """CW-QMIX: 1 for the greedy joint action and for whatever seems better, else `alpha` (arXiv 2006.10800).

    Args:
        target: `()`, y.
        greedy_value: `()`, the unrestricted target value of the greedy joint action.
        actions: `(n,)`, the joint action.
        greedy: `(n,)`, the greedy joint action.
        alpha: the smaller weight.
    """
    chex.assert_equal_shape([actions, greedy])
    better = jax.lax.stop_gradient(target > greedy_value)
    return jnp.where(jnp.all(actions == greedy) | better, 1.0, alpha)


#: Where ReMIX's factors are cut off, so that one step cannot outweigh a whole batch.
LEAST_SLOPE, LARGEST_SLOPE, LARGEST_EXPONENT = 1e-3, 1e3, 10.0


def remix_weight(
    q_tot: jax.Array,
    target: jax.Array,
    central_value: jax.Array,
    policy: jax.Array,
    slopes: jax.Array,
    *,
    bellman: bool = True,
    underestimation: bool = True,
    gradient: bool = True,
) -> jax.Array:
    """ReMIX's weight `()` before it is normalised (seed paper 004, theorem 1).

    `(y - Q_tot) exp(Q* - Q_tot) (sum_j (1 - pi_j) / f'_j - 1)` where Q_tot lies below y, and 0 elsewhere
    or where the last factor is negative. The factor d^pi / mu is left to the sampling of recent episodes.

    Args:
        q_tot: `()`, the monotone joint value.
        target: `()`, y.
        central_value: `()`, the unrestricted target value Q* of the same joint action.
        policy: `(n,)`, the probability of each chosen action in the agent's own softmax of utilities.
        slopes: `(n,)`, f'_j, the derivatives of Q_tot by the chosen utilities.
        bellman: False puts 1 in place of the first factor, and keeps the condition.
        underestimation: False puts 1 in place of the second factor.
        gradient: False puts 1 in place of the third factor.
    """
    chex.assert_equal_shape([policy, slopes])
    gap = target - q_tot
    weight = gap if bellman else jnp.ones(())
    if underestimation:
        weight = weight * jnp.exp(jnp.clip(central_value - q_tot, -LARGEST_EXPONENT, LARGEST_EXPONENT))
    if gradient:
        weight = weight * (jnp.sum((1 - policy) / jnp.clip(slopes, LEAST_SLOPE, LARGEST_SLOPE)) - 1)
    return jax.lax.stop_gradient(jnp.where(gap > 0, jnp.maximum(weight, 0), 0))


def min_max_weights(weights: jax.Array, mask: jax.Array, least: float) -> jax.Array:
    """The weights of a batch, spread linearly over [`least`, 1]: the smallest to `least`, the largest to 1.

    Those that are 0 get `least` whatever the others are; where all others are equal they get 1.

    Args:
        weights: none below 0, any shape.
        mask: of the same shape; where it is 0 a weight counts for nothing and becomes `least`.
        least: w_min, in [0, 1].
    """
    chex.assert_equal_shape([weights, mask])
    real = mask > 0
    low = jnp.min(jnp.where(real, weights, jnp.inf))
    span = jnp.max(jnp.where(real, weights, -jnp.inf)) - low
    share = jnp.where(span > 0, (weights - low) / jnp.where(span > 0, span, 1), 1)
    return jnp.where(real & (weights > 0), least + (1 - least) * share, least)


def masked_mean(values: jax.Array, mask: jax.Array) -> jax.Array:
    """The mean `()` of the values where the mask, of the same shape, is 1."""
    chex.assert_equal_shape([values, mask])
    return jnp.sum(mask * values) / jnp.sum(mask)


def shares_of_bins(values: jax.Array, mask: jax.Array, bins: int) -> jax.Array:
    """How values spread over equal bins from 0 to 1, where the mask of their shape is 1: `(bins,)`, sum 1.

    A value on the border of two counts for the upper one, and one outside for the nearest.
    """
    chex.assert_equal_shape([values, mask])
    # In float32, .15 * 20 may come out a little below 3.
    places = jnp.clip(jnp.floor(values * bins + 1e-4), 0, bins - 1)
    inside = places[..., None] == jnp.arange(bins)
    counts = jnp.sum(jnp.where(inside, mask[..., None], 0), axis=tuple(range(mask.ndim)))
    return counts / jnp.sum(mask)


def qtran_td_loss(q_jt: jax.Array, target: jax.Array) -> jax.Array:
    """`L_td = (Q_jt(u) - y)^2` (QTRAN, section 3.3)."""
    return jnp.square(q_jt - jax.lax.stop_gradient(target))


def qtran_opt_loss(q_prime: jax.Array, q_jt: jax.Array, v_jt: jax.Array) -> jax.Array:
    """`L_opt = (Q'_jt - sg[Q_jt] + V_jt)^2`, all at the greedy joint action (QTRAN, section 3.3)."""
    return jnp.square(q_prime - jax.lax.stop_gradient(q_jt) + v_jt)


def qtran_nopt_loss(q_prime: jax.Array, q_jt: jax.Array, v_jt: jax.Array) -> jax.Array:
    """`L_nopt = min(Q'_jt - sg[Q_jt] + V_jt, 0)^2`, at the sampled joint action (QTRAN, section 3.3)."""
    return jnp.square(jnp.minimum(q_prime - jax.lax.stop_gradient(q_jt) + v_jt, 0))


def qtran_nopt_min_loss(
    q_prime: jax.Array, q_jt: jax.Array, v_jt: jax.Array, action_mask: jax.Array, signed: bool
) -> jax.Array:
    """`L_nopt-min`: the mean over agents of a squared least difference (QTRAN, section 3.4).

    The difference of agent i's action u_i is `Q'_jt(u_i, u_-i) - sg[Q_jt(u_i, u_-i)] + V_jt`.

    Args:
        q_prime: `(n, A)`, Q'_jt(u_i, u_-i) for every agent i and each of its actions.
        q_jt: `(n, A)`, the counterfactual joint values.
        v_jt: `()`.
        action_mask: `(n, A)`; unavailable actions take no part in the minimum.
        signed: True squares the least difference, so that none may be negative (condition 7, and the
            authors' release); False takes the least square, as the paper's loss is printed.
    """
    chex.assert_equal_shape([q_prime, q_jt, action_mask])
    gap = q_prime - jax.lax.stop_gradient(q_jt) + v_jt  # (n, A)
    if signed:
        return jnp.mean(jnp.square(jnp.min(jnp.where(action_mask, gap, jnp.inf), axis=-1)))
    return jnp.mean(jnp.min(jnp.where(action_mask, jnp.square(gap), jnp.inf), axis=-1))
