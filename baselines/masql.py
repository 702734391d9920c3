"""Multi-agent soft Q-learning (MASQL): each agent samples joint actions and executes its own component."""

import dataclasses
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from baselines.actor_critic import ActorCriticMethod, AgentTransition, AgentView, Annealing, Networks
from baselines.stein import Sampler, stein_loss
from jaxmarl_fac.algorithm import Metrics
from jaxmarl_fac.experience import Clock
from jaxmarl_fac.game import GameSpec
from jaxmarl_fac.networks import MLP, concat
from jaxmarl_fac.settings import EvenCount
from jaxmarl_fac.soft.sampling import uniform_soft_value
from jaxmarl_fac.targets import td_target


class MASQLNetworks(nn.Module):
    """A sampler of joint actions and their soft Q of one agent, itself first."""

    hidden: tuple[int, ...]
    agents: int

    def setup(self) -> None:
        """The parts, named as in the parameters."""
        self.sampler = Sampler(self.hidden, self.agents)
        self.critic = MLP(self.hidden, 1)

    def __call__(self, view: AgentView, own: jax.Array, others: jax.Array) -> Any:
        """Touches every parameter; for initialisation."""
        joint = concat(own, others)
        return self.raw(view, joint), self.value(view, joint)

    def raw(self, view: AgentView, noise: jax.Array) -> jax.Array:
        """A joint action `(n,)` before squashing, from noise `(n,)`."""
        return self.sampler(view.features, noise)

    def value(self, view: AgentView, joint: jax.Array) -> jax.Array:
        """Q `()` of a joint action `(n,)`."""
        return self.critic(concat(view.features, joint))[0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MASQL(ActorCriticMethod):
    """Soft Q-learning (Haarnoja et al., 2017) of joint actions, by each agent independently.

    Q fits `r + γ α log ∫ e^{Q^-(s', a, b) / α}`, the integral estimated from uniform joint actions, and a
    network turns noise into samples of `e^{Q(s, a, b) / α}` by Stein variational gradients. In the
    release the constants of the estimate, d log 2 - log K, are not multiplied by α.

    Attributes:
        annealing: of the entropy weight α.
        particles: K, joint actions in one estimate, and samples of the network that move together; even.
    """

    annealing: Annealing = Annealing()
    particles: EvenCount = 16

    continuous: ClassVar[bool] = True
    common_noise: ClassVar[bool] = True

    @property
    def two_agents(self) -> bool:
        return True

    def network(self, game: GameSpec, hidden: tuple[int, ...]) -> MASQLNetworks:
        return MASQLNetworks(hidden, game.num_agents)

    def explore(self, network: Any, view: AgentView, clock: Clock, key: jax.Array) -> jax.Array:
        """The agent's own action `()` in a sample."""
        return jnp.tanh(network.raw(view, jax.random.normal(key, (network.agents,))))[0]

    def exploit(self, network: Any, view: AgentView) -> jax.Array:
        """The agent's own action `()` in the best of K samples, drawn with fixed noise."""
        noise = jax.random.normal(jax.random.key(0), (self.particles, network.agents))
        joints = jnp.tanh(jax.vmap(lambda noise: network.raw(view, noise))(noise))  # (K, n)
        values = jax.vmap(lambda joint: network.value(view, joint))(joints)
        return joints[jnp.argmax(values), 0]

    def loss(
        self, networks: Networks, transition: AgentTransition, gamma: float, clock: Clock, key: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        """The critic's squared error and the sampler's Stein loss."""
        online, frozen, target = networks
        view, next_view = transition.view, transition.next_view
        alpha, (uniform_key, noise_key) = self.annealing.alpha(clock), jax.random.split(key)
        shape = (self.particles, online.agents)

        uniform = jax.random.uniform(uniform_key, shape, minval=-1, maxval=1)
        next_q = jax.vmap(lambda joint: target.value(next_view, joint))(uniform)  # (K,)
        next_value = alpha * uniform_soft_value(next_q / alpha, online.agents)
        y = td_target(transition.reward, transition.discount, gamma, next_value)
        critic_loss = jnp.square(online.value(view, concat(transition.own, transition.others)) - y)

        noise = jax.random.normal(noise_key, shape)
        raw = jax.vmap(lambda noise: online.raw(view, noise))(noise)
        sampler_loss = stein_loss(raw, lambda joint: frozen.value(view, joint) / alpha)
        return critic_loss + sampler_loss, {"critic_loss": critic_loss}
