"""What an algorithm is to the loop, and the part that deep value-based ones share."""

import abc
import dataclasses
import zlib
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct

from envs.base import Observation, TeamEnvironment
from envs.errors import BadInputError
from jaxmarl_fac.exploration import epsilon_greedy, linear_epsilon
from jaxmarl_fac.losses import greedy_actions, mask_unavailable
from jaxmarl_fac.settings import Count, Must, OffOrAbove, Positive, Probability, Settings, Widths

Params = Any
Metrics = dict[str, jax.Array]


class Transition(NamedTuple):
    """One step of experience; a batch of them has a leading axis `(B, ...)` on every leaf.

    In a stateless game the observations carry no batch axis: they are the same for every sample.
    """

    observation: Observation
    actions: jax.Array  # (n,) int32, or float32 where actions are numbers
    reward: jax.Array  # (), or (n,) in a game with a reward per agent
    discount: jax.Array  # (), 0 after a termination, else 1
    next_observation: Observation


class Trajectory(NamedTuple):
    """One whole episode, padded to T steps; a batch of them has a leading axis `(B, ...)` on every leaf.

    After the episode's end `mask` is 0 and all else is of no meaning. The last observation of an episode
    of t steps is number t: `observation` has one more entry than there are steps.
    """

    observation: Observation  # (T + 1, ...)
    actions: jax.Array  # (T, n)
    reward: jax.Array  # (T,), or (T, n)
    discount: jax.Array  # (T,), 0 after a termination, else 1
    mask: jax.Array  # (T,) float32, 1 for the steps of the episode


@struct.dataclass
class LearnerState:
    """All that learning changes; `()` where an algorithm has no such part.

    In JAX's 64-bit mode tables are float64, while networks and their optimisers stay in float32.
    """

    params: Params  # what acting needs, and more
    target_params: Params
    opt_state: optax.OptState


