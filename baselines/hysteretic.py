"""Hysteretic and distributed Q-learning: independent learners who learn less, or nothing, from bad news."""

import dataclasses
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from baselines.iql import IQL, TabularIQL
from envs.base import TeamEnvironment
from envs.errors import BadInputError
from jaxmarl_fac.algorithm import LearnerState
from jaxmarl_fac.settings import between
from jaxmarl_fac.weights import hysteretic_weights


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Hysteresis:
    """The rule of hysteretic learners.

    Attributes:
        ratio: how much an agent learns from a negative error, as a part of what it learns from a positive
            one; LTQL's authors have .1 for networks. At 0 values would never fall: take distributed
            Q-learning, which starts them below every return.
    """

    ratio: Annotated[float, between(0, 1, open_low=True)] = 0.1

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
    """Distributed Q-learning: IQL whose values never fall (Lauer and Riedmiller, 2000).

    What never falls must start below every return. The paper starts at 0 and assumes that no reward is
    negative; here values start around `initial_value`. A network that raises one value raises others with it,
    which then never fall: only tables are the paper's algorithm.

    Attributes:
        initial_value: around which values start. None is the least return of a game that knows its own
            (matrix games, team MDPs); for another a number must be given. Where a team that plays its best
            does not lose, that is 0.
    """

    initial_value: float | None = None

    def check(self, env: TeamEnvironment) -> None:
        """Refuse a game that does not say where to start.

        Raises:
            BadInputError: if it has no least return of its own, and no `initial_value` is given.
        """
        super().check(env)
        knows = type(env).least_return is not TeamEnvironment.least_return
        if self.initial_value is None and not knows:
            raise BadInputError(
                f"{type(self).__name__} never lowers its values, and {type(env).__name__} does not say what "
                "it pays at least: give an initial_value below which no best return lies (often 0)"
            )

    def init(self, env: TeamEnvironment, key: jax.Array) -> LearnerState:
        """A fresh learner whose agents' last biases are the initial value."""
        learner = super().init(env, key)
        value = initial_value(env, self.gamma, self.initial_value)
        bias = ["params", "agent", "head" if self.recurrent else "Dense_0", "bias"]

        def raised(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
            return leaf + value.astype(leaf.dtype) if [key.key for key in path] == bias else leaf

        params = jax.tree_util.tree_map_with_path(raised, learner.params)
        return learner.replace(params=params, target_params=params)  # type: ignore[attr-defined, no-any-return]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TabularDistributed(_Optimism, TabularIQL):
    """Distributed Q-learning in tables; `step_size` 1 is the paper's maximum over all that was seen.

    Attributes:
        initial_value: see `Distributed`.
    """

    initial_value: float | None = None  # type: ignore[assignment]

    def initial_tables(self, env: TeamEnvironment, shape: tuple[int, int, int]) -> jax.Array:
        """One table at the initial value."""
        return jnp.full(shape, initial_value(env, self.gamma, self.initial_value))


def initial_value(env: TeamEnvironment, gamma: float, value: float | None) -> jax.Array:
    """`value ()`; if None, the game's least return."""
    return jnp.asarray(env.least_return(gamma) if value is None else value, float)
