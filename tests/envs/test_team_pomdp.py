import functools
import itertools
import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jumanji.testing.env_not_smoke import check_env_specs_does_not_smoke

import envs
from envs.errors import BadInputError
from envs.team_pomdp import (
    CARDS_PAYOFF,
    HiddenModel,
    POMDPDraws,
    hidden_chain,
    private_cards,
    team_pomdp,
    tiger,
    two_agent_tiger,
)
from jaxmarl_fac.saved import from_json, to_json
from tests.reference.team_pomdp import Cards, Chain, OneTiger, TwoTigers

GAMES = {
    "hmm": (hidden_chain(time_limit=5), Chain),
    "tiger": (tiger(time_limit=5), OneTiger),
    "two-agent-tiger": (two_agent_tiger(time_limit=5), TwoTigers),
    "private-cards": (private_cards(), Cards),
}
every_game = pytest.mark.parametrize("name", GAMES)


@functools.cache
def compiled(name):
    env, _ = GAMES[name]
    return jax.jit(env.reset), jax.jit(env.step)


@every_game
def test_whole_episodes_equal_the_rules(name):
    """200 episodes with the same uniform draws: rewards, ends, states and all that is seen."""
    env, rules = GAMES[name]
    episodes, steps, agents = 200, env.time_limit, env.num_agents
    rng = np.random.default_rng(0)
    draws = [rng.uniform(size=(episodes, steps + 1, *shape)) for shape in ((), (), (agents,))]
    actions = np.stack([rng.integers(count, size=(episodes, steps)) for count in env.action_counts], axis=-1)
    if name == "private-cards":  # who does not move does nothing
        actions[:, 0, 1] = actions[:, 1, 0] = 0

    def episode(actions, state, public, private):
        draws = POMDPDraws(state, public, private)
        start, timestep = env.begin(jax.random.key(0), jax.tree.map(lambda leaf: leaf[0], draws))

        def step(state, choice):
            state, timestep = env.move(state, *choice)
            return state, (state.replace(key=None), timestep)

        rest = jax.tree.map(lambda leaf: leaf[1:], draws)
        return start.replace(key=None), timestep, *jax.lax.scan(step, start, (actions, rest))[1]

    first, first_step, states, timesteps = jax.tree.map(
        np.asarray, jax.jit(jax.vmap(episode))(actions, *draws)
    )
    for game in range(episodes):
        world = rules(*(draw[game, 0] for draw in draws))
        seen = [(first, first_step, game)] + [
            (
                jax.tree.map(lambda leaf, t=t: leaf[:, t], states),
                jax.tree.map(lambda leaf, t=t: leaf[:, t], timesteps),
                game,
            )
            for t in range(steps)
        ]
        for t, (state, timestep, row) in enumerate(seen):
            if t:
                chosen = tuple(actions[game, t - 1].tolist())
                assert timestep.reward[row] == world.step(chosen, *(draw[game, t] for draw in draws))
                assert timestep.discount[row] == (0 if world.over else 1)
                assert timestep.step_type[row] == (2 if world.over or t == steps else 1)
            if world.over:
                break
            assert state.state[row] == world.state and state.public[row] == world.public
            assert tuple(state.private[row].tolist()) == world.private
            observation = timestep.observation
            pairs = [own * env.num_public + world.public for own in world.private]
            assert observation.agents_view[row].argmax(-1).tolist() == pairs
            assert observation.global_state[row].argmax() == world.state
            if isinstance(world, Cards):
                allowed = [set(np.flatnonzero(mask)) for mask in observation.action_mask[row]]
                assert allowed == world.available()
            if env.num_public > 1:
                assert observation.public_view[row].tolist() == np.eye(env.num_public)[world.public].tolist()
                assert observation.private[row].tolist() == list(world.private)
    assert set(np.unique(states.state)) >= set(range(min(env.num_states, 16))) - set(range(4))


