"""QTRAN, section 3.1 and supplement B: theorems 1, 1a and 2, propositions 1 and 1a, on random games."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.axes import Axes

from envs.matrix_games import QTRAN_PAYOFF
from jaxmarl_fac.exact.factorization import (
    largest_scale,
    least_slacks,
    shifted,
    slack,
    state_value,
    tight_utilities,
    tighten,
)
from jaxmarl_fac.exact.joint import PerAgent
from jaxmarl_fac.exact.projections import sum_utilities
from jaxmarl_fac.losses import qtran_nopt_min_loss, qtran_opt_loss
from jaxmarl_fac.report.claims import Claim, Outcome, Workshop
from jaxmarl_fac.report.figures import bar_counts, panels
from jaxmarl_fac.report.styles import PALETTE
from jaxmarl_fac.report.verdicts import Part, Rule, over_games, share
from jaxmarl_fac.statistics import Interval

GAMES, EXACT = 1000, 1e-9
#: Agents' numbers of actions.
SHAPES = ((3, 3), (3, 3, 3), (3, 3, 3, 3))
#: Those of the payoffs, uniform in [0, 1], for which condition (7) is solved.
TIGHT_SHAPES = ((2, 2), (3, 3), (2, 2, 2), (2, 2, 3))
#: The smallest game in which condition (7) cannot be met: one of eight joint actions pays.
COUNTEREXAMPLE = np.zeros((2, 2, 2))
COUNTEREXAMPLE[0, 0, 0] = 1.0
STARTS, STEPS = 100, 3000
#: Scales of utilities (100, 0, 0) in QTRAN's game, of which condition (4) allows those up to .04.
SCALES = np.linspace(0, 0.08, 81)
#: Q_1(A) in QTRAN's game where Q_1 + Q_2 is its best payoff, 8, and all other utilities are 0.
SPLITS = np.linspace(-1, 9, 101)

THEOREM_1 = "games in which (4) holds and the utilities' greedy joint action is not optimal (theorem 1)"
THEOREM_1A = "games in which (9) holds and it is not optimal (theorem 1a)"
STATE_VALUE = "the largest distance of V_jt from max Q_jt - sum of max Q_i, where (4) holds (5)"
PROPOSITION_1 = "games with IGM in which no scale of the utilities meets (4) (proposition 1)"
PROPOSITION_1A = "games with IGM in which no shift of scaled utilities meets (9) (proposition 1a)"
CONSTRUCTION = "games of two agents in which the construction of B.4.1 misses (7)"
TWO_AGENTS = "games of two agents in which (7) cannot be met (theorem 2)"
MORE_AGENTS = "games of three agents in which (7) cannot be met (theorem 2)"
STATEMENTS = {
    THEOREM_1: "theorem 1: (4) implies IGM",
    THEOREM_1A: "theorem 1a: so does (9)",
    STATE_VALUE: "equation 5: V_jt",
    PROPOSITION_1: "proposition 1: a scale meets (4)",
    PROPOSITION_1A: "proposition 1a: a shift meets (9)",
    CONSTRUCTION: "B.4.1: two agents' construction",
    TWO_AGENTS: "theorem 2, two agents: (7) can be met",
    MORE_AGENTS: "theorem 2, three agents",
}


class Conditions(NamedTuple):
    """Of random games, each `(games,)`, as NumPy arrays from `conditions`."""

    regret: jax.Array  # max Q_jt - Q_jt(ū), where (4) holds
    regret_9: jax.Array  # the same where (9) holds
    state_value: jax.Array  # the distance of V_jt from that of equation 5
    scale: jax.Array  # the largest that proposition 1 allows
    least_slack: jax.Array  # at that scale
    slack_above: jax.Array  # at 1.01 times that scale
    least_slack_9: jax.Array  # at that scale, shifted as in proposition 1a
    value_9: jax.Array  # the state value that is left then
    untight: (
        jax.Array
    )  # the largest distance from (7) after B.4.1's construction, or a greedy action that moved


def conditions(shape: Sequence[int], games: int) -> Conditions:
    """Theorems 1 and 1a on utilities that meet their conditions, the propositions on any that satisfy IGM.

    Utilities and joint values are standard normal; slacks are exponential, or 0 with probability .5.
    """
    draw = np.random.default_rng([len(shape), games])
    both = [tuple(draw.normal(size=(games, actions)) for actions in shape) for _ in range(2)]
    slacks = draw.exponential(size=(games, *shape)) * (draw.random((games, *shape)) < 0.5)
    values, v_jt = draw.normal(size=(games, *shape)), draw.normal(size=games)

    def work(
        utilities: PerAgent, others: PerAgent, slacks: jax.Array, q_jt: jax.Array, v_jt: jax.Array
    ) -> Conditions:
        greedy = tuple(jnp.argmax(utility) for utility in utilities)
        slacks = slacks.at[greedy].set(0.0)
        tracked_9 = sum_utilities(utilities) - slacks
        tracked = tracked_9 + v_jt
        # For IGM each agent's best action is rolled to its place in the best joint action.
        best = jnp.unravel_index(jnp.argmax(q_jt), q_jt.shape)
        factors = tuple(
            jnp.roll(other, place - jnp.argmax(other)) for other, place in zip(others, best, strict=True)
        )
        scale = largest_scale(factors, q_jt)

        def least(factors: PerAgent) -> jax.Array:
            return jnp.min(slack(factors, q_jt, state_value(factors, q_jt)))

        scaled, above = (tuple(times * factor for factor in factors) for times in (scale, 1.01 * scale))
        moved = shifted(scaled, q_jt)
        untight = jnp.zeros(())
        if len(factors) == 2:
            tight = tighten(moved, q_jt)
            found = slack(tight, q_jt)
            untight = jnp.max(jnp.stack([jnp.max(jnp.abs(line)) for line in least_slacks(found)]))
            kept = jnp.stack(
                [utility[place] == jnp.max(utility) for utility, place in zip(tight, best, strict=True)]
            )
            untight = jnp.where(jnp.all(kept), untight, jnp.inf)
        return Conditions(
            regret=jnp.max(tracked) - tracked[greedy],
            regret_9=jnp.max(tracked_9) - tracked_9[greedy],
            state_value=jnp.abs(state_value(utilities, tracked) - v_jt),
            scale=scale,
            least_slack=least(scaled),
            slack_above=least(above),
            least_slack_9=jnp.min(slack(moved, q_jt)),
            value_9=jnp.abs(state_value(moved, q_jt)),
            untight=untight,
        )

    return over_games(work, *both, slacks, values, v_jt)  # type: ignore[no-any-return]


def feasible(shape: Sequence[int], games: int) -> np.ndarray:
    """Whether condition (7) can be met in each of the random games, `(games,)`."""
    draw = np.random.default_rng(list(shape))
    return np.asarray([tight_utilities(draw.random(shape)) is not None for _ in range(games)])


def alt_loss(utilities: jax.Array, q_jt: jax.Array) -> jax.Array:
    """QTRAN-alt's `L_opt + L_nopt-min` of utilities `(n, A)`, `()`; the mean over all joint actions."""
    agents, actions = utilities.shape
    q_prime, available = sum_utilities(tuple(utilities)), jnp.ones((agents, actions), bool)
    greedy, zero = tuple(jnp.argmax(utilities, axis=1)), jnp.zeros(())

    def at(joint: jax.Array) -> jax.Array:
        def own(table: jax.Array) -> jax.Array:
            """The table along each agent's actions, `(n, A)`."""
            lines = [jnp.moveaxis(table, agent, -1) for agent in range(agents)]
            others = [jnp.delete(joint, agent, assume_unique_indices=True) for agent in range(agents)]
            return jnp.stack([line[tuple(other)] for line, other in zip(lines, others, strict=True)])

        return qtran_nopt_min_loss(own(q_prime), own(q_jt), zero, available, signed=True)

    joints = jnp.stack(jnp.indices(q_jt.shape), axis=-1).reshape(-1, agents)
    return qtran_opt_loss(q_prime[greedy], q_jt[greedy], zero) + jnp.mean(jax.vmap(at)(joints))


