"""Agents that reason about the other by soft backups: soft Q, PR2, ROMMEO, Balancing-Q, GR2.

A rule says how its agent turns a table `q (A, B)` of joint action values, its own action first, into a
value and a policy (`jaxmarl_fac/soft/`). The learners at the end seat it at both sides of a game.
"""

import abc
import dataclasses
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp

from baselines.rules import (
    Experience,
    JointValueRule,
    Memory,
    Rule,
    Seat,
    Stage,
    WatchingRule,
    half_life_decay,
)
from baselines.tabular import table_update
from baselines.two_player import SelfPlay
from envs.errors import BadInputError
from jaxmarl_fac.settings import Beta, Count, NotNegative, at_least
from jaxmarl_fac.soft import levels, operators, stages
from jaxmarl_fac.targets import td_target


@dataclasses.dataclass(frozen=True, kw_only=True)
class SoftRule(Rule):
    """What rules with an inverse temperature share. The defaults are the thesis's (appendix B.3).

    Attributes:
        beta: β at time 0: of any sign, 0 or infinite.
        beta_growth: ω, the factor by which β grows with every update.
        own_prior: P(a), one probability for each action of its own; uniform if empty.
        other_prior: P(b), one for each action of the other; uniform if empty.
    """

    learning_rate: float = 0.6
    beta: Beta = 0.1
    beta_growth: Annotated[float, at_least(1)] = 1.01
    own_prior: tuple[float, ...] = ()
    other_prior: tuple[float, ...] = ()

    def check(self, seat: Seat) -> None:
        """The priors fit the game.

        Raises:
            BadInputError: if they are no distributions over its actions.
        """
        priors = {"own_prior": (self.own_prior, seat.own), "other_prior": (self.other_prior, seat.other)}
        for name, (prior, actions) in priors.items():
            if prior:
                operators.check_prior(prior, (actions,), name=name)

    def at(self, beta: float, time: jax.Array) -> jax.Array:
        """An inverse temperature `()` at a time."""
        # Bounded, because 0 stays 0 for ever.
        return beta * jnp.minimum(self.beta_growth**time, float(jnp.finfo(jnp.float32).max))

    def priors(self, seat: Seat) -> tuple[jax.Array, jax.Array]:
        """P(a) `(A,)` and P(b) `(B,)`."""
        own = self.own_prior or (1 / seat.own,) * seat.own
        other = self.other_prior or (1 / seat.other,) * seat.other
        return jnp.asarray(own), jnp.asarray(other)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SoftQRule(SoftRule):
    """Soft Q-learning that takes the other for a part of the world: a table of its own actions alone.

    `Q(s,a) ← Q + α (r + γ V(s') - Q)`, `V = (1/β) log Σ_a P(a) e^{β Q(s,a)}`, `π(a) ∝ P(a) e^{β Q(s,a)}`.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.other_prior:
            raise BadInputError(
                f"other_prior must be empty for soft Q-learning, which does not know of the other agent, "
                f"not {self.other_prior}"
            )

    def init(self, seat: Seat, key: jax.Array) -> Memory:
        """The table `q (S, A)`."""
        return {"q": self.fresh_values(key, (seat.states, seat.own))}

    def policy(self, seat: Seat, memory: Memory, state: jax.Array, time: jax.Array) -> jax.Array:
        """The prior, tilted by e^{βQ}, `(A,)`."""
        return operators.tilted_policy(memory["q"][state], self.priors(seat)[0], self.at(self.beta, time))

    def learn(self, seat: Seat, memory: Memory, experience: Experience, time: jax.Array) -> Memory:
        """Move the value of its own action."""
        q, cell = memory["q"], (experience.state, experience.own)
        prior, beta = self.priors(seat)[0], self.at(self.beta, time)
        following = operators.log_mean_exp(q[experience.next_state], prior, beta)
        target = td_target(experience.rewards[0], experience.discount, self.gamma, following)
        return {"q": q.at[cell].add(self.rate(time) * (target - q[cell]))}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReasoningRule(SoftRule, JointValueRule):
    """Acts by a soft backup of its joint action values."""

    @abc.abstractmethod
    def backup(self, seat: Seat, q: jax.Array, time: jax.Array) -> Any:
        """Value, policy and opponent of one state's table `(A, B)`, in units of reward."""

    def stage(self, seat: Seat, memory: Memory, state: jax.Array, time: jax.Array) -> Stage:
        """The backup of the state's table."""
        backup = self.backup(seat, memory["q"][state], time)
        return Stage(backup.value, backup.policy, backup.opponent)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PR2Rule(ReasoningRule):
    """PR2: the agent first, and the other's reply is modelled as helping it (`stages.pr2`)."""

    def backup(self, seat: Seat, q: jax.Array, time: jax.Array) -> stages.SoftBackup:
        """With K = βq, which is Balancing-Q with equal temperatures."""
        beta = self.at(self.beta, time)
        return stages.agent_outer(q, beta, beta, *self.priors(seat))


