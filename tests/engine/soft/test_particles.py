import functools
import math
import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.team_pomdp import hidden_chain, private_cards, tiger
from jaxmarl_fac.soft import belief, particles
from jaxmarl_fac.soft.belief import Chain
from jaxmarl_fac.soft.particles import Moved, Particles

pytestmark = pytest.mark.usefixtures("float64")

#: The prior, the moves and the odds of seeing 1, 1, 0 of a small chain.
PRIOR, MOVES = np.array([0.5, 0.5]), np.array([[0.9, 0.1], [0.2, 0.8]])
SEEN = np.array([[0.3, 0.9], [0.3, 0.9], [0.7, 0.1]])
EVIDENCE = math.log(0.6 * 0.675 * 0.29)


def weather():
    return Chain(jnp.asarray(PRIOR), jnp.asarray(np.stack([MOVES, MOVES])), jnp.asarray(SEEN))


def heard_tiger():
    model = tiger().hidden_model()
    return belief.chain_of(model, jnp.zeros((3, 1), int), jnp.zeros(4, int), jnp.array([[0], [1], [1], [2]]))


def told_cards():
    soft = jnp.array([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7]])
    model = private_cards().hidden_model()
    policies = (soft[None], jnp.ones((1, 2, 3)))
    return belief.public_chain_of(model, policies, jnp.array([[0, 0]]), jnp.array([0]))


@pytest.mark.parametrize(
    ("chain_of", "deviation"), [(weather, None), (heard_tiger, 0.0285), (told_cards, None)]
)
def test_a_thousand_particles_are_near_bayes(chain_of, deviation):
    """200 filters: errors of the last belief are below .05 in the mean, and there is no bias.

    The tiger never moves, so that only the draws of ancestors err. The odds of the two sides have relative
    deviations of 1 / sqrt(1000 p (1 - p)) at each, with p = .5 twice, .15 and .0302: .224 together, which is
    .85 * .15 * .224 = .0285 of a probability.
    """
    chain = chain_of()
    exact = belief.bayes_filter(chain)
    states = chain.prior.shape[0]

    def last(key):
        clouds, told = particles.filter_chain(key, chain, 1000)
        end = jax.tree.map(operator.itemgetter(-1), clouds)
        return particles.posterior(end, states), jnp.sum(told.log_evidence)

    found, evidence = jax.jit(jax.vmap(last))(jax.random.split(jax.random.key(0), 200))
    errors = np.abs(np.asarray(found) - exact.belief[-1]).max(1)
    assert errors.mean() < 0.05
    if deviation:
        assert abs(np.std(found[:, 0]) / deviation - 1) < 0.2  # four standard errors of 200 filters
    else:
        assert np.quantile(errors, 0.95) < 0.05
    np.testing.assert_allclose(np.mean(found, axis=0), exact.belief[-1], atol=0.01)
    np.testing.assert_allclose(np.sum(found, axis=1), 1, rtol=1e-9)
    assert abs(float(np.mean(evidence)) - float(exact.log_evidence.sum())) < 0.01


def test_resampling_is_unbiased():
    """100,000 draws of 4 ancestors: the standard error of a share is at most .0008."""
    weights = np.array([0.1, 0.5, 0.0, 0.4])
    draw = jax.jit(jax.vmap(lambda key: particles.resample(key, jnp.log(weights))))
    ancestors = np.asarray(draw(jax.random.split(jax.random.key(1), 100_000)))
    counts = np.stack([(ancestors == k).sum(1) for k in range(4)], axis=1)
    np.testing.assert_allclose(counts.mean(0) / 4, weights, atol=0.004)
    assert counts[:, 2].sum() == 0  # no child of a particle without weight
    np.testing.assert_allclose(counts.var(0), 4 * weights * (1 - weights), atol=0.03)  # multinomial
    # Whatever the weights sum to.
    np.testing.assert_array_equal(
        particles.resample(jax.random.key(3), jnp.log(weights)),
        particles.resample(jax.random.key(3), jnp.log(weights) - 1000),
    )


