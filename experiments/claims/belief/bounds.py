"""Bounds on the evidence: importance-weighted ones by enumeration, and those of particle filters."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.claims.belief.chains import TIGER, WEATHER, tiger, weather
from jaxmarl_fac.report.claims import Claim, Outcome, Workshop
from jaxmarl_fac.report.figures import panels
from jaxmarl_fac.report.styles import PALETTE
from jaxmarl_fac.report.verdicts import TOLERANCE, Part, Rule, over_games
from jaxmarl_fac.soft import belief, particles
from jaxmarl_fac.soft.belief import Chain
from jaxmarl_fac.statistics import Interval

#: What rounding may take from a bound in float64.
ROUNDING = 1e-12

# The binary latent


#: `P(z, x)` of a latent of even chances that shows x with .7 or .1, proposed by its prior.
JOINT, PROPOSAL = np.array([0.35, 0.05]), np.array([0.5, 0.5])
BOUNDS = {1: -1.329630, 2: -1.122960, 3: -1.043827, 5: -0.984591}
MANY, LATENTS, GAMES = 300, 3, 1000

NUMBERS = "largest error of the bounds of 1, 2, 3 and 5 draws"
RISE = "least rise of a bound from K to K + 1 draws, K = 1 to 4"
BELOW = "least distance of a bound of 1 to 5 draws below the evidence"
LIMIT = f"distance of the bound of {MANY} draws below the evidence"


def iwae(workshop: Workshop) -> Outcome:
    """The bound of K draws, exactly: on the worked example, and on random latents."""
    games = workshop.choose(smoke=50, quick=GAMES, paper=10 * GAMES)
    counts = (*range(1, 6), 10, 20, 30, 50, 100, 200, MANY)
    with jax.enable_x64(True):
        log_weight = jnp.log(JOINT / PROPOSAL)
        exact = {k: float(belief.iwae_bound(log_weight, jnp.asarray(PROPOSAL), k)) for k in counts}
        keys = jax.random.split(jax.random.key(0))
        joint = jax.random.uniform(keys[0], (games, LATENTS))
        proposal = jax.random.dirichlet(keys[1], jnp.ones(LATENTS), (games,))

        def bounds(joint: jax.Array, proposal: jax.Array) -> jax.Array:
            weights = jnp.log(joint) - jnp.log(proposal)
            found = [belief.iwae_bound(weights, proposal, k) for k in range(1, 6)]
            return jnp.stack([*found, jnp.log(jnp.sum(joint))])

        tables = over_games(bounds, joint, proposal)  # (games, 6), the evidence is last
    evidence = math.log(JOINT.sum())
    measured = {
        NUMBERS: max(abs(exact[k] - bound) for k, bound in BOUNDS.items()),
        RISE: np.diff(tables[:, :-1]).min(),
        BELOW: (tables[:, -1:] - tables[:, :-1]).min(),
        LIMIT: evidence - exact[MANY],
    }
    figure, axes = panels(1, 2, (5.0, 3.6), "Importance-weighted bounds, by enumeration (float64)")
    axes[0, 0].semilogx(counts, list(exact.values()), "o-", color=PALETTE[0], label="bound of K draws")
    axes[0, 0].axhline(evidence, color="0.45", linestyle="--", label="log p(x)")
    axes[0, 0].set(xlabel="draws K", ylabel="nats", title="two values, even chances,\nx with .7 or .1")
    shown = tables[:, -1:] - tables[:, :-1]
    axes[0, 1].plot(range(1, 6), shown[:60].T, color=PALETTE[1], alpha=0.3, linewidth=0.8)
    axes[0, 1].plot(range(1, 6), np.median(shown, axis=0), "o-", color=PALETTE[3], label="median")
    axes[0, 1].set(
        xlabel="draws K",
        xticks=range(1, 6),
        ylabel="log p(x) minus the bound",
        title=f"{games:,} random latents",
        yscale="log",
    )
    for each in axes[0]:
        each.grid(alpha=0.25)
        each.legend(frameon=False, fontsize="small")
    ours = {
        "bounds": {str(k): bound for k, bound in exact.items()},
        "evidence": evidence,
        "random latents": {
            "least rise": measured[RISE],
            "median gap": np.median(shown, axis=0),
        },
    }
    why = (
        f"From {exact[1]:.6f} (the ELBO) to {exact[5]:.6f} with 5 draws and {exact[MANY]:.6f} with {MANY}; "
        f"log p(x) is {evidence:.6f}. On {games:,} random latents the least rise is {measured[RISE]:.1e}."
    )
    return Outcome(figure, {str(k): bound for k, bound in BOUNDS.items()}, ours, measured, why, games)


# Particle filters

PARTICLES = (1, 4, 16, 64, 256)
CHAINS = (WEATHER, TIGER)
#: Of the learned proposal.
STEPS, SAMPLES, STEP_SIZE = 400, 256, 0.05

RISES = "least rise of the bound from K to 4 K particles, lower end"
UNDER = "largest excess of a bound over the evidence, lower end"
GAP = f"gap of {PARTICLES[-1]} particles to the evidence"
PROPOSED = "largest error of a single filter with the exact proposal"
LEARNED = "gap that a learned proposal leaves, as a share of the bootstrap filter's"


def bounds_of(
    chain: Chain, count: int, runs: int, key: jax.Array, proposal: jax.Array | None = None, **flags: bool
) -> np.ndarray:
    """The estimates of log p(o) by `runs` filters of K particles, `(runs,)`."""

    def bound(key: jax.Array) -> jax.Array:
        return jnp.sum(particles.filter_chain(key, chain, count, proposal, **flags)[1].log_evidence)

    mapped = functools.partial(jax.lax.map, bound, batch_size=max(1, 20_000 // count))
    return np.asarray(jax.jit(mapped)(jax.random.split(key, runs)))


def learn_proposal(chain: Chain, steps: int, key: jax.Array) -> tuple[float, float]:
    """The exact ELBO (K = 1) of the bootstrap proposal, and of one that climbs its sampled gradient."""
    moves = belief.with_prior(chain)

    def exact(logits: jax.Array) -> jax.Array:
        paths = belief.enumerate_paths(chain, jax.nn.softmax(logits))
        return belief.iwae_bound(paths.log_weight, paths.proposal, 1)

    def sampled(logits: jax.Array, key: jax.Array) -> jax.Array:
        proposal = jax.nn.softmax(logits)
        told = jax.vmap(
            lambda key: particles.filter_chain(key, chain, 1, proposal, resampling=False)[1]
        )(jax.random.split(key, SAMPLES))  # fmt: skip
        return jnp.mean(jax.vmap(particles.elbo)(told))

    optimiser = optax.adam(STEP_SIZE)

    def step(carry: Any, key: jax.Array) -> tuple[Any, None]:
        logits, state = carry
        gradient = jax.grad(sampled)(logits, key)
        updates, state = optimiser.update(-gradient, state)
        return (optax.apply_updates(logits, updates), state), None

    @jax.jit
    def learn(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits = jnp.log(moves)
        (learned, _), _ = jax.lax.scan(step, (logits, optimiser.init(logits)), jax.random.split(key, steps))
        return exact(logits), exact(learned)

    before, after = learn(key)
    return float(before), float(after)


def elbo(workshop: Workshop) -> Outcome:
    """The bound of filters of K particles, and what a better proposal does to it."""
    runs = workshop.choose(smoke=1000, quick=20_000, paper=200_000)
    steps = workshop.choose(smoke=50, quick=STEPS, paper=STEPS)
    ours: dict[str, Any] = {"filters": runs}
    measured: dict[str, Any] = {}
    figure, axes = panels(1, 2, (5.0, 3.6), f"The bound of a particle filter, {runs:,} of each")
    with jax.enable_x64(True):
        for place, (name, game) in enumerate(((WEATHER, weather()), (TIGER, tiger()))):
            chain = game.chain
            keys = jax.random.split(jax.random.key(place), len(PARTICLES) + 2)
            evidence = float(belief.bayes_filter(chain).log_evidence.sum())
            found = {
                count: bounds_of(chain, count, runs, key) for count, key in zip(PARTICLES, keys, strict=False)
            }
            mean = np.array([table.mean() for table in found.values()])
            error = np.array([table.std() for table in found.values()]) / math.sqrt(runs)
            rise = np.diff(mean) - 1.96 * np.hypot(error[1:], error[:-1])
            exact = bounds_of(chain, 4, 100, keys[-2], belief.smoothing_proposal(chain), resampling=False)
            measured[f"{name}: {RISES}"] = rise.min()
            measured[f"{name}: {UNDER}"] = (mean - 1.96 * error).max() - evidence
            measured[f"{name}: {GAP}"] = evidence - mean[-1]
            measured[f"{name}: {PROPOSED}"] = np.abs(exact - evidence).max()
            ours[name] = {
                "bound": {
                    str(count): Interval(value, value - 1.96 * half, value + 1.96 * half)
                    for count, value, half in zip(PARTICLES, mean, error, strict=True)
                },
                "evidence": evidence,
                "exact proposal": measured[f"{name}: {PROPOSED}"],
            }
            colour = PALETTE[place]
            axes[0, 0].errorbar(PARTICLES, mean, 1.96 * error, fmt="o-", color=colour, label=name, capsize=3)
            axes[0, 0].axhline(evidence, color=colour, linestyle="--", linewidth=1)
            if name == WEATHER:  # the tiger's moves are certain: there is nothing to learn there
                before, after = learn_proposal(chain, steps, keys[-1])
                measured[LEARNED] = (evidence - after) / (evidence - before)
                ours[name] |= {"one particle, bootstrap": before, "one particle, learned": after}
                names = ["bootstrap", "learned", "exact"]
                bars = axes[0, 1].bar(names, [evidence - before, evidence - after, 0], color=colour)
                axes[0, 1].bar_label(bars, fmt="%.4f", padding=2)
    axes[0, 0].set(xscale="log", xlabel="particles K", ylabel="E of the estimate of log p(o)")
    axes[0, 1].set(ylabel="log p(o) minus the ELBO", title=f"proposals of one particle, {WEATHER}")
    axes[0, 1].margins(y=0.1)
    axes[0, 0].legend(frameon=False, fontsize="small", title="dashed: log p(o)")
    for each in axes[0]:
        each.grid(alpha=0.25)
    why = (
        f"On the {WEATHER} the bound rises from {ours[WEATHER]['bound']['1'].value:.4f} to "
        f"{ours[WEATHER]['bound']['256'].value:.4f} at 256 particles, and log p(o) is "
        f"{ours[WEATHER]['evidence']:.4f}. With the smoothing posterior as proposal every single filter "
        f"gives the evidence; a learned one leaves {measured[LEARNED]:.1%} of the bootstrap filter's gap."
    )
    return Outcome(figure, {WEATHER: -2.141743}, ours, measured, why)


CLAIMS = (
    Claim(
        "elbo",
        "Thesis, equations 5.3 to 5.5 (Maddison et al., Naesseth et al., Le et al.; Igl et al., 2018)",
        "The bound of a particle filter rises with the particles towards log p(o), and is log p(o) at the "
        "exact proposal.",
        Rule(
            (
                *(
                    part
                    for name in CHAINS
                    for part in (
                        Part(f"{name}: {RISES}", above=0),
                        Part(f"{name}: {UNDER}", at_most=0),
                        Part(f"{name}: {GAP}", at_most=0.02),
                        Part(f"{name}: {PROPOSED}", at_most=1e-9),
                    )
                ),
                Part(LEARNED, at_most=0.1),
            ),
            given="Resampling at every step, 95 % intervals; resampling off with the exact proposal and "
            "while a proposal is learned: ",
        ),
        {"smoke": "20 s", "quick": "1 min", "paper": "8 min"},
        elbo,
    ),
    Claim(
        "iwae",
        "Thesis, equation 5.2 (Burda et al., 2016)",
        "More draws give a tighter bound, from the ELBO towards log p(x).",
        Rule(
            (
                Part(NUMBERS, at_most=TOLERANCE),
                Part(RISE, at_least=-ROUNDING),
                Part(BELOW, at_least=-ROUNDING),
                Part(LIMIT, at_most=0.002),
            ),
            given=f"By enumeration, on the worked example and on {GAMES:,} random latents: ",
        ),
        {"smoke": "10 s", "quick": "15 s", "paper": "30 s"},
        iwae,
    ),
)
