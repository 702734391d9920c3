"""Independent soft actor-critics, with continuous and with discrete actions."""

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from baselines.actor_critic import ActorCriticMethod, AgentTransition, AgentView, Networks
from envs.lazy import lazily
from jaxmarl_fac.algorithm import Metrics
from jaxmarl_fac.experience import Clock
from jaxmarl_fac.exploration import sample_actions
from jaxmarl_fac.game import GameSpec
from jaxmarl_fac.networks import SquashedNormal, TwinMLP, ZeroInitMLP, concat
from jaxmarl_fac.settings import Positive
from jaxmarl_fac.soft.sampling import soft_value
from jaxmarl_fac.targets import td_target
from jaxmarl_fac.values import UNAVAILABLE

if TYPE_CHECKING:
    import distrax
else:
    distrax = lazily("distrax")


class SACNetworks(nn.Module):
    """π(a|s) and two critics Q(s,a) of one agent with continuous actions."""

    hidden: tuple[int, ...]

    def setup(self) -> None:
        """The parts, named as in the parameters."""
        self.policy = SquashedNormal(self.hidden)
        self.critic = TwinMLP(self.hidden, 1)

    def __call__(self, view: AgentView, own: jax.Array, others: jax.Array) -> Any:
        """Touches every parameter; for initialisation."""
        return self.policy.median(view.features), self.values(view, own)

    def values(self, view: AgentView, own: jax.Array) -> jax.Array:
        """Both Q `(2,)`."""
        return self.critic(concat(view.features, own))[:, 0]


class SACDiscreteNetworks(nn.Module):
    """π(a|s) and two critics Q(s,.) of one agent with A actions."""

    hidden: tuple[int, ...]
    num_actions: int

    def setup(self) -> None:
        """The parts, named as in the parameters."""
        self.policy = ZeroInitMLP(self.hidden, self.num_actions)
        self.critic = TwinMLP(self.hidden, self.num_actions)

    def __call__(self, view: AgentView, own: jax.Array, others: jax.Array) -> Any:
        """Touches every parameter; for initialisation."""
        return self.actor(view), self.values(view)

    def actor(self, view: AgentView) -> "distrax.Categorical":
        """π(.|s); unavailable actions have probability 0."""
        return distrax.Categorical(logits=jnp.where(view.masks[0], self.policy(view.features), UNAVAILABLE))

    def values(self, view: AgentView) -> jax.Array:
        """Both Q of every action, `(2, A)`."""
        return self.critic(view.features)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SAC(ActorCriticMethod):
    """Soft actor-critic (Haarnoja et al., 2018), each agent independently.

    The critics fit `y = r + γ [min Q^-(s',a') - α log π(a'|s')]`, a' drawn from π; the policy minimises
    `α log π(a|s) - min Q(s,a)`.

    Attributes:
        alpha: entropy weight.
    """

    alpha: Positive = 0.1

    continuous: ClassVar[bool] = True

    def network(self, game: GameSpec, hidden: tuple[int, ...]) -> SACNetworks:
        return SACNetworks(hidden)

    def explore(self, network: Any, view: AgentView, clock: Clock, key: jax.Array) -> jax.Array:
        """A sample `()` of the policy."""
        return network.policy(view.features).sample(seed=key)

    def exploit(self, network: Any, view: AgentView) -> jax.Array:
        """The policy's median `()`."""
        return network.policy.median(view.features)

    def loss(
        self, networks: Networks, transition: AgentTransition, gamma: float, clock: Clock, key: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        """The critics' squared errors and the policy's loss."""
        online, frozen, target = networks
        view, next_view = transition.view, transition.next_view
        next_key, key = jax.random.split(key)
        next_own, log_prob = frozen.policy(next_view.features).sample_and_log_prob(seed=next_key)
        next_value = jnp.min(target.values(next_view, next_own)) - self.alpha * log_prob
        y = td_target(transition.reward, transition.discount, gamma, next_value)
        critic_loss = jnp.sum(jnp.square(online.values(view, transition.own) - y))

        own, log_prob = online.policy(view.features).sample_and_log_prob(seed=key)
        q = jnp.min(frozen.values(view, own))
        policy_loss = self.alpha * log_prob - q
        return critic_loss + policy_loss, {"critic_loss": critic_loss, "mean_q": q, "entropy": -log_prob}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SACDiscrete(ActorCriticMethod):
    """Soft actor-critic with discrete actions (Christodoulou, 2019), each agent independently.

    Expectations over the agent's own actions are exact: the critics fit `y = r + γ V(s')` with
    `V(s) = Σ_a π(a|s) [min Q^-(s,a) - α log π(a|s)]`; the policy minimises
    `Σ_a π(a|s) [α log π(a|s) - min Q(s,a)]`.

    Attributes:
        alpha: entropy weight.
    """

    alpha: Positive = 0.1

    continuous: ClassVar[bool] = False

    def network(self, game: GameSpec, hidden: tuple[int, ...]) -> SACDiscreteNetworks:
        return SACDiscreteNetworks(hidden, game.num_actions)

    def explore(self, network: Any, view: AgentView, clock: Clock, key: jax.Array) -> jax.Array:
        """A sample `()` of the policy."""
        return sample_actions(key, network.actor(view))

    def exploit(self, network: Any, view: AgentView) -> jax.Array:
        """The policy's most probable action `()`."""
        return network.actor(view).mode()

    def loss(
        self, networks: Networks, transition: AgentTransition, gamma: float, clock: Clock, key: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        """The critics' squared errors and the policy's loss."""
        online, frozen, target = networks
        view, next_view = transition.view, transition.next_view
        lower = jnp.min(target.values(next_view), axis=0)  # (A,)
        next_value = soft_value(lower, frozen.actor(next_view).probs, self.alpha)
        y = td_target(transition.reward, transition.discount, gamma, next_value)
        critic_loss = jnp.sum(jnp.square(online.values(view)[:, transition.own] - y))

        actor = online.actor(view)
        lower = jnp.min(frozen.values(view), axis=0)
        value = soft_value(lower, actor.probs, self.alpha)
        return critic_loss - value, {"critic_loss": critic_loss, "mean_v": value, "entropy": actor.entropy()}