def test_the_evidence_is_unbiased_with_and_without_resampling():
    """E of the estimate of p(o) is p(o) for any K; 40,000 filters of two particles."""
    keys = jax.random.split(jax.random.key(2), 40_000)
    for resampling in (True, False):
        run = jax.jit(
            jax.vmap(
                lambda key, resampling=resampling: jnp.sum(
                    particles.filter_chain(key, weather(), 2, resampling=resampling)[1].log_evidence
                )
            )
        )
        estimates = np.exp(np.asarray(run(keys)))
        error = estimates.std() / math.sqrt(len(keys))
        assert abs(estimates.mean() - math.exp(EVIDENCE)) < 4 * error


def test_the_bound_without_resampling_is_the_enumerated_one():
    """20,000 filters of K = 1 and 3 against the exact importance-weighted bounds of paths."""
    chain = weather()
    moves = belief.with_prior(chain)
    paths = belief.enumerate_paths(chain, moves)
    keys = jax.random.split(jax.random.key(4), 20_000)
    for count in (1, 3):
        run = jax.jit(
            jax.vmap(
                lambda key, count=count: jnp.sum(
                    particles.filter_chain(key, chain, count, resampling=False)[1].log_evidence
                )
            )
        )
        bounds = np.asarray(run(keys))
        exact = float(belief.iwae_bound(paths.log_weight, paths.proposal, count))
        assert abs(bounds.mean() - exact) < 4 * bounds.std() / math.sqrt(len(keys))
        assert exact < EVIDENCE


def test_the_bound_is_the_evidence_at_the_exact_proposal():
    chain = weather()
    proposal = belief.smoothing_proposal(chain)
    run = jax.jit(jax.vmap(lambda key: particles.filter_chain(key, chain, 5, proposal, resampling=False)[1]))
    told = run(jax.random.split(jax.random.key(5), 100))
    np.testing.assert_allclose(told.log_evidence.sum(1), EVIDENCE, atol=1e-9)


def tables(theta):
    """A chain and a proposal by logits: the prior, the moves, the odds of what was seen, and q."""
    odds = jax.nn.sigmoid(theta[6:8])  # of seeing 1
    likelihood = jnp.stack([odds, odds, 1 - odds])
    moves = jax.nn.softmax(theta[2:6].reshape(2, 2))
    chain = Chain(jax.nn.softmax(theta[:2]), jnp.stack([moves, moves]), likelihood)
    return chain, jax.nn.softmax(theta[8:].reshape(3, 2, 2))


THETA = np.random.default_rng(0).normal(size=20)


def bound_of(theta, count):
    """The exact bound, by enumeration."""
    paths = belief.enumerate_paths(*tables(theta))
    return belief.iwae_bound(paths.log_weight, paths.proposal, count)


def test_the_gradient_by_the_model_is_that_of_finite_differences():
    """Draw by draw, as the draws do not depend on the model's parameters."""

    @functools.partial(jax.jit, static_argnames="count")
    def bound(model, key, count):
        theta = jnp.concatenate([model, THETA[8:]])
        chain, proposal = tables(theta)
        return jnp.sum(particles.filter_chain(key, chain, count, proposal, resampling=False)[1].log_evidence)

    key, width = jax.random.key(0), 1e-6
    gradient = jax.grad(bound)(jnp.asarray(THETA[:8]), key, 4)
    differences = [
        (bound(THETA[:8] + width * unit, key, 4) - bound(THETA[:8] - width * unit, key, 4)) / (2 * width)
        for unit in np.eye(8)
    ]
    np.testing.assert_allclose(gradient, differences, atol=1e-7)
    assert np.abs(gradient).max() > 0.1


