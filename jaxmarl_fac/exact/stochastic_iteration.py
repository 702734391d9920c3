"""Stochastic Q-iteration with any step sizes: what theorem 3 of the thesis is about.

`Q(s, u) ← (1 - α_t) Q(s, u) + α_t (r + γ max Q(s', .))` with a sampled reward and next state (thesis,
equation 2.21). Every pair (s, u) is updated at every t, each with a sample of its own, so that t counts the
visits of each pair and nothing but the step sizes differs between runs.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from envs.errors import BadInputError
from envs.team_mdp import TeamModel
from jaxmarl_fac.exact.joint import best_values, check_count, is_concrete, solver


def polynomial_steps(count: int, power: ArrayLike, first: ArrayLike = 1.0) -> jax.Array:
    """`α_t = first / t^power`, t = 1, ..., `count`: `(count,)`.

    Their sum is infinite for powers up to 1, that of their squares finite for powers above 1/2: theorem 3
    covers 1/2 < power <= 1. Power 0 keeps `first`.

    Raises:
        BadInputError: for no step, a negative power, or a first step outside (0, 1].
    """
    check_count(count, "count")
    if is_concrete(power) and not np.min(power) >= 0:
        raise BadInputError(f"power must be 0 or above, not {power}: step sizes must not grow")
    if is_concrete(first) and not (np.min(first) > 0 and np.max(first) <= 1):
        raise BadInputError(f"the first step size must be in (0, 1], not {first}")
    return jnp.asarray(first / jnp.arange(1, count + 1, dtype=float) ** power)


@solver()
def stochastic_q_iteration(
    model: TeamModel,
    discount: ArrayLike,
    start: jax.Array,
    steps: jax.Array,
    noise: ArrayLike,
    key: jax.Array,
    optimum: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Q-iteration on samples.

    Args:
        model: the game.
        discount: in [0, 1).
        start: Q at t = 0, `(S, A_1, ..., A_n)`.
        steps: α_t, `(T,)`.
        noise: standard deviation `()` of the normal noise on each reward.
        key: of the random numbers.
        optimum: Q*, `(S, A_1, ..., A_n)`.

    Returns:
        The last Q, and `max |Q - Q*|` after each step, `(T,)`.
    """
    shape = model.reward.shape
    going = ~model.terminal.reshape(-1, *(1,) * (len(shape) - 1))
    cumulative = jnp.cumsum(model.transition, axis=-1)

    def step(q: jax.Array, now: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        size, key = now
        chance_key, noise_key = jax.random.split(key)
        draw = jax.random.uniform(chance_key, (*shape, 1), q.dtype) * cumulative[..., -1:]
        following = jnp.sum(cumulative <= draw, axis=-1)  # (S, A_1, ..., A_n), next states
        values = jnp.where(model.terminal, 0.0, best_values(q))
        sampled = model.reward + noise * jax.random.normal(noise_key, shape, q.dtype)
        target = jnp.where(going, sampled + discount * values[following], 0.0)
        q = (1 - size) * q + size * target
        return q, jnp.max(jnp.abs(q - optimum))

    return jax.lax.scan(step, start, (steps, jax.random.split(key, len(steps))))
