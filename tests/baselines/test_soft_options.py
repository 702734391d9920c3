"""Soft options, of one agent and delayed of two: losses, acting, fixed points, and what they learn."""

import dataclasses
import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import baselines
import envs
from baselines.soft_options import FollowedOptions, OptionMemory, learned_tables
from envs.option_mdp import coordination_options, random_option_mdp, two_state_options
from jaxmarl_fac.experiment import Experiment
from jaxmarl_fac.game import GameSpec
from jaxmarl_fac.loop import train
from jaxmarl_fac.play import Player
from jaxmarl_fac.program import Program
from jaxmarl_fac.soft.options import option_game, solve
from tests.helpers import but_slow, clock_at, first_observation, transitions
from tests.reference import option_learners as reference

NUMBERS = {"beta": 1.5, "gamma": 0.8, "termination_prior": 0.3}
ALONE = random_option_mdp(3, agents=1, actions=3, options=2)
PAIR = random_option_mdp(4, agents=2, actions=3, options=2)
KINDS = {
    "single": ("soft-options", {}, ALONE),
    "delayed": ("delayed-options", {}, PAIR),
    "no-message": ("delayed-options", {"message": False}, PAIR),
}
every_kind = pytest.mark.parametrize("kind", but_slow(KINDS, ["single"]))


def made(kind, **changes):
    name, settings, _ = KINDS[kind]
    return baselines.make(name, **{**NUMBERS, **settings, **changes})


def game_of(kind):
    return KINDS[kind][2]


@functools.cache
def observations(env):
    """Of every state, with a leading axis."""
    state = env.reset(jax.random.key(0))[0]
    return jax.vmap(lambda number: env.observe(state.replace(state=number)))(
        jnp.arange(env.num_states, dtype=jnp.int16)
    )


def observation_at(env, number):
    return jax.tree.map(operator.itemgetter(number), observations(env))


# Parameters of linear networks as tables, and back


def network_names(model):
    names = {"q": model.axes}
    for choice in model.choices:
        names[f"{choice.variable}_value"] = choice.given
        names[f"{choice.variable}_policy"] = (*choice.given, choice.variable)
    return names


