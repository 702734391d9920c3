"""Rules by which one of two agents learns its tables, and what they are given: seats, experience, values."""

import abc
import dataclasses
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp

from baselines.tabular import TabularStep, table_update
from jaxmarl_fac.settings import Count, NotNegative, Probability, Settings, StepSize, at_least
from jaxmarl_fac.targets import td_target

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
