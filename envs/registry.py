"""Every environment by its id."""

import dataclasses
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from envs import (
    catch_prey,
    differential_game,
    gaussian_squeeze,
    matrix_games,
    option_mdp,
    predator_prey,
    rooms,
    stag_hunt,
    stochastic_games,
    team_mdp,
    team_pomdp,
)
from envs.adapters import ADAPTED_IDS, PREFIXES
from envs.adapters import lookup as lookup_adapted
from envs.base import TeamEnvironment
from envs.errors import BadInputError
from envs.outside import find_outside, is_outside


@dataclasses.dataclass(frozen=True)
class Entry:
    """How to build an environment.

    Attributes:
        build: makes the environment; its keyword arguments are the parameters that a user may set.
        family: selects the papers' table of hyper-parameters.
        about: one line for `--list`.
    """

    build: Callable[..., TeamEnvironment]
    family: str
    about: str


def _payoff(payoff: Any) -> Callable[..., TeamEnvironment]:
    return lambda stages=1: matrix_games.matrix_game(payoff, stages)


def _penalty(k: float = -100.0, stages: int = 1) -> TeamEnvironment:
    return matrix_games.matrix_game(matrix_games.penalty_payoff(k), stages)


#: What predators see, by the ending of a game's id: its parameters, and words for the list.
PREDATOR_VIEWS: dict[str, tuple[dict[str, bool], str]] = {
    "": ({}, ""),
    "-teammates": ({"sees_predators": True}, ", teammates in view"),
    "-full": ({"full_view": True}, ", the release's full view"),
}


def _predator_prey(predators: int) -> dict[str, Entry]:
    """QTRAN's games with two or four predators: supplement C.1."""
    side, prey = {2: (5, 1), 4: (7, 2)}[predators]
    size: dict[str, Any] = {"predators": predators, "prey": prey, "height": side, "width": side}
    about = f"QTRAN's predator-prey, {side}x{side}, {predators} predators, {prey} prey, P = "
    return {
        f"predator-prey-{predators}{ending}{view}": Entry(
            partial(predator_prey.predator_prey, **size, penalty=penalty, **parameters),
            "predator-prey",
            f"{about}{penalty:g}{words}",
        )
        for view, (parameters, words) in PREDATOR_VIEWS.items()
        for ending, penalty in {"": 0.5, "-p1": 1.0, "-p1.5": 1.5}.items()
    }


def _stag_hunt(punishment: float, mask_occupied: bool = False) -> Entry:
    return Entry(
        partial(stag_hunt.stag_hunt, punishment=punishment, mask_occupied=mask_occupied),
        "stag-hunt",
        f"DCG's predator-prey, 10x10, 8 agents, 8 prey, p = {punishment:g}, optimum 40"
        + (", ReMIX's mask" if mask_occupied else ""),
    )


