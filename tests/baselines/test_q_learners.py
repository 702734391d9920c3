"""Losses, steps and actions of the algorithms that learn from single transitions, against plain NumPy."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct

import baselines
from envs.matrix_games import MatrixGame, matrix_game, staged_game
from jaxmarl_fac.algorithm import Transition
from tests.reference import q_learners as reference

GAMMA = 0.9
SMALL = {"hidden": (5, 4), "gamma": GAMMA, "batch_size": 16}
#: Three agents with 2, 3 and 3 actions, on one of three stages.
COUNTS = (2, 3, 3)
STAGED = staged_game(np.zeros((3, *COUNTS)), np.full((3, *COUNTS), -1), np.full(3, 1 / 3), time_limit=1)
ONE_SHOT = matrix_game(np.arange(18.0).reshape(COUNTS))


def random_learner(algorithm, env, seed, target_seed=None):
    """A learner with random parameters: fresh biases would be 0, and hide mistakes."""

    def draw(tree, seed):
        rng = np.random.default_rng(seed)
        return jax.tree.map(lambda leaf: jnp.asarray(0.6 * rng.normal(size=leaf.shape), jnp.float32), tree)

    shapes = jax.eval_shape(functools.partial(algorithm.init, env), jax.random.key(0))
    fresh = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    params = draw(shapes.params, seed)
    target_params = params if target_seed is None else draw(shapes.params, target_seed)
    return fresh.replace(params=params, target_params=target_params)


def random_params(algorithm, env, seed):
    return random_learner(algorithm, env, seed).params


def seen(env, stage):
    state, _ = env.reset(jax.random.key(0))
    return env.observe(state.replace(stage=jnp.int8(stage)))


def plain(observation):
    return tuple(np.asarray(leaf) for leaf in observation[:3])


#: (stage, actions, reward, discount, next stage): ordinary steps, a truncation and a termination.
STEPS = [
    (0, (1, 2, 0), 1.5, 1.0, 1),
    (1, (0, 1, 2), -0.5, 1.0, 2),
    (2, (1, 0, 1), 2.0, 0.0, 2),
    (1, (0, 2, 2), 0.0, 1.0, 0),
]


def transitions(env):
    for stage, actions, reward, discount, following in STEPS:
        yield Transition(
            seen(env, stage),
            jnp.asarray(actions),
            jnp.float32(reward),
            jnp.float32(discount),
            seen(env, following),
        )


def check(algorithm, expected, metrics=()):
    """The losses on STEPS, and what is logged of them, are what `expected(online, target, step)` says."""
    online, target = random_params(algorithm, STAGED, 1), random_params(algorithm, STAGED, 2)
    network = algorithm.network(STAGED)
    look = jax.jit(lambda a, b, t: algorithm.loss(network.bind(a), network.bind(b), t))
    found = []
    for transition in transitions(STAGED):
        loss, logged = look(online, target, transition)
        step = (
            plain(transition.observation),
            transition.actions.tolist(),
            float(transition.reward),
            float(transition.discount),
            plain(transition.next_observation),
        )
        want = expected(online["params"], target["params"], step)
        np.testing.assert_allclose(loss, want["loss"], rtol=2e-4, atol=1e-5)
        for name in metrics:
            np.testing.assert_allclose(logged[name], want[name], rtol=2e-4, atol=1e-5, err_msg=name)
        found.append(float(loss))
    assert len({round(loss, 3) for loss in found}) == len(STEPS)
    return found


#: What the references read from the parameters' shapes.
ALONE = {"share_parameters": False, "agent_ids": False}


@pytest.mark.parametrize("flags", [{}, ALONE], ids=["shared", "alone"])
def test_iql(flags):
    check(
        baselines.make("iql", **SMALL, **flags),
        lambda online, target, step: {"loss": reference.iql_loss(online, target, step, GAMMA)},
    )


@pytest.mark.parametrize("double_q", [True, False])
@pytest.mark.parametrize(
    ("algorithm_id", "mix", "settings"),
    [
        ("vdn", reference.vdn_mix, {}),
        ("qmix", reference.qmix_mix, {"mixer_embed": 3}),
        ("qmix", reference.qmix_mix, {"mixer_embed": 3, "hypernet_hidden": (4,)}),
    ],
    ids=["vdn", "qmix", "qmix-2-layers"],
)
def test_mixed(algorithm_id, mix, settings, double_q):
    check(
        baselines.make(algorithm_id, **SMALL, **settings, double_q=double_q),
        lambda online, target, step: {
            "loss": reference.mixed_loss(mix, online, target, step, GAMMA, double_q)
        },
    )


WEIGHTS = {"opt_weight": 0.5, "nopt_weight": 0.25, "joint_hidden": (6, 5)}


def total(losses):
    loss = losses["td_loss"] + 0.5 * losses["opt_loss"] + 0.25 * losses["nopt_loss"]
    return {"loss": loss, **losses}


@pytest.mark.parametrize(
    ("aggregate", "state_value", "target", "double_q", "flags"),
    [
        ("sum", "on", "q_jt", False, {}),
        ("sum", "off", "q_prime", False, {"share_parameters": False}),
        ("mean", "off", "q_jt", True, {"agent_ids": False}),
        ("mean", "on", "q_prime", True, ALONE),
    ],
)
def test_qtran_base(aggregate, state_value, target, double_q, flags):
    """Its joint networks build on the agents' features, whosever parameters these are from."""
    switches = {"aggregate": aggregate, "state_value": state_value, "target": target, "double_q": double_q}
    check(
        baselines.make("qtran-base", **SMALL, **WEIGHTS, **switches, **flags),
        lambda a, b, step: total(
            reference.qtran_base_losses(a, b, step, GAMMA, aggregate, state_value == "on", target, double_q)
        ),
        metrics=("td_loss", "opt_loss", "nopt_loss"),
    )


