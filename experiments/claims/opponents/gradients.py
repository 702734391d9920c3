"""Thesis, sections 2.3.2 to 2.3.4 and 2.6: policy gradients by numbers, on random games."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes

from envs.team_mdp import TeamModel
from experiments.claims.opponents import gradient_identities as identities
from experiments.claims.opponents.gradient_identities import (
    BASELINE,
    BIASED,
    CENTRAL,
    CENTRAL_EACH,
    CLIP,
    COMA,
    DEFAULT,
    DETERMINISTIC,
    DOP,
    DOP_OWN,
    PPO_CLIP,
    PPO_KL,
    REINFORCE,
    STATE_VALUE,
    VDAC,
)
from jaxmarl_fac.exact import policies as exact
from jaxmarl_fac.policy_gradients import (
    adapted_kl_coefficient,
    clipped_surrogate,
    counterfactual_advantage,
    decomposed_advantages,
    log_policy,
    soft_value,
)
from jaxmarl_fac.report.claims import Claim, Outcome, Workshop
from jaxmarl_fac.report.figures import bar_counts, panels
from jaxmarl_fac.report.styles import PALETTE
from jaxmarl_fac.report.verdicts import Part, Rule
from jaxmarl_fac.targets import clipped_double_q_target, lambda_returns, smoothed_actions

GAMES, ASCENTS, ITERATIONS, TARGET_DRAWS = 1000, 100, 30, 20_000
#: Of gradients in float64, as a share of their largest entry.
EXACT = 1e-9
#: Of what an optimiser finds.
OPTIMISED = 1e-6

N_STEP, TD_ERROR = "n-step advantages with the true V (2.28)", "the true Q as a target (2.37)"
SAMPLED = "TRPO's sampled objective (2.33)"
#: Whose largest relative error is judged, on one, two and three agents.
JUDGED = (
    *(REINFORCE, BASELINE, CENTRAL, CENTRAL_EACH, STATE_VALUE, DEFAULT, COMA, VDAC, DOP_OWN, DOP),
    *(N_STEP, SAMPLED, PPO_CLIP, PPO_KL, DETERMINISTIC, TD_ERROR),
)
BIAS = "the largest ratio of the bias of n + 1 steps to that of n"
DEVIATION = "the least ratio of the mean standard deviation of n + 1 steps to that of n"
VARIANCE = "the median variance with V(s) as baseline, as a share of that without"
VIOLATIONS = "MDPs that violate TRPO's bound (2.30)"
FALLS = "MDPs in which η falls where the bound is largest (2.32)"
DIVERGENCES = "MDPs whose mean divergence exceeds the largest (2.33)"
ABOVE = "MDPs in which PPO's clipped objective exceeds the unclipped one"
GAIN = "median share of the possible gain of"
FOP = "the largest distance of α log π from Q - V at FOP's optimum"
PRODUCT = "the largest distance of the product of FOP's policies from the joint Boltzmann policy"
TARGET = "mean error of the target of"
NUMBERS = "the largest error of the worked numbers"


class Worked(NamedTuple):
    """A worked example: its numbers, and what the suite's functions give."""

    expected: tuple[float, ...]
    ours: np.ndarray


