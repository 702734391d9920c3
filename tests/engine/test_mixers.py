import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized
from hypothesis import given, settings
from hypothesis import strategies as st

import baselines
from envs.matrix_games import QTRAN_PAYOFF, matrix_game
from jaxmarl_fac.exact.projections import additive_fit
from jaxmarl_fac.game import GameSpec
from jaxmarl_fac.mixers import (
    CentralMixer,
    MixerInputs,
    QattenMixer,
    QMixer,
    QPlexMixer,
    VDNMixer,
    dueling_mix,
    monotone_mix,
)
from tests.helpers import but_slow, first_observation

STATE, VIEW = 4, 3


def seen(utilities, state, best=None, actions=None, views=None):
    """Inputs of a mixer; what is not given is zeros."""
    n = len(utilities)
    return MixerInputs(
        jnp.asarray(utilities, jnp.float32),
        jnp.zeros(n) if best is None else jnp.asarray(best, jnp.float32),
        jnp.zeros((n, 1)) if actions is None else jnp.asarray(actions, jnp.float32),
        jnp.zeros((n, VIEW)) if views is None else jnp.asarray(views, jnp.float32),
        jnp.asarray(state, jnp.float32),
    )


def two_layers(net, x, k=None):
    """Two layers with ReLU between them, in NumPy; of several networks side by side the k-th."""

    def linear(layer, x):
        kernel, bias = (layer[name] if k is None else layer[name][k] for name in ("kernel", "bias"))
        return x @ kernel + bias

    return linear(net["Dense_1"], np.maximum(linear(net["Dense_0"], x), 0))


def attention_of(params, state, views, heads, embed):
    """Weights `(n,)` and unscaled logits `(H, n)` of Qatten's attention, in NumPy, head by head."""
    seen_by_keys = np.concatenate([views, np.eye(len(views))], axis=-1)
    keys = (seen_by_keys @ params["key"]["kernel"]).reshape(len(views), heads, embed)
    head_weights, weights, logits = np.abs(two_layers(params["head_weight"], state)), 0.0, []
    for head in range(heads):
        logits.append(keys[:, head] @ two_layers(params["queries"], state, head))
        attention = np.exp(logits[-1] / np.sqrt(embed))
        weights = weights + head_weights[head] * attention / attention.sum()
    return weights, np.stack(logits)


