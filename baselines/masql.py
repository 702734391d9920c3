"""Multi-agent soft Q-learning (MASQL): each agent samples joint actions, and plays its own part."""

import dataclasses
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from baselines.actor_critic import Annealed, Bound, Seen, Step
from baselines.stein import Sampler, stein_loss
from envs.base import TeamEnvironment
from jaxmarl_fac.algorithm import Metrics
from jaxmarl_fac.networks import MLP, joined
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

    def __call__(self, seen: Seen, own: jax.Array, others: jax.Array) -> Any:
        """Touches every parameter; for initialisation."""
        joint = joined(own, others)
        return self.raw(seen, joint), self.value(seen, joint)

    def raw(self, seen: Seen, noise: jax.Array) -> jax.Array:
        """A joint action `(n,)` before squashing, from noise `(n,)`."""
        return self.sampler(seen.view, noise)

    def value(self, seen: Seen, joint: jax.Array) -> jax.Array:
        """Q `()` of a joint action `(n,)`."""
        return self.critic(joined(seen.view, joint))[0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MASQL(Annealed):
    """Soft Q-learning (Haarnoja et al., 2017) of joint actions, by every agent for itself.

    Q fits `r + γ α log ∫ e^{Q^-(s', a, b) / α}`, the integral estimated from uniform joint actions, and a
    network turns noise into samples of `e^{Q(s, a, b) / α}` by Stein variational gradients.

    Attributes:
        particles: K, joint actions in one estimate, and samples of the network that move together; even.
    """

    particles: EvenCount = 16

    continuous: ClassVar[bool] = True
    common_noise: ClassVar[bool] = True
    two_agents: ClassVar[bool] = True

    def network(self, env: TeamEnvironment) -> MASQLNetworks:
        """The sampler and the critic."""
        return MASQLNetworks(self.hidden, env.num_agents)

    def explore(self, network: Any, seen: Seen, epsilon: jax.Array, key: jax.Array) -> jax.Array:
        """The agent's part `()` of a sample."""
        return jnp.tanh(network.raw(seen, jax.random.normal(key, (network.agents,))))[0]

    def exploit(self, network: Any, seen: Seen) -> jax.Array:
        """The agent's part `()` of the best of K samples, whose noise is always the same."""
        noise = jax.random.normal(jax.random.key(0), (self.particles, network.agents))
        joints = jnp.tanh(jax.vmap(lambda noise: network.raw(seen, noise))(noise))  # (K, n)
        values = jax.vmap(lambda joint: network.value(seen, joint))(joints)
        return joints[jnp.argmax(values), 0]

    def loss(
        self, networks: Bound, step: Step, progress: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        """The critic's squared error and the sampler's Stein loss."""
        online, frozen, target = networks
        alpha, (uniform_key, noise_key) = self.alpha(progress), jax.random.split(key)
        shape = (self.particles, online.agents)

        anywhere = jax.random.uniform(uniform_key, shape, minval=-1, maxval=1)
        next_q = jax.vmap(lambda joint: target.value(step.next_seen, joint))(anywhere)  # (K,)
        next_value = alpha * uniform_soft_value(next_q / alpha, online.agents)
        y = td_target(step.reward, step.discount, self.gamma, next_value)
        critic_loss = jnp.square(online.value(step.seen, joined(step.own, step.others)) - y)

        noise = jax.random.normal(noise_key, shape)
        raw = jax.vmap(lambda noise: online.raw(step.seen, noise))(noise)
        sampler_loss = stein_loss(raw, lambda joint: frozen.value(step.seen, joint) / alpha)
        return critic_loss + sampler_loss, {"critic_loss": critic_loss}