def worked_numbers() -> dict[str, Worked]:
    """Examples small enough to be done by hand, or checked independently to six digits."""

    def number(value: float) -> jax.Array:
        return jnp.asarray(value, float)

    ones = jnp.ones(3)
    returns = lambda_returns(jnp.asarray([1.0, 0, 2]), ones, jnp.asarray([0.0, 0, 4]), ones, 0.9, 1.0)
    clipped = [clipped_surrogate(number(r), number(a), CLIP) for r, a in ((1.5, 2), (0.5, -1))]
    adapted = [adapted_kl_coefficient(number(3), number(kl), 0.03) for kl in (0.0199, 0.03, 0.0451)]
    q, policy = jnp.asarray([1.0, 2, 3]), jnp.asarray([0.2, 0.3, 0.5])
    coma = jax.vmap(counterfactual_advantage, (None, None, 0))(q, policy, jnp.arange(3))
    weights, utilities = jnp.asarray([0.6, 0.4]), jnp.asarray([[1.0, 2], [0, 3]])
    policies = jnp.asarray([[0.3, 0.7], [0.8, 0.2]])
    both = (decomposed_advantages(weights, utilities, policies, jnp.full(2, a)) for a in range(2))
    dop = policies * jnp.stack(list(both), axis=1)  # π_i(a) k_i (Q_i(a) - E Q_i), the gradient by the logits
    twin = clipped_double_q_target(number(1), number(1), 0.9, jnp.asarray([2.0, 3]))
    q_total = 0.5 + jnp.sum(weights[:, None] * policies * utilities)
    soft, available = jnp.asarray([1.0, 2]), jnp.ones(2, bool)

    model = TeamModel(
        transition=jnp.asarray([np.eye(2), np.eye(2)]),
        reward=jnp.asarray([[0.0, 1], [2, 0]]),
        terminal=jnp.zeros(2, bool),
    )
    start, uniform = jnp.asarray([1.0, 0]), jnp.full((2, 2), 0.5)
    other = jnp.asarray([[0.3, 0.7], [0.6, 0.4]])
    pair = (model, 0.9, uniform, other, start)
    visits = exact.discounted_visits(model, 0.9, other, start)
    found: dict[str, tuple[tuple[float, ...], Any]] = {
        "A2C (2.28)": ((2.536,), returns[:1] - 3),
        "η(π), η(π̃), L (2.31)": (
            (7.25, 9.480315, 9.5425),
            (
                exact.performance(model, 0.9, uniform, start),
                exact.performance(model, 0.9, other, start),
                exact.surrogate_performance(*pair),
            ),
        ),
        "KL, ε, TRPO's bound (2.30)": (
            (0.087177, 0.775, -14.779798),
            (
                exact.largest_divergence(model, uniform, other),
                jnp.max(jnp.abs(exact.advantages(model, 0.9, uniform))),
                exact.trust_region_bound(*pair),
            ),
        ),
        "η(π̃) - η(π), its visits": (
            (2.230315, 0.503937, 0.496063),
            (exact.performance_difference(*pair), *(visits / 10)),
        ),
        "PPO (2.34)": ((2.4, -0.8), clipped),
        "PPO's β (2.35)": ((1.5, 3, 6), adapted),
        "TD3 (2.38)": ((2.8, 1), (twin, smoothed_actions(number(0.95), number(0.5), 0.2))),
        "COMA (2.70)": ((-1.3, -0.3, 0.7), coma),
        "DOP, E Q_tot and gradient": ((1.76, -0.126, 0.126, -0.192, 0.192), (q_total, *dop.ravel())),
        "VDAC, both agents": ((1,), (number(4) - jnp.sum(jnp.asarray([1.0, 2])),)),
        "FOP, V and policy": (
            (2.313262, 0.268941, 0.731059),
            (soft_value(soft, 1.0, available), *jnp.exp(log_policy(soft, available))),
        ),
    }
    return {name: Worked(wanted, np.asarray(ours, float)) for name, (wanted, ours) in found.items()}


class Measurements(NamedTuple):
    """All that the figure shows."""

    errors: dict[int, identities.Errors]  # relative errors (games,), by number of agents
    variances: dict[int, identities.Errors]  # relative to no baseline (games,), by number of agents
    steps: identities.Steps
    trust: identities.TrustRegion
    ascent: identities.Ascent
    deterministic: identities.Deterministic
    targets: dict[str, np.ndarray]  # (games, noise)
    soft: identities.Soft
    numbers: dict[str, Worked]


