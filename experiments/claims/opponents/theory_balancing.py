"""Thesis, sections 3.3 to 3.5: contraction, corollary 1, theorems 8 and 9, corollary 10, and (3.44)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.claims.opponents.statements import EXACT, SOLVED, Group, Statement
from experiments.claims.opponents.thesis_games import THESIS
from jaxmarl_fac.report.verdicts import over_games
from jaxmarl_fac.soft import operators, planning, stages

STATES, ACTIONS, GAMMA = 3, 3, 0.9

CONTRACTION = "contraction"
PRINTED_CONTRACTION = "3.33"
PRIORS = "figure 3.1"
COROLLARY_EQUAL = "corollary 1, equal"
COROLLARY = "corollary 1"
THEOREM_8_HELPED = "theorem 8 helped"
THEOREM_8_HARMED = "theorem 8 harmed"
THEOREM_9 = "theorem 9"
REMARK_HELPED = "remark helped"
REMARK_HARMED = "remark harmed"
PR2_IMPROVES = "remark PR2"
ROMMEO_IMPROVES = "remark ROMMEO"
NAIVE = "3.44"

STATEMENTS = {
    CONTRACTION: Statement("sections 3.3, 3.4: operators of PR2, ROMMEO, Balancing-Q are γ-contractions"),
    PRINTED_CONTRACTION: Statement(
        "(3.33): Balancing-Q's operator as printed, without γ, is a contraction",
        "one state: Q and Q + 1 stay 1 apart",
    ),
    PRIORS: Statement(
        "figure 3.1: PR2 and ROMMEO differ with uniform priors",
        "they are one policy in any game; in the thesis's at β = .1 (.318, .291, .391)",
    ),
    COROLLARY_EQUAL: Statement("(3.31): both agents' values are one where β = β'"),
    COROLLARY: Statement(
        "(3.31): both agents' values are one where β and β' differ",
        "[[1, -1], [-1, 1]], β = (1, -1): -0.434 with the agent first, 0.434 with the other",
    ),
    THEOREM_8_HELPED: Statement("theorem 8: Q rises with the other's update if β' > 0 (3.36)"),
    THEOREM_8_HARMED: Statement("theorem 8: Q falls with the other's update if β' < 0 (3.36)"),
    THEOREM_9: Statement(
        "theorem 9, corollary 10: Q falls with the agent's update if β > 0 (3.41, 3.42)",
        "one state, r = (0, 1), the other has one action, γ = .9, β = 1: Q(0) rises from 4.5 to 5.581",
    ),
    REMARK_HELPED: Statement("below corollary 10: so it does for ρ(b∣s, a): Q rises if β' > 0"),
    REMARK_HARMED: Statement("below corollary 10: for ρ(b∣s, a) Q falls if β' < 0"),
    PR2_IMPROVES: Statement("below corollary 10: PR2 improves, as β = β' > 0"),
    ROMMEO_IMPROVES: Statement("below corollary 10: ROMMEO improves"),
    NAIVE: Statement(
        "(3.44): maximising the ELBO over π^(1/β) / Z gives the policies of (3.20)",
        "[[1, 0], [0, 0]], β = (2, -1): π = (.789, .211), and (.664, .336) by (3.20)",
    ),
}
#: What is printed of Q after an update, for the picture.
PRINTED_DIRECTIONS = {
    "theorem 8, β' > 0": "rises",
    "theorem 8, β' < 0": "falls",
    "theorem 9, β > 0": "falls",
    "theorem 9, β < 0": "–",
    "remark, β' > 0": "rises",
    "remark, β' < 0": "falls",
}


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


def contraction(games: int, seed: int) -> dict[str, np.ndarray]:
    """By how much each operator shrinks the distance of a random pair, and of a table and itself plus 1.

    `(games, 2)`; β's of every sign, 0 and infinite.
    """
    keys = jax.random.split(jax.random.key(seed), 6)
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


def pr2_against_rommeo(games: int, seed: int) -> dict[str, np.ndarray]:
    """The largest difference between the joint policies of PR2 and ROMMEO, `(games,)`, by kind of priors."""
    keys = jax.random.split(jax.random.key(seed + 1), 4)
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


def corollary_1(games: int, seed: int) -> dict[str, tuple[np.ndarray, ...]]:
    """Values of a stage with the agent, the other and neither first; `(games,)` each, by signs of β."""
    keys = jax.random.split(jax.random.key(seed + 2), 3)
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


def policy_improvement(games: int, seed: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Games where Q rises everywhere, and where it falls everywhere, `(games,)` each, when one side updates.

    Theorem 8 updates ρ(b|s) with π(a|s,b) fixed (3.35), theorem 9 π(a|s) with ρ(b|s,a) fixed (3.40), and the
    remark after corollary 10 ρ(b|s,a) with π(a|s) fixed. PR2 and ROMMEO have β = β' and update whoever
    replies and then whoever acts first.
    """
    keys = jax.random.split(jax.random.key(seed + 3), 7)
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

    def remark(model: Any, policy: Any, opponent: Any, beta: Any, beta_other: Any) -> jax.Array:
        before, _ = planning.regularised_evaluation(model, policy, opponent, beta, beta_other)
        updated = operators.tilted_policy(before, 1 / ACTIONS, beta_other)
        after, _ = planning.regularised_evaluation(model, policy, updated, beta, beta_other)
        return after - before

    def both_sides(axis: int) -> Callable[..., jax.Array]:
        """Both updated for the old Q; the one who replies has this axis of `(A, B)`."""

        def update(model: Any, policy: Any, opponent: Any, beta: Any, _: Any) -> jax.Array:
            before, _ = planning.regularised_evaluation(model, policy, opponent, beta, beta)
            replies = operators.tilted_policy(before, 1 / ACTIONS, beta, axis=axis)
            values = operators.log_mean_exp(before, 1 / ACTIONS, beta, axis=axis)
            first = jnp.expand_dims(operators.tilted_policy(values, 1 / ACTIONS, beta), axis)
            new = (first, replies) if axis == 2 else (replies, first)
            after, _ = planning.regularised_evaluation(model, *new, beta, beta)
            return after - before

        return update

    found = {}
    for name, theorem, policy, opponent, betas in (
        ("theorem 8, β' > 0", theorem_8, replies, leads, (own, other)),
        ("theorem 8, β' < 0", theorem_8, replies, leads, (own, -other)),
        ("theorem 9, β > 0", theorem_9, own_leads, other_replies, (own, other)),
        ("theorem 9, β < 0", theorem_9, own_leads, other_replies, (-own, other)),
        ("remark, β' > 0", remark, own_leads, other_replies, (own, other)),
        ("remark, β' < 0", remark, own_leads, other_replies, (own, -other)),
        ("PR2", both_sides(2), own_leads, other_replies, (own, own)),
        ("ROMMEO", both_sides(1), replies, leads, (own, own)),
    ):
        change = jax.jit(jax.vmap(theorem))(model, policy, opponent, *betas)
        flat = np.asarray(change).reshape(games, -1)
        found[name] = (flat.min(1) >= -EXACT, flat.max(1) <= EXACT)
    return found


