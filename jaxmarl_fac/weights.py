"""Weights of errors: of a step in a batch, and of an agent's own TD error. None has a gradient.

Weighted QMIX and ReMIX weigh the squared errors of the joint value. An agent that fits its own value to the
team's reward sees the others as noise: its error is weighed by what it can know, which is its sign
(hysteretic and distributed Q-learning) and whether the others played their best (Logical Team Q-learning).
Tables multiply their steps by these weights, networks their squared errors.
"""

import chex
import jax
import jax.numpy as jnp

from jaxmarl_fac.values import chosen


def hysteretic_weights(errors: jax.Array, ratio: float) -> jax.Array:
    """1 for a positive error, `ratio` for the others: `(n,)` to `(n,)`.

    (Matignon, Laurent and Le Fort-Piat 2007, "Hysteretic Q-learning".) With `ratio` 0 values never fall:
    distributed Q-learning (Lauer and Riedmiller 2000), which hopes that the others will play their best.
    """
    chex.assert_rank(errors, 1)
    chex.assert_type(errors, float)
    return jnp.where(errors > 0, 1.0, ratio)


def played_greedily(masked_utilities: jax.Array, actions: jax.Array) -> jax.Array:
    """Whether each agent took one of its best actions, all of equal ones counting: `(n,)` bool.

    Args:
        masked_utilities: `(n, A)`, unavailable actions at `values.UNAVAILABLE`.
        actions: `(n,)`.
    """
    chex.assert_rank([masked_utilities, actions], [2, 1])
    chex.assert_type([masked_utilities, actions], [float, int])
    return chosen(masked_utilities, actions) == jnp.max(masked_utilities, axis=-1)


def others_greedy(greedy: jax.Array) -> jax.Array:
    """Whether all agents but this one played greedily: `(n,)` bool to `(n,)` bool."""
    chex.assert_rank(greedy, 1)
    chex.assert_type(greedy, bool)
    return jnp.sum(~greedy) == ~greedy


def logical_weights(
    errors: jax.Array,
    useful: jax.Array,
    alpha: float,
    independent: bool = False,
    removed: jax.Array | float = 0.0,
) -> jax.Array:
    """The weights of errors for LTQL's optimistic values q_B: `(n,)`.

    (Cassano and Sayed 2021, "Logical Team Q-learning".) 1 where the transition is `useful`, that is where
    all others played their best; `alpha` elsewhere if it was better than expected. The unbiased values
    q_U have weight 1 where it is useful, and 0 elsewhere.

    Args:
        errors: `(n,)`, target minus q_B.
        useful: `(n,)` bool, `others_greedy` by q_B.
        alpha: see above.
        independent: the two conditions are read as an `if` after another, as the authors' slide prints
            them, and not as `if` and `elif`, as their code does: a useful transition that was better than
            expected counts twice.
        removed: the part of an error that the first step takes away, which the second one then does not
            see; 0 where both losses are summed before a step.
    """
    chex.assert_equal_shape([errors, useful])
    chex.assert_rank(errors, 1)
    chex.assert_type([errors, useful], [float, bool])
    better = errors > 0
    if independent:
        return useful + alpha * better * (1 - removed * useful)
    return jnp.where(useful, 1.0, alpha * better)


def optimistic_weight(q_tot: jax.Array, target: jax.Array, alpha: float) -> jax.Array:
    """OW-QMIX: 1 where the joint value is too low, else `alpha` (arXiv 2006.10800)."""
    chex.assert_rank([q_tot, target], 0)
    chex.assert_type([q_tot, target], float)
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
    chex.assert_rank([target, greedy_value, actions], [0, 0, 1])
    chex.assert_type([target, greedy_value, actions, greedy], [float, float, int, int])
    better = jax.lax.stop_gradient(target > greedy_value)
    return jnp.where(jnp.all(actions == greedy) | better, 1.0, alpha)


#: Where ReMIX's factors are cut off, so that one step cannot outweigh a whole batch.
MIN_SLOPE, MAX_SLOPE, MAX_EXPONENT = 1e-3, 1e3, 10.0


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
    """ReMIX's weight `()` before it is normalised (Mei et al., 2023, theorem 1).

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
    chex.assert_rank([q_tot, target, central_value, policy], [0, 0, 0, 1])
    chex.assert_type([q_tot, target, central_value, policy, slopes], float)
    gap = target - q_tot
    weight = gap if bellman else jnp.ones(())
    if underestimation:
        weight = weight * jnp.exp(jnp.clip(central_value - q_tot, -MAX_EXPONENT, MAX_EXPONENT))
    if gradient:
        weight = weight * (jnp.sum((1 - policy) / jnp.clip(slopes, MIN_SLOPE, MAX_SLOPE)) - 1)
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
    chex.assert_type([weights, mask], float)
    real = mask > 0
    low = jnp.min(jnp.where(real, weights, jnp.inf))
    span = jnp.max(jnp.where(real, weights, -jnp.inf)) - low
    share = jnp.where(span > 0, (weights - low) / jnp.where(span > 0, span, 1), 1)
    return jnp.where(real & (weights > 0), least + (1 - least) * share, least)


def shares_of_bins(values: jax.Array, mask: jax.Array, bins: int) -> jax.Array:
    """How values spread over equal bins from 0 to 1, where the mask of their shape is 1: `(bins,)`, sum 1.

    A value on the border of two counts for the upper one, and one outside for the nearest.
    """
    chex.assert_equal_shape([values, mask])
    chex.assert_type([values, mask], float)
    # In float32, .15 * 20 may come out a little below 3.
    places = jnp.clip(jnp.floor(values * bins + 1e-4), 0, bins - 1)
    inside = places[..., None] == jnp.arange(bins)
    counts = jnp.sum(jnp.where(inside, mask[..., None], 0), axis=tuple(range(mask.ndim)))
    return counts / jnp.sum(mask)
