"""Independent Q-learning (Tan, 1993): every agent learns as if it were alone."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from baselines.q_learning import AgentsNetwork, StepLearner
from baselines.tabular import TabularLearner, TabularStep, rows, stepped, tabular_target
from envs.base import Observation, TeamEnvironment
from jaxmarl_fac.algorithm import Metrics, Params
from jaxmarl_fac.values import chosen, greedy_actions, mask_unavailable


@dataclasses.dataclass(frozen=True, kw_only=True)
class IQL(StepLearner):
    """Independent Q-learning: every agent fits its own Q_i to its reward.

    The loss is the mean over agents of `(Q_i(u_i) - r - gamma Q_i^-(u_i'))^2`, with u_i' greedy by the
    online network; in a game with a reward per agent, r is the agent's own.
    """

    general_sum: ClassVar[bool] = True

    def network(self, env: TeamEnvironment) -> AgentsNetwork:
        """The agent network."""
        return AgentsNetwork(self.agent(env))

    def joint_values(
        self, env: TeamEnvironment, params: Params, observation: Observation, actions: jax.Array
    ) -> Metrics:
        """None: independent learners know no joint value."""
        return {}

    def next_value(
        self, target: Any, seen: jax.Array, target_seen: jax.Array, observation: Observation
    ) -> jax.Array:
        """Every agent's target value `(n,)` of its best action by the online network."""
        return chosen(target_seen, greedy_actions(mask_unavailable(seen, observation.action_mask)))

    def step_loss(
        self, online: Any, seen: jax.Array, observation: Observation, actions: jax.Array, y: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        """The agents' mean squared TD error."""
        q = chosen(seen, actions)  # (n,)
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
