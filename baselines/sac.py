"""Soft actor-critic for agents that know nothing of each other: of numbers, and of discrete actions."""

import dataclasses
from typing import Any, ClassVar

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp

from baselines.actor_critic import ActorCritic, Bound, Seen, Step
from envs.base import TeamEnvironment
from jaxmarl_fac.algorithm import Metrics
from jaxmarl_fac.exploration import sample_actions
from jaxmarl_fac.networks import MLP, FromZero, SquashedNormal, joined
from jaxmarl_fac.settings import Positive
from jaxmarl_fac.soft.sampling import soft_value
from jaxmarl_fac.targets import td_target
from jaxmarl_fac.values import UNAVAILABLE

#: Two critics side by side; the lower one is believed.
Twin = nn.vmap(
    MLP, variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=None, out_axes=0, axis_size=2
)


class SACNetworks(nn.Module):
    """π(a|s) and two critics Q(s,a) of one agent whose actions are numbers."""

    hidden: tuple[int, ...]

    def setup(self) -> None:
        """The parts, named as in the parameters."""
        self.policy = SquashedNormal(self.hidden)
        self.critic = Twin(self.hidden, 1)

    def __call__(self, seen: Seen, own: jax.Array, others: jax.Array) -> Any:
        """Touches every parameter; for initialisation."""
        return self.policy.middle(seen.view), self.values(seen, own)

    def values(self, seen: Seen, own: jax.Array) -> jax.Array:
        """Both Q `(2,)`."""
        return self.critic(joined(seen.view, own))[:, 0]


class SACDiscreteNetworks(nn.Module):
    """π(a|s) and two critics Q(s,.) of one agent with A actions."""

    hidden: tuple[int, ...]
    num_actions: int

    def setup(self) -> None:
        """The parts, named as in the parameters."""
        self.policy = FromZero(self.hidden, self.num_actions)
        self.critic = Twin(self.hidden, self.num_actions)

    def __call__(self, seen: Seen, own: jax.Array, others: jax.Array) -> Any:
        """Touches every parameter; for initialisation."""
        return self.actor(seen), self.values(seen)

    def actor(self, seen: Seen) -> distrax.Categorical:
        """π(.|s); unavailable actions have probability 0."""
        return distrax.Categorical(logits=jnp.where(seen.masks[0], self.policy(seen.view), UNAVAILABLE))

    def values(self, seen: Seen) -> jax.Array:
        """Both Q of every action, `(2, A)`."""
        return self.critic(seen.view)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _SoftActorCritic(ActorCritic):
    """What both have in common.

    Attributes:
        alpha: entropy weight.
    """

    alpha: Positive = 0.1


@dataclasses.dataclass(frozen=True, kw_only=True)
class SAC(_SoftActorCritic):
    """Soft actor-critic (Haarnoja et al., 2018), each agent for itself.

    The critics fit `y = r + γ [min Q^-(s',a') - α log π(a'|s')]`, a' drawn from π; the policy minimises
    `α log π(a|s) - min Q(s,a)`.
    """

    continuous: ClassVar[bool] = True

    def network(self, env: TeamEnvironment) -> SACNetworks:
        """The policy and the critics."""
        return SACNetworks(self.hidden)

    def explore(self, network: Any, seen: Seen, epsilon: jax.Array, key: jax.Array) -> jax.Array:
        """A sample `()` of the policy."""
        return network.policy(seen.view).sample(seed=key)

    def exploit(self, network: Any, seen: Seen) -> jax.Array:
        """The policy's median `()`."""
        return network.policy.middle(seen.view)

    def loss(
        self, networks: Bound, step: Step, progress: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        """The critics' squared errors and the policy's loss."""
        online, frozen, target = networks
        next_key, key = jax.random.split(key)
        next_own, log_prob = frozen.policy(step.next_seen.view).sample_and_log_prob(seed=next_key)
        next_value = jnp.min(target.values(step.next_seen, next_own)) - self.alpha * log_prob
        y = td_target(step.reward, step.discount, self.gamma, next_value)
        critic_loss = jnp.sum(jnp.square(online.values(step.seen, step.own) - y))

        own, log_prob = online.policy(step.seen.view).sample_and_log_prob(seed=key)
        q = jnp.min(frozen.values(step.seen, own))
        policy_loss = self.alpha * log_prob - q
        return critic_loss + policy_loss, {"critic_loss": critic_loss, "mean_q": q, "entropy": -log_prob}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SACDiscrete(_SoftActorCritic):
    """Soft actor-critic of discrete actions (Christodoulou, 2019), each agent for itself.

    Expectations over the agent's own actions are exact: the critics fit `y = r + γ V(s')` with
    `V(s) = Σ_a π(a|s) [min Q^-(s,a) - α log π(a|s)]`; the policy minimises
    `Σ_a π(a|s) [α log π(a|s) - min Q(s,a)]`.
    """

    continuous: ClassVar[bool] = False

    def network(self, env: TeamEnvironment) -> SACDiscreteNetworks:
        """The policy and the critics."""
        return SACDiscreteNetworks(self.hidden, env.num_actions)

    def explore(self, network: Any, seen: Seen, epsilon: jax.Array, key: jax.Array) -> jax.Array:
        """A sample `()` of the policy."""
        return sample_actions(key, network.actor(seen))

    def exploit(self, network: Any, seen: Seen) -> jax.Array:
        """The policy's most probable action `()`."""
        return network.actor(seen).mode()

    def loss(
        self, networks: Bound, step: Step, progress: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        """The critics' squared errors and the policy's loss."""
        online, frozen, target = networks
        lower = jnp.min(target.values(step.next_seen), axis=0)  # (A,)
        next_value = soft_value(lower, frozen.actor(step.next_seen).probs, self.alpha)
        y = td_target(step.reward, step.discount, self.gamma, next_value)
        critic_loss = jnp.sum(jnp.square(online.values(step.seen)[:, step.own] - y))

        actor = online.actor(step.seen)
        lower = jnp.min(frozen.values(step.seen), axis=0)
        value = soft_value(lower, actor.probs, self.alpha)
        return critic_loss - value, {"critic_loss": critic_loss, "mean_v": value, "entropy": actor.entropy()}
