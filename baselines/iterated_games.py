"""Baselines for iterated games: joint-action learner, WoLF-PHC, FMQ.

Their defaults are those with which ROMMEO's authors ran them: nearly whole steps, one action in ten
random, values that start uniform in [0, 1) (their library, malib). The rules are the original papers'.
The library departs from them: there FMQ starts its largest rewards at 0 and never restarts their count;
WoLF-PHC moves only the action played; and the joint-action learner divides its expected values by their
sum, which turns its choice round where that is negative.
"""

import dataclasses

import jax
import jax.numpy as jnp

from baselines.rules import EmpiricalModelRule, PlayerSpec, PlayerStep, Rule, StageSolution, Tables
from jaxmarl_fac.settings import NotNegative, Probability
from jaxmarl_fac.targets import td_target


@dataclasses.dataclass(frozen=True, kw_only=True)
class JointActionRule(EmpiricalModelRule):
    """Joint-action learner: the best reply to the shares of the other's last actions.

    `EV(a) = Σ_b freq(b) q(a,b)`, greedy, ties to the lowest action (Claus and Boutilier, 1998).
    """

    learning_rate: float = 1.0
    rate_half_life: float = 10_000.0
    gamma: float = 0.95
    epsilon: float = 0.1
    initial_spread: float = 1.0

    def stage(self, player: PlayerSpec, tables: Tables, state: jax.Array, time: jax.Array) -> StageSolution:
        """The best expected value."""
        opponent = self.frequencies(player, tables, state)
        expected = tables["q"][state] @ opponent  # (A,)
        return StageSolution(jnp.max(expected), jax.nn.one_hot(jnp.argmax(expected), player.own), opponent)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OwnValueRule(Rule):
    """Q-learning of its own actions alone: `Q(s,a) ← Q + α (r + γ max Q(s',·) - Q)`."""

    rate_half_life: float = 10_000.0
    gamma: float = 0.95
    initial_spread: float = 1.0

    def q_learning(self, tables: Tables, step: PlayerStep, time: jax.Array) -> jax.Array:
        """The table `q (S, A)` after one transition."""
        q, cell = tables["q"], (step.state, step.own)
        following = jnp.max(q[step.next_state])
        target = td_target(step.rewards[0], step.discount, self.gamma, following)
        return q.at[cell].add(self.rate(time) * (target - q[cell]))


@dataclasses.dataclass(frozen=True, kw_only=True)
class WoLFRule(OwnValueRule):
    """WoLF-PHC: a mixed policy climbs towards the greedy action, in small steps while it wins.

    It wins while it expects more than its average policy would (Bowling and Veloso, 2002).

    Attributes:
        step_winning: probability moved in one update while it wins.
        step_losing: the same while it loses.
    """

    learning_rate: float = 1.0
    epsilon: float = 0.1
    step_winning: Probability = 0.0025
    step_losing: Probability = 0.005

    def init(self, player: PlayerSpec, key: jax.Array) -> Tables:
        """Values, policy and average policy `(S, A)`, and visits `(S,)`; the policies start uniform."""
        uniform = jnp.full((player.states, player.own), 1 / player.own)
        return {
            "q": self.fresh_values(key, uniform.shape),
            "policy": uniform,
            "average": uniform,
            "visits": jnp.zeros((player.states,)),
        }

    def policy(self, player: PlayerSpec, tables: Tables, state: jax.Array, time: jax.Array) -> jax.Array:
        """The current mixed policy, `(A,)`."""
        return tables["policy"][state]

    def learn(self, player: PlayerSpec, tables: Tables, step: PlayerStep, time: jax.Array) -> Tables:
        """Values first, then the average, then one step of the policy."""
        state, q = step.state, self.q_learning(tables, step, time)
        policy, visits = tables["policy"][state], tables["visits"][state] + 1
        average = tables["average"][state] + (policy - tables["average"][state]) / visits
        wins = policy @ q[state] > average @ q[state]
        moved = jnp.where(wins, self.step_winning, self.step_losing)
        return {
            "q": q,
            "policy": tables["policy"].at[state].set(hill_climb(policy, q[state], moved)),
            "average": tables["average"].at[state].set(average),
            "visits": tables["visits"].at[state].set(visits),
        }


def hill_climb(policy: jax.Array, values: jax.Array, step: jax.Array) -> jax.Array:
    """Policy hill climbing: every action gives up to `step / (A - 1)` to the greedy one, `(A,)` to `(A,)`.

    Ties go to the lowest action (Bowling and Veloso, 2002).
    """
    best = jax.nn.one_hot(jnp.argmax(values), policy.size)
    given = jnp.minimum(policy, step / max(1, policy.size - 1)) * (1 - best)
    return policy - given + best * jnp.sum(given)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FMQRule(OwnValueRule):
    """FMQ: actions are worth more if their largest reward comes often (Kapetanakis and Kudenko, 2002).

    `EV(a) = Q(a) + c f(a) R(a)` with R(a) the largest reward that a has brought and f(a) the share of
    its plays that did; `π(a) ∝ e^{EV(a)/T}` with `T = T_0 e^{-time/10} + 1`. In the paper's games no action's
    best reward is negative, which would lower EV the more often it comes: in a game with such
    actions R(a) is counted from the least of their best rewards (`PlayerSpec.floor`). Beyond the paper's
    Boltzmann play, one action in ten is random, as in malib; an `epsilon` of 0 is the paper's.

    Attributes:
        weight: c.
        temperature: T_0.
    """

    learning_rate: float = 0.9
    rate_half_life: float = 0.0
    epsilon: float = 0.1
    weight: NotNegative = 10.0
    temperature: NotNegative = 500.0

    def init(self, player: PlayerSpec, key: jax.Array) -> Tables:
        """Values, largest rewards, plays, and how many of them brought the largest reward, all `(S, A)`."""
        nothing = jnp.zeros((player.states, player.own))
        q = self.fresh_values(key, nothing.shape)
        return {"q": q, "largest": nothing, "plays": nothing, "hits": nothing}

    def policy(self, player: PlayerSpec, tables: Tables, state: jax.Array, time: jax.Array) -> jax.Array:
        """Boltzmann's over EV, `(A,)`."""
        frequency = tables["hits"][state] / jnp.maximum(tables["plays"][state], 1)
        gain = tables["largest"][state] - player.floor
        expected = tables["q"][state] + self.weight * frequency * gain
        return jax.nn.softmax(expected / (self.temperature * jnp.exp(-0.1 * time) + 1))

    def learn(self, player: PlayerSpec, tables: Tables, step: PlayerStep, time: jax.Array) -> Tables:
        """Values, and the count of the largest reward, which starts anew with a larger one."""
        cell, reward = (step.state, step.own), step.rewards[0]
        plays, largest, hits = (tables[name][cell] for name in ("plays", "largest", "hits"))
        larger = (plays == 0) | (reward > largest)
        return {
            "q": self.q_learning(tables, step, time),
            "largest": tables["largest"].at[cell].set(jnp.where(larger, reward, largest)),
            "plays": tables["plays"].at[cell].add(1),
            "hits": tables["hits"].at[cell].set(jnp.where(larger, 1, hits + (reward == largest))),
        }
