"""Matrix games: any payoff tensor, shared or one per agent, and games of several stages."""

import json
import zipfile
import zlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jumanji import specs
from jumanji.types import TimeStep
from numpy.typing import ArrayLike

from envs.base import Observation, TeamEnvironment, compact_dtype
from envs.errors import BadInputError
from envs.matrix_viewer import MatrixGameViewer
from envs.memory import check_fits
from envs.ranges import Constraint, Count, Seed, Steps, checks_parameters, from_to
from envs.tables import MAX_AXES, check_probabilities, numeric_array

#: `next_stage` of a joint action that ends the game.
END = -1


@struct.dataclass
class MatrixGameState:
    """The state of a matrix game."""

    key: jax.Array | None
    # All in int8 where they fit.
    stage: jax.Array  # (), which payoff tensor is being played
    step_count: jax.Array  # ()
    last_actions: jax.Array  # (n,), the joint action that led here; -1 at the start


@struct.dataclass(eq=False)
class MatrixGame(TeamEnvironment):
    """Agents play one of `K` payoff tensors per step; the joint action sets the reward and the next stage.

    All agents act at the same time, agent i with one of A_i actions. The team's reward is
    `payoff[stage, u_1, ..., u_n]`, or with `general_sum` each agent gets its own entry of it. The next stage
    is `next_stage[stage, u_1, ..., u_n]`; where that is -1 the episode terminates, and after `time_limit`
    steps it is truncated (discount 1). The first stage is drawn with probabilities `start`. With a single
    terminal stage this is the one-shot matrix game of the papers, and with K equal payoffs in sequence the
    same game repeated K times.

    Every agent sees the stage as a one-hot vector, `agents_view (n, K)`; so does the learner,
    `global_state (K,)`. Agents with fewer actions than the others have the rest masked; playing a
    masked action is the same as playing the agent's last one.

    Args:
        payoff: `(K, A_1, ..., A_n)` float32, or `(K, A_1, ..., A_n, n)` if `general_sum`. An array leaf:
            `jax.vmap` over it is a batch of games.
        next_stage: `(K, A_1, ..., A_n)` integers.
        start: `(K,)` probabilities of the first stage.
        action_counts: `(A_1, ..., A_n)`.
        time_limit: steps until truncation, or the largest number of steps of a game that always terminates.
        general_sum: whether each agent has a payoff of its own; rewards are then `(n,)`.
    """

    payoff: jax.Array
    next_stage: jax.Array
    start: jax.Array
    action_counts: tuple[int, ...] = struct.field(pytree_node=False)
    time_limit: int = struct.field(pytree_node=False, default=1)
    general_sum: bool = struct.field(pytree_node=False, default=False)

    fully_observable = True
    one_hot_views = True
    binary_discounts = True

    @property
    def num_agents(self) -> int:  # type: ignore[override]
        """`n`."""
        return len(self.action_counts)

    @property
    def num_actions(self) -> int:  # type: ignore[override]
        """`A`, the largest A_i."""
        return max(self.action_counts)

    @property
    def num_stages(self) -> int:
        """`K`."""
        return self.start.shape[-1]

    @property
    def stateless(self) -> bool:  # type: ignore[override]
        """True with a single stage: all observations are the same."""
        return self.num_stages == 1

    @cached_property
    def reward_spec(self) -> specs.Array:
        """A scalar, or `(n,)` if `general_sum`."""
        return specs.Array((self.num_agents,) if self.general_sum else (), jnp.float32, "reward")

    def reset(self, key: jax.Array) -> tuple[MatrixGameState, TimeStep[Observation]]:
        """Draw the first stage."""
        stage = jnp.zeros((), jnp.int8)
        if not self.stateless:  # drawing random numbers costs time
            key, draw = jax.random.split(key)
            stage = jax.random.choice(draw, self.num_stages, p=self.start)
        state = MatrixGameState(
            key=key,
            stage=stage.astype(compact_dtype(self.num_stages - 1)),
            step_count=jnp.zeros((), compact_dtype(self.time_limit)),
            last_actions=jnp.full((self.num_agents,), -1, self.action_dtype),
        )
        return state, self.first_timestep(state).replace(reward=self.reward_spec.generate_value())  # type: ignore[attr-defined]

    def step(
        self, state: MatrixGameState, actions: jax.Array
    ) -> tuple[MatrixGameState, TimeStep[Observation]]:
        """Play the joint action `actions (n,)`."""
        actions = jnp.clip(actions, 0, jnp.asarray(self.action_counts) - 1)
        cell = (state.stage, *actions)
        following = self.next_stage[cell]
        state = state.replace(  # type: ignore[attr-defined]
            stage=jnp.where(following == END, state.stage, following).astype(state.stage.dtype),
            step_count=state.step_count + jnp.ones((), state.step_count.dtype),
            last_actions=actions.astype(state.last_actions.dtype),
        )
        late = state.step_count >= self.time_limit
        return state, self.next_timestep(state, self.payoff[cell], following == END, late)

    def observe(self, state: MatrixGameState) -> Observation:
        stage = jax.nn.one_hot(state.stage, self.num_stages, dtype=jnp.float32)  # (K,)
        mask = jnp.arange(self.num_actions) < jnp.asarray(self.action_counts)[:, None]  # (n, A)
        return Observation(
            agents_view=jnp.broadcast_to(stage, (self.num_agents, self.num_stages)),
            global_state=stage,
            action_mask=mask,
            step_count=state.step_count.astype(jnp.int32),
        )

    def describe(self) -> str:
        """One line with the kind of game, the number of agents and their numbers of actions."""
        *others, last = map(str, self.action_counts)
        kind = "a game with a reward per agent, of" if self.general_sum else "a team game of"
        agents = f"{self.num_agents} agents with {', '.join(others)} and" if others else "1 agent with"
        stages = f", in {self.num_stages} stages" if self.num_stages > 1 else ""
        return f"{kind} {agents} {last} actions{stages}"

    def could_be_payoffs_per_agent(self) -> bool:
        """Whether the team's payoff `(n - 1, A_2, ..., A_n)` looks like one payoff per agent for n - 1."""
        return not self.general_sum and self.num_agents > 2 and self.action_counts[0] == self.num_agents - 1

    def joint_payoff(self) -> jax.Array:
        """The payoff tensor of the first stage, `(A_1, ..., A_n)`; `(A_1, ..., A_n, n)` if `general_sum`."""
        return self.payoff[0]

    def return_lower_bound(self, gamma: float | jax.Array) -> jax.Array:
        """The least payoff in every step of the longest game."""
        longest = sum(gamma**step for step in range(self.time_limit))
        return jnp.minimum(jnp.min(self.payoff), 0) * longest

    def optimal_return(self) -> float | None:
        """By backward induction over stages; None for a batch of games, or with a payoff per agent."""
        payoff, following = np.asarray(self.payoff, np.float64), np.asarray(self.next_stage)
        if self.general_sum or payoff.ndim != 1 + self.num_agents:
            return None
        values = np.zeros(self.num_stages)  # (K,), of the steps that are left
        for _ in range(self.time_limit):
            rewards = payoff + np.where(following == END, 0, values[following])
            values = rewards.reshape(self.num_stages, -1).max(axis=1)
        return float(np.asarray(self.start, np.float64) @ values)

    def best_reward_of_worst_action(self, agent: int) -> jax.Array:
        """The best payoff of the agent's worst action in any stage, or 0 if that is positive."""
        rewards = self.payoff[..., agent] if self.general_sum else self.payoff  # (K, A_1, ..., A_n)
        return worst_action_reward(rewards, agent, self.num_agents)

    def render(self, state: MatrixGameState, save_path: str | None = None) -> Any:
        """Draw the payoff of the current stage as a heat map, the last joint action marked."""
        return self._viewer().render(state, save_path)

    def animate(
        self, states: list[MatrixGameState], interval: int = 400, save_path: str | None = None
    ) -> Any:
        """Draw one frame for each state; `interval` in milliseconds."""
        return self._viewer().animate(states, interval, save_path)

    def _viewer(self) -> MatrixGameViewer:
        return MatrixGameViewer(np.asarray(self.payoff), self.general_sum)


