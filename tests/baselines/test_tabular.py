"""Tabular learners: beside plain NumPy, at their golden limits, and acting."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import baselines
import envs
from baselines import probes
from baselines.tabular import TabularStep, tabular_steps
from envs.base import Observation
from envs.matrix_games import LTQL_PAYOFF, QTRAN_PAYOFF, matrix_game
from envs.team_mdp import TeamMDP, line_world, random_team_mdp
from jaxmarl_fac.algorithm import LearnerState
from jaxmarl_fac.experience import Step
from jaxmarl_fac.experiment import Experiment
from jaxmarl_fac.game import GameSpec
from jaxmarl_fac.loop import train
from jaxmarl_fac.program import Program, step_example
from tests.helpers import but_slow, clock_at, first_observation, flat, transitions
from tests.reference import tabular as reference

IDS = (
    *("ltql-tabular", "ltql-tabular-replay", "hysteretic-tabular"),
    *("distributed-tabular", "iql-tabular"),
)
COUNTS = np.array([2, 3, 3])
OBSERVATIONS = 4
RATE, GAMMA = 0.25, 0.5


def as_step(step):
    mask = np.arange(COUNTS.max()) < COUNTS[:, None]
    return TabularStep(
        np.asarray(step["observed"]),
        mask,
        np.asarray(step["actions"]),
        np.full(len(COUNTS), step["reward"], np.float32),
        np.float32(step["discount"]),
        np.asarray(step["next"]),
        mask,
    )


def learn_beside(algorithm, check, count=300):
    """Feeds random transitions to the algorithm, and its tables and each transition to `check`."""
    game = GameSpec.of(random_team_mdp(states=OBSERVATIONS, agents=3, actions=3))
    tables = jax.jit(algorithm.bind(game).init)(jax.random.key(0)).params
    learn = jax.jit(lambda tables, step, rate: algorithm.rule.learn(tables, step, rate, algorithm.gamma))
    for step in reference.draw_steps(1, count, OBSERVATIONS, COUNTS):
        tables = learn(tables, as_step(step), np.float32(RATE))
        check(tables, step)


@pytest.mark.parametrize("second_if", ["elif", "if"])
@pytest.mark.parametrize("alpha", but_slow([1.0, 0.5], [0.5]))
def test_ltql_beside_plain_numpy(second_if, alpha):
    q_b = np.zeros((3, OBSERVATIONS, 3))
    q_u = q_b.copy()

    def check(tables, step):
        reference.logical(q_b, q_u, step, RATE, GAMMA, alpha, second_if)
        np.testing.assert_allclose(tables.q_b, q_b, atol=1e-5)
        np.testing.assert_allclose(tables.q_u, q_u, atol=1e-5)

    learn_beside(baselines.make("ltql-tabular", alpha=alpha, second_if=second_if, gamma=GAMMA), check)
    assert np.abs(q_b - q_u).max() > 0.1 and np.abs(q_u).max() > 0.1


@pytest.mark.parametrize(
    ("algorithm", "ratio"),
    [
        (baselines.make("iql-tabular", gamma=GAMMA), 1.0),
        (baselines.make("hysteretic-tabular", gamma=GAMMA, ratio=0.25), 0.25),
        (baselines.make("distributed-tabular", gamma=GAMMA), 0.0),
    ],
    ids=["iql", "hysteretic", "distributed"],
)
def test_independent_learners_beside_plain_numpy(algorithm, ratio):
    table = np.zeros((3, OBSERVATIONS, 3))

    def check(tables, step):
        reference.independent(table, step, RATE, GAMMA, ratio)
        np.testing.assert_allclose(tables, table, atol=1e-5)

    learn_beside(algorithm, check)
    assert np.abs(table).max() > 0.5


# From replay


def draw_played(env, seed, count):
    """Random play of `count` steps, each as the loop stores it and as the reference reads it."""
    rng, key = np.random.default_rng(seed), jax.random.key(seed)
    reset, step, observe = jax.jit(env.reset), jax.jit(env.step), jax.jit(env.observe)
    state, _ = reset(key)
    for i in range(count):
        actions = rng.integers(0, env.action_counts)
        after, timestep = step(state, jnp.asarray(actions))
        seen, then = (np.asarray(observe(each).agents_view).argmax(axis=1) for each in (state, after))
        yield (
            Step(
                *(state, (), jnp.asarray(actions, jnp.int32), (), timestep.reward, timestep.discount),
                *(timestep.last(), jnp.bool_(True), after),
            ),
            {
                "observed": seen,
                "actions": actions,
                "reward": float(timestep.reward),
                "discount": float(timestep.discount),
                "next": then,
                "counts": np.asarray(env.action_counts),
            },
        )
        state = reset(jax.random.fold_in(key, i))[0] if bool(timestep.last()) else after


def same_transition(steps, i, step):
    """Whether the sampled one of a batch is that one."""
    return all(
        np.allclose(np.asarray(getattr(steps, ours)[i]), step[theirs], atol=1e-6)
        for ours, theirs in (
            *(("observed", "observed"), ("actions", "actions"), ("reward", "reward")),
            *(("discount", "discount"), ("next_observed", "next")),
        )
    )


@pytest.mark.parametrize("second_if", but_slow(["elif", "if"], ["elif"]))
def test_ltql_from_replay_beside_plain_numpy(second_if):
    """After every T steps the same I samples, which are among the last ones that were played."""
    size, samples, period = 24, 5, 4
    algorithm = baselines.make(
        "ltql-tabular-replay",
        alpha=0.5,
        second_if=second_if,
        gamma=GAMMA,
        step_size=RATE,
        replay_size=size,
        batch_size=samples,
        update_period=period,
        learning_starts=period,
    )
    env = random_team_mdp(states=OBSERVATIONS, agents=2, actions=3)
    game = GameSpec.of(env)
    learner = algorithm.bind(game)
    assert learner.periods.update_every == period and learner.periods.warmup == period
    state = jax.jit(learner.init)(jax.random.key(0))
    store = learner.memory.bind(env, step_example(env, learner, state.params), 1, 10**6)
    add, sample, learn = jax.jit(store.add), jax.jit(store.sample), jax.jit(learner.update)
    buffer, played = store.init(), []
    q_b = np.zeros((2, OBSERVATIONS, 3))
    q_u = q_b.copy()
    drawn = []
    for i, (stored, step) in enumerate(draw_played(env, 1, 60 * period)):
        buffer = add(buffer, jnp.int32(i), jax.tree.map(lambda leaf: leaf[None], stored))
        played.append(step)
        if (i + 1) % period:
            continue
        batch = sample(buffer, jnp.int32(i + 1), jax.random.key(i))
        steps = jax.device_get(tabular_steps(batch))
        assert steps.reward.shape == (samples, 2)
        for k in range(samples):
            ages = [age for age, each in enumerate(reversed(played)) if same_transition(steps, k, each)]
            assert ages and ages[0] < size
            drawn.append(ages[0])
            reference.logical(q_b, q_u, played[-1 - ages[0]], RATE, GAMMA, 0.5, second_if)
        state, _ = learn(state, batch, clock_at(), jax.random.key(0))
        np.testing.assert_allclose(state.params.q_b, q_b, atol=1e-5)
        np.testing.assert_allclose(state.params.q_u, q_u, atol=1e-5)
    assert np.abs(q_b - q_u).max() > 0.1 and np.abs(q_u).max() > 0.1
    assert max(drawn) > size / 2  # old ones too


def test_the_loop_learns_from_replay_after_every_t_steps():
    experiment = Experiment(
        algorithm=baselines.make(
            "ltql-tabular-replay", batch_size=3, update_period=5, learning_starts=7, replay_size=20
        ),
        environment=line_world(),
        seeds=(0, 1),
        env_steps=40,
        evaluations=1,
    )
    program = Program(experiment)
    lanes, changed = program.initial_lanes(), []
    for iteration in range(40):
        before = np.asarray(lanes.learner.params.q_b)
        lanes, _ = program.chunk(lanes, iteration, iteration + 1)
        changed.append(not np.array_equal(before, lanes.learner.params.q_b))
    assert np.flatnonzero(changed).tolist() == [7, 12, 17, 22, 27, 32, 37]


# Batches and settings


def batch_of(env, seed, size):
    """Transitions of random play."""
    keys = jax.random.split(jax.random.key(seed), size)

    def one(key):
        reset_key, action_key = jax.random.split(key)
        state, first = env.reset(reset_key)
        actions = jax.random.randint(action_key, (env.num_agents,), 0, 2)
        _, after = env.step(state, actions)
        return first.observation, actions, after.reward, after.discount, after.observation

    return transitions(*jax.vmap(one)(keys))


@pytest.mark.slow
def test_a_batch_is_learned_one_after_the_other():
    env = line_world()
    learner = baselines.make("ltql-tabular", step_size=0.5).bind(GameSpec.of(env))
    state = learner.init(jax.random.key(0))
    batch = batch_of(env, 3, 5)
    update = jax.jit(lambda state, batch: learner.update(state, batch, clock_at(), jax.random.key(0))[0])
    at_once = update(state, batch)
    for i in range(5):
        state = update(state, jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], batch))
    np.testing.assert_allclose(at_once.params.q_b, state.params.q_b, atol=1e-6)
    assert np.abs(state.params.q_b).max() > 0.5


@pytest.mark.slow
def test_the_step_size_may_fall_to_nothing():
    env = line_world()
    algorithm = baselines.make("iql-tabular", step_size=0.5, step_size_schedule="linear")
    learner, batch = algorithm.bind(GameSpec.of(env)), batch_of(env, 3, 1)
    state = learner.init(jax.random.key(0))
    full, half, none = (
        learner.update(state, batch, clock_at(progress=progress), jax.random.key(0))[0].params
        for progress in (0.0, 0.5, 1.0)
    )
    assert np.abs(full).max() > 0.1
    np.testing.assert_allclose(half, full / 2, rtol=1e-6)
    assert (none == 0).all()


def test_observations_of_stateless_games_are_repeated():
    observation = first_observation(matrix_game(LTQL_PAYOFF))
    actions = jnp.array([[0, 1], [1, 2], [0, 0]])
    steps = tabular_steps(
        transitions(observation, actions, jnp.array([2.0, 2.0, 0.0]), jnp.zeros(3), observation)
    )
    assert steps.observed.tolist() == [[0, 0]] * 3
    assert steps.action_mask.tolist() == [[[True, True, False], [True, True, True]]] * 3
    assert steps.reward.tolist() == [[2, 2], [2, 2], [0, 0]]


def test_rewards_may_be_the_agents_own():
    observation = first_observation(matrix_game(LTQL_PAYOFF))
    rewards = jnp.array([[1.0, -1.0], [3.0, 5.0]])
    batch = transitions(observation, jnp.zeros((2, 2), int), rewards, jnp.zeros(2), observation)
    assert tabular_steps(batch).reward.tolist() == rewards.tolist()


@pytest.mark.parametrize("algorithm_id", IDS)
def test_tables_refuse_what_cannot_be_counted(algorithm_id, bad_input):
    with bad_input("a table cannot hold the observations of CatchPrey: take a matrix game or a team MDP"):
        baselines.make(algorithm_id).bind(GameSpec.of(envs.make("catch-prey")))
    baselines.make(algorithm_id).bind(GameSpec.of(envs.make("team-mdp-line")))
    baselines.make(algorithm_id).bind(GameSpec.of(envs.make("two-step")))


@pytest.mark.parametrize(
    ("algorithm_id", "settings", "says"),
    [
        ("iql-tabular", {"step_size": 0.0}, "step_size must be in (0, 1], not 0.0"),
        ("iql-tabular", {"step_size": float("nan")}, "step_size must be in (0, 1]"),
        ("iql-tabular", {"step_size_schedule": "cosine"}, "step_size_schedule must be constant or linear"),
        ("iql-tabular", {"gamma": 1.1}, "gamma must be in [0, 1], not 1.1"),
        ("iql-tabular", {"initial_value": float("inf")}, "initial_value must be a finite number"),
        ("iql-tabular", {"acting": "softmax"}, "an epsilon of 1 from start to end is uniform play"),
        ("iql-tabular", {"acting": "boltzmann"}, "acting must be epsilon-greedy or softmax, not boltzmann"),
        ("iql-tabular", {"temperature": 0.0}, "temperature must be above 0"),
        ("iql-tabular", {"epsilon_end": -0.1}, "epsilon_end must be in [0, 1]"),
        ("iql-tabular", {"epsilon_steps": 0}, "epsilon_steps must be at least 1"),
        ("ltql-tabular", {"alpha": 1.5}, "alpha must be in [0, 1], not 1.5"),
        ("ltql-tabular", {"second_if": "else"}, "second_if must be elif or if, not else"),
        ("ltql-tabular-replay", {"update_period": 0}, "update_period must be at least 1, not 0"),
        ("ltql-tabular-replay", {"replay_size": 31}, "replay_size must be at least batch_size (32), not 31"),
        ("ltql", {"alpha": float("nan")}, "alpha must be in [0, 1], not nan"),
        ("ltql", {"second_if": "else"}, "second_if must be elif or if, not else"),
        ("ltql", {"q_bound": -1.0}, "q_bound must be 0 (off) or above, not -1.0"),
        ("hysteretic-tabular", {"ratio": 0.0}, "ratio must be in (0, 1], not 0.0"),
        ("hysteretic", {"ratio": 2.0}, "ratio must be in (0, 1], not 2.0"),
    ],
)
def test_settings_that_cannot_be(algorithm_id, settings, says, bad_input):
    with bad_input(says):
        baselines.make(algorithm_id, **settings)


def test_families_have_the_releases_constants():
    """Those of Logical Team Q-learning's released code."""
    algorithm = baselines.make("ltql-tabular", "team-mdp")
    line = flat(algorithm)
    assert (line.step_size, line.alpha, line.gamma, line.second_if) == (0.025, 1.0, 0.99, "elif")
    for step in (0, 40_000, 100_000, 190_000, 10**6):
        epsilon = float(algorithm.exploration.epsilon(clock_at(env_steps=step)))
        assert epsilon == pytest.approx(max(0.05, 1 - step / 2e5), abs=1e-6)
    hysteretic = flat(baselines.make("hysteretic-tabular", "team-mdp"))
    assert hysteretic.step_size * hysteretic.ratio == pytest.approx(0.01)
    matrix = flat(baselines.make("ltql-tabular", "matrix"))
    assert (matrix.step_size, matrix.alpha, matrix.epsilon_end) == (0.1, 1.0, 1.0)
    hunt = flat(baselines.make("ltql", "pursuit"))
    assert (hunt.batch_size, hunt.replay_size, hunt.learning_starts) == (1024, 200_000, 2048)
    assert (hunt.hidden, hunt.learning_rate, hunt.gamma, hunt.target_period) == ((50, 50), 1e-5, 0.99, 50)
    assert hunt.q_bound == pytest.approx(0.98667, abs=1e-5)
    assert flat(baselines.make("hysteretic", "pursuit")).ratio == 0.1