class MonotoneMixTest(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_worked_numbers(self):
        """By hand: z = (-2, -1.5), ELU(z) = (-.864665, -.776870)."""
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


def random_params(module, n, count, rng, actions=1):
    """`count` sets of random parameters, biases included: small ones and large ones."""
    inputs = seen(jnp.zeros(n), jnp.zeros(STATE), actions=jnp.zeros((n, actions)))
    shapes = jax.eval_shape(module.init, jax.random.key(0), inputs)
    scales = np.exp(rng.normal(size=count))

    def draw(leaf):
        return np.moveaxis(rng.normal(size=(*leaf.shape, count)) * scales, -1, 0).astype(np.float32)

    return jax.tree.map(draw, shapes)


def random_qmixer(n, widths, count, rng, activation="elu"):
    module = QMixer(8, widths, activation)
    return module, random_params(module, n, count, rng)


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
            return module.apply(params, seen(utilities, state))

        return mix(utilities), jax.vmap(mix)(utilities + jnp.diag(raises)), jax.grad(mix)(utilities)

    q_tot, raised, slope = map(np.asarray, look(params, states, utilities, raises))
    scale = np.abs(q_tot[:, None]) + np.abs(raised) + 1
    assert ((raised - q_tot[:, None]) / scale).min() > -1e-5
    assert slope.min() >= 0
    # It does depend on every one, save where all hidden units are so negative that exp(z) is 0.
    assert ((slope > 0).mean(axis=0) > 0.5).all()
    assert np.ptp(q_tot) > 1


@pytest.mark.parametrize("activation", ["elu", "relu"])
def test_qmixer_is_the_monotone_mix_of_what_its_hypernetworks_make(activation):
    """Against a plain NumPy version of the paper's section 4; with ReLU, of QTRAN's section C.2."""
    rng = np.random.default_rng(0)
    module, drawn = random_qmixer(3, (8,), 1, rng, activation)
    params = jax.tree.map(lambda leaf: leaf[0], drawn)
    p = params["params"]
    q, s = rng.normal(size=3), rng.normal(size=STATE)

    w1 = np.abs(two_layers(p["w1"], s)).reshape(3, 8)
    z = q @ w1 + s @ p["b1"]["kernel"] + p["b1"]["bias"]
    assert (z < 0).any()  # where the two differ
    hidden = np.where(z > 0, z, np.exp(z) - 1 if activation == "elu" else 0)
    expected = hidden @ np.abs(two_layers(p["w2"], s)) + two_layers(p["value"], s)[0]
    got = module.apply(params, seen(q, s))
    assert float(got) == pytest.approx(expected, rel=1e-5)


def test_the_first_papers_hypernetworks_are_one_layer_and_pymarls_are_two():
    for widths, layers in (((), 1), ((64,), 2)):
        params = QMixer(32, widths).init(jax.random.key(0), seen(jnp.zeros(2), jnp.zeros(STATE)))["params"]
        assert {len(params[name]) for name in ("w1", "w2")} == {layers}
        assert len(params["value"]) == 2
        assert set(params["b1"]) == {"kernel", "bias"}
        assert params["w1"][f"Dense_{layers - 1}"]["kernel"].shape[-1] == 2 * 32


def test_all_weights_of_qmix_start_orthogonal_times_a_scale_if_asked():
    inputs = seen(jnp.zeros(2), jnp.zeros(STATE))
    plain, scaled = (
        QMixer(4, (3,), init_scale=scale).init(jax.random.key(0), inputs)["params"] for scale in (0.0, 0.001)
    )
    chex.assert_trees_all_equal_shapes(plain, scaled)
    kernels = [leaf for leaf in jax.tree.leaves(scaled) if leaf.ndim == 2]
    assert len(kernels) == 7
    for kernel in kernels:
        rows, columns = kernel.shape
        product = kernel @ kernel.T if rows <= columns else kernel.T @ kernel
        np.testing.assert_allclose(product, 1e-6 * np.eye(min(rows, columns)), atol=1e-12)
    chex.assert_trees_all_equal(plain, QMixer(4, (3,)).init(jax.random.key(0), inputs)["params"])


@pytest.mark.parametrize(("per_head", "count"), [(False, 9_024), (True, 11_136)])
def test_query_parameters_of_qatten(per_head, count):
    """Four queries of 32 from a state of 10, by one hidden layer of 64 or by four, as PyMARL2 has them."""
    module = QattenMixer(query_per_head=per_head)
    shapes = jax.eval_shape(module.init, jax.random.key(0), seen(jnp.zeros(2), jnp.zeros(10)))["params"]
    found = shapes["queries" if per_head else "query"]
    assert sum(leaf.size for leaf in jax.tree.leaves(found)) == count


def test_each_head_of_qatten_has_its_own_query_layer():
    """By plain NumPy, head by head."""
    rng = np.random.default_rng(1)
    module = QattenMixer(heads=2, embed=3, query_hidden=4, query_per_head=True)
    params = jax.tree.map(lambda leaf: leaf[0], random_params(module, 3, 1, rng))
    p, q, s = params["params"], rng.normal(size=3), rng.normal(size=STATE)
    views = rng.normal(size=(3, VIEW))
    weights, _ = attention_of(p, s, views, heads=2, embed=3)
    expected = weights @ q + two_layers(p["value"], s)[0]
    assert float(module.apply(params, seen(q, s, views=views))) == pytest.approx(expected, rel=1e-4)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-1000, 1000), min_size=1, max_size=6))
def test_vdn_is_the_sum(utilities):
    mixer = VDNMixer()
    got = mixer.apply({}, seen(utilities, [1e9]))
    assert float(got) == sum(utilities)


# Individual-global-max: the joint action of the best utilities is the best joint action


