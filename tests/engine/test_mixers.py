import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines.qtran import QTranBase
from envs.matrix_games import matrix_game
from jaxmarl_fac.mixers import QMixer, VDNMixer, monotone_mix

STATE = 4


class MonotoneMixTest(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_worked_numbers(self):
        """FACTS 1.4(d), by hand: z = (-2, -1.5), ELU(z) = (-.864665, -.776870)."""
        q, w1 = jnp.asarray([1.0, -2]), jnp.asarray([[1, 0.5], [2, 1]])
        b1, w2, value = jnp.asarray([1.0, 0]), jnp.asarray([2.0, 1]), jnp.float32(0.5)
        q_tot, gradient = self.variant(jax.value_and_grad(monotone_mix))(q, w1, b1, w2, value)
        assert float(q_tot) == pytest.approx(-2.006199, abs=1e-6)
        np.testing.assert_allclose(gradient, [0.382236, 0.764471], atol=1e-6)
        # ELU before the bias, as in QTRAN's release, is another function.
        before_bias = (jnp.where(q @ w1 > 0, q @ w1, jnp.expm1(q @ w1)) + b1) @ w2 + value
        assert float(before_bias) == pytest.approx(-0.177296, abs=1e-6)
        # The weights count by their absolute values, the bias and the value by themselves.
        flipped = self.variant(monotone_mix)(q, -w1, b1, jnp.asarray([-2.0, 1]), value)
        assert float(flipped) == pytest.approx(-2.006199, abs=1e-6)


def random_qmixer(n, widths, count, rng):
    """A mixer, and `count` sets of random parameters for it, biases included: small ones and large ones."""
    module = QMixer(8, widths)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros(n), jnp.zeros(STATE))
    scales = np.exp(rng.normal(size=count))

    def draw(leaf):
        return np.moveaxis(rng.normal(size=(*leaf.shape, count)) * scales, -1, 0).astype(np.float32)

    return module, jax.tree.map(draw, shapes)


@pytest.mark.parametrize(("n", "widths"), [(2, ()), (3, (8,)), (5, ())], ids=str)
def test_qmixer_never_decreases(n, widths):
    """1,000 random parameters and states, with finite raises of single utilities and with gradients."""
    rng, count = np.random.default_rng(n), 1000
    module, params = random_qmixer(n, widths, count, rng)
    states = 3 * rng.normal(size=(count, STATE))
    utilities = 5 * rng.normal(size=(count, n))
    raises = np.exp(2 * rng.normal(size=(count, n)))

    @jax.jit
    @jax.vmap
    def look(params, state, utilities, raises):
        def mix(utilities):
            return module.apply(params, utilities, state)

        return mix(utilities), jax.vmap(mix)(utilities + jnp.diag(raises)), jax.grad(mix)(utilities)

    q_tot, raised, slope = map(np.asarray, look(params, states, utilities, raises))
    scale = np.abs(q_tot[:, None]) + np.abs(raised) + 1
    assert ((raised - q_tot[:, None]) / scale).min() > -1e-5
    assert slope.min() >= 0
    # It does depend on every one, save where all hidden units are so negative that exp(z) is 0.
    assert ((slope > 0).mean(axis=0) > 0.5).all()
    assert np.ptp(q_tot) > 1


def test_qmixer_is_the_monotone_mix_of_what_its_hypernetworks_make():
    """Against a plain NumPy version of the paper's section 4."""
    rng = np.random.default_rng(0)
    module, drawn = random_qmixer(3, (8,), 1, rng)
    params = jax.tree.map(lambda leaf: leaf[0], drawn)
    p = params["params"]
    q, s = rng.normal(size=3), rng.normal(size=STATE)

    def linear(layer, x):
        return x @ layer["kernel"] + layer["bias"]

    def two_layers(net, x):
        return linear(net["Dense_1"], np.maximum(linear(net["Dense_0"], x), 0))

    w1 = np.abs(two_layers(p["w1"], s)).reshape(3, 8)
    z = q @ w1 + linear(p["b1"], s)
    hidden = np.where(z > 0, z, np.exp(z) - 1)
    expected = hidden @ np.abs(two_layers(p["w2"], s)) + two_layers(p["value"], s)[0]
    got = module.apply(params, jnp.asarray(q, jnp.float32), jnp.asarray(s, jnp.float32))
    assert float(got) == pytest.approx(expected, rel=1e-5)


