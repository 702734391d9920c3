"""Learning rules of two-player games: the `Rule` interface, and rules that learn joint action values."""

import abc
import dataclasses
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp

from baselines.tabular import TabularStep, table_update
from jaxmarl_fac.game import GameSpec
from jaxmarl_fac.settings import Count, NotNegative, Probability, Settings, StepSize, at_least
from jaxmarl_fac.targets import td_target

#: The tables of one player, by name.
Tables = dict[str, jax.Array]


class PlayerSpec(NamedTuple):
    """Facts about one of two players, all static but the last field, which depends on the game's payoffs."""

    first: bool  # whether it picks the row
    states: int  # S, how many different observations it can have
    own: int  # A, its actions
    other: int  # B, the other's
    floor: jax.Array | float = 0.0  # (), the best reward of its worst action; 0 if that is positive

    @classmethod
    def of(cls, game: GameSpec, agent: int) -> "PlayerSpec":
        """Of agent 0 or 1 of a game of two whose views are one-hot."""
        return cls(
            first=agent == 0,
            states=game.view_size,
            own=game.action_counts[agent],
            other=game.action_counts[1 - agent],
            floor=game.best_reward_of_worst_action(agent),
        )


class PlayerStep(NamedTuple):
    """One transition from the perspective of one player; whole numbers but for rewards and discount."""

    state: jax.Array  # (), the number of its observation
    own: jax.Array  # (), its action
    other: jax.Array  # (), the other's action
    rewards: jax.Array  # (2,), its own and the other's
    discount: jax.Array  # (), 0 after a termination, else 1
    next_state: jax.Array  # ()


def player_step(step: TabularStep, agent: int) -> PlayerStep:
    """A transition of two agents from the perspective of agent 0 or 1."""
    order = (agent, 1 - agent)
    return PlayerStep(
        state=step.observed[agent],
        own=step.actions[agent],
        other=step.actions[1 - agent],
        rewards=step.reward[jnp.asarray(order)],
        discount=step.discount,
        next_state=step.next_observed[agent],
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule(Settings, abc.ABC):
    """How one of two players learns and acts, from its own perspective: its own action comes first.

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

    def check(self, player: PlayerSpec) -> None:
        """Refuse a player that the rule cannot represent.

        Raises:
            BadInputError: saying why.
        """

    @abc.abstractmethod
    def init(self, player: PlayerSpec, key: jax.Array) -> Tables:
        """Fresh tables."""

    @abc.abstractmethod
    def policy(self, player: PlayerSpec, tables: Tables, state: jax.Array, time: jax.Array) -> jax.Array:
        """The policy in a state, `(A,)`, before epsilon-mixing."""

    @abc.abstractmethod
    def learn(self, player: PlayerSpec, tables: Tables, step: PlayerStep, time: jax.Array) -> Tables:
        """The tables after one transition."""

    def opponent_model(
        self, player: PlayerSpec, tables: Tables, state: jax.Array, time: jax.Array
    ) -> jax.Array | None:
        """Its model of the other's policy in a state, `(B,)`; None for a rule without a model."""
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


class StageSolution(NamedTuple):
    """A rule's solution of one state's values. `A` own actions, `B` actions of the other player."""

    value: jax.Array  # ()
    policy: jax.Array  # (A,), the player's
    opponent: jax.Array  # (B,), its model of the other's policy


@dataclasses.dataclass(frozen=True, kw_only=True)
class JointValueRule(Rule):
    """Learns joint action values, `q(s,a,b) ← q + α (r + γ V(s') - q)`; a subclass defines V."""

    @abc.abstractmethod
    def stage(self, player: PlayerSpec, tables: Tables, state: jax.Array, time: jax.Array) -> StageSolution:
        """The solution of a state."""

    def init(self, player: PlayerSpec, key: jax.Array) -> Tables:
        """The table `q (S, A, B)`."""
        return {"q": self.fresh_values(key, (player.states, player.own, player.other))}

    def policy(self, player: PlayerSpec, tables: Tables, state: jax.Array, time: jax.Array) -> jax.Array:
        return self.stage(player, tables, state, time).policy

    def opponent_model(
        self, player: PlayerSpec, tables: Tables, state: jax.Array, time: jax.Array
    ) -> jax.Array:
        return self.stage(player, tables, state, time).opponent

    def learn(self, player: PlayerSpec, tables: Tables, step: PlayerStep, time: jax.Array) -> Tables:
        """Update the value of the joint action that was taken."""
        following = self.stage(player, tables, step.next_state, time).value
        target = td_target(step.rewards[0], step.discount, self.gamma, following)
        actions = jnp.stack([step.own, step.other])
        return {**tables, "q": table_update(tables["q"], step.state, actions, target, self.rate(time))}


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmpiricalModelRule(JointValueRule):
    """Remembers, besides its values, the other's last actions.

    Attributes:
        window: how many of the other's last actions in a state it remembers.
    """

    window: Count = 50

    def init(self, player: PlayerSpec, key: jax.Array) -> Tables:
        """The table, and `seen (S, window)`: the other's actions, latest first, -1 where there was none."""
        nothing = jnp.full((player.states, self.window), -1, jnp.int32)
        return {**super().init(player, key), "seen": nothing}

    def learn(self, player: PlayerSpec, tables: Tables, step: PlayerStep, time: jax.Array) -> Tables:
        """Remember the other's action, then learn."""
        seen = jnp.roll(tables["seen"][step.state], 1).at[0].set(step.other.astype(jnp.int32))
        tables = {**tables, "seen": tables["seen"].at[step.state].set(seen)}
        return super().learn(player, tables, step, time)

    def frequencies(self, player: PlayerSpec, tables: Tables, state: jax.Array) -> jax.Array:
        """Shares `(B,)` of the other's last actions in a state; uniform before the first."""
        counts = jnp.sum(jax.nn.one_hot(tables["seen"][state], player.other), axis=0)
        total = jnp.sum(counts)
        return jnp.where(total > 0, counts / jnp.maximum(total, 1), 1 / player.other)
