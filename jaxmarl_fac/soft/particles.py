"""Particle filters as pure functions: K hypotheses of what is hidden, moved, weighed and resampled.

A particle is any tree: a state of a chain, or the hidden state of a network with a latent (variational
sequential Monte Carlo: Maddison et al., Naesseth et al. and Le et al., 2017/18; deep variational
reinforcement learning: Igl et al., 2018). All functions are of one filter; callers vmap over lanes.
"""

import math
from typing import Any, NamedTuple, Protocol

import chex
import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp

from envs.memory import check_fits
from jaxmarl_fac.exact.joint import check_count
from jaxmarl_fac.soft.belief import Chain, with_prior


class Particles(NamedTuple):
    """K weighted hypotheses."""

    state: Any  # (K, ...)
    log_weight: jax.Array  # (K,), normalised


class Moved(NamedTuple):
    """One particle after a step."""

    state: Any
    log_weight: jax.Array  # (), log p(z|h, a) + log p(o|h, z, a) - log q(z|h, a, o)
    log_proposal: jax.Array  # (), log q of what was drawn; 0 where the draw is reparametrised


class Extend(Protocol):
    """Draw one particle's next latent from the proposal and weigh it, given what is observed."""

    def __call__(self, key: jax.Array, state: Any, inputs: Any) -> Moved: ...


class Step(NamedTuple):
    """What one step of a filter tells."""

    log_evidence: jax.Array  # (), an estimate of log p(o_t|o_{<t}); their sum is the bound on the evidence
    log_proposal: jax.Array  # (K,)
    ancestors: jax.Array  # (K,) int32


def start(state: Any, particles: int, dtype: Any = float) -> Particles:
    """K particles in the same state, with equal weights of a dtype.

    Raises:
        BadInputError: for no particle, or more of them than fit into memory.
    """
    check_count(particles, "particles")
    one = jax.eval_shape(lambda: Particles(jax.tree.map(jnp.asarray, state), jnp.zeros((), dtype)))
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(one))
    check_fits(particles * size, f"{particles:,} particles")
    spread = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (particles, *jnp.shape(leaf))), state)
    return Particles(spread, jnp.full((particles,), -math.log(particles), dtype))


def resample(key: jax.Array, log_weight: jax.Array) -> jax.Array:
    """Ancestors `(K,)` int32, each drawn by the weights `(K,)`: particle k has K w_k children on average.

    By the inverse of the cumulated weights, since a categorical draw of each would take K^2 numbers.
    """
    chex.assert_rank(log_weight, 1)
    count = log_weight.shape[0]
    cumulative = jnp.cumsum(jnp.exp(log_weight - jnp.max(log_weight)))
    draws = jax.random.uniform(key, (count,), cumulative.dtype) * cumulative[-1]
    ancestors = jnp.searchsorted(cumulative, draws, side="right")
    return jnp.minimum(ancestors, count - 1).astype(jnp.int32)


def advance(
    particles: Particles, key: jax.Array, extend: Extend, inputs: Any, *, resampling: bool = True
) -> tuple[Particles, Step]:
    """One step: resample, extend, weigh (thesis, equation 5.4).

    No gradient passes through the choice of ancestors, which makes the bound's gradient biased; with
    `resampling` off weights accumulate instead, the sum of the steps' evidence is the importance-weighted
    bound `log (1/K) Σ_k Π_t w_t^k`, and nothing is left out. If every weight is 0 they are equal again.
    """
    count = particles.log_weight.shape[0]
    resample_key, extend_key = jax.random.split(key)
    equal = jnp.full_like(particles.log_weight, -math.log(count))
    if resampling:
        ancestors = resample(resample_key, jax.lax.stop_gradient(particles.log_weight))
        particles = Particles(jax.tree.map(lambda leaf: leaf[ancestors], particles.state), equal)
    else:
        ancestors = jnp.arange(count, dtype=jnp.int32)
    moved = jax.vmap(extend, (0, 0, None))(jax.random.split(extend_key, count), particles.state, inputs)
    log_weight = particles.log_weight + moved.log_weight
    evidence = logsumexp(log_weight)
    normalised = jnp.where(evidence > -jnp.inf, log_weight - evidence, equal)
    return Particles(moved.state, normalised), Step(evidence, moved.log_proposal, ancestors)


