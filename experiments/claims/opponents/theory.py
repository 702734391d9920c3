"""Thesis, sections 3.3 to 3.5: contraction, corollary 1, theorems 8 and 9, corollary 10, on random games."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.claims.opponents.thesis_games import THESIS
from jaxmarl_fac.report.claims import Claim, Outcome, Workshop
from jaxmarl_fac.report.figures import bar_counts, panels
from jaxmarl_fac.report.styles import PALETTE
from jaxmarl_fac.report.verdicts import Part, Rule
from jaxmarl_fac.soft import operators, planning, stages

GAMES, STATES, ACTIONS, GAMMA = 1000, 3, 3, 0.9
EXACT = 1e-9

CONTRACTION = "every Bellman operator is a contraction"
PRINTED_CONTRACTION = "so is Balancing-Q's as printed, without γ (3.33)"
PRIORS = "ROMMEO and PR2 differ with uniform priors (figure 3.1)"
COROLLARY = "Corollary 1: both agents' values are one (3.31)"
THEOREM_8_HELPED = "theorem 8: Q rises with the other's update if β' > 0 (3.36)"
THEOREM_8_HARMED = "theorem 8: Q falls if β' < 0 (3.36)"
THEOREM_9 = "theorem 9: Q falls with the agent's update if β > 0 (3.41, 3.42)"


def theory(workshop: Workshop) -> Outcome:
    """The statements of chapter 3, on random games in float64."""
    games = workshop.choose(smoke=50, quick=GAMES, paper=GAMES)
    with jax.enable_x64(True):
        factors = contraction(games)
        distances = pr2_against_rommeo(games)
        values = corollary_1(games)
        changes = policy_improvement(games)

    ours: dict[str, Any] = {"games": games, "gamma": GAMMA}
    ours["contraction"] = {
        name: {"largest factor": factor.max(), "above gamma": int((factor > GAMMA + EXACT).sum())}
        for name, factor in factors.items()
    }
    ours["pr2 against rommeo"] = {
        name: {"largest difference": distance.max(), "median": np.median(distance)}
        for name, distance in distances.items()
    }
    ours["corollary 1"] = {
        name: {
            "games where it fails": int((np.abs(agent - other) > 1e-6).sum()),
            "largest difference": np.abs(agent - other).max(),
            "median difference": np.median(np.abs(agent - other)),
        }
        for name, (agent, other, _) in values.items()
    }
    agent, other, independent = values["opposite signs"]
    between = (independent >= np.minimum(agent, other) - 1e-7) & (
        independent <= np.maximum(agent, other) + 1e-7
    )
    ours["corollary 1"]["opposite signs"]["independent play in between"] = int(between.sum())
    ours["corollary 1"]["the thesis's game, beta = (.1, -.1)"] = thesis_values()
    ours["policy improvement"] = {
        name: {"rises everywhere": int(rises.sum()), "falls everywhere": int(falls.sum())}
        for name, (rises, falls) in changes.items()
    }

    operators = [name for name in factors if name != PRINTED_OPERATOR]
    statements = {
        CONTRACTION: all((factors[name] <= GAMMA + EXACT).all() for name in operators),
        PRINTED_CONTRACTION: bool((factors[PRINTED_OPERATOR] < 1 - EXACT).all()),
        PRIORS: bool((distances["uniform priors"] > EXACT).any()),
        COROLLARY: all((np.abs(agent - other) <= 1e-6).all() for agent, other, _ in values.values()),
        THEOREM_8_HELPED: bool(changes["theorem 8, β' > 0"][0].all()),
        THEOREM_8_HARMED: bool(changes["theorem 8, β' < 0"][1].all()),
        THEOREM_9: bool(changes["theorem 9, β > 0"][1].all()),
    }
    figure = _draw_theory(factors, distances, values, changes, games)
    true, false = (
        "; ".join(name for name, holds in statements.items() if holds == wanted) or "none"
        for wanted in (True, False)
    )
    fails = {name: found.get("games where it fails") for name, found in ours["corollary 1"].items()}
    rises = int(changes["theorem 9, β > 0"][0].sum())
    why = (
        f"True on all {games} games: {true}. False: {false}. With uniform priors PR2 and ROMMEO are one "
        f"policy "
        f"to {distances['uniform priors'].max():.0e}. Corollary 1 fails on {fails['equal']} games where β = "
        f"β', "
        f"{fails['opposite signs']} with opposite signs and {fails['one sign']} with one sign and β ≠ β'. "
        f"3.41 has "
        f"its inequality the wrong way round: Q rises everywhere on {rises} games."
    )
    paper = dict.fromkeys(statements, True)
    return Outcome(figure, paper, ours, statements, why, games)


def random_models(games: int, key: jax.Array) -> planning.TwoPlayerModel:
    """Rewards uniform in [0, 10), transitions from a flat Dirichlet distribution; leading axis `(games,)`."""
    reward_key, transition_key = jax.random.split(key)
    shape = (games, STATES, ACTIONS, ACTIONS)
    return planning.TwoPlayerModel(
        reward=jax.random.uniform(reward_key, shape, maxval=10.0),
        transition=jax.random.dirichlet(transition_key, jnp.ones(STATES), shape),
        gamma=jnp.full((games,), GAMMA),
    )


def magnitudes(key: jax.Array, games: int) -> jax.Array:
    """|β| from .05 to 5, uniform on a logarithmic scale, `(games,)`."""
    return jnp.exp(jax.random.uniform(key, (games,), minval=np.log(0.05), maxval=np.log(5.0)))


def any_betas(key: jax.Array, games: int) -> jax.Array:
    """β of any sign, a tenth each 0, +inf and -inf, `(games,)`."""
    kind_key, sign_key, size_key = jax.random.split(key, 3)
    kind = jax.random.randint(kind_key, (games,), 0, 10)
    finite = jax.random.rademacher(sign_key, (games,)) * magnitudes(size_key, games)
    return jnp.select([kind == 0, kind == 1, kind == 2], [0.0, jnp.inf, -jnp.inf], finite)


PRINTED_OPERATOR = "Balancing-Q without γ"
OPERATORS: dict[str, Callable[[jax.Array, jax.Array, jax.Array], stages.SoftBackup]] = {
    "PR2": lambda q, beta, _: stages.agent_first(q, beta, beta),
    "ROMMEO (thesis)": lambda q, beta, _: stages.opponent_first(q, beta, beta),
    "ROMMEO (published)": lambda q, beta, _: stages.rommeo_published(
        q, jnp.minimum(1 / jnp.abs(beta), 100.0)
    ),
    "Balancing-Q": stages.agent_first,
    "Balancing-Q, other first": stages.opponent_first,
    PRINTED_OPERATOR: stages.agent_first,
}


def contraction(games: int) -> dict[str, np.ndarray]:
    """By how much each operator shrinks the distance of a random pair, and of a table and itself plus 1.

    `(games, 2)`; β's of every sign, 0 and infinite.
    """
    keys = jax.random.split(jax.random.key(0), 6)
    model = random_models(games, keys[0])
    betas = any_betas(keys[1], games), any_betas(keys[2], games)
    shape = (games, STATES, ACTIONS, ACTIONS)
    first, second = (10 * jax.random.normal(key, shape) for key in keys[3:5])

    def factor(name: str) -> np.ndarray:
        def of_game(model: Any, first: Any, second: Any, beta: Any, beta_other: Any) -> jax.Array:
            if name == PRINTED_OPERATOR:
                model = model._replace(gamma=jnp.ones(()))

            def operator(q: jax.Array) -> jax.Array:
                return planning.bellman(model, lambda table: OPERATORS[name](table, beta, beta_other), q)

            pairs = ((first, second), (first, first + 1))
            return jnp.stack([planning.contraction_factor(operator, *pair) for pair in pairs])

        return np.asarray(jax.jit(jax.vmap(of_game))(model, first, second, *betas))

    return {name: factor(name) for name in OPERATORS}


def pr2_against_rommeo(games: int) -> dict[str, np.ndarray]:
    """The largest difference between the joint policies of PR2 and ROMMEO, `(games,)`, by kind of priors."""
    keys = jax.random.split(jax.random.key(1), 4)
    q = jax.random.uniform(keys[0], (games, ACTIONS, ACTIONS), maxval=10.0)
    beta = magnitudes(keys[1], games)
    flat = jnp.ones(ACTIONS * ACTIONS)
    first, second = (
        jax.random.dirichlet(key, flat, (games,)).reshape(games, ACTIONS, ACTIONS) for key in keys[2:]
    )

    def apart(q: jax.Array, beta: jax.Array, for_pr2: jax.Array, for_rommeo: jax.Array) -> jax.Array:
        """With joint priors `(A, B)`, each factored in the algorithm's own order."""
        own, other = for_pr2.sum(1), for_rommeo.sum(0)
        pr2 = stages.pr2(beta * q, own, for_pr2 / own[:, None])
        rommeo = stages.rommeo(beta * q, for_rommeo / other, other)
        return jnp.max(jnp.abs(pr2.joint - rommeo.joint))

    compare = jax.jit(jax.vmap(apart))
    uniform = jnp.full_like(q, 1 / ACTIONS**2)
    return {
        "uniform priors": np.asarray(compare(q, beta, uniform, uniform)),
        "one joint prior": np.asarray(compare(q, beta, first, first)),
        "different priors": np.asarray(compare(q, beta, first, second)),
    }


