"""Theorem 4 of the lecture: fitted Q-iteration in the IGM class."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from envs.team_mdp import divergence_mmdp, draw_team_mdp
from experiments.claims.fqi.stability import GAMMA
from jaxmarl_fac.exact.fitted import fma_fqi, fqi_igm
from jaxmarl_fac.exact.joint import optimal_q, optimality_gap
from jaxmarl_fac.exact.team import greedy_joint_actions
from jaxmarl_fac.report.claims import Claim, Outcome, Workshop
from jaxmarl_fac.report.figures import panels
from jaxmarl_fac.report.styles import PALETTE
from jaxmarl_fac.report.verdicts import TOLERANCE, Every, Part, Rule, over_games, share

#: States and action counts of theorem 4's games.
IGM_GAMES = ((5, (3, 3)), (4, (2, 3, 2)))
GAMMAS = (0.5, 0.9, 0.99)
#: The iteration at which the figure's histogram is taken.
MOMENT = 20


def theorem4(workshop: Workshop) -> Outcome:
    """FQI-IGM converges from anywhere, as fast as value iteration."""
    games = workshop.choose(smoke=30, quick=1000, paper=10_000)
    steps = 100
    ours: dict[str, Any] = {}
    measured: dict[str, Any] = {}
    figure, axes = panels(1, 3, (4.6, 3.7))
    figure.suptitle("Theorem 4: FQI-IGM (exact, no seeds)")
    for place, (states, counts) in enumerate(IGM_GAMES):
        n = len(counts)
        with jax.enable_x64(True):
            keys = jnp.tile(jax.random.split(jax.random.key(n), games), len(GAMMAS))
            played = over_games(
                lambda key, gamma, s=states, c=counts: _igm_errors(key, gamma, s, c, steps),
                keys,
                jnp.repeat(jnp.array(GAMMAS), games),
            )
        by_gamma = zip(GAMMAS, *(np.split(each, len(GAMMAS)) for each in played), strict=True)
        for column, (gamma, errors, gaps) in enumerate(by_gamma):  # errors (G, steps + 1), gaps (G,)
            bound = gamma ** np.arange(steps + 1)
            excess = (errors - bound * errors[:, :1]).max()
            end = errors[:, -1] / errors[:, 0]
            optimal = gaps <= errors[:, -1] * 2 * gamma / (1 - gamma) + TOLERANCE
            measured[_excess(n, gamma)] = excess
            measured[_optimal(n, gamma)] = optimal.mean()
            ours[f"{n} agents, gamma {gamma:g}"] = {
                "games": games,
                "within_bound_fraction": share((errors <= bound * errors[:, :1] + TOLERANCE).all(1)),
                "largest_excess_over_bound": excess,
                "largest_error_after_100_as_part_of_first": end.max(),
                "bound_after_100": bound[-1],
                "optimal_greedy_policy_fraction": share(gaps <= TOLERANCE),
            }
            ratio = errors / errors[:, :1]
            shade = PALETTE[column]
            style = ("-", "--")[place]
            axes[0, 0].plot(ratio.max(0), style, color=shade, label=f"γ = {gamma:g}, n = {n}")
            axes[0, 1].hist(
                ratio[:, MOMENT] / bound[MOMENT],
                bins=np.linspace(0, 1.05, 43),
                histtype="step",
                color=shade,
                linestyle=style,
            )
            if place == 0:
                axes[0, 0].plot(bound, color="black", linestyle=":", linewidth=1)
    with jax.enable_x64(True):
        model = divergence_mmdp().model()
        factored = np.asarray(fqi_igm(model, GAMMA, 300).values[:, 0])
        additive = np.asarray(fma_fqi(model, GAMMA, 300).values[:, 0])
    expected = 100 * (1 - GAMMA ** np.arange(301))
    mmdp_error = float(np.abs(factored - expected).max())
    measured[MMDP_ERROR] = mmdp_error
    ours["two_state_game"] = {"largest_error": mmdp_error, "value_after_300": factored[-1]}
    axes[0, 0].set(
        yscale="log",
        ylim=(1e-12, 2),
        xlabel="iteration t",
        ylabel="$\\|V_t - V^*\\| / \\|V_0 - V^*\\|$",
        title=f"worst of {games:,} random games each\n(dotted: the bound $γ^t$)",
    )
    axes[0, 0].legend(fontsize="x-small", frameon=False)
    axes[0, 1].axvline(1, color="0.4", linestyle="--")
    axes[0, 1].set(
        xlabel=f"error after {MOMENT} iterations / its bound",
        ylabel="games",
        title="all games (dashed: the bound)",
    )
    axes[0, 2].plot(factored, color=PALETTE[2], linewidth=3, label="FQI-IGM")
    axes[0, 2].plot(expected, color="black", linestyle="--", linewidth=1, label="$100 (1 - .99^t)$")
    axes[0, 2].plot(additive, color=PALETTE[0], label="additive (theorem 3)")
    axes[0, 2].set(ylim=(0, 130), xlabel="iteration t", ylabel="$V_t$", title=f"two-state game, γ = {GAMMA}")
    axes[0, 2].legend(fontsize="small", frameon=False)
    for axis in (axes[0, 0], axes[0, 2]):
        axis.grid(alpha=0.25)
    excess = max(entry["largest_excess_over_bound"] for name, entry in ours.items() if "agents" in name)
    shown = f"by more than {excess:.0e}" if excess > 0 else "at all"
    why = (
        f"On {len(IGM_GAMES) * games:,} random games and three discounts, from random starts, the error "
        f"never exceeds gamma^t times the first {shown}; on the two-state game values are 100(1 - .99^t) to "
        f"{mmdp_error:.0e}, where additive ones diverge."
    )
    return Outcome(figure, {"bound": "gamma^t |V_0 - V*|"}, ours, measured, why, len(IGM_GAMES) * games)


def _igm_errors(
    key: jax.Array, gamma: jax.Array, states: int, counts: tuple[int, ...], steps: int
) -> tuple[jax.Array, jax.Array]:
    """`|V_t - V*|` for t = 0, ..., steps from a random start, and the optimality gap of the last policy."""
    game_key, start_key = jax.random.split(key)
    model = draw_team_mdp(game_key, states, counts).model()
    q_star = optimal_q(model, gamma)
    start = jax.random.uniform(start_key, model.reward.shape, minval=-100, maxval=100)
    trace = fqi_igm(model, gamma, steps, start)
    best = q_star.reshape(states, -1).max(-1)
    last = jax.tree.map(lambda utility: utility[-1], trace.factors.utilities)
    return jnp.abs(trace.values - best).max(-1), optimality_gap(q_star, greedy_joint_actions(last))


def _excess(n: int, gamma: float) -> str:
    return f"{n} agents, gamma {gamma:g}: largest excess of an error over gamma^t times the first"


def _optimal(n: int, gamma: float) -> str:
    return (
        f"{n} agents, gamma {gamma:g}: share of games whose last policy loses at most 2 gamma / (1 - gamma) "
        "times the last error"
    )


def _converges(n: int, gamma: float) -> Every:
    return Every((Part(_excess(n, gamma), at_most=TOLERANCE), Part(_optimal(n, gamma), at_least=1)))


MMDP_ERROR = "largest error of the two-state game's values by 100 (1 - .99^t)"

CLAIMS = (
    Claim(
        "theorem4",
        "lecture, theorem 4",
        "Fitted Q-iteration in the IGM class converges globally to the optimum.",
        Rule(
            (
                *(_converges(len(counts), gamma) for _, counts in IGM_GAMES for gamma in GAMMAS),
                Part(MMDP_ERROR, at_most=TOLERANCE),
            ),
            given="Random team MDPs, random starts in [-100, 100]; errors are those of V_t by V*, t <= 100: ",
        ),
        {"smoke": "15 s", "quick": "30 s", "paper": "4 min"},
        theorem4,
    ),
)
