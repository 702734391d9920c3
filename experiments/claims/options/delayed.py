"""Thesis, section 4.2: the closed form of options communicated one step late, and what is printed of it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.claims.options import games
from experiments.claims.options.single import draw_contraction, draw_losses
from jaxmarl_fac.report.claims import Claim, Outcome, Workshop
from jaxmarl_fac.report.figures import annotated_matrix, panels
from jaxmarl_fac.report.styles import PALETTE
from jaxmarl_fac.report.verdicts import TOLERANCE, Part, Rule, over_games
from jaxmarl_fac.soft import options
from jaxmarl_fac.soft.planning import fixed_point

GAMES = 1000
EXACT = 1e-9
#: Steps of the episodes whose returns are computed.
STEPS = 30

ERROR = "the largest error of the worked example"
FACTOR = "the largest shrinkage by the Bellman operator of a distance, as a multiple of γ"
GAIN = "the most that other policies gain in the objective (4.15)"


class Message(NamedTuple):
    """The expected return of a game's policies, each `()`, in units of the reward."""

    with_message: jax.Array
    without: jax.Array


def message_returns(game: options.OptionGame, start: jax.Array, steps: int) -> Message:
    """Returns of two agents that execute their policies, with and without the other's option of before.

    Both have the same numbers of options and actions.
    """
    both = jax.tree.map(lambda *sides: jnp.stack(sides), game, game.seen_by(1))

    def returns(model: options.OptionModel) -> jax.Array:
        solutions = jax.vmap(lambda side: options.solve(side, model))(both)
        each = tuple(jax.tree.map(lambda leaf, agent=agent: leaf[agent], solutions) for agent in range(2))
        return options.expected_return(game, each, start, steps)

    return Message(returns(options.DELAYED), returns(options.NO_MESSAGE))


def printed_loss_fixed_point(game: options.OptionGame) -> jax.Array:
    """W(z̄_o, z̄_i), leading axis S, where the loss (4.41) is least as printed: Q = βr - γ E W."""

    def operator(q: jax.Array) -> jax.Array:
        reward = options.bellman(game.replace(gamma=jnp.zeros_like(game.gamma)), options.DELAYED, q)  # type: ignore[attr-defined]
        return 2 * reward - options.bellman(game, options.DELAYED, q)

    sizes = [size for prior in game.action_priors for size in prior.shape[1:]]
    start = jnp.zeros((len(game.terminal), *sizes), game.reward.dtype)
    q = fixed_point(operator, start, contraction=game.gamma)
    return options.backup(game, options.DELAYED, q).values["termination"]


def errata(game: options.OptionGame, solution: options.SoftOptions) -> dict[str, Any]:
    """What is wrong in print, each with a number of the worked example."""
    values, policies = solution.values, solution.policies
    q4, q2, q1, w = (
        values[name][0] for name in ("other_action", "other_termination", "action", "termination")
    )
    # Both agents end their options by their own termination policies at every pair of previous options.
    ends = policies["termination"][0, ..., 1]  # (z̄_o, z̄_i)
    disagree = ends * (1 - ends.T) + (1 - ends) * ends.T
    pi = policies["action"][0]  # (z̄_o, z_i, a_i)
    prior = game.action_priors[0][0]  # (z_i, a_i)
    without_log = jnp.sum(pi * (q2 - pi / prior), axis=-1)  # (z̄_o, z_i)
    spread_actions = jnp.max(q4, axis=1) - jnp.min(q4, axis=1)  # over a_i: (z_i, z_o)
    spread_options = jnp.max(q1, axis=1) - jnp.min(q1, axis=1)  # over z_i: (z̄_o,)
    printed = printed_loss_fixed_point(game)[0]
    found: dict[str, Any] = {
        "4.11, 4.12, 4.14: the other's master policy and prior take b^i for b^(-i)": {
            "probability that the two differ": jnp.mean(disagree),
        },
        "4.20, 4.18: Q(s, z̄_o, z_i) and Q(s, z̄_o, z̄_i) are two tables under one letter": {
            "Q(z̄_o, z_i)": q1,
            "W(z̄_o, z̄_i)": w,
            "largest difference": jnp.max(jnp.abs(q1 - w)),
        },
        "4.29, 4.30: a_i is missing": {
            "error of the best table without it": jnp.max(spread_actions) / 2,
        },
        "4.32: the logarithm of π/P is missing": {
            "Q(z̄_o, z_i) as printed, with the right policy": without_log,
            "largest error": jnp.max(jnp.abs(without_log - q1)),
        },
        "4.41: the loss has Q - βr + γQ' for Q - βr - γQ'": {
            "W as printed": printed,
            "largest error": jnp.max(jnp.abs(printed - w)),
        },
        "C.17, C.18: z_T^i stands for z_(T-1)^i": {
            "largest difference of Q(z̄_o, z_i) between options": jnp.max(spread_options),
        },
    }
    return jax.tree.map(np.asarray, found)


