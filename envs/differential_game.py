"""The differential game "max of two quadratics": continuous actions, a wide hill beside a narrow peak."""

from functools import cached_property
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jumanji import specs
from jumanji.types import TimeStep

from envs.base import Observation, TeamEnvironment
from envs.differential_viewer import DifferentialGameViewer
from envs.matrix_games import MatrixGame, matrix_game
from envs.memory import check_fits
from envs.ranges import Steps, at_least, checks_parameters

#: Widths of the two quadratics. The paper divides the distance by 3 before squaring it, its released code
#: afterwards.
WIDTHS = {"paper": (3.0, 1.0), "code": (3.0**0.5, 1.0)}


@struct.dataclass
class DifferentialGameState:
    """The state of a differential game."""

    key: jax.Array | None
    step_count: jax.Array  # () int8
    last_actions: jax.Array  # (n,) float32, the joint action that led here; zeros at the start


@struct.dataclass(eq=False)
class DifferentialGame(TeamEnvironment):
    """Two agents pick a number each; the team's reward is the maximum of two quadratics.

    Every agent i picks a_i in [-10, 10] at the same time, once; numbers outside are clipped. The reward is
    `max_k heights[k] - scales[k] Σ_i ((a_i - centres[k, i]) / widths[k])²`, and the episode terminates. By
    default a hill of height 0 around (-5, -5) is so wide that gradient ascent from (0, 0) leads away from
    the peak of height 10 at (5, 5): on the diagonal the peak's quadratic is the larger one only from 1.9512
    on (Tian et al., ROMMEO, IJCAI 2019, figure 2).

    Actions are continuous: `action_spec` is a `BoundedArray (n,)`, `num_actions` is 0 and the action mask
    has shape `(n, 0)`. There is nothing to observe: `agents_view (n, 1)` and `global_state (1,)` are ones.

    Args:
        heights: `(K,)`, the value at each centre. Like the other three, an array leaf: `jax.vmap` over
            them is a batch of games.
        centres: `(K, n)`.
        widths: `(K,)`, in units of action.
        scales: `(K,)`, decrease of the reward at one width from the centre.
        bound: actions lie in [-bound, bound].
    """

    heights: jax.Array
    centres: jax.Array
    widths: jax.Array
    scales: jax.Array
    bound: float = struct.field(pytree_node=False, default=10.0)

    num_actions = 0
    time_limit = 1
    stateless = True
    fully_observable = True
    binary_discounts = True

    @property
    def num_agents(self) -> int:  # type: ignore[override]
        """`n`."""
        return self.centres.shape[-1]

    @cached_property
    def action_spec(self) -> specs.BoundedArray:  # type: ignore[override]
        """One number per agent, `(n,)` float32 in [-bound, bound]."""
        with jax.ensure_compile_time_eval():
            return specs.BoundedArray((self.num_agents,), jnp.float32, -self.bound, self.bound, "actions")

    def reset(self, key: jax.Array) -> tuple[DifferentialGameState, TimeStep[Observation]]:
        """The only initial state."""
        state = DifferentialGameState(
            key=key,
            step_count=jnp.zeros((), jnp.int8),
            last_actions=jnp.zeros((self.num_agents,), jnp.float32),
        )
        return state, self.first_timestep(state)

    def step(
        self, state: DifferentialGameState, actions: jax.Array
    ) -> tuple[DifferentialGameState, TimeStep[Observation]]:
        """Play the joint action `actions (n,)`, which terminates the episode."""
        actions = jnp.clip(actions, -self.bound, self.bound)
        state = state.replace(  # type: ignore[attr-defined]
            step_count=state.step_count + jnp.int8(1), last_actions=actions.astype(jnp.float32)
        )
        return state, self.next_timestep(
            state, self.payoff_of(actions), jnp.asarray(True), jnp.asarray(False)
        )

    def payoff_of(self, actions: jax.Array) -> jax.Array:
        """The reward `()` of the joint action `actions (n,)`; differentiable, and not clipped."""
        distances = (actions - self.centres) / self.widths[:, None]  # (K, n)
        return jnp.max(self.heights - self.scales * jnp.sum(jnp.square(distances), axis=-1))

    def observe(self, state: DifferentialGameState) -> Observation:
        return Observation(
            agents_view=jnp.ones((self.num_agents, 1), jnp.float32),
            global_state=jnp.ones((1,), jnp.float32),
            action_mask=jnp.ones((self.num_agents, 0), bool),
            step_count=state.step_count.astype(jnp.int32),
        )

    def grid(self, points: int) -> jax.Array:
        """The payoff at every joint action of an even grid, `points` per agent from -bound to bound."""
        axis = jnp.linspace(-self.bound, self.bound, points)
        actions = jnp.stack(jnp.meshgrid(*[axis] * self.num_agents, indexing="ij"), axis=-1)
        payoffs = jax.vmap(self.payoff_of)(actions.reshape(-1, self.num_agents))
        return payoffs.reshape(actions.shape[:-1])

    def optimal_return(self) -> float | None:
        """The greatest height, at its centre; None for a batch of games, or if it lies out of bounds."""
        if np.ndim(self.heights) != 1:
            return None
        best = int(np.argmax(self.heights))
        inside = np.all(np.abs(np.asarray(self.centres)[best]) <= self.bound)
        return float(self.heights[best]) if inside else None

    def render(self, state: DifferentialGameState, save_path: str | None = None) -> Any:
        """Draw the reward of every joint action, the last one marked."""
        return self._viewer().render(state, save_path)

    def animate(
        self, states: list[DifferentialGameState], interval: int = 100, save_path: str | None = None
    ) -> Any:
        """One frame for each state, with the path of joint actions so far; `interval` in milliseconds."""
        return self._viewer().animate(states, interval, save_path)

    def _viewer(self) -> DifferentialGameViewer:
        return DifferentialGameViewer(np.asarray(self.grid(201)), self.bound)


@checks_parameters
def differential_game(variant: Literal["paper", "code"] = "paper") -> DifferentialGame:
    """The "max of two quadratics" with the constants of the paper, or those of its released code.

    `f1 = .8 [-((a1 + 5)/3)² - ((a2 + 5)/3)²]` (code: `.8 [-(a1 + 5)²/3 - (a2 + 5)²/3]`) and
    `f2 = 10 - (a1 - 5)² - (a2 - 5)²`.

    Raises:
        BadInputError: for another variant.
    """
    return DifferentialGame(
        heights=jnp.array([0.0, 10.0]),
        centres=jnp.array([[-5.0, -5.0], [5.0, 5.0]]),
        widths=jnp.array(WIDTHS[variant]),
        scales=jnp.array([0.8, 1.0]),
    )


@checks_parameters
def differential_grid_game(
    variant: Literal["paper", "code"] = "paper", points: Annotated[int, at_least(2)] = 41, stages: Steps = 1
) -> MatrixGame:
    """The differential game as a matrix game: each agent picks one of `points` numbers from -10 to 10.

    With 41 of them, .5 apart, both centres are on the grid: action 30 is 5 and action 10 is -5. For `stages`
    see `matrix_game`.

    Raises:
        BadInputError: for an unknown variant, or fewer than 2 points; see `matrix_game`.
    """
    check_fits(32 * points**2, f"a grid of {points} x {points} points")  # of temporary arrays
    return matrix_game(np.asarray(differential_game(variant).grid(points)), stages)