def run(
    particles: Particles, key: jax.Array, extend: Extend, inputs: Any, *, resampling: bool = True
) -> tuple[Particles, Step]:
    """All T steps of `inputs (T, ...)`: particles `(T, K, ...)` after each, and what they told `(T, ...)`."""

    def step(particles: Particles, at: tuple[jax.Array, Any]) -> tuple[Particles, tuple[Particles, Step]]:
        particles, told = advance(particles, at[0], extend, at[1], resampling=resampling)
        return particles, (particles, told)

    keys = jax.random.split(key, jax.tree.leaves(inputs)[0].shape[0])
    return jax.lax.scan(step, particles, (keys, inputs))[1]


def elbo(told: Step) -> jax.Array:
    """The bound `Σ_t log (1/K) Σ_k w_t^k`, `()`, to be maximised; with a gradient for draws that have none.

    To it is added the score of what was drawn times the bound, 0 in value, for draws that are not
    reparametrised. With resampling off the gradient is unbiased, of model and proposal alike.
    """
    bound, score = jnp.sum(told.log_evidence), jnp.sum(told.log_proposal)
    return bound + jax.lax.stop_gradient(bound) * (score - jax.lax.stop_gradient(score))


def posterior(particles: Particles, num_states: int) -> jax.Array:
    """The weight of each state `(S,)` of particles whose states are numbers `(K,)`."""
    chex.assert_equal_shape([particles.state, particles.log_weight])
    weights = jnp.exp(particles.log_weight)
    return jnp.zeros((num_states,), weights.dtype).at[particles.state].add(weights)


# Particles of a finite chain


class ChainStep(NamedTuple):
    """What `extend_chain` is given at one step; all steps have a leading axis `(T,)`."""

    transition: jax.Array  # (S, S)
    likelihood: jax.Array  # (S,)
    proposal: jax.Array  # (S, S), q(z_t|z_{t-1}) with what was observed


def chain_steps(chain: Chain, proposal: jax.Array | None = None) -> ChainStep:
    """The inputs of `run` for a chain; the proposal `(T, S, S)` is the chain's own moves if None."""
    moves = with_prior(chain)
    return ChainStep(moves, chain.likelihood, moves if proposal is None else proposal)


def extend_chain(key: jax.Array, state: jax.Array, inputs: ChainStep) -> Moved:
    """Move a particle whose state is a number `()`, by a proposal that is a table."""
    row = inputs.proposal[state]  # (S,)
    cumulative = jnp.cumsum(row)
    draw = jax.random.uniform(key, (), row.dtype) * cumulative[-1]
    drawn = jnp.minimum(jnp.sum(cumulative <= draw), row.shape[0] - 1).astype(state.dtype)
    drawn = jax.lax.stop_gradient(drawn)
    log_q = jnp.log(row[drawn])
    log_p = jnp.log(inputs.transition[state, drawn]) + jnp.log(inputs.likelihood[drawn])
    return Moved(drawn, log_p - log_q, log_q)


def filter_chain(
    key: jax.Array,
    chain: Chain,
    particles: int,
    proposal: jax.Array | None = None,
    *,
    resampling: bool = True,
) -> tuple[Particles, Step]:
    """Filter a chain by K particles: see `run`.

    Args:
        key: of all draws.
        chain: with what was observed of it.
        particles: K.
        proposal: `(T, S, S)`; the chain's own moves (a bootstrap filter) if None.
        resampling: see `advance`.

    Raises:
        BadInputError: for no particle.
    """
    states = start(jnp.zeros((), jnp.int32), particles)
    return run(states, key, extend_chain, chain_steps(chain, proposal), resampling=resampling)
