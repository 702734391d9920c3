"""Weighted QMIX (arXiv 2006.10800) and ReMIX: QMIX whose squared errors have weights."""

import abc
import dataclasses
from typing import Annotated, Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from baselines.factored import QMIX, FactoredNetwork, Mixed, Mixing, mixer_inputs
from baselines.parts import Replay
from baselines.q_learning import QLearner, after_steps, before_steps
from envs.base import Observation
from envs.errors import BadInputError
from jaxmarl_fac.algorithm import Metrics
from jaxmarl_fac.experience import Trajectory, over_batch
from jaxmarl_fac.game import GameSpec
from jaxmarl_fac.memory import Episodes, Memory
from jaxmarl_fac.mixers import CentralMixer
from jaxmarl_fac.networks import over_time
from jaxmarl_fac.settings import Count, Positive, Probability, Settings, Widths, between
from jaxmarl_fac.values import chosen, greedy_actions, mask_unavailable, masked_mean
from jaxmarl_fac.weights import (
    central_weight,
    min_max_weights,
    optimistic_weight,
    remix_weight,
    shares_of_bins,
)

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
        return self.central_agent.unroll(trajectory)[0]  # type: ignore[no-any-return]

    def central_mix(self, utilities: jax.Array, actions: jax.Array, observation: Observation) -> jax.Array:
        """The unrestricted joint value `()` of the joint action `(n,)`."""
        return self.mix_by(self.central_mixer, utilities, actions, observation)

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


class WeightInputs(NamedTuple):
    """What the weight of one step's squared error may depend on."""

    q_tot: jax.Array  # ()
    target: jax.Array  # (), y
    actions: jax.Array  # (n,)
    greedy: jax.Array  # (n,), the greedy joint action
    central_value: jax.Array  # (), the unrestricted target value of the joint action
    central_greedy_value: jax.Array  # (), and of the greedy one
    policy: jax.Array  # (n,), of the chosen actions by a softmax of each agent's utilities
    slopes: jax.Array  # (n,), the derivatives of Q_tot by the chosen utilities


# Weightings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weighting(Settings, abc.ABC):
    """How squared errors are weighted."""

    @abc.abstractmethod
    def weight(self, step: WeightInputs) -> jax.Array:
        """How much the squared error of one step counts, `()`, without gradient."""

    def batch_weights(self, weights: jax.Array, mask: jax.Array) -> jax.Array:
        """The weights `(B, T)` that are used, when those of the whole batch are known."""
        return weights


@dataclasses.dataclass(frozen=True, kw_only=True)
class TwoWeights(Weighting):
    """Weighted QMIX's own weightings: 1, or something smaller.

    Attributes:
        alpha: the smaller weight; .1 on predator-prey, .5 on StarCraft.
    """

    alpha: Annotated[float, between(0, 1, open_low=True)] = 0.1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Central(TwoWeights):
    """CW-QMIX: full weight for the greedy joint action, and for actions valued above it."""

    def weight(self, step: WeightInputs) -> jax.Array:
        return central_weight(step.target, step.central_greedy_value, step.actions, step.greedy, self.alpha)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimistic(TwoWeights):
    """OW-QMIX: full weight where Q_tot is below the target."""

    def weight(self, step: WeightInputs) -> jax.Array:
        return optimistic_weight(step.q_tot, step.target, self.alpha)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegretMinimising(Weighting):
    """ReMIX: the weights of theorem 1, which minimise regret, spread over [w_min, 1] in every batch.

    The paper leaves open how: here the mixer's derivatives are exact (lemma 1 as printed is not) and
    clipped, so is the exponent, and overestimated steps get w_min. The factor d^pi / mu is emulated by
    drawing part of every batch from the newest episodes (`RecentReplay`).

    Attributes:
        w_min: the least weight.
        bellman: False leaves the factor `y - Q_tot` out, but keeps the condition that it is above 0.
        underestimation: False leaves the factor `exp(Q* - Q_tot)` out.
        gradient: False leaves the factor of the mixer's derivatives out.
        unit_mean: scale the weights of a batch to a mean of 1, as the theorem's constraint has it; this
            raises the effective learning rate.
    """

    w_min: Probability = 0.1
    bellman: bool = True
    underestimation: bool = True
    gradient: bool = True
    unit_mean: bool = False

    def weight(self, step: WeightInputs) -> jax.Array:
        """Theorem 1, before it is normalised."""
        return remix_weight(
            step.q_tot,
            step.target,
            step.central_value,
            step.policy,
            step.slopes,
            bellman=self.bellman,
            underestimation=self.underestimation,
            gradient=self.gradient,
        )

    def batch_weights(self, weights: jax.Array, mask: jax.Array) -> jax.Array:
        spread = min_max_weights(weights, mask, self.w_min)
        return spread / jnp.maximum(masked_mean(spread, mask), 1e-8) if self.unit_mean else spread


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecentReplay(Replay):
    """Replay of episodes, part of every batch from the newest ones, as ReMIX needs it.

    Attributes:
        consumes: as for all; transitions for a `recent_fraction` of 0 only.
        recent_fraction: share of a batch drawn from the newest episodes; 0 leaves the factor d^pi / mu out.
        recent_episodes: number of episodes that count as the newest.

    Raises:
        BadInputError: if part of a batch of transitions is to be recent.
    """

    consumes: Literal["transitions", "episodes"] = "episodes"  # type: ignore[assignment]
    recent_fraction: Probability = 0.5
    recent_episodes: Count = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.recent_fraction > 0 and self.consumes != "episodes":
            raise BadInputError(
                "recent_fraction above 0 draws whole episodes: set it to 0, or consume episodes"
            )

    def memory(self) -> Memory:
        if self.consumes != "episodes":
            return super().memory()
        return Episodes(self.replay_size, self.batch_size, self.recent_episodes, self.recent_fraction)


