"""How much each agent learns from its TD error, when its teammates may be to blame for it.

An agent that fits its own value to the team's reward sees the others as noise. These rules weigh its error
by what it can know: its sign (hysteretic and distributed Q-learning), and whether the others played their
best (Logical Team Q-learning). Tables multiply their steps by the weights, networks their squared errors.
"""

import chex
import jax
import jax.numpy as jnp

from jaxmarl_fac.losses import chosen


def hysteretic_weights(errors: jax.Array, ratio: float) -> jax.Array:
    """1 for a positive error, `ratio` for the others: `(n,)` to `(n,)`.

    (Matignon, Laurent and Le Fort-Piat 2007, "Hysteretic Q-learning".) With `ratio` 0 values never fall:
    distributed Q-learning (Lauer and Riedmiller 2000), which hopes that the others will play their best.
    """
    return jnp.where(errors > 0, 1.0, ratio)


def played_greedily(masked_utilities: jax.Array, actions: jax.Array) -> jax.Array:
    """Whether each agent took one of its best actions, all of equal ones counting: `(n,)` bool.

    Args:
        masked_utilities: `(n, A)`, unavailable actions at `losses.UNAVAILABLE`.
        actions: `(n,)`.
    """
    return chosen(masked_utilities, actions) == jnp.max(masked_utilities, axis=-1)


def others_greedy(greedy: jax.Array) -> jax.Array:
    """Whether all agents but this one played greedily: `(n,)` bool to `(n,)` bool."""
    chex.assert_rank(greedy, 1)
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
    better = errors > 0
    if independent:
        return useful + alpha * better * (1 - removed * useful)
    return jnp.where(useful, 1.0, alpha * better)
