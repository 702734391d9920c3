"""Q-learning on equilibria of the stage game: Nash-Q and Friend-or-Foe-Q, for two players."""

import dataclasses

import chex
import jax
import jax.numpy as jnp

from baselines.rules import JointValueRule, PlayerSpec, PlayerStep, Rule, StageSolution, Tables
from baselines.tabular import table_update
from jaxmarl_fac.exact.equilibria import Equilibrium, friend, max_min, nash_equilibrium
from jaxmarl_fac.targets import td_target


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class NashRule(Rule):
    """Nash-Q: keeps the values of both agents and plays its part of an equilibrium of the stage game.

    Both agents' tables are laid out alike, row action first, so that both find the same equilibrium by
    the rule of `exact.equilibria.nash_equilibrium`. By default it plays at random while it learns, since only
    what is tried is learned (Hu and Wellman, 2003).
    """

    epsilon: float = 1.0

    def check(self, player: PlayerSpec) -> None:
        """Equilibria are found by enumeration.

        Raises:
            BadInputError: for a game with too many actions.
        """
        jax.eval_shape(nash_equilibrium, jnp.zeros((2, *_shape(player))))

    def init(self, player: PlayerSpec, key: jax.Array) -> Tables:
        """The tables `q (2, S, A_1, A_2)` of the first and the second agent."""
        return {"q": self.fresh_values(key, (2, player.states, *_shape(player)))}

    def policy(self, player: PlayerSpec, tables: Tables, state: jax.Array, time: jax.Array) -> jax.Array:
        found = self._equilibrium(tables, state)
        return found.row if player.first else found.column

    def opponent_model(
        self, player: PlayerSpec, tables: Tables, state: jax.Array, time: jax.Array
    ) -> jax.Array:
        found = self._equilibrium(tables, state)
        return found.column if player.first else found.row

    def learn(self, player: PlayerSpec, tables: Tables, step: PlayerStep, time: jax.Array) -> Tables:
        """See `nash_q_update`."""
        pair = jnp.stack([step.own, step.other])
        actions, rewards = (pair, step.rewards) if player.first else (pair[::-1], step.rewards[::-1])
        transition = step.state, actions, rewards, step.next_state, step.discount
        return {"q": nash_q_update(tables["q"], *transition, self.gamma, self.rate(time))}

    def _equilibrium(self, tables: Tables, state: jax.Array) -> Equilibrium:
        return nash_equilibrium(tables["q"][:, state])


@dataclasses.dataclass(frozen=True, kw_only=True)
class FriendRule(JointValueRule):
    """Friend-Q: the other picks what is best for the agent (Littman, 2001). Plays at random while learning.

    Ties go to the lowest action of the first agent, then of the second, on both sides.
    """

    epsilon: float = 1.0

    def stage(self, player: PlayerSpec, tables: Tables, state: jax.Array, time: jax.Array) -> StageSolution:
        """The best joint action."""
        q = tables["q"][state]
        value, joint = friend(q if player.first else q.T)
        own, other = joint if player.first else joint[::-1]
        return StageSolution(value, jax.nn.one_hot(own, player.own), jax.nn.one_hot(other, player.other))


@dataclasses.dataclass(frozen=True, kw_only=True)
class FoeRule(JointValueRule):
    """Foe-Q, or minimax-Q: the other picks what is worst for the agent (Littman, 1994, 2001).

    Plays at random while it learns.
    """

    epsilon: float = 1.0

    def check(self, player: PlayerSpec) -> None:
        """The linear program is solved by enumeration.

        Raises:
            BadInputError: for a game with too many actions.
        """
        jax.eval_shape(max_min, jnp.zeros((player.own, player.other)))
        jax.eval_shape(max_min, jnp.zeros((player.other, player.own)))

    def stage(self, player: PlayerSpec, tables: Tables, state: jax.Array, time: jax.Array) -> StageSolution:
        """Both sides of the zero-sum game."""
        q = tables["q"][state]
        value, policy = max_min(q)
        return StageSolution(value, policy, max_min(-q.T)[1])


def _shape(player: PlayerSpec) -> tuple[int, int]:
    """Actions of the first and of the second agent."""
    return (player.own, player.other) if player.first else (player.other, player.own)