@pytest.mark.parametrize(
    ("aggregate", "state_value", "target", "nopt_min", "double_q", "flags"),
    [
        ("sum", "on", "q_jt", "signed", False, {}),
        ("sum", "off", "q_max", "signed", True, ALONE),
        ("mean", "off", "q_prime", "printed", True, {}),
        ("mean", "on", "q_max", "printed", False, {"share_parameters": False}),
    ],
)
def test_qtran_alt(aggregate, state_value, target, nopt_min, double_q, flags):
    check(
        baselines.make(
            "qtran-alt",
            **SMALL,
            **WEIGHTS,
            aggregate=aggregate,
            state_value=state_value,
            target=target,
            nopt_min=nopt_min,
            double_q=double_q,
            **flags,
        ),
        lambda a, b, step: total(
            reference.qtran_alt_losses(
                a, b, step, GAMMA, aggregate, state_value == "on", target, nopt_min, double_q
            )
        ),
        metrics=("td_loss", "opt_loss", "nopt_loss"),
    )


def test_state_values_are_left_out_where_all_is_observed():
    """QTRAN's Theorem 1a; "auto" asks the environment."""

    @struct.dataclass(eq=False)
    class Foggy(MatrixGame):
        fully_observable = False

    foggy = Foggy(
        STAGED.payoff, STAGED.next_stage, STAGED.start, action_counts=STAGED.action_counts, time_limit=1
    )
    for env, state_value, there in (
        (STAGED, "auto", False),
        (STAGED, "on", True),
        (foggy, "auto", True),
        (foggy, "off", False),
    ):
        algorithm = baselines.make("qtran-base", **SMALL, state_value=state_value)
        params = jax.eval_shape(functools.partial(algorithm.init, env), jax.random.key(0)).params["params"]
        assert ("value" in params) == there


# Batches


def batch_of(env, count=16):
    rng = np.random.default_rng(3)
    actions = np.stack([rng.integers(n, size=count) for n in COUNTS], axis=1)
    return Transition(
        env.observe(env.reset(jax.random.key(0))[0]),
        jnp.asarray(actions),
        jnp.asarray(rng.normal(size=count), jnp.float32),
        jnp.asarray(rng.integers(2, size=count), jnp.float32),
        env.observe(env.reset(jax.random.key(0))[0]),
    )


@struct.dataclass(eq=False)
class Repeated(MatrixGame):
    """A one-shot game that pretends to have states, so that nothing is shared between samples."""

    stateless = False


REPEATED = Repeated(ONE_SHOT.payoff, ONE_SHOT.next_stage, ONE_SHOT.start, action_counts=COUNTS)