def take_measurements(games: int, ascents: int, iterations: int, draws: int) -> Measurements:
    """Everything in float64."""
    with jax.enable_x64(True):
        steps, trust = identities.n_step_advantages(games), identities.trust_regions(games)
        straight = identities.deterministic(games)
        errors, variances = {}, {}
        for agents in (2, 3):
            errors[agents], variances[agents] = identities.team_gradients(games, agents)
        errors[1] = identities.whole_episodes(games) | {DETERMINISTIC: straight.gradient_error}
        return Measurements(
            errors,
            variances,
            steps,
            trust,
            identities.ppo(ascents, iterations),
            straight,
            identities.target_errors(draws),
            identities.soft_optima(games),
            worked_numbers(),
        )


def measure(found: Measurements) -> dict[str, Any]:
    """What the rule judges."""
    others = {
        N_STEP: found.steps.error,
        SAMPLED: found.trust.sampled_error,
        TD_ERROR: found.deterministic.td_error,
    }
    largest = {
        name: max(float(errors[name].max()) for errors in (*found.errors.values(), others) if name in errors)
        for name in JUDGED
    }
    bias, deviation = found.steps.bias, found.steps.deviation.mean(0)
    ratios = [np.median(variances[STATE_VALUE]) for variances in found.variances.values()]
    return (
        {_error(name): error for name, error in largest.items()}
        | {
            BIAS: float((bias[:, 1:] / bias[:, :-1]).max()),
            DEVIATION: float((deviation[1:] / deviation[:-1]).min()),
            VARIANCE: float(max(ratios)),
            VIOLATIONS: int((found.trust.slack < -EXACT).sum()),
            FALLS: int((found.trust.rise < 0).sum()),
            DIVERGENCES: int((found.trust.mean_above_max > EXACT).sum()),
            ABOVE: int((found.ascent.above_unclipped > EXACT).sum()),
            FOP: float(np.abs(found.soft.log_probs - found.soft.advantages).max()),
            PRODUCT: float(found.soft.joint_error.max()),
            NUMBERS: max(
                float(np.abs(ours - np.asarray(expected)).max()) for expected, ours in found.numbers.values()
            ),
        }
        | {f"{GAIN} {form}": float(np.median(gains[:, -1])) for form, gains in found.ascent.gains.items()}
        | {f"{TARGET} {name}": float(errors.mean()) for name, errors in found.targets.items()}
    )


def gradients(workshop: Workshop) -> Outcome:
    """The statements of chapter 2 on policy gradients, on random games in float64."""
    games = workshop.choose(smoke=20, quick=GAMES, paper=GAMES)
    ascents = workshop.choose(smoke=10, quick=ASCENTS, paper=ASCENTS)
    draws = workshop.choose(smoke=1000, quick=TARGET_DRAWS, paper=TARGET_DRAWS)
    found = take_measurements(games, ascents, ITERATIONS, draws)
    measured = measure(found)
    ours: dict[str, Any] = {"games": games, "measured": measured}
    ours["median relative error of gradients"] = {
        f"{agents} agents" if agents > 1 else "1 agent": {
            name: np.median(error) for name, error in errors.items()
        }
        for agents, errors in sorted(found.errors.items())
    }
    ours["median variance, as a share of that without a baseline"] = {
        f"{agents} agents": {name: np.median(ratio) for name, ratio in ratios.items()}
        for agents, ratios in found.variances.items()
    }
    steps = [f"n = {n + 1}" for n in range(found.steps.bias.shape[1])]
    ours["n-step advantages with a wrong V"] = {
        "mean bias": dict(zip(steps, found.steps.bias.mean(0), strict=True)),
        "mean standard deviation": dict(zip(steps, found.steps.deviation.mean(0), strict=True)),
    }
    ours["trust region"] = {
        "least slack": found.trust.slack.min(),
        "median slack": np.median(found.trust.slack),
        "least rise where the bound is largest": found.trust.rise.min(),
    }
    ours["mean error of targets, by the standard deviation of the critics' errors"] = {
        name: dict(zip(map(str, identities.CRITIC_NOISE), errors.mean(0), strict=True))
        for name, errors in found.targets.items()
    }
    ours["worked numbers"] = {name: ours.tolist() for name, (_, ours) in found.numbers.items()}
    least = found.trust.slack.min()
    shares = ", ".join(
        f"{name} {np.median(found.variances[2][name]):.2f}" for name in (STATE_VALUE, DEFAULT, COMA, DOP)
    )
    wrong = "; ".join(
        f"{name} is off by {np.median(next(e[name] for e in found.errors.values() if name in e)):.2f}"
        for name in BIASED
    )
    why = (
        f"All gradients that are claimed to be exact are, to "
        f"{max(measured[_error(name)] for name in JUDGED):.0e} of their largest entry. In the median "
        f"{wrong}. TRPO's bound is violated on {measured[VIOLATIONS]} of {games} MDPs, with a least slack of "
        f"{least:.1e}. Median variance for two agents, as a share of that without a baseline: {shares}. "
        f"In print, (2.28) and (2.29) bootstrap from V(s_(n+1)), which is V(s_(t+n+1)), and (2.38) has a "
        f"comma for the plus between action and noise."
    )
    paper = {name: list(expected) for name, (expected, _) in found.numbers.items()}
    return Outcome(_draw(found, games), paper, ours, measured, why, games)


