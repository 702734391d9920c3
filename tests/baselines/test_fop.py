"""FOP: its mixer, its losses step by step, the optimum of its policies, and what it learns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import baselines
import envs
from envs.matrix_games import matrix_game
from jaxmarl_fac.experience import Trajectory
from jaxmarl_fac.experiment import Experiment
from jaxmarl_fac.game import GameSpec
from jaxmarl_fac.loop import train
from jaxmarl_fac.mixers import FOPMixer, MixerInputs, QattenMixer
from tests.baselines.learners import randomised
from tests.engine.memory.games import stages_at_random
from tests.helpers import but_slow, clock_at, first_observation


def dense(layer, inputs):
    return inputs @ layer["kernel"] + layer["bias"]


def mlp(params, inputs):
    layers = [params[name] for name in sorted(params)]
    for layer in layers[:-1]:
        inputs = np.maximum(dense(layer, inputs), 0)
    return dense(layers[-1], inputs)


def softmax(logits):
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("seed", but_slow(range(3), [0]))
def test_the_mixer_is_its_formula(seed):
    n, count, heads, embed, kernels = 3, 2, 2, 4, 3
    rng = np.random.default_rng(seed)
    values, soft = np.float32(rng.normal(size=(2, n)))
    inputs = MixerInputs(
        values, soft, np.eye(count, dtype=np.float32)[[0, 1, 1]], np.float32(rng.normal(size=(n, 5))),
        np.float32(rng.normal(size=4)),
    )  # fmt: skip
    mixer = FOPMixer(kernels, (6,), heads, embed, 7)
    params = randomised(jax.eval_shape(mixer.init, jax.random.key(seed), inputs), seed)
    found = float(jax.jit(mixer.apply)(params, inputs))

    own = jax.tree.map(np.asarray, params)["params"]
    state, views = inputs.global_state, np.concatenate([inputs.agents_view, np.eye(n)], axis=-1)
    keys = (views @ own["key"]["kernel"]).reshape(n, heads, embed)
    query = mlp(own["query"], state).reshape(heads, embed)
    attention = softmax(np.einsum("he,nhe->hn", query, keys) / np.sqrt(embed))
    eta = np.abs(mlp(own["head_weight"], state)) @ attention
    importance = np.zeros(n)
    for k in range(kernels):
        one = {
            name: jax.tree.map(lambda leaf, k=k: leaf[k], own[name]) for name in ("keys", "agents", "actions")
        }
        both = np.concatenate([state, inputs.actions.ravel()])
        sigmoids = [
            1 / (1 + np.exp(-mlp(one[name], x))) for name, x in (("agents", state), ("actions", both))
        ]
        importance += np.abs(mlp(one["keys"], state)) * sigmoids[0] * sigmoids[1]
    assert (eta > 0).all()
    assert (importance > 0).all()
    expected = np.sum(eta * values + mlp(own["bias"], state))
    expected += np.sum((importance - 1) * eta * (values - soft))
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-4)


@pytest.mark.slow
def test_the_mixers_weights_are_qattens():
    """Where values are soft values there are no advantages, and what remains is linear in the values."""
    rng = np.random.default_rng(0)
    inputs = MixerInputs(
        *(np.float32(rng.normal(size=shape)) for shape in ((3,), (3,), (3, 2), (3, 5), (4,)))
    )
    mixer, qatten = FOPMixer(heads=2, embed=4), QattenMixer(heads=2, embed=4)
    params = randomised(mixer.init(jax.random.key(0), inputs), 0)
    shared = {name: params["params"][name] for name in ("key", "query", "head_weight")}
    of_qatten = qatten.init(jax.random.key(0), inputs)["params"] | shared

    def slopes(module, params):
        def value(values):
            return module.apply(params, inputs._replace(utilities=values, best_utilities=values))

        return jax.grad(value)(inputs.utilities)

    np.testing.assert_allclose(slopes(mixer, params), slopes(qatten, {"params": of_qatten}), rtol=1e-5)


def batch_of(env, seed, batch=3, length=4):
    """Random episodes, some of them shorter: which steps follow which does not matter to a loss."""
    rng = np.random.default_rng(seed)
    observations = []
    for _ in range(batch * (length + 1)):
        state, _ = env.reset(jax.random.key(rng.integers(10**6)))
        observations.append(env.observe(state))
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves).reshape(batch, length + 1, *leaves[0].shape),
                           *observations)  # fmt: skip
    lengths = np.arange(batch) + length - batch + 1
    discount = np.ones((batch, length), np.float32)
    discount[0, lengths[0] - 1] = 0  # one terminates, the others are cut short
    return Trajectory(
        observation=stacked,
        first=jnp.zeros((batch, length + 1), bool).at[:, 0].set(True),
        carry=(),
        actions=jnp.asarray(rng.integers(0, env.num_actions - 1, (batch, length, env.num_agents)), jnp.int32),
        extras=(),
        reward=jnp.float32(rng.normal(size=(batch, length))),
        discount=jnp.asarray(discount),
        mask=jnp.float32(np.arange(length) < lengths[:, None]),
    ), lengths


@pytest.mark.slow
@pytest.mark.parametrize("recurrent", [False, True])
def test_the_losses_step_by_step(recurrent):
    """Against the formulas in loops: networks see one observation after the other."""
    env, gamma, lambda_, alpha = stages_at_random(), 0.9, 0.6, 0.3
    algorithm = baselines.make(
        "fop", hidden=(5,), kernel_hidden=(4,), gamma=gamma, td_lambda=lambda_, recurrent=recurrent
    )
    network = algorithm.network(GameSpec.of(env))
    fresh = network.init(jax.random.key(0), first_observation(env))
    online, target = (network.bind(randomised(fresh, seed)) for seed in (1, 2))
    batch, lengths = batch_of(env, 3)
    losses = jax.jit(
        lambda trajectory, key: algorithm.losses(online, target, trajectory, jnp.float32(alpha), key)
    )
    mixes, later_mixes = (
        [jax.jit(lambda *inputs, critic=critic: critic.mix(*inputs, alpha)) for critic in networks.critics]
        for networks in (online, target)
    )
    for b, length in enumerate(lengths):
        trajectory = jax.tree.map(lambda leaf, b=b: leaf[b], batch)
        key = jax.random.key(b)
        found = losses(trajectory, key)

        def agent_outputs(agent, trajectory=trajectory):
            """Of every observation, `(T + 1, n, A)`."""
            carry, rows = agent.fresh(env.num_agents) if recurrent else None, []
            for t in range(len(trajectory.first)):
                view = trajectory.observation.agents_view[t]
                outputs, features = agent(view, carry) if recurrent else agent(view)
                rows.append(np.asarray(outputs))
                if recurrent and t < len(trajectory.actions):
                    carry = carry._replace(hidden=features, last_actions=trajectory.actions[t])
            return np.stack(rows)

        masks = np.asarray(trajectory.observation.action_mask)
        logits = np.where(masks, np.float64(agent_outputs(online.agent)), -1e9)
        logs = np.log(np.maximum(softmax(logits), 1e-300))
        drawn = np.asarray(jax.random.categorical(key, jnp.log(jnp.exp(jnp.float32(logs[1:])))))
        own = [agent_outputs(critic.agent) for critic in online.critics]
        later = [agent_outputs(critic.agent) for critic in target.critics]
        agents = range(env.num_agents)

        def q_jt(mix, values, t, actions, trajectory=trajectory):
            observation = jax.tree.map(lambda leaf: leaf[t], trajectory.observation)
            return float(mix(jnp.asarray(values[t]), jnp.asarray(actions), observation))

        following = [
            min(q_jt(mix, values, t + 1, drawn[t]) for mix, values in zip(later_mixes, later, strict=True))
            - alpha * np.mean([logs[t + 1, i, drawn[t, i]] for i in agents])
            for t in range(length)
        ]
        goal = following[length - 1]
        for t in reversed(range(length)):
            bootstrap = (1 - lambda_) * following[t] + lambda_ * goal
            goal = float(trajectory.reward[t]) + gamma * float(trajectory.discount[t]) * bootstrap
            taken = [
                q_jt(mix, values, t, trajectory.actions[t]) for mix, values in zip(mixes, own, strict=True)
            ]
            assert found["critic_loss"][t] == pytest.approx(sum((q - goal) ** 2 for q in taken), rel=1e-3)
            assert found["mean_q_tot"][t] == pytest.approx(taken[0], rel=1e-4, abs=1e-5)
            loss = 0.0
            for i in agents:
                for a in np.flatnonzero(masks[t, i]):
                    least = min(own[0][t, i, a], own[1][t, i, a])
                    loss += np.exp(logs[t, i, a]) * (alpha * logs[t, i, a] - least) / env.num_agents
            assert found["policy_loss"][t] == pytest.approx(loss, rel=1e-3, abs=1e-5)


def test_the_entropy_weights_schedule():
    """The release's `max(.05, .5 - t / 200,000)`, which ends at 90,000."""
    algorithm = baselines.make("fop")
    for env_steps in (0, 10_000, 45_000, 90_000, 500_000):
        expected = max(0.05, 0.5 - env_steps / 200_000)
        assert float(algorithm.alpha(clock_at(env_steps))) == pytest.approx(expected, abs=1e-6)


