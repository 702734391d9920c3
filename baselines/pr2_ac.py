"""PR2-AC (Wen et al., ICLR 2019): first the agent's action, then how the opponent would answer it."""

import dataclasses
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from baselines.actor_critic import Annealed, Bound, NoisyActorCritic, Seen, Step
from baselines.stein import Sampler, stein_loss
from envs.base import TeamEnvironment
from jaxmarl_fac.algorithm import Metrics
from jaxmarl_fac.networks import MLP, FromZero, joined
from jaxmarl_fac.settings import EvenCount
from jaxmarl_fac.soft.sampling import sampled_soft_value, uniform_soft_value
from jaxmarl_fac.targets import td_target


class PR2Networks(nn.Module):
    """μ(s), a sampler of ρ(b|s,a) and Q(s,a,b) of one agent."""

    hidden: tuple[int, ...]

    def setup(self) -> None:
        """The parts, named as in the parameters."""
        self.policy = FromZero(self.hidden, 1)
        self.opponent = Sampler(self.hidden, 1)
        self.critic = MLP(self.hidden, 1)

    def __call__(self, seen: Seen, own: jax.Array, others: jax.Array) -> Any:
        """Touches every parameter; for initialisation."""
        return self.action(seen), self.answer(seen, own, others), self.value(seen, own, others[0])

    def action(self, seen: Seen) -> jax.Array:
        """What the agent does, `()`."""
        return jnp.tanh(self.policy(seen.view)[0])

    def answer(self, seen: Seen, own: jax.Array, noise: jax.Array) -> jax.Array:
        """One answer `(1,)` of the opponent to the agent's action, before squashing, from noise `(1,)`."""
        return self.opponent(joined(seen.view, own), noise)

    def value(self, seen: Seen, own: jax.Array, other: jax.Array) -> jax.Array:
        """Q `()`."""
        return self.critic(joined(seen.view, own, other))[0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PR2AC(NoisyActorCritic, Annealed):
    """PR2's actor-critic: the agent expects the opponent to answer each of its actions well.

    - ρ(b|s,a), a network that turns noise into answers, goes to `e^{Q(s,a,b) / α}` by Stein variational
      gradients, at the actions that the agent took;
    - the policy climbs `Q(s,a) = α log E_ρ e^{Q(s,a,b) / α}` at a = μ(s), as DDPG does;
    - Q fits `r + γ α log ∫ e^{Q^-(s', μ^-(s'), b) / α}`, the integral estimated from uniform b.

    Attributes:
        particles: K, answers in one estimate, and samples of the network that move together; even.
    """

    particles: EvenCount = 16

    continuous: ClassVar[bool] = True
    common_noise: ClassVar[bool] = True
    two_agents: ClassVar[bool] = True

    def network(self, env: TeamEnvironment) -> PR2Networks:
        """The policy, the opponent's sampler and the critic."""
        return PR2Networks(self.hidden)

    def exploit(self, network: Any, seen: Seen) -> jax.Array:
        """The policy's action `()`."""
        return network.action(seen)

    def loss(
        self, networks: Bound, step: Step, progress: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        """The losses of the critic, the opponent's sampler and the policy."""
        online, frozen, target = networks
        alpha, keys = self.alpha(progress), jax.random.split(key, 3)

        anything = jax.random.uniform(keys[0], (self.particles,), minval=-1, maxval=1)
        next_own = step.next_actions[0]
        next_q = jax.vmap(lambda other: target.value(step.next_seen, next_own, other))(anything)  # (K,)
        y = td_target(step.reward, step.discount, self.gamma, alpha * uniform_soft_value(next_q / alpha, 1))
        critic_loss = jnp.square(online.value(step.seen, step.own, step.others[0]) - y)

        noise = jax.random.normal(keys[1], (self.particles, 1))
        raw = jax.vmap(lambda noise: online.answer(step.seen, step.own, noise))(noise)  # (K, 1)
        opponent_loss = stein_loss(raw, lambda answer: frozen.value(step.seen, step.own, answer[0]) / alpha)

        own = online.action(step.seen)
        noise = jax.random.normal(keys[2], (self.particles, 1))
        expected = jnp.tanh(
            jax.vmap(lambda noise: frozen.answer(step.seen, jax.lax.stop_gradient(own), noise))(noise)
        )  # (K, 1)
        q = jax.vmap(lambda answer: frozen.value(step.seen, own, answer[0]))(expected)  # (K,)
        value = alpha * sampled_soft_value(q / alpha, jnp.zeros_like(q))
        return critic_loss + opponent_loss - value, {"critic_loss": critic_loss, "mean_q": value}
