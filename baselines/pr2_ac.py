"""PR2-AC (Wen et al., ICLR 2019): first the agent's action, then the opponent's reply to it."""

import dataclasses
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from baselines.actor_critic import (
    ActionNoise,
    ActorCriticMethod,
    AgentTransition,
    AgentView,
    Annealing,
    Networks,
)
from baselines.stein import Sampler, stein_loss
from jaxmarl_fac.algorithm import Metrics
from jaxmarl_fac.experience import Clock
from jaxmarl_fac.game import GameSpec
from jaxmarl_fac.networks import MLP, ZeroInitMLP, concat
from jaxmarl_fac.settings import EvenCount
from jaxmarl_fac.soft.sampling import sampled_soft_value, uniform_soft_value
from jaxmarl_fac.targets import td_target


class PR2Networks(nn.Module):
    """μ(s), a sampler of ρ(b|s,a) and Q(s,a,b) of one agent."""

    hidden: tuple[int, ...]

    def setup(self) -> None:
        """The parts, named as in the parameters."""
        self.policy = ZeroInitMLP(self.hidden, 1)
        self.opponent = Sampler(self.hidden, 1)
        self.critic = MLP(self.hidden, 1)

    def __call__(self, view: AgentView, own: jax.Array, others: jax.Array) -> Any:
        """Touches every parameter; for initialisation."""
        return self.action(view), self.answer(view, own, others), self.value(view, own, others[0])

    def action(self, view: AgentView) -> jax.Array:
        """The agent's action `()`."""
        return jnp.tanh(self.policy(view.features)[0])

    def answer(self, view: AgentView, own: jax.Array, noise: jax.Array) -> jax.Array:
        """One reply `(1,)` of the opponent to the agent's action, before squashing, from noise `(1,)`."""
        return self.opponent(concat(view.features, own), noise)

    def value(self, view: AgentView, own: jax.Array, other: jax.Array) -> jax.Array:
        """Q `()`."""
        return self.critic(concat(view.features, own, other))[0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PR2AC(ActorCriticMethod):
    """PR2's actor-critic: the opponent is modelled as replying well to each of the agent's actions.

    - ρ(b|s,a), a network that turns noise into replies, approaches `e^{Q(s,a,b) / α}` by Stein variational
      gradients, at the actions that the agent took;
    - the policy climbs `Q(s,a) = α log E_ρ e^{Q(s,a,b) / α}` at a = μ(s), as DDPG does;
    - Q fits `r + γ α log ∫ e^{Q^-(s', μ^-(s'), b) / α}`, the integral estimated from uniform b.

    In the release the constants of that estimate, d log 2 - log K, are not multiplied by α, and ρ is asked
    at the batch's own actions.

    Attributes:
        noise: exploration.
        annealing: of the entropy weight α.
        particles: K, replies in one estimate, and samples of the network that move together; even.
    """

    noise: ActionNoise = ActionNoise()
    annealing: Annealing = Annealing()
    particles: EvenCount = 16

    continuous: ClassVar[bool] = True
    common_noise: ClassVar[bool] = True

    @property
    def two_agents(self) -> bool:
        return True

    def network(self, game: GameSpec, hidden: tuple[int, ...]) -> PR2Networks:
        return PR2Networks(hidden)

    def explore(self, network: Any, view: AgentView, clock: Clock, key: jax.Array) -> jax.Array:
        return self.noise.added_to(self.exploit(network, view), clock, key)

    def exploit(self, network: Any, view: AgentView) -> jax.Array:
        """The policy's action `()`."""
        return network.action(view)

    def loss(
        self, networks: Networks, transition: AgentTransition, gamma: float, clock: Clock, key: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        """The losses of the critic, the opponent's sampler and the policy."""
        online, frozen, target = networks
        view, next_view = transition.view, transition.next_view
        alpha, keys = self.annealing.alpha(clock), jax.random.split(key, 3)

        uniform = jax.random.uniform(keys[0], (self.particles,), minval=-1, maxval=1)
        next_own = transition.next_actions[0]
        next_q = jax.vmap(lambda other: target.value(next_view, next_own, other))(uniform)  # (K,)
        next_value = alpha * uniform_soft_value(next_q / alpha, 1)
        y = td_target(transition.reward, transition.discount, gamma, next_value)
        critic_loss = jnp.square(online.value(view, transition.own, transition.others[0]) - y)

        noise = jax.random.normal(keys[1], (self.particles, 1))
        raw = jax.vmap(lambda noise: online.answer(view, transition.own, noise))(noise)  # (K, 1)
        opponent_loss = stein_loss(raw, lambda answer: frozen.value(view, transition.own, answer[0]) / alpha)

        own = online.action(view)
        noise = jax.random.normal(keys[2], (self.particles, 1))
        expected = jnp.tanh(
            jax.vmap(lambda noise: frozen.answer(view, jax.lax.stop_gradient(own), noise))(noise)
        )  # (K, 1)
        q = jax.vmap(lambda answer: frozen.value(view, own, answer[0]))(expected)  # (K,)
        value = alpha * sampled_soft_value(q / alpha, jnp.zeros_like(q))
        return critic_loss + opponent_loss - value, {"critic_loss": critic_loss, "mean_q": value}
