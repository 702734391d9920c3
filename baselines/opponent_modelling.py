"""Agents that model the other by soft backups: soft Q, PR2, ROMMEO, Balancing-Q, GR2.

A rule defines how its player turns a table `q (A, B)` of joint action values, its own action first, into a
value and a policy (`jaxmarl_fac/soft/`).
"""

import abc
import dataclasses
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp

from baselines.rules import (
    EmpiricalModelRule,
    JointValueRule,
    PlayerSpec,
    PlayerStep,
    Rule,
    StageSolution,
    Tables,
    half_life_decay,
)
from baselines.tabular import table_update
from envs.errors import BadInputError
from jaxmarl_fac.settings import Beta, Count, NotNegative, at_least
from jaxmarl_fac.soft.levels import level_mixture, level_policies, poisson_level_weights
from jaxmarl_fac.soft.operators import check_prior, log_mean_exp, tilted_policy
from jaxmarl_fac.soft.stages import (
    SoftBackup,
    agent_first,
    opponent_first,
    probabilistic_balancing,
    rommeo_published,
)
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

    def check(self, player: PlayerSpec) -> None:
        """The priors fit the game.

        Raises:
            BadInputError: if they are no distributions over its actions.
        """
        priors = {"own_prior": (self.own_prior, player.own), "other_prior": (self.other_prior, player.other)}
        for name, (prior, actions) in priors.items():
            if prior:
                check_prior(prior, (actions,), name=name)

    def beta_at(self, beta: float, time: jax.Array) -> jax.Array:
        """An inverse temperature `()` at a time."""
        # Bounded, because 0 times infinity is not 0.
        return beta * jnp.minimum(self.beta_growth**time, float(jnp.finfo(jnp.float32).max))

    def priors(self, player: PlayerSpec) -> tuple[jax.Array, jax.Array]:
        """P(a) `(A,)` and P(b) `(B,)`."""
        own = self.own_prior or (1 / player.own,) * player.own
        other = self.other_prior or (1 / player.other,) * player.other
        return jnp.asarray(own), jnp.asarray(other)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SoftQRule(SoftRule):
    """Soft Q-learning that treats the other as part of the environment: a table of its own actions alone.

    `Q(s,a) ← Q + α (r + γ V(s') - Q)`, `V = (1/β) log Σ_a P(a) e^{β Q(s,a)}`, `π(a) ∝ P(a) e^{β Q(s,a)}`.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.other_prior:
            raise BadInputError(
                f"other_prior must be empty for soft Q-learning, which has no model of the other agent, "
                f"not {self.other_prior}"
            )

    def init(self, player: PlayerSpec, key: jax.Array) -> Tables:
        """The table `q (S, A)`."""
        return {"q": self.fresh_values(key, (player.states, player.own))}

    def policy(self, player: PlayerSpec, tables: Tables, state: jax.Array, time: jax.Array) -> jax.Array:
        """The prior, tilted by e^{βQ}, `(A,)`."""
        return tilted_policy(tables["q"][state], self.priors(player)[0], self.beta_at(self.beta, time))

    def learn(self, player: PlayerSpec, tables: Tables, step: PlayerStep, time: jax.Array) -> Tables:
        """Update the value of its own action."""
        q, cell = tables["q"], (step.state, step.own)
        prior, beta = self.priors(player)[0], self.beta_at(self.beta, time)
        following = log_mean_exp(q[step.next_state], prior, beta)
        target = td_target(step.rewards[0], step.discount, self.gamma, following)
        return {"q": q.at[cell].add(self.rate(time) * (target - q[cell]))}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReasoningRule(SoftRule, JointValueRule):
    """Acts by a soft backup of its joint action values."""

    @abc.abstractmethod
    def backup(self, player: PlayerSpec, q: jax.Array, time: jax.Array) -> Any:
        """Value, policy and opponent of one state's table `(A, B)`, in units of reward."""

    def stage(self, player: PlayerSpec, tables: Tables, state: jax.Array, time: jax.Array) -> StageSolution:
        """The backup of the state's table."""
        backup = self.backup(player, tables["q"][state], time)
        return StageSolution(backup.value, backup.policy, backup.opponent)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PR2Rule(ReasoningRule):
    """PR2: the agent first, and the other's reply is modelled as cooperative (`soft.stages.pr2`)."""

    def backup(self, player: PlayerSpec, q: jax.Array, time: jax.Array) -> SoftBackup:
        """With K = βq, which is Balancing-Q with equal temperatures."""
        beta = self.beta_at(self.beta, time)
        return agent_first(q, beta, beta, *self.priors(player))


@dataclasses.dataclass(frozen=True, kw_only=True)
class RommeoThesisRule(ReasoningRule):
    """ROMMEO as in the thesis: the opponent model first, then the agent's reply (`soft.stages.rommeo`)."""

    def backup(self, player: PlayerSpec, q: jax.Array, time: jax.Array) -> SoftBackup:
        """With K = βq."""
        beta = self.beta_at(self.beta, time)
        return opponent_first(q, beta, beta, *self.priors(player))