ENVIRONMENTS: dict[str, Entry] = {
    "matrix-qtran": Entry(_payoff(matrix_games.QTRAN_PAYOFF), "matrix", "QTRAN's 3x3 game, optimum 8"),
    "matrix-qplex": Entry(_payoff(matrix_games.QPLEX_PAYOFF), "matrix", "QPLEX's 3x3 game, optimum 8"),
    "matrix-qplex-10": Entry(
        _payoff(matrix_games.QPLEX_10_PAYOFF), "matrix", "QPLEX's first 3x3 game, optimum 10.4"
    ),
    "matrix-ltql": Entry(
        _payoff(matrix_games.LTQL_PAYOFF), "matrix", "Logical Team Q-learning's 2x3 game, two optima of 2"
    ),
    "matrix-thesis": Entry(_payoff(matrix_games.THESIS_PAYOFF), "matrix", "the thesis's equation 3.1"),
    "matrix-thesis-zero-sum": Entry(
        lambda stages=1: matrix_games.zero_sum_game(matrix_games.THESIS_PAYOFF, stages),
        "matrix",
        "the thesis's equation 3.1 as a zero-sum game; one reward per agent",
    ),
    "matrix-pr2": Entry(
        lambda stages=1: matrix_games.general_sum_game(matrix_games.PR2_PAYOFFS, stages),
        "matrix",
        "PR2's 2x2 game, one mixed equilibrium; one reward per agent",
    ),
    "matrix-climbing": Entry(
        _payoff(matrix_games.CLIMBING_PAYOFF), "matrix", "climbing game, malib's orientation"
    ),
    "matrix-climbing-t": Entry(
        _payoff(matrix_games.CLIMBING_T_PAYOFF), "matrix", "climbing game, Claus and Boutilier's orientation"
    ),
    "matrix-penalty": Entry(_penalty, "matrix", "penalty game, two optima of 10, k for miscoordination"),
    "matrix-21x21": Entry(
        _payoff(matrix_games.two_gaussians_payoff()),
        "matrix",
        "QTRAN's 21x21 game, optimum 10 at (5, 15)",
    ),
    "matrix-random": Entry(matrix_games.random_game, "matrix", "payoffs uniform in [0, 1)"),
    "two-step": Entry(
        matrix_games.two_step_game, "matrix", "QMIX's two-step game, a safe 7 or an optimum of 8"
    ),
    "n-step-matrix": Entry(
        matrix_games.n_step_matrix_game,
        "matrix",
        "MAVEN's m-step matrix game, an optimum of steps + 3, a local one of steps",
    ),
    "random-state": Entry(
        matrix_games.random_state_game, "matrix", "one of two payoffs, drawn and shown at the start"
    ),
    "team-mdp-divergence": Entry(
        team_mdp.divergence_mmdp, "team-mdp", "two states on which additive FQI diverges, value 1/(1-gamma)"
    ),
    "team-mdp-line": Entry(team_mdp.line_world, "team-mdp", "LTQL's line world with a button, optimum 10"),
    "team-mdp-random": Entry(
        team_mdp.random_team_mdp, "team-mdp", "random transitions, rewards uniform in [0, 1)"
    ),
    "two-state-zero-sum": Entry(
        stochastic_games.two_state_zero_sum,
        "team-mdp",
        "a zero-sum game of two states in which both agents mix; one reward per agent",
    ),
    "four-rooms": Entry(
        rooms.four_rooms, "options", "four rooms, one agent, an option for each of the four hallways"
    ),
    "buttons-and-doors": Entry(
        rooms.buttons_and_doors,
        "options",
        "two agents in a room each; a door is open while the other stands on its button",
    ),
    "option-mdp-random": Entry(
        option_mdp.random_option_mdp,
        "options",
        "random transitions, rewards and priors of options; one agent with `--agents 1`",
    ),
    "hmm": Entry(team_pomdp.hidden_chain, "pomdp", "guess the state of a hidden chain of two states"),
    "tiger": Entry(team_pomdp.tiger, "pomdp", "one agent listens for a tiger behind one of two doors"),
    "two-agent-tiger": Entry(
        team_pomdp.two_agent_tiger, "pomdp", "two agents listen for a tiger, and see each other's actions"
    ),
    "private-cards": Entry(
        team_pomdp.private_cards, "pomdp", "BAD's game: a private card and a public action each, optimum 10"
    ),
    "squeeze": Entry(
        gaussian_squeeze.gaussian_squeeze, "squeeze", "QTRAN's Gaussian squeeze, s drawn once from `seed`"
    ),
    "squeeze-multi": Entry(
        gaussian_squeeze.multi_domain_squeeze, "squeeze", "QTRAN's multi-domain squeeze, a pitfall of 5.05"
    ),
    "squeeze-release": Entry(
        gaussian_squeeze.redrawn_squeeze, "squeeze", "squeeze of QTRAN's release, s redrawn every episode"
    ),
    "squeeze-multi-release": Entry(
        partial(gaussian_squeeze.redrawn_squeeze, mu=(8.0, 5.0), sigma=(0.5, 1.0)),
        "squeeze",
        "multi-domain squeeze of QTRAN's release",
    ),
    **_predator_prey(2),
    **_predator_prey(4),
    "stag-hunt-p0": _stag_hunt(0.0),
    "stag-hunt-p05": _stag_hunt(-0.5),
    "stag-hunt-p1": _stag_hunt(-1.0),
    "stag-hunt-p125": _stag_hunt(-1.25),
    "stag-hunt-p15": _stag_hunt(-1.5),
    "stag-hunt-p2": _stag_hunt(-2.0),
    # The four of ReMIX's figure 1, as its section D.1 says: moves into occupied cells are unavailable.
    "stag-hunt-p0-masked": _stag_hunt(0.0, mask_occupied=True),
    "stag-hunt-p05-masked": _stag_hunt(-0.5, mask_occupied=True),
    "stag-hunt-p15-masked": _stag_hunt(-1.5, mask_occupied=True),
    "stag-hunt-p2-masked": _stag_hunt(-2.0, mask_occupied=True),
    "differential": Entry(
        differential_game.differential_game,
        "differential",
        "max of two quadratics, continuous actions, optimum 10 at (5, 5)",
    ),
    "differential-grid": Entry(
        differential_game.differential_grid_game, "matrix", "max of two quadratics on a grid of actions"
    ),
    "catch-prey": Entry(catch_prey.catch_prey, "pursuit", "predators surround a faster prey on the plane"),
}


def lookup(env_id: str) -> Entry:
    """The entry of `env_id`.

    An id with a colon names a game of another library, see `envs.adapters`, or is `module:function` for a
    function or class in the user's own module, whose arguments are the game's parameters.

    Raises:
        BadInputError: for an unknown id or one that is no text, or a missing library or module.
    """
    if not isinstance(env_id, str):
        raise BadInputError(
            f"the id of an environment must be text, such as 'two-step', not {type(env_id).__name__}"
        )
    if env_id.partition(":")[0] in PREFIXES:
        return Entry(*lookup_adapted(env_id))
    if is_outside(env_id):
        build = find_outside(env_id)
        if not callable(build):
            raise BadInputError(f"{env_id} must be a function or a class that makes a game")
        return Entry(build, "outside", (inspect.getdoc(build) or "").partition("\n")[0])
    if env_id not in ENVIRONMENTS:
        known = ", ".join([*ENVIRONMENTS, *ADAPTED_IDS])
        raise BadInputError(f"unknown environment {env_id!r}: choose one of {known}")
    return ENVIRONMENTS[env_id]


def make(env_id: str, **parameters: Any) -> TeamEnvironment:
    """Build the environment `env_id` with some of its parameters changed.

    Raises:
        BadInputError: for an unknown id, an unknown parameter or an invalid value.

    Example:
        >>> game = make("matrix-penalty", k=-10)
        >>> game.num_agents, game.num_actions
        (2, 3)
        >>> make("matrix-penalty", k=10)
        Traceback (most recent call last):
        envs.errors.BadInputError: k must be at most 0, not 10
    """
    entry = lookup(env_id)
    try:
        game = entry.build(**parameters)
    except TypeError as error:
        raise BadInputError(f"{env_id} does not take these parameters: {error}") from error
    if not isinstance(game, TeamEnvironment):
        raise BadInputError(f"{env_id} must make a TeamEnvironment, not a {type(game).__name__}")
    return game
