"""Weighted QMIX: QMIX that looks less at joint actions which seem bad (arXiv 2006.10800)."""

import abc
import dataclasses
from typing import Annotated, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from baselines.factored import FactoredNetwork, Terms, best_actions, mixer_inputs, played
from baselines.q_learning import later
from baselines.qmix import QMIX
from envs.base import Observation, TeamEnvironment
from jaxmarl_fac.algorithm import Metrics, Params, Trajectory
from jaxmarl_fac.mixers import CentralMixer
from jaxmarl_fac.networks import over_time
from jaxmarl_fac.settings import Widths, between
from jaxmarl_fac.values import chosen, mask_unavailable, masked_mean
from jaxmarl_fac.weights import central_weight, optimistic_weight, shares_of_bins

#: Bins from 0 to 1 of the weights' histogram.
WEIGHT_BINS = 20


class WeightedNetwork(FactoredNetwork):
    """QMIX's networks, and agents and a mixer of their own for the unrestricted joint value."""

    central_agent: nn.Module
    central_mixer: nn.Module

    def __call__(self, observation: Observation) -> jax.Array:
        """Touches every parameter; for initialisation."""
        utilities = self.central_utilities(observation)
        actions = jnp.zeros(utilities.shape[0], jnp.int32)
        return super().__call__(observation) + self.central_mix(utilities, actions, observation)

    def central_utilities(self, observation: Observation) -> jax.Array:
        """What the unrestricted joint value is mixed from: `(n, A)`."""
        return self.central_agent(observation.agents_view)[0]  # type: ignore[no-any-return]

    def central_unroll(self, trajectory: Trajectory) -> jax.Array:
        """The same at each observation of a trajectory: `(T + 1, n, A)`."""
        agents_views = trajectory.observation.agents_view
        return self.central_agent.unroll(agents_views, trajectory.actions)[0]  # type: ignore[no-any-return]

    def central_mix(self, utilities: jax.Array, actions: jax.Array, observation: Observation) -> jax.Array:
        """The unrestricted joint value `()` of the joint action `(n,)`."""
        return self.mixed(self.central_mixer, utilities, actions, observation)

    def central_mix_greedy(
        self, utilities: jax.Array, greedy: jax.Array, observation: Observation
    ) -> jax.Array:
        """As `central_mix`, of the greedy joint action; see `mix_greedy`."""
        return self.central_mixer(mixer_inputs(utilities, greedy, observation))  # type: ignore[no-any-return]

    def slopes(self, utilities: jax.Array, actions: jax.Array, observation: Observation) -> jax.Array:
        """The derivatives `(n,)` of Q_tot by the utilities of the joint action `(n,)`."""
        inputs = mixer_inputs(utilities, actions, observation)
        mixer, variables = self.mixer.unbind()
        return jax.grad(lambda q: mixer.apply(variables, inputs._replace(utilities=q)))(inputs.utilities)