# Acting


def observation_of_two(numbers, mask=None):
    view = jax.nn.one_hot(jnp.asarray(numbers), 2)
    mask = jnp.ones((2, 3), bool) if mask is None else jnp.asarray(mask)
    return Observation(view, jnp.zeros(1), mask, jnp.int32(0))


TABLE = jnp.array([[[0.0, 1.0, 1.0], [5.0, 0.0, 0.0]], [[0.0, 0.0, 3.0], [-1.0, 9.0, -2.0]]])  # (n, O, A)


def test_greedy_play_reads_each_agents_row():
    learner = baselines.make("iql-tabular").bind(GameSpec.of(line_world()))

    def greedy(*args):
        return learner.act_greedily(TABLE, (), observation_of_two(*args), jax.random.key(0)).actions.tolist()

    assert greedy((0, 0)) == [1, 2]  # of equal ones the lowest
    assert greedy((1, 1)) == [0, 1]
    assert greedy((0, 1), [[True, False, True], [True, False, True]]) == [2, 0]


def test_ltql_acts_by_its_optimistic_table():
    learner = baselines.make("ltql-tabular").bind(GameSpec.of(line_world()))
    tables = learner.init(jax.random.key(0)).params._replace(q_b=TABLE, q_u=-TABLE)
    found = learner.act_greedily(tables, (), observation_of_two((1, 1)), jax.random.key(0))
    assert found.actions.tolist() == [0, 1]


