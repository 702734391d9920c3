"""Q-learning on equilibria of the stage game: Nash-Q and Friend-or-Foe-Q, for two players."""

import dataclasses

import chex
import jax
import jax.numpy as jnp

from baselines.rules import Experience, JointValueRule, Memory, Rule, Seat, Stage
from baselines.tabular import table_update
from baselines.two_player import SelfPlay
from jaxmarl_fac.exact.equilibria import Equilibrium, friend, max_min, nash_equilibrium
from jaxmarl_fac.targets import td_target


@dataclasses.dataclass(frozen=True, kw_only=True)
class NashRule(Rule):
    """Nash-Q: keeps the values of both agents and plays its part of an equilibrium of the stage game.

    Both agents' tables are laid out alike, row action first, so that both find the same equilibrium by
    the rule of `equilibria.nash_equilibrium`. By default it plays at random while it learns, since only
    what is tried is learned (Hu and Wellman, 2003).
    """

    epsilon: float = 1.0

    def check(self, seat: Seat) -> None:
        """Equilibria are found by enumeration.

        Raises:
            BadInputError: for a game with too many actions.
        """
        jax.eval_shape(nash_equilibrium, jnp.zeros((2, *_shape(seat))))

    def init(self, seat: Seat, key: jax.Array) -> Memory:
        """The tables `q (2, S, A_1, A_2)` of the first and the second agent."""
        return {"q": self.fresh_values(key, (2, seat.states, *_shape(seat)))}

    def policy(self, seat: Seat, memory: Memory, state: jax.Array, time: jax.Array) -> jax.Array:
        """Its part of the equilibrium, `(A,)`."""
        found = self._equilibrium(memory, state)
        return found.row if seat.first else found.column

    def opponent_model(self, seat: Seat, memory: Memory, state: jax.Array, time: jax.Array) -> jax.Array:
        """The other part, `(B,)`."""
        found = self._equilibrium(memory, state)
        return found.column if seat.first else found.row

    def learn(self, seat: Seat, memory: Memory, experience: Experience, time: jax.Array) -> Memory:
        """`nash_q_update`."""
        pair = jnp.stack([experience.own, experience.other])
        actions, rewards = (
            (pair, experience.rewards) if seat.first else (pair[::-1], experience.rewards[::-1])
        )
        step = experience.state, actions, rewards, experience.next_state, experience.discount
        return {"q": nash_q_update(memory["q"], *step, self.gamma, self.rate(time))}

    def _equilibrium(self, memory: Memory, state: jax.Array) -> Equilibrium:
        return nash_equilibrium(memory["q"][:, state])


@dataclasses.dataclass(frozen=True, kw_only=True)
class FriendRule(JointValueRule):
    """Friend-Q: the other picks what is best for the agent (Littman, 2001). Plays at random while learning.

    Ties go to the lowest action of the first agent, then of the second, on both sides.
    """

    epsilon: float = 1.0

    def stage(self, seat: Seat, memory: Memory, state: jax.Array, time: jax.Array) -> Stage:
        """The best joint action."""
        q = memory["q"][state]
        value, joint = friend(q if seat.first else q.T)
        own, other = joint if seat.first else joint[::-1]
        return Stage(value, jax.nn.one_hot(own, seat.own), jax.nn.one_hot(other, seat.other))


@dataclasses.dataclass(frozen=True, kw_only=True)
class FoeRule(JointValueRule):
    """Foe-Q, or minimax-Q: the other picks what is worst for the agent (Littman, 1994, 2001).

    Plays at random while it learns.
    """

    epsilon: float = 1.0

    def check(self, seat: Seat) -> None:
        """The linear program is solved by enumeration.

        Raises:
            BadInputError: for a game with too many actions.
        """
        jax.eval_shape(max_min, jnp.zeros((seat.own, seat.other)))
        jax.eval_shape(max_min, jnp.zeros((seat.other, seat.own)))

    def stage(self, seat: Seat, memory: Memory, state: jax.Array, time: jax.Array) -> Stage:
        """Both sides of the zero-sum game."""
        q = memory["q"][state]
        value, policy = max_min(q)
        return Stage(value, policy, max_min(-q.T)[1])


def _shape(seat: Seat) -> tuple[int, int]:
    """Actions of the first and of the second agent."""
    return (seat.own, seat.other) if seat.first else (seat.other, seat.own)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NashQ(SelfPlay):
    """Nash-Q on both sides (Hu and Wellman, 2003)."""

    rule: NashRule = NashRule()


@dataclasses.dataclass(frozen=True, kw_only=True)
class FriendQ(SelfPlay):
    """Friend-Q on both sides (Littman, 2001)."""

    rule: FriendRule = FriendRule()


@dataclasses.dataclass(frozen=True, kw_only=True)
class FoeQ(SelfPlay):
    """Foe-Q on both sides, which is minimax-Q (Littman, 2001)."""

    rule: FoeRule = FoeRule()


def nash_q_update(
    q: jax.Array,
    state: jax.Array,
    actions: jax.Array,
    rewards: jax.Array,
    next_state: jax.Array,
    discount: jax.Array,
    gamma: float | jax.Array,
    learning_rate: float | jax.Array,
) -> jax.Array:
    """Nash-Q: `Q^i(s,a,b) ← (1-α) Q^i + α (r^i + γ Nash^i(s'))` for both players (Hu and Wellman, 2003).

    Nash^i is player i's payoff in the equilibrium that `nash_equilibrium` selects in the game
    (Q^1, Q^2)(s').

    Args:
        q: `(2, S, A, B)`.
        state: `()`.
        actions: `(2,)`.
        rewards: `(2,)`.
        next_state: `()`.
        discount: `()`, 0 after a termination, else 1.
        gamma: discount factor.
        learning_rate: α.
    """
    chex.assert_rank(q, 4)
    following = nash_equilibrium(q[:, next_state]).values
    targets = td_target(rewards, discount, gamma, following)
    return jax.vmap(table_update, (0, None, None, 0, None))(q, state, actions, targets, learning_rate)


def friend_or_foe_q_update(
    q: jax.Array,
    state: jax.Array,
    actions: jax.Array,
    reward: jax.Array,
    next_state: jax.Array,
    discount: jax.Array,
    gamma: float | jax.Array,
    learning_rate: float | jax.Array,
    foe: bool,
) -> jax.Array:
    """Friend-or-Foe-Q for one player: as Nash-Q, with the value of `friend` or `max_min` (Littman, 2001).

    Args:
        q: `(S, A, B)` with the learning player's own action first.
        state: `()`.
        actions: `(2,)`, its own action first.
        reward: `()`, its own.
        next_state: `()`.
        discount: `()`, 0 after a termination, else 1.
        gamma: discount factor.
        learning_rate: α.
        foe: whether the other minimises (static).
    """
    following, _ = (max_min if foe else friend)(q[next_state])
    target = td_target(reward, discount, gamma, following)
    return table_update(q, state, actions, target, learning_rate)
