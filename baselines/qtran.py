"""QTRAN-base and QTRAN-alt (Son et al., 2019): an unrestricted joint value, tracked by a sum of utilities."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from baselines.q_learning import AgentsNetwork, QLearner, StepMethod
from envs.base import Observation
from jaxmarl_fac.algorithm import Metrics
from jaxmarl_fac.experience import Trajectory
from jaxmarl_fac.game import GameSpec
from jaxmarl_fac.losses import qtran_nopt_loss, qtran_nopt_min_loss, qtran_opt_loss, qtran_td_loss
from jaxmarl_fac.networks import MLP, over_time
from jaxmarl_fac.products import Dense
from jaxmarl_fac.settings import NotNegative, Widths
from jaxmarl_fac.values import chosen, greedy_actions, mask_unavailable


class Features(NamedTuple):
    """Outputs of the lower layers for one observation."""

    utilities: jax.Array  # (n, A), Q_i
    q_features: jax.Array  # (n, A, H), h_{Q,i}(tau_i, u_i) for every action
    v_features: jax.Array  # (n, H), h_{V,i}(tau_i)
    global_state: jax.Array  # (S,)
    q_jt: jax.Array | None  # (A^n,) or (A^n, n, A): joint values of all joint actions, if they are few


class QTranNetwork(AgentsNetwork):
    """The three estimators of QTRAN, section 3.2, on shared lower layers.

    Args:
        agent: see `AgentsNetwork`.
        num_actions: A.
        width: H, of the features.
        joint_hidden: widths of the joint network and of the state-value network.
        global_state: whether these two see the global state; see `QTranBase`.
        counterfactual: False gives QTRAN-base's `Q_jt(tau, u)`, True QTRAN-alt's `Q_jt(tau, ., u_-i)`.
        state_value: False leaves V_jt out, as Theorem 1a allows where all is observed.
        aggregate: "sum" (paper) or "mean" (release) of the agents' features.
        enumerate_joint: True computes the joint values of all A^n joint actions with the features, which is
            cheaper if all samples share one observation and outnumber these.
    """

    num_actions: int
    width: int
    joint_hidden: Sequence[int]
    global_state: bool
    counterfactual: bool
    state_value: bool
    aggregate: str
    enumerate_joint: bool

    def setup(self) -> None:
        """The parts, named as in the parameters."""
        self.q_feature = Dense(self.width)
        self.action_embedding = Dense(self.width, use_bias=False)
        if self.global_state:
            self.q_encoding = Dense(self.width)
        self.v_feature = Dense(self.width)
        if self.counterfactual:
            # One layer over (s, h_V, h_Q of the others), or without s, in two parts: where the observation is
            # the same for all samples, the first part is computed once.
            self.joint_v = Dense(self.joint_hidden[0])
            self.joint_others = Dense(self.joint_hidden[0], use_bias=False)
            self.joint = MLP(self.joint_hidden[1:], self.num_actions)
        else:
            self.joint = MLP(self.joint_hidden, 1)
        if self.state_value:
            self.value = MLP(self.joint_hidden, 1)

    def __call__(self, observation: Observation) -> tuple[Features, jax.Array, jax.Array]:
        """Touches every parameter; for initialisation."""
        features = self.encode(observation)
        actions = jnp.zeros(features.utilities.shape[0], jnp.int32)
        return features, self.q_jt(features, actions), self.v_jt(features)

    def encode(self, observation: Observation) -> Features:
        """All that does not depend on the joint action."""
        utilities, hidden = self.agent(observation.agents_view)
        return self._features(utilities, hidden, observation.global_state)

    def unroll(self, trajectory: Trajectory) -> Features:
        """The same at each of a trajectory's observations."""
        steps = (*self.agent.unroll(trajectory), trajectory.observation.global_state)
        return over_time(QTranNetwork._features, self, *steps, freeze_last=True)  # type: ignore[no-any-return]

    def _features(self, utilities: jax.Array, hidden: jax.Array, global_state: jax.Array) -> Features:
        actions = self.action_embedding(jnp.eye(self.num_actions))  # (A, H)
        q_features = nn.relu(self.q_feature(hidden)[:, None] + actions)  # (n, A, H)
        if self.global_state:
            q_features = self.q_encoding(q_features)
        needs_v = self.counterfactual or (self.state_value and not self.global_state)
        v_features = nn.relu(self.v_feature(hidden)) if needs_v else jnp.zeros_like(hidden)
        features = Features(utilities, q_features, v_features, global_state, None)
        if not self.enumerate_joint:
            return features
        n = utilities.shape[0]
        hot = jnp.eye(self.num_actions)[jnp.indices((self.num_actions,) * n).reshape(n, -1).T]  # (A^n, n, A)
        return features._replace(q_jt=self._joint(features, hot))

    def q_jt(self, features: Features, actions: jax.Array) -> jax.Array:
        """Joint values of the joint action `(n,)`.

        QTRAN-base: `()`. QTRAN-alt: `(n, A)`, where row i holds `Q_jt(tau, u_i, u_-i)` for every u_i.
        """
        hot = jax.nn.one_hot(actions, self.num_actions)  # (n, A)
        if features.q_jt is None:
            return self._joint(features, hot)
        joint_hot = functools.reduce(jnp.multiply.outer, hot).reshape(-1)  # (A^n,)
        return jnp.tensordot(joint_hot, features.q_jt, axes=1)

    def _joint(self, features: Features, hot: jax.Array) -> jax.Array:
        """`q_jt` of one-hot joint actions `(..., n, A)`."""
        n = hot.shape[-2]
        if not self.counterfactual:
            total = jnp.einsum("...na,nah->...h", hot, features.q_features)
            total = total / n if self.aggregate == "mean" else total
            return self.joint(self._with_state(features, total))[..., 0]
        taken = jnp.einsum("...na,nah->...nh", hot, features.q_features)
        others = jnp.sum(taken, axis=-2, keepdims=True) - taken  # (..., n, H)
        others = others / (n - 1) if self.aggregate == "mean" else others
        own = self.joint_v(self._with_state(features, features.v_features))  # (n, ...)
        return self.joint(nn.relu(own + self.joint_others(others)))

    def _with_state(self, features: Features, inputs: jax.Array) -> jax.Array:
        """A joint network's inputs `(..., H)`, behind the global state `(S,)` if it sees that."""
        if not self.global_state:
            return inputs
        state = jnp.broadcast_to(features.global_state, (*inputs.shape[:-1], *features.global_state.shape))
        return jnp.concatenate([state, inputs], axis=-1)

    def v_jt(self, features: Features) -> jax.Array:
        """The regularising state value `()`; 0 where it is left out."""
        if not self.state_value:
            return jnp.zeros(())
        if self.global_state:
            return self.value(features.global_state)[0]
        combine = jnp.mean if self.aggregate == "mean" else jnp.sum
        return self.value(combine(features.v_features, axis=0))[0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class QTranBase(StepMethod):
    """A free joint value, and utilities whose sum equals it at their greedy joint action (section 3.3).

    The loss is `L_td + opt_weight L_opt + nopt_weight L_nopt`: the joint value is learned by itself; the
    sum of the utilities has to equal it at their greedy joint action, and to lie above it elsewhere.
    The paper's version is the default; the fields marked "release" switch to what the authors' code does.
    Its joint networks see the agents' features alone; in PyMARL's port they see the global state too.

    Attributes:
        opt_weight: lambda_opt.
        nopt_weight: lambda_nopt. PyMARL's port has 0.1.
        joint_hidden: widths of the joint network and of the state-value network.
        global_state: whether these see the global state s, as in PyMARL's port: `Q_jt(s, sum_i f(h_i, u_i))`,
            where f has two layers as wide as its inputs, and `V_jt(s)`. In QTRAN-alt, which the port does not
            have, s stands beside h_V,i.
        state_value: V_jt: "auto" leaves it out where all is observed (Theorem 1a), "on", "off".
        aggregate: how agents' features combine; "mean" is the release's.
        target: what bootstraps: the target network's joint value "q_jt", or "q_prime", the sum of its
            best utilities, which is the release's.
        double_q: the next joint action is greedy by the online network, as in PyMARL's port, or by the
            target network.
    """

    opt_weight: NotNegative = 1.0
    nopt_weight: NotNegative = 1.0
    joint_hidden: Widths = (32, 32)
    global_state: bool = False
    state_value: Literal["auto", "on", "off"] = "auto"
    aggregate: Literal["sum", "mean"] = "sum"
    target: Literal["q_jt", "q_prime"] = "q_jt"
    double_q: bool = False

    counterfactual: ClassVar[bool] = False

    def network(self, game: GameSpec, learning: QLearner) -> QTranNetwork:
        """The agent, joint and state-value networks."""
        width = learning.agents.hidden[-1]
        return QTranNetwork(
            agent=learning.agents.network(game.num_actions),
            num_actions=game.num_actions,
            width=width + game.num_actions if self.global_state else width,
            joint_hidden=self.joint_hidden,
            global_state=self.global_state,
            counterfactual=self.counterfactual,
            state_value=self.state_value == "on"
            or (self.state_value == "auto" and not game.fully_observable),
            aggregate=self.aggregate,
            enumerate_joint=learning.few_joint_actions(game),
        )

    def joint_values(self, network: Any, observation: Observation, actions: jax.Array) -> Metrics:
        """`q_jt` (QTRAN-alt: the mean of the agents' estimates), `q_prime` and `v_jt`."""
        features = network.encode(observation)
        q_jt = network.q_jt(features, actions)
        return {
            "q_jt": jnp.mean(chosen(q_jt, actions)) if self.counterfactual else q_jt,
            "q_prime": jnp.sum(chosen(features.utilities, actions)),
            "v_jt": network.v_jt(features),
        }

    def next_value(
        self, target: QTranNetwork, features: Features, target_features: Features, observation: Observation
    ) -> jax.Array:
        greedy = _greedy(features if self.double_q else target_features, observation)
        if self.target == "q_prime":
            return jnp.sum(chosen(target_features.utilities, greedy))
        return target.q_jt(target_features, greedy)

    def step_loss(
        self,
        online: QTranNetwork,
        features: Features,
        observation: Observation,
        actions: jax.Array,
        y: jax.Array,
    ) -> tuple[jax.Array, Metrics]:
        """Equation 6."""
        greedy = _greedy(features, observation)
        v_jt = online.v_jt(features)
        q_jt = online.q_jt(features, actions)
        q_jt_greedy = online.q_jt(features, greedy)
        q_prime = jnp.sum(chosen(features.utilities, actions))
        q_prime_greedy = jnp.sum(chosen(features.utilities, greedy))
        return self._total(
            qtran_td_loss(q_jt, y),
            qtran_opt_loss(q_prime_greedy, q_jt_greedy, v_jt),
            qtran_nopt_loss(q_prime, q_jt, v_jt),
        )

    def _total(self, td: jax.Array, opt: jax.Array, nopt: jax.Array) -> tuple[jax.Array, Metrics]:
        loss = td + self.opt_weight * opt + self.nopt_weight * nopt
        return loss, {"td_loss": td, "opt_loss": opt, "nopt_loss": nopt}


@dataclasses.dataclass(frozen=True, kw_only=True)
class QTranAlt(QTranBase):
    """QTRAN-base with a counterfactual joint network and the tighter `L_nopt-min` (section 3.4).

    `L_td` and `L_opt` are computed by every agent's counterfactual values and averaged over agents;
    each bootstraps from its own.

    The paper contradicts itself on `L_nopt-min`: its condition (7) sets the least *difference* over u_i
    to zero, and so keeps Q'_jt above Q_jt; its printed loss takes the least *squared* difference, which
    also vanishes where Q'_jt lies far below. The loss as printed has zero-loss solutions whose greedy
    joint action is wrong, and gradient descent finds them. The default is condition (7), which is also
    what the authors' release computes. With `aggregate` "mean" the release divides the sum of the other
    agents' features by n, where this is their mean.

    Attributes:
        nopt_min: "signed" squares the least difference, as condition (7) requires; "printed" takes the
            least square, as the paper's loss is printed.
        target: "q_jt" is agent i's target value at the greedy joint action (paper); "q_max", the
            release's, the largest over agents and their actions; "q_prime" as in QTRAN-base.
    """

    nopt_min: Literal["signed", "printed"] = "signed"
    target: Literal["q_jt", "q_prime", "q_max"] = "q_jt"  # type: ignore[assignment]

    counterfactual: ClassVar[bool] = True

    def next_value(
        self, target: QTranNetwork, features: Features, target_features: Features, observation: Observation
    ) -> jax.Array:
        """`()`, or `(n,)` for "q_jt"."""
        greedy = _greedy(features if self.double_q else target_features, observation)
        if self.target == "q_prime":
            return jnp.sum(chosen(target_features.utilities, greedy))
        q_jt = target.q_jt(target_features, greedy)  # (n, A)
        if self.target == "q_max":
            return jnp.max(mask_unavailable(q_jt, observation.action_mask))
        return chosen(q_jt, greedy)

    def step_loss(
        self,
        online: QTranNetwork,
        features: Features,
        observation: Observation,
        actions: jax.Array,
        y: jax.Array,
    ) -> tuple[jax.Array, Metrics]:
        """Equation 6, with `L_nopt-min` for `L_nopt`."""
        greedy = _greedy(features, observation)
        v_jt = online.v_jt(features)
        q_jt = online.q_jt(features, actions)  # (n, A)
        q_jt_greedy = online.q_jt(features, greedy)  # (n, A)
        taken = chosen(features.utilities, actions)  # (n,)
        q_prime = features.utilities + (jnp.sum(taken) - taken)[:, None]  # (n, A), Q'_jt(u_i, u_-i)
        q_prime_greedy = jnp.sum(chosen(features.utilities, greedy))
        mask, signed = observation.action_mask, self.nopt_min == "signed"
        return self._total(
            jnp.mean(qtran_td_loss(chosen(q_jt, actions), y)),
            jnp.mean(qtran_opt_loss(q_prime_greedy, chosen(q_jt_greedy, greedy), v_jt)),
            qtran_nopt_min_loss(q_prime, q_jt, v_jt, mask, signed),
        )


def _greedy(features: Features, observation: Observation) -> jax.Array:
    """The greedy joint action `(n,)` by the utilities."""
    return greedy_actions(mask_unavailable(features.utilities, observation.action_mask))
