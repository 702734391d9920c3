"""Networks that the algorithms share. All are applied to one observation; callers vmap."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp


class MLP(nn.Module):
    """Hidden layers of the given widths with ReLU, then a linear layer of `outputs` units if asked.

    `(..., I)` to `(..., outputs)`, or `(..., widths[-1])` where `outputs` is None.
    """

    widths: Sequence[int]
    outputs: int | None = None

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        hidden = inputs
        for width in self.widths:
            hidden = nn.relu(nn.Dense(width)(hidden))
        return hidden if self.outputs is None else nn.Dense(self.outputs)(hidden)


class AgentNetwork(nn.Module):
    """Individual action values, from parameters that all agents share; a one-hot id tells them apart.

    `agents_view (n, O)` to utilities `(n, A)` and the features `(n, H)` of the last hidden layer, on
    which joint networks may build (QTRAN, section 3.2).
    """

    num_actions: int
    widths: Sequence[int]

    @nn.compact
    def __call__(self, agents_view: jax.Array) -> tuple[jax.Array, jax.Array]:
        ids = jnp.eye(agents_view.shape[0], dtype=agents_view.dtype)
        features = MLP(self.widths)(jnp.concatenate([agents_view, ids], axis=-1))  # (n, H)
        return nn.Dense(self.num_actions)(features), features
