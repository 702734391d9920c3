"""COMA: counterfactual advantages, each agent's action against what its policy gives on average."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from baselines.policy_gradient import (
    CentralMethod,
    CriticInputs,
    PolicyNetwork,
    Unrolled,
    evaluate_taken,
)
from baselines.q_learning import after_steps
from jaxmarl_fac.experience import Clock, Trajectory
from jaxmarl_fac.exploration import linear_epsilon
from jaxmarl_fac.game import GameSpec
from jaxmarl_fac.networks import MLP, agent_inputs, over_time
from jaxmarl_fac.policy_gradients import counterfactual_advantage
from jaxmarl_fac.settings import Count, Probability
from jaxmarl_fac.targets import trajectory_returns
from jaxmarl_fac.values import chosen


class CounterfactualCritic(nn.Module):
    """`Q(s, (., u_-i))` of every agent i and each of its actions, `(n, A)`.

    For each agent it sees the state, the agent's view, the others' actions and an id.

    Args:
        num_actions: A.
        widths: of the hidden layers.
    """

    num_actions: int
    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, inputs: CriticInputs) -> jax.Array:
        views, state = inputs.observation.agents_view, inputs.observation.global_state
        n = views.shape[0]
        actions = jax.nn.one_hot(inputs.actions, self.num_actions, dtype=state.dtype)  # (n, A)
        others = jnp.where(jnp.eye(n, dtype=bool)[..., None], 0, actions).reshape(n, -1)  # (n, n A)
        states = jnp.broadcast_to(state, (n, *state.shape))
        return MLP(self.widths, self.num_actions)(agent_inputs(states, views, others, agent_ids=True))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ActionCriticMethod(CentralMethod):
    """A method whose critic values actions and has a target network; policies explore by a uniform share.

    Attributes:
        random_start: share of the agents' policies that is uniform at the first step.
        random_end: after `random_steps` environment steps, falling linearly.
        random_steps: see `random_end`.
        target_period: updates between copies of the parameters to the critic's target network.
    """

    random_start: Probability = 0.5
    random_end: Probability = 0.01
    random_steps: Count = 100_000
    target_period: Count = 200  # type: ignore[misc]

    def random_share(self, clock: Clock) -> jax.Array:
        return linear_epsilon(clock.env_steps, self.random_start, self.random_end, self.random_steps)


@dataclasses.dataclass(frozen=True, kw_only=True)
class COMA(ActionCriticMethod):
    """`A_i = Q(s, u) - sum_a pi_i(a|o_i) Q(s, (a, u_-i))` (Foerster et al., 2018; thesis, 2.69 and 2.70)."""

    def critic(self, game: GameSpec) -> CounterfactualCritic:
        return CounterfactualCritic(game.num_actions, self.critic_hidden)

    def estimate(self, online: Any, target: Any, seen: Unrolled, gamma: float) -> tuple[jax.Array, Any]:
        """The critic learns towards TD(lambda) returns `(T, n)` of what was played."""
        trajectory, policies = seen.trajectory, jnp.exp(seen.log_policies[:-1])
        values = evaluate_taken(online, seen.outputs[:-1], trajectory)  # (T, n, A)
        of_agents = jax.vmap(jax.vmap(counterfactual_advantage))
        advantages = of_agents(values, policies, trajectory.actions)
        following = after_steps((seen.outputs, trajectory.observation))
        next_values = over_time(PolicyNetwork.evaluate, target, *following, seen.next_actions)
        next_values = jax.vmap(chosen)(next_values, seen.next_actions)  # (T, n)
        return advantages, trajectory_returns(trajectory, next_values, gamma, self.td_lambda)

    def critic_loss(self, online: Any, outputs: jax.Array, trajectory: Trajectory, targets: Any) -> jax.Array:
        """`(Q(s, u) - G^lambda)^2`, summed over the agents' forms of Q."""
        values = evaluate_taken(online, outputs[:-1], trajectory)
        return jnp.sum(jnp.square(jax.vmap(chosen)(values, trajectory.actions) - targets), axis=-1)
