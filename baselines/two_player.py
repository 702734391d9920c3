"""Two-player tabular learning: the learner that runs one rule per player."""

import abc
import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp

from baselines.rules import PlayerSpec, Rule, player_step
from baselines.tabular import TabularStep, observation_numbers, tabular_steps
from envs.base import Observation
from envs.errors import BadInputError
from jaxmarl_fac.algorithm import Learner, LearnerState, Metrics, Params, no_memory, periods
from jaxmarl_fac.experience import Clock, Decision, Trajectory
from jaxmarl_fac.exploration import sample_actions
from jaxmarl_fac.game import GameSpec, refuse_numbers
from jaxmarl_fac.memory import Rollout
from jaxmarl_fac.settings import Settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class TwoPlayerLearning(Settings, abc.ABC):
    """Two players, each learning by a rule from its own observations, actions and rewards, and the other's.

    The parameters are the rules' tables, `{"row", "column", "time"}`. The metrics `row_reward` and
    `column_reward` are the mean rewards of the transitions just made, exploration included; greedy play takes
    the likeliest actions, which say little of a mixed policy (see `probes.joint_policy`).

    Attributes:
        learn_from: of the transitions that several environments make at a time: "all", one after the
            other, or the "first" alone, so that the others are roll-outs that only measure.
    """

    learn_from: Literal["all", "first"] = "all"

    @property
    @abc.abstractmethod
    def rules(self) -> tuple[Rule, Rule]:
        """Of the first and of the second player."""

    def sides(self, game: GameSpec) -> tuple[tuple[str, Rule, PlayerSpec], ...]:
        """For each of the two players its name among the parameters, its rule and the facts about it.

        Raises:
            BadInputError: for a game that is not for two, has actions that are numbers or views that tables
                cannot hold, or settings of a rule that do not fit it.
        """
        refuse_numbers(game)
        if game.num_agents != 2:
            raise BadInputError(
                f"the algorithm is for two players, and this {game.name} has {game.agents}: take a game of "
                "two"
            )
        if not game.one_hot_views:
            raise BadInputError(
                f"a table cannot hold the observations of {game.name}: take a matrix game or a team MDP"
            )
        (row, column), (first, second) = self.rules, (PlayerSpec.of(game, agent) for agent in range(2))
        row.check(first)
        column.check(second)
        return ("row", row, first), ("column", column, second)

    def bind(self, game: GameSpec, num_envs: int = 1) -> Learner:
        """See `Algorithm.bind`."""
        memory, sides = Rollout(), self.sides(game)

        def policies(params: Params, observation: Observation) -> list[jax.Array]:
            """Both players' policies `(A,)` and `(B,)` at an observation, without exploration."""
            states = observation_numbers(observation)
            return [
                rule.policy(player, params[name], states[agent], params["time"])
                for agent, (name, rule, player) in enumerate(sides)
            ]

        def init(key: jax.Array) -> LearnerState:
            keys = jax.random.split(key)
            tables: Params = {
                name: rule.init(player, keys[agent]) for agent, (name, rule, player) in enumerate(sides)
            }
            tables["time"] = jnp.zeros((), jnp.int32)
            return LearnerState(params=tables, target_params=(), opt_state=())

        def act(
            params: Params, carry: Any, observation: Observation, clock: Clock, key: jax.Array
        ) -> Decision:
            """Each player's action is drawn from its policy, mixed with its rule's own epsilon."""
            keys, draws = jax.random.split(key), []
            pairs = zip(self.rules, policies(params, observation), strict=True)
            for agent, (rule, policy) in enumerate(pairs):
                mixed = (1 - rule.epsilon) * policy + rule.epsilon / policy.size
                draws.append(sample_actions(keys[agent], mixed))
            return Decision(jnp.stack(draws))

        def act_greedily(params: Params, carry: Any, observation: Observation, key: jax.Array) -> Decision:
            """Each player's likeliest action, ties to the lowest index."""
            return Decision(jnp.stack([jnp.argmax(policy) for policy in policies(params, observation)]))

        def update(
            state: LearnerState, batch: Trajectory, clock: Clock, key: jax.Array
        ) -> tuple[LearnerState, Metrics]:
            steps, time = tabular_steps(batch), state.params["time"]

            def learn(tables: Params, step: TabularStep) -> tuple[Params, None]:
                learned = {
                    name: rule.learn(player, tables[name], player_step(step, agent), time)
                    for agent, (name, rule, player) in enumerate(sides)
                }
                return {**tables, **learned}, None

            used = jax.tree.map(lambda leaf: leaf[:1], steps) if self.learn_from == "first" else steps
            tables, _ = jax.lax.scan(learn, state.params, used)
            row_reward, column_reward = jnp.mean(steps.reward, axis=0)
            metrics = {"row_reward": row_reward, "column_reward": column_reward}
            return state.replace(params={**tables, "time": time + 1}), metrics  # type: ignore[attr-defined]

        when = periods(memory, game, num_envs)
        return Learner(memory, when, init, no_memory, act, act_greedily, update)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SelfPlay(TwoPlayerLearning):
    """One rule on both sides; each player has its own tables.

    Attributes:
        rule: of both players.
    """

    rule: Rule

    @property
    def rules(self) -> tuple[Rule, Rule]:
        return self.rule, self.rule


@dataclasses.dataclass(frozen=True, kw_only=True)
class Match(TwoPlayerLearning):
    """Any rule against any other.

    Settings that both rules have are no flags: give a whole rule instead, as in `replaced(match, row=...)`.

    Attributes:
        row: rule of the first player.
        column: rule of the second player.
    """

    row: Rule
    column: Rule

    @property
    def rules(self) -> tuple[Rule, Rule]:
        return self.row, self.column
