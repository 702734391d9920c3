"""Theorem 1's weights of a projection against those that numerical optimisation finds, in one-state games.

Q_k is the additive fit of the payoff Q* = y, with which the agents' Boltzmann policies are those of Q_k. In
the monotone class they would not be determined: a mixer can stretch the utilities as it likes, and with them
the policies, without a change of Q_k.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.claims.remix.statements import SEED, agents_probabilities, fitted, printed_weights
from jaxmarl_fac.report.verdicts import over_games
from jaxmarl_fac.weights import min_max_weights, optimistic_weight, remix_weight

#: The smallest weight, as a share of the largest.
LEAST = 1e-6
#: Of Algorithm 1, and of OW-QMIX's weights.
W_MIN = 0.1
#: Weights move by this share towards those that belong to their Q_k, so many times.
RATE, ROUNDS = 0.1, 300
LEARNING_RATE = 0.3

UNIFORM, PRINTED, ALGORITHM_1 = "uniform", "theorem 1", "Algorithm 1"
OPTIMISTIC, OPTIMAL = "OW-QMIX", "least regret"
KINDS = (UNIFORM, OPTIMISTIC, PRINTED, ALGORITHM_1, OPTIMAL)


class Projection(NamedTuple):
    """Of one kind of weights in each game."""

    weights: jax.Array  # (games, A_1, ..., A_n), the sum of which is 1
    q_k: jax.Array  # the same shape
    regret: jax.Array  # (games,)
    greedy: jax.Array  # (games,) bool, whether the greedy joint action is optimal
    residual: (
        jax.Array
    )  # (games,), how far the weights are from settled; of the least regret, see `_minimised`


def one_state_regret(q_star: jax.Array, q_k: jax.Array) -> jax.Array:
    """E Q* under the Boltzmann policy of Q* minus that of Q_k, `()`; γ = 0."""
    best, policy = jax.nn.softmax(q_star, axis=None), jax.nn.softmax(q_k, axis=None)
    return jnp.sum((best - policy) * q_star)


def _normalised(weights: jax.Array) -> jax.Array:
    """Weights from `LEAST` times the largest on, the sum of which is 1; uniform if none is above 0."""
    largest = jnp.max(weights)
    floored = jnp.where(largest > 0, jnp.maximum(weights / jnp.where(largest > 0, largest, 1), LEAST), 1.0)
    return floored / jnp.sum(floored)


def printed(q_star: jax.Array, q_k: jax.Array) -> jax.Array:
    """Theorem 1's weights that go with this Q_k, of the payoff's shape."""
    return _normalised(printed_weights(q_star, q_k))


def _algorithm_1(q_star: jax.Array, q_k: jax.Array) -> jax.Array:
    """Weights spread over [.1, 1]; half of the data uniform, half drawn by the current policy."""
    policy = jax.nn.softmax(q_k, axis=None)
    chosen = agents_probabilities(policy).reshape(policy.ndim, -1).T  # (J, n)
    flat, target = q_k.ravel(), q_star.ravel()
    raw = jax.vmap(remix_weight)(flat, target, target, chosen, jnp.ones_like(chosen))
    spread = min_max_weights(raw, jnp.ones_like(raw), W_MIN).reshape(policy.shape)
    return _normalised((1 / policy.size + policy) / 2 * spread)


def _optimistic(q_star: jax.Array, q_k: jax.Array) -> jax.Array:
    weights = jax.vmap(lambda q, y: optimistic_weight(q, y, W_MIN))(q_k.ravel(), q_star.ravel())
    return _normalised(weights.reshape(q_k.shape))


def _uniform(q_star: jax.Array, q_k: jax.Array) -> jax.Array:
    return jnp.full_like(q_star, 1 / q_star.size)


_RULES = {UNIFORM: _uniform, OPTIMISTIC: _optimistic, PRINTED: printed, ALGORITHM_1: _algorithm_1}
_Rule = Callable[[jax.Array, jax.Array], jax.Array]


def settled(rule: _Rule, q_star: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Weights that belong to their own Q_k, as training would find them, and how far they are from it."""

    def towards(_: int, p: jax.Array) -> jax.Array:
        return p + RATE * (rule(q_star, fitted(q_star, p)) - p)

    p = jax.lax.fori_loop(0, ROUNDS, towards, jnp.full_like(q_star, 1 / q_star.size))
    return p, jnp.sum(jnp.abs(rule(q_star, fitted(q_star, p)) - p)) / 2


