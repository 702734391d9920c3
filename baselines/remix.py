"""ReMIX (seed paper 004): Weighted QMIX with weights that minimise the policy's regret."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from baselines.wqmix import Judgement, WeightedQMIX
from envs.errors import BadInputError
from jaxmarl_fac.settings import Count, Probability
from jaxmarl_fac.values import masked_mean
from jaxmarl_fac.weights import min_max_weights, remix_weight


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReMIX(WeightedQMIX):
    """The weights of theorem 1, spread over [w_min, 1] in every batch.

    The paper leaves open how: here the mixer's derivatives are exact (lemma 1 as printed is not) and
    clipped, so is the exponent, and overestimated steps get w_min. The factor d^pi / mu is emulated by
    drawing part of every batch from the newest episodes.

    Attributes:
        consumes: as for all; transitions for a `recent_fraction` of 0 only.
        w_min: the least weight.
        bellman: False leaves the factor `y - Q_tot` out, but keeps the condition that it is above 0.
        underestimation: False leaves the factor `exp(Q* - Q_tot)` out.
        gradient: False leaves the factor of the mixer's derivatives out.
        recent_fraction: share of a batch drawn from the newest episodes; 0 leaves the last factor out.
        recent_episodes: so many are the newest.
        unit_mean: scale the weights of a batch to a mean of 1, as the theorem's constraint has it; this
            raises the effective learning rate.
    """

    consumes: Literal["transitions", "episodes"] = "episodes"  # type: ignore[misc]
    w_min: Probability = 0.1
    bellman: bool = True
    underestimation: bool = True
    gradient: bool = True
    recent_fraction: Probability = 0.5
    recent_episodes: Count = 256
    unit_mean: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.recent_fraction > 0 and self.consumes != "episodes":
            raise BadInputError(
                "recent_fraction above 0 draws whole episodes: set it to 0, or consume episodes"
            )

    def weight(self, step: Judgement) -> jax.Array:
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
        """Spread over [w_min, 1]."""
        spread = min_max_weights(weights, mask, self.w_min)
        return spread / jnp.maximum(masked_mean(spread, mask), 1e-8) if self.unit_mean else spread
