"""Networks that the algorithms share. All are applied to one observation; callers vmap."""

import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp

NetworkT = TypeVar("NetworkT", bound=nn.Module)

#: The last action of an agent that has not acted yet in its episode; its one-hot code is all 0.
NO_ACTION = -1


def over_time(method: Callable[..., Any], network: NetworkT, *steps: Any, freeze_last: bool = False) -> Any:
    """A network's method at every step of a trajectory.

    The two observations of a transition are looked at one after the other, so that what nobody asks of
    either costs nothing, nor its gradient; longer trajectories are one batch.

    Args:
        method: takes the network and one step.
        network: whose parameters serve all steps.
        steps: its arguments with a leading axis of T steps on every leaf.
        freeze_last: nothing learns from the last of the T results, so spare its gradient.

    Returns:
        What it gives, with a leading axis of T steps on every leaf.
    """
    length = jax.tree.leaves(steps)[0].shape[0]
    if length > 2:
        at_once = nn.vmap(method, variable_axes={"params": None}, split_rngs={"params": False})
        return at_once(network, *steps)
    each = [jax.tree.map(operator.itemgetter(t), steps) for t in range(length)]
    results = [method(network, *step) for step in each]
    if freeze_last:
        results[-1] = jax.lax.stop_gradient(results[-1])
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *results)


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

    def unroll(self, agents_views: jax.Array, actions: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The same at each of T + 1 observations, between which `actions (T, n)` were played.

        Nothing learns from the last.
        """
        return over_time(lambda agent, view: agent(view), self, agents_views, freeze_last=True)  # type: ignore[no-any-return]


class AgentMemory(NamedTuple):
    """What recurrent agents remember within an episode."""

    hidden: jax.Array  # (n, H)
    last_actions: jax.Array  # (n,) int32, `NO_ACTION` at the episode's start


class RecurrentAgentNetwork(nn.Module):
    """`AgentNetwork` with a memory: Dense layers with ReLU, a GRU, and a Dense layer, as in PyMARL.

    It also sees each agent's last action, one-hot. Features are the GRU's new hidden state.

    Args:
        num_actions: A.
        widths: of the layers below the GRU, which is as wide as the last of them.
    """

    num_actions: int
    widths: Sequence[int]

    def setup(self) -> None:
        """The parts, named as in the parameters."""
        self.encoder = MLP(self.widths)
        self.cell = nn.GRUCell(self.widths[-1])
        self.head = nn.Dense(self.num_actions)

    def fresh(self, num_agents: int) -> AgentMemory:
        """The memory at an episode's start."""
        hidden = jnp.zeros((num_agents, self.widths[-1]), jnp.float32)
        return AgentMemory(hidden, jnp.full((num_agents,), NO_ACTION, jnp.int32))

    def __call__(
        self, agents_view: jax.Array, memory: AgentMemory | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Utilities `(n, A)` and features `(n, H)` at a view `(n, O)`; without a memory, the first one."""
        hidden, last_actions = self.fresh(agents_view.shape[0]) if memory is None else memory
        features, _ = self.cell(hidden, self._encoded(agents_view, last_actions))
        return self.head(features), features

    def unroll(self, agents_views: jax.Array, actions: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The same at each of an episode's T + 1 observations, between which `actions (T, n)` were played."""
        hidden, last_actions = self.fresh(agents_views.shape[1])
        # Only the GRU takes one step after the other: the rest is done for all of them at once.
        encoded = self._encoded(agents_views, jnp.concatenate([last_actions[None], actions]))
        scan = nn.scan(
            lambda cell, hidden, encoded: cell(hidden, encoded),
            variable_broadcast="params",
            split_rngs={"params": False},
        )
        _, features = scan(self.cell, hidden, encoded)  # (T + 1, n, H)
        return self.head(features), features

    def _encoded(self, agents_view: jax.Array, last_actions: jax.Array) -> jax.Array:
        """What the GRU is given, `(..., n, H)`, of views `(..., n, O)` and last actions `(..., n)`."""
        n = agents_view.shape[-2]
        played = jax.nn.one_hot(last_actions, self.num_actions, dtype=agents_view.dtype)
        ids = jnp.broadcast_to(jnp.eye(n, dtype=agents_view.dtype), (*agents_view.shape[:-1], n))
        return self.encoder(jnp.concatenate([agents_view, played, ids], axis=-1))  # type: ignore[no-any-return]
