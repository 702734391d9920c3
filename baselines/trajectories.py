"""Q-learners of single transitions or of whole episodes, with feed-forward or with recurrent agents."""

import abc
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from envs.base import Observation, TeamEnvironment
from envs.errors import BadInputError
from jaxmarl_fac.algorithm import Metrics, Params, QLearner, Trajectory, Transition
from jaxmarl_fac.losses import lambda_returns, mask_unavailable, masked_mean, td_target
from jaxmarl_fac.networks import AgentMemory, AgentNetwork, RecurrentAgentNetwork, over_time
from jaxmarl_fac.settings import Count, Probability


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
