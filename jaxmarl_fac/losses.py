"""QTRAN's losses, in rlax's manner: short, pure and unbatched. Callers vmap and average.

Squared errors carry no factor one half, as in the papers and in PyMARL.
"""

import chex
import jax
import jax.numpy as jnp


def qtran_td_loss(q_jt: jax.Array, target: jax.Array) -> jax.Array:
    """`L_td = (Q_jt(u) - y)^2` (QTRAN, section 3.3); QTRAN-alt's values are `(n,)`, one for each agent."""
    chex.assert_rank([q_jt, target], {0, 1})
    chex.assert_type([q_jt, target], float)
    return jnp.square(q_jt - jax.lax.stop_gradient(target))


def qtran_opt_loss(q_prime: jax.Array, q_jt: jax.Array, v_jt: jax.Array) -> jax.Array:
    """`L_opt = (Q'_jt - sg[Q_jt] + V_jt)^2`, all at the greedy joint action (QTRAN, section 3.3)."""
    chex.assert_rank([q_prime, q_jt, v_jt], [0, {0, 1}, 0])
    chex.assert_type([q_prime, q_jt, v_jt], float)
    return jnp.square(q_prime - jax.lax.stop_gradient(q_jt) + v_jt)


def qtran_nopt_loss(q_prime: jax.Array, q_jt: jax.Array, v_jt: jax.Array) -> jax.Array:
    """`L_nopt = min(Q'_jt - sg[Q_jt] + V_jt, 0)^2`, at the sampled joint action (QTRAN, section 3.3)."""
    chex.assert_rank([q_prime, q_jt, v_jt], 0)
    chex.assert_type([q_prime, q_jt, v_jt], float)
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
    chex.assert_rank([q_prime, v_jt], [2, 0])
    chex.assert_type([q_prime, q_jt, v_jt, action_mask], [float, float, float, bool])
    gap = q_prime - jax.lax.stop_gradient(q_jt) + v_jt  # (n, A)
    if signed:
        return jnp.mean(jnp.square(jnp.min(jnp.where(action_mask, gap, jnp.inf), axis=-1)))
    return jnp.mean(jnp.min(jnp.where(action_mask, jnp.square(gap), jnp.inf), axis=-1))