@dataclasses.dataclass(frozen=True, kw_only=True)
class BalancingRule(ReasoningRule):
    """Balancing-Q: the agent first, and the other replies at a temperature of its own.

    Attributes:
        beta_other: β' of the other at time 0: > 0 is cooperative, < 0 adversarial (the default, as in the
            thesis's zero-sum game), 0 its prior.
    """

    beta_other: Beta = -0.1

    def backup(self, player: PlayerSpec, q: jax.Array, time: jax.Array) -> Any:
        betas = self.beta_at(self.beta, time), self.beta_at(self.beta_other, time)
        return agent_first(q, *betas, *self.priors(player))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbabilisticBalancingRule(BalancingRule):
    """Balancing-Q derived from two graphical models: the same in other units (thesis, section 3.5)."""

    def backup(self, player: PlayerSpec, q: jax.Array, time: jax.Array) -> StageSolution:
        """`soft.stages.probabilistic_balancing`, with V = V^i/β.

        Where β is 0 or infinite V cannot be computed from V^i, and Balancing-Q's own limit is used.
        """
        beta = self.beta_at(self.beta, time)
        found = probabilistic_balancing(q, beta, self.beta_at(self.beta_other, time), *self.priors(player))
        limit = super().backup(player, q, time).value
        usable = jnp.isfinite(found.value) & (jnp.abs(beta) >= jnp.finfo(q.dtype).tiny)
        value = jnp.where(usable, found.value / jnp.where(usable, beta, 1), limit)
        return StageSolution(value, found.policy, found.policy @ found.opponent)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RommeoRule(EmpiricalModelRule):
    """ROMMEO as published: a prior on the other's action alone, the shares of its last actions.

    The defaults are those of the authors' library: values start uniform in [0, 1), steps are nearly
    whole, one action in ten is random (`soft.stages.rommeo_published`; Tian et al., 2019).

    Attributes:
        temperature: α, the weight of its own entropy.
        temperature_schedule: "constant"; "harmonic", α c / (c + time) with c = `rate_half_life`; or
            "exponential", α e^{-time/10} + .1.
        model: the opponent model: "inferred" is ROMMEO-Q, "empirical" (the prior itself, and
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

    def temperature_at(self, time: jax.Array) -> jax.Array | float:
        """The temperature at a time."""
        if self.temperature_schedule == "harmonic":
            return self.temperature * half_life_decay(time, self.rate_half_life)
        if self.temperature_schedule == "exponential":
            return self.temperature * jnp.exp(-0.1 * time) + 0.1
        return self.temperature

    def stage(self, player: PlayerSpec, tables: Tables, state: jax.Array, time: jax.Array) -> StageSolution:
        """Under the prior of the other's last actions in the state."""
        prior = self.frequencies(player, tables, state)
        found = rommeo_published(tables["q"][state], self.temperature_at(time), prior)
        if self.model == "inferred":
            return StageSolution(found.value, found.policy, found.opponent)
        return StageSolution(prior @ found.first_values, found.second_policy @ prior, prior)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GR2Rule(SoftRule):
    """GR2: the agent replies to its model of the other's reply, K levels deep.

    It keeps a table of the other's values beside its own, learned from the other's rewards. The value
    of a state is that of its reply at level K, or of its mixture of replies (`soft.levels.level_policies`;
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
            return poisson_level_weights(jnp.asarray(self.poisson_mean, float), self.levels)
        return jax.nn.one_hot(self.levels - 1, self.levels)

    def backup(
        self, player: PlayerSpec, q: jax.Array, time: jax.Array
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """Both agents' values `(2,)` and policies `(A,)`, `(B,)` in a state of tables `(2, A, B)`."""
        beta, priors, weights = self.beta_at(self.beta, time), self.priors(player), self.weights()
        own, other = level_policies(q[0], q[1], beta, beta, self.levels, *priors)
        # A level replies to the one below it: (K, A) and (K, B).
        replies = other[:-1] @ q[0].T, own[:-1] @ q[1]
        values = [
            weights @ log_mean_exp(reply, prior, beta) for reply, prior in zip(replies, priors, strict=True)
        ]
        return jnp.stack(values), (level_mixture(own, weights), level_mixture(other, weights))

    def init(self, player: PlayerSpec, key: jax.Array) -> Tables:
        """The tables `q (2, S, A, B)`, its own and the other's."""
        return {"q": self.fresh_values(key, (2, player.states, player.own, player.other))}

    def policy(self, player: PlayerSpec, tables: Tables, state: jax.Array, time: jax.Array) -> jax.Array:
        """Its reply, `(A,)`."""
        return self.backup(player, tables["q"][:, state], time)[1][0]

    def opponent_model(
        self, player: PlayerSpec, tables: Tables, state: jax.Array, time: jax.Array
    ) -> jax.Array:
        """The other's reply at the same levels, `(B,)`."""
        return self.backup(player, tables["q"][:, state], time)[1][1]

    def learn(self, player: PlayerSpec, tables: Tables, step: PlayerStep, time: jax.Array) -> Tables:
        """Update both values of the joint action that was taken."""
        following, _ = self.backup(player, tables["q"][:, step.next_state], time)
        targets = td_target(step.rewards, step.discount, self.gamma, following)
        actions = jnp.stack([step.own, step.other])
        update = jax.vmap(table_update, (0, None, None, 0, None))
        return {"q": update(tables["q"], step.state, actions, targets, self.rate(time))}