def corollary_1(games: int) -> dict[str, tuple[np.ndarray, ...]]:
    """Values of a stage with the agent, the other and neither first; `(games,)` each, by signs of β."""
    keys = jax.random.split(jax.random.key(2), 3)
    q = jax.random.uniform(keys[0], (games, ACTIONS, ACTIONS), maxval=10.0)
    own, other = magnitudes(keys[1], games), magnitudes(keys[2], games)

    def values(q: jax.Array, beta: jax.Array, beta_other: jax.Array) -> tuple[jax.Array, ...]:
        return (
            stages.agent_first(q, beta, beta_other).value,
            stages.opponent_first(q, beta, beta_other).value,
            stages.independent_play(q, beta, beta_other).value,
        )

    compare = jax.jit(jax.vmap(values))
    betas = {"equal": (own, own), "one sign": (own, other), "opposite signs": (own, -other)}
    return {name: tuple(map(np.asarray, compare(q, *pair))) for name, pair in betas.items()}


def thesis_values() -> dict[str, float]:
    """The value of the thesis's own game in each order of play."""
    orders: dict[str, Callable[..., Any]] = {
        "agent first": stages.agent_first,
        "other first": stages.opponent_first,
        "independent": stages.independent_play,
    }
    with jax.enable_x64(True):
        return {name: float(order(jnp.asarray(THESIS), 0.1, -0.1).value) for name, order in orders.items()}


