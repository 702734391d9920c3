"""Proximal policy optimisation: several steps on each rollout that stay near the policy that has acted."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from baselines.policy_gradient import Objective
from jaxmarl_fac.policy_gradients import adapted_kl_coefficient, clipped_surrogate
from jaxmarl_fac.settings import Count, Positive

#: The smallest and the largest weight of the divergence.
KL_COEFFICIENTS = (1e-4, 1e4)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Proximal(Objective):
    """PPO's objectives (Schulman et al., 2017): clipped (thesis, 2.34), or with a penalty on KL (2.35).

    Attributes:
        trust_region: what keeps the policy near: "clip" the ratio of probabilities, or a "penalty" on
            `KL(pi_old || pi)` whose weight adapts.
        clip: how far the ratio of probabilities may profit from leaving 1.
        kl_target: divergence of an agent's policy, in nats, that an update should come to.
        kl_coefficient: weight of the divergence at first.
        joint_ratio: the ratio is that of the team's joint action, the product of the agents', so that the
            team is one agent. Otherwise every agent has its own.
        epochs: passes through each rollout.
        minibatches: parts that the environments of a rollout are divided into in each pass.
    """

    trust_region: Literal["clip", "penalty"] = "clip"
    clip: Positive = 0.2
    kl_target: Positive = 0.01
    kl_coefficient: Positive = 1.0
    joint_ratio: bool = False
    epochs: Count = 4  # type: ignore[misc]
    minibatches: Count = 1  # type: ignore[misc]

    @property
    def first_penalty(self) -> float | None:
        return self.kl_coefficient if self.trust_region == "penalty" else None

    def loss(self, log_probs: jax.Array, old_log_probs: jax.Array, advantages: jax.Array) -> jax.Array:
        """The negative objective; of the team, one n-th for each agent."""
        apart = log_probs - old_log_probs
        if self.joint_ratio:
            apart, advantages = jnp.sum(apart), jnp.mean(advantages)
        ratio = jnp.exp(apart)
        if self.trust_region == "clip":
            objective = clipped_surrogate(ratio, advantages, self.clip)
        else:
            objective = ratio * advantages
        if self.joint_ratio:
            objective = jnp.broadcast_to(objective / log_probs.shape[0], log_probs.shape)
        return -objective

    def next_penalty(self, penalty: jax.Array, divergence: jax.Array) -> jax.Array:
        """Within bounds from which it can return: policies that move no more would halve it to 0."""
        return jnp.clip(adapted_kl_coefficient(penalty, divergence, self.kl_target), *KL_COEFFICIENTS)