@dataclasses.dataclass(frozen=True, kw_only=True)
class Algorithm(Settings, abc.ABC):
    """What the loop asks of an algorithm: pure functions over a frozen configuration.

    What is a class variable here, a subclass may turn into a setting.
    """

    #: What `update` is given: "transitions" or whole "episodes" drawn from replay (a `batch_size` of the
    #: last `replay_size`), or "latest": the transition that each environment has just made.
    consumes: ClassVar[Literal["transitions", "episodes", "latest"]]
    #: Environment steps before the first update.
    learning_starts: ClassVar[int] = 0
    #: Updates between the loop's copies of `params` to `target_params`; 0 leaves them to `update`.
    target_period: ClassVar[int] = 0
    #: Steps of the environments between updates.
    update_period: ClassVar[int] = 1
    #: True if the algorithm can play games with a reward per agent.
    general_sum: ClassVar[bool] = False

    def check(self, env: TeamEnvironment) -> None:
        """Refuse an environment that the algorithm cannot play.

        Raises:
            BadInputError: saying why.
        """
        if env.num_actions == 0:
            raise BadInputError(
                f"{type(self).__name__} chooses among discrete actions, which {type(env).__name__} has not: "
                "take an algorithm for continuous actions"
            )
        if env.reward_spec.shape and not self.general_sum:
            raise BadInputError(
                f"{type(self).__name__} learns from a reward of the whole team, and {type(env).__name__} "
                "has one per agent: take an algorithm for general-sum games"
            )

    @abc.abstractmethod
    def init(self, env: TeamEnvironment, key: jax.Array) -> LearnerState:
        """A fresh learner."""

    def initial_carry(self, env: TeamEnvironment) -> Any:
        """What the agents remember within an episode, at its start."""
        return ()

    @abc.abstractmethod
    def act(
        self,
        env: TeamEnvironment,
        params: Params,
        carry: Any,
        observation: Observation,
        epsilon: jax.Array,
        key: jax.Array,
    ) -> tuple[jax.Array, Any]:
        """Actions `(n,)` with exploration, and what is remembered."""

    @abc.abstractmethod
    def act_greedily(
        self, env: TeamEnvironment, params: Params, carry: Any, observation: Observation
    ) -> tuple[jax.Array, Any]:
        """Actions `(n,)` without exploration, ties to the lowest index, and what is remembered."""

    def epsilon(self, env_steps: jax.Array) -> jax.Array:
        """Exploration `()` after so many environment steps."""
        return jnp.zeros(())

    @abc.abstractmethod
    def update(
        self, env: TeamEnvironment, learner: LearnerState, batch: Any, progress: jax.Array, key: jax.Array
    ) -> tuple[LearnerState, Metrics]:
        """Learn from a batch; `progress ()` in [0, 1] says how much of training is done."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class QLearner(Algorithm):
    """Off-policy learning of action values from single transitions, as DQN does.

    A subclass gives a network and a loss; all else is here. The defaults are QTRAN's table 3.

    Attributes:
        learning_rate: the optimiser's step size.
        learning_rate_schedule: "constant", or "linear" down to 0 at the end of training.
        optimiser: "adam", or "rmsprop" as in PyMARL.
        adam_eps: Adam's epsilon (QTRAN's release has 1.5e-4).
        rmsprop_decay: RMSprop's decay of the mean squared gradient.
        rmsprop_eps: RMSprop's epsilon, which is added to the root.
        max_grad_norm: gradients are clipped to this global norm; 0 turns clipping off.
        batch_size: transitions in one update.
        replay_size: transitions kept.
        learning_starts: environment steps taken before the first update.
        gamma: discount factor.
        target_period: updates between copies of the parameters to the target network.
        hidden: widths of the agent network's hidden layers.
        share_parameters: whether all agents have one network; False gives each parameters of its own.
        agent_ids: whether agents see a one-hot id. Without, agents that share parameters act alike where they
            see the same.
        weight_std: all weights start normal with this standard deviation (QTRAN's release has 0.1); 0 leaves
            every network its own start.
        epsilon_start: exploration at the first step.
        epsilon_end: exploration after `epsilon_steps` environment steps, decaying linearly.
        epsilon_steps: see `epsilon_end`.
    """

    learning_rate: Positive = 5e-4
    learning_rate_schedule: Literal["constant", "linear"] = "constant"
    optimiser: Literal["adam", "rmsprop"] = "adam"
    adam_eps: Positive = 1e-8
    rmsprop_decay: Annotated[float, Must("at least 0 and below 1", lambda decay: 0 <= decay < 1)] = 0.99
    rmsprop_eps: Positive = 1e-5
    max_grad_norm: OffOrAbove = 0.0
    batch_size: Count = 32
    replay_size: Count = 20_000
    learning_starts: Count = 32  # type: ignore[misc]
    gamma: Probability = 0.99
    target_period: Count = 10_000  # type: ignore[misc]
    hidden: Widths = (32, 32)
    share_parameters: bool = True
    agent_ids: bool = True
    weight_std: OffOrAbove = 0.0
    epsilon_start: Probability = 1.0
    epsilon_end: Probability = 1.0
    epsilon_steps: Count = 1

    consumes: ClassVar[Literal["transitions", "episodes", "latest"]] = "transitions"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_replay(self.replay_size, self.batch_size)

    @abc.abstractmethod
    def network(self, env: TeamEnvironment) -> nn.Module:
        """All networks of the learner as one module.

        It is initialised by `module(observation)`, and its method `utilities(observation)` gives the
        individual action values `(n, A)`, unmasked, by which the agents act.
        """

    @abc.abstractmethod
    def loss(self, online: Any, target: Any, transition: Transition) -> tuple[jax.Array, Metrics]:
        """The loss `()` of one transition, and what to log of it (scalars).

        `online` and `target` are the network bound to the learning and to the target parameters.
        """

    @abc.abstractmethod
    def joint_values(
        self, env: TeamEnvironment, params: Params, observation: Observation, actions: jax.Array
    ) -> Metrics:
        """Every joint value that the algorithm has of the joint action `(n,)`, by name, each `()`."""

    def init(self, env: TeamEnvironment, key: jax.Array) -> LearnerState:
        """A fresh learner."""
        reset_key, network_key = jax.random.split(key)
        observation = env.observe(env.reset(reset_key)[0])
        params = self.network(env).init(network_key, observation)
        if self.weight_std:
            params = _normal_weights(params, self.weight_std, network_key)
        return LearnerState(params, params, self._optimiser().init(params))

    def utilities(self, env: TeamEnvironment, params: Params, observation: Observation) -> jax.Array:
        """Individual action values `(n, A)`, with unavailable actions masked."""
        network: Any = self.network(env).bind(params)
        return mask_unavailable(network.utilities(observation), observation.action_mask)

    def recall(
        self, env: TeamEnvironment, params: Params, carry: Any, observation: Observation
    ) -> tuple[jax.Array, Callable[[jax.Array], Any]]:
        """Masked utilities `(n, A)`, and a function from actions `(n,)` to what is remembered after them."""
        return self.utilities(env, params, observation), lambda actions: carry

    def act(
        self,
        env: TeamEnvironment,
        params: Params,
        carry: Any,
        observation: Observation,
        epsilon: jax.Array,
        key: jax.Array,
    ) -> tuple[jax.Array, Any]:
        """Epsilon-greedy actions `(n,)`, each agent for itself, and what is remembered."""
        utilities, remembered = self.recall(env, params, carry, observation)
        if self.epsilon_start == self.epsilon_end == 1.0:
            utilities = jnp.zeros_like(utilities)  # nobody looks at them, so the compiler leaves them out
        actions = epsilon_greedy(key, utilities, observation.action_mask, epsilon)
        return actions, remembered(actions)

    def act_greedily(
        self, env: TeamEnvironment, params: Params, carry: Any, observation: Observation
    ) -> tuple[jax.Array, Any]:
        """Every agent's best action `(n,)`, ties to the lowest index, and what is remembered."""
        utilities, remembered = self.recall(env, params, carry, observation)
        actions = greedy_actions(utilities)
        return actions, remembered(actions)

    def epsilon(self, env_steps: jax.Array) -> jax.Array:
        """Exploration after so many environment steps."""
        return linear_epsilon(env_steps, self.epsilon_start, self.epsilon_end, self.epsilon_steps)

    def batch_loss(
        self, env: TeamEnvironment, params: Params, target_params: Params, batch: Any
    ) -> tuple[jax.Array, Metrics]:
        """The mean loss `()` of a batch of transitions, and what to log of it."""
        network = self.network(env)
        seen = None if env.stateless else 0
        axes = Transition(seen, 0, 0, 0, seen)  # type: ignore[arg-type]

        def sample_loss(transition: Transition) -> tuple[jax.Array, Metrics]:
            return self.loss(network.bind(params), network.bind(target_params), transition)

        losses, metrics = jax.vmap(sample_loss, (axes,))(batch)
        return jnp.mean(losses), jax.tree.map(jnp.mean, metrics)

    def update(
        self,
        env: TeamEnvironment,
        learner: LearnerState,
        batch: Any,
        progress: jax.Array,
        key: jax.Array,
    ) -> tuple[LearnerState, Metrics]:
        """One gradient step on the loss of a batch; `progress` in [0, 1] drives the learning rate."""

        def batch_loss(params: Params) -> tuple[jax.Array, Metrics]:
            return self.batch_loss(env, params, learner.target_params, batch)

        (loss, metrics), gradients = jax.value_and_grad(batch_loss, has_aux=True)(learner.params)
        directions, opt_state = self._optimiser().update(gradients, learner.opt_state, learner.params)
        rate = self.learning_rate * (1 - progress if self.learning_rate_schedule == "linear" else 1.0)
        params = jax.tree.map(lambda param, direction: param - rate * direction, learner.params, directions)
        return learner.replace(params=params, opt_state=opt_state), {"loss": loss, **metrics}  # type: ignore[attr-defined]

    def _optimiser(self) -> optax.GradientTransformation:
        scale = optax.scale_by_adam(eps=self.adam_eps)
        if self.optimiser == "rmsprop":
            scale = optax.scale_by_rms(self.rmsprop_decay, self.rmsprop_eps, eps_in_sqrt=False)
        return (
            optax.chain(optax.clip_by_global_norm(self.max_grad_norm), scale) if self.max_grad_norm else scale
        )


def check_replay(replay_size: int, batch_size: int) -> None:
    """Refuse a replay that is smaller than a batch.

    Raises:
        BadInputError: if it is.
    """
    if replay_size < batch_size:
        raise BadInputError(f"replay_size must be at least batch_size ({batch_size}), not {replay_size}")


def _normal_weights(params: Params, std: float, key: jax.Array) -> Params:
    """Parameters with all weight matrices drawn anew from N(0, std^2); biases as they are."""

    def redrawn(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        if path[-1].key != "kernel":
            return leaf
        name = zlib.crc32(jax.tree_util.keystr(path).encode())  # each its own numbers, whatever the order
        return std * jax.random.normal(jax.random.fold_in(key, name), leaf.shape, leaf.dtype)

    return jax.tree_util.tree_map_with_path(redrawn, params)
