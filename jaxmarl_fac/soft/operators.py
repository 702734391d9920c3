"""The two operators of soft backups: a mean of exponentials, and the policy that attains it.

Every method of the family (PR2, ROMMEO, Balancing-Q, GR2) nests these two under a prior P:

- `log_mean_exp`: (1/β) log Σ_x P(x) e^{β v(x)}, which is the mean of v under P at β = 0, its maximum at
  β = +inf and its minimum at β = -inf;
- `tilted_policy`: the distribution P(x) e^{β v(x)} / Z that attains it.

Values are in units of reward and every β may be negative, zero or infinite, unless a docstring says
otherwise. Actions that are not available get prior 0. All functions are unbatched; callers vmap.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike as Scalar
from numpy.typing import ArrayLike

from envs.errors import BadInputError


def log_mean_exp(values: jax.Array, prior: Scalar, beta: Scalar, axis: int = -1) -> jax.Array:
    """`(1/β) log Σ_x P(x) e^{β v(x)}` over `axis`, also known as the free energy of v under P.

    Equals the mean under P at β = 0, and the maximum and the minimum over the actions
    with P > 0 at β = +inf and -inf (Grau-Moya et al., 2018).

    Args:
        values: v, any shape.
        prior: P, broadcastable to `values`; sums to 1 over `axis`.
        beta: inverse temperature `()`, any sign.
        axis: the axis of x.
    """
    values, prior, beta = _aligned(values, prior, beta)
    support = prior > 0
    values = jnp.where(support, values, 0)
    mean = jnp.sum(prior * values, axis, keepdims=True)
    deviation = jnp.where(support, values - mean, 0)
    divisor = jnp.where(jnp.abs(beta) < jnp.finfo(values.dtype).tiny, 1, beta)
    # For small β (v - mean), e^{β v} is close to 1, and dividing its rounding error by β would drown v: expm1
    # and log1p avoid that. Each branch is masked where it is not taken, since its infinities would make the
    # gradient NaN.
    near = jnp.abs(beta) * jnp.max(jnp.abs(deviation), axis, keepdims=True) < 1
    small = jnp.where(near, beta * deviation, 0)
    near_value = mean + jnp.log1p(jnp.sum(prior * jnp.expm1(small), axis, keepdims=True)) / divisor
    extreme = _extreme(values, support, beta, axis)
    large = jnp.where(support & ~near, beta * (values - extreme), 0)  # <= 0
    far_value = extreme + jnp.log(jnp.sum(prior * jnp.exp(large), axis, keepdims=True)) / divisor
    return jnp.squeeze(jnp.where(near, near_value, far_value), axis)


def tilted_policy(values: jax.Array, prior: Scalar, beta: Scalar, axis: int = -1) -> jax.Array:
    """`P(x) e^{β v(x)} / Z` over `axis`: the policy whose regularised value is `log_mean_exp`.

    At β = 0 it is the prior. At β = ±inf the best (worst) actions share the mass in proportion to their
    priors: ties are not broken.

    Args:
        values: v, any shape.
        prior: P, broadcastable to `values`; sums to 1 over `axis`.
        beta: inverse temperature `()`, any sign.
        axis: the axis of x.
    """
    values, prior, beta = _aligned(values, prior, beta)
    support = prior > 0
    values = jnp.where(support, values, 0)
    exponent = jnp.where(support, beta * (values - _extreme(values, support, beta, axis)), 0)
    weights = prior * jnp.exp(exponent)
    return weights / jnp.sum(weights, axis, keepdims=True)


def naive_variational(policy: jax.Array, beta: Scalar, axis: int = -1) -> jax.Array:
    """`π^(1/β) / Σ π^(1/β)` over `axis`: the naive variational distribution of the thesis (equation 3.44).

    Args:
        policy: π, positive, any shape.
        beta: inverse temperature `()`, of any sign but not 0.
        axis: the axis of the actions.
    """
    return jax.nn.softmax(jnp.log(policy) / beta, axis)


def _aligned(values: jax.Array, prior: Scalar, beta: Scalar) -> tuple[jax.Array, jax.Array, jax.Array]:
    dtype = jnp.result_type(values, prior, jnp.float32)
    values = jnp.asarray(values, dtype)
    prior = jnp.broadcast_to(jnp.asarray(prior, dtype), values.shape)
    # A β this large separates all floats already; infinity would give 0 * inf for the best action.
    limit = math.sqrt(float(jnp.finfo(dtype).max))
    return values, prior, jnp.clip(jnp.asarray(beta, dtype), -limit, limit)


def _extreme(values: jax.Array, support: jax.Array, beta: jax.Array, axis: int) -> jax.Array:
    """The action value for which e^{β v} is largest; it cancels out, hence no gradient."""
    highest = jnp.max(jnp.where(support, values, -jnp.inf), axis, keepdims=True)
    lowest = jnp.min(jnp.where(support, values, jnp.inf), axis, keepdims=True)
    return jax.lax.stop_gradient(jnp.where(beta >= 0, highest, lowest))


def uniform(q: jax.Array, axis: int) -> jax.Array:
    """The uniform distribution over the actions of an axis of `q`."""
    return jnp.full((q.shape[axis],), 1 / q.shape[axis], q.dtype)


def check_prior(prior: ArrayLike, shape: tuple[int, ...], axis: int = -1, name: str = "prior") -> np.ndarray:
    """`prior` as an array of this shape whose entries along `axis` are probabilities.

    Raises:
        BadInputError: if it has another shape, negative or non-finite entries, or does not sum to 1.
    """
    try:
        table = np.asarray(prior, dtype=float)
    except (ValueError, TypeError) as error:
        raise BadInputError(f"{name} is ragged or not numeric: give plain numbers that sum to 1") from error
    if table.shape != shape:
        raise BadInputError(f"{name} has shape {table.shape}: this game needs {shape}")
    if not np.isfinite(table).all() or (table < 0).any():
        raise BadInputError(f"{name} holds negative or non-finite entries: give probabilities")
    totals = table.sum(axis)
    if not np.allclose(totals, 1, rtol=0, atol=1e-5):
        wrong = totals.flat[np.argmax(np.abs(totals - 1))] if totals.ndim else totals
        raise BadInputError(f"{name} sums to {wrong:g}: probabilities must sum to 1")
    return table
