"""TD3 and MATD3: deterministic policies that climb a critic which does not overestimate."""

import dataclasses

import jax
import jax.numpy as jnp

from baselines.actor_critic import AgentTransition, Networks
from baselines.ddpg import DDPG, DDPGNetworks
from jaxmarl_fac.algorithm import Metrics
from jaxmarl_fac.experience import Clock
from jaxmarl_fac.game import GameSpec
from jaxmarl_fac.networks import concat
from jaxmarl_fac.settings import Count, NotNegative
from jaxmarl_fac.targets import clipped_double_q_target, smoothed_actions


@dataclasses.dataclass(frozen=True, kw_only=True)
class TD3(DDPG):
    """Twin delayed DDPG (Fujimoto et al., 2018), each agent for itself.

    Twin critics fit `y = r + gamma min_k Q_k^-(s', a')`, where a' is the target policy's action with noise.
    The policy climbs Q_1; it and all targets move at every `actor_period`-th update only. With a
    `CentralCritic` this is MATD3 (Ackermann et al., 2019), where everybody's target actions have noise.

    Attributes:
        target_noise: standard deviation of that noise, where actions lie in [-1, 1].
        target_noise_clip: the largest such noise.
        actor_period: updates of the critics between those of the policy and of the targets.
    """

    target_noise: NotNegative = 0.2
    target_noise_clip: NotNegative = 0.5
    actor_period: Count = 2  # type: ignore[misc]

    def network(self, game: GameSpec, hidden: tuple[int, ...]) -> DDPGNetworks:
        return super().network(game, hidden).clone(twin=True)

    def loss(
        self, networks: Networks, transition: AgentTransition, gamma: float, clock: Clock, key: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        """Both critics' squared errors, and minus the first one's value of the policy's action."""
        online, frozen, target = networks
        view, next_view = transition.view, transition.next_view
        following = concat(transition.next_actions[0], self.critic.others_next(networks, transition))  # (n,)
        noise = self.target_noise * jax.random.normal(key, following.shape)
        following = smoothed_actions(following, noise, self.target_noise_clip)
        next_q = target.value(next_view, following[0], following[1:])  # (2,)
        y = clipped_double_q_target(transition.reward, transition.discount, gamma, next_q)
        q = online.value(view, transition.own, transition.others)  # (2,)
        critic_loss = jnp.sum(jnp.square(q - y))
        climbed = frozen.value(view, online.action(view), self.critic.others_now(networks, transition))[0]
        return critic_loss - climbed, {"critic_loss": critic_loss, "mean_q": climbed}