@functools.partial(jax.jit, static_argnames=("starts", "steps"))
def descend(q_jt: jax.Array, starts: int, steps: int) -> jax.Array:
    """`alt_loss` `(starts, steps)` before each step of Adam from random starts, with shrinking step sizes."""
    adam = optax.adam(optax.linear_schedule(0.05, 0.0, steps))

    def from_start(utilities: jax.Array) -> jax.Array:
        def step(state: tuple[jax.Array, Any], _: None) -> tuple[tuple[jax.Array, Any], jax.Array]:
            utilities, moments = state
            loss, gradient = jax.value_and_grad(alt_loss)(utilities, q_jt)
            updates, moments = adam.update(gradient, moments)
            return (utilities + updates, moments), loss

        return jax.lax.scan(step, (utilities, adam.init(utilities)), length=steps)[1]

    shape = (starts, q_jt.ndim, q_jt.shape[0])
    return jax.vmap(from_start)(jax.random.normal(jax.random.key(0), shape, q_jt.dtype))


class Measurements(NamedTuple):
    """All that the figure shows."""

    random: dict[int, Conditions]  # by number of agents
    tight: dict[tuple[int, ...], np.ndarray]  # whether (7) can be met (games,), by numbers of actions
    least_slack: np.ndarray  # of QTRAN's game at each of SCALES
    split_loss: np.ndarray  # QTRAN-alt's loss at each of SPLITS
    descent: dict[str, np.ndarray]  # (starts, steps), by game


