"""Methods whose joint value is mixed from the agents' utilities: VDN, QMIX, Qatten and QPLEX."""

import abc
import dataclasses
from typing import Annotated, Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from baselines.q_learning import AgentsNetwork, LambdaMethod, QLearner, StepMethod
from envs.base import Observation
from envs.errors import BadInputError
from jaxmarl_fac.algorithm import Metrics
from jaxmarl_fac.game import GameSpec
from jaxmarl_fac.mixers import MixerInputs, QattenMixer, QMixer, QPlexMixer, VDNMixer
from jaxmarl_fac.settings import AnyWidths, Count, NotNegative, OffOrAbove, Settings, at_least
from jaxmarl_fac.values import chosen, greedy_actions, mask_unavailable

# Networks


class FactoredNetwork(AgentsNetwork):
    """An agent network and a mixer.

    Args:
        agent: see `AgentsNetwork`.
        mixer: `MixerInputs -> ()`.
        enumerate_joint: mix all A^n joint actions and select, which is cheaper if all samples share one
            observation and outnumber them.
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
        """The output `()` of a mixer for the joint action `(n,)`."""
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
    """Which mixer computes the joint value, and its settings."""

    #: Whether evaluating it is costly enough to enumerate joint actions where they are few.
    costly: ClassVar[bool] = False

    @abc.abstractmethod
    def mixer(self) -> nn.Module:
        """The module `MixerInputs -> ()`."""

    def penalty(self, mixer: Any, inputs: MixerInputs) -> jax.Array | float:
        """What `Factored` adds to the loss of a step, `()`, of the mixer bound to the learning parameters."""
        return 0.0


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
        mixer_activation: of the mixer's hidden layer: ELU, as QMIX's paper has it, or ReLU, which QTRAN's
            paper says that all its networks have (section C.2).
        mixer_init_scale: the mixer's weights start orthogonal times this; 0 leaves them flax's own start.
            JaxMARL has .001: Q_tot starts near 0, without which its learning rate on MPE, 5e-3, is too large.
    """

    mixer_embed: Count = 32
    hypernet_hidden: AnyWidths = ()
    mixer_activation: Literal["elu", "relu"] = "elu"
    mixer_init_scale: OffOrAbove = 0.0

    def mixer(self) -> QMixer:
        return QMixer(self.mixer_embed, self.hypernet_hidden, self.mixer_activation, self.mixer_init_scale)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Qatten(Mixing):
    """Attention over agents: `Q_tot = sum_h w_h(s) sum_i alpha_hi(s) Q_i + c(s)` (arXiv 2002.03939).

    Attributes:
        heads: of attention.
        head_embed: length of their keys and queries.
        query_per_head: whether each head's query has a hidden layer of its own, as in PyMARL2, or all share
            one.
    """

    heads: Count = 4
    head_embed: Count = 32
    query_per_head: bool = False

    def mixer(self) -> QattenMixer:
        return QattenMixer(self.heads, self.head_embed, query_per_head=self.query_per_head)


@dataclasses.dataclass(frozen=True, kw_only=True)
class QPLEX(Mixing):
    """Duplex dueling: `Q_tot = sum_i V_i + sum_i lambda_i(s, u) A_i`, with lambda_i > 0 (arXiv 2008.01062).

    Attributes:
        kernels: summands of lambda_i: 10 for the paper's matrix games, 4 for StarCraft.
        kernel_hidden: hidden layers of their networks: (64, 64) for the matrix games, (64,) in PyMARL2.
        weighted_head: transform the utilities by `w_i(s) Q_i + b_i(s)` first.
        attention_heads: number of heads of Qatten's attention, which makes w_i, with `b_i = b(s) / n`; 4 in
            the release's variant for StarCraft (`qplex_qatten_sc2`). 0 makes them by networks of their own.
        attention_embed: length of the attention's keys and queries.
        attention_penalty: weight in the loss of the squared logits, summed over heads, mean over agents (the
            release's `attend_reg_coef`).
        stop_gradient: hold the advantages constant beside lambda_i; utilities then learn as VDN's do. The
            release always does: it has a switch of this name, which none of its code reads.
        minus_one: False makes the advantages weigh `1 + lambda_i` (the release's `is_minus_one`).

    Raises:
        BadInputError: for attention heads without `weighted_head`, which they are for.
    """

    kernels: Count = 10
    kernel_hidden: AnyWidths = (64, 64)
    weighted_head: bool = True
    attention_heads: Annotated[int, at_least(0, "0 (no attention) or above")] = 0
    attention_embed: Count = 32
    attention_penalty: NotNegative = 1e-3
    stop_gradient: bool = True
    minus_one: bool = True

    costly: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.attention_heads and not self.weighted_head:
            raise BadInputError(
                "attention_heads make w_i, which is left out without weighted_head: set one of them"
            )

    def mixer(self) -> QPlexMixer:
        return QPlexMixer(
            self.kernels,
            self.kernel_hidden,
            weighted_head=self.weighted_head,
            attention_heads=self.attention_heads,
            attention_embed=self.attention_embed,
            stop_gradient=self.stop_gradient,
            minus_one=self.minus_one,
        )

    def penalty(self, mixer: QPlexMixer, inputs: MixerInputs) -> jax.Array | float:
        if not self.attention_heads:
            return 0.0
        return self.attention_penalty * mixer.squared_logits(inputs)


# The loss


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixed(LambdaMethod):
    """A method with a mixer.

    Attributes:
        mixing: the mixer.
        double_q: u' is greedy by the online network, as in PyMARL, or by the target network.
    """

    mixing: Mixing
    double_q: bool = True

    def joint_values(self, network: Any, observation: Observation, actions: jax.Array) -> Metrics:
        """`q_tot`."""
        return {"q_tot": network.mix(network.utilities(observation), actions, observation)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Factored(Mixed, StepMethod):
    """`(Q_tot(s, u) - y)^2` with `y = r + gamma Q_tot^-(s', u')` and u' greedy, or its TD(lambda) form.

    The mixer's penalty, if it has one, is added.
    """

    def network(self, game: GameSpec, learning: QLearner) -> FactoredNetwork:
        """The agent network and the mixer."""
        enumerate_joint = self.mixing.costly and learning.few_joint_actions(game)
        return FactoredNetwork(
            learning.agents.network(game.num_actions), self.mixing.mixer(), enumerate_joint
        )

    def next_value(
        self, target: Any, features: jax.Array, target_features: jax.Array, observation: Observation
    ) -> jax.Array:
        """Q_tot^- `()` of the greedy joint action."""
        selector = features if self.double_q else target_features
        greedy = greedy_actions(mask_unavailable(selector, observation.action_mask))
        return target.mix_greedy(target_features, greedy, observation)  # type: ignore[no-any-return]

    def step_loss(
        self, online: Any, features: jax.Array, observation: Observation, actions: jax.Array, y: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        q_tot = online.mix(features, actions, observation)
        penalty = self.mixing.penalty(online.mixer, mixer_inputs(features, actions, observation))
        return jnp.square(q_tot - y) + penalty, {"mean_q_tot": q_tot}
