"""DVRL: weights of particles by NumPy, both ways of acting, gradients, independence, and what it refuses."""

import functools
import itertools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

import baselines
import envs
from baselines.dvrl import Hypothesis, ParticleAgent, Sight
from baselines.policies import log_policies
from envs import memory
from envs.team_pomdp import team_pomdp
from experiments import train as train_script
from jaxmarl_fac import cli
from jaxmarl_fac.experience import Trajectory
from jaxmarl_fac.game import GameSpec
from jaxmarl_fac.soft import belief
from jaxmarl_fac.soft.particles import Particles
from tests.baselines.learners import randomised
from tests.helpers import but_slow, clock_at

SMALL = {"hidden": (5,), "latent_size": 2, "particles": 3}
TIGERS = envs.make("two-agent-tiger", public_actions=False)
READOUTS = ("rnn", "average")


def bound(**settings):
    algorithm = baselines.make("dvrl", **SMALL, **settings)
    game = GameSpec.of(TIGERS)
    learner, network = algorithm.bind(game), algorithm.network(game)
    shapes = jax.eval_shape(learner.init, jax.random.key(0)).params
    return algorithm, learner, network, randomised(shapes, 0)


def observation(views):
    """Of what each agent has heard, `(T, n)`."""
    one = TIGERS.observe(TIGERS.reset(jax.random.key(0))[0])
    seen = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(views), *leaf.shape)), one)
    return seen._replace(agents_view=jax.nn.one_hot(jnp.asarray(views), 3))


VIEWS = [[0, 0], [1, 2], [1, 1], [0, 0], [2, 1], [2, 2]]
FIRST = [False, False, False, True, False, False]  # an episode begins amid the rollout


@functools.cache
def played(readout):
    """An agent's way through `VIEWS`: the trajectory, and its outputs at every observation."""
    algorithm, learner, network, params = bound(readout=readout)
    seen, outputs, steps = observation(VIEWS), [], []

    @jax.jit
    def step(carry, now, key):
        decision = learner.act(params, carry, now, clock_at(), key)
        return decision, network.bind(params).see(carry, now, jax.random.split(key)[0])[0]

    def at(t):
        return jax.tree.map(lambda leaf: leaf[t], seen)

    fresh = learner.begin(params, at(0), jax.random.key(0))
    carry = before = step(fresh, at(1), jax.random.key(9))[0].carry  # amid an episode
    for t, key in enumerate(jax.random.split(jax.random.key(1), len(VIEWS))):
        decision, out = step(fresh if FIRST[t] else carry, at(t), key)
        carry = decision.carry
        outputs.append(out)
        steps.append(decision)
    trajectory = Trajectory(
        observation=seen,
        first=jnp.asarray(FIRST),
        carry=before,
        actions=jnp.stack([each.actions for each in steps[:-1]]),
        extras=jnp.stack([each.extras for each in steps[:-1]]),
        reward=jnp.arange(5.0),
        discount=jnp.ones(5),
        mask=jnp.asarray([1.0, 1, 0, 1, 1]),
    )
    return algorithm, learner, network, params, trajectory, jnp.stack(outputs)


@pytest.mark.parametrize("readout", but_slow(READOUTS, {"average"}))
def test_what_has_acted_is_unrolled_again(readout):
    """The same draws and ancestors, across the border of two episodes."""
    *_, network, params, trajectory, outputs = played(readout)
    again = jax.jit(lambda params: network.bind(params).unroll(trajectory))(params)
    np.testing.assert_allclose(again[:-1], outputs[:-1], rtol=1e-5, atol=1e-6)
    assert again.shape == (6, 2, 3 + 2)
    assert np.abs(outputs[1, 0] - outputs[2, 0]).max() > 1e-3  # another step, another output


def test_an_agent_sees_nothing_of_anothers_particles():
    """Another history of agent 2 changes its own outputs, and no number of agent 1's."""
    *_, network, params, trajectory, _ = played("rnn")
    views = trajectory.observation.agents_view
    other = trajectory._replace(
        observation=trajectory.observation._replace(agents_view=views.at[:, 1].set(views[::-1, 1])),
        actions=trajectory.actions.at[:, 1].set(2 - trajectory.actions[:, 1]),
    )
    unroll = jax.jit(lambda trajectory: network.bind(params).unroll(trajectory))
    one, two = unroll(trajectory), unroll(other)
    np.testing.assert_array_equal(one[:, 0], two[:, 0])
    assert np.abs(one[:, 1] - two[:, 1]).max() > 1e-3


