"""Networks that the algorithms share. All are applied to one sample; callers vmap."""

import operator
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from envs.lazy import lazily
from jaxmarl_fac.experience import Trajectory
from jaxmarl_fac.products import Dense

if TYPE_CHECKING:
    import distrax
else:
    distrax = lazily("distrax")

NetworkT = TypeVar("NetworkT", bound=nn.Module)

#: The last action of an agent that has not acted yet in its episode; its one-hot code is all 0.
NO_ACTION = -1
#: Logarithms of the smallest and the largest scale of a `SquashedNormal` before squashing.
LOG_SCALES = (-5.0, 2.0)
#: The largest absolute value of a number whose density under a `SquashedNormal` is taken.
MAX_IN_SUPPORT = 1 - 1e-6


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


def weights_init(scale: float) -> nn.initializers.Initializer:
    """How weights start: orthogonal times `scale`, or, where that is 0, normal as flax's `Dense` has them."""
    return nn.initializers.orthogonal(scale) if scale else nn.initializers.lecun_normal()


class MLP(nn.Module):
    """Hidden layers of the given widths with ReLU, then a linear layer of `outputs` units if asked.

    `(..., I)` to `(..., outputs)`, or `(..., widths[-1])` where `outputs` is None. `layer_norm` puts a layer
    norm (Ba et al., 2016) before each ReLU. Weights start as `weights_init` of `init_scale` says.
    """

    widths: Sequence[int]
    outputs: int | None = None
    layer_norm: bool = False
    init_scale: float = 0.0

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        hidden, start = inputs, weights_init(self.init_scale)
        for width in self.widths:
            hidden = Dense(width, kernel_init=start)(hidden)
            hidden = nn.relu(nn.LayerNorm()(hidden) if self.layer_norm else hidden)
        return hidden if self.outputs is None else Dense(self.outputs, kernel_init=start)(hidden)


#: Two MLPs of the same inputs side by side, `(I,)` to `(2, outputs)`: critics whose minimum is used.
TwinMLP = nn.vmap(
    MLP, variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=None, out_axes=0, axis_size=2
)


def of_all_agents(kind: type[nn.Module], share_parameters: bool) -> Any:
    """A module of one agent's numbers as one of all agents', `(..., n, I)` to `(..., n, O)`.

    Args:
        kind: the module's class, which takes `(..., I)` to `(..., O)`.
        share_parameters: False gives each agent parameters of its own, with a leading axis `(n,)`.
    """
    if share_parameters:
        return kind
    return nn.vmap(kind, variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=-2, out_axes=-2)


def agent_inputs(*parts: jax.Array, agent_ids: bool) -> jax.Array:
    """What agents' networks are given, `(..., n, I)`: parts `(..., n, O)`, then a one-hot id if asked."""
    if agent_ids:
        n = parts[0].shape[-2]
        ids = jnp.broadcast_to(jnp.eye(n, dtype=parts[0].dtype), (*parts[0].shape[:-1], n))
        parts = (*parts, ids)
    return jnp.concatenate(parts, axis=-1)


class AgentNetwork(nn.Module):
    """Individual action values.

    `agents_view (n, O)` to utilities `(n, A)` and the features `(n, H)` of the last hidden layer, on
    which joint networks may build (QTRAN, section 3.2).

    Args:
        num_actions: A.
        widths: of the hidden layers.
        share_parameters: see `of_all_agents`.
        agent_ids: whether agents see a one-hot id of their own.
        layer_norm: see `MLP`.
    """

    num_actions: int
    widths: Sequence[int]
    share_parameters: bool = True
    agent_ids: bool = True
    layer_norm: bool = False

    @nn.compact
    def __call__(self, agents_view: jax.Array) -> tuple[jax.Array, jax.Array]:
        mlp, dense = (of_all_agents(kind, self.share_parameters) for kind in (MLP, Dense))
        inputs = agent_inputs(agents_view, agent_ids=self.agent_ids)
        features = mlp(self.widths, layer_norm=self.layer_norm, name="MLP_0")(inputs)  # (n, H)
        return dense(self.num_actions, name="Dense_0")(features), features

    def unroll(self, trajectory: Trajectory) -> tuple[jax.Array, jax.Array]:
        """The same at each of a trajectory's T + 1 observations. Nothing learns from the last."""
        views = trajectory.observation.agents_view  # (T + 1, n, O)
        return over_time(lambda agent, view: agent(view), self, views, freeze_last=True)  # type: ignore[no-any-return]


