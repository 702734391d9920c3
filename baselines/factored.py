"""Methods whose joint value is mixed from the agents' utilities: VDN, QMIX, Qatten and QPLEX."""

import abc
import dataclasses
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from baselines.q_learning import AgentsNetwork, LambdaMethod, QLearning, after_steps, before_steps
from envs.base import Observation
from jaxmarl_fac.algorithm import Metrics
from jaxmarl_fac.experience import Trajectory, over_batch
from jaxmarl_fac.game import GameSpec
from jaxmarl_fac.mixers import MixerInputs, QattenMixer, QMixer, QPlexMixer, VDNMixer
from jaxmarl_fac.networks import over_time
from jaxmarl_fac.settings import AnyWidths, Count, Settings
from jaxmarl_fac.values import chosen, greedy_actions, mask_unavailable, masked_mean

# Networks


class FactoredNetwork(AgentsNetwork):
    """An agent network and a mixer.

    Args:
        agent: see `AgentsNetwork`.
        mixer: `MixerInputs -> ()`.
        enumerate_joint: mix all A^n joint actions and select, which pays where all samples share one
            observation and are more than these.
    """

    mixer: nn.Module
    enumerate_joint: bool

    def __call__(self, observation: Observation) -> jax.Array:
        """Touches every parameter; for initialisation."""
        utilities = self.utilities(observation)
        return self.mix(utilities, jnp.zeros(utilities.shape[0], jnp.int32), observation)

    def mix(self, utilities: jax.Array, actions: jax.Array, observation: Observation) -> jax.Array:
        """Q_tot `()` of the joint action `(n,)`, from utilities `(n, A)`."""
        return self.mix_by(self.mixer, utilities, actions, observation)

    def mix_greedy(self, utilities: jax.Array, greedy: jax.Array, observation: Observation) -> jax.Array:
        """As `mix`, of the greedy joint action; samples that share an observation share it too."""
        return self.mixer(mixer_inputs(utilities, greedy, observation))  # type: ignore[no-any-return]

    def mix_by(
        self, mixer: nn.Module, utilities: jax.Array, actions: jax.Array, observation: Observation
    ) -> jax.Array:
        """What a mixer makes of the joint action `(n,)`: `()`."""
        if not self.enumerate_joint:
            return mixer(mixer_inputs(utilities, actions, observation))  # type: ignore[no-any-return]
        n, count = utilities.shape
        joints = jnp.indices((count,) * n).reshape(n, -1).T  # (A^n, n)
        # What does not depend on the joint action is computed once.
        axes = MixerInputs(0, None, 0, None, None)  # type: ignore[arg-type]
        inputs = jax.vmap(mixer_inputs, (None, 0, None), axes)(utilities, joints, observation)
        each = nn.vmap(
            lambda mixer, inputs: mixer(inputs),
            variable_axes={"params": None},
            split_rngs={"params": False},
            in_axes=(axes,),
        )
        return jnp.sum(jnp.where(jnp.all(joints == actions, axis=1), each(mixer, inputs), 0))


def mixer_inputs(utilities: jax.Array, actions: jax.Array, observation: Observation) -> MixerInputs:
    """What a mixer may depend on in one step: utilities `(n, A)`, not yet masked, and actions `(n,)`."""
    return MixerInputs(
        utilities=chosen(utilities, actions),
        best_utilities=jnp.max(mask_unavailable(utilities, observation.action_mask), axis=-1),
        actions=jax.nn.one_hot(actions, utilities.shape[-1]),
        agents_view=observation.agents_view,
        global_state=observation.global_state,
    )


