"""Independent Q-learning (Tan, 1993), and independent learners that weight negative errors less."""

import abc
import dataclasses
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp

from baselines.q_learning import AgentsNetwork, QLearner, StepMethod
from envs.base import Observation
from envs.errors import BadInputError
from jaxmarl_fac.algorithm import Metrics, Params
from jaxmarl_fac.game import GameSpec
from jaxmarl_fac.settings import Settings, between
from jaxmarl_fac.values import chosen, greedy_actions, mask_unavailable
from jaxmarl_fac.weights import hysteretic_weights


@dataclasses.dataclass(frozen=True, kw_only=True)
class ErrorWeighting(Settings, abc.ABC):
    """How much independent learners learn from a TD error, by its sign; for networks and tables alike."""

    @abc.abstractmethod
    def weights(self, errors: jax.Array) -> jax.Array:
        """Of the agents' TD errors, `(n,)` to `(n,)`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Even(ErrorWeighting):
    """Independent Q-learning: all errors count alike."""

    def weights(self, errors: jax.Array) -> jax.Array:
        return jnp.ones_like(errors)


@dataclasses.dataclass(frozen=True, kw_only=True)
class HystereticWeighting(ErrorWeighting):
    """Hysteretic Q-learning: negative errors count less (Matignon et al., 2007).

    Attributes:
        ratio: how much an agent learns from a negative error, as a part of what it learns from a positive
            one; LTQL's authors have .1 for networks. At 0 values would never fall: take distributed
            Q-learning, which starts them below every return.
    """

    ratio: Annotated[float, between(0, 1, open_low=True)] = 0.1

    def weights(self, errors: jax.Array) -> jax.Array:
        return hysteretic_weights(errors, self.ratio)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimisticWeighting(ErrorWeighting):
    """Distributed Q-learning: negative errors do not count, so values never fall (Lauer and Riedmiller).

    What never falls must start below every return: see `Distributed`.
    """

    def weights(self, errors: jax.Array) -> jax.Array:
        return hysteretic_weights(errors, 0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Independent(StepMethod):
    """Independent Q-learning: every agent fits its own Q_i to its reward.

    The loss is the mean over agents of `w (Q_i(u_i) - r - gamma Q_i^-(u_i'))^2`, with u_i' greedy and w by
    `weighting`; in a game with a reward per agent, r is the agent's own.

    Attributes:
        weighting: how much agents learn from an error, by its sign.
        double_q: u_i' is greedy by the online network (van Hasselt et al., 2016), or by the target network,
            as in DQN (Mnih et al., 2015), whose target is `r + gamma max Q_i^-`.
    """

    weighting: ErrorWeighting = Even()
    double_q: bool = True

    general_sum: ClassVar[bool] = True

    def network(self, game: GameSpec, learning: QLearner) -> AgentsNetwork:
        return AgentsNetwork(learning.agents.network(game.num_actions))

    def next_value(
        self, target: Any, features: jax.Array, target_features: jax.Array, observation: Observation
    ) -> jax.Array:
        """Every agent's target value `(n,)` of its greedy action."""
        selector = features if self.double_q else target_features
        greedy = greedy_actions(mask_unavailable(selector, observation.action_mask))
        return chosen(target_features, greedy)

    def step_loss(
        self, online: Any, features: jax.Array, observation: Observation, actions: jax.Array, y: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        q = chosen(features, actions)  # (n,)
        loss = jnp.mean(self.weighting.weights(y - q) * jnp.square(y - q))
        return loss, {"mean_q": jnp.mean(q)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Distributed(Independent):
    """Distributed Q-learning: values never fall, so they must start below every return.

    The paper starts at 0 and assumes that no reward is negative; here values start around `initial_value`. A
    network that raises one value raises others with it, which then never fall: only tables are the paper's
    algorithm.

    Attributes:
        initial_value: around which values start. None is the lower bound on returns of games that
            have one (matrix games, team MDPs); for other games a number must be given: 0 where optimal play
            has no negative return.
    """

    weighting: ErrorWeighting = OptimisticWeighting()
    initial_value: float | None = None

    def check(self, game: GameSpec, learning: QLearner) -> None:
        super().check(game, learning)
        if self.initial_value is None and game.return_lower_bound(learning.gamma) is None:
            raise BadInputError(
                f"distributed Q-learning never lowers its values, and {game.name} has no known lower "
                "bound on returns: give an initial_value that no optimal return lies below (often 0)"
            )

    def start(self, game: GameSpec, learning: QLearner, params: Params) -> Params:
        """The agents' last biases are raised by the initial value."""
        value = game.return_lower_bound(learning.gamma) if self.initial_value is None else self.initial_value
        initial = jnp.asarray(value, float)
        bias = ["params", "agent", "head" if learning.recurrent else "Dense_0", "bias"]

        def raised(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
            return leaf + initial.astype(leaf.dtype) if [key.key for key in path] == bias else leaf

        return jax.tree_util.tree_map_with_path(raised, params)