class Judgement(NamedTuple):
    """All by which one step may be weighted."""

    q_tot: jax.Array  # ()
    target: jax.Array  # (), y
    actions: jax.Array  # (n,)
    greedy: jax.Array  # (n,), the greedy joint action
    central_value: jax.Array  # (), the unrestricted target value of the joint action
    central_greedy_value: jax.Array  # (), and of the greedy one
    policy: jax.Array  # (n,), of the chosen actions by a softmax of each agent's utilities
    slopes: jax.Array  # (n,), the derivatives of Q_tot by the chosen utilities


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightedQMIX(QMIX):
    """`w (Q_tot - y)^2 + (Q^ - y)^2 / 2`: a monotone and an unrestricted joint value of the same target.

    y bootstraps from the unrestricted target network `Q^^-`, at the joint action that is greedy by the
    utilities. The one half is the release's.

    Attributes:
        central_hidden: hidden layers of the unrestricted mixer; its state value has the first width.
    """

    target_period: int = 200  # type: ignore[misc]
    central_hidden: Widths = (256, 256, 256)

    @abc.abstractmethod
    def weight(self, step: Judgement) -> jax.Array:
        """How much the squared error of one step counts, `()`, without gradient."""

    def network(self, env: TeamEnvironment) -> WeightedNetwork:
        """QMIX's networks and the unrestricted ones."""
        central = CentralMixer(self.central_hidden, self.central_hidden[0])
        return WeightedNetwork(
            self.agent(env), self.mixer(), self.few_joint_actions(env), self.agent(env), central
        )

    def joint_values(
        self, env: TeamEnvironment, params: Params, observation: Observation, actions: jax.Array
    ) -> Metrics:
        """`q_tot`, and the unrestricted joint value as `q_jt`."""
        network = self.network(env).bind(params)
        q_jt = network.central_mix(network.central_utilities(observation), actions, observation)
        return {**super().joint_values(env, params, observation, actions), "q_jt": q_jt}

    def terms(self, online: WeightedNetwork, target: WeightedNetwork, trajectory: Trajectory) -> Terms:
        """The parts of the loss, for each step `(T,)` of one trajectory."""
        observations, utilities = trajectory.observation, online.unroll(trajectory)
        judging = utilities if self.double_q else target.unroll(trajectory)
        greedy = best_actions(judging, observations)  # (T + 1, n)
        q_tot = over_time(FactoredNetwork.mix, online, *played(trajectory, utilities))
        central = played(trajectory, online.central_unroll(trajectory))
        q_jt = over_time(WeightedNetwork.central_mix, online, *central)

        target_central = target.central_unroll(trajectory)

        def greedy_value(utilities: jax.Array, greedy: jax.Array, seen: Observation) -> jax.Array:
            return over_time(WeightedNetwork.central_mix_greedy, target, utilities, greedy, seen)

        y = self.targets(trajectory, greedy_value(target_central[1:], greedy[1:], later(observations)))
        now, actions, seen = played(trajectory, target_central)
        masked = mask_unavailable(utilities, observations.action_mask)[:-1]
        judgement = Judgement(
            q_tot=q_tot,
            target=y,
            actions=actions,
            greedy=greedy[:-1],
            central_value=over_time(WeightedNetwork.central_mix, target, now, actions, seen),
            central_greedy_value=greedy_value(now, greedy[:-1], seen),
            policy=jax.vmap(chosen)(jax.nn.softmax(masked), actions),
            slopes=over_time(WeightedNetwork.slopes, online, *played(trajectory, utilities)),
        )
        weight = jax.vmap(self.weight)(jax.lax.stop_gradient(judgement))
        return Terms(q_tot, y, weight, 0.5 * jnp.square(q_jt - y))

    def combined(self, terms: Terms, mask: jax.Array) -> tuple[jax.Array, Metrics]:
        """As for all; logs the weights, with their histogram, and the unrestricted value's loss too."""
        loss, metrics = super().combined(terms, mask)
        weights = self.batch_weights(terms.weight, mask)
        more = {
            "mean_weight": masked_mean(weights, mask),
            "weight_shares": shares_of_bins(weights, mask, WEIGHT_BINS),
            "central_loss": masked_mean(terms.other, mask),
        }
        return loss, {**metrics, **more}


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Alpha:
    """What both of the paper's weightings have.

    Attributes:
        alpha: the smaller weight; .1 on predator-prey, .5 on StarCraft.
    """

    alpha: Annotated[float, between(0, 1, open_low=True)] = 0.1


@dataclasses.dataclass(frozen=True, kw_only=True)
class CWQMIX(_Alpha, WeightedQMIX):
    """Centrally weighted QMIX: all of the greedy joint action, and of what seems better than it."""

    def weight(self, step: Judgement) -> jax.Array:
        """1 or alpha."""
        return central_weight(step.target, step.central_greedy_value, step.actions, step.greedy, self.alpha)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OWQMIX(_Alpha, WeightedQMIX):
    """Optimistically weighted QMIX: all of what Q_tot underestimates."""

    def weight(self, step: Judgement) -> jax.Array:
        """1 or alpha."""
        return optimistic_weight(step.q_tot, step.target, self.alpha)
