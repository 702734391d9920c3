"""Learners that keep a table for each agent, and what they share: reading observations, acting, stepping.

A subclass is its update rule: the one method `learn` on one transition. Tables are `params`, so that
whatever the loop does with networks (seeds, checkpoints, probes) it does with them.
"""

import abc
import dataclasses
from typing import Any, ClassVar, Literal, NamedTuple

import chex
import jax
import jax.numpy as jnp

from envs.base import Observation, TeamEnvironment
from envs.errors import BadInputError
from envs.matrix_games import MatrixGame
from envs.team_mdp import TeamMDP
from jaxmarl_fac.algorithm import Algorithm, LearnerState, Metrics, Transition
from jaxmarl_fac.exploration import epsilon_greedy, linear_epsilon, sample_actions
from jaxmarl_fac.settings import Count, Positive, Probability, StepSize
from jaxmarl_fac.targets import td_target
from jaxmarl_fac.values import greedy_actions, mask_unavailable

#: One table or several, each `(n, O, ...)`: agent, its observation, and as a rule its action.
Tables = Any
#: The games whose agents see the number of an observation, as a one-hot vector.
COUNTED = (MatrixGame, TeamMDP)


class TabularStep(NamedTuple):
    """One transition as a table sees it."""

    observed: jax.Array  # (n,) int, the number of each agent's observation
    action_mask: jax.Array  # (n, A) bool
    actions: jax.Array  # (n,)
    reward: jax.Array  # (n,), the team's reward n times where there is one
    discount: jax.Array  # (), 0 after a termination, else 1
    next_observed: jax.Array  # (n,) int
    next_action_mask: jax.Array  # (n, A) bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class TabularLearner(Algorithm):
    """Learns from each transition once, as it comes; transitions of several environments one by one.

    Attributes:
        step_size: mu, of the tables.
        step_size_schedule: "constant", or "linear" down to 0 at the end of training.
        gamma: discount factor.
        initial_value: what tables of action values hold at the start.
        acting: "epsilon-greedy", or "softmax": `exp(preference / temperature)`, mixed with epsilon of the
            uniform policy.
        temperature: of the softmax.
        epsilon_start: exploration at the first step.
        epsilon_end: exploration after `epsilon_steps` environment steps, decaying linearly.
        epsilon_steps: see `epsilon_end`.
    """

    step_size: StepSize = 0.1
    step_size_schedule: Literal["constant", "linear"] = "constant"
    gamma: Probability = 0.99
    initial_value: float = 0.0
    acting: Literal["epsilon-greedy", "softmax"] = "epsilon-greedy"
    temperature: Positive = 1.0
    epsilon_start: Probability = 1.0
    epsilon_end: Probability = 1.0
    epsilon_steps: Count = 1

    consumes: ClassVar[Literal["transitions", "episodes", "latest"]] = "latest"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.acting == "softmax" and self.epsilon_start == self.epsilon_end == 1:
            raise BadInputError(
                "acting by softmax with an epsilon of 1 from start to end is uniform play: "
                "set epsilon_start and epsilon_end below 1"
            )

    @abc.abstractmethod
    def initial_tables(self, env: TeamEnvironment, shape: tuple[int, int, int]) -> Tables:
        """The tables at the start; `shape` is `(n, O, A)`, that of a table of action values."""

    @abc.abstractmethod
    def preferences(self, tables: Tables) -> jax.Array:
        """By what the agents act, `(n, O, A)`: action values, or logits for the softmax."""

    @abc.abstractmethod
    def learn(self, tables: Tables, step: TabularStep, rate: jax.Array, key: jax.Array) -> Tables:
        """The tables after one transition, with step size `rate`."""

    def check(self, env: TeamEnvironment) -> None:
        """Tables need observations that can be counted.

        Raises:
            BadInputError: for another game.
        """
        super().check(env)
        if not isinstance(env, COUNTED):
            raise BadInputError(
                f"a table cannot hold the observations of {type(env).__name__}: take a matrix game or a team "
                "MDP, or an algorithm without -tabular in its id"
            )

    def init(self, env: TeamEnvironment, key: jax.Array) -> LearnerState:
        """Fresh tables."""
        observations = env.observation_spec.agents_view.shape[-1]  # type: ignore[attr-defined]
        tables = self.initial_tables(env, (env.num_agents, observations, env.num_actions))
        return LearnerState(params=tables, target_params=(), opt_state=())

    def utilities(self, env: TeamEnvironment, params: Tables, observation: Observation) -> jax.Array:
        """Every agent's preferences `(n, A)` now, with unavailable actions masked."""
        values = rows(self.preferences(params), observed(observation))
        return mask_unavailable(values, observation.action_mask)

    def act(
        self,
        env: TeamEnvironment,
        params: Tables,
        carry: Any,
        observation: Observation,
        epsilon: jax.Array,
        key: jax.Array,
    ) -> tuple[jax.Array, Any]:
        """Actions `(n,)`, each agent for itself, by `acting`."""
        values = self.utilities(env, params, observation)
        if self.acting == "epsilon-greedy":
            return epsilon_greedy(key, values, observation.action_mask, epsilon), carry
        uniform = observation.action_mask / jnp.sum(observation.action_mask, axis=-1, keepdims=True)
        chances = (1 - epsilon) * jax.nn.softmax(values / self.temperature) + epsilon * uniform
        return sample_actions(key, chances), carry

    def act_greedily(
        self, env: TeamEnvironment, params: Tables, carry: Any, observation: Observation
    ) -> tuple[jax.Array, Any]:
        """Every agent's best action `(n,)`, ties to the lowest index."""
        return greedy_actions(self.utilities(env, params, observation)), carry

    def epsilon(self, env_steps: jax.Array) -> jax.Array:
        """Exploration after so many environment steps."""
        return linear_epsilon(env_steps, self.epsilon_start, self.epsilon_end, self.epsilon_steps)

    def update(
        self,
        env: TeamEnvironment,
        learner: LearnerState,
        batch: Transition,
        progress: jax.Array,
        key: jax.Array,
    ) -> tuple[LearnerState, Metrics]:
        """Learn from the E transitions just made, one after the other."""
        rate = self.step_size * (1 - progress if self.step_size_schedule == "linear" else jnp.ones(()))
        steps = tabular_steps(batch)
        keys = jax.random.split(key, steps.discount.shape[0])

        def learn(tables: Tables, item: tuple[TabularStep, jax.Array]) -> tuple[Tables, None]:
            return self.learn(tables, item[0], rate, item[1]), None

        tables, _ = jax.lax.scan(learn, learner.params, (steps, keys))
        return learner.replace(params=tables), {}  # type: ignore[attr-defined]