QPLEX = QPlexMixer(kernels=3, hidden=(4,), head_hidden=(4,))
QPLEX_ATTENTION = QPlexMixer(kernels=3, hidden=(4,), head_hidden=(4,), attention_heads=2, attention_embed=3)
#: Every mixer that claims it, with the switches that change its values.
IGM = {
    "vdn": VDNMixer(),
    "qmix": QMixer(8),
    "qmix, two layers": QMixer(8, (8,)),
    "qatten": QattenMixer(2, 4, 8, 8),
    "qplex": QPLEX,
    "qplex, no head": QPlexMixer(kernels=2, hidden=(), weighted_head=False),
    "qplex, attention": QPLEX_ATTENTION,
    "qplex, plus one": QPlexMixer(kernels=3, hidden=(4,), head_hidden=(4,), minus_one=False),
}
CENTRAL = CentralMixer((8, 8), 8)
#: Actions by agents, few enough to try all joint actions.
ACTIONS = {2: 5, 3: 3, 4: 3, 5: 2}
SAMPLES = 50


@functools.partial(jax.jit, static_argnames="module")
def all_joint_values(module, params, tables, masks, states, views):
    """Values `(samples, A ** n)` of every joint action, last agent's fastest; unavailable ones -inf."""
    n, count = tables.shape[1:]
    joints = jnp.asarray(list(itertools.product(range(count), repeat=n)))

    def of_one(params, table, mask, state, view):
        best = jnp.where(mask, table, -jnp.inf).max(axis=1)

        def mix(joint):
            own = jnp.arange(n), joint
            inputs = seen(table[own], state, best, jax.nn.one_hot(joint, count), view)
            return jnp.where(mask[own].all(), module.apply(params, inputs), -jnp.inf)

        return jax.vmap(mix)(joints)

    return jax.vmap(of_one)(params, tables, masks, states, views)


def joint_values(module, n, seed, spread):
    """`all_joint_values` at random, and where the joint action of all agents' best actions stands."""
    rng, count = np.random.default_rng(seed), ACTIONS[n]
    tables = (spread * rng.normal(size=(SAMPLES, n, count))).astype(np.float32)
    masks = rng.random(size=tables.shape) < 0.7
    masks[..., 0] |= ~masks.any(axis=-1)  # something is available to everybody
    best = np.where(masks, tables, -np.inf).argmax(axis=-1)
    values = all_joint_values(
        module,
        random_params(module, n, SAMPLES, rng, count),
        tables,
        masks,
        rng.normal(size=(SAMPLES, STATE)).astype(np.float32),
        rng.normal(size=(SAMPLES, n, VIEW)).astype(np.float32),
    )
    return np.asarray(values), np.ravel_multi_index(tuple(best.T), (count,) * n)


@pytest.mark.parametrize("name", but_slow(IGM, ["qmix, two layers", "qatten", "qplex"]))
@settings(max_examples=10, deadline=None)
@given(st.sampled_from(sorted(ACTIONS)), st.integers(0, 2**32 - 1), st.sampled_from([0.3, 1.0, 3.0]))
def test_mixed_values_have_the_igm_property(name, n, seed, spread):
    """Random parameters, states, utilities and masks, over all joint actions of 2 to 5 agents."""
    values, place = joint_values(IGM[name], n, seed, spread)
    reached = values[np.arange(SAMPLES), place]
    highest = values.max(axis=1)
    scale = 1 + np.abs(np.where(np.isfinite(values), values, 0)).max(axis=1)
    assert (reached >= highest - 1e-5 * scale).all()
    # Where ELU saturates, or attention or an importance is nearly 0, values tie to the last bit of rounding.
    # Elsewhere the two joint actions are one.
    others = np.where(np.arange(values.shape[1]) == place[:, None], -np.inf, values).max(axis=1)
    clear = highest - np.minimum(others, reached) > 1e-5 * scale
    assert clear.mean() > 0.4
    np.testing.assert_array_equal(values.argmax(axis=1)[clear], place[clear])


@pytest.mark.parametrize("n", ACTIONS)
def test_the_central_mixer_has_it_not(n):
    """Weighted QMIX's unrestricted value falls in utilities as often as it rises."""
    values, place = joint_values(CENTRAL, n, seed=n, spread=1.0)
    choices = np.isfinite(values).sum(axis=1) > 1
    assert (values.argmax(axis=1) != place)[choices].mean() > 0.4