def _error(name: str) -> str:
    return f"the largest relative error of {name}"


def _draw(found: Measurements, games: int) -> Any:
    figure, axes = panels(3, 3, (5.4, 4.1), f"Policy gradients on {games:,} random games (float64)")
    _draw_errors(axes[0, 0], found.errors)
    _draw_variances(axes[0, 1], found.variances)
    _draw_numbers(axes[0, 2], found.numbers)
    _draw_steps(axes[1, 0], found.steps)
    _draw_trust(axes[1, 1], found.trust)
    _draw_clip(axes[1, 2])
    _draw_ascent(axes[2, 0], found.ascent)
    _draw_soft(axes[2, 1], found.soft)
    bar_counts(
        axes[2, 2],
        [f"{noise:g}" for noise in identities.CRITIC_NOISE],
        {name: list(errors.mean(0)) for name, errors in found.targets.items()},
        ylabel="target minus true value",
        title="DDPG's and TD3's targets at the actor's action",
        value_format="{:.2f}",
    )
    axes[2, 2].set_xlabel("standard deviation of the critics' errors")
    axes[2, 2].get_legend().set_bbox_to_anchor((0.5, -0.2))
    return figure


def _draw_errors(axes: Axes, errors: Mapping[int, identities.Errors]) -> None:
    """Median and largest error of each loss, biased ones last."""
    shown = {name for of_agents in errors.values() for name in of_agents}
    names = [name for name in (*JUDGED, *BIASED) if name in shown]
    shades = dict(zip((1, 2, 3), (PALETTE[6], PALETTE[0], PALETTE[1]), strict=True))
    for agents in sorted(errors):
        offset = {1: 0.0, 2: -0.17, 3: 0.17}[agents]
        places = [names.index(name) + offset for name in errors[agents]]
        medians = [max(float(np.median(error)), 1e-17) for error in errors[agents].values()]
        highest = [max(float(error.max()), 1e-17) for error in errors[agents].values()]
        axes.hlines(places, medians, highest, color=shades[agents], linewidth=1)
        label = f"{agents} agents" if agents > 1 else "1 agent"
        axes.plot(medians, places, "o", markersize=4, color=shades[agents], label=label)
        axes.plot(highest, places, "|", markersize=7, color=shades[agents])
    axes.set_xscale("log")
    axes.axvline(EXACT, color="0.45", linestyle="--", linewidth=1, zorder=0)
    axes.set_yticks(range(len(names)), names, fontsize="x-small")
    axes.invert_yaxis()
    axes.set(title="expected gradients (median to largest)", xlabel="error, as a share of the largest entry")
    axes.legend(fontsize="small", frameon=False, loc="upper right")
    axes.grid(axis="x", alpha=0.25)


