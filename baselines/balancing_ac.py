"""Deep probabilistic Balancing-Q (thesis, section 3.5): the opponent's sign is a setting."""

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
from jaxmarl_fac.networks import MLP, ZeroInitMLP
from jaxmarl_fac.soft.operators import log_mean_exp
from jaxmarl_fac.targets import td_target
from jaxmarl_fac.values import UNAVAILABLE

if TYPE_CHECKING:
    import distrax
else:
    distrax = lazily("distrax")


class BalancingNetworks(nn.Module):
    """π(a|s), ρ(b|s,a), Q(s,a,b) and V(s) of one agent, both agents with A actions."""

    hidden: tuple[int, ...]
    num_actions: int

    def setup(self) -> None:
        """The parts, named as in the parameters."""
        self.policy = ZeroInitMLP(self.hidden, self.num_actions)
        self.opponent = ZeroInitMLP(self.hidden, self.num_actions**2)
        self.critic = MLP(self.hidden, self.num_actions**2)
        self.value = MLP(self.hidden, 1)

    def __call__(self, view: AgentView, own: jax.Array, others: jax.Array) -> Any:
        """Touches every parameter; for initialisation."""
        return self.actor(view), self.model(view), self.q(view), self.v(view)

    def actor(self, view: AgentView) -> "distrax.Categorical":
        """π(.|s)."""
        return distrax.Categorical(logits=jnp.where(view.masks[0], self.policy(view.features), UNAVAILABLE))

    def model(self, view: AgentView) -> "distrax.Categorical":
        """ρ(.|s,a) for every a: `(A,)` distributions."""
        logits = self.opponent(view.features).reshape(self.num_actions, self.num_actions)
        return distrax.Categorical(logits=jnp.where(view.masks[1], logits, UNAVAILABLE))

    def q(self, view: AgentView) -> jax.Array:
        """Q `(A, A)`, in units of reward."""
        return self.critic(view.features).reshape(self.num_actions, self.num_actions)

    def v(self, view: AgentView) -> jax.Array:
        """V `()`, in units of reward."""
        return self.value(view.features)[0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class BalancingAC(ActorCriticMethod):
    """Balancing-Q as an actor-critic (thesis, equations 3.55 to 3.60), for two agents with discrete actions.

    The agent acts first, π(a|s), and models the other's reply, ρ(b|s,a): cooperative where β' > 0,
    adversarial where β' < 0, and equal to its prior at β' = 0. Networks learn in units of reward, so that β
    and β' may be 0; the thesis has `Q^{-i} = β' Q` and `V^i = β V`. With uniform priors P over the available
    actions, the losses are

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
    critics: ClassVar[tuple[str, ...]] = ("critic", "value")

    @property
    def two_agents(self) -> bool:
        return True

    def network(self, game: GameSpec, hidden: tuple[int, ...]) -> BalancingNetworks:
        return BalancingNetworks(hidden, game.num_actions)

    def explore(self, network: Any, view: AgentView, clock: Clock, key: jax.Array) -> jax.Array:
        """A sample `()` of the policy."""
        return sample_actions(key, network.actor(view))

    def exploit(self, network: Any, view: AgentView) -> jax.Array:
        """The policy's most probable action `()`."""
        return network.actor(view).mode()

    def loss(
        self, networks: Networks, transition: AgentTransition, gamma: float, clock: Clock, key: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        """The four networks' losses."""
        online, frozen, target = networks
        view = transition.view
        y = td_target(transition.reward, transition.discount, gamma, target.v(transition.next_view))
        q_loss = jnp.square(online.q(view)[transition.own, transition.others[0]] - y)

        own_prior, other_prior = (uniform(mask) for mask in view.masks)
        q, actor, model = frozen.q(view), online.actor(view), online.model(view)
        own_kl = actor.kl_divergence(own_prior)  # ()
        other_kl = model.kl_divergence(other_prior)  # (A,), for every action of the agent
        # KL to the tilted prior, without its constant: it is bounded for every finite beta.
        model_loss = other_kl - self.beta_other * jnp.sum(model.probs * q, axis=-1)  # (A,)
        m = log_mean_exp(q, other_prior.probs, self.beta_other)  # (A,)
        policy_loss = own_kl - self.beta_own * jnp.sum(actor.probs * m)

        answered = jnp.sum(model.probs * q, axis=-1) - kl_over_beta(other_kl, self.beta_other)  # (A,)
        value = jnp.sum(actor.probs * answered) - kl_over_beta(own_kl, self.beta_own)
        v_loss = jnp.square(online.v(view) - jax.lax.stop_gradient(value))

        loss = q_loss + v_loss + jnp.sum(jnp.where(view.masks[0], model_loss, 0)) + policy_loss
        return loss, {"critic_loss": q_loss, "value_loss": v_loss, "mean_v": value}


def uniform(mask: jax.Array) -> "distrax.Categorical":
    """The uniform distribution over the available actions of a mask `(A,)`."""
    return distrax.Categorical(logits=jnp.where(mask, 0.0, UNAVAILABLE))


def kl_over_beta(kl: jax.Array, beta: float) -> jax.Array:
    """`kl / beta`; 0 at beta = 0, where a policy goes to its prior."""
    return kl / beta if beta else jnp.zeros_like(kl)
