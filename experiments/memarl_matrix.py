"""Thesis, chapter 3, and ROMMEO's figure 1: learners in tables. `reproduce_memarl.py` makes these figures."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import envs
from baselines.iterated_games import FMQ, JointActionLearner, WoLFPHC
from baselines.opponent_modelling import (
    PR2Q,
    BalancingRule,
    PR2Rule,
    RommeoQ,
    RommeoQEmpirical,
    RommeoRule,
    RommeoThesisRule,
)
from baselines.two_player import Match, Rule, TwoPlayerLearner, joint_policy
from envs.matrix_games import THESIS_PAYOFF
from jaxmarl_fac import soft_backups as soft
from jaxmarl_fac.experiment import Experiment
from jaxmarl_fac.figures import PALETTE, bar_counts, panels
from jaxmarl_fac.report import Claim, Outcome, Verdict, Workshop
from jaxmarl_fac.statistics import Interval, bootstrap_interval, wilson_interval

THESIS = np.asarray(THESIS_PAYOFF, float)

# --- figures 3.1 and 3.2: the thesis's game ---

#: The thesis states neither the number of steps nor of seeds beyond five; its curves end where nothing moves.
STEPS, ROLL_OUTS = 300, 50
#: The reward of a run is that of its last steps.
LAST_STEPS = 10
#: Steps at which the curves are compared with an independent simulation in NumPy (FACTS.md 10.6).
MOMENTS = (50, 100, 150, 200, 300)
SIMULATED = {
    "cooperative": (3.46, 4.75, 7.40, 9.54, 10.0),
    "balancing-q": (2.38, 2.09, 1.91, 1.84, 2.0),
    "misrepresenting": (2.39, 1.93, 1.21, 0.85, 1.0),
}
#: How far the mean of the seeds may be from the simulation's: both have standard errors of about .03.
TOLERANCE = 0.15


class Curve(NamedTuple):
    """One pair of learners over training."""

    reward: np.ndarray  # (T, seeds), of the first agent, mean over the roll-outs of each step
    rows: np.ndarray  # (T, seeds, A), its policy after each step
    columns: np.ndarray  # (T, seeds, B), the other's

    @property
    def last(self) -> np.ndarray:
        """Each seed's mean reward over the last steps, `(seeds,)`."""
        return np.asarray(self.reward[-LAST_STEPS:].mean(0))


def play(workshop: Workshop, name: str, row: Rule, column: Rule, env_id: str) -> Curve:
    """Appendix B.3: each step learns from one of 50 roll-outs, and its reward is the mean of all."""
    steps = workshop.choose(smoke=20, quick=STEPS, paper=STEPS)
    experiment = Experiment(
        algorithm=Match(row=row, column=column, learn_from="first"),
        environment=envs.make(env_id),
        seeds=workshop.seeds(smoke=5, quick=200, paper=1000),
        env_steps=steps * ROLL_OUTS,
        num_envs=ROLL_OUTS,
        evaluations=steps,
        evaluation_episodes=1,
        probe=joint_policy,
    )
    arrays = workshop.train(f"thesis-{name}", experiment).history.arrays()
    # Before the first step there is no reward.
    return Curve(arrays["row_reward"][1:], arrays["row_policy"][1:, :, 0], arrays["column_policy"][1:, :, 0])


def summary(curve: Curve) -> dict[str, Any]:
    """What a pair ends with."""
    joint = np.stack([curve.rows[-1].argmax(1), curve.columns[-1].argmax(1)], 1)  # (seeds, 2)
    pairs, counts = np.unique(joint, axis=0, return_counts=True)
    return {
        "final_reward": bootstrap_interval(curve.last, np.mean),
        "reward_at_step": {step: float(curve.reward[step - 1].mean()) for step in moments(curve)},
        "likeliest_joint_actions": {
            f"({a + 1}, {b + 1})": wilson_interval(int(count), len(joint))
            for (a, b), count in zip(pairs, counts, strict=True)
        },
    }