def params_from(tables):
    """Parameters whose outputs are these tables `(n, S, ...)`, by the names of the networks."""
    layers = {
        name: {
            "Dense_0": {
                "kernel": jax.device_put(np.asarray(table).reshape(*table.shape[:2], -1)),
                "bias": jax.device_put(
                    np.zeros((len(table), table.size // np.prod(table.shape[:2])), np.float32)
                ),
            }
        }
        for name, table in tables.items()
    }
    return {"params": {name: layers[name] for name in tables}}


def tables_from(params, shapes):
    """The inverse of `params_from`."""
    found = {}
    for name, shape in shapes.items():
        layer = params["params"][name]["Dense_0"]
        flat = np.asarray(layer["kernel"]) + np.asarray(layer["bias"])[:, None]
        found[name] = flat.reshape(*flat.shape[:2], *shape)
    return found


def shapes_of(algorithm, env):
    game = GameSpec.of(env)
    sizes = algorithm.network(game).sizes
    return {
        name: tuple(sizes[axis] for axis in axes) for name, axes in network_names(algorithm.model).items()
    }


def random_tables(algorithm, env, seed):
    rng = np.random.default_rng(seed)
    lead = (env.num_agents, env.num_states)
    return {
        name: jax.device_put(rng.normal(size=(*lead, *shape)).astype(np.float32))
        for name, shape in shapes_of(algorithm, env).items()
    }


def at_state(tables, agent, state):
    """As the reference takes them: q, values and logits of one agent in one state."""
    own = {name: np.asarray(table)[agent, state].astype(np.float64) for name, table in tables.items()}
    parts = {
        kind: {n[: -len(kind) - 1]: t for n, t in own.items() if n.endswith(kind)}
        for kind in ("value", "policy")
    }
    return own["q"], parts["value"], parts["policy"]


# One update against the reference


def random_batch(env, size, seed):
    """Steps between random states, and options that were followed."""
    rng = np.random.default_rng(seed)
    n, m = env.num_agents, env.num_options
    states, after = rng.integers(env.num_states, size=(2, size))
    batch = transitions(
        jax.tree.map(lambda leaf: np.asarray(leaf)[states], observations(env)),
        rng.integers(env.num_actions, size=(size, n)),
        rng.normal(size=size),
        rng.integers(2, size=size).astype(np.float32),
        jax.tree.map(lambda leaf: np.asarray(leaf)[after], observations(env)),
    )
    options, previous = (jax.device_put(rng.integers(m, size=(size, 1, n)).astype(np.int8)) for _ in range(2))
    return batch._replace(extras=FollowedOptions(options, previous)), states, after


def reference_update(algorithm, env, tables, targets, batch, states, after):
    """Losses and gradients by tables `(n, S, ...)`, averaged over the batch."""
    size, n = len(states), env.num_agents
    counted = "all" if algorithm.relabel else "followed"
    settings = {"beta": NUMBERS["beta"], "gamma": NUMBERS["gamma"], "ends": NUMBERS["termination_prior"]}
    losses, slopes = {}, {name: np.zeros(table.shape) for name, table in tables.items()}
    for agent in range(n):
        order = [agent, *(other for other in range(n) if other != agent)]
        for sample, (state, following) in enumerate(zip(states, after, strict=True)):
            own = at_state(tables, agent, state)
            value = np.asarray(targets["termination_value"][agent, following], np.float64)
            priors = [np.asarray(env.action_priors[other][state], np.float64) for other in order]
            step = [
                *(
                    [int(each[sample, 0, other]) for other in order]
                    for each in (batch.actions, *batch.extras)
                ),
                float(batch.reward[sample, 0]),
                float(batch.discount[sample, 0]),
            ]
            if n == 1:
                found = reference.single(own, priors, value, step, counted=counted, **settings)
            else:
                message = algorithm.message
                found = reference.delayed(
                    own, priors, value, step, counted=counted, message=message, **settings
                )
            for name, loss in found[0].items():
                losses[f"{name}_loss"] = losses.get(f"{name}_loss", 0) + loss / (size * n)
            slopes["q"][agent, state] += found[1][0] / size
            for kind, grads in zip(("value", "policy"), found[1][1:], strict=True):
                for name, grad in grads.items():
                    slopes[f"{name}_{kind}"][agent, state] += grad / size
    return losses, slopes


@pytest.mark.parametrize(
    ("kind", "relabel"),
    [
        ("delayed", False),
        *(
            pytest.param(*each, marks=pytest.mark.slow)
            for each in (
                ("single", True),
                ("single", False),
                ("delayed", True),
                ("no-message", True),
                ("no-message", False),
            )
        ),
    ],
)
def test_one_update_is_the_references(kind, relabel):
    """Adam with a huge epsilon is gradient descent, which shows sizes; biases learn what all states share."""
    env = game_of(kind)
    algorithm = made(kind, relabel=relabel, adam_eps=1e6, learning_rate=1e5, target_rate=0.25)
    learner = algorithm.bind(GameSpec.of(env))
    tables, targets = random_tables(algorithm, env, 1), random_tables(algorithm, env, 2)
    batch, states, after = random_batch(env, 7, 3)
    params = params_from(tables)
    state = jax.jit(learner.init)(jax.random.key(0)).replace(
        params=params, target_params=params_from(targets), opt_state=jax.jit(algorithm.optimiser.init)(params)
    )
    updated, metrics = jax.jit(learner.update)(state, batch, clock_at(), jax.random.key(0))
    losses, slopes = reference_update(algorithm, env, tables, targets, batch, states, after)
    assert set(metrics) == set(losses)
    for name, loss in losses.items():
        np.testing.assert_allclose(metrics[name], loss, rtol=1e-4, atol=1e-5)
    shapes = shapes_of(algorithm, env)
    moved = tables_from(updated.params, shapes)
    for name, slope in slopes.items():
        shared = slope.sum(axis=1, keepdims=True)  # by the bias
        expected = np.asarray(tables[name]) - 0.1 * (slope + shared)
        np.testing.assert_allclose(moved[name], expected, atol=3e-5, err_msg=name)
        target = tables_from(updated.target_params, shapes)[name]
        np.testing.assert_allclose(target, 0.25 * moved[name] + 0.75 * np.asarray(targets[name]), atol=3e-5)


# The exact solution is where nothing changes


def exact(kind_or_algorithm, env):
    """Every agent's exact solution, with leading axes `(n, S)`."""
    algorithm = made(kind_or_algorithm) if isinstance(kind_or_algorithm, str) else kind_or_algorithm
    with jax.enable_x64(True):
        game = option_game(
            env.model(),
            env.action_priors,
            termination_prior=algorithm.termination_prior,
            beta=algorithm.beta,
            gamma=algorithm.gamma,
        )
        sides = [solve(game.seen_by(agent), algorithm.model) for agent in range(env.num_agents)]
        return jax.tree.map(lambda *leaves: np.stack(leaves), *sides)


def exact_tables(algorithm, env):
    """The networks' outputs of the exact solution: those of policies are log π, less the log-prior."""
    solution = exact(algorithm, env)
    blank = params_from({name: 0 * table for name, table in random_tables(algorithm, env, 0).items()})
    priors = read_tables(algorithm, env)(blank)
    tables = {"q": solution.q}
    for choice in algorithm.model.choices:
        name = choice.variable
        tables[f"{name}_value"] = solution.values[name]
        tables[f"{name}_policy"] = np.log(solution.policies[name]) - np.log(np.asarray(priors.policies[name]))
    return {name: jnp.asarray(table, jnp.float32) for name, table in tables.items()}


@every_kind
def test_gradients_vanish_at_the_exact_solution(kind):
    """In expectation over next states, for every state and joint action."""
    env, algorithm = game_of(kind), made(kind)
    game, model = GameSpec.of(env), env.model()
    params = params_from(exact_tables(algorithm, env))
    cells = [np.asarray(each) for each in np.meshgrid(*map(np.arange, model.transition.shape), indexing="ij")]
    states, *actions, after = (each.reshape(-1) for each in cells)
    chances = np.asarray(model.transition).reshape(-1)
    batch = transitions(
        jax.tree.map(lambda leaf: leaf[states], observations(env)),
        jnp.asarray(np.stack(actions, axis=-1), jnp.int32),
        jnp.broadcast_to(model.reward[..., None], model.transition.shape).reshape(-1),
        jnp.ones(len(chances)),
        jax.tree.map(lambda leaf: leaf[after], observations(env)),
    )
    blank = jnp.zeros((len(chances), 1, env.num_agents), jnp.int8)
    batch = batch._replace(extras=FollowedOptions(blank, blank))

    def expected(params, agent, frozen):
        def loss(step):
            return sum(algorithm.losses(game, agent, params, frozen, step).values())

        return jnp.sum(jnp.asarray(chances) * jax.vmap(loss)(batch))

    @jax.jit
    def slope(agent):
        own = jax.tree.map(lambda leaf: leaf[agent], params)
        return jax.grad(expected)(own, agent, own)

    for agent in range(env.num_agents):
        for each in jax.tree.leaves(slope(jnp.int32(agent))):
            np.testing.assert_allclose(each, 0, atol=2e-5)
    # And the exact tables are read as they were put in.
    solution, read = exact(algorithm, env), read_tables(algorithm, env)(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), read, solution)


def test_a_known_message_is_worth_something_and_is_told_late():
    """The worked example: W(z̄_o, z̄_i) of one state, printed numbers."""
    algorithm = baselines.make("delayed-options", gamma=0.5)
    solution = exact(algorithm, coordination_options())
    for agent in range(2):
        np.testing.assert_allclose(
            solution.values["termination"][agent, 0],
            [[2.807173, 2.225270], [2.225270, 1.984293]],
            atol=1e-5,
        )


# Acting


@functools.cache
def compiled_play(algorithm, steps, episodes, greedily):
    """See `play`; games and parameters of one shape share what is compiled."""

    def play_all(env, params, keys):
        learner = algorithm.bind(GameSpec.of(env))

        def episode(key):
            begin_key, key = jax.random.split(key)
            state, _ = env.reset(begin_key)
            carry = learner.begin(params, env.observe(state), begin_key)

            def step(playing, key):
                state, carry = playing
                act_key, env_key = jax.random.split(key)
                observation = env.observe(state)
                if greedily:
                    decision = learner.act_greedily(params, carry, observation, act_key)
                else:
                    decision = learner.act(params, carry, observation, clock_at(), act_key)
                after, _ = env.step(state.replace(key=env_key), decision.actions)
                stored = jnp.stack([decision.extras.previous, decision.extras.options])
                told = (stored == jnp.stack([carry.options, decision.carry.options])).all()
                return (after, decision.carry), (
                    carry.options,
                    decision.carry.options,
                    decision.actions,
                    told,
                )

            return jax.lax.scan(step, (state, carry), jax.random.split(key, steps))[1]

        return jax.vmap(episode)(keys)

    return jax.jit(play_all)


def play(algorithm, env, params, steps=30, episodes=20, greedily=False):
    """Options before and after each decision and actions, `(episodes, steps, n)`."""
    keys = jax.random.split(jax.random.key(5), episodes)
    env = jax.tree.map(jnp.asarray, env)
    before, after, actions, told = map(
        np.asarray, compiled_play(algorithm, steps, episodes, greedily)(env, params, keys)
    )
    assert told.all()
    np.testing.assert_array_equal(before[:, 1:], after[:, :-1])
    return before, after, actions


def with_outputs(algorithm, env, **outputs):
    """Networks that are 0 but for these outputs, the same in every state, of every agent."""
    shapes = shapes_of(algorithm, env)
    lead = (env.num_agents, env.num_states)
    tables = {name: jnp.zeros((*lead, *shape)) for name, shape in shapes.items()}
    for name, value in outputs.items():
        tables[name] = jnp.broadcast_to(jnp.asarray(value, jnp.float32), (*lead, *shapes[name]))
    return params_from(tables)


ENDS, KEEPS = [-50.0, 50.0], [50.0, -50.0]


@every_kind
def test_agents_start_from_their_priors(kind):
    """20,000 decisions: an option changes with probability p (1 - 1/m), and actions are drawn by it."""
    env, algorithm = game_of(kind), made(kind, epsilon_start=0.0, epsilon_end=0.0)
    params = algorithm.bind(GameSpec.of(env)).init(jax.random.key(0)).params
    before, after, actions = play(algorithm, env, params, steps=50, episodes=400)
    count = before[..., 0].size
    for agent in range(env.num_agents):
        share, rate = (before[..., agent] != after[..., agent]).mean(), 0.3 / 2
        assert abs(share - rate) < 5 * np.sqrt(rate * (1 - rate) / count)
        assert abs(before[:, 0, agent].mean() - 0.5) < 5 * np.sqrt(0.25 / 400)  # the first ones are uniform
    one_state = env.replace(
        option_prior=np.broadcast_to(np.asarray(env.option_prior)[:, :1], env.option_prior.shape)
    )
    before, after, actions = play(algorithm, one_state, params, steps=50, episodes=400)
    for agent in range(env.num_agents):
        for option in range(2):
            taken = actions[..., agent][after[..., agent] == option]
            shares = np.bincount(taken, minlength=3) / len(taken)
            expected = np.asarray(env.action_priors[agent])[0, option]
            assert (np.abs(shares - expected) < 5 * np.sqrt(0.25 / len(taken))).all()


@every_kind
def test_an_option_is_held_until_it_is_ended(kind):
    env, algorithm = game_of(kind), made(kind, epsilon_start=0.0, epsilon_end=0.0)
    held = with_outputs(algorithm, env, termination_policy=KEEPS)
    before, after, _ = play(algorithm, env, held)
    np.testing.assert_array_equal(before, after)
    assert 0 < before[:, 0].mean() < 1
    drawn = with_outputs(algorithm, env, termination_policy=ENDS, option_policy=[-50.0, 50.0])
    _, after, _ = play(algorithm, env, drawn)
    assert (after == 1).all()


@pytest.mark.slow
def test_the_message_is_the_others_option_of_the_step_before():
    """An agent that does as it was told: its action is the other's option of one step earlier, exactly."""
    env = dataclasses.replace(PAIR, option_prior=np.full(PAIR.option_prior.shape, 1 / 3))
    algorithm = made("delayed", epsilon_start=0.0, epsilon_end=0.0, termination_prior=1.0)
    told = 50.0 * jnp.eye(2, 3)[:, None]  # (other_previous, option, action)
    params = with_outputs(algorithm, env, action_policy=told)
    before, after, actions = play(algorithm, env, params)
    np.testing.assert_array_equal(actions, before[..., ::-1])
    assert (actions != after[..., ::-1]).mean() > 0.3  # and not the one of now
    # The option policy hears the same: it copies the other's last option.
    copying = with_outputs(algorithm, env, option_policy=50.0 * jnp.eye(2), termination_policy=ENDS)
    before, after, _ = play(algorithm, env, copying)
    np.testing.assert_array_equal(after, before[..., ::-1])


@pytest.mark.slow
def test_without_a_message_nothing_depends_on_the_others_option():
    env, algorithm = PAIR, made("no-message")
    learner = algorithm.bind(GameSpec.of(env))
    params = params_from(random_tables(algorithm, env, 7))
    keys = jax.random.split(jax.random.key(0), 200)

    def decide(options, key):
        carry = OptionMemory(jnp.asarray(options, jnp.int8))
        return learner.act_greedily(params, carry, first_observation(env), key).actions

    one, other = (jax.vmap(lambda key, o=o: decide(o, key))(keys) for o in ([0, 0], [0, 1]))
    np.testing.assert_array_equal(one[:, 0], other[:, 0])
    assert (one[:, 1] != other[:, 1]).any()


@pytest.mark.slow
def test_a_share_of_the_actions_is_uniform():
    env, algorithm = PAIR, made("delayed", epsilon_start=0.5, epsilon_end=0.5)
    first = with_outputs(algorithm, env, action_policy=[50.0, 0, 0])
    _, _, actions = play(algorithm, env, first, steps=20, episodes=200)
    expected = [0.5 + 0.5 / 3, 0.5 / 3, 0.5 / 3]
    np.testing.assert_allclose(np.bincount(actions.reshape(-1)) / actions.size, expected, atol=0.025)
    _, _, greedy = play(algorithm, env, first, greedily=True)
    assert (greedy == 0).all()


@pytest.mark.slow
def test_options_are_stored_with_the_steps_of_the_loop():
    program = Program(
        Experiment(
            algorithm=made("delayed", learning_starts=10**6, termination_prior=0.5, batch_size=64),
            environment=PAIR,
            seeds=(0,),
            env_steps=100,
            evaluations=1,
        )
    )
    lanes, _ = program.chunk(program.initial_lanes(), 0, 100)
    env = jax.tree.map(operator.itemgetter(0), program.constants.environment)
    _, store = program.bind(env)
    rows = store.transitions(lanes.buffer[0], jnp.arange(100))
    options, previous = (np.asarray(each) for each in rows["extras"])
    assert options.dtype == np.int8 and options.shape == (100, 2)
    np.testing.assert_array_equal(previous[1:], options[:-1])
    assert 0.1 < (options != previous).mean() < 0.4  # .5 (1 - 1/2)


@pytest.mark.slow
def test_animations_show_the_options(tmp_path):
    env = envs.make("buttons-and-doors", time_limit=3)
    algorithm = baselines.make("delayed-options")
    params = algorithm.bind(GameSpec.of(env)).init(jax.random.key(0)).params
    player = Player(algorithm, env, params, 0)
    player.animate(tmp_path / "shown.gif")
    env.animate(player.states(), save_path=str(tmp_path / "hidden.gif"))
    shown, hidden = ((tmp_path / f"{name}.gif").read_bytes() for name in ("shown", "hidden"))
    assert shown[:3] == b"GIF" and shown != hidden


# Networks


@pytest.mark.slow
def test_hidden_layers_start_from_the_priors_too():
    algorithm = made("delayed", hidden=(16, 8))
    params = jax.jit(algorithm.bind(GameSpec.of(PAIR)).init)(jax.random.key(3)).params
    read = jax.jit(lambda params: learned_tables(algorithm, PAIR, params))(params)
    assert not any(np.asarray(table).any() for table in (read.q, *read.values.values()))
    for agent in range(2):
        own, others = PAIR.action_priors[agent], PAIR.action_priors[1 - agent]
        np.testing.assert_allclose(read.policies["action"][agent][:, 0], own, atol=1e-6)
        np.testing.assert_allclose(read.policies["other_action"][agent][:, 1, 2], others, atol=1e-6)
        np.testing.assert_allclose(read.policies["other_termination"][agent][..., 1], 0.3, atol=1e-6)
    kernels = params["params"]["q"]["MLP_0"]["Dense_0"]["kernel"]
    assert kernels.shape == (2, 3, 16) and (kernels[0] != kernels[1]).any()


def test_how_many_networks_there_are():
    counts = {kind: len(network_names(made(kind).model)) for kind in KINDS}
    assert counts == {"single": 7, "delayed": 13, "no-message": 11}


# What they learn


@functools.cache
def read_tables(algorithm, env):
    return jax.jit(lambda params: learned_tables(algorithm, env, params))


def errors(algorithm, env, params):
    """Largest |ΔV| and max KL(exact || learned) over all tables, states and agents."""
    solution = exact(algorithm, env)
    read = jax.tree.map(np.asarray, read_tables(algorithm, env)(params))
    names = [choice.variable for choice in algorithm.model.choices]
    value = max(np.abs(read.values[name] - solution.values[name]).max() for name in names)

    def kl(name):
        p, q = solution.policies[name], read.policies[name]
        return np.sum(
            np.where(p > 0, p * (np.log(np.where(p > 0, p, 1)) - np.log(np.maximum(q, 1e-30))), 0), -1
        ).max()

    return value, max(map(kl, names))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm_id", "env", "settings"),
    [
        ("soft-options", two_state_options(), {"gamma": 0.9}),
        ("soft-options", two_state_options(), {"gamma": 0.9, "relabel": False}),
        ("delayed-options", coordination_options(), {"gamma": 0.5}),
    ],
    ids=["soft-options", "followed", "delayed-options"],
)
def test_learners_find_the_exact_solution(algorithm_id, env, settings):
    """On the worked examples, 16 seeds of 16: every value within .05 and every policy within KL .01."""
    algorithm = baselines.make(algorithm_id, **settings)
    experiment = Experiment(
        algorithm=algorithm, environment=env, seeds=range(16), env_steps=2000, evaluations=1
    )
    result = train(experiment)
    for seed in range(16):
        params = jax.tree.map(lambda leaf, seed=seed: leaf[seed], result.learner.params)
        value, kl = errors(algorithm, env, params)
        assert value < 0.05, seed
        assert kl < 0.01, seed


# Bad input


@pytest.mark.parametrize(
    ("algorithm_id", "env", "says"),
    [
        (
            "delayed-options",
            ALONE,
            "the algorithm is for 2 agents, and OptionMDP has 1: take buttons-and-doors",
        ),
        ("soft-options", PAIR, "the algorithm is for 1 agent, and OptionMDP has 2: take four-rooms"),
        (
            "soft-options",
            envs.make("two-step"),
            "two options or more, and MatrixGame has none: take four-rooms",
        ),
        ("delayed-options", envs.make("differential"), "and DifferentialGame has none: take four-rooms"),
    ],
)
def test_games_that_they_cannot_play(bad_input, algorithm_id, env, says):
    with bad_input(says):
        baselines.make(algorithm_id).bind(GameSpec.of(env))


@pytest.mark.parametrize("bad", [0.0, 1.5, -0.1, float("nan")])
def test_bad_termination_priors(bad_input, bad):
    with bad_input(f"termination_prior must be in (0, 1], not {bad}"):
        baselines.make("soft-options", termination_prior=bad)


def test_bad_betas(bad_input):
    with bad_input("beta must be above 0, not 0"):
        baselines.make("delayed-options", beta=0.0)
