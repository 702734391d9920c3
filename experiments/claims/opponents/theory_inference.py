"""Thesis, section 2.1 and appendix A.1: the ELBO, EM, and both as printed, on random models."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.claims.opponents.statements import EXACT, Group, Statement, apart
from jaxmarl_fac.exact.latent_variables import (
    Coins,
    coins_em,
    coins_log_joint,
    elbo,
    log_evidence,
    posterior,
    posterior_gap,
)
from jaxmarl_fac.report.verdicts import over_games

VALUES, OBSERVATIONS, STEPS = 3, 4, 20
#: Do and Batzoglou's (2008): heads of ten tosses, and where EM starts.
HEADS, TOSSES, FIRST = (5, 9, 8, 4, 7), 10, (0.6, 0.5)

PREDICTIVE = "2.2"
PRINTED_ELBO = "2.4 printed"
DECOMPOSITION = "2.6"
JENSEN = "A.1.2"
PARTS = "2.9"
EM_RISES = "2.10"
PART_TWO = "M-step"
PRINTED_M_STEP = "2.8"

STATEMENTS = {
    PREDICTIVE: Statement(
        "(2.2): ∫ P(y∣x, X, Y, θ) dθ is the predictive",
        "coins of .6 and .5, equal odds: 1.1, and .55 with P(θ∣X, Y)",
    ),
    PRINTED_ELBO: Statement(
        "(2.4): E P(Y∣X, θ) - KL(q∣∣P(θ)), without log, is largest at the posterior",
        "P(Y∣θ) = (.6, .5), equal odds: at q = (.525, .475), not (.545, .455)",
    ),
    DECOMPOSITION: Statement("(2.6), A.1.3: ELBO + KL(q∣∣posterior) = log P(X)"),
    JENSEN: Statement("A.1.2: ELBO ≤ log P(X)"),
    PARTS: Statement("(2.9): ELBO = E log P(X∣z) - KL(q∣∣P(z))"),
    EM_RISES: Statement("(2.7), (2.10): log P(X) never falls under EM"),
    PART_TWO: Statement(
        "below (2.7): maximising part 2 of (2.6) does not lower log P(X)",
        "part 2 is the KL that the E-step made 0; coins of .6 and .5, one head: -0.598 falls to -0.693",
    ),
    PRINTED_M_STEP: Statement(
        "(2.8), with θ of step k everywhere, is EM's step",
        "it is log P(X) itself; five rounds of ten tosses: EM -31.859, its largest value -31.570",
    ),
}


def coins_of_the_tutorial() -> Coins:
    """The example that FIRST belongs to."""
    heads = jnp.asarray(HEADS, float)
    return Coins(heads, TOSSES - heads, jnp.full(2, 0.5))


def grid_of_chances() -> jax.Array:
    """Chances of two coins from .01 to .99, `(50², 2)`."""
    line = jnp.linspace(0.01, 0.99, 50)
    return jnp.stack(jnp.meshgrid(line, line, indexing="ij"), axis=-1).reshape(-1, 2)


def largest_part_two(coins: Coins, chances: jax.Array) -> jax.Array:
    """The chances of the grid at which part 2 of (2.6) is largest, for the q of the E-step at `chances`."""
    q = posterior(coins_log_joint(coins, chances))
    gaps = jax.vmap(lambda tried: posterior_gap(coins_log_joint(coins, tried), q))(grid_of_chances())
    return grid_of_chances()[jnp.argmax(gaps)]


def check(games: int, seed: int) -> Group:
    """All statements on random models and random tosses of two coins; to be called in float64."""
    draw = np.random.default_rng((seed, 1))
    likelihoods = draw.random((games, OBSERVATIONS, VALUES))  # P(x_i | z), of each observation
    priors, q = (draw.dirichlet(np.ones(VALUES), size) for size in ((games,), (games, OBSERVATIONS)))
    following = draw.random((games, VALUES))  # P(y | x, θ) of something new

    def of_model(
        likelihood: jax.Array, prior: jax.Array, q: jax.Array, new: jax.Array
    ) -> tuple[jax.Array, ...]:
        log_joint = jnp.log(likelihood) + jnp.log(prior)
        bound, evidence = elbo(log_joint, q), log_evidence(log_joint)
        parts = jnp.sum(q * jnp.log(likelihood)) - jnp.sum(q * (jnp.log(q) - jnp.log(prior)))
        of_data = jnp.prod(likelihood, axis=0)  # P(Y | θ), all observations sharing one θ
        after = of_data * prior / jnp.sum(of_data * prior)
        printed = jax.nn.softmax(of_data + jnp.log(prior))
        return bound, evidence, posterior_gap(log_joint, q), parts, after, printed, jnp.sum(new), new @ after

    bound, evidence, gap, parts, after, printed, wrong, predictive = over_games(
        of_model, likelihoods, priors, q, following
    )
    heads = draw.integers(0, TOSSES + 1, (games, len(HEADS))).astype(float)
    first = draw.uniform(0.05, 0.95, (games, 2))

    def of_coins(heads: jax.Array, first: jax.Array) -> tuple[jax.Array, ...]:
        coins = Coins(heads, TOSSES - heads, jnp.full(2, 0.5))
        path = jax.vmap(lambda chances: log_evidence(coins_log_joint(coins, chances)))(
            coins_em(coins, first, STEPS)
        )
        lowered = log_evidence(coins_log_joint(coins, largest_part_two(coins, first)))
        return path, lowered

    path, lowered = over_games(of_coins, heads, first)
    fails = {
        PREDICTIVE: np.abs(wrong - predictive) > EXACT,
        PRINTED_ELBO: apart(printed, after) > EXACT,
        DECOMPOSITION: apart(bound + gap, evidence) > EXACT,
        JENSEN: bound > evidence + EXACT,
        PARTS: apart(bound, parts) > EXACT,
        EM_RISES: np.diff(path, axis=1).min(1) < -EXACT,
        PART_TWO: lowered < path[:, 0] - EXACT,
        PRINTED_M_STEP: path[:, -1] > path[:, 1] + EXACT,
    }
    coins = coins_of_the_tutorial()
    chances = coins_em(coins, jnp.asarray(FIRST), 300)
    evidence_of = jax.vmap(lambda each: log_evidence(coins_log_joint(coins, each)))
    lone = Coins(jnp.ones(1), jnp.zeros(1), jnp.full(2, 0.5))  # one head
    numbers = {
        "two coins": {
            "chances after one step": np.asarray(chances[1]).tolist(),
            "chances in the limit": np.asarray(chances[-1]).tolist(),
            "log-likelihood before, after one step, in the limit": np.asarray(
                evidence_of(chances[jnp.asarray([0, 1, -1])])
            ).tolist(),
            "log-likelihood where part 2 is largest": float(
                evidence_of(largest_part_two(coins, jnp.asarray(FIRST))[None])[0]
            ),
        },
        "part 2 of one head": {
            "log-likelihood before": float(log_evidence(coins_log_joint(lone, jnp.asarray(FIRST)))),
            "where part 2 is largest": float(
                log_evidence(coins_log_joint(lone, largest_part_two(lone, jnp.asarray(FIRST))))
            ),
        },
        "2.4 for P(Y|θ) = (.6, .5)": {
            "printed": np.asarray(jax.nn.softmax(jnp.asarray(FIRST))).tolist(),
            "posterior": np.asarray(equal_odds_posterior(FIRST)).tolist(),
        },
    }
    shown = {
        "EM": np.asarray(evidence_of(chances[:11])),
        "limit": numbers["two coins"]["log-likelihood before, after one step, in the limit"][2],
        "part 2": numbers["two coins"]["log-likelihood where part 2 is largest"],
    }
    return Group(fails, numbers, shown)


def equal_odds_posterior(likelihood: tuple[float, ...]) -> np.ndarray:
    """The posterior of equal odds."""
    table = np.asarray(likelihood)
    return table / table.sum()