def worst_action_reward(rewards: jax.Array, agent: int, num_agents: int) -> jax.Array:
    """The best reward `()` of an agent's worst action in tables `(..., A_1, ..., A_n)`, or 0 if positive."""
    others = tuple(other - num_agents for other in range(num_agents) if other != agent)
    return jnp.minimum(jnp.min(jnp.max(rewards, axis=others)), 0)


def check_payoff(payoff: ArrayLike, name: str = "payoff") -> np.ndarray:
    """`payoff` as a float32 tensor `(A_1, ..., A_n)`.

    Raises:
        BadInputError: if it is ragged, empty, not numeric, not finite, a single number, or for more than
            `MAX_AXES` agents.
    """
    table = numeric_array(payoff, name, np.float32)
    if table.ndim == 0:
        raise BadInputError(f"{name} is a single number: give a list or an array with one axis per agent")
    if table.ndim > MAX_AXES:
        raise BadInputError(f"{name} has {table.ndim} axes, one per agent: give at most {MAX_AXES}")
    if table.size == 0:
        raise BadInputError(f"{name} is empty (shape {table.shape}): every agent needs at least one action")
    return table


@checks_parameters
def matrix_game(payoff: ArrayLike, stages: Steps = 1) -> MatrixGame:
    """The game with this team payoff, `(A_1, ..., A_n)`.

    It is one-shot, or played `stages` times in one episode: the agents see how often it has been played, and
    the rewards are summed.

    Raises:
        BadInputError: see `check_payoff`; for `stages` outside 1 to `MAX_STEPS`.

    Example:
        >>> game = matrix_game([[8, -12], [-12, 0]])
        >>> state, timestep = game.reset(jax.random.key(0))
        >>> state, timestep = game.step(state, jnp.array([0, 1]))
        >>> float(timestep.reward), bool(timestep.last())
        (-12.0, True)
    """
    table = check_payoff(payoff)
    return _repeated(table, table.shape, stages)


