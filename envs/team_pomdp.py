"""Finite team POMDPs: hidden states, noisy private observations and a public one, as tables and as games."""

import itertools
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jumanji.types import TimeStep
from numpy.typing import ArrayLike

from envs.base import Observation, TeamEnvironment
from envs.errors import BadInputError
from envs.ranges import Steps, between, checks_parameters
from envs.tables import check_probabilities, numeric_array
from envs.team_mdp import TeamMDP, sample_index, team_mdp
from envs.team_pomdp_viewer import TeamPOMDPViewer

#: The accuracy of a sensor with two readings: below one half it would only swap them.
Accuracy = Annotated[float, between(0.5, 1)]


class HiddenModel(NamedTuple):
    """A finite team POMDP as filters and dynamic programming use it.

    Shapes: `S` states, agent i has `A_i` actions and sees one of `O` things in private, and all agents see
    one of `P` things in public. Given the joint action and the state that it led to, all observations are
    independent. An episode ends when it enters a terminal state.
    """

    transition: jax.Array  # (S, A_1, ..., A_n, S)
    reward: jax.Array  # (S, A_1, ..., A_n)
    terminal: jax.Array  # (S,) bool
    start: jax.Array  # (S,)
    public: jax.Array  # (A_1, ..., A_n, S, P), by the joint action and the state after it
    private: jax.Array  # (n, A_1, ..., A_n, S, O)
    first_public: jax.Array  # (S, P), what the first state shows
    first_private: jax.Array  # (n, S, O)


class POMDPDraws(NamedTuple):
    """The random choices of one move or reset, each uniform in [0, 1)."""

    state: jax.Array  # ()
    public: jax.Array  # ()
    private: jax.Array  # (n,)


@struct.dataclass
class TeamPOMDPState:
    """The state of a team POMDP, as a game: the hidden one, and what was seen of it."""

    key: jax.Array | None
    state: jax.Array  # () int16
    step_count: jax.Array  # () int16
    last_actions: jax.Array  # (n,), the joint action that led here, in int8 where it fits; -1 at the start
    public: jax.Array  # () int16
    private: jax.Array  # (n,) int16