class AgentMemory(NamedTuple):
    """What recurrent agents remember within an episode."""

    hidden: jax.Array  # (n, H)
    last_actions: jax.Array  # (n,) int32, `NO_ACTION` at the episode's start


class RecurrentAgentNetwork(nn.Module):
    """`AgentNetwork` with a memory: Dense layers with ReLU, a GRU, and a Dense layer, as in PyMARL.

    Features are the GRU's new hidden state.

    Args:
        num_actions: A.
        widths: of the layers below the GRU, which is as wide as the last of them.
        share_parameters: see `of_all_agents`.
        agent_ids: see `AgentNetwork`.
        last_actions: whether agents see their own last action, one-hot.
        layer_norm: see `MLP`; of the layers below the GRU.
    """

    num_actions: int
    widths: Sequence[int]
    share_parameters: bool = True
    agent_ids: bool = True
    last_actions: bool = True
    layer_norm: bool = False

    def setup(self) -> None:
        """The parts, named as in the parameters."""
        mlp, cell, dense = (of_all_agents(kind, self.share_parameters) for kind in (MLP, nn.GRUCell, Dense))
        self.encoder = mlp(self.widths, layer_norm=self.layer_norm)
        self.cell = cell(self.widths[-1])
        self.head = dense(self.num_actions)

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

    def unroll(self, trajectory: Trajectory) -> tuple[jax.Array, jax.Array]:
        """The same at each of a trajectory's T + 1 observations; memory is fresh where an episode begins."""
        views, first = trajectory.observation.agents_view, trajectory.first
        fresh = self.fresh(views.shape[1])
        hidden, last_actions = trajectory.carry or fresh
        taken = jnp.concatenate(
            [last_actions[None], trajectory.actions]
        )  # (T + 1, n), before each observation
        # Only the GRU takes one step after the other: the rest is done for all of them at once.
        encoded = self._encoded(views, jnp.where(first[:, None], NO_ACTION, taken))

        def step(cell: nn.Module, hidden: jax.Array, inputs: tuple[jax.Array, jax.Array]) -> Any:
            first, encoded = inputs
            return cell(jnp.where(first, fresh.hidden, hidden), encoded)

        scan = nn.scan(step, variable_broadcast="params", split_rngs={"params": False})
        _, features = scan(self.cell, hidden, (first, encoded))  # (T + 1, n, H)
        return self.head(features), features

    def _encoded(self, agents_view: jax.Array, last_actions: jax.Array) -> jax.Array:
        """What the GRU is given, `(..., n, H)`, of views `(..., n, O)` and last actions `(..., n)`."""
        parts = [agents_view]
        if self.last_actions:
            parts.append(jax.nn.one_hot(last_actions, self.num_actions, dtype=agents_view.dtype))
        return self.encoder(agent_inputs(*parts, agent_ids=self.agent_ids))  # type: ignore[no-any-return]


def concat(*parts: jax.Array) -> jax.Array:
    """Scalars and vectors concatenated to one vector, as a network's input."""
    return jnp.concatenate([jnp.atleast_1d(part) for part in parts])


class ZeroInitMLP(nn.Module):
    """An MLP whose outputs are all 0 at first, so that actions start in the middle of their range.

    `(I,)` to `(outputs,)`.
    """

    hidden: tuple[int, ...]
    outputs: int

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        features = MLP(self.hidden)(inputs)
        return Dense(self.outputs, kernel_init=nn.initializers.zeros)(features)


class SquashedNormal(nn.Module):
    """The tanh of a normal variable whose mean and scale depend on the inputs `(I,)`: numbers in (-1, 1)."""

    hidden: tuple[int, ...]

    def setup(self) -> None:
        """The parts, named as in the parameters."""
        self.parameters = ZeroInitMLP(self.hidden, 2)

    def __call__(self, inputs: jax.Array) -> "distrax.Transformed":
        """The distribution of one number."""
        mean, log_scale = self.parameters(inputs)
        scale = jnp.exp(jnp.clip(log_scale, *LOG_SCALES))
        return distrax.Transformed(distrax.Normal(mean, scale), distrax.Tanh())

    def median(self, inputs: jax.Array) -> jax.Array:
        """The median `()` of that distribution."""
        return jnp.tanh(self.parameters(inputs)[0])


def clip_to_support(actions: jax.Array) -> jax.Array:
    """Actions of any shape, moved off -1 and 1, where a squashed variable has no density."""
    return jnp.clip(actions, -MAX_IN_SUPPORT, MAX_IN_SUPPORT)