def learned(env, seeds, **settings):
    experiment = Experiment(
        algorithm=baselines.make(
            "fop",
            hidden=(16,),
            learning_rate=5e-3,
            target_period=50,
            batch_size=8,
            update_period=2,
            **settings,
        ),
        environment=env,
        seeds=tuple(range(seeds)),
        env_steps=4000,
        evaluations=1,
        evaluation_episodes=1,
    )
    return experiment.algorithm, train(experiment)


@pytest.mark.slow
def test_policies_are_boltzmann_at_the_optimum():
    """`alpha log pi_i = Q_i - V_i`: after training, on average over 8 seeds, to a tenth of alpha."""
    env, alpha = matrix_game([[2.0, 0.0], [0.0, 1.0]]), 0.5
    algorithm, result = learned(
        env, 8, alpha_start=alpha, alpha_end=alpha, epsilon_start=0.3, epsilon_end=0.3,
        learning_rate_schedule="linear",
    )  # fmt: skip
    network, observation = algorithm.network(GameSpec.of(env)), first_observation(env)

    def apart(params):
        bound = network.bind(params)
        values = jnp.minimum(*(critic.utilities(observation) for critic in bound.critics))
        log_policy = jax.nn.log_softmax(bound.utilities(observation))
        soft = alpha * jax.nn.logsumexp(values / alpha, axis=-1, keepdims=True)
        return jnp.max(jnp.abs(alpha * log_policy - (values - soft)))

    assert np.mean(jax.vmap(apart)(result.learner.params)) < 0.1 * alpha


@pytest.mark.slow
@pytest.mark.parametrize("recurrent", [True, False])
def test_fop_finds_a_joint_optimum(recurrent):
    """Two of three actions of each agent agree well, 4 or 3: 15 of 16 seeds must find one of them."""
    env = matrix_game([[4.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 0.0]])
    _, result = learned(env, 16, recurrent=recurrent, epsilon_steps=2000, alpha_steps=2000)
    assert (result.history.last["episode_return"] >= 3).mean() >= 15 / 16


@pytest.mark.parametrize("settings", [{}, {"td_lambda": 0.0, "recurrent": True}])
def test_what_looks_further_needs_episodes(bad_input, settings):
    with bad_input("consume episodes"):
        baselines.make("fop", consumes="transitions", **settings)


def test_games_that_it_cannot_play(bad_input):
    with bad_input("discrete"):
        baselines.make("fop").bind(GameSpec.of(envs.make("differential")))
    with bad_input("reward"):
        baselines.make("fop").bind(GameSpec.of(envs.make("matrix-pr2")))