def shares_of(epsilon, mask, **settings):
    """How often each action is played, `(2, A)`, at an epsilon that is reached after one step."""
    algorithm = baselines.make("iql-tabular", epsilon_end=epsilon, epsilon_steps=1, **settings)
    learner, late = algorithm.bind(GameSpec.of(line_world())), clock_at(env_steps=1)
    act = jax.jit(
        jax.vmap(lambda key: learner.act(TABLE, (), observation_of_two((1, 1), mask), late, key).actions)
    )
    actions = np.asarray(act(jax.random.split(jax.random.key(2), 20_000)))
    return np.stack([np.bincount(actions[:, agent], minlength=3) / 20_000 for agent in range(2)])


#: Five standard errors of a share of 20,000.
CLOSE = 5 * np.sqrt(0.25 / 20_000)


def test_epsilon_greedy_and_softmax_play_as_often_as_they_should():
    mask = [[True, True, True], [True, False, True]]
    greedy = shares_of(0.3, mask)
    np.testing.assert_allclose(greedy, [[0.8, 0.1, 0.1], [0.85, 0, 0.15]], atol=CLOSE)
    soft = shares_of(0.0, mask, acting="softmax", temperature=2.0)
    weights = np.exp([[2.5, 0, 0], [-0.5, -np.inf, -1]])
    np.testing.assert_allclose(soft, weights / weights.sum(1, keepdims=True), atol=CLOSE)
    mixed = shares_of(0.5, mask, acting="softmax", temperature=2.0)
    uniform = np.array([[1 / 3, 1 / 3, 1 / 3], [0.5, 0, 0.5]])
    np.testing.assert_allclose(mixed, (soft + uniform) / 2, atol=2 * CLOSE)
    assert (mixed[1, 1], soft[1, 1]) == (0, 0)