def moments(curve: Curve) -> list[int]:
    """The steps to compare at, as far as the curve goes."""
    return [step for step in MOMENTS if step <= len(curve.reward)]


def as_simulated(curve: Curve, name: str) -> bool:
    """Whether the seeds' mean is where an independent simulation of the same set-up has it."""
    steps = moments(curve)
    means = [curve.reward[step - 1].mean() for step in steps]
    return bool(steps) and bool(np.allclose(means, SIMULATED[name][: len(steps)], rtol=0, atol=TOLERANCE))


def exact_limits() -> dict[str, float]:
    """Rewards of the first agent when ω has gone to infinity and every entry is known (FACTS.md 10.6)."""
    with jax.enable_x64(True):
        q, inf = jnp.asarray(THESIS), jnp.inf
        helped = soft.agent_outer(q, inf, inf).policy  # PR2's and ROMMEO's row agent
        helper = soft.opponent_outer(q, inf, inf).opponent
        careful = soft.agent_outer(q, inf, -inf).policy
        adversary = soft.opponent_outer(q, inf, -inf).opponent
        deceived = soft.opponent_outer(-q, inf, inf).opponent  # paid -q, believes in help
        pairs = {
            "cooperative": (helped, helper),
            "balancing-q": (careful, adversary),
            "misrepresenting": (helped, adversary),
            "both misrepresenting": (helped, deceived),
        }
        return {name: float(row @ q @ column) for name, (row, column) in pairs.items()}


def draw_curves(
    axes: Any,
    curves: Mapping[str, np.ndarray],
    ylabel: str,
    limits: Mapping[str, float] | None = None,
    title: str = "",
    xlabel: str = "step",
    dashes: Sequence[str] = ("-",),
) -> None:
    """Means over seeds `(T, seeds)` with their 95 % bands, and where they must end."""
    for index, (name, values) in enumerate(curves.items()):
        steps, centre = np.arange(1, len(values) + 1), values.mean(1)
        margin = 1.96 * values.std(1) / np.sqrt(values.shape[1])
        colour = PALETTE[index]
        axes.plot(steps, centre, dashes[index % len(dashes)], color=colour, label=name)
        axes.fill_between(steps, centre - margin, centre + margin, color=colour, alpha=0.2, linewidth=0)
        if limits and name in limits:
            axes.axhline(limits[name], color=colour, linewidth=1, linestyle=(0, (1, 2)))
    axes.grid(alpha=0.25)
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
    axes.legend(fontsize="small", frameon=False, loc="best")


