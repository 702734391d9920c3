"""Independent Q-learning (Tan, 1993): every agent learns as if it were alone."""

import dataclasses
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from baselines.tabular import TabularLearner, TabularStep, rows, stepped, tabular_target
from envs.base import Observation, TeamEnvironment
from jaxmarl_fac.algorithm import Metrics, Params, QLearner, Transition
from jaxmarl_fac.losses import chosen, greedy_actions, mask_unavailable, td_target
from jaxmarl_fac.networks import AgentNetwork


class IndependentNetwork(nn.Module):
    """The agent network alone."""

    num_actions: int
    hidden: tuple[int, ...]

    def setup(self) -> None:
        """The parts, named as in the parameters."""
        self.agent = AgentNetwork(self.num_actions, self.hidden)

    def __call__(self, observation: Observation) -> jax.Array:
        """Touches every parameter; for initialisation."""
        return self.utilities(observation)

    def utilities(self, observation: Observation) -> jax.Array:
        """Q_i: `(n, A)`."""
        return self.agent(observation.agents_view)[0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class IQL(QLearner):
    """Independent Q-learning: every agent fits its own Q_i to its reward.

    The loss is the mean over agents of `(Q_i(u_i) - r - gamma Q_i^-(u_i'))^2`, with u_i' greedy by the
    online network; in a game with a reward per agent, r is the agent's own.
    """

    general_sum: ClassVar[bool] = True

    def network(self, env: TeamEnvironment) -> IndependentNetwork:
        """The agent network."""
        return IndependentNetwork(env.num_actions, self.hidden)

    def joint_values(
        self, env: TeamEnvironment, params: Params, observation: Observation, actions: jax.Array
    ) -> Metrics:
        """None: independent learners know no joint value."""
        return {}

    def loss(
        self, online: IndependentNetwork, target: IndependentNetwork, transition: Transition
    ) -> tuple[jax.Array, Metrics]:
        """The agents' mean squared TD error."""
        following = transition.next_observation
        q = chosen(online.utilities(transition.observation), transition.actions)  # (n,)
        best = greedy_actions(mask_unavailable(online.utilities(following), following.action_mask))
        next_q = chosen(target.utilities(following), best)  # (n,)
        y = td_target(transition.reward, transition.discount, self.gamma, next_q)
        return jnp.mean(self.weights(y - q) * jnp.square(y - q)), {"mean_q": jnp.mean(q)}

    def weights(self, errors: jax.Array) -> jax.Array:
        """How much each agent learns from its TD error, `(n,)` to `(n,)`: IQL from all alike."""
        return jnp.ones_like(errors)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TabularIQL(TabularLearner):
    """Independent Q-learning in tables: `Q_i(o, u) += step_size (r + gamma max Q_i(o', .) - Q_i(o, u))`."""

    general_sum: ClassVar[bool] = True

    def initial_tables(self, env: TeamEnvironment, shape: tuple[int, int, int]) -> jax.Array:
        """One table of action values."""
        return jnp.full(shape, self.initial_value)

    def preferences(self, tables: jax.Array) -> jax.Array:
        """The action values."""
        return tables

    def learn(self, tables: jax.Array, step: TabularStep, rate: jax.Array, key: jax.Array) -> jax.Array:
        """One step of every agent."""
        y = tabular_target(tables, step, self.gamma)
        errors = y - chosen(rows(tables, step.observed), step.actions)
        return stepped(tables, step, rate * self.weights(errors) * errors)

    def weights(self, errors: jax.Array) -> jax.Array:
        """How much each agent learns from its TD error, `(n,)` to `(n,)`: IQL from all alike."""
        return jnp.ones_like(errors)
