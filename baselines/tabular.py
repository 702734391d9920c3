"""Learners that keep a table for each agent: a rule, which is the update, and what all rules share."""

import abc
import dataclasses
from typing import Any, ClassVar, Literal, NamedTuple

import chex
import jax
import jax.numpy as jnp

from baselines.independent import ErrorWeighting, Even
from baselines.parts import EpsilonGreedy, TransitionReplay
from envs.base import Observation
from envs.errors import BadInputError
from jaxmarl_fac.algorithm import Learner, LearnerState, Metrics, Periods, no_memory, periods
from jaxmarl_fac.experience import Clock, Decision, Trajectory, over_batch
from jaxmarl_fac.exploration import epsilon_greedy, sample_actions
from jaxmarl_fac.game import GameSpec, refuse_numbers, refuse_reward_per_agent
from jaxmarl_fac.memory import Memory, Rollout
from jaxmarl_fac.settings import Count, Positive, Probability, Settings, StepSize
from jaxmarl_fac.targets import td_target
from jaxmarl_fac.values import chosen, greedy_actions, mask_unavailable

#: One table or several, each `(n, O, ...)`: agent, number of its observation, and as a rule its action.
Tables = Any


class TabularStep(NamedTuple):
    """One transition with observations as numbers; a batch has a leading axis `(B, ...)` on every leaf."""

    observed: jax.Array  # (n,) int, the number of each agent's observation
    action_mask: jax.Array  # (n, A) bool
    actions: jax.Array  # (n,)
    reward: jax.Array  # (n,), the team's reward n times where there is one
    discount: jax.Array  # (), 0 after a termination, else 1
    next_observed: jax.Array  # (n,) int
    next_action_mask: jax.Array  # (n, A) bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class TabularRule(Settings, abc.ABC):
    """How tables learn from one transition."""

    #: Whether it can play games with a reward per agent.
    general_sum: ClassVar[bool] = False

    @abc.abstractmethod
    def init(self, shape: tuple[int, int, int], value: float | jax.Array) -> Tables:
        """The tables at the start.

        Args:
            shape: `(n, O, A)` of a table of action values.
            value: what every entry of such a table is at the start, `()`.
        """

    @abc.abstractmethod
    def preferences(self, tables: Tables) -> jax.Array:
        """Action preferences `(n, O, A)`: action values, or logits for the softmax."""

    @abc.abstractmethod
    def learn(
        self, tables: Tables, step: TabularStep, rate: float | jax.Array, gamma: float | jax.Array
    ) -> Tables:
        """The tables after one transition.

        Args:
            tables: before it.
            step: the transition, without a batch axis.
            rate: step size, `()`.
            gamma: discount factor.
        """