def _draw_variances(axes: Axes, variances: Mapping[int, identities.Errors]) -> None:
    names = (DEFAULT, STATE_VALUE, COMA, DOP)
    labels = ("a default\naction", "V(s)", "COMA", "DOP")
    bar_counts(
        axes,
        labels,
        {
            f"{agents} agents": [float(np.median(ratios[name])) for name in names]
            for agents, ratios in variances.items()
        },
        ylabel="share of the variance without a baseline",
        title="variance of one-step gradients (median)",
        value_format="{:.2f}",
    )
    axes.set_ylim(0, 1)


def _draw_numbers(axes: Axes, numbers: Mapping[str, Worked]) -> None:
    """Names on the left, the suite's numbers on the right."""
    axes.set_axis_off()
    axes.set_title("worked numbers, as computed by the suite")
    for row, (name, (_, ours)) in enumerate(numbers.items()):
        height = 1 - (row + 0.7) / len(numbers)
        digits = [f"{value:.6f}".rstrip("0").rstrip(".") for value in ours]
        texts = (name, ", ".join(digits))
        for left, text in zip((0.0, 0.42), texts, strict=True):
            shown = text.replace("-", "\N{MINUS SIGN}")
            axes.text(left, height, shown, transform=axes.transAxes, fontsize="small")


def _draw_steps(axes: Axes, steps: identities.Steps) -> None:
    lengths = range(1, steps.bias.shape[1] + 1)
    for name, values, shade in (
        ("largest bias", steps.bias, PALETTE[3]),
        ("standard deviation", steps.deviation, PALETTE[0]),
    ):
        low, high = np.percentile(values, (25, 75), axis=0)
        axes.plot(lengths, values.mean(0), "o-", color=shade, label=f"{name}: mean, quartiles")
        axes.fill_between(lengths, low, high, color=shade, alpha=0.2, linewidth=0)
    axes.set(title="n-step advantages with a wrong V (2.28)", xlabel="n", ylim=(0, None))
    axes.set_xticks(lengths)
    axes.legend(fontsize="small", frameon=False)
    axes.grid(alpha=0.25)


def _draw_trust(axes: Axes, trust: identities.TrustRegion) -> None:
    holds = trust.slack > 0
    axes.scatter(trust.divergence[holds], trust.slack[holds], s=5, alpha=0.5, color=PALETTE[0])
    least = int(np.argmin(trust.slack))
    axes.annotate(
        f"least slack {trust.slack[least]:.1e}",
        (trust.divergence[least], max(trust.slack[least], 1e-300)),
        xytext=(25, -2),
        textcoords="offset points",
        arrowprops={"arrowstyle": "-", "color": "0.45"},
        fontsize="small",
        va="center",
    )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set(
        title=f"TRPO's bound (2.30): {int((~holds).sum())} of {len(holds):,} MDPs violate it",
        xlabel="largest divergence KL(π || π̃)",
        ylabel="η(π̃) minus the bound",
    )
    axes.grid(alpha=0.25)


