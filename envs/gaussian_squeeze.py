"""Gaussian squeeze: a team shares a resource, and is rewarded for using the right amount of it."""

import functools
from typing import TYPE_CHECKING, Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jumanji.types import TimeStep
from numpy.typing import ArrayLike

from envs.base import Observation, TeamEnvironment
from envs.errors import BadInputError
from envs.lazy import lazily
from envs.memory import check_fits
from envs.ranges import Seed, at_least, checks_parameters
from envs.squeeze_viewer import SqueezeViewer
from envs.tables import numeric_array

if TYPE_CHECKING:
    from scipy import optimize
else:
    optimize = lazily("scipy.optimize")

#: The paper's largest unit-level resource: s_i is in [0, .2].
MAX_S = 0.2
#: Numbers of agents and of levels.
AtLeastTwo = Annotated[int, at_least(2)]
#: The equal s of MGS, which the paper does not state: the mean of its range. With it a random joint action
#: uses 4.5 ± .9, near the low peak at 5 and far from the high one at 8, as the paper says.
EQUAL_S = 0.1
#: The most sums that `reachable_usages` holds; more are thinned out.
MAX_SUMS = 1 << 22


def squeeze_reward(usage: Any, mu: Any, sigma: Any) -> Any:
    """QTRAN's G = sum over domains k of x exp(-(x - mu_k)^2 / sigma_k^2), for JAX or NumPy arrays.

    Args:
        usage: x, of any shape; the result has the same.
        mu: `(K,)`.
        sigma: `(K,)`.
    """
    xp = jnp if isinstance(usage, jax.Array) else np
    x = xp.asarray(usage)[..., None]
    return (x * xp.exp(-(((x - mu) / sigma) ** 2))).sum(axis=-1)


@struct.dataclass
class GaussianSqueezeState:
    """The state of a squeeze."""

    key: jax.Array | None
    s: jax.Array | None  # (n,) float32 if redrawn in every episode; None if the game fixes it
    step_count: jax.Array  # () int8
    last_actions: jax.Array  # (n,), the joint action played, in int8 where it fits; -1 at the start