@pytest.mark.parametrize("algorithm_id", ["iql", "qmix", "qtran-base", "qtran-alt", "qplex", "cw-qmix"])
def test_one_observation_for_all_samples_equals_one_for_each(algorithm_id):
    """The same losses and gradients, and the same step, to float tolerance (sums in another order)."""
    extra = {"max_grad_norm": 1.0, "learning_rate": 0.1, "adam_eps": 0.1}
    algorithm = baselines.make(algorithm_id, **{**SMALL, **extra, "batch_size": 32})
    learner = random_learner(algorithm, ONE_SHOT, 5, target_seed=6)
    params = learner.params
    batch = batch_of(ONE_SHOT, count=32)
    each = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (32, *leaf.shape)), batch.observation)
    explicit = batch._replace(observation=each, next_observation=each)

    def update(env, batch):
        return jax.jit(functools.partial(algorithm.update, env))(
            learner, batch, jnp.float32(0), jax.random.key(0)
        )

    (shared, metrics), (single, other_metrics) = update(ONE_SHOT, batch), update(REPEATED, explicit)
    for name, value in metrics.items():
        np.testing.assert_allclose(value, other_metrics[name], rtol=1e-5, atol=1e-6, err_msg=name)
    moved = 0.0
    for a, b, before in zip(*map(jax.tree.leaves, (shared.params, single.params, params)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
        moved = max(moved, float(jnp.abs(a - before).max()))
    assert moved > 0.01


def test_qtran_of_all_joint_actions_at_once_equals_one_at_a_time():
    """With more samples than joint actions (18), QTRAN computes all joint values and picks."""
    observation = seen(ONE_SHOT, 0)
    for algorithm_id in ("qtran-base", "qtran-alt"):
        few, many = (baselines.make(algorithm_id, **{**SMALL, "batch_size": size}) for size in (8, 64))
        params = random_params(few, ONE_SHOT, 4)

        def all_values(algorithm, params=params):
            look = jax.vmap(lambda joint: algorithm.joint_values(ONE_SHOT, params, observation, joint))
            return jax.jit(look)(jnp.asarray(list(itertools.product(*map(range, COUNTS)))))

        tables = all_values(few), all_values(many)
        for name, table in tables[0].items():
            np.testing.assert_allclose(table, tables[1][name], rtol=1e-5, atol=1e-6)
        assert np.ptp(tables[0]["q_jt"]) > 0.1


# Steps


def test_an_update_is_adam_on_the_mean_loss():
    """One step against optax's own Adam, on gradients of the mean of the single losses."""
    algorithm = baselines.make("vdn", **{**SMALL, "batch_size": 4}, learning_rate=0.01, adam_eps=1e-4)
    learner = random_learner(algorithm, STAGED, 1, target_seed=2)
    params, target = learner.params, learner.target_params
    network = algorithm.network(STAGED)
    steps = list(transitions(STAGED))

    def mean_loss(params):
        losses = [algorithm.loss(network.bind(params), network.bind(target), step)[0] for step in steps]
        return sum(losses) / len(losses)

    adam = optax.adam(0.01, eps=1e-4)
    state, expected = adam.init(params), params
    update = jax.jit(functools.partial(algorithm.update, STAGED))
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *steps)
    for _ in range(3):
        directions, state = adam.update(jax.jit(jax.grad(mean_loss))(expected), state)
        expected = optax.apply_updates(expected, directions)
        learner, _ = update(learner, batch, jnp.float32(0), jax.random.key(0))
    for a, b in zip(jax.tree.leaves(learner.params), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    for a, b in zip(jax.tree.leaves(learner.target_params), jax.tree.leaves(target), strict=True):
        np.testing.assert_array_equal(a, b)  # only the loop copies


def test_rmsprop_is_pymarls():
    """`v = .9 v + .1 g^2`, then a step of `rate g / (sqrt(v) + eps)`: epsilon outside the root."""
    settings = {"optimiser": "rmsprop", "rmsprop_decay": 0.9, "rmsprop_eps": 0.05, "learning_rate": 0.01}
    algorithm = baselines.make("vdn", **SMALL, **settings)
    learner = random_learner(algorithm, STAGED, 1, target_seed=2)
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *transitions(STAGED))
    update = jax.jit(functools.partial(algorithm.update, STAGED))
    gradient_of = jax.jit(
        jax.grad(lambda params: algorithm.batch_loss(STAGED, params, learner.target_params, batch)[0])
    )
    squares = [np.zeros(leaf.shape) for leaf in jax.tree.leaves(learner.params)]
    for _ in range(2):
        gradients = list(map(np.asarray, jax.tree.leaves(gradient_of(learner.params))))
        squares = [0.9 * v + 0.1 * np.square(g) for v, g in zip(squares, gradients, strict=True)]
        before = jax.tree.leaves(learner.params)
        learner, _ = update(learner, batch, jnp.float32(0), jax.random.key(0))
        for a, b, g, v in zip(jax.tree.leaves(learner.params), before, gradients, squares, strict=True):
            np.testing.assert_allclose(a, b - 0.01 * g / (np.sqrt(v) + 0.05), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("schedule", "progress", "share"),
    [
        ("constant", 0.0, 1),
        ("constant", 0.75, 1),
        ("linear", 0.0, 1),
        ("linear", 0.75, 0.25),
        ("linear", 1.0, 0),
    ],
)
def test_learning_rate_schedules(schedule, progress, share):
    """Adam's first step is the learning rate's size in every direction, whatever the gradient's."""
    algorithm = baselines.make("vdn", **SMALL, learning_rate=0.01, learning_rate_schedule=schedule)
    moved = step_from_random(algorithm, progress)
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(moved))
    assert largest == pytest.approx(0.01 * share, rel=1e-3)


