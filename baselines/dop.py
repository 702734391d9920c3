"""DOP: policy gradients with a critic that is linear in the agents' own values, from old experience too."""

import dataclasses
from typing import Any, NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from baselines.coma import ActionCriticMethod
from baselines.policies import log_policies
from baselines.policy_gradient import CriticInputs, PolicyNetwork, Unrolled, evaluate_taken
from baselines.q_learning import after_steps
from jaxmarl_fac.experience import Trajectory, over_batch
from jaxmarl_fac.game import GameSpec
from jaxmarl_fac.memory import Episodes, Memory, Rollout, Together
from jaxmarl_fac.networks import MLP, agent_inputs, over_time
from jaxmarl_fac.policy_gradients import decomposed_advantages
from jaxmarl_fac.settings import Count, NotNegative, Positive, Probability
from jaxmarl_fac.targets import trajectory_returns, tree_backup_returns
from jaxmarl_fac.values import chosen, masked_mean


class LinearValues(NamedTuple):
    """`Q_tot(s, u) = sum_i weights_i utilities_i(u_i) + bias`."""

    utilities: jax.Array  # (n, A)
    weights: jax.Array  # (n,), at least 0, with sum 1
    bias: jax.Array  # ()

    def of(self, actions: jax.Array) -> jax.Array:
        """Q_tot `()` of a joint action `(n,)`."""
        return self.weights @ chosen(self.utilities, actions) + self.bias

    def expected(self, policies: jax.Array) -> jax.Array:
        """The mean `()` of Q_tot under policies `(n, A)`."""
        chex.assert_equal_shape([policies, self.utilities])
        return self.weights @ jnp.sum(policies * self.utilities, axis=-1) + self.bias


class LinearCritic(nn.Module):
    """`LinearValues`, whose weights and bias depend on the state.

    Args:
        num_actions: A.
        widths: hidden layers of the agents' values, which see the state, the agent's view and an id; the
            networks of weights and bias have the last of them as their one hidden layer.
    """

    num_actions: int
    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, inputs: CriticInputs) -> LinearValues:
        views, state = inputs.observation.agents_view, inputs.observation.global_state
        n, mixing_widths = views.shape[0], self.widths[-1:]
        states = jnp.broadcast_to(state, (n, *state.shape))
        utilities = MLP(self.widths, self.num_actions, name="utilities")(
            agent_inputs(states, views, agent_ids=True)
        )
        weights = jnp.abs(MLP(mixing_widths, n, name="weights")(state)) + 1e-10
        bias = MLP(mixing_widths, 1, name="bias")(state)[0]
        return LinearValues(utilities, weights / jnp.sum(weights), bias)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DOP(ActionCriticMethod):
    """`A_i = k_i (Q_i(u_i) - sum_a pi_i(a) Q_i(a))` with `Q_tot = sum_i k_i Q_i + b` (Wang et al., 2021).

    Policies follow fresh rollouts. The critic learns from these by TD(lambda), and from a replay of episodes
    by tree backup.

    Attributes:
        batch_size: replayed episodes in one update.
        replay_size: episodes kept.
        replay_coefficient: weight of the critic's loss on replayed episodes beside that on rollouts.
        backup_steps: steps that a target of the tree backup looks ahead.
        backup_lambda: lambda of the tree backup.
    """

    critic_learning_rate: Positive = 1e-4  # type: ignore[misc]
    target_period: Count = 600  # type: ignore[misc]
    batch_size: Count = 32
    replay_size: Count = 5000
    replay_coefficient: NotNegative = 1.0
    backup_steps: Count = 5
    backup_lambda: Probability = 0.93

    def __post_init__(self) -> None:
        super().__post_init__()
        Episodes(self.replay_size, self.batch_size)  # refuses a batch that is larger than the replay

    def critic(self, game: GameSpec) -> LinearCritic:
        return LinearCritic(game.num_actions, self.critic_hidden)

    def memory(self, rollout: Rollout) -> Memory:
        return Together(fresh=rollout, replay=Episodes(self.replay_size, self.batch_size))

    def estimate(self, online: Any, target: Any, seen: Unrolled, gamma: float) -> tuple[jax.Array, Any]:
        """The critic learns towards TD(lambda) returns `(T,)`."""
        trajectory, policies = seen.trajectory, jnp.exp(seen.log_policies[:-1])
        values = evaluate_taken(online, seen.outputs[:-1], trajectory)
        advantages = jax.vmap(decomposed_advantages)(
            values.weights, values.utilities, policies, trajectory.actions
        )
        following = after_steps((seen.outputs, trajectory.observation))
        next_values = over_time(PolicyNetwork.evaluate, target, *following, seen.next_actions)
        next_q_tot = jax.vmap(LinearValues.of)(next_values, seen.next_actions)
        return advantages, trajectory_returns(trajectory, next_q_tot, gamma, self.td_lambda)

    def critic_loss(self, online: Any, outputs: jax.Array, trajectory: Trajectory, targets: Any) -> jax.Array:
        """`(Q_tot(s, u) - G^lambda)^2`."""
        values = evaluate_taken(online, outputs[:-1], trajectory)
        return jnp.square(jax.vmap(LinearValues.of)(values, trajectory.actions) - targets)

    def other_loss(self, online: Any, target: Any, batch: Any, gamma: float) -> jax.Array:
        """The mean of `(Q_tot(s, u) - y)^2` over replayed episodes, with y by tree backup."""

        def errors(episode: Trajectory) -> jax.Array:
            outputs, masks = online.unroll(episode), episode.observation.action_mask
            policies = jnp.exp(log_policies(outputs, masks))  # (T + 1, n, A)
            before, actions = outputs[:-1], episode.actions
            following = after_steps((outputs, episode.observation))
            nobody = jnp.zeros_like(actions)  # the critic reads no actions
            next_values = over_time(PolicyNetwork.evaluate, target, *following, nobody)
            y = tree_backup_returns(
                episode.reward,
                episode.discount,
                jax.vmap(LinearValues.of)(evaluate_taken(target, before, episode), actions),
                jax.vmap(LinearValues.expected)(next_values, policies[1:]),
                jnp.prod(jax.vmap(chosen)(policies[:-1], actions), axis=-1),
                episode.mask,
                gamma,
                self.backup_lambda,
                self.backup_steps,
            )
            return self.critic_loss(online, jax.lax.stop_gradient(outputs), episode, y)

        replay = batch["replay"]
        return self.replay_coefficient * masked_mean(over_batch(errors, replay), replay.mask)
