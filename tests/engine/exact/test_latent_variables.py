import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmarl_fac.exact.latent_variables import (
    Coins,
    coins_em,
    coins_log_joint,
    coins_m_step,
    elbo,
    log_evidence,
    posterior,
    posterior_gap,
)

pytestmark = pytest.mark.usefixtures("float64")

HEADS = np.asarray([5.0, 9, 8, 4, 7])
COINS = Coins(HEADS, 10 - HEADS, np.full(2, 0.5))
FIRST = np.asarray([0.6, 0.5])


evidence_of = jax.jit(jax.vmap(lambda chances: log_evidence(coins_log_joint(COINS, chances))))


def evidence_at(chances):
    return float(evidence_of(chances[None])[0])


def test_two_coins():
    """Do and Batzoglou's example: after one step, and in the limit."""
    chances = jax.jit(lambda: coins_em(COINS, FIRST, 300))()
    np.testing.assert_allclose(chances[1], [0.713012, 0.581339], atol=1e-6)
    np.testing.assert_allclose(chances[-1], [0.796789, 0.519583], atol=1e-6)
    assert evidence_at(FIRST) == pytest.approx(-33.093863, abs=1e-6)
    assert evidence_at(chances[-1]) == pytest.approx(-31.570200, abs=1e-6)
    assert (np.diff(evidence_of(chances[:40])) >= -1e-12).all()


def test_elbo_and_gap_are_the_evidence():
    rng = np.random.default_rng(0)
    log_joints, q = np.log(rng.random((20, 4, 3))), rng.dirichlet(np.ones(3), (20, 4))
    of_both = jax.jit(jax.vmap(lambda log_joint, q: (elbo(log_joint, q), posterior_gap(log_joint, q))))
    evidence = jax.jit(jax.vmap(log_evidence))(log_joints)
    bound, gap = of_both(log_joints, q)
    np.testing.assert_allclose(bound + gap, evidence, atol=1e-12)
    assert (np.asarray(gap) > 0).all()
    bound, gap = of_both(log_joints, jax.jit(jax.vmap(posterior))(log_joints))
    np.testing.assert_allclose(bound, evidence, atol=1e-12)
    np.testing.assert_allclose(gap, 0, atol=1e-12)
    sure = jnp.asarray([[1.0, 0], [0, 1.0]])  # q may be 0
    assert float(elbo(jnp.log(jnp.full((2, 2), 0.25)), sure)) == pytest.approx(2 * math.log(0.25), abs=1e-12)


def test_evidence_by_enumeration():
    """The sum over all 2^5 assignments of coins to rounds."""
    total = 0.0
    for assignment in itertools.product(range(2), repeat=5):
        chance = 1.0
        for round_number, coin in enumerate(assignment):
            p, heads = float(FIRST[coin]), float(HEADS[round_number])
            chance *= 0.5 * p**heads * (1 - p) ** (10 - heads)
        total += chance
    assert evidence_at(FIRST) == pytest.approx(math.log(total), abs=1e-12)


def test_m_step_is_the_best_of_a_grid():
    q = posterior(coins_log_joint(COINS, FIRST))
    best = coins_m_step(COINS, q)
    line = np.linspace(0.05, 0.95, 19)
    tried = np.concatenate([[best], np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)])
    values = jax.jit(jax.vmap(lambda chances: elbo(coins_log_joint(COINS, chances), q)))(tried)
    assert int(np.argmax(values)) == 0
