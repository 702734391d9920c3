"""Learners whose joint value is mixed from the agents' utilities. What differs is the mixer.

They learn from trajectories: whole episodes, or single transitions, which are trajectories of one step.
"""

import abc
import dataclasses
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from baselines.q_learning import AgentsNetwork, TrajectoryLearner, earlier, later
from envs.base import Observation, TeamEnvironment
from jaxmarl_fac.algorithm import Metrics, Params, Trajectory, Transition
from jaxmarl_fac.mixers import MixerInputs
from jaxmarl_fac.networks import over_time
from jaxmarl_fac.values import chosen, greedy_actions, mask_unavailable, masked_mean


class FactoredNetwork(AgentsNetwork):
    """An agent network and a mixer.

    Args:
        agent: see `AgentsNetwork`.
        mixer: `MixerInputs -> ()`.
        enumerate_joint: mix all A^n joint actions and pick, which pays where all samples share one
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
        return self.mixed(self.mixer, utilities, actions, observation)

    def mix_greedy(self, utilities: jax.Array, greedy: jax.Array, observation: Observation) -> jax.Array:
        """As `mix`, of the greedy joint action: samples that share an observation share that too."""
        return self.mixer(mixer_inputs(utilities, greedy, observation))  # type: ignore[no-any-return]

    def mixed(
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
    """What a mixer may look at in one step: utilities `(n, A)`, not yet masked, and actions `(n,)`."""
    return MixerInputs(
        utilities=chosen(utilities, actions),
        best_utilities=jnp.max(mask_unavailable(utilities, observation.action_mask), axis=-1),
        actions=jax.nn.one_hot(actions, utilities.shape[-1]),
        agents_view=observation.agents_view,
        global_state=observation.global_state,
    )


class Terms(NamedTuple):
    """What the loss is made of: for every step of a trajectory `(T,)`, or of a batch of them `(B, T)`."""

    q_tot: jax.Array  # of the joint action that was played
    target: jax.Array  # y, without gradient
    weight: jax.Array  # of the squared error, without gradient
    other: jax.Array  # losses besides the squared error


@dataclasses.dataclass(frozen=True, kw_only=True)
class FactoredLearner(TrajectoryLearner):
    """`(Q_tot(s, u) - y)^2` with `y = r + gamma Q_tot^-(s', u')` and u' greedy, or its TD(lambda) form.

    Attributes:
        double_q: u' is greedy by the online network, as in PyMARL, or by the target network.
    """

    double_q: bool = True

    @abc.abstractmethod
    def mixer(self) -> nn.Module:
        """The module `MixerInputs -> ()` that makes this algorithm."""

    def network(self, env: TeamEnvironment) -> FactoredNetwork:
        """The agent network and the mixer."""
        return FactoredNetwork(self.agent(env), self.mixer(), enumerate_joint=False)

    def few_joint_actions(self, env: TeamEnvironment) -> bool:
        """Whether a costly mixer had better look at every joint action once than at every sample."""
        shared = env.stateless and self.consumes == "transitions"
        return shared and env.num_actions**env.num_agents < self.batch_size

    def joint_values(
        self, env: TeamEnvironment, params: Params, observation: Observation, actions: jax.Array
    ) -> Metrics:
        """`q_tot`."""
        network = self.network(env).bind(params)
        return {"q_tot": network.mix(network.utilities(observation), actions, observation)}

    # What differs between algorithms, besides the mixer

    def terms(self, online: Any, target: Any, trajectory: Trajectory) -> Terms:
        """The parts of the loss, for each step `(T,)` of one trajectory."""
        observations, utilities = trajectory.observation, online.unroll(trajectory)
        target_utilities = target.unroll(trajectory)
        greedy = best_actions(utilities if self.double_q else target_utilities, observations)
        q_tot = over_time(FactoredNetwork.mix, online, *played(trajectory, utilities))
        next_q_tot = over_time(
            FactoredNetwork.mix_greedy, target, target_utilities[1:], greedy[1:], later(observations)
        )
        y = self.targets(trajectory, next_q_tot)
        return Terms(q_tot, y, jnp.ones_like(y), jnp.zeros_like(y))

    def batch_weights(self, weights: jax.Array, mask: jax.Array) -> jax.Array:
        """The weights `(B, T)` of a batch's squared errors, when all of its `Terms.weight` are known."""
        return weights

    # What they share

    def combined(self, terms: Terms, mask: jax.Array) -> tuple[jax.Array, Metrics]:
        """The loss `()` of a batch, a mean over the steps `(B, T)` that are there, and what to log of it."""
        weights = self.batch_weights(terms.weight, mask)
        loss = masked_mean(weights * jnp.square(terms.q_tot - terms.target) + terms.other, mask)
        return loss, {"mean_q_tot": masked_mean(terms.q_tot, mask)}

    def loss(self, online: Any, target: Any, transition: Transition) -> tuple[jax.Array, Metrics]:
        """The loss of one transition by itself."""
        terms = self.terms(online, target, as_trajectory(transition))
        return self.combined(jax.tree.map(lambda term: term[None], terms), jnp.ones((1, 1)))

    def batch_loss(
        self, env: TeamEnvironment, params: Params, target_params: Params, batch: Trajectory | Transition
    ) -> tuple[jax.Array, Metrics]:
        """The loss of a batch of episodes or of transitions."""
        network = self.network(env)
        seen = None if env.stateless else 0  # the one observation of all transitions has no batch axis

        def terms_of(sample: Any) -> tuple[Terms, jax.Array]:
            trajectory = as_trajectory(sample) if isinstance(sample, Transition) else sample
            terms = self.terms(network.bind(params), network.bind(target_params), trajectory)
            return terms, trajectory.mask

        axes: Any = 0
        if isinstance(batch, Transition):
            axes = Transition(seen, 0, 0, 0, seen)  # type: ignore[arg-type]
        return self.combined(*jax.vmap(terms_of, (axes,))(batch))


def as_trajectory(transition: Transition) -> Trajectory:
    """A transition as a trajectory of one step."""
    observation, actions, reward, discount, following = transition
    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), observation, following)
    return Trajectory(both, actions[None], reward[None], discount[None], jnp.ones(1))


def best_actions(utilities: jax.Array, observations: Observation) -> jax.Array:
    """The greedy joint actions `(T, n)` of utilities `(T, n, A)`, ties to the lowest index."""
    return greedy_actions(mask_unavailable(utilities, observations.action_mask))


def played(trajectory: Trajectory, utilities: jax.Array) -> tuple[jax.Array, jax.Array, Observation]:
    """Of the T steps that were played: utilities, of `(T + 1, n, A)`, joint actions and observations."""
    return earlier(utilities), trajectory.actions, earlier(trajectory.observation)