@dataclasses.dataclass(frozen=True, kw_only=True)
class RommeoThesisRule(ReasoningRule):
    """ROMMEO as the thesis has it: the opponent model first, the agent replies (`stages.rommeo`)."""

    def backup(self, seat: Seat, q: jax.Array, time: jax.Array) -> stages.SoftBackup:
        """With K = βq."""
        beta = self.at(self.beta, time)
        return stages.opponent_outer(q, beta, beta, *self.priors(seat))


@dataclasses.dataclass(frozen=True, kw_only=True)
class BalancingRule(ReasoningRule):
    """Balancing-Q: the agent first, and the other replies at a temperature of its own.

    Attributes:
        beta_other: β' of the other at time 0: > 0 helps, < 0 harms (the default, as in the thesis's
            zero-sum game), 0 plays its prior.
    """

    beta_other: Beta = -0.1

    def backup(self, seat: Seat, q: jax.Array, time: jax.Array) -> Any:
        """`stages.agent_outer`."""
        betas = self.at(self.beta, time), self.at(self.beta_other, time)
        return stages.agent_outer(q, *betas, *self.priors(seat))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbabilisticBalancingRule(BalancingRule):
    """Balancing-Q derived from two graphical models: the same in other units (thesis, section 3.5)."""

    def backup(self, seat: Seat, q: jax.Array, time: jax.Array) -> Stage:
        """`stages.probabilistic_balancing`, with V = V^i/β.

        Where β is 0 or infinite V^i says nothing of V, and Balancing-Q's own limit stands in.
        """
        beta = self.at(self.beta, time)
        found = stages.probabilistic_balancing(q, beta, self.at(self.beta_other, time), *self.priors(seat))
        limit = super().backup(seat, q, time).value
        usable = jnp.isfinite(found.value) & (jnp.abs(beta) >= jnp.finfo(q.dtype).tiny)
        value = jnp.where(usable, found.value / jnp.where(usable, beta, 1), limit)
        return Stage(value, found.policy, found.policy @ found.opponent)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RommeoRule(WatchingRule):
    """ROMMEO as published: a prior on the other's action alone, which is how often it was played of late.

    The defaults are those of the authors' library: values start uniform in [0, 1), steps are nearly
    whole, one action in ten is random (`stages.rommeo_published`; Tian et al., 2019).

    Attributes:
        temperature: α, the weight of its own entropy.
        temperature_schedule: "constant"; "harmonic", α c / (c + time) with c = `rate_half_life`; or
            "exponential", α e^{-time/10} + .1.
        model: what it expects of the other: "inferred" is ROMMEO-Q, "empirical" (the prior itself, and
            V(s) its mean of Q(b)) is ROMMEO-Q-EMP.
    """

    learning_rate: float = 1.0
    rate_half_life: float = 10_000.0
    gamma: float = 0.95
    epsilon: float = 0.1
    initial_spread: float = 1.0
    temperature: NotNegative = 1.0
    temperature_schedule: Literal["constant", "harmonic", "exponential"] = "harmonic"
    model: Literal["inferred", "empirical"] = "inferred"

    def alpha(self, time: jax.Array) -> jax.Array | float:
        """The temperature at a time."""
        if self.temperature_schedule == "harmonic":
            return self.temperature * half_life_decay(time, self.rate_half_life)
        if self.temperature_schedule == "exponential":
            return self.temperature * jnp.exp(-0.1 * time) + 0.1
        return self.temperature

    def stage(self, seat: Seat, memory: Memory, state: jax.Array, time: jax.Array) -> Stage:
        """Under the prior of the other's last actions in the state."""
        prior = self.frequencies(seat, memory, state)
        found = stages.rommeo_published(memory["q"][state], self.alpha(time), prior)
        if self.model == "inferred":
            return Stage(found.value, found.policy, found.opponent)
        return Stage(prior @ found.first_values, found.second_policy @ prior, prior)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GR2Rule(SoftRule):
    """GR2: the agent replies to what it believes the other replies, K levels deep.

    It keeps a table of the other's values beside its own, learned from the other's rewards. The value
    of a state is that of its reply at level K, or of its mixture of replies (`levels.level_policies`;
    Wen et al., 2019).

    Attributes:
        levels: K.
        mixture: mix levels 1 to K as GR2-M does, in place of level K alone.
        poisson_mean: of the mixture's weights.
    """

    levels: Count = 3
    mixture: bool = False
    poisson_mean: NotNegative = 1.5

    def weights(self) -> jax.Array:
        """Of levels 1 to K, `(K,)`."""
        if self.mixture:
            return levels.poisson_level_weights(jnp.asarray(self.poisson_mean, float), self.levels)
        return jax.nn.one_hot(self.levels - 1, self.levels)

    def backup(
        self, seat: Seat, q: jax.Array, time: jax.Array
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """Both agents' values `(2,)` and policies `(A,)`, `(B,)` in a state of tables `(2, A, B)`."""
        beta, priors, weights = self.at(self.beta, time), self.priors(seat), self.weights()
        own, other = levels.level_policies(q[0], q[1], beta, beta, self.levels, *priors)
        # A level replies to the one below it: (K, A) and (K, B).
        replies = other[:-1] @ q[0].T, own[:-1] @ q[1]
        values = [
            weights @ operators.log_mean_exp(reply, prior, beta)
            for reply, prior in zip(replies, priors, strict=True)
        ]
        return jnp.stack(values), (levels.level_mixture(own, weights), levels.level_mixture(other, weights))

    def init(self, seat: Seat, key: jax.Array) -> Memory:
        """The tables `q (2, S, A, B)`, its own and the other's."""
        return {"q": self.fresh_values(key, (2, seat.states, seat.own, seat.other))}

    def policy(self, seat: Seat, memory: Memory, state: jax.Array, time: jax.Array) -> jax.Array:
        """Its reply, `(A,)`."""
        return self.backup(seat, memory["q"][:, state], time)[1][0]

    def opponent_model(self, seat: Seat, memory: Memory, state: jax.Array, time: jax.Array) -> jax.Array:
        """The other's reply at the same levels, `(B,)`."""
        return self.backup(seat, memory["q"][:, state], time)[1][1]

    def learn(self, seat: Seat, memory: Memory, experience: Experience, time: jax.Array) -> Memory:
        """Move both values of the joint action that was played."""
        following, _ = self.backup(seat, memory["q"][:, experience.next_state], time)
        targets = td_target(experience.rewards, experience.discount, self.gamma, following)
        actions = jnp.stack([experience.own, experience.other])
        step = jax.vmap(table_update, (0, None, None, 0, None))
        return {"q": step(memory["q"], experience.state, actions, targets, self.rate(time))}


# What `baselines/registry.py` names: a rule at both sides.


@dataclasses.dataclass(frozen=True, kw_only=True)
class SoftQ(SelfPlay):
    """Soft Q-learning of two agents that do not know of each other."""

    rule: SoftQRule = SoftQRule()


@dataclasses.dataclass(frozen=True, kw_only=True)
class PR2Q(SelfPlay):
    """PR2-Q on both sides: each models the other's reply to its action as helping (Wen et al., 2019)."""

    rule: PR2Rule = PR2Rule()


@dataclasses.dataclass(frozen=True, kw_only=True)
class RommeoQ(SelfPlay):
    """ROMMEO-Q on both sides, as published: an inferred opponent under an empirical prior."""

    rule: RommeoRule = RommeoRule()


@dataclasses.dataclass(frozen=True, kw_only=True)
class RommeoQEmpirical(SelfPlay):
    """ROMMEO-Q-EMP on both sides: the other is expected to play what it played of late."""

    rule: RommeoRule = RommeoRule(model="empirical")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RommeoQThesis(SelfPlay):
    """ROMMEO-Q on both sides as the thesis has it, with priors on both actions."""

    rule: RommeoThesisRule = RommeoThesisRule()


@dataclasses.dataclass(frozen=True, kw_only=True)
class BalancingQ(SelfPlay):
    """Balancing-Q on both sides, adversaries by default (Grau-Moya et al., 2018)."""

    rule: BalancingRule = BalancingRule()


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbabilisticBalancingQ(SelfPlay):
    """Probabilistic Balancing-Q on both sides, adversaries by default (thesis, section 3.5)."""

    rule: ProbabilisticBalancingRule = ProbabilisticBalancingRule()


@dataclasses.dataclass(frozen=True, kw_only=True)
class GR2Q(SelfPlay):
    """GR2-Q on both sides: replies to replies, K levels deep (Wen et al., 2019)."""

    rule: GR2Rule = GR2Rule()


@dataclasses.dataclass(frozen=True, kw_only=True)
class GR2QMixture(SelfPlay):
    """GR2-Q on both sides with levels 1 to K mixed by a Poisson distribution, GR2-M."""

    rule: GR2Rule = GR2Rule(mixture=True)