def _draw_clip(axes: Axes) -> None:
    ratios = np.linspace(0, 2, 201)
    for advantage, at, shade in ((2.0, 1.5, PALETTE[0]), (-1.0, 0.5, PALETTE[3])):
        signed = f"{advantage:g}".replace("-", "\N{MINUS SIGN}")
        heights = np.asarray(clipped_surrogate(jnp.asarray(ratios), jnp.full(201, advantage), CLIP))
        axes.plot(ratios, ratios * advantage, "--", color=shade, linewidth=1)
        axes.plot(ratios, heights, color=shade, label=f"A = {signed}")
        point = float(clipped_surrogate(jnp.float32(at), jnp.float32(advantage), CLIP))
        axes.plot([at], [point], "o", color=shade)
        axes.annotate(
            f"{point:.1f}".replace("-", "\N{MINUS SIGN}"),
            (at, point),
            xytext=(0, -14),
            textcoords="offset points",
            ha="center",
        )
    for edge in (1 - CLIP, 1 + CLIP):
        axes.axvline(edge, color="0.45", linestyle=":", linewidth=1, zorder=0)
    axes.plot([], [], "--", color="0.45", linewidth=1, label="not clipped")
    axes.set(title="PPO's clipped objective (2.34), ε = .2", xlabel="ratio π / π_old")
    axes.legend(fontsize="small", frameon=False, loc="upper left")
    axes.grid(alpha=0.25)


def _draw_ascent(axes: Axes, ascent: identities.Ascent) -> None:
    for (form, gains), shade in zip(ascent.gains.items(), (PALETTE[0], PALETTE[3]), strict=True):
        iterations = np.arange(gains.shape[1])
        low, high = np.percentile(100 * gains, (5, 95), axis=0)
        label = f"{form}: median, 5 to 95 %"
        axes.plot(iterations, 100 * np.median(gains, axis=0), color=shade, label=label)
        axes.fill_between(iterations, low, high, color=shade, alpha=0.2, linewidth=0)
    count = len(next(iter(ascent.gains.values())))
    axes.set(
        title=f"PPO's two forms on {count} MDPs, exact expectations",
        xlabel="iteration",
        ylabel="% of the possible gain",
    )
    axes.legend(fontsize="small", frameon=False, loc="lower right")
    axes.grid(alpha=0.25)


def _draw_soft(axes: Axes, soft: identities.Soft) -> None:
    axes.scatter(soft.advantages.ravel(), soft.log_probs.ravel(), s=4, alpha=0.4, color=PALETTE[0])
    ends = axes.get_xlim()
    axes.plot(ends, ends, color="0.45", linewidth=1, linestyle="--", label="α log π = Q - V")
    axes.set(
        title="FOP: policies at the optimum",
        xlabel="Q - V of an action",
        ylabel="α log π of it, found by Newton steps",
    )
    axes.legend(fontsize="small", frameon=False, loc="upper left")
    axes.grid(alpha=0.25)


RULE = Rule(
    (
        *(Part(_error(name), at_most=EXACT) for name in JUDGED),
        Part(BIAS, below=1),
        Part(DEVIATION, above=1),
        Part(VARIANCE, below=1),
        Part(VIOLATIONS, at_most=0),
        Part(FALLS, at_most=0),
        Part(DIVERGENCES, at_most=0),
        Part(ABOVE, at_most=0),
        *(Part(f"{GAIN} {form}", at_least=0.9) for form in identities.FORMS),
        Part(FOP, at_most=OPTIMISED),
        Part(PRODUCT, at_most=OPTIMISED),
        Part(f"{TARGET} {identities.TARGETS[0]}", above=0),
        Part(f"{TARGET} {identities.TARGETS[1]}", at_most=0),
        Part(NUMBERS, at_most=OPTIMISED),
    ),
    given="On 1,000 random games in float64 (MDPs, and teams of two and three agents with three states and "
    "three actions each), every expectation a sum over all that can happen; PPO on 100 MDPs for 30 "
    "iterations: ",
)

CLAIMS = (
    Claim(
        "gradients",
        "Thesis, sections 2.3.2 to 2.3.4 and 2.6 (2.26 to 2.38, 2.69 to 2.71); VDAC, DOP and FOP",
        "The losses of policy gradients follow the gradient of the return, baselines leave it as it is, "
        "TRPO's bound holds, PPO's two forms rise, and the targets and numbers are as printed.",
        RULE,
        {"smoke": "1 min", "quick": "2 min", "paper": "2 min"},
        gradients,
    ),
)