def fig3_1(workshop: Workshop) -> Outcome:
    """PR2 and ROMMEO in the cooperative game."""
    rules: dict[str, Rule] = {"pr2": PR2Rule(), "rommeo": RommeoThesisRule()}
    curves = {
        name: play(workshop, f"cooperative-{name}", rule, rule, "matrix-thesis")
        for name, rule in rules.items()
    }
    limit = exact_limits()["cooperative"]
    pr2, rommeo = curves["pr2"], curves["rommeo"]
    ours: dict[str, Any] = {name: summary(curve) for name, curve in curves.items()}
    gain = bootstrap_interval((rommeo.reward - pr2.reward).mean(0), np.mean)  # the same seeds in both
    apart = float(np.abs(rommeo.rows - pr2.rows).max())
    # What five seeds can show: ROMMEO's next five against PR2's five, both over all steps.
    five = min(5, len(pr2.last))
    groups = len(pr2.last) // five
    fives = {
        name: curve.reward[:, : five * groups].mean(0).reshape(groups, five).mean(1)
        for name, curve in curves.items()
    }
    ahead = np.roll(fives["rommeo"], -1) - fives["pr2"]
    ours["rommeo minus pr2"] = {
        "reward, same seeds, all steps": gain,
        "largest difference of a policy's probability": apart,
        "reward, five other seeds each": {
            "rommeo ahead": wilson_interval(int((ahead > 0).sum()), groups),
            "typical size": float(np.abs(ahead).mean()),
        },
    }
    ours["exact limit"] = limit
    ours["policy printed in B.1, without exp"] = printed_policies()

    third = [float((curve.rows[-1].argmax(1) == 2).mean()) for curve in curves.values()]
    ends = all(abs(ours[name]["final_reward"].value - limit) <= 0.05 for name in curves)
    ends = ends and min(third) >= 0.99 and all(as_simulated(c, "cooperative") for c in curves.values())
    better = gain.low > 0
    verdict: Verdict = "reproduced" if ends and better else "partly" if ends or better else "not reproduced"

    figure, axes = panels(1, 2, (5.2, 3.6), f"Thesis figure 3.1: cooperative game, {len(pr2.last)} seeds")
    rewards = {name: curve.reward for name, curve in curves.items()}
    draw_curves(
        axes[0, 0],
        rewards,
        "reward",
        {"pr2": limit},
        "mean and 95 % band; dotted: exact limit",
        dashes=("-", "--"),  # they lie on each other
    )
    draw_curves(
        axes[0, 1],
        {"pr2": rewards["pr2"][:, :five], "rommeo": np.roll(rewards["rommeo"], -five, 1)[:, :five]},
        "reward",
        title=f"as the thesis draws it: {five} seeds each",
    )
    why = (
        f"Both end at {ours['pr2']['final_reward'].value:.3f} (exact limit {limit:g}) with action 3 on "
        f"{min(third):.0%} of seeds. ROMMEO minus PR2 is {gain.value:.2g} [{gain.low:.2g}, {gain.high:.2g}] "
        f"with the same seeds: with uniform priors both are one policy (they differ by {apart:.1g} at "
        f"most), so "
        '"slightly better" cannot follow from the algorithms. Of runs with five other seeds each ROMMEO '
        f"seems ahead in {(ahead > 0).mean():.0%}, by {np.abs(ahead).mean():.2f} on average either way."
    )
    paper = {"final_reward": 10, "rommeo": "slightly better than PR2", "seeds": 5}
    return Outcome(figure, paper, ours, verdict, why)


def printed_policies() -> dict[str, list[float]]:
    """B.1 as printed, π ∝ P Q(a), and with the exp that it lacks, at ω = 10 and the true payoffs."""
    with jax.enable_x64(True):
        backup = soft.agent_outer(jnp.asarray(THESIS), 1.0, 1.0)  # β ω = .1 * 10
        values = backup.first_values
        return {"printed": (values / jnp.sum(values)).tolist(), "with exp": backup.policy.tolist()}


def zero_sum(workshop: Workshop) -> dict[str, Curve]:
    """The three pairs of figure 3.2."""
    pairs: dict[str, tuple[Rule, Rule]] = {
        "balancing-q": (BalancingRule(), BalancingRule()),
        "misrepresenting": (PR2Rule(), BalancingRule()),
        "both misrepresenting": (PR2Rule(), PR2Rule()),
    }
    return {
        name: play(workshop, f"zero-sum-{name.replace(' ', '-')}", *pair, "matrix-thesis-zero-sum")
        for name, pair in pairs.items()
    }


