"""Q-learners with networks: of single transitions or of whole episodes, feed-forward or recurrent.

`QLearner` has all but the network and the loss of a batch; `TrajectoryLearner` and `StepLearner` add
episodes, agents with a memory, and losses that are means over steps.
"""

import abc
import dataclasses
import functools
import zlib
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from envs.base import Observation, TeamEnvironment
from envs.errors import BadInputError
from jaxmarl_fac.algorithm import (
    Algorithm,
    LearnerState,
    Metrics,
    Params,
    Trajectory,
    Transition,
    check_replay,
)
from jaxmarl_fac.exploration import epsilon_greedy, linear_epsilon
from jaxmarl_fac.networks import AgentMemory, AgentNetwork, RecurrentAgentNetwork, over_time
from jaxmarl_fac.settings import Count, Must, OffOrAbove, Positive, Probability, Widths
from jaxmarl_fac.targets import lambda_returns, td_target
from jaxmarl_fac.values import greedy_actions, mask_unavailable, masked_mean


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


class AgentsNetwork(nn.Module):
    """The agents' networks alone; joint values are built on them.

    Args:
        agent: an `AgentNetwork` or a `RecurrentAgentNetwork`. A recurrent one takes an observation by itself
            for the first of an episode.
    """

    agent: nn.Module

    def __call__(self, observation: Observation) -> Any:
        """Touches every parameter; for initialisation."""
        return self.utilities(observation)

    def utilities(self, observation: Observation) -> jax.Array:
        """Q_i: `(n, A)`."""
        return self.agent(observation.agents_view)[0]  # type: ignore[no-any-return]

    def look(self, observation: Observation) -> Any:
        """All that a loss needs of the agents at one observation."""
        return self.utilities(observation)

    def unroll(self, trajectory: Trajectory) -> Any:
        """`look` at each of a trajectory's T + 1 observations. Nothing learns from the last."""
        return self.agent.unroll(trajectory.observation.agents_view, trajectory.actions)[0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrajectoryLearner(QLearner):
    """What Q-learners share that learn from transitions or from episodes.

    Attributes:
        consumes: "transitions", or whole "episodes"; `batch_size` and `replay_size` count those.
        recurrent: agents with a GRU above their hidden layers, who remember; they learn from episodes.
        last_actions: whether recurrent agents see their own last actions. Others never do.
        td_lambda: lambda of the TD(lambda) targets, for which it takes episodes.
        update_period: steps of the environments between updates.
    """

    consumes: Literal["transitions", "episodes"] = "transitions"  # type: ignore[misc]
    recurrent: bool = False
    last_actions: bool = True
    td_lambda: Probability = 0.0
    update_period: Count = 1  # type: ignore[misc]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.td_lambda > 0 and self.consumes != "episodes":
            raise BadInputError("td_lambda above 0 looks further than one transition: consume episodes")
        if self.recurrent and self.consumes != "episodes":
            raise BadInputError("recurrent agents learn from what came before: consume episodes")
        if not self.last_actions and not self.recurrent:
            raise BadInputError(
                "last_actions can be switched off for recurrent agents only: others never see their own"
            )

    def agent(self, env: TeamEnvironment) -> nn.Module:
        """A network of the agents."""
        settings = (env.num_actions, self.hidden, self.share_parameters, self.agent_ids)
        if self.recurrent:
            return RecurrentAgentNetwork(*settings, self.last_actions)
        return AgentNetwork(*settings)

    # Acting

    def initial_carry(self, env: TeamEnvironment) -> Any:
        """A fresh `AgentMemory`; nothing for agents without a memory."""
        agent = self.agent(env)
        return agent.fresh(env.num_agents) if isinstance(agent, RecurrentAgentNetwork) else ()

    def recall(
        self, env: TeamEnvironment, params: Params, carry: Any, observation: Observation
    ) -> tuple[jax.Array, Callable[[jax.Array], Any]]:
        """Of recurrent agents the new hidden state and the actions are remembered."""
        if not self.recurrent:
            return super().recall(env, params, carry, observation)
        network: Any = self.network(env).bind(params)
        utilities, hidden = network.agent(observation.agents_view, carry)
        masked = mask_unavailable(utilities, observation.action_mask)
        return masked, lambda actions: AgentMemory(hidden, actions)

    # Learning

    def targets(self, trajectory: Trajectory, next_values: jax.Array) -> jax.Array:
        """y, `(T,)` or `(T, n)`, from the values of what follows each step, of that shape."""
        _, _, rewards, discounts, mask = trajectory
        returns = functools.partial(lambda_returns, gamma=self.gamma, lambda_=self.td_lambda)
        if next_values.ndim == 1:
            return returns(rewards, discounts, next_values, mask)
        of_each = jax.vmap(returns, in_axes=(1, None, 1, None), out_axes=1)
        rewards = rewards if rewards.ndim == 2 else rewards[:, None]
        return of_each(jnp.broadcast_to(rewards, next_values.shape), discounts, next_values, mask)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepLearner(TrajectoryLearner):
    """One whose loss is a mean over steps, each with a loss of its own.

    `seen` and `target_seen` are what `AgentsNetwork.look` or `unroll` gives of an observation, by the
    learning and by the target parameters.
    """

    @abc.abstractmethod
    def next_value(self, target: Any, seen: Any, target_seen: Any, observation: Observation) -> jax.Array:
        """What the target bootstraps from at the observation after a step: `()`, or `(n,)` for each agent."""

    @abc.abstractmethod
    def step_loss(
        self, online: Any, seen: Any, observation: Observation, actions: jax.Array, y: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        """The loss `()` of one step whose target is `y`, of `next_value`'s shape, and what to log of it."""

    def loss(self, online: Any, target: Any, transition: Transition) -> tuple[jax.Array, Metrics]:
        """The loss of one transition."""
        observation, actions, reward, discount, following = transition
        next_value = self.next_value(target, online.look(following), target.look(following), following)
        y = td_target(reward, discount, self.gamma, next_value)
        return self.step_loss(online, online.look(observation), observation, actions, y)

    def losses(self, online: Any, target: Any, trajectory: Trajectory) -> tuple[jax.Array, Metrics]:
        """The loss of each step of a trajectory and what to log of it, `(T,)`."""
        observations, seen = trajectory.observation, online.unroll(trajectory)
        following = later((seen, target.unroll(trajectory), observations))
        y = self.targets(trajectory, over_time(self.next_value, target, *following))
        now = earlier((seen, observations))
        losses: tuple[jax.Array, Metrics] = over_time(self.step_loss, online, *now, trajectory.actions, y)
        return losses

    def batch_loss(
        self, env: TeamEnvironment, params: Params, target_params: Params, batch: Trajectory | Transition
    ) -> tuple[jax.Array, Metrics]:
        """The mean loss `()` of a batch's steps, and what to log of it."""
        if isinstance(batch, Transition):
            return super().batch_loss(env, params, target_params, batch)
        network = self.network(env)
        losses, metrics = jax.vmap(
            lambda trajectory: self.losses(network.bind(params), network.bind(target_params), trajectory)
        )(batch)
        mean = functools.partial(masked_mean, mask=batch.mask)
        return mean(losses), jax.tree.map(mean, metrics)


def earlier(tree: Any) -> Any:
    """Of the T steps, from `(T + 1, ...)` of their observations: what was there before each."""
    return jax.tree.map(lambda leaf: leaf[:-1], tree)


def later(tree: Any) -> Any:
    """What was there after each."""
    return jax.tree.map(lambda leaf: leaf[1:], tree)


def _normal_weights(params: Params, std: float, key: jax.Array) -> Params:
    """Parameters with all weight matrices drawn anew from N(0, std^2); biases as they are."""

    def redrawn(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        if path[-1].key != "kernel":
            return leaf
        name = zlib.crc32(jax.tree_util.keystr(path).encode())  # each its own numbers, whatever the order
        return std * jax.random.normal(jax.random.fold_in(key, name), leaf.shape, leaf.dtype)

    return jax.tree_util.tree_map_with_path(redrawn, params)
