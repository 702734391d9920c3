"""Deep probabilistic Balancing-Q (thesis, section 3.5): the opponent's sign is a setting."""

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
from jaxmarl_fac.networks import MLP, FromZero
from jaxmarl_fac.soft.operators import log_mean_exp
from jaxmarl_fac.targets import td_target
from jaxmarl_fac.values import UNAVAILABLE


class BalancingNetworks(nn.Module):
    """π(a|s), ρ(b|s,a), Q(s,a,b) and V(s) of one agent, both agents with A actions."""

    hidden: tuple[int, ...]
    num_actions: int

    def setup(self) -> None:
        """The parts, named as in the parameters."""
        self.policy = FromZero(self.hidden, self.num_actions)
        self.opponent = FromZero(self.hidden, self.num_actions**2)
        self.critic = MLP(self.hidden, self.num_actions**2)
        self.value = MLP(self.hidden, 1)

    def __call__(self, seen: Seen, own: jax.Array, others: jax.Array) -> Any:
        """Touches every parameter; for initialisation."""
        return self.actor(seen), self.model(seen), self.q(seen), self.v(seen)

    def actor(self, seen: Seen) -> distrax.Categorical:
        """π(.|s)."""
        return distrax.Categorical(logits=jnp.where(seen.masks[0], self.policy(seen.view), UNAVAILABLE))

    def model(self, seen: Seen) -> distrax.Categorical:
        """ρ(.|s,a) for every a: `(A,)` distributions."""
        logits = self.opponent(seen.view).reshape(self.num_actions, self.num_actions)
        return distrax.Categorical(logits=jnp.where(seen.masks[1], logits, UNAVAILABLE))

    def q(self, seen: Seen) -> jax.Array:
        """Q `(A, A)`, in units of reward."""
        return self.critic(seen.view).reshape(self.num_actions, self.num_actions)

    def v(self, seen: Seen) -> jax.Array:
        """V `()`, in units of reward."""
        return self.value(seen.view)[0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class BalancingAC(ActorCritic):
    """Balancing-Q as an actor-critic (thesis, equations 3.55 to 3.60), for two agents with discrete actions.

    The agent plays first, π(a|s), and expects the other to answer, ρ(b|s,a), to its own ends: for the
    agent where β' > 0, against it where β' < 0, not at all at β' = 0. Networks learn in units of reward,
    so that β and β' may be 0; the thesis has `Q^{-i} = β' Q` and `V^i = β V`. With uniform priors P over
    the available actions, minimised are

    - (3.55) `(V(s) - E_π,ρ [Q(s,a,b) - log(ρ/P)/β' - log(π/P)/β])^2`;
    - (3.56) `(Q(s,a,b) - r - γ V^-(s'))^2` at the actions taken;
    - (3.57) `Σ_a KL(ρ(.|s,a) | P e^{β' Q(s,a,.)} / Z)`;
    - (3.60) `KL(π(.|s) | P e^{β m(s,.)} / Z)` with `m(s,a) = log Σ_b P(b) e^{β' Q(s,a,b)} / β'`, which is
      (3.59) with the expectation taken exactly; (3.58) is then not needed.

    The thesis lists the networks as π(a|s,b) and ρ(b|s), which are ROMMEO's; the derivation needs these.

    Attributes:
        beta_own: β, finite, of any sign.
        beta_other: β', finite, of any sign.
    """

    beta_own: float = 1.0
    beta_other: float = 1.0

    continuous: ClassVar[bool] = False
    two_agents: ClassVar[bool] = True
    critics: ClassVar[tuple[str, ...]] = ("critic", "value")

    def network(self, env: TeamEnvironment) -> BalancingNetworks:
        """The policy, the opponent model and both critics."""
        return BalancingNetworks(self.hidden, env.num_actions)

    def explore(self, network: Any, seen: Seen, epsilon: jax.Array, key: jax.Array) -> jax.Array:
        """A sample `()` of the policy."""
        return sample_actions(key, network.actor(seen))

    def exploit(self, network: Any, seen: Seen) -> jax.Array:
        """The policy's most probable action `()`."""
        return network.actor(seen).mode()

    def loss(
        self, networks: Bound, step: Step, progress: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        """The four networks' losses."""
        online, frozen, target = networks
        y = td_target(step.reward, step.discount, self.gamma, target.v(step.next_seen))
        q_loss = jnp.square(online.q(step.seen)[step.own, step.others[0]] - y)

        own_prior, other_prior = (uniform(mask) for mask in step.seen.masks)
        q, actor, model = frozen.q(step.seen), online.actor(step.seen), online.model(step.seen)
        own_surprise = actor.kl_divergence(own_prior)  # ()
        other_surprise = model.kl_divergence(other_prior)  # (A,), for every action of the agent
        # KL to the tilted prior, without its constant: it is bounded for every finite beta.
        model_loss = other_surprise - self.beta_other * jnp.sum(model.probs * q, axis=-1)  # (A,)
        m = log_mean_exp(q, other_prior.probs, self.beta_other)  # (A,)
        policy_loss = own_surprise - self.beta_own * jnp.sum(actor.probs * m)

        answered = jnp.sum(model.probs * q, axis=-1) - per(other_surprise, self.beta_other)  # (A,)
        value = jnp.sum(actor.probs * answered) - per(own_surprise, self.beta_own)
        v_loss = jnp.square(online.v(step.seen) - jax.lax.stop_gradient(value))

        loss = q_loss + v_loss + jnp.sum(jnp.where(step.seen.masks[0], model_loss, 0)) + policy_loss
        return loss, {"critic_loss": q_loss, "value_loss": v_loss, "mean_v": value}


def uniform(mask: jax.Array) -> distrax.Categorical:
    """The uniform distribution over the available actions of a mask `(A,)`."""
    return distrax.Categorical(logits=jnp.where(mask, 0.0, UNAVAILABLE))


def per(surprise: jax.Array, beta: float) -> jax.Array:
    """`surprise / beta`; nothing at 0, where a policy goes to its prior."""
    return surprise / beta if beta else jnp.zeros_like(surprise)