def fig3_2a(workshop: Workshop) -> Outcome:
    """Balancing-Q on both sides of the zero-sum game."""
    curve = play(workshop, "zero-sum-balancing-q", BalancingRule(), BalancingRule(), "matrix-thesis-zero-sum")
    limit = exact_limits()["balancing-q"]
    ours: dict[str, Any] = {"balancing-q": summary(curve), "exact limit": limit}
    final = ours["balancing-q"]["final_reward"]
    saddle = ours["balancing-q"]["likeliest_joint_actions"].get("(1, 1)", Interval(0.0, 0.0, 0.0))
    parts = (abs(final.value - limit) <= 0.1, saddle.value >= 0.95, as_simulated(curve, "balancing-q"))
    figure, axes = panels(1, 2, (5.2, 3.6), f"Thesis figure 3.2a: zero-sum game, {len(curve.last)} seeds")
    draw_curves(
        axes[0, 0],
        {"balancing-q": curve.reward},
        "reward of agent i",
        {"balancing-q": limit},
        "mean and 95 % band; dotted: exact limit",
    )
    axes[0, 0].set_ylim(0, 4)
    draw_policies(axes[0, 1], curve)
    low = float(curve.reward.mean(1).min())
    settled = [first_crossing(policies[:, :, 0], 0.75) for policies in (curve.rows, curve.columns)]
    ours["step when action 1 has probability .75"] = dict(zip(("agent i", "agent j"), settled, strict=True))
    why = (
        f"Ends at {final.value:.3f} [{final.low:.3f}, {final.high:.3f}] (exact limit {limit:g}), with (1, "
        f"1), "
        f"the saddle point, the likeliest on {saddle.value:.0%} of seeds. On the way the mean falls to "
        f"{low:.2f}: "
        f"agent i plays action 1 with probability .75 from step {settled[0]} on, agent j from {settled[1]} "
        f"on."
    )
    return Outcome(figure, {"final_reward": 2, "joint action": [1, 1]}, ours, _judge(*parts), why)


def fig3_2b(workshop: Workshop) -> Outcome:
    """PR2, which takes the adversary for a friend."""
    curves = zero_sum(workshop)
    limits = exact_limits()
    ours: dict[str, Any] = {name: summary(curve) for name, curve in curves.items()}
    ours["exact limits"] = limits
    wrong, right = (ours[name]["final_reward"] for name in ("misrepresenting", "balancing-q"))
    third = float((curves["misrepresenting"].rows[-1].argmax(1) == 2).mean())
    parts = (
        wrong.low >= 0 and wrong.high <= 1.2,
        wrong.high < right.low,
        third >= 0.95,
        as_simulated(curves["misrepresenting"], "misrepresenting"),
    )
    seeds = len(curves["misrepresenting"].last)
    figure, axes = panels(1, 2, (5.2, 3.6), f"Thesis figure 3.2b: zero-sum game, {seeds} seeds")
    labels = {
        "misrepresenting": "pr2 against balancing-q",
        "balancing-q": "balancing-q",
        "both misrepresenting": "pr2",
    }
    draw_curves(
        axes[0, 0],
        {labels[name]: curve.reward for name, curve in curves.items()},
        "reward of agent i",
        {labels[name]: limits[name] for name in curves},
        "mean and 95 % band; dotted: exact limits",
    )
    draw_policies(axes[0, 1], curves["misrepresenting"])
    both = ours["both misrepresenting"]["final_reward"]
    why = (
        f"PR2 against a Balancing-Q adversary ends at {wrong.value:.3f} [{wrong.low:.3f}, {wrong.high:.3f}] "
        f"with "
        f"action 3 on {third:.0%} of seeds; Balancing-Q at {right.value:.3f}. The exact limit is "
        f'R[3, 1] = {limits["misrepresenting"]:g}, not "almost 0": 0 needs column 2, the best reply to '
        f"action 3. "
        f"PR2 on both sides is at {both.value:.2f} after {len(curves['balancing-q'].reward)} steps "
        f"(limit {limits['both misrepresenting']:g})."
    )
    return Outcome(figure, {"final_reward": "almost 0", "balancing-q": 2}, ours, _judge(*parts), why)


def draw_policies(axes: Any, curve: Curve) -> None:
    """Mean policies of both agents over training."""
    for policies, dashes, agent in ((curve.rows, "-", "i"), (curve.columns, "--", "j")):
        for action, colour in enumerate(PALETTE[: policies.shape[-1]]):
            steps = np.arange(1, len(policies) + 1)
            axes.plot(
                steps,
                policies[:, :, action].mean(1),
                dashes,
                color=colour,
                label=f"agent {agent}, action {action + 1}",
            )
    axes.set(xlabel="step", ylabel="probability", title="mean policies", ylim=(-0.02, 1.02))
    axes.grid(alpha=0.25)
    axes.legend(fontsize="x-small", frameon=False, ncols=2, loc="best")


# --- what the thesis states, and what is true ---