# The loss


class LossTerms(NamedTuple):
    """Terms of the loss: for every step of a trajectory `(T,)`, or of a batch of them `(B, T)`."""

    q_tot: jax.Array  # of the joint action taken
    target: jax.Array  # y, without gradient
    weight: jax.Array  # of the squared error, without gradient
    other: jax.Array  # losses besides the squared error


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weighted(Mixed):
    """`w (Q_tot - y)^2 + c (Q^ - y)^2`: a monotone and an unrestricted joint value of the same target.

    y bootstraps from the unrestricted target network `Q^^-`, at the joint action that is greedy by the
    utilities: of the online network (`double_q`, as in all releases), or of the target network, theta^-, as
    ReMIX's section 2.2 prints it. The joint action that a weighting calls greedy is always the online one's.

    Attributes:
        weighting: w.
        central_factor: c, of the unrestricted value's loss: 1/2 in PyMARL2 and so in ReMIX, 1 in Weighted
            QMIX's own release, which has one-step targets besides.
        central_hidden: hidden layers of the unrestricted mixer; its state value has the first width.
    """

    mixing: Mixing = QMIX()
    weighting: Weighting
    central_factor: Positive = 0.5
    central_hidden: Widths = (256, 256, 256)

    def network(self, game: GameSpec, learning: QLearner) -> WeightedNetwork:
        """QMIX's networks and the unrestricted ones."""
        central = CentralMixer(self.central_hidden, self.central_hidden[0])
        agent, central_agent = (learning.agents.network(game.num_actions) for _ in range(2))
        enumerate_joint = learning.few_joint_actions(game)
        return WeightedNetwork(agent, self.mixing.mixer(), enumerate_joint, central_agent, central)

    def joint_values(self, network: Any, observation: Observation, actions: jax.Array) -> Metrics:
        """`q_tot`, and the unrestricted joint value as `q_jt`."""
        q_jt = network.central_mix(network.central_utilities(observation), actions, observation)
        return {**super().joint_values(network, observation, actions), "q_jt": q_jt}

    def loss(self, online: Any, target: Any, batch: Trajectory, gamma: float) -> tuple[jax.Array, Metrics]:
        """A mean over the batch's steps."""
        terms = over_batch(lambda trajectory: self.terms(online, target, trajectory, gamma), batch)
        return self.combined(terms, batch.mask)

    def terms(self, online: Any, target: Any, trajectory: Trajectory, gamma: float) -> LossTerms:
        """The parts of the loss, for each step `(T,)` of one trajectory."""
        observations, utilities = trajectory.observation, online.unroll(trajectory)
        greedy = best_actions(utilities, observations)  # (T + 1, n)
        following_greedy = greedy if self.double_q else best_actions(target.unroll(trajectory), observations)
        q_tot = over_time(FactoredNetwork.mix, online, *at_taken(trajectory, utilities))
        central = at_taken(trajectory, online.central_unroll(trajectory))
        q_jt = over_time(WeightedNetwork.central_mix, online, *central)

        target_central = target.central_unroll(trajectory)

        def greedy_value(utilities: jax.Array, greedy: jax.Array, observations: Observation) -> jax.Array:
            return over_time(WeightedNetwork.central_mix_greedy, target, utilities, greedy, observations)

        following = greedy_value(target_central[1:], following_greedy[1:], after_steps(observations))
        y = self.targets(trajectory, following, gamma)
        now, actions, here = at_taken(trajectory, target_central)
        masked = mask_unavailable(utilities, observations.action_mask)[:-1]
        inputs = WeightInputs(
            q_tot=q_tot,
            target=y,
            actions=actions,
            greedy=greedy[:-1],
            central_value=over_time(WeightedNetwork.central_mix, target, now, actions, here),
            central_greedy_value=greedy_value(now, greedy[:-1], here),
            policy=jax.vmap(chosen)(jax.nn.softmax(masked), actions),
            slopes=over_time(WeightedNetwork.slopes, online, *at_taken(trajectory, utilities)),
        )
        weight = jax.vmap(self.weighting.weight)(jax.lax.stop_gradient(inputs))
        return LossTerms(q_tot, y, weight, self.central_factor * jnp.square(q_jt - y))

    def combined(self, terms: LossTerms, mask: jax.Array) -> tuple[jax.Array, Metrics]:
        """The loss `()` of a batch's terms `(B, T)`, a mean where the mask is 1, and what to log of it."""
        weights = self.weighting.batch_weights(terms.weight, mask)
        loss = masked_mean(weights * jnp.square(terms.q_tot - terms.target) + terms.other, mask)
        return loss, {
            "mean_q_tot": masked_mean(terms.q_tot, mask),
            "mean_weight": masked_mean(weights, mask),
            "weight_shares": shares_of_bins(weights, mask, WEIGHT_BINS),
            "central_loss": masked_mean(terms.other, mask),
        }


def best_actions(utilities: jax.Array, observations: Observation) -> jax.Array:
    """The greedy joint actions `(T, n)` of utilities `(T, n, A)`, ties to the lowest index."""
    return greedy_actions(mask_unavailable(utilities, observations.action_mask))


def at_taken(trajectory: Trajectory, utilities: jax.Array) -> tuple[jax.Array, jax.Array, Observation]:
    """Of the T steps that were taken: utilities, of `(T + 1, n, A)`, joint actions and observations."""
    return before_steps(utilities), trajectory.actions, before_steps(trajectory.observation)