def observed(observation: Observation) -> jax.Array:
    """The number of each agent's observation, `(..., n)`, from one-hot views `(..., n, O)`."""
    return jnp.argmax(observation.agents_view, axis=-1)


def rows(table: jax.Array, numbers: jax.Array) -> jax.Array:
    """Each agent's row of its table: `(n, O, ...)` and `(n,)` to `(n, ...)`."""
    return table[jnp.arange(table.shape[0]), numbers]


def stepped(table: jax.Array, step: TabularStep, increments: jax.Array) -> jax.Array:
    """The table `(n, O, A)` with each agent's entry for what it saw and did raised by `increments (n,)`."""
    return table.at[jnp.arange(table.shape[0]), step.observed, step.actions].add(increments)


def tabular_target(table: jax.Array, step: TabularStep, gamma: float) -> jax.Array:
    """Each agent's `r + gamma d max_u table(o', u)` over available actions, `(n,)`."""
    values = mask_unavailable(rows(table, step.next_observed), step.next_action_mask)
    return td_target(step.reward, step.discount, gamma, jnp.max(values, axis=-1))


def tabular_steps(batch: Transition) -> TabularStep:
    """A batch `(B, ...)` of transitions as a batch of steps; a stateless game's observations are repeated."""
    size, n = batch.actions.shape

    def repeated(leaf: jax.Array, rank: int) -> jax.Array:
        return jnp.broadcast_to(leaf, (size, *leaf.shape[leaf.ndim - rank :]))

    def seen(observation: Observation) -> tuple[jax.Array, jax.Array]:
        return repeated(observed(observation), 1), repeated(observation.action_mask, 2)

    reward = jnp.broadcast_to(batch.reward.reshape(size, -1), (size, n))
    return TabularStep(
        *seen(batch.observation), batch.actions, reward, batch.discount, *seen(batch.next_observation)
    )


def table_update(
    q: jax.Array, state: jax.Array, actions: jax.Array, target: jax.Array, learning_rate: float | jax.Array
) -> jax.Array:
    """`q(s,a,b) ← q + α (target - q)`: the table `(S, A, B)` after one step with `actions (2,)`."""
    chex.assert_rank([q, actions], [3, 1])
    cell = (state, actions[0], actions[1])
    return q.at[cell].add(learning_rate * (target - q[cell]))