def test_the_first_papers_hypernetworks_are_one_layer_and_pymarls_are_two():
    for widths, layers in (((), 1), ((64,), 2)):
        params = QMixer(32, widths).init(jax.random.key(0), jnp.zeros(2), jnp.zeros(STATE))["params"]
        assert {len(params[name]) for name in ("w1", "w2")} == {layers}
        assert len(params["value"]) == 2
        assert set(params["b1"]) == {"kernel", "bias"}
        assert params["w1"][f"Dense_{layers - 1}"]["kernel"].shape[-1] == 2 * 32


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-1000, 1000), min_size=1, max_size=6))
def test_vdn_is_the_sum(utilities):
    mixer = VDNMixer()
    got = mixer.apply({}, jnp.asarray(utilities, jnp.float32), jnp.asarray([1e9]))
    assert float(got) == sum(utilities)


# Individual-global-max: the joint action of the best utilities is a best joint action


@pytest.mark.parametrize(("n", "actions"), [(2, 4), (3, 3), (4, 2), (5, 2)])
def test_mixed_values_have_the_igm_property(n, actions):
    """200 random tables of utilities, parameters and states each, over all joint actions."""
    rng, count = np.random.default_rng(n), 200
    joints = np.asarray(list(itertools.product(range(actions), repeat=n)))
    module, params = random_qmixer(n, (), count, rng)
    tables = 3 * rng.normal(size=(count, n, actions)).astype(np.float32)
    chosen = tables[:, np.arange(n), joints]  # (count, A^n, n)
    states = rng.normal(size=(count, STATE))

    def mixed(module, params):
        mix = jax.vmap(module.apply, (None, 0, None))
        return np.asarray(jax.jit(jax.vmap(mix))(params, chosen, states))

    place = np.ravel_multi_index(tuple(tables.argmax(axis=2).T), (actions,) * n)
    qmix, vdn = mixed(module, params), mixed(VDNMixer(), {})
    for values in (qmix, vdn):
        reached = values[np.arange(count), place]
        # Where ELU saturates, values may tie to the last bit of rounding.
        assert (reached >= values.max(axis=1) - 1e-5 * (1 + np.abs(values).max(axis=1))).all()
        assert (values.max(axis=1) > values.min(axis=1)).all()
    # VDN's sums are far from ties, so here the joint actions themselves are compared.
    np.testing.assert_array_equal(vdn.argmax(axis=1), place)


def test_an_unrestricted_joint_value_has_it_not():
    """QTRAN's Q_jt may put its best joint action anywhere, and its random initial ones do."""
    env = matrix_game(np.zeros((3, 3)))
    algorithm = QTranBase()
    observation = env.observe(env.reset(jax.random.key(0))[0])
    joints = jnp.asarray(list(itertools.product(range(3), repeat=2)))

    @jax.jit
    @jax.vmap
    def look(key):
        params = algorithm.init(env, key).params
        values = jax.vmap(lambda joint: algorithm.joint_values(env, params, observation, joint))(joints)
        best_jt, best_prime = jnp.argmax(values["q_jt"]), jnp.argmax(values["q_prime"])
        return best_jt, best_prime, algorithm.act_greedily(env, params, (), observation)[0]

    q_jt, q_prime, greedy = map(np.asarray, look(jax.random.split(jax.random.key(0), 200)))
    place = np.ravel_multi_index(tuple(greedy.T), (3, 3))
    np.testing.assert_array_equal(q_prime, place)  # the sum of utilities has it
    assert (q_jt != place).mean() > 0.5
