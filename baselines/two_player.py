"""Two agents, each of which learns tables by a rule of its own: what a rule is, and who seats two of them."""

import abc
import dataclasses
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp

from baselines.tabular import COUNTED, TabularStep, observed, tabular_steps
from envs.base import Observation, TeamEnvironment
from envs.errors import BadInputError
from envs.matrix_games import MatrixGame
from envs.team_mdp import TeamMDP
from jaxmarl_fac.algorithm import Algorithm, LearnerState, Metrics, Params, Transition
from jaxmarl_fac.equilibria import table_update
from jaxmarl_fac.exploration import sample_actions
from jaxmarl_fac.losses import td_target
from jaxmarl_fac.settings import Count, NotNegative, Probability, Settings, StepSize, at_least

#: The tables of one agent, by name.
Memory = dict[str, jax.Array]


class Seat(NamedTuple):
    """Where an agent sits, all of it static but the last field, a fact of the game's payoffs."""

    first: bool  # whether it picks the row
    states: int  # S, how many different observations it can have
    own: int  # A, its actions
    other: int  # B, the other's
    floor: jax.Array | float = 0.0  # (), the best reward of its worst action; 0 if that is positive


class Experience(NamedTuple):
    """One transition as one of the two agents sees it, in whole numbers but for rewards and discount."""

    state: jax.Array  # (), the number of its observation
    own: jax.Array  # (), its action
    other: jax.Array  # (), the other's action
    rewards: jax.Array  # (2,), its own and the other's
    discount: jax.Array  # (), 0 after a termination, else 1
    next_state: jax.Array  # ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule(Settings, abc.ABC):
    """How one of two agents learns and plays, seen from its own side: its own action comes first.

    `time ()` counts the learner's updates so far.

    Attributes:
        learning_rate: α, the step size at time 0.
        rate_half_life: c of `α c / (c + time)`; 0 keeps α.
        gamma: discount factor.
        epsilon: the share of uniform play mixed into its policy while it learns.
        initial_spread: tables of action values start uniform in [0, this).
    """

    learning_rate: StepSize = 0.1
    rate_half_life: Annotated[float, at_least(0, "0 (never) or above")] = 0.0
    gamma: Probability = 0.99
    epsilon: Probability = 0.0
    initial_spread: NotNegative = 0.0

    def check(self, seat: Seat) -> None:
        """Refuse a seat that the rule cannot take.

        Raises:
            BadInputError: saying why.
        """

    @abc.abstractmethod
    def init(self, seat: Seat, key: jax.Array) -> Memory:
        """Fresh tables."""

    @abc.abstractmethod
    def policy(self, seat: Seat, memory: Memory, state: jax.Array, time: jax.Array) -> jax.Array:
        """What it plays in a state, `(A,)`, epsilon apart."""

    @abc.abstractmethod
    def learn(self, seat: Seat, memory: Memory, experience: Experience, time: jax.Array) -> Memory:
        """The tables after one experience."""

    def opponent_model(
        self, seat: Seat, memory: Memory, state: jax.Array, time: jax.Array
    ) -> jax.Array | None:
        """What it expects of the other in a state, `(B,)`; None if it has no opinion."""
        return None

    def rate(self, time: jax.Array) -> jax.Array:
        """The step size `()` at a time."""
        return self.learning_rate * half_life_decay(time, self.rate_half_life)

    def fresh_values(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """A table of action values at the start."""
        if not self.initial_spread:
            return jnp.zeros(shape)
        return jax.random.uniform(key, shape, maxval=self.initial_spread)


def half_life_decay(time: jax.Array, half_life: float) -> jax.Array:
    """`c / (c + time)`, `()`; 1 where c = 0."""
    return 1 / (1 + time / half_life) if half_life else jnp.ones(())


class Stage(NamedTuple):
    """What an agent makes of one state. `A` own actions, `B` actions of the other agent."""

    value: jax.Array  # ()
    policy: jax.Array  # (A,), what it plays
    opponent: jax.Array  # (B,), what it expects of the other


@dataclasses.dataclass(frozen=True, kw_only=True)
class JointValueRule(Rule):
    """Learns joint action values, `q(s,a,b) ← q + α (r + γ V(s') - q)`; a subclass says what V is."""

    @abc.abstractmethod
    def stage(self, seat: Seat, memory: Memory, state: jax.Array, time: jax.Array) -> Stage:
        """What it makes of a state."""

    def init(self, seat: Seat, key: jax.Array) -> Memory:
        """The table `q (S, A, B)`."""
        return {"q": self.fresh_values(key, (seat.states, seat.own, seat.other))}

    def policy(self, seat: Seat, memory: Memory, state: jax.Array, time: jax.Array) -> jax.Array:
        """The stage's policy, `(A,)`."""
        return self.stage(seat, memory, state, time).policy

    def opponent_model(self, seat: Seat, memory: Memory, state: jax.Array, time: jax.Array) -> jax.Array:
        """The stage's opponent, `(B,)`."""
        return self.stage(seat, memory, state, time).opponent

    def learn(self, seat: Seat, memory: Memory, experience: Experience, time: jax.Array) -> Memory:
        """Move the value of the joint action that was played."""
        following = self.stage(seat, memory, experience.next_state, time).value
        target = td_target(experience.rewards[0], experience.discount, self.gamma, following)
        actions = jnp.stack([experience.own, experience.other])
        return {**memory, "q": table_update(memory["q"], experience.state, actions, target, self.rate(time))}


@dataclasses.dataclass(frozen=True, kw_only=True)
class WatchingRule(JointValueRule):
    """Remembers, besides its values, what the other played of late.

    Attributes:
        window: how many of the other's last actions in a state it remembers.
    """

    window: Count = 50

    def init(self, seat: Seat, key: jax.Array) -> Memory:
        """The table, and `seen (S, window)`: the other's actions, latest first, -1 where there was none."""
        nothing = jnp.full((seat.states, self.window), -1, jnp.int32)
        return {**super().init(seat, key), "seen": nothing}

    def learn(self, seat: Seat, memory: Memory, experience: Experience, time: jax.Array) -> Memory:
        """Remember what the other played, then learn."""
        seen = jnp.roll(memory["seen"][experience.state], 1).at[0].set(experience.other.astype(jnp.int32))
        memory = {**memory, "seen": memory["seen"].at[experience.state].set(seen)}
        return super().learn(seat, memory, experience, time)

    def frequencies(self, seat: Seat, memory: Memory, state: jax.Array) -> jax.Array:
        """How often the other played each action of late, `(B,)`; uniform before it played any."""
        counts = jnp.sum(jax.nn.one_hot(memory["seen"][state], seat.other), axis=0)
        total = jnp.sum(counts)
        return jnp.where(total > 0, counts / jnp.maximum(total, 1), 1 / seat.other)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TwoPlayerLearner(Algorithm):
    """Seats two rules at a two-player game; each knows only what its agent sees, does and is paid.

    Its parameters are the rules' tables, `{"row", "column", "time"}`. The metrics `row_reward` and
    `column_reward` are the mean rewards of the transitions just made, exploration included; `act_greedily`
    plays the likeliest actions, which say little of a mixed policy (see `joint_policy`).

    Attributes:
        learn_from: of the transitions that several environments make at a time: "all", one after the
            other, or the "first" alone, so that the others are roll-outs that only measure.
    """

    learn_from: Literal["all", "first"] = "all"

    consumes: ClassVar[Literal["transitions", "episodes", "latest"]] = "latest"
    general_sum: ClassVar[bool] = True

    @property
    @abc.abstractmethod
    def rules(self) -> tuple[Rule, Rule]:
        """Of the first and of the second agent."""

    def sides(self, env: Any) -> tuple[tuple[str, Rule, Seat], ...]:
        """For each of the two agents its name among the parameters, its rule and its seat."""
        states = env.observation_spec.agents_view.shape[-1]
        rows, columns = env.action_counts
        row = Seat(True, states, rows, columns, worst_best_reward(env, 0))
        column = Seat(False, states, columns, rows, worst_best_reward(env, 1))
        return ("row", self.rules[0], row), ("column", self.rules[1], column)

    def check(self, env: TeamEnvironment) -> None:
        """Two players, discrete actions, observations that can be counted.

        Raises:
            BadInputError: for another game, or settings that do not fit it.
        """
        super().check(env)
        if env.num_agents != 2:
            raise BadInputError(
                f"{type(self).__name__} is for two players, and this {type(env).__name__} has "
                f"{env.num_agents} agents: take a game of two"
            )
        if not isinstance(env, COUNTED):
            raise BadInputError(
                f"a table cannot hold the observations of {type(env).__name__}: "
                "take a matrix game or a team MDP"
            )
        for _, rule, seat in self.sides(env):
            rule.check(seat)

    def init(self, env: TeamEnvironment, key: jax.Array) -> LearnerState:
        """Fresh tables."""
        keys = jax.random.split(key)
        tables: Params = {
            name: rule.init(seat, keys[index]) for index, (name, rule, seat) in enumerate(self.sides(env))
        }
        tables["time"] = jnp.zeros((), jnp.int32)
        return LearnerState(params=tables, target_params=(), opt_state=())

    def policies(self, env: TeamEnvironment, params: Params, observation: Observation) -> list[jax.Array]:
        """Both agents' policies now, `(A,)` and `(B,)`, without exploration."""
        states = observed(observation)
        return [
            rule.policy(seat, params[name], states[index], params["time"])
            for index, (name, rule, seat) in enumerate(self.sides(env))
        ]

    def act(
        self,
        env: TeamEnvironment,
        params: Params,
        carry: Any,
        observation: Observation,
        epsilon: jax.Array,
        key: jax.Array,
    ) -> tuple[jax.Array, Any]:
        """Actions `(2,)`, each drawn from its agent's policy, mixed with the rule's own epsilon."""
        keys, draws = jax.random.split(key), []
        for index, (rule, policy) in enumerate(
            zip(self.rules, self.policies(env, params, observation), strict=True)
        ):
            chances = (1 - rule.epsilon) * policy + rule.epsilon / policy.size
            draws.append(sample_actions(keys[index], chances))
        return jnp.stack(draws), carry

    def act_greedily(
        self, env: TeamEnvironment, params: Params, carry: Any, observation: Observation
    ) -> tuple[jax.Array, Any]:
        """Each agent's likeliest action `(2,)`, ties to the lowest index."""
        return jnp.stack([jnp.argmax(policy) for policy in self.policies(env, params, observation)]), carry

    def update(
        self,
        env: TeamEnvironment,
        learner: LearnerState,
        batch: Transition,
        progress: jax.Array,
        key: jax.Array,
    ) -> tuple[LearnerState, Metrics]:
        """Both agents learn from the transitions just made."""
        steps, time, sides = tabular_steps(batch), learner.params["time"], self.sides(env)

        def learn(tables: Params, step: TabularStep) -> tuple[Params, None]:
            learned = {
                name: rule.learn(seat, tables[name], experience(step, index), time)
                for index, (name, rule, seat) in enumerate(sides)
            }
            return {**tables, **learned}, None

        lessons = jax.tree.map(lambda leaf: leaf[:1], steps) if self.learn_from == "first" else steps
        tables, _ = jax.lax.scan(learn, learner.params, lessons)
        row_reward, column_reward = jnp.mean(steps.reward, axis=0)
        metrics = {"row_reward": row_reward, "column_reward": column_reward}
        return learner.replace(params={**tables, "time": time + 1}), metrics  # type: ignore[attr-defined]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SelfPlay(TwoPlayerLearner):
    """One rule on both sides; each agent has its own tables. A subclass says which rule.

    Attributes:
        rule: of both agents.
    """

    rule: Rule

    @property
    def rules(self) -> tuple[Rule, Rule]:
        """The same twice."""
        return self.rule, self.rule


@dataclasses.dataclass(frozen=True, kw_only=True)
class Match(TwoPlayerLearner):
    """Any rule against any other.

    Attributes:
        row: rule of the first agent.
        column: rule of the second agent.
    """

    row: Rule
    column: Rule

    @property
    def rules(self) -> tuple[Rule, Rule]:
        """Row and column."""
        return self.row, self.column


def worst_best_reward(env: MatrixGame | TeamMDP, index: int) -> jax.Array:
    """The best reward `()` of the worst action of agent `index` in any state, without noise; at most 0."""
    if isinstance(env, TeamMDP):
        never_paid = jnp.asarray(env.terminal)[..., None, None]
        rewards = jnp.where(never_paid, jnp.inf, jnp.asarray(env.reward, jnp.float32))
    else:
        rewards = env.payoff[..., index] if env.general_sum else env.payoff  # (..., S, A_1, A_2)
    return jnp.minimum(jnp.min(jnp.max(rewards, axis=-1 - index)), 0)


def experience(step: TabularStep, index: int) -> Experience:
    """A step as agent `index` sees it."""
    order = (index, 1 - index)
    return Experience(
        state=step.observed[index],
        own=step.actions[index],
        other=step.actions[1 - index],
        rewards=step.reward[jnp.asarray(order)],
        discount=step.discount,
        next_state=step.next_observed[index],
    )


def joint_policy(algorithm: TwoPlayerLearner, env: TeamEnvironment, params: Params) -> Metrics:
    """A probe: both policies in every state, `row_policy (S, A)` and `column_policy (S, B)`, without epsilon.

    And what each expects of the other, `row_model (S, B)` and `column_model (S, A)`, where its rule has an
    opinion.
    """
    found: Metrics = {}
    time = params["time"]
    for name, rule, seat in algorithm.sides(env):
        for kind, look in (("policy", rule.policy), ("model", rule.opponent_model)):
            opinions = [look(seat, params[name], jnp.asarray(state), time) for state in range(seat.states)]
            if opinions[0] is not None:
                found[f"{name}_{kind}"] = jnp.stack(opinions)  # type: ignore[arg-type]
    return found
