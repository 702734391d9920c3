import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmarl_fac.soft import operators, sampling
from tests.engine.soft.games import both_ways, jitted, random_game, random_prior

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize(
    "logits",
    [
        [0.3, -1.2, 0.5, -1e9, -1e9],
        pytest.param([200.0, 0.0, -1.0, -1e9, -1e9], marks=pytest.mark.slow),
        [0.0, -90.0, 300.0, -1e9, -1e9],
    ],
)
def test_the_gradient_of_soft_value_is_that_of_the_actions_that_can_be_played(logits):
    """With masked actions, and with probabilities that underflow to 0."""
    q = jnp.asarray([1.0, 2.0, -1.0, 7.0, 7.0])

    def value(logits, q):
        return sampling.soft_value(q, jax.nn.softmax(logits), 0.5)

    gradient = jax.grad(value)(jnp.asarray(logits), q)
    alone = jax.grad(value)(jnp.asarray(logits[:3]), q[:3])
    with jax.enable_x64(True):
        exact = np.asarray(logits[:3], np.float64)
        policy = np.exp(exact - exact.max()) / np.exp(exact - exact.max()).sum()
        advantage = np.asarray(q[:3], np.float64) - 0.5 * np.log(np.maximum(policy, 1e-300))
        expected = policy * (advantage - policy @ advantage)
    np.testing.assert_allclose(gradient[:3], alone, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(gradient[:3], expected, rtol=1e-4, atol=1e-6)
    assert gradient[3:].tolist() == [0, 0]


# One agent.


@both_ways
def test_soft_value_of_sac_discrete(run):
    policy = run(lambda q: operators.tilted_policy(q, 1 / 2, 1.0), [1.0, 2.0])
    np.testing.assert_allclose(policy, [0.268941, 0.731059], atol=1e-6)
    np.testing.assert_allclose(run(sampling.soft_value, [1.0, 2.0], policy, 1.0), 2.313262, atol=1e-6)
    # A policy that never plays an action has no trouble with its logarithm.
    np.testing.assert_allclose(run(sampling.soft_value, [1.0, 2.0], [0.0, 1.0], 1.0), 2, atol=1e-12)


def test_sampled_soft_value_is_exact_for_an_ideal_proposal():
    # Drawn from w ∝ e^q P, every sample tells the whole of V.
    q, prior = jnp.asarray(random_game(1, (5,))), jnp.asarray(random_prior(1, (5,)))
    value = jitted(operators.log_mean_exp)(q, prior, 1.0)
    proposal = np.log(jitted(operators.tilted_policy)(q, prior, 1.0))
    drawn = np.array([0, 3, 3, 1])
    ours = jitted(sampling.sampled_soft_value)(q[drawn], proposal[drawn], np.log(prior)[drawn])
    np.testing.assert_allclose(ours, value, rtol=1e-12)


@both_ways
def test_uniform_soft_value_counts_the_volume(run):
    value = run(lambda q: sampling.uniform_soft_value(q, dimensions=2), [1.0, 2.0, 3.0])
    np.testing.assert_allclose(value, math.log(4 * (math.e + math.e**2 + math.e**3) / 3), rtol=1e-12)


@both_ways
def test_svgd_on_two_particles(run):
    particles = np.array([[-1.0], [1.0]])
    direction = run(sampling.svgd_direction, particles, -particles, 2.0)
    np.testing.assert_allclose(direction, [[0.296997], [-0.296997]], atol=1e-6)


def test_svgd_with_one_particle_climbs_the_gradient():
    score = jnp.array([[0.3, -2.0]])
    np.testing.assert_allclose(
        sampling.svgd_direction(jnp.array([[4.0, 1.0]]), score, 0.1), score, rtol=1e-12
    )


def test_svgd_at_other_points():
    # One particle at 0 with score 3, seen from 2: k = e^{-4/h}, and it pushes away by 2 (2 - 0)/h k.
    ours = sampling.svgd_direction(
        jnp.zeros((1, 1)), jnp.full((1, 1), 3.0), 8.0, at=jnp.array([[2.0], [0.0]])
    )
    np.testing.assert_allclose(ours, [[math.exp(-0.5) * 3.5], [3.0]], rtol=1e-12)


def test_svgd_finds_a_gaussian():
    def score(particles):
        return -(particles - 2.0) / 0.25

    def step(particles, _):
        direction = sampling.svgd_direction(particles, score(particles), sampling.median_bandwidth(particles))
        return particles + 0.05 * direction, None

    particles, _ = jax.lax.scan(step, jnp.linspace(-1.0, 1.0, 30)[:, None], None, length=500)
    np.testing.assert_allclose(particles.mean(), 2.0, atol=0.01)
    np.testing.assert_allclose(particles.std(), 0.5, atol=0.05)


def test_median_bandwidth():
    # Distances of the pairs: 1, 2 and 3.
    ours = jitted(sampling.median_bandwidth)(jnp.array([[0.0], [1.0], [3.0]]))
    np.testing.assert_allclose(ours, 4 / math.log(3), rtol=1e-12)
    assert jitted(sampling.median_bandwidth)(jnp.zeros((4, 2))) > 0
    assert sampling.median_bandwidth(jnp.zeros((1, 2))) == 1