def test_an_unrestricted_joint_value_has_it_not():
    """QTRAN's Q_jt may put its best joint action anywhere, and its random initial ones do."""
    env = matrix_game(np.zeros((3, 3)))
    game, algorithm = GameSpec.of(env), baselines.make("qtran-base")
    learner = algorithm.bind(game)
    joints = jnp.asarray(list(itertools.product(range(3), repeat=2)))

    @jax.jit
    @jax.vmap
    def look(key):
        params, observation = learner.init(key).params, first_observation(env)
        values = jax.vmap(lambda joint: algorithm.joint_values(game, params, observation, joint))(joints)
        best_jt, best_prime = jnp.argmax(values["q_jt"]), jnp.argmax(values["q_prime"])
        return best_jt, best_prime, learner.act_greedily(params, (), observation, key).actions

    q_jt, q_prime, greedy = map(np.asarray, look(jax.random.split(jax.random.key(0), 200)))
    place = np.ravel_multi_index(tuple(greedy.T), (3, 3))
    np.testing.assert_array_equal(q_prime, place)  # the sum of utilities has it
    assert (q_jt != place).mean() > 0.5


# QPLEX


class DuelingMixTest(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.parameters(True, False)
    def test_worked_numbers(self, stop_gradient):
        """By hand: Q = (0, 3), V = (2, 3), lambda = (2, .5): 5 + 2 (-2) = 1, in both forms."""
        q, v, importance = jnp.asarray([0.0, 3]), jnp.asarray([2.0, 3]), jnp.asarray([2, 0.5])
        mix = self.variant(lambda *x: dueling_mix(*x, stop_gradient=stop_gradient))
        assert float(mix(q, v, importance)) == 1
        assert float(jnp.sum(v) + jnp.sum(importance * (q - v))) == 1

    @chex.variants(with_jit=True, without_jit=True)
    def test_without_minus_one_advantages_weigh_one_more(self):
        q, v, importance = jnp.asarray([0.0, 3]), jnp.asarray([2.0, 3]), jnp.asarray([2, 0.5])
        assert float(self.variant(lambda *x: dueling_mix(*x, minus_one=False))(q, v, importance)) == -1

    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.parameters((True, [1, 1]), (False, [2, 0.5]))
    def test_what_utilities_learn(self, stop_gradient, expected):
        """With the stop-gradient as in VDN, else through the importance; V_i takes what is left."""
        q, v, importance = jnp.asarray([0.0, 3]), jnp.asarray([2.0, 3]), jnp.asarray([2, 0.5])
        slope = self.variant(
            jax.grad(lambda *x: dueling_mix(*x, stop_gradient=stop_gradient), argnums=(0, 1))
        )
        by_q, by_v = slope(q, v, importance)
        np.testing.assert_allclose(by_q, expected)
        np.testing.assert_allclose(by_v, 0 if stop_gradient else [-1, 0.5])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-20, 20), min_size=9, max_size=9, unique=True))
def test_dueling_mixes_can_be_any_payoff_with_one_best_joint_action(entries):
    """Agents off the best action have the advantage -1, and their importances share the gap to the optimum.

    QTRAN's game needs importances of 20 and of 4.
    """
    for payoff in (np.asarray(entries, np.float32).reshape(3, 3), np.asarray(QTRAN_PAYOFF, np.float32)):
        top = payoff.max()
        best = np.unravel_index(payoff.argmax(), payoff.shape)
        found = set()
        for joint in itertools.product(range(3), repeat=2):
            deviates = np.asarray(joint) != best
            v = np.full(2, top / 2, np.float32)
            importance = (top - payoff[joint]) / max(1, deviates.sum())
            q_tot = dueling_mix(
                jnp.asarray(v - deviates, jnp.float32), jnp.asarray(v), jnp.full(2, importance, jnp.float32)
            )
            assert float(q_tot) == pytest.approx(payoff[joint], abs=1e-4)
            found.add(float(importance))
    assert found == {0, 20, 4}  # of QTRAN's game, the last