@struct.dataclass(eq=False)
class TeamPOMDP(TeamEnvironment):
    """A team MDP whose state is hidden: each agent sees a noisy sign of it, and all see a public one.

    As in `TeamMDP` the joint action sets the reward and the odds of the next state, which then draws a public
    observation from `public[u_1, ..., u_n, s']` and agent i's from `private[i, u_1, ..., u_n, s']`. The first
    state draws from `first_public` and `first_private`. The episode terminates on entering a terminal state,
    and is truncated after `time_limit` steps.

    Agent i's view is the one-hot number of its pair of observations, `agents_view (n, O P)` with
    `private * P + public`; the learner sees the state, `global_state (S,)`. If there is more than one public
    observation, `public_view (P,)` is one-hot and `private (n,)` has the numbers of the private ones. Public
    actions are public observations that tell the joint action. An action that is not available counts as the
    agent's first available one.

    All tables are array leaves, so that `jax.vmap` over them is a batch of games, and NumPy float64, as in
    `TeamMDP`.

    Args:
        transition: `(S, A_1, ..., A_n, S)` probabilities.
        reward: `(S, A_1, ..., A_n)`.
        terminal: `(S,)` bool.
        start: `(S,)` probabilities of the first state.
        public: `(A_1, ..., A_n, S, P)` probabilities, by the joint action and the state after it.
        private: `(n, A_1, ..., A_n, S, O)` probabilities.
        first_public: `(S, P)` probabilities, of the first state.
        first_private: `(n, S, O)` probabilities.
        available: `(S, n, A)` bool; an agent must be able to tell them from what it has seen.
        action_counts: `(A_1, ..., A_n)`.
        time_limit: steps until truncation.
        layout: where the viewer draws each state, `(x, y)`; on a circle if None.
        labels: the viewer's label of each state; its number if None.
        private_labels: the viewer's label of each private observation; its number if None.
        public_labels: the same of each public observation.
    """

    transition: jax.Array
    reward: jax.Array
    terminal: jax.Array
    start: jax.Array
    public: jax.Array
    private: jax.Array
    first_public: jax.Array
    first_private: jax.Array
    available: jax.Array
    action_counts: tuple[int, ...] = struct.field(pytree_node=False)
    time_limit: int = struct.field(pytree_node=False, default=100)
    layout: tuple[tuple[float, float], ...] | None = struct.field(pytree_node=False, default=None)
    labels: tuple[str, ...] | None = struct.field(pytree_node=False, default=None)
    private_labels: tuple[str, ...] | None = struct.field(pytree_node=False, default=None)
    public_labels: tuple[str, ...] | None = struct.field(pytree_node=False, default=None)

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
    def num_states(self) -> int:
        """`S`."""
        return self.start.shape[-1]

    @property
    def num_private(self) -> int:  # type: ignore[override]
        """`O`."""
        return self.first_private.shape[-1]

    @property
    def num_public(self) -> int:
        """`P`."""
        return self.first_public.shape[-1]

    def reset(self, key: jax.Array) -> tuple[TeamPOMDPState, TimeStep[Observation]]:
        """Draw the first state and what is seen of it."""
        key, draw = jax.random.split(key)
        return self.begin(key, self.draw(draw))

    def begin(self, key: jax.Array, draws: POMDPDraws) -> tuple[TeamPOMDPState, TimeStep[Observation]]:
        """The first state with given random choices; the deterministic part of `reset`."""
        first = sample_index(jnp.asarray(self.start), draws.state)
        state = TeamPOMDPState(
            key=key,
            state=first,
            step_count=jnp.zeros((), jnp.int16),
            last_actions=jnp.full((self.num_agents,), -1, self.action_dtype),
            public=sample_index(jnp.asarray(self.first_public)[first], draws.public),
            private=jax.vmap(sample_index)(jnp.asarray(self.first_private)[:, first], draws.private),
        )
        return state, self.first_timestep(state)

    def step(self, state: TeamPOMDPState, actions: jax.Array) -> tuple[TeamPOMDPState, TimeStep[Observation]]:
        """Play the joint action `actions (n,)`."""
        key, draw = jax.random.split(state.key)  # type: ignore[arg-type]
        return self.move(state.replace(key=key), actions, self.draw(draw))  # type: ignore[attr-defined]

    def draw(self, key: jax.Array) -> POMDPDraws:
        """The random choices of one move or reset."""
        uniform = jax.random.uniform(key, (2 + self.num_agents,))
        return POMDPDraws(uniform[0], uniform[1], uniform[2:])

    def move(
        self, state: TeamPOMDPState, actions: jax.Array, draws: POMDPDraws
    ) -> tuple[TeamPOMDPState, TimeStep[Observation]]:
        """Play `actions (n,)` with given random choices; the deterministic part of `step`."""
        agents = jnp.arange(self.num_agents)
        available = jnp.asarray(self.available)[state.state]  # (n, A)
        actions = jnp.clip(actions, 0, self.num_actions - 1)
        actions = jnp.where(available[agents, actions], actions, jnp.argmax(available, axis=-1))
        reward = jnp.asarray(self.reward)[(state.state, *actions)]
        following = sample_index(jnp.asarray(self.transition)[(state.state, *actions)], draws.state)
        signs = jnp.asarray(self.private)[(slice(None), *actions, following)]  # (n, O)
        step_count = state.step_count + jnp.int16(1)
        state = state.replace(  # type: ignore[attr-defined]
            state=following,
            step_count=step_count,
            last_actions=actions.astype(state.last_actions.dtype),
            public=sample_index(jnp.asarray(self.public)[(*actions, following)], draws.public),
            private=jax.vmap(sample_index)(signs, draws.private),
        )
        terminated = jnp.asarray(self.terminal)[following]
        return state, self.next_timestep(state, reward, terminated, step_count >= self.time_limit)

    def observe(self, state: TeamPOMDPState) -> Observation:
        """What each agent sees, what all see, and the state."""
        private, public = state.private.astype(jnp.int32), state.public.astype(jnp.int32)
        seen = private * self.num_public + public  # (n,)
        shows = self.num_public > 1
        return Observation(
            agents_view=jax.nn.one_hot(seen, self.num_private * self.num_public, dtype=jnp.float32),
            global_state=jax.nn.one_hot(state.state, self.num_states, dtype=jnp.float32),
            action_mask=jnp.asarray(self.available)[state.state],
            step_count=state.step_count.astype(jnp.int32),
            public_view=jax.nn.one_hot(public, self.num_public, dtype=jnp.float32) if shows else None,
            private=private if shows else None,
        )

    def hidden_model(self) -> HiddenModel:
        """The tables, in float64 inside `jax.enable_x64(True)` and in float32 otherwise."""
        tables = {
            name: jnp.asarray(getattr(self, name), bool if name == "terminal" else float)
            for name in HiddenModel._fields
        }
        return HiddenModel(**tables)

    def render(self, state: TeamPOMDPState, save_path: str | None = None) -> Any:
        """Draw the states and the transitions between them, with the hidden one and what is seen of it."""
        return self._viewer().render(state, save_path)

    def animate(self, states: list[TeamPOMDPState], interval: int = 400, save_path: str | None = None) -> Any:
        """Draw one frame for each state; `interval` in milliseconds."""
        return self._viewer().animate(states, interval, save_path)

    def _viewer(self) -> TeamPOMDPViewer:
        return TeamPOMDPViewer(
            np.asarray(self.transition),
            np.asarray(self.terminal),
            self.layout,
            self.labels,
            self.private_labels,
            self.public_labels if self.num_public > 1 else (),
        )


