"""Hysteretic and distributed Q-learning: independent learners who learn less, or nothing, from bad news."""

import dataclasses

import jax

from baselines.iql import IQL, TabularIQL
from jaxmarl_fac.error_weights import hysteretic_weights
from jaxmarl_fac.settings import Probability


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Hysteresis:
    """The rule of hysteretic learners.

    Attributes:
        ratio: how much an agent learns from a negative error, as a part of what it learns from a positive
            one; LTQL's authors have .1 for networks.
    """

    ratio: Probability = 0.1

    def weights(self, errors: jax.Array) -> jax.Array:
        """`(n,)` to `(n,)`."""
        return hysteretic_weights(errors, self.ratio)


class _Optimism:
    """The rule of distributed learners."""

    def weights(self, errors: jax.Array) -> jax.Array:
        """`(n,)` to `(n,)`."""
        return hysteretic_weights(errors, 0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hysteretic(_Hysteresis, IQL):
    """Hysteretic Q-learning: IQL that learns less from negative errors (Matignon et al., 2007)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TabularHysteretic(_Hysteresis, TabularIQL):
    """Hysteretic Q-learning in tables."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Distributed(_Optimism, IQL):
    """Distributed Q-learning: IQL whose values never fall (Lauer and Riedmiller, 2000)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TabularDistributed(_Optimism, TabularIQL):
    """Distributed Q-learning in tables; `step_size` 1 is the paper's maximum over all that was seen."""