def take_measurements(games: int, starts: int, steps: int) -> Measurements:
    """Everything in float64."""
    with jax.enable_x64(True):
        payoff = jnp.asarray(QTRAN_PAYOFF, float)

        def least(scale: jax.Array) -> jax.Array:
            utilities = (jnp.asarray([100.0, 0, 0]) * scale,) * 2
            return jnp.min(slack(utilities, payoff, state_value(utilities, payoff)))

        def split(first: jax.Array) -> jax.Array:
            return alt_loss(jnp.zeros((2, 3)).at[:, 0].set(jnp.stack([first, 8 - first])), payoff)

        pairs = np.zeros((2, 2))
        pairs[0, 0] = 1.0
        return Measurements(
            {len(shape): conditions(shape, games) for shape in SHAPES},
            {shape: feasible(shape, games) for shape in TIGHT_SHAPES},
            np.asarray(jax.vmap(least)(jnp.asarray(SCALES))),
            np.asarray(jax.vmap(split)(jnp.asarray(SPLITS))),
            {
                "2 agents": np.asarray(descend(jnp.asarray(pairs), starts, steps)),
                "3 agents": np.asarray(descend(jnp.asarray(COUNTEREXAMPLE), starts, steps)),
            },
        )


def measure(found: Measurements) -> dict[str, Any]:
    """What the rule judges."""

    def count(bad: Any) -> int:
        return sum(int(np.sum(bad(each))) for each in found.random.values())

    def infeasible(agents: int) -> int:
        return sum(int(np.sum(~met)) for shape, met in found.tight.items() if len(shape) == agents)

    return {
        THEOREM_1: count(lambda each: each.regret > EXACT),
        THEOREM_1A: count(lambda each: each.regret_9 > EXACT),
        STATE_VALUE: max(float(each.state_value.max()) for each in found.random.values()),
        PROPOSITION_1: count(lambda each: ~((each.scale > 0) & (each.least_slack >= -EXACT))),
        PROPOSITION_1A: count(
            lambda each: ~((each.scale > 0) & (each.least_slack_9 >= -EXACT) & (each.value_9 < EXACT))
        ),
        CONSTRUCTION: int(np.sum(found.random[2].untight > EXACT)),
        TWO_AGENTS: infeasible(2),
        MORE_AGENTS: infeasible(3),
    }