@checks_parameters
def team_pomdp(
    transition: ArrayLike,
    reward: ArrayLike,
    private: ArrayLike,
    *,
    first_private: ArrayLike | None = None,
    public: ArrayLike | None = None,
    first_public: ArrayLike | None = None,
    start: ArrayLike | None = None,
    terminal: ArrayLike | None = None,
    available: ArrayLike | None = None,
    time_limit: Steps = 100,
    layout: tuple[tuple[float, float], ...] | None = None,
    labels: tuple[str, ...] | None = None,
    private_labels: tuple[str, ...] | None = None,
    public_labels: tuple[str, ...] | None = None,
) -> TeamPOMDP:
    """A `TeamPOMDP` from checked tables.

    Args:
        transition: `(S, A_1, ..., A_n, S)` probabilities.
        reward: `(S, A_1, ..., A_n)`.
        private: `(n, A_1, ..., A_n, S, O)` probabilities of each agent's observation, by the joint action and
            the state after it.
        first_private: `(n, S, O)`, the same of the first state; observation 0 if None.
        public: `(A_1, ..., A_n, S, P)` probabilities of the public observation; none is made if None.
        first_public: `(S, P)`; observation 0 if None.
        start: `(S,)` probabilities of the first state; state 0 if None.
        terminal: `(S,)` bool; none if None.
        available: `(S, n, A)` bool; all that the agents have if None.
        time_limit: steps until truncation.
        layout: `(x, y)` of each state for the viewer.
        labels: the viewer's label of each state.
        private_labels: the viewer's label of each private observation.
        public_labels: the viewer's label of each public observation.

    Raises:
        BadInputError: for tables of inconsistent shapes, entries that are not finite, probabilities
            that are negative or do not sum to 1, an agent without an available action, or what `team_mdp`
            refuses.
    """
    moves: TeamMDP = team_mdp(
        transition,
        reward,
        start=start,
        terminal=terminal,
        time_limit=time_limit,
        layout=layout,
        labels=labels,
    )
    states, counts, agents = moves.num_states, moves.action_counts, moves.num_agents
    signs = _observations(private, (agents, *counts, states), "private")
    shown = _observations(
        np.ones((*counts, states, 1)) if public is None else public, (*counts, states), "public"
    )
    first_signs = _first(first_private, (agents, states, signs.shape[-1]), "first_private")
    first_shown = _first(first_public, (states, shown.shape[-1]), "first_public")
    widths = np.arange(moves.num_actions) < np.asarray(counts)[:, None]  # (n, A)
    if available is None:
        mask = np.broadcast_to(widths, (states, *widths.shape))
    else:
        mask = numeric_array(available, "available", booleans=True) != 0
        if mask.shape != (states, *widths.shape):
            raise BadInputError(
                f"available has shape {mask.shape}: give {(states, *widths.shape)}, by state and agent"
            )
        mask = mask & widths
        if not mask.any(axis=-1).all():
            state, agent = (int(index) for index in np.argwhere(~mask.any(axis=-1))[0])
            raise BadInputError(
                f"agent {agent} has no available action in state {state}: give it at least one"
            )
    for name, drawn, count in (
        ("private_labels", private_labels, signs.shape[-1]),
        ("public_labels", public_labels, shown.shape[-1]),
    ):
        if drawn is not None and len(drawn) != count:
            raise BadInputError(f"{name} has {len(drawn)} entries: give one for each of {count} observations")
    return TeamPOMDP(
        transition=moves.transition,
        reward=moves.reward,
        terminal=moves.terminal,
        start=moves.start,
        public=shown,  # type: ignore[arg-type]
        private=signs,  # type: ignore[arg-type]
        first_public=first_shown,  # type: ignore[arg-type]
        first_private=first_signs,  # type: ignore[arg-type]
        available=mask,  # type: ignore[arg-type]
        action_counts=counts,
        time_limit=time_limit,
        layout=layout,
        labels=labels,
        private_labels=private_labels,
        public_labels=public_labels,
    )