@every_game
def test_the_registered_game_passes_jumanjis_own_checks(name):
    env = envs.make(name)
    check_env_specs_does_not_smoke(env)
    reset, step = compiled(name)
    state, timestep = reset(jax.random.key(0))
    GAMES[name][0].observation_spec.validate(timestep.observation)
    _, timestep = step(state, GAMES[name][0].action_spec.generate_value())
    GAMES[name][0].observation_spec.validate(timestep.observation)
    jax.tree.map(np.testing.assert_array_equal, env, from_json(to_json(env)))


def test_only_games_with_a_public_observation_show_one():
    for name, env in ((name, envs.make(name)) for name in envs.ENVIRONMENTS):
        seen = jax.eval_shape(lambda env=env: env.observe(env.reset(jax.random.key(0))[0]))
        shows = name in ("two-agent-tiger", "private-cards")
        assert (seen.public_view is None) == (seen.private is None) == (not shows), name
    assert two_agent_tiger(public_actions=False).num_public == 1


def test_cards_are_dealt_evenly_and_paid_by_the_table():
    env = private_cards()
    dealt = jax.jit(jax.vmap(lambda key: env.reset(key)[0].state))(
        jax.random.split(jax.random.key(0), 20_000)
    )
    np.testing.assert_allclose(np.bincount(dealt) / 20_000, 0.25, atol=0.015)  # five standard errors
    assert np.asarray(CARDS_PAYOFF)[1, 0, 2].tolist() == [0, 0, 0]  # what breaks the symmetry


def test_an_action_that_is_not_available_counts_as_the_first_that_is():
    env = private_cards()
    reset, step = compiled("private-cards")
    state, _ = reset(jax.random.key(3))
    told, _ = step(state, jnp.array([2, 1]))
    assert told.last_actions.tolist() == [2, 0] and int(told.public) == 3
    assert env.observe(told).action_mask.tolist() == [[True, False, False], [True, True, True]]


def test_ears_are_as_good_as_they_should_be():
    """20,000 draws each: five standard errors are .013."""
    env = two_agent_tiger(accuracy=0.8)
    start, _ = env.reset(jax.random.key(0))
    move = jax.jit(
        jax.vmap(lambda key, joint: env.step(start.replace(key=key), joint)[0].private, in_axes=(0, None))
    )
    keys = jax.random.split(jax.random.key(1), 20_000)
    left = int(start.state) == 0
    right = np.asarray(move(keys, jnp.array([0, 0]))) == (1 if left else 2)
    np.testing.assert_allclose(right.mean(0), 0.8, atol=0.015)
    assert abs((right[:, 0] & right[:, 1]).mean() - 0.64) < 0.018  # independently
    np.testing.assert_allclose((np.asarray(move(keys, jnp.array([0, 1]))) == 1).mean(0), 0.5, atol=0.018)


@pytest.mark.slow
def test_a_batch_of_games_plays_as_each_alone():
    games = [tiger(accuracy=accuracy, time_limit=5) for accuracy in (0.6, 0.99)]
    batch = jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(leaf) for leaf in leaves]), *games)

    def heard(game):
        def step(state, _):
            state, timestep = game.step(state, jnp.zeros(1, int))
            return state, (state.private, timestep.reward)

        return jax.lax.scan(step, game.reset(jax.random.key(7))[0], length=40)[1]

    together = jax.jit(jax.vmap(heard))(batch)
    for index, game in enumerate(games):
        jax.tree.map(
            np.testing.assert_array_equal, jax.tree.map(operator.itemgetter(index), together), heard(game)
        )
    assert (together[0][0] != together[0][1]).any()


def test_the_model_is_in_float64_where_asked_for():
    model = private_cards().hidden_model()
    assert isinstance(model, HiddenModel) and model.reward.dtype == jnp.float32
    with jax.enable_x64(True):
        model = tiger().hidden_model()
        assert model.private.dtype == jnp.float64 and model.terminal.dtype == bool
        np.testing.assert_allclose(model.private[0, 0, 0], [0, 0.85, 0.15], rtol=1e-15)


