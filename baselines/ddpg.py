"""DDPG, DDPG with an opponent model, and MADDPG: deterministic policies that climb a critic.

What differs is what the critic sees, and whose word the agent takes for what the others do.
"""

import dataclasses
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from baselines.actor_critic import Bound, NoisyActorCritic, Seen, Step
from envs.base import TeamEnvironment
from jaxmarl_fac.algorithm import Metrics
from jaxmarl_fac.networks import MLP, FromZero, joined
from jaxmarl_fac.targets import td_target


class DDPGNetworks(nn.Module):
    """A policy and a critic of one agent.

    Args:
        hidden: widths of both.
        centralised: the critic sees the state and everybody's actions, not the agent's view and its own.
        models: how many other agents a further network models; 0 for none.
    """

    hidden: tuple[int, ...]
    centralised: bool
    models: int = 0

    def setup(self) -> None:
        """The parts, named as in the parameters."""
        self.policy = FromZero(self.hidden, 1)
        self.critic = MLP(self.hidden, 1)
        if self.models:
            self.opponent = FromZero(self.hidden, self.models)

    def __call__(self, seen: Seen, own: jax.Array, others: jax.Array) -> Any:
        """Touches every parameter; for initialisation."""
        return self.action(seen), self.value(seen, own, others), self.models and self.expected(seen)

    def action(self, seen: Seen) -> jax.Array:
        """What the agent does, `()`."""
        return jnp.tanh(self.policy(seen.view)[0])

    def expected(self, seen: Seen) -> jax.Array:
        """What the agent expects of the others, `(n - 1,)`."""
        return jnp.tanh(self.opponent(seen.view))

    def value(self, seen: Seen, own: jax.Array, others: jax.Array) -> jax.Array:
        """Q `()`."""
        inputs = joined(seen.state, own, others) if self.centralised else joined(seen.view, own)
        return self.critic(inputs)[0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DDPG(NoisyActorCritic):
    """Independent DDPG (Lillicrap et al., 2016): the agent's critic knows nothing of the others.

    The critic fits `y = r + gamma Q^-(s', mu^-(s'))`; the policy climbs `Q(s, mu(s))`.
    """

    continuous: ClassVar[bool] = True
    centralised: ClassVar[bool] = False

    def network(self, env: TeamEnvironment) -> DDPGNetworks:
        """The policy and the critic."""
        return DDPGNetworks(self.hidden, self.centralised)

    def exploit(self, network: Any, seen: Seen) -> jax.Array:
        """The policy's action `()`."""
        return network.action(seen)

    def others_now(self, networks: Bound, step: Step) -> jax.Array:
        """The others' actions `(n - 1,)` beside which the policy is improved."""
        return step.others

    def others_next(self, networks: Bound, step: Step) -> jax.Array:
        """The others' actions `(n - 1,)` in the next state."""
        return step.next_actions[1:]

    def loss(
        self, networks: Bound, step: Step, progress: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        """The critic's squared error, and what the policy does not yet earn."""
        online, frozen, target = networks
        next_q = target.value(step.next_seen, step.next_actions[0], self.others_next(networks, step))
        y = td_target(step.reward, step.discount, self.gamma, next_q)
        critic_loss = jnp.square(online.value(step.seen, step.own, step.others) - y)
        q = frozen.value(step.seen, online.action(step.seen), self.others_now(networks, step))
        return critic_loss - q, {"critic_loss": critic_loss, "mean_q": q}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MADDPG(DDPG):
    """MADDPG (Lowe et al., 2017): a critic of the state and all actions, for each agent its own.

    The others' next actions are those of their own target policies; the policy is improved beside the
    actions that the others took in the sample.
    """

    centralised: ClassVar[bool] = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class DDPGOM(MADDPG):
    """DDPG with an opponent model: MADDPG that does not ask the others what they do.

    A third network fits the other's newest actions by least squares, and stands for the other in the critic's
    target and where the policy is improved.
    """

    models_others: ClassVar[bool] = True
    two_agents: ClassVar[bool] = True

    def network(self, env: TeamEnvironment) -> DDPGNetworks:
        """The policy, the critic and the opponent model."""
        return DDPGNetworks(self.hidden, self.centralised, models=env.num_agents - 1)

    def others_now(self, networks: Bound, step: Step) -> jax.Array:
        """What the model expects."""
        return networks.frozen.expected(step.seen)

    def others_next(self, networks: Bound, step: Step) -> jax.Array:
        """What the model expects."""
        return networks.target.expected(step.next_seen)

    def model_loss(self, network: Any, seen: Seen, others: jax.Array) -> jax.Array:
        """The model's squared error."""
        return jnp.sum(jnp.square(network.expected(seen) - others))