@checks_parameters
def general_sum_game(payoffs: Sequence[ArrayLike], stages: Steps = 1) -> MatrixGame:
    """The game in which agent i has the payoff `payoffs[i]`, `(A_1, ..., A_n)` like all the others.

    For `stages` see `matrix_game`.

    Raises:
        BadInputError: unless there is one tensor for each axis and they have one shape; see `matrix_game`.
    """
    tables = [check_payoff(payoff, f"the payoff of agent {i}") for i, payoff in enumerate(payoffs, start=1)]
    shapes = [table.shape for table in tables]
    if len(set(shapes)) > 1:
        raise BadInputError(
            f"the agents' payoffs have shapes {', '.join(map(str, shapes))}: in one game all need the same"
        )
    if not tables or len(shapes[0]) != len(tables):
        axes = f", with {len(shapes[0])} axes" if tables else ""
        raise BadInputError(
            f"got {len(tables)} payoff(s), one per agent{axes}: a game of n agents needs n payoffs of n axes"
        )
    return _repeated(np.stack(tables, axis=-1), shapes[0], stages, general_sum=True)


def zero_sum_game(payoff: ArrayLike, stages: int = 1) -> MatrixGame:
    """The two-player zero-sum game in which `payoff (A_1, A_2)` is agent 1's.

    For `stages` see `matrix_game`.

    Raises:
        BadInputError: see `general_sum_game`.
    """
    table = check_payoff(payoff)
    return general_sum_game([table, 0 - table], stages)  # 0 - 0 is 0; the viewer would show -0


def _repeated(
    payoff: np.ndarray, action_counts: tuple[int, ...], stages: int, general_sum: bool = False
) -> MatrixGame:
    """`stages` equal stages in sequence; the last one terminates."""
    check_fits(stages * payoff.size * payoff.itemsize, f"the payoffs of {stages} stages")
    following = jnp.append(jnp.arange(1, stages), END).astype(compact_dtype(stages - 1))  # (K,)
    return MatrixGame(
        payoff=jnp.repeat(jnp.asarray(payoff)[None], stages, axis=0),
        next_stage=jnp.broadcast_to(
            following.reshape(-1, *[1] * len(action_counts)), (stages, *action_counts)
        ),
        start=jnp.eye(1, stages)[0],
        action_counts=action_counts,
        time_limit=stages,
        general_sum=general_sum,
    )