def theory(workshop: Workshop) -> Outcome:
    """The theorems of section 3.1 on random games in float64, with a counterexample to theorem 2."""
    games = workshop.choose(smoke=20, quick=GAMES, paper=GAMES)
    starts = workshop.choose(smoke=10, quick=STARTS, paper=STARTS)
    steps = workshop.choose(smoke=300, quick=STEPS, paper=STEPS)
    found = take_measurements(games, starts, steps)
    measured = measure(found)
    shares: dict[str, Interval] = {_times(shape): share(met) for shape, met in found.tight.items()}
    last = {name: losses[:, -1] for name, losses in found.descent.items()}
    zero = np.asarray(SPLITS)[found.split_loss < EXACT]
    ours: dict[str, Any] = {
        "games": games,
        "measured": measured,
        "share of payoffs for which condition (7) can be met": shares,
        "largest scale of proposition 1": {
            f"{agents} agents": {"least": each.scale.min(), "median": np.median(each.scale)}
            for agents, each in found.random.items()
        },
        "games in which 1.01 times the largest scale misses (4)": {
            f"{agents} agents": int((each.slack_above < 0).sum()) for agents, each in found.random.items()
        },
        "largest scale of (100, 0, 0) in QTRAN's game": SCALES[found.least_slack >= -EXACT].max(),
        "Q_1(A) with no loss of QTRAN-alt in QTRAN's game": {"least": zero.min(), "most": zero.max()},
        "L_opt + L_nopt-min after gradient descent, R = 1 at (0, ..., 0)": {
            name: {"least": losses.min(), "median": np.median(losses)} for name, losses in last.items()
        },
    }
    shown = ", ".join(f"{interval.value:.0%} of {shape}" for shape, interval in shares.items())
    why = (
        f"Theorem 2 is false for three agents: with two actions each and R = 1 at (0, 0, 0) only, no "
        f"utilities meet (7). Of random payoffs {shown} can meet it. Where it cannot be met QTRAN-alt's "
        f"losses have no zero: on this game the best of {starts} descents ends at "
        f"{last['3 agents'].min():.3f} (two agents: {last['2 agents'].min():.0e}). For two agents there are "
        f"many: in QTRAN's game Q_1(A) may be anything from {zero.min():.1f} to {zero.max():.1f}."
    )
    return Outcome(_draw(found, measured, games), dict.fromkeys(measured, 0), ours, measured, why, games)


def _times(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))


def _draw(found: Measurements, measured: dict[str, Any], games: int) -> Any:
    figure, axes = panels(
        2, 3, (5.2, 3.9), f"QTRAN's theorems on {games:,} random games of each kind (float64)"
    )
    _draw_statements(axes[0, 0], measured)
    _draw_scales(axes[0, 1], found.least_slack)
    bar_counts(
        axes[0, 2],
        [_times(shape) for shape in found.tight],
        {"share": [100 * met.mean() for met in found.tight.values()]},
        title="condition (7) can be met",
        ylabel="% of random payoffs",
        value_format="{:.0f}",
    )
    axes[0, 2].set_ylim(0, 115)
    axes[0, 2].set_xlabel("actions of each agent")
    _draw_counterexample(axes[1, 0])
    _draw_descent(axes[1, 1], found.descent)
    axes[1, 2].plot(SPLITS, found.split_loss, color=PALETTE[0])
    axes[1, 2].set(
        title="QTRAN-alt in QTRAN's game: a loss of 0 from 0 to 8",
        xlabel="$Q_1(A)$, where $Q_2(A) = 8 - Q_1(A)$ and all else is 0",
        ylabel="$L_{opt} + L_{nopt-min}$",
    )
    axes[1, 2].grid(alpha=0.25)
    return figure


def _draw_statements(axes: Axes, measured: dict[str, Any]) -> None:
    """Each statement and whether it holds."""
    axes.set_axis_off()
    axes.set_title("the statements")
    for row, (name, words) in enumerate(STATEMENTS.items()):
        value = measured[name]
        holds = value <= EXACT
        verdict = "true" if holds else f"false in {value:,} games"
        height = 1 - (row + 0.7) / len(STATEMENTS)
        axes.text(0.0, height, words, transform=axes.transAxes, fontsize="small")
        axes.text(
            0.72, height, verdict, transform=axes.transAxes, fontsize="small",
            color="black" if holds else PALETTE[3], fontweight="normal" if holds else "bold",
        )  # fmt: skip