# Learning, by rules that were fixed beforehand: step .1, uniform actions


def tables_of(algorithm_id, payoff, seeds, games, **settings):
    experiment = Experiment(
        algorithm=baselines.make(algorithm_id, **settings),
        environment=matrix_game(payoff),
        seeds=tuple(range(seeds)),
        env_steps=games,
        evaluations=1,
        evaluation_episodes=1,
        probe=probes.tables,
    )
    return train(experiment).history.last


@pytest.mark.slow
@pytest.mark.parametrize("second_if", ["elif", "if"])
def test_ltql_finds_one_of_two_optima(second_if):
    """Greedy play earns 2 on all seeds, about half of them in each equilibrium, with the limits of both."""
    last = tables_of("ltql-tabular", LTQL_PAYOFF, 300, 500, second_if=second_if)
    assert (last["episode_return"] == 2).all()
    q_u = last["q_u"][:, :, 0]  # (seeds, 2, 3)
    first = last["q_b"][:, 0, 0, :2].argmax(1) == 0
    assert 0.4 <= first.mean() <= 0.6
    # A step of .1 is far from done with the entries that are tried least.
    np.testing.assert_allclose(q_u[first].mean(0), [[2, 1, 0], [0, 2, 0]], atol=0.1)
    np.testing.assert_allclose(q_u[~first].mean(0), [[0, 2, 0], [0, 1, 2]], atol=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm_id", ["ltql-tabular", "ltql-tabular-replay"])
def test_ltql_finds_the_optimum_that_others_miss(algorithm_id):
    """QTRAN's game: q_U is (8, -12, -12) for both agents."""
    last = tables_of(algorithm_id, QTRAN_PAYOFF, 300, 2000)
    assert (last["episode_return"] == 8).all()
    np.testing.assert_allclose(last["q_u"][:, :, 0].mean(0), [[8, -12, -12]] * 2, atol=0.05)


@pytest.mark.slow
def test_iql_averages_over_the_others():
    last = tables_of("iql-tabular", LTQL_PAYOFF, 300, 1000, step_size_schedule="linear")
    np.testing.assert_allclose(last["table"][:, :, 0].mean(0), [[2 / 3, 1, 0], [0, 1.5, 1]], atol=0.03)
    assert (last["episode_return"] == 1).mean() >= 0.84


@pytest.mark.slow
@pytest.mark.parametrize("epsilon_steps", [1000, 1001])
def test_exploration_that_ends_leaves_no_action_out(epsilon_steps):
    """After 1000 steps epsilon was -4.7e-8, compiled: all sampled actions were -1, and the end was -5."""
    experiment = Experiment(
        algorithm=baselines.make("iql-tabular", epsilon_end=0.0, epsilon_steps=epsilon_steps),
        environment=matrix_game([[10, 0], [0, -5]]),
        seeds=(0, 1, 2, 3),
        env_steps=3000,
        evaluations=6,
        evaluation_episodes=1,
    )
    assert train(experiment).history.last["episode_return"].tolist() == [10] * 4


#: Every reward is negative; the best is at (0, 1), and without coordination -5 at (0, 0) is tempting.
NEGATIVE = np.asarray([[-5.0, -1, -9, -7], [-3, -8, -2, -6]])


@pytest.mark.parametrize(("algorithm_id", "least"), [("distributed-tabular", 16), ("fmq", 8)])
@pytest.mark.slow
@pytest.mark.parametrize("raised", [0, 10])
def test_optimists_are_not_misled_by_negative_rewards(algorithm_id, least, raised):
    """They find the best joint action as where 10 is added to every reward; random play gets -5.1."""
    experiment = Experiment(
        algorithm=baselines.make(algorithm_id),
        environment=matrix_game(NEGATIVE + raised),
        seeds=tuple(range(16)),
        env_steps=3000,
        evaluations=1,
        evaluation_episodes=1,
    )
    returns = train(experiment).history.last["episode_return"] - raised
    assert (returns == -1).sum() >= least
    assert returns.min() >= -3


def test_where_optimists_start():
    env = matrix_game(NEGATIVE)
    game, observation = GameSpec.of(env), first_observation(env)
    tables = baselines.make("distributed-tabular").bind(game).init(jax.random.key(0)).params
    assert (np.asarray(tables) == -9).all()
    given = baselines.make("distributed-tabular", initial_value=-3).bind(game).init(jax.random.key(0)).params
    assert (np.asarray(given) == -3).all()
    available = np.asarray(observation.action_mask)

    @functools.partial(jax.jit, static_argnums=0)
    def first_utilities(algorithm, key):
        return algorithm.utilities(game, algorithm.bind(game).init(key).params, observation)

    for settings in ({}, {"consumes": "episodes", "recurrent": True}):
        found, other = (
            np.asarray(first_utilities(each, jax.random.key(3)))
            for each in (baselines.make(name, hidden=(8,), **settings) for name in ("distributed", "iql"))
        )
        np.testing.assert_allclose(found[available], other[available] - 9, atol=1e-5)


def test_deep_optimists_need_a_start_in_games_without_a_lower_bound(bad_input):
    game = GameSpec.of(envs.make("stag-hunt-p2"))
    with bad_input("give an initial_value that no optimal return lies below"):
        baselines.make("distributed").bind(game)
    baselines.make("distributed", initial_value=-50).bind(game)
    baselines.make("distributed", "stag-hunt").bind(game)  # by the family's settings: a team can always stay


def test_tables_of_optimists_need_a_start_too(bad_input, monkeypatch):
    monkeypatch.setattr(TeamMDP, "return_lower_bound", lambda env, gamma: None)
    game = GameSpec.of(line_world())
    with bad_input("TeamMDP has no known lower bound on returns: give an initial_value"):
        baselines.make("distributed-tabular").bind(game)
    baselines.make("distributed-tabular", initial_value=0.0).bind(game)


@pytest.mark.slow
def test_the_values_of_distributed_q_learning_tie():
    last = tables_of("distributed-tabular", LTQL_PAYOFF, 300, 2000, step_size_schedule="linear")
    np.testing.assert_allclose(last["table"][:, :, 0], [[[2, 2, 0], [0, 2, 2]]] * 300, atol=0.01)


@pytest.mark.slow
def test_ltql_wins_the_line_world_on_almost_all_seeds():
    """Return 10 without noise on >= 95 % of seeds, from replay too; IQL on half of them at most."""
    won = {}
    for algorithm_id in ("ltql-tabular", "ltql-tabular-replay", "iql-tabular"):
        experiment = Experiment(
            algorithm=baselines.make(algorithm_id, "team-mdp"),
            environment=line_world(),
            seeds=tuple(range(32)),
            env_steps=100_000,
            evaluations=1,
            evaluation_episodes=1,
            probe=probes.noise_free_return,
        )
        won[algorithm_id] = (train(experiment).history.last["noise_free_return"] == 10).mean()
    assert won["ltql-tabular"] >= 0.95 and won["ltql-tabular-replay"] >= 0.95
    assert won["iql-tabular"] <= 0.5


def test_noise_free_return_of_a_known_policy():
    """Walk left three times, then press and stay: +10; press all the way: -80."""
    env = line_world()
    algorithm = baselines.make("iql-tabular")
    tables = np.zeros((2, 8, 3), np.float32)
    tables[0, 3, 1] = 1  # at cell 0, in time: press
    tables[1, [3, 5, 7], 1] = 1  # in time, not there: left
    assert float(probes.noise_free_return(algorithm, env, jnp.asarray(tables))["noise_free_return"]) == 10
    tables[0, :, 1] = 1
    assert float(probes.noise_free_return(algorithm, env, jnp.asarray(tables))["noise_free_return"]) == -80


def test_tables_keep_their_names():
    state = baselines.make("ltql-tabular").bind(GameSpec.of(line_world())).init(jax.random.key(0))
    assert isinstance(state, LearnerState)
    assert set(probes.tables(None, line_world(), state.params)) == {"q_b", "q_u"}
    assert list(probes.tables(None, line_world(), TABLE)) == ["table"]