def exact_delayed(workshop: Workshop) -> Outcome:
    """The worked example and random games, in float64."""
    count = workshop.choose(smoke=20, quick=GAMES, paper=GAMES)
    with jax.enable_x64(True):
        game = games.delayed_example()
        solution = options.solve(game, options.DELAYED)
        numbers = games.delayed_numbers(solution)
        flat = options.solve(games.delayed_example(np.full((2, 2), 0.5)), options.DELAYED)
        flat_error = float(jnp.max(jnp.abs(flat.values["termination"] - games.DELAYED_FLAT)))
        wrong = errata(game, solution)
        drawn = games.random_games(jax.random.key(4), count, agents=2, sizes=games.Sizes(3, 2, 3))
        checks = over_games(
            lambda each, key: games.check_fixed_point(each, key, options.DELAYED),
            drawn,
            jax.random.split(jax.random.key(5), count),
        )
        message = over_games(lambda each: message_returns(each, jnp.full(3, 1 / 3), STEPS), drawn)
        of_example = jax.tree.map(float, message_returns(game, jnp.ones(1), STEPS))
    worth = message.with_message - message.without
    measured = {
        ERROR: max(games.largest_error(games.DELAYED_NUMBERS, numbers), flat_error),
        FACTOR: float(checks.contraction.max()),
        GAIN: float(checks.gain.max()),
    }
    ours = {
        "worked example": numbers,
        "errata": wrong,
        "games": count,
        "median of the shrinkage, as a multiple of γ": np.median(checks.shrinkage),
        "median of the mean loss of other policies": np.median(checks.improvement),
        f"expected return of {STEPS} steps of the worked example": of_example._asdict(),
        f"expected return of {STEPS} steps on random games": {
            "share of games where the message raises it": np.mean(worth > 0),
            "median gain": np.median(worth),
            "largest gain": worth.max(),
            "largest loss": -worth.min(),
        },
    }
    of_loss = wrong["4.41: the loss has Q - βr + γQ' for Q - βr - γQ'"]
    of_log = wrong["4.32: the logarithm of π/P is missing"]
    why = (
        f"The worked example comes out to {measured[ERROR]:.0e}; without options V = {games.DELAYED_FLAT}. "
        f"On {count:,} random games the operator shrinks every distance by γ at least, and none of "
        f"{4 * count:,} other policies gains in the objective. As printed, (4.41) is off by "
        f"{of_loss['largest error']:.3f} on the example and (4.32) by {of_log['largest error']:.3f}. With "
        f"the other's option of the step before, agents that execute their own policies return more on "
        f"{np.mean(worth > 0):.0%} of the random games: the agent's imagined other is not the real one."
    )
    return Outcome(
        _draw(numbers, solution, checks, message), dict(games.DELAYED_NUMBERS), ours, measured, why, count
    )


def _draw(
    numbers: dict[str, np.ndarray], solution: options.SoftOptions, checks: games.Checks, message: Message
) -> Any:
    figure, axes = panels(
        2, 3, (4.4, 3.5), "Options communicated one step late, exactly (thesis, 4.16 to 4.21)"
    )
    other, own = ("other's option 0", "other's option 1"), ("0", "1")
    table = np.concatenate(
        [numbers["W(z̄_o, z̄_i)"], numbers["Q(z̄_o)"][:, None], numbers["Q(z̄_o, z_i)"]], axis=1
    )
    annotated_matrix(
        axes[0, 0],
        table,
        other,
        ("W(·, 0)", "W(·, 1)", "Q(·)", "Q(·, 0)", "Q(·, 1)"),
        "worked example: values",
        value_format="{:.3f}",
    )
    policies = {name: np.asarray(table)[0] for name, table in solution.policies.items()}
    annotated_matrix(
        axes[0, 1],
        np.concatenate([policies["termination"][..., 1], policies["option"]], axis=1),
        other,
        ("ends 0", "ends 1", "takes 0", "takes 1"),
        "termination and master policy",
        limits=(0, 1),
        value_format="{:.3f}",
    )
    annotated_matrix(
        axes[0, 2],
        policies["action"].reshape(4, 2),
        [f"other {other_option}, own {option}" for other_option in own for option in own],
        ("action 0", "action 1"),
        "action policy π(a|s, z, other's option)",
        limits=(0, 1),
        value_format="{:.3f}",
    )
    draw_contraction(axes[1, 0], checks)
    draw_losses(axes[1, 1], checks)
    worth = message.with_message - message.without
    axes[1, 2].hist(worth, bins=50, color=PALETTE[1])
    axes[1, 2].axvline(0, color="0.45", linestyle="--", linewidth=1)
    axes[1, 2].set(
        title=f"the message helps on {np.mean(worth > 0):.0%} of games",
        xlabel=f"return of {STEPS} steps with it, less that without",
        ylabel="games",
    )
    return figure


CLAIMS = (
    Claim(
        "exact_delayed",
        "Thesis, equations 4.11 to 4.21 and appendix C.2",
        "With the other's option of the step before, soft options of two agents have a closed form: six "
        "nested soft maxima, the fixed point of a contraction, whose policies are optimal.",
        Rule(
            (
                Part(ERROR, at_most=TOLERANCE),
                Part(FACTOR, at_most=1 + EXACT),
                Part(GAIN, at_most=EXACT),
            ),
            given="In float64, on the worked example with one state and on 1,000 random games: ",
        ),
        {"smoke": "15 s", "quick": "1 min", "paper": "1 min"},
        exact_delayed,
    ),
)