@functools.cache
def compiled_update(algorithm):
    return jax.jit(functools.partial(algorithm.update, ONE_SHOT))


def step_from_random(algorithm, progress=0.0, scale=1.0):
    learner = random_learner(algorithm, ONE_SHOT, 5)
    batch = batch_of(ONE_SHOT)
    batch = batch._replace(reward=batch.reward * scale)
    after, _ = compiled_update(algorithm)(learner, batch, jnp.float32(progress), jax.random.key(0))
    return jax.tree.map(jnp.subtract, after.params, learner.params)


def test_gradients_are_clipped_by_their_global_norm():
    """Adam's first step is `rate g / (|g| + eps)`: with both at 1000, about the gradient itself."""
    free, clipped = (
        baselines.make("vdn", **SMALL, learning_rate=1000.0, adam_eps=1000.0, max_grad_norm=norm)
        for norm in (0.0, 0.5)
    )

    def norm(algorithm, scale):
        leaves = jax.tree.leaves(step_from_random(algorithm, scale=scale))
        return np.sqrt(sum(float(jnp.sum(jnp.square(leaf))) for leaf in leaves))

    assert norm(clipped, 1.0) == pytest.approx(0.5, rel=0.01)
    assert norm(clipped, 100.0) == pytest.approx(0.5, rel=0.01)
    assert norm(free, 1.0) > 1
    assert norm(free, 100.0) > 10


# Acting


def test_all_weights_start_normal_with_the_given_standard_deviation():
    """The release's start: N(0, .1) for every matrix, 0 for every bias, each its own numbers."""
    algorithm = baselines.make("qtran-alt", hidden=(64, 64), joint_hidden=(64, 64), weight_std=0.1)
    params = jax.tree_util.tree_leaves_with_path(algorithm.init(STAGED, jax.random.key(3)).params)
    kernels = {jax.tree_util.keystr(path): leaf for path, leaf in params if leaf.ndim == 2}
    large = np.stack([np.ravel(leaf)[:1000] for leaf in kernels.values() if leaf.size >= 1000])
    assert len(large) >= 5
    # 1,000 draws: the standard deviation's own error is .1 / sqrt(2,000), the correlations' 1 / sqrt(1,000)
    np.testing.assert_allclose(large.std(axis=1), 0.1, atol=5 * 0.1 / np.sqrt(2000))
    np.testing.assert_allclose(large.mean(axis=1), 0, atol=5 * 0.1 / np.sqrt(1000))
    np.testing.assert_allclose(np.corrcoef(large), np.eye(len(large)), atol=5 / np.sqrt(1000))
    assert all(not leaf.any() for _, leaf in params if leaf.ndim == 1)


@pytest.mark.parametrize("algorithm_id", ["vdn", "qtran-base"])
def test_masked_actions_are_never_played(algorithm_id):
    """Agent 1's third action, whatever the utilities; greedily and by chance."""
    algorithm = baselines.make(algorithm_id, **SMALL, epsilon_end=0.5)
    observation = seen(ONE_SHOT, 0)
    params = random_params(algorithm, ONE_SHOT, 7)
    bias = params["params"]["agent"]["Dense_0"]["bias"]
    params["params"]["agent"]["Dense_0"]["bias"] = bias.at[2].set(1e6)  # by far the best, were it there
    act = jax.jit(
        jax.vmap(lambda key: algorithm.act(ONE_SHOT, params, (), observation, jnp.float32(0.5), key)[0])
    )
    actions = np.asarray(act(jax.random.split(jax.random.key(0), 2000)))
    assert set(actions[:, 0]) == {0, 1}
    assert (actions[:, 1:] == 2).mean() > 0.6  # the others' best
    greedy = algorithm.act_greedily(ONE_SHOT, params, (), observation)[0].tolist()
    assert greedy[0] < 2
    assert greedy[1:] == [2, 2]


def test_exploring_all_the_time_looks_at_no_utilities():
    """With epsilon constantly 1 actions are uniform over what is available, and utilities may be anything."""
    algorithm = baselines.make("vdn", **SMALL)
    nothing = jax.tree.map(lambda leaf: leaf * jnp.nan, random_params(algorithm, ONE_SHOT, 0))
    act = jax.jit(
        jax.vmap(lambda key: algorithm.act(ONE_SHOT, nothing, (), seen(ONE_SHOT, 0), jnp.float32(1), key)[0])
    )
    actions = np.asarray(act(jax.random.split(jax.random.key(1), 9000)))
    for agent, count in enumerate(COUNTS):
        shares = np.bincount(actions[:, agent], minlength=3) / 9000
        np.testing.assert_allclose(shares[:count], 1 / count, atol=5 * np.sqrt(0.25 / 9000))
        assert (shares[count:] == 0).all()