def _observations(table: ArrayLike, given: tuple[int, ...], name: str) -> np.ndarray:
    """`table (*given, observations)` in float64, each row a distribution."""
    array = numeric_array(table, name)
    if array.shape[:-1] != given or array.size == 0:
        raise BadInputError(
            f"{name} has shape {array.shape}: give {given} and then the number of observations, to fit the "
            "transition table"
        )
    check_probabilities(array, name)
    return array


def _first(table: ArrayLike | None, shape: tuple[int, ...], name: str) -> np.ndarray:
    """What the first state shows, observation 0 if None."""
    if table is None:
        return np.broadcast_to(np.eye(shape[-1])[0], shape).copy()
    array = _observations(table, shape[:-1], name)
    if array.shape != shape:
        raise BadInputError(
            f"{name} has {array.shape[-1]} observations: give {shape[-1]}, as many as there are later on"
        )
    return array


#: The chain of `hidden_chain`: rows of the transition table, and the odds of seeing 1 in each state.
CHAIN = ((0.9, 0.1), (0.2, 0.8))
CHAIN_ONES = (0.3, 0.9)


@checks_parameters
def hidden_chain(time_limit: Steps = 10) -> TeamPOMDP:
    """A hidden Markov chain of two states: guess which one it is in, for 1 a step if the guess is right.

    The chain starts in either state with the same chance and moves by `CHAIN` whatever is guessed; state s
    shows 1 with chance `CHAIN_ONES[s]`, else 0. The best guess is the state that the filter finds likelier.

    Raises:
        BadInputError: for an invalid time limit.
    """
    signs = np.stack([1 - np.asarray(CHAIN_ONES), np.asarray(CHAIN_ONES)], axis=-1)  # (S, O)
    return team_pomdp(
        np.broadcast_to(np.asarray(CHAIN)[:, None], (2, 2, 2)),
        np.eye(2),
        np.broadcast_to(signs, (1, 2, 2, 2)),
        first_private=signs[None],
        start=[0.5, 0.5],
        time_limit=time_limit,
        layout=((0, 0), (1.5, 0)),
        private_labels=("0", "1"),
    )


LISTEN, OPEN_LEFT, OPEN_RIGHT = 0, 1, 2


@checks_parameters
def tiger(accuracy: Accuracy = 0.85, time_limit: Steps = 20) -> TeamPOMDP:
    """The tiger problem: a tiger behind one of two doors, a reward behind the other.

    State 0 is a tiger on the left. Action 0 listens for -1 and hears the tiger's side with chance `accuracy`;
    1 and 2 open the left and the right door: -100 for the tiger's, +10 for the other. Then the tiger is
    placed anew, either side with the same chance, and what is heard says nothing. Observations: 0 nothing
    (at the start), 1 left, 2 right. (Kaelbling, Littman and Cassandra, 1998.)

    Raises:
        BadInputError: for an accuracy outside [.5, 1], or an invalid time limit.
    """
    hears = np.array([[0, accuracy, 1 - accuracy], [0, 1 - accuracy, accuracy]])  # (S, O)
    useless = np.broadcast_to([0, 0.5, 0.5], (2, 3))
    placed = np.full((2, 2), 0.5)
    return team_pomdp(
        np.stack([np.eye(2), placed, placed], axis=1),
        [[-1, -100, 10], [-1, 10, -100]],
        np.stack([hears, useless, useless])[None],
        start=[0.5, 0.5],
        time_limit=time_limit,
        layout=((0, 0), (1.5, 0)),
        labels=("left", "right"),
        private_labels=("nothing", "left", "right"),
    )