@struct.dataclass(eq=False)
class GaussianSqueeze(TeamEnvironment):
    """`n` agents choose levels 0 to A - 1 once; together they use x = sum_i s_i u_i, for a reward of G(x).

    G(x) = sum_k x exp(-(x - mu_k)^2 / sigma_k^2). One domain (K = 1) is the Gaussian squeeze, GS; more
    are the multi-domain one, MGS. The episode terminates after one step.

    Every agent sees all unit-level resources s, times `n` so that they are about 1: `agents_view (n, n)`
    with identical rows, and `global_state (n,)`. If the game fixes s, all observations are the same and the
    game is `stateless`.

    Source: QTRAN, sections 4.1 and C.1; with `redraw`, the authors' release.

    Args:
        mu: `(K,)`, the centres of the domains. Like the next two an array leaf: `jax.vmap` over them is a
            batch of games.
        sigma: `(K,)`, their widths.
        s: `(n,)`, the unit-level resources. With `redraw` their upper bounds: every episode draws its
            own, uniform in [0, s_i).
        num_actions: A.
        redraw: whether s is redrawn in every episode.
    """

    mu: jax.Array
    sigma: jax.Array
    s: jax.Array
    num_actions: int = struct.field(pytree_node=False, default=10)
    redraw: bool = struct.field(pytree_node=False, default=False)

    time_limit = 1
    fully_observable = True
    binary_discounts = True

    @property
    def num_agents(self) -> int:  # type: ignore[override]
        """`n`."""
        return self.s.shape[-1]

    @property
    def stateless(self) -> bool:  # type: ignore[override]
        """True unless s is redrawn."""
        return not self.redraw

    def reset(self, key: jax.Array) -> tuple[GaussianSqueezeState, TimeStep[Observation]]:
        """Start an episode, with its own s if `redraw`."""
        key, draw = jax.random.split(key)
        state = GaussianSqueezeState(
            key=key,
            s=self.s * jax.random.uniform(draw, self.s.shape) if self.redraw else None,
            step_count=jnp.zeros((), jnp.int8),
            last_actions=jnp.full((self.num_agents,), -1, self.action_dtype),
        )
        return state, self.first_timestep(state)

    def step(
        self, state: GaussianSqueezeState, actions: jax.Array
    ) -> tuple[GaussianSqueezeState, TimeStep[Observation]]:
        """Play the levels `actions (n,)`."""
        actions = jnp.clip(actions, 0, self.num_actions - 1)
        usage = (self.resources(state) * actions).sum()
        state = state.replace(  # type: ignore[attr-defined]
            step_count=state.step_count + jnp.int8(1),
            last_actions=actions.astype(state.last_actions.dtype),
        )
        reward = squeeze_reward(usage, self.mu, self.sigma)
        return state, self.next_timestep(state, reward, jnp.asarray(True), jnp.asarray(False))

    def resources(self, state: GaussianSqueezeState) -> jax.Array:
        """The s `(n,)` of this state."""
        return self.s if state.s is None else state.s

    def observe(self, state: GaussianSqueezeState) -> Observation:
        seen = (self.num_agents * self.resources(state)).astype(jnp.float32)
        return Observation(
            agents_view=jnp.broadcast_to(seen, (self.num_agents, self.num_agents)),
            global_state=seen,
            action_mask=jnp.ones((self.num_agents, self.num_actions), bool),
            step_count=state.step_count.astype(jnp.int32),
        )

    def optimum(self, s: ArrayLike | None = None) -> float:
        """The largest reward that integer levels reach, in float64; see `best_usage`.

        Args:
            s: `(n,)`, the draw of an episode; required with `redraw`.

        Raises:
            BadInputError: if `s` is missing or has the wrong length, or for a batch of games.
        """
        if np.ndim(self.s) != 1:
            raise BadInputError("optimum() is for one game: select one from the batch with jax.tree.map")
        if s is None and self.redraw:
            raise BadInputError("s is redrawn in every episode: give optimum() the state's s")
        s = check_resources(self.s if s is None else s, self.num_agents)
        usage = best_usage(self.mu, self.sigma, s, self.num_actions)
        return float(squeeze_reward(usage, np.asarray(self.mu, float), np.asarray(self.sigma, float)))

    def optimal_return(self) -> float | None:
        """See `optimum`; None for a batch of games, or if s is redrawn in every episode."""
        return None if self.redraw or np.ndim(self.s) != 1 else self.optimum()

    def render(self, state: GaussianSqueezeState, save_path: str | None = None) -> Any:
        """Draw the reward curve, the joint action's place on it, and each agent's share."""
        return self._viewer().render(state, save_path)

    def animate(
        self, states: list[GaussianSqueezeState], interval: int = 600, save_path: str | None = None
    ) -> Any:
        """Draw one frame for each state; `interval` in milliseconds; `save_path` may end in .gif."""
        return self._viewer().animate(states, interval, save_path)

    def _viewer(self) -> SqueezeViewer:
        mu, sigma = np.asarray(self.mu), np.asarray(self.sigma)
        return SqueezeViewer(
            lambda usage: squeeze_reward(usage, mu, sigma), np.asarray(self.s), self.num_actions
        )


def check_resources(s: ArrayLike, agents: int) -> np.ndarray:
    """`s` as float64 `(n,)`.

    Raises:
        BadInputError: if it is not one finite number >= 0 for each agent.
    """
    resources = numeric_array(s, "s")
    if resources.shape != (agents,):
        raise BadInputError(f"s has shape {resources.shape}: give one number for each of the {agents} agents")
    if (resources < 0).any():
        raise BadInputError(f"s holds {resources.min():g}: an agent's unit-level resource must be >= 0")
    return resources


