"""ROMMEO-AC (Tian et al., IJCAI 2019): first a model of the opponent, then a reply to it."""

import dataclasses
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from baselines.actor_critic import ActorCriticMethod, AgentTransition, AgentView, Annealing, Networks
from jaxmarl_fac.algorithm import Metrics
from jaxmarl_fac.experience import Clock
from jaxmarl_fac.game import GameSpec
from jaxmarl_fac.networks import MLP, SquashedNormal, clip_to_support, concat
from jaxmarl_fac.targets import td_target


class ROMMEONetworks(nn.Module):
    """π(a|s,b), ρ(b|s), the opponent's prior P(b|s) and Q(s,a,b) of one agent."""

    hidden: tuple[int, ...]

    def setup(self) -> None:
        """The parts, named as in the parameters."""
        self.policy = SquashedNormal(self.hidden)
        self.opponent = SquashedNormal(self.hidden)
        self.prior = SquashedNormal(self.hidden)
        self.critic = MLP(self.hidden, 1)

    def __call__(self, view: AgentView, own: jax.Array, others: jax.Array) -> Any:
        """Touches every parameter; for initialisation."""
        medians = [self.opponent.median(view.features), self.prior.median(view.features)]
        return medians, self.policy.median(concat(view.features, others)), self.value(view, own, others[0])

    def reply(self, view: AgentView, other: jax.Array) -> Any:
        """π(a|s,b): the agent's distribution, knowing the other's action `()`."""
        return self.policy(concat(view.features, other))

    def value(self, view: AgentView, own: jax.Array, other: jax.Array) -> jax.Array:
        """Q `()`."""
        return self.critic(concat(view.features, own, other))[0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ROMMEOAC(ActorCriticMethod):
    """ROMMEO's actor-critic: π(a|s,b) with entropy weight α, and ρ(b|s) regularised towards the prior P(b|s).

    The losses, with b drawn from ρ and a from π(.|s,b), are

    - for the prior P: `-log P(b|s)` of the actions that the opponent took in the newest batch;
    - for ρ: `log ρ(b|s) - log P(b|s) + α log π(a|s,b) - Q(s,a,b)`;
    - for π: `α log π(a|s,b) - Q(s,a,b)`;
    - for Q: the squared error to `r + γ [Q^-(s',a',b') - α log π(a'|s',b') - log ρ(b'|s') + log P(b'|s')]`.

    To act, the agent draws b from its model, and its own action from π(.|s,b).

    Attributes:
        annealing: of the entropy weight α.
    """

    annealing: Annealing = Annealing()

    continuous: ClassVar[bool] = True

    @property
    def two_agents(self) -> bool:
        return True

    @property
    def models_others(self) -> bool:
        return True

    def network(self, game: GameSpec, hidden: tuple[int, ...]) -> ROMMEONetworks:
        return ROMMEONetworks(hidden)

    def explore(self, network: Any, view: AgentView, clock: Clock, key: jax.Array) -> jax.Array:
        """A reply `()` to a sample of the model."""
        other_key, own_key = jax.random.split(key)
        other = network.opponent(view.features).sample(seed=other_key)
        return network.reply(view, other).sample(seed=own_key)

    def exploit(self, network: Any, view: AgentView) -> jax.Array:
        """The median reply `()` to the model's median."""
        return network.policy.median(concat(view.features, network.opponent.median(view.features)))

    def loss(
        self, networks: Networks, transition: AgentTransition, gamma: float, clock: Clock, key: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        """The losses of the critic, the opponent model and the policy."""
        online, frozen, target = networks
        view, next_view = transition.view, transition.next_view
        alpha, keys = self.annealing.alpha(clock), jax.random.split(key, 4)

        next_other, log_model = frozen.opponent(next_view.features).sample_and_log_prob(seed=keys[0])
        next_own, log_reply = frozen.reply(next_view, next_other).sample_and_log_prob(seed=keys[1])
        log_prior = frozen.prior(next_view.features).log_prob(clip_to_support(next_other))
        next_value = target.value(next_view, next_own, next_other)
        next_value += log_prior - log_model - alpha * log_reply
        y = td_target(transition.reward, transition.discount, gamma, next_value)
        critic_loss = jnp.square(online.value(view, transition.own, transition.others[0]) - y)

        other, log_model = online.opponent(view.features).sample_and_log_prob(seed=keys[2])
        log_prior = frozen.prior(view.features).log_prob(clip_to_support(other))
        own, log_reply = frozen.reply(view, other).sample_and_log_prob(seed=keys[3])
        opponent_loss = log_model - log_prior + alpha * log_reply - frozen.value(view, own, other)

        other = jax.lax.stop_gradient(other)
        own, log_reply = online.reply(view, other).sample_and_log_prob(seed=keys[3])
        q = frozen.value(view, own, other)
        policy_loss = alpha * log_reply - q

        metrics = {"critic_loss": critic_loss, "mean_q": q, "entropy": -log_reply}
        return critic_loss + opponent_loss + policy_loss, metrics

    def model_loss(self, network: Any, view: AgentView, others: jax.Array) -> jax.Array:
        """The prior's negative log-likelihood."""
        return -network.prior(view.features).log_prob(clip_to_support(others[0]))