def _draw_scales(axes: Axes, least_slack: np.ndarray) -> None:
    axes.plot(SCALES, least_slack, color=PALETTE[0])
    axes.axhline(0, color="0.45", linewidth=1)
    axes.axvline(0.04, color="0.45", linewidth=1, linestyle="--")
    axes.annotate("α = .04", (0.04, axes.get_ylim()[0]), xytext=(4, 6), textcoords="offset points")
    axes.set(
        title="proposition 1: QTRAN's game, $Q_i$ = (100, 0, 0)",
        xlabel="scale α of the utilities",
        ylabel="least slack; (4) holds from 0 on",
    )
    axes.grid(alpha=0.25)


def _draw_counterexample(axes: Axes) -> None:
    """The eight joint actions, and why condition (7) cannot be met."""
    axes.set_axis_off()
    axes.set_title("the smallest counterexample to theorem 2")
    lines = (
        "Three agents, two actions: R(0, 0, 0) = 1, else 0.",
        "With $a_i = Q_i(1) - Q_i(0) \\leq 0$ the slack of u is",
        "$1 - R(u)$ plus the $a_i$ of all who play 1.",
        "Where agent 2 plays 0 and agent 3 plays 1, (7) asks for",
        "a zero of agent 1: $a_3 = -1$ or $a_1 + a_3 = -1$, so that",
        "$a_1 + a_3 \\leq -1$. So it is with each pair of agents, and",
        "the three together give $a_1 + a_2 + a_3 \\leq -3/2$.",
        "But where all play 1, the slack must not be below 0:",
        "$a_1 + a_2 + a_3 \\geq -1$. Both cannot be.",
    )
    for row, line in enumerate(lines):
        axes.text(0.0, 1 - (row + 0.8) / len(lines), line, transform=axes.transAxes, fontsize="small")


def _draw_descent(axes: Axes, descent: dict[str, np.ndarray]) -> None:
    for (name, losses), shade in zip(descent.items(), (PALETTE[0], PALETTE[3]), strict=True):
        shown = np.maximum(losses, 1e-12)
        low, middle, high = np.percentile(shown, (0, 50, 100), axis=0)
        steps = np.arange(1, losses.shape[1] + 1)
        axes.plot(steps, middle, color=shade, label=f"{name}: median of {len(losses)}, range")
        axes.fill_between(steps, low, high, color=shade, alpha=0.2, linewidth=0)
    axes.set_yscale("log")
    axes.set(
        title="gradient descent, R = 1 where all play 0, else 0",
        xlabel="step",
        ylabel="$L_{opt} + L_{nopt-min}$",
    )
    axes.legend(fontsize="small", frameon=False, loc="center right")
    axes.grid(alpha=0.25)


RULE = Rule(
    (
        Part(THEOREM_1, at_most=0),
        Part(THEOREM_1A, at_most=0),
        Part(STATE_VALUE, at_most=EXACT),
        Part(PROPOSITION_1, at_most=0),
        Part(PROPOSITION_1A, at_most=0),
        Part(CONSTRUCTION, at_most=0),
        Part(TWO_AGENTS, at_most=0),
        Part(MORE_AGENTS, at_most=0),
    ),
    given="On 1,000 random games in float64 for each number of agents (two to four, three actions each), and "
    "on 1,000 random payoffs of each of 2×2, 3×3, 2×2×2 and 2×2×3 for condition (7): ",
)

CLAIMS = (
    Claim(
        "theory",
        "QTRAN, section 3.1 (theorems 1 and 2, equation 5) and supplement B",
        "Conditions (4), (9) and (7) imply IGM, and can be met by scaling and shifting the utilities.",
        RULE,
        {"smoke": "20 s", "quick": "1 min", "paper": "1 min"},
        theory,
    ),
)