def _check_domains(mu: ArrayLike, sigma: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    centres, widths = np.atleast_1d(numeric_array(mu, "mu")), np.atleast_1d(numeric_array(sigma, "sigma"))
    if centres.ndim != 1 or centres.shape != widths.shape or centres.size == 0:
        raise BadInputError(
            f"mu and sigma have shapes {centres.shape} and {widths.shape}: give one of each for every domain"
        )
    if (widths < np.finfo(np.float32).tiny).any():
        raise BadInputError(f"sigma holds {widths.min():g}: the width of a domain must be > 0")
    return centres, widths


def rightmost_peak(mu: ArrayLike, sigma: ArrayLike) -> float:
    """The peak of the rightmost domain: the root of 1 = 2 x (x - mu) / sigma^2, 8.062 for GS."""
    mu, sigma = np.asarray(mu, float), np.asarray(sigma, float)
    return float(((mu + np.sqrt(mu**2 + 2 * sigma**2)) / 2).max())


@functools.partial(jax.jit, static_argnames="agents")
def draw_resources(key: jax.Array, agents: int, least_sum: float, largest: float = MAX_S) -> jax.Array:
    """An s `(n,)`, uniform in [0, largest) conditioned on a sum of at least `least_sum`; by rejection.

    A pure function of `key`, to be vmapped over keys for a batch of games. About 28 % of the paper's
    draws could not reach GS's peak even with all agents at level 9; those are rejected.
    """

    def again(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        key, draw = jax.random.split(carry[0])
        return key, largest * jax.random.uniform(draw, (agents,))

    first = again((key, jnp.zeros((agents,))))
    return jax.lax.while_loop(lambda carry: carry[1].sum() < least_sum, again, first)[1]


@checks_parameters
def gaussian_squeeze(
    mu: ArrayLike = 8.0,
    sigma: ArrayLike = 1.0,
    s: ArrayLike | None = None,
    agents: AtLeastTwo = 10,
    actions: AtLeastTwo = 10,
    seed: Seed = 0,
) -> GaussianSqueeze:
    """GS as in the paper: a fixed s, by default drawn from `seed`.

    The draw is uniform in [0, .2] for each agent, conditioned on the highest levels reaching the rightmost
    peak (see `draw_resources`): otherwise using more would always be better. In each of 430 such games the
    optimum was between 8.030 and 8.0311, the peak's height.

    Args:
        mu: a number, or one for each domain.
        sigma: likewise.
        s: one number for each agent, or one for all; drawn if not given.
        agents: n.
        actions: A.
        seed: of the draw of s.

    Raises:
        BadInputError: for numbers that are not finite, widths or resources out of range, an `s` of the
            wrong length, too few agents or actions or more than fit into memory, or a peak that a drawn s
            would hardly ever reach.
    """
    check_fits(agents * (4 * agents + actions), f"observations of {agents} agents with {actions} actions")
    centres, widths = _check_domains(mu, sigma)
    if s is None:
        peak = rightmost_peak(centres, widths)
        least_sum = peak / (actions - 1)
        # Beyond three standard deviations above the mean rejection would take too long.
        if least_sum > MAX_S * min(agents / 2 + 3 * np.sqrt(agents / 12), 0.9 * agents):
            raise BadInputError(
                f"{agents} agents with {actions} actions and s in [0, {MAX_S}] rarely reach a usage "
                f"of {peak:g}, the rightmost peak: use more agents or actions, a smaller mu, or give s"
            )
        resources = draw_resources(jax.random.key(np.uint32(seed)), agents, least_sum)
    else:
        s = np.full(agents, s) if np.ndim(s) == 0 else s
        resources = jnp.asarray(check_resources(s, agents), jnp.float32)
    return GaussianSqueeze(
        mu=jnp.asarray(centres, jnp.float32),
        sigma=jnp.asarray(widths, jnp.float32),
        s=resources,
        num_actions=actions,
    )


def multi_domain_squeeze(
    mu: ArrayLike = (8.0, 5.0),
    sigma: ArrayLike = (0.5, 1.0),
    s: ArrayLike = EQUAL_S,
    agents: int = 10,
    actions: int = 10,
) -> GaussianSqueeze:
    """MGS as in the paper: a narrow high peak at 8, a wide low one at 5, and the same s for all.

    Raises:
        BadInputError: as `gaussian_squeeze`.
    """
    return gaussian_squeeze(mu, sigma, s, agents, actions)


@checks_parameters
def redrawn_squeeze(
    mu: ArrayLike = 8.0,
    sigma: ArrayLike = 0.5,
    s: ArrayLike | None = None,
    agents: AtLeastTwo = 10,
    actions: AtLeastTwo = 11,
) -> GaussianSqueeze:
    """A squeeze as in the authors' release: s redrawn in every episode, eleven actions, sigma^2 = .25.

    The release's usage is the mean of s_i u_i with s_i uniform in [0, 2); here that is the sum with s_i
    uniform in [0, 2 / n), the default. For its MGS give mu = (8, 5) and sigma = (.5, 1).

    Raises:
        BadInputError: as `gaussian_squeeze`.
    """
    game = gaussian_squeeze(mu, sigma, 2 / agents if s is None else s, agents, actions)
    return game.replace(redraw=True)  # type: ignore[attr-defined, no-any-return]


def reachable_usages(s: ArrayLike, actions: int) -> np.ndarray:
    """All values of sum_i s_i u_i for levels u_i in 0..A-1, ascending, float64.

    By dynamic programming: each agent adds its A levels to all sums so far. Agents with the same s count
    as one with n (A - 1) + 1 levels, which keeps the number of sums small and the sums exact: each is s times
    an integer. If there would be more than `MAX_SUMS`, the sums so far are thinned out to one for each of
    `MAX_SUMS / levels` bins of equal width.
    """
    sums = np.zeros(1)
    values, counts = np.unique(np.asarray(s, float), return_counts=True)
    for value, levels in zip(values, counts * (actions - 1) + 1, strict=True):
        if len(sums) * levels > MAX_SUMS:
            count = max(1, MAX_SUMS // levels)
            bins = np.minimum(np.floor(sums / sums[-1] * count), count - 1)
            sums = sums[np.unique(bins, return_index=True)[1]]
        sums = np.unique(sums[:, None] + value * np.arange(levels))
    return sums


def best_usage(mu: ArrayLike, sigma: ArrayLike, s: ArrayLike, actions: int) -> float:
    """The usage x of the best joint action.

    10^10 joint actions are too many to enumerate, but two halves of the team have 10^5 usages each. Between
    two valleys of G the reward rises to a peak and falls again. So for each usage of the first half the best
    total is next to a peak: the largest one below it or the smallest one not below it. Exact, up to float64's
    rounding, while no half has more than `MAX_SUMS` usages: for any equal s, and for twelve agents with ten
    actions and any s. Beyond that x is within n A max(x) / `MAX_SUMS` of the best, by `reachable_usages`.

    Args:
        mu: `(K,)`.
        sigma: `(K,)`.
        s: `(n,)`.
        actions: A.
    """
    mu, sigma = np.asarray(mu, float), np.asarray(sigma, float)
    resources = np.sort(np.asarray(s, float))  # equal ones together
    half = len(resources) // 2
    first, second = (reachable_usages(part, actions) for part in (resources[:half], resources[half:]))
    best = 0.0
    for peak in _peaks(mu, sigma):
        above = np.searchsorted(second, peak - first)
        for index in (above - 1, above):
            usages = first + second[np.clip(index, 0, len(second) - 1)]
            candidate = usages[squeeze_reward(usages, mu, sigma).argmax()]
            best = max(best, float(candidate), key=lambda usage: squeeze_reward(usage, mu, sigma))
    return best


def _peaks(mu: np.ndarray, sigma: np.ndarray) -> list[float]:
    """The local maxima of G, to about 1e-12."""

    def slope(x: Any) -> Any:
        x = np.asarray(x)[..., None]
        return ((1 - 2 * x * (x - mu) / sigma**2) * np.exp(-(((x - mu) / sigma) ** 2))).sum(axis=-1)

    top = rightmost_peak(mu, sigma) + sigma.max()  # G only falls from there on
    grid = np.linspace(0, top, 2 + int(min(50 * top / sigma.min(), 1e6)))
    slopes = slope(grid)
    turns = np.flatnonzero((slopes[:-1] > 0) & (slopes[1:] <= 0))
    return [float(optimize.brentq(slope, grid[turn], grid[turn + 1])) for turn in turns]