def layers(params, inputs):
    """An MLP of one hidden layer in NumPy."""
    hidden, last = params["Dense_0"], params["Dense_1"]
    features = np.maximum(inputs @ hidden["kernel"] + hidden["bias"], 0)
    return features @ last["kernel"] + last["bias"]


def normal_log_density(parameters, value):
    mean, log_scale = np.split(parameters, 2)
    return stats.norm.logpdf(value, mean, np.exp(np.clip(log_scale, -5, 2))).sum()


@pytest.mark.parametrize("one_hot", [True, False])
def test_a_particles_weight_is_that_of_the_thesis(one_hot):
    """`p(z|h, a) p(o|h, z, a) / q(z|h, a, o)` of the z that was drawn (5.4, with the action)."""
    agent = ParticleAgent(3, 4, one_hot, (5,), 2, "average")
    rng = np.random.default_rng(0)
    view = np.eye(4)[1] if one_hot else rng.normal(size=4)
    sight = Sight(jnp.float32(view), jnp.array([0.0, 1.0, 0.0]))
    state = Hypothesis(jnp.float32(rng.normal(size=5)), jnp.zeros(2))
    shapes = jax.eval_shape(agent.init, *[jax.random.key(0)] * 2, sight, jnp.ones(3, bool))
    params = randomised(shapes, 1)
    moved = agent.apply(params, jax.random.key(2), state, sight, method="extend")
    parts = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["params"])
    z, context = np.asarray(moved.state.latent, float), np.concatenate([state.hidden, sight.context])
    predicted = layers(parts["decoder"], np.concatenate([state.hidden, z, sight.context]))
    log_view = (
        predicted[1] - np.log(np.exp(predicted).sum())
        if one_hot
        else stats.norm.logpdf(view, predicted).sum()
    )
    prior = normal_log_density(layers(parts["transition"], context), z)
    proposal = normal_log_density(layers(parts["proposal"], np.concatenate([context, view])), z)
    assert float(moved.log_weight) == pytest.approx(prior + log_view - proposal, rel=1e-4)
    assert moved.log_proposal == 0


def test_the_average_of_the_particles_policies():
    """Equation 5.6 with weights 1/4 and 3/4, and an action that is not available."""
    agent = ParticleAgent(3, 4, True, (2,), 1, "average")
    sight = Sight(jnp.eye(4)[0], jnp.zeros(3))
    params = jax.eval_shape(agent.init, *[jax.random.key(0)] * 2, sight, jnp.ones(3, bool))
    kernel = jnp.array([[1.0, 2.0, 3.0, 10.0], [0.0, 1.0, 0.0, 20.0]])  # logits and the value
    params = {"params": {**randomised(params["params"], 0), "head": {"kernel": kernel, "bias": jnp.zeros(4)}}}
    cloud = Particles(
        Hypothesis(jnp.array([[1.0, 0.0], [0.0, 2.0]]), jnp.zeros((2, 1))), jnp.log(jnp.array([0.25, 0.75]))
    )
    mask = jnp.array([True, True, False])
    outputs = agent.apply(params, cloud, jnp.float32(-0.5), mask, method="outputs")
    each = np.exp([[1.0, 2.0], [0.0, 2.0]])
    policy = np.array([0.25, 0.75]) @ (each / each.sum(1, keepdims=True))
    np.testing.assert_allclose(np.exp(log_policies(outputs, mask)), [*policy, 0], rtol=1e-5, atol=1e-12)
    np.testing.assert_allclose(outputs[3:], [-0.5, 0.25 * 10 + 0.75 * 40], rtol=1e-6)