def naive_policies(games: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(3.44): the π that make π^(1/β)/Z the best variational distribution, and those of (3.20).

    `(games + 1, 2)` each; the last is the smallest counterexample. The ELBO of rewards r under q(a) q(b) is
    E r + H(q(a)) + H(q(b)) plus a constant, with uniform priors, whatever β is: its best distributions are
    those of (3.20) with β = β' = 1, and π is their power β. Rewards are uniform in [0, 1), so small that soft
    replies contract and there is one solution at β = β' = 1.
    """
    keys = jax.random.split(jax.random.key(seed + 4), 4)
    example = jnp.zeros((1, 2, 2)).at[0, 0, 0].set(1.0)
    q = jnp.concatenate([jax.random.uniform(keys[0], (games, 2, 2)), example])
    own = jnp.append(magnitudes(keys[1], games), 2.0)
    other = jnp.append(magnitudes(keys[2], games) * jax.random.rademacher(keys[3], (games,)), -1.0)

    def solve(q: jax.Array, beta: jax.Array, beta_other: jax.Array) -> tuple[jax.Array, jax.Array]:
        best, right = stages.independent_play(q, 1.0, 1.0), stages.independent_play(q, beta, beta_other)
        return operators.naive_variational(best.policy, 1 / beta), right.policy

    return over_games(solve, q, own, other)  # type: ignore[no-any-return]


def check(games: int, seed: int) -> Group:
    """All statements; to be called in float64."""
    factors, distances = contraction(games, seed), pr2_against_rommeo(games, seed)
    values, changes = corollary_1(games, seed), policy_improvement(games, seed)
    naive, right = naive_policies(games, seed)
    own = [factor.max(1) for name, factor in factors.items() if name != PRINTED_OPERATOR]
    differ = {name: np.abs(agent - other) > SOLVED for name, (agent, other, _) in values.items()}
    fails = {
        CONTRACTION: np.max(own, axis=0) > GAMMA + EXACT,
        PRINTED_CONTRACTION: factors[PRINTED_OPERATOR].max(1) > 1 - EXACT,
        PRIORS: distances["uniform priors"] <= EXACT,
        COROLLARY_EQUAL: differ["equal"],
        COROLLARY: np.concatenate([differ["one sign"], differ["opposite signs"]]),
        THEOREM_8_HELPED: ~changes["theorem 8, β' > 0"][0],
        THEOREM_8_HARMED: ~changes["theorem 8, β' < 0"][1],
        THEOREM_9: ~changes["theorem 9, β > 0"][1],
        REMARK_HELPED: ~changes["remark, β' > 0"][0],
        REMARK_HARMED: ~changes["remark, β' < 0"][1],
        PR2_IMPROVES: ~changes["PR2"][0],
        ROMMEO_IMPROVES: ~changes["ROMMEO"][0],
        NAIVE: np.abs(naive - right)[:-1].max(1) > SOLVED,
    }
    agent, other, independent = values["opposite signs"]
    low, high = np.minimum(agent, other), np.maximum(agent, other)
    between = (independent >= low - 1e-7) & (independent <= high + 1e-7)
    numbers: dict[str, Any] = {
        "gamma": GAMMA,
        "contraction": {
            name: {"largest factor": factor.max(), "above gamma": int((factor > GAMMA + EXACT).sum())}
            for name, factor in factors.items()
        },
        "pr2 against rommeo": {
            name: {"largest difference": distance.max(), "median": np.median(distance)}
            for name, distance in distances.items()
        },
        "corollary 1": {
            name: {
                "games where it fails": int(differ[name].sum()),
                "largest difference": np.abs(agent - other).max(),
                "median difference": np.median(np.abs(agent - other)),
            }
            for name, (agent, other, _) in values.items()
        },
        "policy improvement": {
            name: {"rises everywhere": int(rises.sum()), "falls everywhere": int(falls.sum())}
            for name, (rises, falls) in changes.items()
        },
        "(3.44)": {
            "[[1, 0], [0, 0]], beta = (2, -1)": {"naive": naive[-1].tolist(), "(3.20)": right[-1].tolist()},
            "median difference": np.median(np.abs(naive - right)[:-1].max(1)),
        },
    }
    numbers["corollary 1"]["opposite signs"]["independent play in between"] = int(between.sum())
    numbers["corollary 1"]["the thesis's game, beta = (.1, -.1)"] = thesis_values()
    shown = {"factors": factors, "distances": distances, "values": values, "changes": changes}
    return Group(fails, numbers, shown)