def _minimised(
    q_star: jax.Array, starts: jax.Array, others: jax.Array, steps: int
) -> tuple[jax.Array, jax.Array]:
    """The weights of least regret from `starts (K, A_1, ..., A_n)` by Adam, or of the `others`.

    The second result is by how much Adam misses the best of the others, 0 if it is at least as good.
    """
    adam = optax.adam(optax.cosine_decay_schedule(LEARNING_RATE, steps))

    def weights_of(free: jax.Array) -> jax.Array:
        return jax.nn.softmax(np.log(LEAST) * jax.nn.sigmoid(free), axis=None)

    def value(free: jax.Array) -> jax.Array:
        return one_state_regret(q_star, fitted(q_star, weights_of(free)))

    def descend(free: jax.Array) -> jax.Array:
        def step(
            state: tuple[jax.Array, optax.OptState], _: None
        ) -> tuple[tuple[jax.Array, optax.OptState], None]:
            free, moments = state
            updates, moments = adam.update(jax.grad(value)(free), moments)
            return (free + updates, moments), None

        return jax.lax.scan(step, (free, adam.init(free)), length=steps)[0][0]

    def regret_of(p: jax.Array) -> jax.Array:
        return one_state_regret(q_star, fitted(q_star, p))

    ends = jax.vmap(lambda free: weights_of(descend(free)))(starts)
    found, known = jax.vmap(regret_of)(ends), jax.vmap(regret_of)(others)
    best = jnp.argmin(jnp.concatenate([found, known]))
    return jnp.concatenate([ends, others])[best], jnp.maximum(jnp.min(found) - jnp.min(known), 0)


def compare(payoffs: np.ndarray, starts: int, steps: int) -> dict[str, Projection]:
    """Every kind of weights in games `(games, A_1, ..., A_n)`; to be called in float64."""
    draw = np.random.default_rng((SEED, 9, *payoffs.shape[1:]))
    first = 2 * draw.normal(size=(len(payoffs), starts, *payoffs.shape[1:]))
    first[:, 0] = 0
    # The second start has most weight on the optimal joint action and on those in which one agent leaves it,
    # where an additive Q_k can be exact.
    best = payoffs.reshape(len(payoffs), -1).argmax(axis=1)
    apart = np.indices(payoffs.shape[1:])[:, None] != np.asarray(
        np.unravel_index(best, payoffs.shape[1:])
    ).reshape(-1, len(payoffs), *(1,) * (payoffs.ndim - 1))
    first[:, 1] = np.where(apart.sum(axis=0) <= 1, -2, 2)

    def work(q_star: jax.Array, first: jax.Array) -> dict[str, Projection]:
        found = {name: settled(rule, q_star) for name, rule in _RULES.items()}
        others = jnp.stack([weights for weights, _ in found.values()])
        found[OPTIMAL] = _minimised(q_star, first, others, steps)

        def of(p: jax.Array, residual: jax.Array) -> Projection:
            q_k = fitted(q_star, p)
            greedy = q_star.ravel()[jnp.argmax(q_k)] == jnp.max(q_star)
            return Projection(p, q_k, one_state_regret(q_star, q_k), greedy, residual)

        return {name: of(*each) for name, each in found.items()}

    return over_games(work, payoffs, first)  # type: ignore[no-any-return]


def random_payoffs(games: int, *counts: int) -> np.ndarray:
    """`(games, A_1, ..., A_n)`, 5 times standard normal."""
    return 5 * np.random.default_rng((SEED, 10, *counts)).normal(size=(games, *counts))


def saved(found: dict[str, Projection], kind: str) -> np.ndarray:
    """The share `(games,)` of what uniform weights leave of regret beyond the least that this kind avoids."""
    least, most = found[OPTIMAL].regret, found[UNIFORM].regret
    return np.asarray((most - found[kind].regret) / np.maximum(most - least, 1e-12))