@checks_parameters
def staged_game(
    payoffs: ArrayLike,
    next_stage: ArrayLike,
    start: ArrayLike,
    time_limit: Steps,
    general_sum: bool = False,
) -> MatrixGame:
    """A game of several payoff tensors of one shape, `(K, A_1, ..., A_n)`; see `MatrixGame`.

    With `general_sum` each stage has one tensor for each agent, `(K, n, A_1, ..., A_n)`.

    Raises:
        BadInputError: for tables of inconsistent shapes, next stages out of range, probabilities that do not
            sum to 1, an invalid time limit; see `check_payoff`, and `general_sum_game`.
    """
    of_stages: Any = payoffs
    if general_sum:
        tables = [np.asarray(general_sum_game(stage).payoff[0]) for stage in of_stages]
    else:
        tables = [check_payoff(payoff, f"the payoff of stage {i}") for i, payoff in enumerate(of_stages)]
    shapes = sorted({table.shape for table in tables})
    if len(shapes) != 1:
        raise BadInputError(f"the stages' payoffs have shapes {', '.join(map(str, shapes))}: give one shape")
    table = np.stack(tables)
    stages, *counts = table.shape[:-1] if general_sum else table.shape
    following, chances = numeric_array(next_stage, "next_stage"), numeric_array(start, "start")
    if following.shape != (stages, *counts) or chances.shape != (stages,):
        raise BadInputError(
            f"next_stage has shape {following.shape} and start {chances.shape}: give {(stages, *counts)} and "
            f"({stages},), to fit the payoffs"
        )
    if not np.isin(following, range(END, stages)).all():
        raise BadInputError(f"next_stage must hold stages from 0 to {stages - 1}, or {END} for the end")
    check_probabilities(chances, "start")
    if stages == time_limit == 1 and (following != END).any():
        raise BadInputError("a game of one stage that does not terminate needs a time_limit above 1")
    return MatrixGame(
        payoff=jnp.asarray(table),
        next_stage=jnp.asarray(following, compact_dtype(stages - 1)),
        start=jnp.asarray(chances, jnp.float32),
        action_counts=tuple(counts),
        time_limit=time_limit,
        general_sum=general_sum,
    )