GAMES, STATES, ACTIONS, GAMMA = 1000, 3, 3, 0.9
EXACT = 1e-9


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
        "every Bellman operator is a contraction": all(
            (factors[name] <= GAMMA + EXACT).all() for name in operators
        ),
        "so is Balancing-Q's as printed, without γ (3.33)": bool(
            (factors[PRINTED_OPERATOR] < 1 - EXACT).all()
        ),
        "ROMMEO and PR2 differ with uniform priors (figure 3.1)": bool(
            (distances["uniform priors"] > EXACT).any()
        ),
        "Corollary 1: both agents' values are one (3.31)": all(
            (np.abs(agent - other) <= 1e-6).all() for agent, other, _ in values.values()
        ),
        "theorem 8: Q rises with the other's update if β' > 0 (3.36)": bool(
            changes["theorem 8, β' > 0"][0].all()
        ),
        "theorem 8: Q falls if β' < 0 (3.36)": bool(changes["theorem 8, β' < 0"][1].all()),
        "theorem 9: Q falls with the agent's update if β > 0 (3.41, 3.42)": bool(
            changes["theorem 9, β > 0"][1].all()
        ),
    }
    ours["statements"] = statements
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
    return Outcome(figure, paper, ours, _judge(*statements.values()), why)


def random_models(games: int, key: jax.Array) -> soft.TwoPlayerModel:
    """Rewards uniform in [0, 10), transitions from a flat Dirichlet distribution; leading axis `(games,)`."""
    reward_key, transition_key = jax.random.split(key)
    shape = (games, STATES, ACTIONS, ACTIONS)
    return soft.TwoPlayerModel(
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
OPERATORS: dict[str, Callable[[jax.Array, jax.Array, jax.Array], soft.SoftBackup]] = {
    "PR2": lambda q, beta, _: soft.agent_outer(q, beta, beta),
    "ROMMEO (thesis)": lambda q, beta, _: soft.opponent_outer(q, beta, beta),
    "ROMMEO (published)": lambda q, beta, _: soft.rommeo_published(q, jnp.minimum(1 / jnp.abs(beta), 100.0)),
    "Balancing-Q": soft.agent_outer,
    "Balancing-Q, other first": soft.opponent_outer,
    PRINTED_OPERATOR: soft.agent_outer,
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
                return soft.bellman(model, lambda table: OPERATORS[name](table, beta, beta_other), q)

            pairs = ((first, second), (first, first + 1))
            return jnp.stack([soft.contraction_factor(operator, *pair) for pair in pairs])

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
        pr2 = soft.pr2(beta * q, own, for_pr2 / own[:, None])
        rommeo = soft.rommeo(beta * q, for_rommeo / other, other)
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
            soft.agent_outer(q, beta, beta_other).value,
            soft.opponent_outer(q, beta, beta_other).value,
            soft.independent_play(q, beta, beta_other).value,
        )

    compare = jax.jit(jax.vmap(values))
    betas = {"equal": (own, own), "one sign": (own, other), "opposite signs": (own, -other)}
    return {name: tuple(map(np.asarray, compare(q, *pair))) for name, pair in betas.items()}


def thesis_values() -> dict[str, float]:
    """Of the thesis's own game (FACTS.md 10.5)."""
    orders: dict[str, Callable[..., Any]] = {
        "agent first": soft.agent_outer,
        "other first": soft.opponent_outer,
        "independent": soft.independent_play,
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
        before, _ = soft.regularised_evaluation(model, policy, opponent, beta, beta_other)
        values = jnp.sum(policy * (before - jnp.log(ACTIONS * policy) / beta), axis=1)  # (S, B)
        updated = soft.tilted_policy(values, 1 / ACTIONS, beta_other)[:, None]
        after, _ = soft.regularised_evaluation(model, policy, updated, beta, beta_other)
        return after - before

    def theorem_9(model: Any, policy: Any, opponent: Any, beta: Any, beta_other: Any) -> jax.Array:
        before, _ = soft.regularised_evaluation(model, policy, opponent, beta, beta_other)
        values = jnp.sum(opponent * (before - jnp.log(ACTIONS * opponent) / beta_other), axis=2)  # (S, A)
        updated = soft.tilted_policy(values, 1 / ACTIONS, beta)[..., None]
        after, _ = soft.regularised_evaluation(model, updated, opponent, beta, beta_other)
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


# --- ROMMEO's figure 1: the iterated climbing game ---

EPISODES = 300
#: The authors' library: nearly whole steps, one action in ten random, values from [0, 1).
LIBRARY: dict[str, Any] = {
    "learning_rate": 1.0,
    "rate_half_life": 10_000.0,
    "gamma": 0.95,
    "epsilon": 0.1,
    "initial_spread": 1.0,
}
#: As the authors anneal FMQ in tables and all their deep learners: 500 e^{-k/10} + .1 at episode k.
HOT = {"temperature": 500.0, "temperature_schedule": "exponential"}


def climbers(annealed: bool) -> dict[str, TwoPlayerLearner]:
    """All learners of the figure; with annealing where they have a temperature."""
    hot: dict[str, Any] = HOT if annealed else {}
    # PR2's temperature is 1, or 500 e^{-k/10}.
    beta, growth = (1 / 500, float(np.exp(0.1))) if annealed else (1.0, 1.0)
    return {
        "rommeo-q": RommeoQ(rule=RommeoRule(**hot)),
        "rommeo-q-emp": RommeoQEmpirical(rule=RommeoRule(model="empirical", **hot)),
        "pr2-q": PR2Q(rule=PR2Rule(**LIBRARY, beta=beta, beta_growth=growth)),
        "jal": JointActionLearner(),
        "wolf-phc": WoLFPHC(),
        "fmq": FMQ(),
    }


class Climb(NamedTuple):
    """How a pair of learners fares on the climbing game."""

    optimal: np.ndarray  # (T, seeds), the probability of (A, A)
    joint: np.ndarray  # (seeds, 2), the likeliest actions at the end
    other: np.ndarray  # (T, seeds), of A by the second agent
    expected: np.ndarray | None  # (T, seeds), of A in the first agent's model of it


def climb(workshop: Workshop, name: str, algorithm: TwoPlayerLearner) -> Climb:
    """Episodes of one step each."""
    episodes = workshop.choose(smoke=20, quick=EPISODES, paper=EPISODES)
    experiment = Experiment(
        algorithm=algorithm,
        environment=envs.make("matrix-climbing"),
        seeds=workshop.seeds(smoke=5, quick=500, paper=2000),
        env_steps=episodes,
        evaluations=episodes,
        evaluation_episodes=1,
        probe=joint_policy,
    )
    arrays = workshop.train(f"climbing-{name}", experiment).history.arrays()
    row, column = arrays["row_policy"][:, :, 0, 0], arrays["column_policy"][:, :, 0, 0]
    model = arrays["row_model"][:, :, 0, 0] if "row_model" in arrays else None
    joint = np.stack([arrays[f"{side}_policy"][-1, :, 0].argmax(1) for side in ("row", "column")], 1)
    return Climb(row * column, joint, column, model)


def first_crossing(curve: np.ndarray, level: float = 0.5) -> int | None:
    """The first episode at which the seeds' mean `(T, seeds)` reaches a level, after which it stays there."""
    below = np.flatnonzero(curve.mean(1) < level)
    after = int(below[-1]) + 1 if len(below) else 0
    return after if after < len(curve) else None


def rommeo_fig1(workshop: Workshop) -> Outcome:
    """The probability of the optimum, with the library's temperature and with an annealed one."""
    settings = {"library": climbers(annealed=False), "annealed": climbers(annealed=True)}
    climbs: dict[str, dict[str, Climb]] = {"library": {}, "annealed": {}}
    for setting, learners in settings.items():
        for name, learner in learners.items():
            same = setting == "annealed" and learner == settings["library"][name]
            climbs[setting][name] = (
                climbs["library"][name] if same else climb(workshop, f"{name}-{setting}", learner)
            )
    ours: dict[str, Any] = {}
    parts: dict[str, dict[str, bool]] = {}
    for setting, found in climbs.items():
        finals = {name: bootstrap_interval(c.optimal[-1], np.mean) for name, c in found.items()}
        mine = finals["rommeo-q"]
        pair: tuple[Any, Any] = found["rommeo-q"].expected, found["rommeo-q"].other
        model, real = (first_crossing(curve) for curve in pair)
        above = {name: bool(mine.low > final.high) for name, final in finals.items() if name != "rommeo-q"}
        ours[setting] = {
            "final_probability_of_optimum": finals,
            "mean_over_episodes": {
                name: bootstrap_interval(c.optimal.mean(0), np.mean) for name, c in found.items()
            },
            "episode_of_half": {name: first_crossing(c.optimal) for name, c in found.items()},
            "episode_when_A_is_half": {"opponent model": model, "opponent": real},
            "episode_when_A_is_0.9": [first_crossing(curve, 0.9) for curve in pair],
            "ends_at": {
                name: {
                    actions: wilson_interval(int((c.joint == joint).all(1).sum()), len(c.joint))
                    for actions, joint in (("(A, A)", (0, 0)), ("(B, B)", (1, 1)))
                }
                for name, c in found.items()
            },
            "above": above,
        }
        parts[setting] = {
            "converges": mine.value >= 0.95,
            "above all": all(above.values()),
            "model first": model is not None and (real is None or model < real),
        }
        ours[setting]["rule"] = parts[setting]
    verdict: Verdict = "not reproduced"
    if all(parts["library"].values()):
        verdict = "reproduced"
    elif any(part for found in parts.values() for part in found.values()):
        verdict = "partly"
    library, annealed = (
        {name: final.value for name, final in ours[s]["final_probability_of_optimum"].items()} for s in climbs
    )
    stuck = ours["library"]["ends_at"]["rommeo-q"]
    half, most = (ours["annealed"][f"episode_when_A_is_{level}"] for level in ("half", "0.9"))
    why = (
        "P(A, A) at the end with the library's constants: "
        + ", ".join(f"{name} {value:.2f}" for name, value in library.items())
        + f"; ROMMEO-Q ends at (A, A) on {stuck['(A, A)'].value:.0%} and at (B, B) on "
        f"{stuck['(B, B)'].value:.0%} of seeds. Annealed from 500: "
        + ", ".join(f"{name} {annealed[name]:.2f}" for name in ("rommeo-q", "rommeo-q-emp", "pr2-q"))
        + ". There the mean probability of A passes .5 for good in episode "
        f"{half['opponent model']} in ROMMEO-Q's model of the other and in {half['opponent']} in its play, "
        f".9 in "
        f"{most[0]} and {most[1]}."
    )
    figure = _draw_climbs(climbs)
    paper = {"rommeo-q": "P(A, A) to 1, above all others", "opponent model": "reaches A before the opponent"}
    return Outcome(figure, paper, ours, verdict, why)


def _draw_climbs(climbs: Mapping[str, Mapping[str, Climb]]) -> Any:
    seeds = climbs["library"]["rommeo-q"].optimal.shape[1]
    figure, axes = panels(1, 3, (4.9, 3.7), f"ROMMEO figure 1: iterated climbing game, {seeds} seeds")
    titles = {"library": "constants of the authors' library", "annealed": "temperatures annealed from 500"}
    for column, (setting, found) in enumerate(climbs.items()):
        curves = {name: c.optimal for name, c in found.items()}
        draw_curves(axes[0, column], curves, "P(A, A)", title=titles[setting], xlabel="episode")
        axes[0, column].set_ylim(-0.02, 1.02)
    axes[0, 1].get_legend().remove()  # the same as beside it
    rommeo = climbs["annealed"]["rommeo-q"]
    for values, label, dashes in (
        (rommeo.expected, "agent 1's model of agent 2", "-"),
        (rommeo.other, "agent 2", "--"),
    ):
        axes[0, 2].plot(np.mean(values, axis=1), dashes, label=label)  # type: ignore[arg-type]
    axes[0, 2].set(xlabel="episode", ylabel="P(A)", ylim=(-0.02, 1.02), title="ROMMEO-Q, annealed")
    axes[0, 2].grid(alpha=0.25)
    axes[0, 2].legend(fontsize="small", frameon=False)
    return figure


def _judge(*parts: bool) -> Verdict:
    return "reproduced" if all(parts) else "partly" if any(parts) else "not reproduced"


CLAIMS = (
    Claim(
        "fig3_1",
        "Thesis, figure 3.1 (R14)",
        "In the cooperative game PR2 and ROMMEO learn to earn 10, ROMMEO slightly better than PR2.",
        "Reward of the last 10 of 300 steps within .05 of the exact limit 10 for both, action 3 the "
        "likeliest on "
        ">= 99 % of seeds, and means at steps 50, 100, 150, 200, 300 within .15 of an independent simulation "
        "(FACTS.md 10.6); and ROMMEO's reward over all steps above PR2's on the same seeds, 95 % interval "
        "above "
        "0. Partly if one of the two.",
        {"smoke": "20 s", "quick": "1 min on 2 cores", "paper": "3 min on 2 cores"},
        fig3_1,
    ),
    Claim(
        "fig3_2a",
        "Thesis, figure 3.2a (R14)",
        "In the zero-sum game two Balancing-Q agents reach the Nash equilibrium (1, 1), which pays 2.",
        "Reward of the last 10 of 300 steps within .1 of the exact limit 2, (1, 1) the likeliest joint "
        "action on "
        ">= 95 % of seeds, and means at steps 50, 100, 150, 200, 300 within .15 of an independent simulation "
        "(FACTS.md 10.6). Partly if some.",
        {"smoke": "10 s", "quick": "30 s on 2 cores", "paper": "2 min on 2 cores"},
        fig3_2a,
    ),
    Claim(
        "fig3_2b",
        "Thesis, figure 3.2b (R14)",
        "PR2, which takes its adversary for a friend, plays action 3 and ends almost at 0, below "
        "Balancing-Q.",
        "Reward of the last 10 of 300 steps in [0, 1.2] with its 95 % interval, and below Balancing-Q's; "
        "action 3 "
        "the likeliest on >= 95 % of seeds; means at steps 50, 100, 150, 200, 300 within .15 of an "
        "independent "
        "simulation (FACTS.md 10.6). Partly if some.",
        {"smoke": "30 s", "quick": "1 min on 2 cores", "paper": "4 min on 2 cores"},
        fig3_2b,
    ),
    Claim(
        "theory",
        "Thesis, sections 3.3 to 3.5: contraction, Corollary 1, theorems 8 and 9, corollary 10",
        "The operators are contractions, both agents' values are one, and updates move Q as the theorems "
        "print.",
        "Seven statements, each tested on every one of 1,000 random games in float64 (three states, 3x3 "
        "actions; "
        "1e-9, Corollary 1 to 1e-6). Reproduced if all hold on all games, partly if some do.",
        {"smoke": "20 s", "quick": "1 min", "paper": "1 min"},
        theory,
    ),
    Claim(
        "rommeo_fig1",
        "ROMMEO (Tian et al., 2019), figure 1 (R15)",
        "In the iterated climbing game ROMMEO-Q finds (A, A), clearly above JAL, WoLF-PHC, PR2-Q, FMQ and "
        "ROMMEO-Q-EMP; its opponent model reaches A before the opponent does.",
        "After 300 episodes with the constants of the authors' library: P(A, A) of ROMMEO-Q >= .95 on "
        "average and "
        "its 95 % interval above that of every other learner; its model's mean P(A) passes .5 for good in an "
        "earlier episode than the opponent's. Partly if some of this holds, with these constants or with "
        "temperatures annealed as 500 e^{-k/10} + .1.",
        {"smoke": "1 min", "quick": "2 min on 2 cores", "paper": "5 min on 2 cores"},
        rommeo_fig1,
    ),
)
