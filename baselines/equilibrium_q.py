"""Q-learning on equilibria of the stage game: Nash-Q and Friend-or-Foe-Q, for two players."""

import dataclasses

import jax
import jax.numpy as jnp

from baselines.two_player import Experience, JointValueRule, Memory, Rule, Seat, SelfPlay, Stage
from jaxmarl_fac.equilibria import Equilibrium, friend, max_min, nash_equilibrium, nash_q_update


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
        """`equilibria.nash_q_update`."""
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
