"""Learners that seat two agents, each of which learns tables by a rule of its own (`rules.py`)."""

import abc
import dataclasses
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp

from baselines.rules import Rule, Seat, experience
from baselines.tabular import COUNTED, TabularStep, observed, tabular_steps
from envs.base import Observation, TeamEnvironment
from envs.errors import BadInputError
from envs.matrix_games import MatrixGame
from envs.team_mdp import TeamMDP
from jaxmarl_fac.algorithm import Algorithm, LearnerState, Metrics, Params, Transition
from jaxmarl_fac.exploration import sample_actions


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
