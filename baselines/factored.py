"""Learners whose joint value is mixed from the agents' utilities. What differs is the mixer."""

import abc
import dataclasses
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from envs.base import Observation, TeamEnvironment
from jaxmarl_fac.algorithm import Metrics, Params, QLearner, Transition
from jaxmarl_fac.losses import chosen, greedy_actions, mask_unavailable, td_target
from jaxmarl_fac.networks import AgentNetwork


class FactoredNetwork(nn.Module):
    """An agent network and a mixer."""

    num_actions: int
    hidden: Sequence[int]
    mixer: nn.Module

    def setup(self) -> None:
        """The parts, named as in the parameters."""
        self.agent = AgentNetwork(self.num_actions, self.hidden)

    def __call__(self, observation: Observation) -> jax.Array:
        """Touches every parameter; for initialisation."""
        return self.mixer(self.utilities(observation)[:, 0], observation.global_state)

    def utilities(self, observation: Observation) -> jax.Array:
        """Q_i: `(n, A)`."""
        return self.agent(observation.agents_view)[0]

    def mix(self, utilities: jax.Array, observation: Observation) -> jax.Array:
        """Q_tot `()` of the chosen utilities `(n,)`."""
        return self.mixer(utilities, observation.global_state)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FactoredLearner(QLearner):
    """`(Q_tot(s, u) - y)^2` with `y = r + gamma Q_tot^-(s', u')` and u' greedy.

    Attributes:
        double_q: u' is greedy by the online network, as in PyMARL, or by the target network.
    """

    double_q: bool = True

    @abc.abstractmethod
    def mixer(self) -> nn.Module:
        """The module `(utilities (n,), global_state (S,)) -> ()` that makes this algorithm."""

    def network(self, env: TeamEnvironment) -> FactoredNetwork:
        """The agent network and the mixer."""
        return FactoredNetwork(env.num_actions, self.hidden, self.mixer())

    def joint_values(
        self, env: TeamEnvironment, params: Params, observation: Observation, actions: jax.Array
    ) -> Metrics:
        """`q_tot`."""
        network = self.network(env).bind(params)
        return {"q_tot": network.mix(chosen(network.utilities(observation), actions), observation)}

    def loss(
        self, online: FactoredNetwork, target: FactoredNetwork, transition: Transition
    ) -> tuple[jax.Array, Metrics]:
        """The squared TD error of one transition."""
        observation, following = transition.observation, transition.next_observation
        q_tot = online.mix(chosen(online.utilities(observation), transition.actions), observation)

        next_utilities = target.utilities(following)
        judge = online.utilities(following) if self.double_q else next_utilities
        best = greedy_actions(mask_unavailable(judge, following.action_mask))
        next_q_tot = target.mix(chosen(next_utilities, best), following)
        y = td_target(transition.reward, transition.discount, self.gamma, next_q_tot)
        return jnp.square(q_tot - y), {"mean_q_tot": q_tot}
