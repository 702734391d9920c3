"""DDPG, DDPG with an opponent model, and MADDPG: deterministic policies that climb a critic.

What differs is the input of the critic, and where the actions of the others come from.
"""

import dataclasses
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from baselines.actor_critic import ActionNoise, ActorCriticMethod, AgentTransition, AgentView, Networks
from jaxmarl_fac.algorithm import Metrics
from jaxmarl_fac.experience import Clock
from jaxmarl_fac.game import GameSpec
from jaxmarl_fac.networks import MLP, TwinMLP, ZeroInitMLP, concat
from jaxmarl_fac.settings import Settings
from jaxmarl_fac.targets import td_target


class DDPGNetworks(nn.Module):
    """A policy and a critic of one agent.

    Args:
        hidden: widths of both.
        centralised: the critic's input is the state and everybody's actions, not the agent's view and action.
        models: how many other agents a further network models; 0 for none.
        twin: two critics side by side instead of one.
    """

    hidden: tuple[int, ...]
    centralised: bool
    models: int = 0
    twin: bool = False

    def setup(self) -> None:
        """The parts, named as in the parameters."""
        self.policy = ZeroInitMLP(self.hidden, 1)
        self.critic = (TwinMLP if self.twin else MLP)(self.hidden, 1)
        if self.models:
            self.opponent = ZeroInitMLP(self.hidden, self.models)

    def __call__(self, view: AgentView, own: jax.Array, others: jax.Array) -> Any:
        """Touches every parameter; for initialisation."""
        return self.action(view), self.value(view, own, others), self.models and self.expected(view)

    def action(self, view: AgentView) -> jax.Array:
        """The agent's action `()`."""
        return jnp.tanh(self.policy(view.features)[0])

    def expected(self, view: AgentView) -> jax.Array:
        """The others' actions by the agent's model, `(n - 1,)`."""
        return jnp.tanh(self.opponent(view.features))

    def value(self, view: AgentView, own: jax.Array, others: jax.Array) -> jax.Array:
        """Q `()`; of twin critics `(2,)`."""
        inputs = concat(view.state, own, others) if self.centralised else concat(view.features, own)
        return self.critic(inputs)[..., 0]


# Critics as settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class CentralCritic(Settings):
    """Q of the state and all actions (MADDPG).

    The others' next actions are those of their own target policies; the policy is improved beside the
    actions that the others took in the sample.
    """

    centralised: ClassVar[bool] = True
    models_others: ClassVar[bool] = False

    def others_now(self, networks: Networks, transition: AgentTransition) -> jax.Array:
        """The others' actions `(n - 1,)` beside which the policy is improved."""
        return transition.others

    def others_next(self, networks: Networks, transition: AgentTransition) -> jax.Array:
        """The others' actions `(n - 1,)` in the next state."""
        return transition.next_actions[1:]


@dataclasses.dataclass(frozen=True, kw_only=True)
class OwnCritic(CentralCritic):
    """Q of the agent's view and its own action; the others' actions are not used (independent DDPG)."""

    centralised: ClassVar[bool] = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelCritic(CentralCritic):
    """Q of the state and all actions, the others' taken from a model of them (DDPG-OM).

    A third network fits the other's newest actions by least squares, and stands for the other in the critic's
    target and where the policy is improved.
    """

    models_others: ClassVar[bool] = True

    def others_now(self, networks: Networks, transition: AgentTransition) -> jax.Array:
        return networks.frozen.expected(transition.view)

    def others_next(self, networks: Networks, transition: AgentTransition) -> jax.Array:
        return networks.target.expected(transition.next_view)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DDPG(ActorCriticMethod):
    """Deterministic policies that climb a critic: DDPG (Lillicrap et al., 2016), MADDPG (Lowe et al., 2017).

    The critic fits `y = r + gamma Q^-(s', mu^-(s'))`; the policy climbs `Q(s, mu(s))`.

    Attributes:
        critic: what it takes, and where the others' actions come from.
        noise: exploration.
    """

    critic: CentralCritic = OwnCritic()
    noise: ActionNoise = ActionNoise()

    continuous: ClassVar[bool] = True

    @property
    def two_agents(self) -> bool:
        return self.critic.models_others

    @property
    def models_others(self) -> bool:
        return self.critic.models_others

    def network(self, game: GameSpec, hidden: tuple[int, ...]) -> DDPGNetworks:
        models = game.num_agents - 1 if self.critic.models_others else 0
        return DDPGNetworks(hidden, self.critic.centralised, models)

    def explore(self, network: Any, view: AgentView, clock: Clock, key: jax.Array) -> jax.Array:
        return self.noise.added_to(self.exploit(network, view), clock, key)

    def exploit(self, network: Any, view: AgentView) -> jax.Array:
        """The policy's action `()`."""
        return network.action(view)

    def loss(
        self, networks: Networks, transition: AgentTransition, gamma: float, clock: Clock, key: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        """The critic's squared error, and minus the value of the policy's action."""
        online, frozen, target = networks
        view, next_view, next_own = transition.view, transition.next_view, transition.next_actions[0]
        next_q = target.value(next_view, next_own, self.critic.others_next(networks, transition))
        y = td_target(transition.reward, transition.discount, gamma, next_q)
        critic_loss = jnp.square(online.value(view, transition.own, transition.others) - y)
        q = frozen.value(view, online.action(view), self.critic.others_now(networks, transition))
        return critic_loss - q, {"critic_loss": critic_loss, "mean_q": q}

    def model_loss(self, network: Any, view: AgentView, others: jax.Array) -> jax.Array:
        """The model's squared error."""
        return jnp.sum(jnp.square(network.expected(view) - others))