# Mixers as settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixing(Settings, abc.ABC):
    """Which mixer makes the joint value, and its settings."""

    #: Whether evaluating it is costly enough to enumerate joint actions where they are few.
    costly: ClassVar[bool] = False

    @abc.abstractmethod
    def mixer(self) -> nn.Module:
        """The module `MixerInputs -> ()`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class VDN(Mixing):
    """Value decomposition: `Q_tot = sum_i Q_i` (Sunehag et al., 2018)."""

    def mixer(self) -> VDNMixer:
        return VDNMixer()


@dataclasses.dataclass(frozen=True, kw_only=True)
class QMIX(Mixing):
    """Monotone mixing: `Q_tot = f(Q_1, ..., Q_n; s)`, by hypernetworks (Rashid et al., 2018).

    Attributes:
        mixer_embed: width of the mixer's one hidden layer.
        hypernet_hidden: hidden layers of the hypernetworks: () is the first paper's one linear layer,
            (64,) is PyMARL2's.
    """

    mixer_embed: Count = 32
    hypernet_hidden: AnyWidths = ()

    def mixer(self) -> QMixer:
        return QMixer(self.mixer_embed, self.hypernet_hidden)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Qatten(Mixing):
    """Attention over agents: `Q_tot = sum_h w_h(s) sum_i alpha_hi(s) Q_i + c(s)` (arXiv 2002.03939).

    Attributes:
        heads: of attention.
        head_embed: length of their keys and queries.
    """

    heads: Count = 4
    head_embed: Count = 32

    def mixer(self) -> QattenMixer:
        return QattenMixer(self.heads, self.head_embed)


@dataclasses.dataclass(frozen=True, kw_only=True)
class QPLEX(Mixing):
    """Duplex dueling: `Q_tot = sum_i V_i + sum_i lambda_i(s, u) A_i`, with lambda_i > 0 (arXiv 2008.01062).

    Attributes:
        kernels: summands of lambda_i: 10 for the paper's matrix games, 4 for StarCraft.
        kernel_hidden: hidden layers of their networks.
        weighted_head: transform the utilities by `w_i(s) Q_i + b_i(s)` first.
        stop_gradient: hold the advantages constant beside lambda_i; utilities then learn as VDN's do.
        minus_one: False makes the advantages weigh `1 + lambda_i`; both are the release's switches.
    """

    kernels: Count = 10
    kernel_hidden: AnyWidths = (64, 64)
    weighted_head: bool = True
    stop_gradient: bool = True
    minus_one: bool = True

    costly: ClassVar[bool] = True

    def mixer(self) -> QPlexMixer:
        return QPlexMixer(
            self.kernels,
            self.kernel_hidden,
            weighted_head=self.weighted_head,
            stop_gradient=self.stop_gradient,
            minus_one=self.minus_one,
        )


# The loss


class LossTerms(NamedTuple):
    """What the loss is made of: for every step of a trajectory `(T,)`, or of a batch of them `(B, T)`."""

    q_tot: jax.Array  # of the joint action that was played
    target: jax.Array  # y, without gradient
    weight: jax.Array  # of the squared error, without gradient
    other: jax.Array  # losses besides the squared error


@dataclasses.dataclass(frozen=True, kw_only=True)
class Factored(LambdaMethod):
    """`(Q_tot(s, u) - y)^2` with `y = r + gamma Q_tot^-(s', u')` and u' greedy, or its TD(lambda) form.

    Attributes:
        mixing: the mixer.
        double_q: u' is greedy by the online network, as in PyMARL, or by the target network.
    """

    mixing: Mixing
    double_q: bool = True

    def network(self, game: GameSpec, learning: QLearning) -> FactoredNetwork:
        """The agent network and the mixer."""
        enumerate_joint = self.mixing.costly and learning.few_joint_actions(game)
        return FactoredNetwork(
            learning.agents.network(game.num_actions), self.mixing.mixer(), enumerate_joint
        )

    def joint_values(self, network: Any, observation: Observation, actions: jax.Array) -> Metrics:
        """`q_tot`."""
        return {"q_tot": network.mix(network.utilities(observation), actions, observation)}

    def terms(self, online: Any, target: Any, trajectory: Trajectory, gamma: float) -> LossTerms:
        """The parts of the loss, for each step `(T,)` of one trajectory."""
        observations, utilities = trajectory.observation, online.unroll(trajectory)
        target_utilities = target.unroll(trajectory)
        greedy = best_actions(utilities if self.double_q else target_utilities, observations)
        q_tot = over_time(FactoredNetwork.mix, online, *at_taken(trajectory, utilities))
        next_q_tot = over_time(
            FactoredNetwork.mix_greedy, target, target_utilities[1:], greedy[1:], after_steps(observations)
        )
        y = self.targets(trajectory, next_q_tot, gamma)
        return LossTerms(q_tot, y, jnp.ones_like(y), jnp.zeros_like(y))

    def batch_weights(self, weights: jax.Array, mask: jax.Array) -> jax.Array:
        """The weights `(B, T)` of a batch's squared errors, when all of its `LossTerms.weight` are known."""
        return weights

    def loss(self, online: Any, target: Any, batch: Trajectory, gamma: float) -> tuple[jax.Array, Metrics]:
        """A mean over the batch's steps."""
        terms = over_batch(lambda trajectory: self.terms(online, target, trajectory, gamma), batch)
        return self.combined(terms, batch.mask)

    def combined(self, terms: LossTerms, mask: jax.Array) -> tuple[jax.Array, Metrics]:
        """The loss `()` of a batch's terms `(B, T)`, a mean where the mask is 1, and what to log of it."""
        weights = self.batch_weights(terms.weight, mask)
        loss = masked_mean(weights * jnp.square(terms.q_tot - terms.target) + terms.other, mask)
        return loss, {"mean_q_tot": masked_mean(terms.q_tot, mask)}


def best_actions(utilities: jax.Array, observations: Observation) -> jax.Array:
    """The greedy joint actions `(T, n)` of utilities `(T, n, A)`, ties to the lowest index."""
    return greedy_actions(mask_unavailable(utilities, observations.action_mask))


def at_taken(trajectory: Trajectory, utilities: jax.Array) -> tuple[jax.Array, jax.Array, Observation]:
    """Of the T steps that were taken: utilities, of `(T + 1, n, A)`, joint actions and observations."""
    return before_steps(utilities), trajectory.actions, before_steps(trajectory.observation)