def test_the_gradient_of_the_bound_by_all_parameters_is_unbiased():
    """The mean of 40,000 gradients against finite differences of the enumerated bound, resampling off."""
    count, width = 2, 1e-5
    exact = jax.jit(functools.partial(bound_of, count=count))
    differences = np.array(
        [(exact(THETA + width * unit) - exact(THETA - width * unit)) / (2 * width) for unit in np.eye(20)]
    )

    def sampled(theta, key):
        chain, proposal = tables(theta)
        return particles.elbo(particles.filter_chain(key, chain, count, proposal, resampling=False)[1])

    gradients = jax.jit(jax.vmap(jax.value_and_grad(sampled), (None, 0)))
    values, found = gradients(jnp.asarray(THETA), jax.random.split(jax.random.key(6), 40_000))
    error = np.asarray(found).std(0) / math.sqrt(len(found))
    assert (np.abs(np.mean(found, axis=0) - differences) < 4 * error + 1e-9).all()
    assert abs(float(values.mean()) - float(exact(THETA))) < 4 * float(values.std()) / math.sqrt(len(values))
    assert np.abs(differences[8:]).max() > 0.05  # the proposal counts


def test_particles_of_one_lane_never_touch_another():
    """Every particle carries its lane's number, and a lane is the same whoever runs beside it."""

    def extend(key, state, inputs):
        moved = extended(key, state["chain"], inputs)
        return moved._replace(state={"chain": moved.state, "lane": state["lane"]})

    extended = particles.extend_chain
    steps = particles.chain_steps(weather())

    def lane(number, key):
        cloud = particles.start({"chain": jnp.int32(0), "lane": number}, 50)
        return particles.run(cloud, key, extend, steps)

    lanes, keys = jnp.arange(4), jax.random.split(jax.random.key(0), 4)
    clouds, told = jax.jit(jax.vmap(lane))(lanes, keys)
    assert (np.asarray(clouds.state["lane"]) == np.arange(4)[:, None, None]).all()
    assert (np.asarray(told.ancestors) < 50).all()
    others = keys.at[1:].set(jax.random.split(jax.random.key(9), 3))
    again, told_again = jax.jit(jax.vmap(lane))(lanes, others)
    np.testing.assert_array_equal(clouds.state["chain"][0], again.state["chain"][0])
    np.testing.assert_array_equal(told.log_evidence[0], told_again.log_evidence[0])
    assert (clouds.state["chain"][1:] != again.state["chain"][1:]).any()


def test_one_step_by_hand():
    """Two particles at weights (1/4, 3/4) without resampling; then the second weighs 6 times the first."""
    cloud = Particles(jnp.array([1.0, 2.0]), jnp.log(jnp.array([0.25, 0.75])))

    def extend(key, state, inputs):
        return Moved(state + inputs, jnp.log(state * inputs), jnp.zeros(()))

    after, told = particles.advance(cloud, jax.random.key(0), extend, 10.0, resampling=False)
    np.testing.assert_allclose(after.state, [11, 12])
    np.testing.assert_allclose(np.exp(after.log_weight), [2.5 / 17.5, 15 / 17.5])
    assert float(told.log_evidence) == pytest.approx(math.log(17.5))
    assert told.ancestors.tolist() == [0, 1]
    np.testing.assert_allclose(particles.posterior(after._replace(state=jnp.array([2, 2])), 3), [0, 0, 1])


def test_particles_without_any_weight_are_equal_again():
    cloud = particles.start(jnp.zeros(()), 3)

    def impossible(key, state, inputs):
        return Moved(state, -jnp.inf, jnp.zeros(()))

    after, told = particles.advance(cloud, jax.random.key(0), impossible, 0.0)
    np.testing.assert_allclose(np.exp(after.log_weight), 1 / 3)
    assert float(told.log_evidence) == -math.inf


def test_no_particles(bad_input):
    with bad_input("particles must be at least 1, not 0"):
        particles.filter_chain(jax.random.key(0), weather(), 0)
    with bad_input("particles must be at least 1, not -3"):
        particles.start(jnp.zeros(()), -3)


def test_the_weather_is_the_registered_chain():
    model = hidden_chain().hidden_model()
    chain = belief.chain_of(model, jnp.zeros((2, 1), int), jnp.zeros(3, int), jnp.array([[1], [1], [0]]))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-15), chain, weather())