@checks_parameters
def load_game(path: str | Path, stages: Steps = 1) -> MatrixGame:
    """Read a game from a file, one-shot or played `stages` times.

    One tensor is the payoff of a team, one axis per agent: a .json file with nested lists, an .npy file, or
    an .npz file with one array. One tensor per agent, so a pair of matrices for two agents, is a
    general-sum game: a .json object `{"payoffs": [R1, R2]}`, an .npz file with one array
    `payoffs (n, ...)`, or with an array for each agent in their order.

    Raises:
        BadInputError: if the file cannot be read or does not hold a valid payoff (`matrix_game`,
            `general_sum_game`).
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in (".json", ".npy", ".npz"):
        raise BadInputError(f"payoff file {path} must end in .json, .npy or .npz")
    try:
        content = json.loads(path.read_bytes()) if suffix == ".json" else _load_arrays(path)
    except OSError as error:
        raise BadInputError(f"payoff file {path} cannot be read: {error.strerror or error}") from error
    except (ValueError, EOFError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else str(error) or "it ends too early"
        raise BadInputError(
            f"payoff file {path} is not valid {suffix[1:]}: {' '.join(why.split())[:200]}"
        ) from error
    try:
        if not isinstance(content, dict):
            return matrix_game(content, stages)
        if set(content) != {"payoffs"} or not isinstance(content["payoffs"], list):
            raise BadInputError('an object must be {"payoffs": [...]}, with a list of one tensor per agent')
        return general_sum_game(content["payoffs"], stages)
    except BadInputError as error:
        raise BadInputError(f"payoff file {path}: {error}") from error


def _load_arrays(path: Path) -> Any:
    """The content of an .npy or .npz file, in the form of a .json file."""
    with path.open("rb") as file:
        content = np.load(file, allow_pickle=False)
        if isinstance(content, np.ndarray):
            return content
        arrays = {name: content[name] for name in content.files}
    if len(arrays) != 1:
        return {"payoffs": list(arrays.values())}
    return {"payoffs": list(arrays["payoffs"])} if "payoffs" in arrays else next(iter(arrays.values()))


# The games of the papers. Agent 1 picks the row.

#: QTRAN, table 1a: a large reward hidden behind a large penalty.
QTRAN_PAYOFF = [[8, -12, -12], [-12, 0, 0], [-12, 0, 0]]
#: QPLEX: as QTRAN's, but two safe corners pay 6, so that even the best monotone fit is misled.
QPLEX_PAYOFF = [[8, -12, -12], [-12, 6, 0], [-12, 0, 6]]
#: QPLEX's first didactic game: the optimum is only .4 above the safe actions.
QPLEX_10_PAYOFF = [[10.4, 0, 10], [0, 10, 10], [10, 10, 10]]
#: Logical Team Q-learning: two optima, and a mixture of them pays less.
LTQL_PAYOFF = [[0, 2, 0], [0, 1, 2]]
#: The thesis, equation 3.1.
THESIS_PAYOFF = [[2, 3, 3], [1, 4, 0], [1, 0, 10]]
#: The climbing game as in malib, and its transpose as in Claus and Boutilier.
CLIMBING_PAYOFF = [[11, -30, 0], [-30, 7, 6], [0, 0, 5]]
CLIMBING_T_PAYOFF = [[11, -30, 0], [-30, 7, 0], [0, 6, 5]]
#: PR2's game, one matrix per agent: in its only equilibrium both mix uniformly.
PR2_PAYOFFS = [[[0, 3], [1, 2]], [[3, 2], [0, 1]]]


@checks_parameters
def penalty_payoff(
    k: Annotated[float, Constraint("at most 0", lambda k: k <= 0)] = -100.0,
) -> list[list[float]]:
    """The penalty game of Claus and Boutilier: two optima of 10, and `k` <= 0 for miscoordination.

    Raises:
        BadInputError: if `k` is positive or not a finite number.
    """
    return [[10, 0, k], [0, 2, 0], [k, 0, 10]]


def two_gaussians_payoff() -> np.ndarray:
    """QTRAN's 21 x 21 game (supplement C.1): 10 at (5, 15) on a narrow peak, 5 at (15, 5) on a wide one."""
    u1, u2 = np.meshgrid(np.arange(21), np.arange(21), indexing="ij")
    wide = 5 - ((15 - u1) / 3) ** 2 - ((5 - u2) / 3) ** 2
    narrow = 10 - (5 - u1) ** 2 - (15 - u2) ** 2
    return np.maximum(wide, narrow)


@checks_parameters
def random_payoffs(seed: Seed, games: Count, action_counts: tuple[int, ...] = (3, 3)) -> jax.Array:
    """`games` payoff tensors with entries uniform in [0, 1): `(games, A_1, ..., A_n)`.

    Game i depends only on `seed` and i, however many are drawn (QTRAN, table 6, uses 310 of 3 x 3).
    """
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(np.uint32(seed)), jnp.arange(games))
    return jax.vmap(lambda key: jax.random.uniform(key, action_counts))(keys)


@checks_parameters
def random_game(
    payoff_seed: Seed = 0,
    agents: Annotated[int, from_to(1, MAX_AXES)] = 2,
    actions: Count = 3,
    stages: Steps = 1,
) -> MatrixGame:
    """One game with payoffs uniform in [0, 1), drawn from `payoff_seed`; for `stages` see `matrix_game`.

    Raises:
        BadInputError: for no agent, no action, or payoffs that do not fit into memory.
    """
    # The payoffs, the random bits for them, and the copy used in training.
    check_fits(3 * 4 * stages * actions**agents, f"a payoff of {actions} actions for each of {agents} agents")
    return matrix_game(random_payoffs(payoff_seed, 1, (actions,) * agents)[0], stages)


def two_step_game() -> MatrixGame:
    """QMIX's two-step game: agent 1's first action chooses between a safe 7 and a game worth up to 8.

    Stage 0 pays nothing; action 0 of agent 1 leads to stage 1, where all joint actions pay 7, action 1 to
    stage 2, [[0, 1], [1, 8]].
    """
    nothing, seven, eight = np.zeros((2, 2)), np.full((2, 2), 7.0), np.array([[0.0, 1.0], [1.0, 8.0]])
    end = np.full((2, 2), END)
    return staged_game(
        [nothing, seven, eight], [np.array([[1, 1], [2, 2]]), end, end], [1.0, 0.0, 0.0], time_limit=2
    )


