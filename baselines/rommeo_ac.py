"""ROMMEO-AC (Tian et al., IJCAI 2019): first a model of the opponent, then a reply to it."""

import dataclasses
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from baselines.actor_critic import Annealed, Bound, Seen, Step
from envs.base import TeamEnvironment
from jaxmarl_fac.algorithm import Metrics
from jaxmarl_fac.networks import MLP, SquashedNormal, inside, joined
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

    def __call__(self, seen: Seen, own: jax.Array, others: jax.Array) -> Any:
        """Touches every parameter; for initialisation."""
        spread = [self.opponent.middle(seen.view), self.prior.middle(seen.view)]
        return spread, self.policy.middle(joined(seen.view, others)), self.value(seen, own, others[0])

    def reply(self, seen: Seen, other: jax.Array) -> Any:
        """π(a|s,b): the agent's distribution, knowing the other's action `()`."""
        return self.policy(joined(seen.view, other))

    def value(self, seen: Seen, own: jax.Array, other: jax.Array) -> jax.Array:
        """Q `()`."""
        return self.critic(joined(seen.view, own, other))[0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ROMMEOAC(Annealed):
    """ROMMEO's actor-critic: π(a|s,b) with entropy weight α, and ρ(b|s) held near the opponent's habits.

    Minimised are, with b drawn from ρ and a from π(.|s,b),

    - for the prior P: `-log P(b|s)` of the actions that the opponent took in the newest batch;
    - for ρ: `log ρ(b|s) - log P(b|s) + α log π(a|s,b) - Q(s,a,b)`;
    - for π: `α log π(a|s,b) - Q(s,a,b)`;
    - for Q: the squared error to `r + γ [Q^-(s',a',b') - α log π(a'|s',b') - log ρ(b'|s') + log P(b'|s')]`.

    The agent acts by drawing b from its model and its own action from the reply to that.
    """

    continuous: ClassVar[bool] = True
    models_others: ClassVar[bool] = True
    two_agents: ClassVar[bool] = True

    def network(self, env: TeamEnvironment) -> ROMMEONetworks:
        """The policy, the opponent model, its prior and the critic."""
        return ROMMEONetworks(self.hidden)

    def explore(self, network: Any, seen: Seen, epsilon: jax.Array, key: jax.Array) -> jax.Array:
        """A reply `()` to what the model draws."""
        other_key, own_key = jax.random.split(key)
        other = network.opponent(seen.view).sample(seed=other_key)
        return network.reply(seen, other).sample(seed=own_key)

    def exploit(self, network: Any, seen: Seen) -> jax.Array:
        """The median reply `()` to the model's median."""
        return network.policy.middle(joined(seen.view, network.opponent.middle(seen.view)))

    def loss(
        self, networks: Bound, step: Step, progress: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        """The losses of the critic, the opponent model and the policy."""
        online, frozen, target = networks
        alpha, keys = self.alpha(progress), jax.random.split(key, 4)

        next_other, log_model = frozen.opponent(step.next_seen.view).sample_and_log_prob(seed=keys[0])
        next_own, log_reply = frozen.reply(step.next_seen, next_other).sample_and_log_prob(seed=keys[1])
        log_prior = frozen.prior(step.next_seen.view).log_prob(inside(next_other))
        next_value = target.value(step.next_seen, next_own, next_other)
        next_value += log_prior - log_model - alpha * log_reply
        y = td_target(step.reward, step.discount, self.gamma, next_value)
        critic_loss = jnp.square(online.value(step.seen, step.own, step.others[0]) - y)

        other, log_model = online.opponent(step.seen.view).sample_and_log_prob(seed=keys[2])
        log_prior = frozen.prior(step.seen.view).log_prob(inside(other))
        own, log_reply = frozen.reply(step.seen, other).sample_and_log_prob(seed=keys[3])
        opponent_loss = log_model - log_prior + alpha * log_reply - frozen.value(step.seen, own, other)

        other = jax.lax.stop_gradient(other)
        own, log_reply = online.reply(step.seen, other).sample_and_log_prob(seed=keys[3])
        q = frozen.value(step.seen, own, other)
        policy_loss = alpha * log_reply - q

        metrics = {"critic_loss": critic_loss, "mean_q": q, "entropy": -log_reply}
        return critic_loss + opponent_loss + policy_loss, metrics

    def model_loss(self, network: Any, seen: Seen, others: jax.Array) -> jax.Array:
        """The prior's negative log-likelihood."""
        return -network.prior(seen.view).log_prob(inside(others[0]))
