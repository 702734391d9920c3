"""Particle filters against Bayes' rule: how the error falls with the number of particles."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.claims.belief.chains import CARDS, TIGER, TWO_TIGERS, WEATHER, Hidden, hidden
from jaxmarl_fac.report.claims import Claim, Outcome, Workshop
from jaxmarl_fac.report.figures import panels
from jaxmarl_fac.report.styles import PALETTE
from jaxmarl_fac.report.verdicts import Part, Rule
from jaxmarl_fac.soft import belief, particles
from jaxmarl_fac.statistics import Interval, bootstrap_interval

GAMES = (WEATHER, CARDS, TIGER, TWO_TIGERS)
PARTICLES = (1, 3, 10, 30, 100, 300, 1000, 3000, 10_000)
#: The slope is fitted from here on: with fewer particles most filters are wrong by as much as can be.
FIT_FROM = 10
JUDGED = 1000
#: Particles that are moved side by side.
AT_ONCE = 20_000
RESAMPLES = 400

SLOPE = "slope of the mean error"
NEAR = f"mean error of {JUDGED:,} particles"
TAIL = f"95 % of {JUDGED:,} particles"
#: The rule is not the first one.
DISCLOSED = (
    "The rule says the mean since a number was seen: at first it said the 95 % point, which 1,000 particles "
    "cannot bring below .05 for the tiger. The 95 % points"
)


def errors_of(game: Hidden, count: int, runs: int, key: jax.Array) -> np.ndarray:
    """The largest error of the last belief of each of `runs` filters of K particles, `(runs,)`."""
    exact = belief.bayes_filter(game.chain).belief[-1] @ game.asked
    together = max(1, min(runs, AT_ONCE // count))
    while runs % together:  # a remainder would be compiled as a second program
        together -= 1
    keys = jax.random.split(key, (runs // together, together))
    return np.asarray(_errors(keys, game.chain, jnp.asarray(game.asked), exact, count)).ravel()


@functools.partial(jax.jit, static_argnames="count")
def _errors(
    keys: jax.Array, chain: belief.Chain, asked: jax.Array, exact: jax.Array, count: int
) -> jax.Array:
    def error(key: jax.Array) -> jax.Array:
        clouds, _ = particles.filter_chain(key, chain, count)
        last = jax.tree.map(lambda leaf: leaf[-1], clouds)
        return jnp.max(jnp.abs(particles.posterior(last, asked.shape[0]) @ asked - exact))

    return jax.lax.map(jax.vmap(error), keys)


def slope_of(errors: dict[int, np.ndarray]) -> Interval:
    """The slope of log mean error by log K from `FIT_FROM` on, with a bootstrap interval over filters."""
    counts = [count for count in errors if count >= FIT_FROM]
    rng = np.random.default_rng(0)

    def fit(tables: list[np.ndarray]) -> float:
        return float(np.polyfit(np.log(counts), np.log([table.mean() for table in tables]), 1)[0])

    found = fit([errors[count] for count in counts])
    again = [
        fit([rng.choice(errors[count], len(errors[count])) for count in counts]) for _ in range(RESAMPLES)
    ]
    return Interval(found, *(float(end) for end in np.quantile(again, [0.025, 0.975])))


def filters(workshop: Workshop) -> Outcome:
    """Filters of 1 to 10,000 particles on four games."""
    runs = workshop.choose(smoke=20, quick=400, paper=1000)
    counts = workshop.choose(smoke=(1, 10, 100, 1000), quick=PARTICLES, paper=PARTICLES)
    ours: dict[str, Any] = {"filters": runs}
    measured: dict[str, Any] = {}
    figure, axes = panels(1, 2, (5.2, 3.8), f"Particle filters against Bayes' rule, {runs:,} of each")
    with jax.enable_x64(True):
        games = hidden()
        keys = dict(zip(games, jax.random.split(jax.random.key(0), len(games)), strict=True))
        for place, (name, game) in enumerate(games.items()):
            seeds = jax.random.split(keys[name], len(counts))
            errors = {
                count: errors_of(game, count, runs, seed) for count, seed in zip(counts, seeds, strict=True)
            }
            measured[f"{name}: {SLOPE}"] = slope_of(errors)
            measured[f"{name}: {NEAR}"] = bootstrap_interval(errors[JUDGED], np.mean)
            mean = [table.mean() for table in errors.values()]
            ours[name] = {
                "mean error": dict(zip(map(str, counts), mean, strict=True)),
                "slope": measured[f"{name}: {SLOPE}"],
                NEAR: measured[f"{name}: {NEAR}"],
                TAIL: np.quantile(errors[JUDGED], 0.95),
            }
            axes[0, 0].loglog(counts, mean, "o-", color=PALETTE[place], markersize=4, label=name)
            rank = np.arange(1, runs + 1) / runs
            axes[0, 1].plot(np.sort(errors[JUDGED]), rank, color=PALETTE[place], label=name)
    axes[0, 0].loglog(counts, 0.5 / np.sqrt(counts), "--", color="0.45", label=r"$\frac{1}{2} K^{-1/2}$")
    axes[0, 0].set(xlabel="particles K", ylabel="mean error of the last belief")
    axes[0, 1].set(xlabel=f"error with K = {JUDGED:,}", ylabel="share of filters")
    axes[0, 1].axvline(0.05, color="0.45", linestyle="--")
    for each in axes[0]:
        each.grid(alpha=0.25)
        each.legend(frameon=False, fontsize="small")
    slopes = [measured[f"{name}: {SLOPE}"].value for name in games]
    why = (
        f"The error falls by K^({min(slopes):.3f}) to K^({max(slopes):.3f}); with 1,000 particles it is "
        f"{max(measured[f'{name}: {NEAR}'].value for name in games):.3f} at the most, in the mean. "
        f"{DISCLOSED}: " + ", ".join(f"{ours[name][TAIL]:.3f} ({name})" for name in games) + "."
    )
    return Outcome(figure, {"slope": -0.5}, ours, measured, why)


CLAIMS = (
    Claim(
        "filters",
        "Thesis, equations 5.4 and 5.16",
        "The weighted particles are the posterior of the hidden state, the better the more there are.",
        Rule(
            tuple(
                part
                for name in GAMES
                for part in (
                    Part(f"{name}: {SLOPE}", inside=(-0.55, -0.45)),
                    Part(f"{name}: {NEAR}", below=0.05),
                )
            ),
            given=f"Bootstrap filters, the largest error of the last belief; slopes from {FIT_FROM} to "
            "10,000 particles: ",
        ),
        {"smoke": "20 s", "quick": "2 min", "paper": "15 min"},
        filters,
    ),
)
