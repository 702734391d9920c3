"""Theorem 3 of the lecture: additive fitted Q-iteration on off-policy data."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from envs.team_mdp import TeamModel, divergence_mmdp
from experiments.claims.fqi.closed_form import SHAPES
from experiments.claims.fqi.stability import recursion, relative_error
from jaxmarl_fac.exact.fitted import fma_fqi
from jaxmarl_fac.exact.projections import additive_fit
from jaxmarl_fac.report.claims import Claim, Outcome, Workshop
from jaxmarl_fac.report.figures import panels
from jaxmarl_fac.report.styles import PALETTE
from jaxmarl_fac.report.verdicts import TOLERANCE, Every, Part, Rule, over_games, share

SHOWN_GAMMAS = (0.5, 0.7, 0.8, 0.9, 0.99)
#: V_1, V_2, V_3, V_4, V_10, V_100 of the two-state game.
PUBLISHED_VALUES = {
    0.5: (0.75, 1.21875, 1.51172, 1.69482, 1.98181, 2.0),
    0.8: (0.75, 1.5, 2.25, 3.0, 7.5, 75.0),
    0.99: (0.75, 1.67813, 2.82668, 4.24802, 23.4402, 5.674e9),
}
MOMENTS = (1, 2, 3, 4, 10, 100)


def stopping_game(stay: jax.Array, reward: jax.Array) -> TeamModel:
    """State 0 pays `reward (A_1, ..., A_n)` and stays with probability `stay`; state 1 pays no more."""
    transition = jnp.stack(
        [jnp.stack([stay, 1 - stay], -1), jnp.stack([jnp.zeros_like(stay), jnp.ones_like(stay)], -1)]
    )
    return TeamModel(transition, jnp.stack([reward, jnp.zeros_like(reward)]), jnp.zeros((2,), bool))


def theorem3(workshop: Workshop) -> Outcome:
    """Divergence off-policy: the two-state game over gamma, and random games of its kind."""
    count = workshop.choose(smoke=40, quick=2000, paper=20_000)
    games = workshop.choose(smoke=30, quick=1000, paper=10_000)
    steps = 100
    with jax.enable_x64(True):
        model = divergence_mmdp().model()
        gammas = np.concatenate([np.linspace(0, 0.999, count), SHOWN_GAMMAS])
        values = over_games(lambda gamma: fma_fqi(model, gamma, steps).values[:, 0], gammas)
        parts_of_games = [_random_stopping_games(n, counts, games, steps) for n, counts in SHAPES.items()]
    error = relative_error(values.T, recursion(np.full_like(gammas, 0.75), 1.25 * gammas, steps))
    rises = np.diff(values, axis=1)
    diverges = rises[:, -1] >= rises[:, -2] * (1 - 1e-9)
    split_at = gammas[:count][~diverges[:count]].max()
    table = {
        gamma: {
            **{f"V_{t}": values[count + i, t] for t in MOMENTS},
            "limit": 3 / (4 - 5 * gamma) if gamma < 0.8 else math.inf,
            "V*": 1 / (1 - gamma),
        }
        for i, gamma in enumerate(SHOWN_GAMMAS)
    }
    # Four digits, as many as the printed numbers have at least.
    as_published = all(
        np.allclose([table[gamma][f"V_{t}"] for t in MOMENTS], numbers, rtol=5e-4)
        for gamma, numbers in PUBLISHED_VALUES.items()
    )
    slopes, diverged, game_errors = (np.concatenate(column) for column in zip(*parts_of_games, strict=True))
    predicted = slopes >= 1
    agree = diverged == predicted
    ours = {
        "gammas": count,
        "largest_relative_error_of_values": error,
        "largest_bounded_gamma": split_at,
        "table": {f"gamma {gamma:g}": row for gamma, row in table.items()},
        "random_games": {
            "games": len(slopes),
            "largest_relative_error_of_values": game_errors.max(),
            "diverge_fraction": share(diverged),
            "predicted_to_diverge": int(predicted.sum()),
            "as_predicted_fraction": share(agree),
        },
    }
    measured = {
        VALUES: error,
        PUBLISHED: as_published,
        BOUNDED: split_at,
        NEXT: split_at + 1.0 / count,
        GAME_VALUES: game_errors.max(),
        AGREE: share(agree),
        SOME: diverged.any(),
    }
    figure, axes = panels(1, 3, (4.8, 3.8))
    figure.suptitle("Theorem 3: off-policy data (exact, no seeds)")
    for i, gamma in enumerate(SHOWN_GAMMAS):
        axes[0, 0].plot(range(1, steps + 1), values[count + i, 1:], color=PALETTE[i], label=f"γ = {gamma:g}")
        axes[0, 0].plot(steps, 1 / (1 - gamma), ">", color=PALETTE[i], clip_on=False)
    axes[0, 0].set(
        yscale="log",
        xlabel="iteration t",
        ylabel="$V_t$",
        title="two-state game, uniform data\n(arrow heads: $V^*$)",
    )
    axes[0, 0].legend(fontsize="small", frameon=False)
    below = gammas[:count] < 0.8
    axes[0, 1].plot(
        gammas[:count], values[:count, -1], color=PALETTE[0], linewidth=3, label="$V_{100}$, measured"
    )
    axes[0, 1].plot(
        gammas[:count][below],
        3 / (4 - 5 * gammas[:count][below]),
        color="black",
        linestyle="--",
        label="3 / (4 − 5γ)",
    )
    axes[0, 1].plot(gammas[:count], 1 / (1 - gammas[:count]), color=PALETTE[3], label="$V^* = 1/(1-γ)$")
    axes[0, 1].axvline(0.8, color="0.45", linestyle=":")
    axes[0, 1].set(
        yscale="log", xlabel="γ", ylim=(0.5, 1e10), title=f"two-state game for {count:,} values of γ"
    )
    axes[0, 1].legend(fontsize="small", frameon=False)
    width = 0.02
    bins = 1 + width * np.arange(math.floor((slopes.min() - 1) / width), (slopes.max() - 1) / width + 1)
    axes[0, 2].hist(
        [slopes[~diverged], slopes[diverged]],
        bins=bins,
        stacked=True,
        color=[PALETTE[5], PALETTE[3]],
        label=["values converge", "values grow without bound"],
    )
    axes[0, 2].axvline(1, color="black", linestyle="--", linewidth=1)
    axes[0, 2].set(
        xlabel="predicted slope, γ max(additive fit of stay chances)",
        ylabel="games",
        title=f"{len(slopes):,} random stopping games, 2 to 4 agents",
    )
    axes[0, 2].legend(fontsize="small", frameon=False)
    for axis in axes[0, :2]:
        axis.grid(alpha=0.25)
    why = (
        f"On the two-state game with uniform data values follow V' = 3/4 + (5/4) gamma V to {error:.0e} "
        f"for {count:,} discounts, and grow without bound from gamma = .8 on (bounded up to {split_at:.4f}), "
        f"while the true value is 1/(1 - gamma). Of {len(slopes):,} random games of this kind "
        f"{diverged.mean():.0%} diverge, {agree.mean():.1%} as the slope predicts."
    )
    paper = {
        f"gamma {gamma:g}": dict(zip(MOMENTS, row, strict=True)) for gamma, row in PUBLISHED_VALUES.items()
    }
    return Outcome(figure, paper, ours, measured, why, len(slopes))


def _random_stopping_games(
    n: int, counts: tuple[int, ...], games: int, steps: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predicted slopes, whether values were seen to grow without bound, and errors, each `(games,)`.

    The additive fit is linear in the target, so `V' = max_u [fit(r) + gamma V fit(stay)](u)`.
    """
    rng = np.random.default_rng(n)
    stay = rng.integers(0, 2, (games, *counts)).astype(float)
    reward = rng.uniform(0, 1, (games, *counts))
    gamma = rng.uniform(0.6, 1, games)

    def work(stay: jax.Array, reward: jax.Array, gamma: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        values = fma_fqi(stopping_game(stay, reward), gamma, steps).values[:, 0]
        pays, stays = additive_fit(reward).q_tot, additive_fit(stay).q_tot

        def follow(value: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
            value = (pays + gamma * value * stays).max()
            return value, value

        _, expected = jax.lax.scan(follow, jnp.zeros(()), length=steps)
        error = (jnp.abs(values[1:] - expected) / jnp.maximum(1, jnp.abs(expected))).max()
        rise, before = values[-1] - values[-2], values[-2] - values[-3]
        return gamma * stays.max(), (rise > 1e-9) & (rise >= before * (1 - 1e-9)), error

    return over_games(work, stay, reward, gamma)  # type: ignore[no-any-return]


VALUES = "largest relative error of the two-state game's values by V' = 3/4 + (5/4) gamma V, over gamma"
PUBLISHED = "its values equal the published table"
BOUNDED = "largest gamma with bounded values"
NEXT = "the next gamma of the grid"
GAME_VALUES = "largest relative error of random stopping games' values by their recursion"
AGREE = (
    "share of them that grow without bound if and only if gamma max(additive fit of the stay chances) >= 1"
)
SOME = "some of them grow without bound"

CLAIMS = (
    Claim(
        "theorem3",
        "lecture, theorem 3",
        "With off-policy data additive fitted Q-iteration may diverge.",
        Rule(
            (
                Every((Part(VALUES, at_most=TOLERANCE), Part(PUBLISHED))),
                Every((Part(BOUNDED, below=0.8), Part(NEXT, at_least=0.8))),
                Every((Part(GAME_VALUES, at_most=TOLERANCE), Part(AGREE, at_least=0.99), Part(SOME))),
            ),
            given="Uniform data: ",
        ),
        {"smoke": "10 s", "quick": "20 s", "paper": "3 min"},
        theorem3,
    ),
)