def policy_improvement(games: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Games where Q rises everywhere, and where it falls everywhere, `(games,)` each, when one side updates.

    Theorem 8 updates ρ(b|s) with π(a|s,b) fixed (3.35), theorem 9 π(a|s) with ρ(b|s,a) fixed (3.40).
    """
    keys = jax.random.split(jax.random.key(3), 7)
    model = random_models(games, keys[0])
    ones, size = jnp.ones(ACTIONS), (games, STATES)

    def policies(key: jax.Array, *given: int) -> jax.Array:
        return jax.random.dirichlet(key, ones, (*size, *given))

    replies = jnp.swapaxes(policies(keys[1], ACTIONS), -1, -2)  # π(a|s,b), (games, S, A, B)
    leads = policies(keys[2])[..., None, :]  # ρ(b|s)
    own_leads = policies(keys[3])[..., None]  # π(a|s)
    other_replies = policies(keys[4], ACTIONS)  # ρ(b|s,a)
    own, other = magnitudes(keys[5], games), magnitudes(keys[6], games)

    def theorem_8(model: Any, policy: Any, opponent: Any, beta: Any, beta_other: Any) -> jax.Array:
        before, _ = planning.regularised_evaluation(model, policy, opponent, beta, beta_other)
        values = jnp.sum(policy * (before - jnp.log(ACTIONS * policy) / beta), axis=1)  # (S, B)
        updated = operators.tilted_policy(values, 1 / ACTIONS, beta_other)[:, None]
        after, _ = planning.regularised_evaluation(model, policy, updated, beta, beta_other)
        return after - before

    def theorem_9(model: Any, policy: Any, opponent: Any, beta: Any, beta_other: Any) -> jax.Array:
        before, _ = planning.regularised_evaluation(model, policy, opponent, beta, beta_other)
        values = jnp.sum(opponent * (before - jnp.log(ACTIONS * opponent) / beta_other), axis=2)  # (S, A)
        updated = operators.tilted_policy(values, 1 / ACTIONS, beta)[..., None]
        after, _ = planning.regularised_evaluation(model, updated, opponent, beta, beta_other)
        return after - before

    found = {}
    for name, theorem, policy, opponent, betas in (
        ("theorem 8, β' > 0", theorem_8, replies, leads, (own, other)),
        ("theorem 8, β' < 0", theorem_8, replies, leads, (own, -other)),
        ("theorem 9, β > 0", theorem_9, own_leads, other_replies, (own, other)),
        ("theorem 9, β < 0", theorem_9, own_leads, other_replies, (-own, other)),
    ):
        change = jax.jit(jax.vmap(theorem))(model, policy, opponent, *betas)
        flat = np.asarray(change).reshape(games, -1)
        found[name] = (flat.min(1) >= -EXACT, flat.max(1) <= EXACT)
    return found


def _draw_theory(
    factors: Mapping[str, np.ndarray],
    distances: Mapping[str, np.ndarray],
    values: Mapping[str, tuple[np.ndarray, ...]],
    changes: Mapping[str, tuple[np.ndarray, np.ndarray]],
    games: int,
) -> Any:
    figure, axes = panels(2, 2, (6.0, 3.9), f"Thesis chapter 3 on {games:,} random games (float64)")
    names, heights = list(factors), np.linspace(-0.3, 0.3, games)
    for place, factor in enumerate(factors.values()):
        shown = {"label": "a random pair"} if place == 0 else {}
        axes[0, 0].scatter(factor[:, 0], place + heights, s=2, color=PALETTE[0], **shown)
        shown = {"label": "a table and itself + 1"} if place == 0 else {}
        axes[0, 0].scatter(factor[:, 1], place + heights, s=2, color=PALETTE[3], **shown)
    axes[0, 0].set_yticks(range(len(names)), names)
    axes[0, 0].invert_yaxis()
    axes[0, 0].axvline(GAMMA, color="0.45", linestyle="--", zorder=0, label=f"γ = {GAMMA:g}")
    axes[0, 0].set(title="contraction", xlabel="distance after, as a share of the distance before")
    axes[0, 0].legend(fontsize="x-small", loc="upper right", frameon=False, markerscale=3)
    axes[0, 0].set_xlim(right=1.45)  # room for it

    for name, distance in distances.items():
        axes[0, 1].plot(np.sort(np.maximum(distance, 1e-17)), np.arange(1, games + 1) / games, label=name)
    axes[0, 1].set_xscale("log")
    axes[0, 1].set(
        title="PR2 and ROMMEO", xlabel="largest difference of their joint policies", ylabel="share of games"
    )
    axes[0, 1].legend(fontsize="small", frameon=False, loc="center")
    axes[0, 1].grid(alpha=0.25)

    for name, (agent, other, _) in values.items():
        axes[1, 0].scatter(agent, other, s=4, alpha=0.5, label=name)
    ends = axes[1, 0].get_xlim()
    axes[1, 0].plot(ends, ends, color="0.45", linewidth=1, linestyle="--", label="Corollary 1")
    axes[1, 0].set(title="V of the same stage", xlabel="agent first", ylabel="other first")
    axes[1, 0].legend(fontsize="small", frameon=False, markerscale=3, loc="upper left", title="β and β'")

    printed = ("rises", "falls", "falls", "–")
    bar_counts(
        axes[1, 1],
        [
            name.replace(", ", "\n") + f"\nprinted: {said}"
            for name, said in zip(changes, printed, strict=True)
        ],
        {
            "Q rises everywhere": [100 * rises.mean() for rises, _ in changes.values()],
            "Q falls everywhere": [100 * falls.mean() for _, falls in changes.values()],
        },
        ylabel="% of games",
        title="Q after an update of one side",
        value_format="{:.0f}",
    )
    axes[1, 1].set_ylim(0, 115)
    axes[1, 1].get_legend().set_bbox_to_anchor((0.5, -0.24))
    return figure


RULE = Rule(
    tuple(
        map(
            Part,
            (
                CONTRACTION,
                PRINTED_CONTRACTION,
                PRIORS,
                COROLLARY,
                THEOREM_8_HELPED,
                THEOREM_8_HARMED,
                THEOREM_9,
            ),
        )
    ),
    given="Each on every one of 1,000 random games in float64 (three states, 3x3 actions; to 1e-9, Corollary "
    "1 to 1e-6): ",
)

CLAIMS = (
    Claim(
        "theory",
        "Thesis, sections 3.3 to 3.5: contraction, Corollary 1, theorems 8 and 9, corollary 10",
        "The operators are contractions, both agents' values are one, and updates move Q as the theorems "
        "print.",
        RULE,
        {"smoke": "20 s", "quick": "1 min", "paper": "1 min"},
        theory,
    ),
)
