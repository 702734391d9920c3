"""Samplers: networks that turn noise into actions, trained by Stein variational gradients."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import flax.linen as nn
import jax
import jax.numpy as jnp

from envs.lazy import lazily
from jaxmarl_fac.networks import MLP, concat
from jaxmarl_fac.soft.sampling import median_bandwidth, svgd_direction

if TYPE_CHECKING:
    import distrax
else:
    distrax = lazily("distrax")


class Sampler(nn.Module):
    """Noise `(outputs,)` and inputs `(I,)` to actions `(outputs,)` before they are squashed by tanh."""

    hidden: tuple[int, ...]
    outputs: int

    @nn.compact
    def __call__(self, inputs: jax.Array, noise: jax.Array) -> jax.Array:
        return MLP(self.hidden, self.outputs)(concat(inputs, noise))


def stein_loss(particles: jax.Array, log_density: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """A loss `()` whose gradient moves a sampler's particles towards a density on [-1, 1]^d.

    One half of the particles stays, and the other half moves along Stein's direction of those; the loss is
    minus the product of direction and position, as in amortised SVGD (Haarnoja et al., 2017). All is done
    before squashing, where the density has the factor `|d tanh(u)/du|`; the release of PR2 has the kernel
    between squashed actions, its bandwidth from pairs of a fixed and a moved particle, and 16 of each.

    Args:
        particles: `(K, d)`, before squashing; K is even.
        log_density: of squashed actions `(d,)` to `()`, up to a constant.
    """
    half = particles.shape[0] // 2
    fixed, moved = jax.lax.stop_gradient(particles[:half]), particles[half:]

    def before_squashing(raw: jax.Array) -> jax.Array:
        stretch = distrax.Tanh().forward_log_det_jacobian(raw)
        return log_density(jnp.tanh(raw)) + jnp.sum(stretch)

    score = jax.vmap(jax.grad(before_squashing))(fixed)
    direction = svgd_direction(fixed, score, median_bandwidth(fixed), at=moved)
    return -jnp.mean(jnp.sum(jax.lax.stop_gradient(direction) * moved, axis=-1))