def test_the_second_rnn_reads_the_weights():
    agent = ParticleAgent(3, 4, True, (5,), 2, "rnn")
    sight = Sight(jnp.eye(4)[0], jnp.zeros(3))
    shapes = jax.eval_shape(agent.init, *[jax.random.key(0)] * 2, sight, jnp.ones(3, bool))
    params, rng = randomised(shapes, 0), np.random.default_rng(0)
    state = Hypothesis(jnp.float32(rng.normal(size=(2, 5))), jnp.float32(rng.normal(size=(2, 2))))
    found = [
        agent.apply(
            params,
            Particles(state, jnp.log(jnp.array(w))),
            jnp.zeros(()),
            jnp.ones(3, bool),
            method="outputs",
        )
        for w in ([0.25, 0.75], [0.75, 0.25])
    ]
    assert np.abs(found[0] - found[1]).max() > 1e-3


@pytest.mark.slow
def test_the_gradient_of_the_bound_is_that_of_finite_differences():
    """Resampling off, where nothing is left out: along five directions, of all networks of the model."""
    env = envs.make("hmm")
    algorithm = baselines.make("dvrl", **SMALL, resampling=False)
    network = algorithm.network(GameSpec.of(env))
    one = env.observe(env.reset(jax.random.key(0))[0])
    seen = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (4, *leaf.shape)), one)
    trajectory = Trajectory(
        observation=seen._replace(agents_view=jax.nn.one_hot(jnp.array([[1], [1], [0], [1]]), 2)),
        first=jnp.array([True, False, False, False]),
        carry=(),
        actions=jnp.zeros((3, 1), jnp.int32),
        extras=jax.vmap(jax.random.key_data)(jax.random.split(jax.random.key(3), 3)),
        reward=jnp.zeros(3),
        discount=jnp.ones(3),
        mask=jnp.ones(3),
    )
    params = randomised(jax.eval_shape(network.init, jax.random.key(0), one), 0, 0.4)

    @jax.jit
    @jax.value_and_grad
    def loss(params):
        outputs = network.bind(params).unroll(trajectory)
        return jnp.sum(algorithm.method.model_loss(outputs[:-1]))

    _, gradient = loss(params)
    model = {
        name: gradient["params"]["agent"][name] for name in ("transition", "proposal", "decoder", "cell")
    }
    assert all(np.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(model))
    width = 1e-2
    for seed in range(5):
        direction = randomised(params, seed + 1, 1.0)
        length = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(direction)))

        def along(step, direction=direction, length=length):
            moved = jax.tree.map(lambda at, towards: at + step / length * towards, params, direction)
            return float(loss(moved)[0])

        slope = sum(
            jax.tree.leaves(jax.tree.map(lambda g, each: float(jnp.sum(g * each)), gradient, direction))
        )
        # Two widths cancel the error of the second order.
        near, far = ((along(w) - along(-w)) / (2 * w) for w in (width, 2 * width))
        assert (4 * near - far) / 3 == pytest.approx(slope / length, abs=2e-3)


def test_the_loss_of_the_model_is_minus_the_evidence_of_all_agents():
    method = baselines.make("dvrl", elbo_coefficient=0.5).method
    outputs = jnp.arange(2 * 2 * 5.0).reshape(2, 2, 5)  # the evidence is 3 and 8, then 13 and 18
    np.testing.assert_allclose(method.model_loss(outputs), [-5.5, -15.5])
    assert baselines.make("a2c").method.model_loss(outputs) is None


def test_no_particles(bad_input):
    with bad_input("particles must be at least 1, not 0"):
        baselines.make("dvrl", particles=0)
    with bad_input("readout must be rnn or average, not mean"):
        baselines.make("dvrl", readout="mean")


def test_particles_that_do_not_fit_into_memory_are_refused_before_they_are_made(bad_input, monkeypatch):
    """Each is 2 latents, 5 hidden numbers and a weight, of 4 bytes each; a rollout has 6 rows of them."""
    spec, algorithm = GameSpec.of(envs.make("tiger")), baselines.make("dvrl", **SMALL | {"particles": 10**6})
    needed = 6 * 16 * (10**6 * 8 * 4 + 4)  # and the last action
    monkeypatch.setattr(memory, "free_bytes", lambda: needed)
    algorithm.bind(spec, num_envs=16)
    monkeypatch.setattr(memory, "free_bytes", lambda: needed - 1)
    with bad_input("1,000,000 particles at 6 steps of 16 environment(s) would take 3.07 GB of memory"):
        algorithm.bind(spec, num_envs=16)
    monkeypatch.setattr(memory, "free_bytes", lambda: 10**6)
    with bad_input("1,000,000 particles would take 32 MB of memory"):
        algorithm.bind(spec)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--env", "differential"], "the algorithm needs discrete actions, but DifferentialGame has contin"),
        (["--env", "tiger", "--particles", "0"], "particles must be at least 1, not 0"),
    ],
)
def test_bad_input_on_the_command_line(monkeypatch, capsys, tmp_path, flags, says):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py", "--algo", "dvrl", *flags, "--out", "run"])
    with pytest.raises(SystemExit) as stop:
        cli.run(train_script.main)
    said = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2 and len(said) == 1 and says in said[0]


