"""Losses of regularised values and policies, by worked numbers and at their minima."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxmarl_fac.soft.losses import regularised_value, soft_policy_loss, soft_q_loss, soft_value_loss
from jaxmarl_fac.soft.operators import log_mean_exp, tilted_policy

#: v = (0, log 7) under two options: V^H = log 4 and π^H = (1/8, 7/8).
VALUES = jnp.asarray([0.0, jnp.log(7)])
UNIFORM = jnp.log(jnp.asarray([0.5, 0.5]))
BEST = jnp.log(jnp.asarray([0.125, 0.875]))


def test_worked_numbers():
    assert float(regularised_value(VALUES, BEST, UNIFORM)) == pytest.approx(1.386294, abs=1e-5)
    half = float(jnp.log(7)) / 2
    assert float(regularised_value(VALUES, UNIFORM, UNIFORM)) == pytest.approx(half, abs=1e-6)
    loss = soft_value_loss(jnp.float32(3.0), VALUES, BEST, UNIFORM)
    assert float(loss) == pytest.approx((3 - 1.386294) ** 2 / 2, abs=1e-5)
    # KL(uniform || best) = .5 log(.5/.125) + .5 log(.5/.875)
    kl = soft_policy_loss(jnp.log(4.0), VALUES, UNIFORM, UNIFORM)
    assert float(kl) == pytest.approx(0.5 * np.log(4) + 0.5 * np.log(4 / 7), abs=1e-6)
    assert float(soft_policy_loss(jnp.log(4.0), VALUES, BEST, UNIFORM)) == pytest.approx(0, abs=1e-6)
    assert float(soft_q_loss(jnp.float32(3.0), jnp.float32(1.0))) == 2


def test_what_has_probability_0_takes_no_part():
    """Also in the gradient, which is finite."""
    prior = jnp.asarray([0.5, 0.5, 0.0])
    values = jnp.asarray([1.0, 2.0, 50.0])
    log_prior = jnp.where(prior > 0, jnp.log(jnp.where(prior > 0, prior, 1)), -1e9)

    def loss(logits):
        logs = jax.nn.log_softmax(logits + log_prior)
        return soft_policy_loss(jnp.float32(0), values, logs, log_prior)

    logits = jnp.asarray([0.3, -0.2, 4.0])
    without = jax.value_and_grad(lambda two: loss(jnp.append(two, 0.0)))(logits[:2])
    value, slope = jax.value_and_grad(loss)(logits)
    np.testing.assert_allclose(value, without[0], rtol=1e-6)
    np.testing.assert_allclose(slope, [*without[1], 0], atol=1e-6)


@pytest.mark.slow
@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), size=st.integers(2, 5))
def test_the_minima_are_the_soft_backup(seed, size):
    """Of the policy's loss the tilted prior, where it is 0, and of the value's loss the log-mean-exp."""
    rng = np.random.default_rng(seed)
    values = jnp.asarray(rng.normal(size=size), jnp.float32)
    prior = jnp.asarray(rng.dirichlet(np.ones(size)) * 0.9 + 0.1 / size, jnp.float32)
    value, policy = log_mean_exp(values, prior, 1.0), tilted_policy(values, prior, 1.0)
    log_prior = jnp.log(prior)

    def losses(value, logits):
        logs = jax.nn.log_softmax(logits)
        return soft_value_loss(value, values, logs, log_prior), soft_policy_loss(
            value, values, logs, log_prior
        )

    np.testing.assert_allclose(losses(value, jnp.log(policy)), 0, atol=2e-6)
    slopes = jax.jacrev(losses, argnums=(0, 1))(value, jnp.log(policy))
    np.testing.assert_allclose(
        np.concatenate([np.ravel(each) for pair in slopes for each in pair]), 0, atol=2e-6
    )
    other = jnp.asarray(rng.normal(size=size), jnp.float32)
    assert float(losses(value, other)[1]) >= -1e-5


def test_each_loss_teaches_one_thing():
    def total(value, values, logits, target):
        logs = jax.nn.log_softmax(logits)
        return {
            "value": soft_value_loss(value, values, logs, UNIFORM),
            "policy": soft_policy_loss(value, values, logs, UNIFORM),
            "q": soft_q_loss(value, target),
        }

    given_ = (jnp.float32(1.0), VALUES, jnp.asarray([0.2, -0.3]), jnp.float32(2.0))
    slopes = jax.jacrev(total, argnums=(0, 1, 2, 3))(*given_)
    taught = {name: [bool(jnp.any(each != 0)) for each in slopes[name]] for name in slopes}
    assert taught == {
        "value": [True, False, False, False],
        "policy": [False, False, True, False],
        "q": [True, False, False, False],
    }


def test_shapes_and_types_are_checked():
    with pytest.raises(AssertionError):
        regularised_value(VALUES, BEST[:1], UNIFORM)
    with pytest.raises(AssertionError):
        soft_value_loss(VALUES, VALUES, BEST, UNIFORM)
    with pytest.raises(AssertionError):
        soft_q_loss(jnp.zeros(2), jnp.zeros(3))
    with pytest.raises(AssertionError):
        soft_q_loss(jnp.zeros(2, int), jnp.zeros(2, int))
    chex.assert_shape(regularised_value(jnp.zeros((3, 2)), jnp.zeros((3, 2)), jnp.zeros((3, 2))), (3,))