@checks_parameters
def two_agent_tiger(
    accuracy: Accuracy = 0.85, time_limit: Steps = 20, public_actions: bool = True
) -> TeamPOMDP:
    """The tiger problem of two agents, who hear each for itself and, by default, see each other's actions.

    States, actions and private observations are those of `tiger`. If both listen, for -2, each hears the
    tiger's side with chance `accuracy`, independently; otherwise what they hear says nothing. As soon as one
    opens a door the tiger is placed anew. Both at the tiger's door earn -50, both at the other +20, one at
    each -100; one at the tiger's door while the other listens -101, one at the other door +9. The public
    observation is 0 at the start and then 1 + 3 u_1 + u_2; without `public_actions` there is none. (Nair et
    al., 2003, "Taming decentralized POMDPs".)

    Raises:
        BadInputError: for an accuracy outside [.5, 1], or an invalid time limit.
    """
    transition, reward = np.full((2, 3, 3, 2), 0.5), np.zeros((2, 3, 3))
    private = np.broadcast_to([0, 0.5, 0.5], (2, 3, 3, 2, 3)).copy()
    transition[:, LISTEN, LISTEN] = np.eye(2)
    private[:, LISTEN, LISTEN] = [[0, accuracy, 1 - accuracy], [0, 1 - accuracy, accuracy]]
    for tiger_at, first, second in np.ndindex(reward.shape):
        opened = [action - 1 for action in (first, second) if action != LISTEN]
        bad = sum(door == tiger_at for door in opened)
        # by how many doors are opened, and how many of them are the tiger's
        pays = {(0, 0): -2, (1, 0): 9, (1, 1): -101, (2, 0): 20, (2, 1): -100, (2, 2): -50}
        reward[tiger_at, first, second] = pays[len(opened), bad]
    shown = np.eye(10)[1 + np.arange(9).reshape(3, 3)]  # (3, 3, P)
    names = ("listen", "open left", "open right")
    return team_pomdp(
        transition,
        reward,
        private,
        public=np.broadcast_to(shown[:, :, None], (3, 3, 2, 10)) if public_actions else None,
        start=[0.5, 0.5],
        time_limit=time_limit,
        layout=((0, 0), (1.5, 0)),
        labels=("left", "right"),
        private_labels=("nothing", "left", "right"),
        public_labels=("start", *(" / ".join(pair) for pair in itertools.product(names, repeat=2)))
        if public_actions
        else None,
    )


#: `[c_1, c_2, u_1, u_2]`. The 0 at (2, 1) for the last actions of both breaks a symmetry: without it, telling
#: the cards by actions 1 and 3 would be as good as by 3 and 1.
CARDS_PAYOFF = (
    (((10, 0, 0), (4, 8, 4), (10, 0, 0)), ((0, 0, 10), (4, 8, 4), (0, 0, 10))),
    (((0, 0, 10), (4, 8, 4), (0, 0, 0)), ((10, 0, 0), (4, 8, 4), (10, 0, 0))),
)


def private_cards() -> TeamPOMDP:
    """The Bayesian Action Decoder's two-player game: one private card each, and one public action each.

    Each player is dealt one of two cards. Player 1 chooses one of three actions, which player 2 sees before
    it chooses one of three; then both are paid `CARDS_PAYOFF[c_1, c_2, u_1, u_2]`. Whoever does not move has
    action 0 only. Private observations are the cards, the public one is 0 before player 1's action and then
    1 + u_1. The best a team can do is 10: player 1 tells its card, by action 3 for card 1 and 1 for card 2.
    (Foerster et al., 2019, the matrix game; payoffs as in OpenSpiel's `tiny_hanabi`.)

    States: `2 c_1 + c_2` before player 1's action, `4 + 3 (2 c_1 + c_2) + u_1` after it, 16 is the end.
    """
    payoff = np.asarray(CARDS_PAYOFF, float).reshape(4, 3, 3)  # by deal
    states, end = 17, 16
    following, reward = np.full((states, 3, 3), end), np.zeros((states, 3, 3))
    turn, cards = np.full(states, 2), np.zeros((2, states), int)
    shown = np.zeros(states, int)  # what a state shows in public
    for deal in range(4):
        places = [deal, *(4 + 3 * deal + action for action in range(3))]
        cards[:, places] = np.array(divmod(deal, 2))[:, None]
        turn[places] = [0, 1, 1, 1]
        shown[places] = [0, 1, 2, 3]
        following[deal] = np.asarray(places[1:])[:, None]
        reward[places[1:]] = payoff[deal][:, None]  # whatever player 1 does now
    signs = np.eye(2)[cards]  # (n, S, O)
    public = np.eye(4)[shown]
    available = np.zeros((states, 2, 3), bool)
    available[:, :, 0] = True
    for player in range(2):
        available[turn == player, player] = True
    deals = [f"{first + 1}, {second + 1}" for first, second in np.ndindex(2, 2)]
    return team_pomdp(
        np.eye(states)[following],
        reward,
        np.broadcast_to(signs[:, None, None], (2, 3, 3, states, 2)),
        first_private=signs,
        public=np.broadcast_to(public, (3, 3, states, 4)),
        first_public=public,
        start=(np.arange(states) < 4) / 4,
        terminal=np.arange(states) == end,
        available=available,
        time_limit=2,
        layout=(
            *((0.0, -3.0 * deal - 1.0) for deal in range(4)),
            *((2.0, -float(place)) for place in range(12)),
            (4.0, -5.5),
        ),
        labels=(*deals, *(f"{deal}\n{action + 1}" for deal in deals for action in range(3)), "end"),
        private_labels=("card 1", "card 2"),
        public_labels=("no action yet", "action 1", "action 2", "action 3"),
    )