@pytest.mark.parametrize("mixer", [QPLEX, QPLEX_ATTENTION], ids=["plain", "attention"])
def test_qplex_is_the_dueling_mix_of_what_its_networks_make(mixer):
    """Against plain NumPy."""
    rng = np.random.default_rng(0)
    n, count = 2, 3
    params = jax.tree.map(lambda leaf: leaf[0], random_params(mixer, n, 1, rng, count))
    p = params["params"]
    q, v, s = rng.normal(size=n), rng.normal(size=n) + 3, rng.normal(size=STATE)
    hot, views = np.eye(count)[[2, 0]], rng.normal(size=(n, VIEW))

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    if mixer is QPLEX:
        weight, bias = np.abs(two_layers(p["head_weight"], s)), two_layers(p["head_bias"], s)
    else:
        weight, logits = attention_of(p["attention"], s, views, heads=2, embed=3)
        bias = two_layers(p["head_bias"], s)[0] / n
        squared = mixer.apply(params, seen(q, s, v, hot, views), method="squared_logits")
        assert float(squared) == pytest.approx(
            np.square(logits[0]).mean() + np.square(logits[1]).mean(), rel=1e-5
        )
    q_head, v_head = weight * q + bias, weight * v + bias
    importance = sum(
        np.abs(two_layers(p["keys"], s, k))
        * sigmoid(two_layers(p["agents"], s, k))
        * sigmoid(two_layers(p["actions"], np.concatenate([s, *hot]), k))
        for k in range(3)
    )
    expected = v_head.sum() + (importance * (q_head - v_head)).sum()
    got = mixer.apply(params, seen(q, s, v, hot, views))
    assert float(got) == pytest.approx(expected, rel=1e-5)
    # The best utilities and the joint action both count.
    assert float(mixer.apply(params, seen(q, s, v + 1, hot, views))) != pytest.approx(expected, rel=1e-3)
    assert float(mixer.apply(params, seen(q, s, v, hot[::-1], views))) != pytest.approx(expected, rel=1e-3)


# Qatten


def test_qatten_is_linear_in_the_utilities():
    """For one state, `Q_tot = a . Q + c` with a > 0."""
    rng = np.random.default_rng(0)
    module = QattenMixer(4, 8, 16, 8)
    params = jax.tree.map(lambda leaf: leaf[0], random_params(module, 3, 1, rng))
    state, views = rng.normal(size=STATE), rng.normal(size=(3, VIEW))

    def mix(q):
        return module.apply(params, seen(q, state, views=views))

    slopes = [np.asarray(jax.grad(mix)(jnp.asarray(rng.normal(size=3), jnp.float32))) for _ in range(3)]
    for slope in slopes:
        np.testing.assert_allclose(slope, slopes[0], rtol=1e-5)
    assert slopes[0].min() > 0
    assert np.ptp(slopes[0]) > 1e-4  # it attends to some more than to others
    q = rng.normal(size=3)
    expected = float(mix(jnp.zeros(3))) + slopes[0] @ q
    assert float(mix(jnp.asarray(q, jnp.float32))) == pytest.approx(expected, rel=1e-4)


def test_qattens_best_fit_is_vdns():
    """A weighted sum with a constant expresses what a sum does, and no more: -56/9, -44/9, -32/9."""
    fit = np.asarray(additive_fit(np.asarray(QTRAN_PAYOFF, float)).q_tot)
    weights, constant = np.asarray([0.3, 2.0]), 1.7
    # least squares over what `w . Q + c` can be: one column for each agent's action, and one for c
    hot = np.stack(
        [
            np.concatenate([weights[0] * np.eye(3)[a], weights[1] * np.eye(3)[b], [constant]])
            for a, b in itertools.product(range(3), repeat=2)
        ]
    )
    solution = hot @ np.linalg.lstsq(hot, np.ravel(QTRAN_PAYOFF), rcond=None)[0]
    np.testing.assert_allclose(solution.reshape(3, 3), fit, atol=1e-5)
    np.testing.assert_allclose(fit[0], [-56 / 9, -44 / 9, -44 / 9], atol=1e-5)
    np.testing.assert_allclose(fit[1, 1], -32 / 9, atol=1e-5)


def test_the_order_of_agents_does_not_matter_to_vdn():
    rng = np.random.default_rng(0)
    q, order = rng.integers(-9, 9, 4), [2, 0, 3, 1]
    one, other = (float(VDNMixer().apply({}, seen(utilities, [0.0]))) for utilities in (q, q[order]))
    assert one == other == q.sum()