# What it learns

STAY, HEAR = 0.95, 0.9


def sticky():
    """A chain of two states that mostly stays, seen by a sensor that is mostly right; actions do nothing."""
    move, sign = (np.array([[p, 1 - p], [1 - p, p]]) for p in (STAY, HEAR))
    return team_pomdp(
        np.broadcast_to(move[:, None], (2, 2, 2)),
        np.zeros((2, 2)),
        np.broadcast_to(sign, (1, 2, 2, 2)),
        first_private=sign[None],
        start=[0.5, 0.5],
        time_limit=10,
    )


def entropy_per_step(env):
    """-E log p(o_0, ..., o_9) / 10 by enumeration."""
    with jax.enable_x64(True):
        model, none = env.hidden_model(), jnp.zeros((9, 1), int)
        signs = jnp.asarray(list(itertools.product(range(2), repeat=10)))[..., None]
        logs = jax.vmap(
            lambda private: jnp.sum(
                belief.bayes_filter(belief.chain_of(model, none, jnp.zeros(10, int), private)).log_evidence
            )
        )(signs)
        return float(-jnp.sum(jnp.exp(logs) * logs) / 10)


@pytest.mark.slow
def test_the_learned_model_comes_near_the_exact_evidence():
    """500 steps up the bound: within .05 nats a step of the entropy; a model without memory is .199 away."""
    env = sticky()
    exact = entropy_per_step(env)
    assert np.log(2) - exact == pytest.approx(0.1989, abs=1e-4)
    algorithm = baselines.make("dvrl", hidden=(16,), latent_size=4)
    network = algorithm.network(GameSpec.of(env))
    one, batch = env.observe(env.reset(jax.random.key(0))[0]), 64
    seen = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (10, *leaf.shape)), one)

    def draw(key):
        """What is seen in an episode, `(10, 1)`."""
        moves, signs = jax.random.uniform(key, (2, 10))
        state = jnp.cumsum(moves > jnp.full(10, STAY).at[0].set(0.5)) % 2
        return jnp.where(signs < HEAR, state, 1 - state)[:, None]

    def loss(params, key):
        sign_key, filter_key = jax.random.split(key)
        trajectory = Trajectory(
            observation=seen._replace(agents_view=jax.nn.one_hot(draw(sign_key), 2)),
            first=jnp.arange(10) == 0,
            carry=(),
            actions=jnp.zeros((9, 1), jnp.int32),
            extras=jax.vmap(jax.random.key_data)(jax.random.split(filter_key, 9)),
            reward=jnp.zeros(9),
            discount=jnp.ones(9),
            mask=jnp.ones(9),
        )
        return jnp.mean(algorithm.method.model_loss(network.bind(params).unroll(trajectory)))

    optimiser = optax.adam(5e-3)

    def step(carry, key):
        params, state = carry
        value, gradient = jax.value_and_grad(
            lambda params: jnp.mean(jax.vmap(loss, (None, 0))(params, jax.random.split(key, batch)))
        )(params)
        updates, state = optimiser.update(gradient, state)
        return (optax.apply_updates(params, updates), state), value

    params = network.init(jax.random.key(1), one)
    run = jax.jit(lambda carry, keys: jax.lax.scan(step, carry, keys)[1])
    losses = np.asarray(run((params, optimiser.init(params)), jax.random.split(jax.random.key(2), 500)))
    assert abs(losses[-100:].mean() - exact) < 0.05
    assert losses[0] > 0.65