@dataclasses.dataclass(frozen=True, kw_only=True)
class TabularLearning(Settings):
    """Learns online, once from each transition; transitions of several environments one by one.

    The parameters are the rule's tables.

    Attributes:
        rule: the update, which defines the algorithm.
        step_size: mu, of the tables.
        step_size_schedule: "constant", or "linear" down to 0 at the end of training.
        gamma: discount factor.
        initial_value: initial entry of tables of action values. None is the lower bound on returns of games
            that have one (matrix games, team MDPs); distributed Q-learning, whose values never fall, must
            start below every return.
        acting: "epsilon-greedy", or "softmax": `exp(preference / temperature)`, mixed with epsilon of the
            uniform policy.
        temperature: of the softmax.
        exploration: how agents explore.

    Raises:
        BadInputError: for a softmax that an epsilon of 1 never uses.
    """

    rule: TabularRule
    step_size: StepSize = 0.1
    step_size_schedule: Literal["constant", "linear"] = "constant"
    gamma: Probability = 0.99
    initial_value: float | None = 0.0
    acting: Literal["epsilon-greedy", "softmax"] = "epsilon-greedy"
    temperature: Positive = 1.0
    exploration: EpsilonGreedy = EpsilonGreedy()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.acting == "softmax" and self.exploration.always_random:
            raise BadInputError(
                "acting by softmax with an epsilon of 1 from start to end is uniform play: "
                "set epsilon_start and epsilon_end below 1"
            )

    def check(self, game: GameSpec) -> None:
        """Refuse a game that tables cannot hold.

        Raises:
            BadInputError: for actions that are numbers, views that are not one-hot, a reward per agent that
                the rule does not learn from, or an `initial_value` of None in a game without a lower bound on
                returns.
        """
        refuse_numbers(game)
        if not self.rule.general_sum:
            refuse_reward_per_agent(game)
        if not game.one_hot_views:
            raise BadInputError(
                f"a table cannot hold the observations of {game.name}: take a matrix game or a team MDP, or "
                "an algorithm without -tabular in its id"
            )
        if self.initial_value is None and jax.eval_shape(lambda: game.return_lower_bound(self.gamma)) is None:
            raise BadInputError(
                f"{game.name} has no known lower bound on returns: give an initial_value (often 0) that no "
                "optimal return lies below if values never fall"
            )

    def bind(self, game: GameSpec, num_envs: int = 1) -> Learner:
        """See `Algorithm.bind`."""
        self.check(game)
        shape = game.num_agents, game.view_size, game.num_actions

        def preferences(tables: Tables, observation: Observation) -> jax.Array:
            """Of the agents at an observation, `(n, A)`, with unavailable actions masked."""
            values = rows(self.rule.preferences(tables), observation_numbers(observation))
            return mask_unavailable(values, observation.action_mask)

        def init(key: jax.Array) -> LearnerState:
            value: float | jax.Array | None = self.initial_value
            if value is None:
                value = jnp.asarray(game.return_lower_bound(self.gamma), float)
            return LearnerState(params=self.rule.init(shape, value), target_params=(), opt_state=())

        def act(
            params: Tables, carry: Any, observation: Observation, clock: Clock, key: jax.Array
        ) -> Decision:
            values, mask = preferences(params, observation), observation.action_mask
            epsilon = self.exploration.epsilon(clock)
            if self.acting == "epsilon-greedy":
                return Decision(epsilon_greedy(key, values, mask, epsilon))
            uniform = mask / jnp.sum(mask, axis=-1, keepdims=True)
            policy = (1 - epsilon) * jax.nn.softmax(values / self.temperature) + epsilon * uniform
            return Decision(sample_actions(key, policy))

        def act_greedily(params: Tables, carry: Any, observation: Observation, key: jax.Array) -> Decision:
            return Decision(greedy_actions(preferences(params, observation)))

        def update(
            state: LearnerState, batch: Trajectory, clock: Clock, key: jax.Array
        ) -> tuple[LearnerState, Metrics]:
            falling = self.step_size_schedule == "linear"
            rate = self.step_size * (1 - clock.progress if falling else jnp.ones(()))

            def learn(tables: Tables, step: TabularStep) -> tuple[Tables, None]:
                return self.rule.learn(tables, step, rate, self.gamma), None

            tables, _ = jax.lax.scan(learn, state.params, tabular_steps(batch))
            return state.replace(params=tables), {}  # type: ignore[attr-defined]

        memory, when = self.memory(game, num_envs)
        return Learner(memory, when, init, no_memory, act, act_greedily, update)

    def memory(self, game: GameSpec, num_envs: int) -> tuple[Memory, Periods]:
        """What the learner is fed from, and when it learns: after every step, from the transition taken."""
        memory = Rollout()
        return memory, periods(memory, game, num_envs)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampledReplay(TransitionReplay):
    """Uniform replay from which several transitions are sampled after every few steps.

    The defaults of the two periods sample as many transitions as are taken, as learning online does.

    Attributes:
        batch_size: I, transitions sampled, with replacement, and learned from one after the other.
        update_period: T, steps of each environment between samplings.
    """

    update_period: Count = 32  # type: ignore[misc]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TabularReplayLearning(TabularLearning):
    """Learns from replay: after every T steps, I times from one of the transitions that are kept.

    So does Logical Team Q-learning in its authors' slide, which gives neither number; their code for tables
    learns online.

    Attributes:
        replay: what is kept of experience.
    """

    replay: SampledReplay = SampledReplay()

    def memory(self, game: GameSpec, num_envs: int) -> tuple[Memory, Periods]:
        """See `TabularLearning.memory`; learning begins when `learning_starts` steps were taken."""
        memory = self.replay.memory()
        return memory, periods(
            memory,
            game,
            num_envs,
            learning_starts=self.replay.learning_starts,
            update_period=self.replay.update_period,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TabularIndependent(TabularRule):
    """Independent learners: `Q_i(o, u) += w step_size (r + gamma max Q_i(o', .) - Q_i(o, u))`.

    The weight w is by `weighting`. With `OptimisticWeighting`, a `step_size` of 1 is distributed Q-learning
    as published: the maximum over all that was seen. In a game with a reward per agent, r is the agent's own.

    Attributes:
        weighting: how much agents learn from an error, by its sign.
    """

    weighting: ErrorWeighting = Even()

    general_sum: ClassVar[bool] = True

    def init(self, shape: tuple[int, int, int], value: float | jax.Array) -> jax.Array:
        return jnp.full(shape, value)

    def preferences(self, tables: jax.Array) -> jax.Array:
        return tables

    def learn(
        self, tables: jax.Array, step: TabularStep, rate: float | jax.Array, gamma: float | jax.Array
    ) -> jax.Array:
        y = tabular_target(tables, step, gamma)
        errors = y - chosen(rows(tables, step.observed), step.actions)
        return add_at_taken(tables, step, rate * self.weighting.weights(errors) * errors)


def observation_numbers(observation: Observation) -> jax.Array:
    """The number of each agent's observation, `(..., n)`, from one-hot views `(..., n, O)`."""
    return jnp.argmax(observation.agents_view, axis=-1)


def rows(table: jax.Array, numbers: jax.Array) -> jax.Array:
    """Each agent's row of its table: `(n, O, ...)` and `(n,)` to `(n, ...)`."""
    return table[jnp.arange(table.shape[0]), numbers]


def add_at_taken(table: jax.Array, step: TabularStep, increments: jax.Array) -> jax.Array:
    """The table `(n, O, A)` with `increments (n,)` added at each agent's observation and action."""
    return table.at[jnp.arange(table.shape[0]), step.observed, step.actions].add(increments)


def tabular_target(table: jax.Array, step: TabularStep, gamma: float | jax.Array) -> jax.Array:
    """Each agent's `r + gamma d max_u table(o', u)` over available actions, `(n,)`."""
    values = mask_unavailable(rows(table, step.next_observed), step.next_action_mask)
    return td_target(step.reward, step.discount, gamma, jnp.max(values, axis=-1))


def tabular_steps(batch: Trajectory) -> TabularStep:
    """A batch `(B, ...)` of transitions as a batch of steps `(B, ...)`."""

    def step(transition: Trajectory) -> TabularStep:
        actions = transition.actions
        chex.assert_shape(actions, (1, None))
        numbers, mask = observation_numbers(transition.observation), transition.observation.action_mask
        return TabularStep(
            observed=numbers[0],
            action_mask=mask[0],
            actions=actions[0],
            reward=jnp.broadcast_to(transition.reward[0], actions.shape[1:]),
            discount=transition.discount[0],
            next_observed=numbers[1],
            next_action_mask=mask[1],
        )

    steps: TabularStep = over_batch(step, batch)
    return steps


def table_update(
    q: jax.Array, state: jax.Array, actions: jax.Array, target: jax.Array, learning_rate: float | jax.Array
) -> jax.Array:
    """`q(s,a,b) ← q + α (target - q)`: the table `(S, A, B)` after one step with `actions (2,)`."""
    chex.assert_rank([q, actions], [3, 1])
    cell = (state, actions[0], actions[1])
    return q.at[cell].add(learning_rate * (target - q[cell]))