@struct.dataclass(eq=False)
class NStepMatrixGame(MatrixGame):
    """MAVEN's m-step matrix game: to get all of it, commit to one joint action and then change both actions.

    Two agents with two actions. The first joint action picks one of four branches, (0, 0) to (1, 1). Of these
    the first and the last are good, or all four; picking a good branch pays 1, and so does every further step
    that repeats its joint action. Whatever else is played pays nothing and ends the game, which lasts
    `time_limit` steps. Only the last step of branch (0, 0) pays [[1, 1], [1, 4]]. So the best return is
    `time_limit` + 3, of (0, 0) until (1, 1) at last, and the other good branches are local optima of
    `time_limit`.

    Both agents and the learner see the steps taken and the branch, each as a one-hot vector,
    `agents_view (2, time_limit + 5)` and `global_state (time_limit + 5,)`; before the first step the branch
    is shown as (0, 0). Networks so take it for granted that what is best at one step of a branch is best at
    the next one too. Stages are numbered branch by branch after the first step's stage 0.

    (Mahajan et al., 2019, "MAVEN: Multi-Agent Variational Exploration", section 5.1; branches and
    observations are the release's.)
    """

    one_hot_views = False

    def observe(self, state: MatrixGameState) -> Observation:
        later = self.time_limit - 1  # steps of a branch after the first
        place = (
            jnp.maximum(state.stage.astype(jnp.int32) - 1, 0) // later
        )  # of the branch among the good ones
        branch = place if self.num_stages > 1 + 2 * later else 3 * place
        codes = (jax.nn.one_hot(state.step_count, later + 2), jax.nn.one_hot(branch, 4))
        seen = jnp.concatenate(codes).astype(jnp.float32)
        views = jnp.broadcast_to(seen, (self.num_agents, seen.size))
        return super().observe(state)._replace(agents_view=views, global_state=seen)


@checks_parameters
def n_step_matrix_game(
    steps: Steps = 10, good_branches: Literal[2, 4] = 2, one_hot_views: bool = False
) -> MatrixGame:
    """The game of `NStepMatrixGame`. One step alone pays 1 where it picks a good branch.

    With `one_hot_views`, and always with one step, agents see the stage as in other matrix games, which
    tables can hold and which leaves nothing to take for granted.

    Raises:
        BadInputError: for `steps` outside 1 to `MAX_STEPS`, or another number of good branches.

    Example:
        >>> game = n_step_matrix_game(steps=3)
        >>> state, timestep = game.reset(jax.random.key(0))
        >>> for actions in ([0, 0], [0, 0], [1, 1]):
        ...     state, timestep = game.step(state, jnp.array(actions))
        ...     print(float(timestep.reward), bool(timestep.last()))
        1.0 False
        1.0 False
        4.0 True
    """
    good = [(0, 0), (1, 1)] if good_branches == 2 else [(0, 0), (0, 1), (1, 0), (1, 1)]
    stages = 1 + len(good) * (steps - 1)
    payoff, following = np.zeros((stages, 2, 2)), np.full((stages, 2, 2), END)
    for place, joint in enumerate(good):
        path = np.append(0, 1 + place * (steps - 1) + np.arange(steps - 1))  # the stages of its steps
        payoff[(path, *joint)] = 1
        following[(path[:-1], *joint)] = path[1:]
    if steps > 1:
        payoff[steps - 1] = [[1, 1], [1, 4]]
    game = staged_game(payoff, following, np.eye(1, stages)[0], time_limit=steps)
    if one_hot_views or steps == 1:
        return game
    return NStepMatrixGame(game.payoff, game.next_stage, game.start, game.action_counts, steps)


def random_state_game() -> MatrixGame:
    """The random-state game of QTRAN's release: one of two payoffs, drawn and shown at the start."""
    payoffs = [[[10, 8, 5], [8, 6, 3], [5, 3, 0]], [[0, 3, 5], [3, 6, 8], [5, 8, 10]]]
    return staged_game(payoffs, np.full((2, 3, 3), END), [0.5, 0.5], time_limit=1)