GOOD = {
    "transition": np.full((2, 2, 3, 2), 0.5),
    "reward": np.zeros((2, 2, 3)),
    "private": np.full((2, 2, 3, 2, 4), 0.25),
}
OFF = np.full((2, 2, 3, 2, 4), 0.25)
OFF[1, 1, 2, 0, 3] = 0.2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"private": OFF}, r"private does not sum to 1: row \(1, 1, 2, 0\) sums to 0\.95"),
        ({"private": -OFF}, "private has a negative probability"),
        (
            {"private": np.ones((2, 2, 3, 2))},
            r"private has shape \(2, 2, 3, 2\): give \(2, 2, 3, 2\) and then",
        ),
        ({"private": np.ones((2, 2, 3, 2, 0))}, "and then the number of observations"),
        ({"private": OFF * np.nan}, "private holds NaN or infinite"),
        ({"public": np.full((2, 3, 2, 2), 0.6)}, r"public does not sum to 1: row \(0, 0, 0\) sums to 1\.2"),
        ({"public": np.ones((2, 2, 2, 1))}, r"public has shape \(2, 2, 2, 1\): give \(2, 3, 2\)"),
        ({"first_private": np.ones((2, 2, 1))}, "first_private has 1 observations: give 4, as many as"),
        ({"first_private": np.ones((2, 2, 4))}, "first_private does not sum to 1"),
        ({"first_public": np.ones((3, 1))}, r"first_public has shape \(3, 1\): give \(2,\)"),
        ({"available": np.ones((2, 2, 2))}, r"available has shape \(2, 2, 2\): give \(2, 2, 3\)"),
        ({"available": np.zeros((2, 2, 3))}, "agent 0 has no available action in state 0: give it"),
        ({"available": [[["x"]]]}, "available is ragged or not numeric"),
        ({"transition": np.full((2, 2, 3, 2), 0.6)}, "transition does not sum to 1"),
        ({"start": [0.5, 0.6]}, "start does not sum to 1"),
        ({"time_limit": 0}, "time_limit must be from 1 to 32767, not 0"),
        ({"private_labels": ("one",)}, "private_labels has 1 entries: give one for each of 4 observations"),
        ({"public_labels": ("a", "b")}, "public_labels has 2 entries: give one for each of 1 observations"),
    ],
)
def test_bad_tables_get_one_clear_line(change, message):
    with pytest.raises(BadInputError, match=message) as caught:
        team_pomdp(**(GOOD | change))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("build", [tiger, two_agent_tiger])
def test_bad_parameters(build, bad_input):
    with bad_input("accuracy must be in [0.5, 1], not 0.4"):
        build(accuracy=0.4)
    with bad_input("accuracy must be in [0.5, 1], not 1.5"):
        build(accuracy=1.5)
    with bad_input("time_limit must be a whole number, not 2.5"):
        build(time_limit=2.5)


@every_game
def test_pictures_show_what_is_seen(name, tmp_path):
    env, _ = GAMES[name]
    reset, step = compiled(name)
    state, _ = reset(jax.random.key(0))
    before = np.array(env.render(state, str(tmp_path / "start.png")))
    after, _ = step(state, jnp.zeros(env.num_agents, int))
    assert (env.render(after) != before).any()
    unlike = after.replace(private=(after.private + 1) % env.num_private)
    assert (env.render(unlike) != env.render(after)).any()
    if name == "private-cards":
        env.animate([state, after], save_path=str(tmp_path / "cards.gif"))
        assert (tmp_path / "cards.gif").read_bytes()[:3] == b"GIF"


def test_every_reward_of_two_agents():
    """By how many doors they open, and which."""
    reward = two_agent_tiger().reward
    for at, first, second in itertools.product(range(2), range(3), range(3)):
        assert reward[at, first, second] == reward[at, second, first]
        mirrored = [(0, 2, 1)[action] for action in (first, second)]
        assert reward[at, first, second] == reward[1 - at, mirrored[0], mirrored[1]]
    assert reward[0].tolist() == [[-2, -101, 9], [-101, -50, -100], [9, -100, 20]]
