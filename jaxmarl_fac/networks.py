"""Networks that the algorithms share. All are applied to one observation; callers vmap."""

import operator
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp

NetworkT = TypeVar("NetworkT", bound=nn.Module)


def over_time(
    method: Callable[..., jax.Array], network: NetworkT, *steps: Any, freeze_last: bool = False
) -> jax.Array:
    """A network's method at every step of a trajectory.

    The two observations of a transition are looked at one after the other, so that what nobody asks of
    either costs nothing, nor its gradient; longer trajectories are one batch.

    Args:
        method: takes the network and one step.
        network: whose parameters serve all steps.
        steps: its arguments with a leading axis of T steps on every leaf.
        freeze_last: nothing learns from the last of the T results, so spare its gradient.

    Returns:
        What it gives, `(T, ...)`.
    """
    length = jax.tree.leaves(steps)[0].shape[0]
    if length > 2:
        at_once = nn.vmap(method, variable_axes={"params": None}, split_rngs={"params": False})
        return at_once(network, *steps)  # type: ignore[no-any-return]
    each = [jax.tree.map(operator.itemgetter(t), steps) for t in range(length)]
    results = [method(network, *step) for step in each]
    if freeze_last:
        results[-1] = jax.lax.stop_gradient(results[-1])
    return jnp.stack(results)


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
