import functools
import itertools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import baselines
import envs
from baselines.equilibrium_q import FoeRule, FriendRule, NashRule
from baselines.iterated_games import FMQRule, JointActionRule, WoLFRule, hill_climb
from baselines.opponent_modelling import (
    BalancingRule,
    GR2Rule,
    PR2Rule,
    ProbabilisticBalancingRule,
    RommeoRule,
    RommeoThesisRule,
    SoftQRule,
)
from baselines.probes import joint_policy
from baselines.registry import id_of
from baselines.rules import PlayerSpec, PlayerStep
from baselines.two_player import Match, SelfPlay
from envs.matrix_games import (
    CLIMBING_PAYOFF,
    THESIS_PAYOFF,
    general_sum_game,
    matrix_game,
    penalty_payoff,
    zero_sum_game,
)
from envs.team_mdp import from_matrix_game
from jaxmarl_fac.experiment import Experiment
from jaxmarl_fac.game import GameSpec
from jaxmarl_fac.loop import train
from jaxmarl_fac.saved import from_json, to_json
from jaxmarl_fac.settings import replaced
from tests.helpers import but_slow, clock_at, first_observation, transitions
from tests.reference import two_player as reference
from tests.reference.equilibria import max_min_value

THESIS, CLIMBING = np.array(THESIS_PAYOFF, float), np.array(CLIMBING_PAYOFF, float)
IDS = (
    *("soft-q", "pr2-q", "rommeo-q", "rommeo-q-emp", "rommeo-q-thesis", "balancing-q"),
    *("balancing-q-probabilistic", "gr2-q", "gr2-q-mixture", "nash-q", "friend-q", "foe-q"),
    *("jal", "wolf-phc", "fmq"),
)
INF = math.inf
#: Two states; two actions against three.
PLAYER = PlayerSpec(first=True, states=2, own=2, other=3)
#: At the thesis's game, from either side.
ROW, COLUMN = PlayerSpec(True, 1, 3, 3), PlayerSpec(False, 1, 3, 3)


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


def player_steps(count, seed=0):
    """Random transitions, one in five of them a termination; rewards that repeat, for FMQ."""
    rng = np.random.default_rng(seed)
    return PlayerStep(
        state=rng.integers(0, PLAYER.states, count),
        own=rng.integers(0, PLAYER.own, count),
        other=rng.integers(0, PLAYER.other, count),
        rewards=rng.integers(-3, 4, (count, 2)).astype(float),
        discount=(rng.random(count) > 0.2).astype(float),
        next_state=rng.integers(0, PLAYER.states, count),
    )


def learn_by_rule(rule, player, steps):
    """The policy in every state before each step, `(T, S, A)`, and the tables after all."""

    def learn(carry, step):
        tables, time = carry
        policies = jax.vmap(lambda state: rule.policy(player, tables, state, time))(jnp.arange(player.states))
        return (rule.learn(player, tables, step, time), time + 1), policies

    start = rule.init(player, jax.random.key(0)), jnp.zeros((), jnp.int32)
    (tables, _), policies = jax.jit(lambda steps: jax.lax.scan(learn, start, steps))(
        jax.tree.map(jnp.asarray, steps)
    )
    return np.asarray(policies), jax.tree.map(np.asarray, tables)


def learn_by_reference(learner, steps):
    """The policies of a plain NumPy version, which is left as it is after all steps."""
    policies = []
    for step in zip(*steps, strict=True):
        policies.append([learner.policy(state) for state in range(PLAYER.states)])
        learner.learn(*step)
    return policies


# Each rule beside plain NumPy


COMMON = {"learning_rate": 0.6, "rate_half_life": 30.0, "gamma": 0.9}
PLAIN = {"rate": 0.6, "half_life": 30.0, "gamma": 0.9}
PRIORS = {"own_prior": (0.3, 0.7), "other_prior": (0.2, 0.5, 0.3)}
SOFT = {**COMMON, **PRIORS, "beta": 0.4, "beta_growth": 1.02}
PLAIN_SOFT = {**PLAIN, **PRIORS, "beta": 0.4, "beta_other": 0.4, "growth": 1.02}
POISSON = (8 / 17, 6 / 17, 3 / 17)
SIZE = PLAYER[1:4]


def harmonic(time):
    return 0.8 * 30 / (30 + time)


def exponential(time):
    return 0.8 * np.exp(-0.1 * time) + 0.1


@pytest.mark.parametrize(
    ("rule", "learner", "table"),
    [
        pytest.param(
            SoftQRule(**{**SOFT, "other_prior": ()}),
            lambda: reference.SoftQ(*SIZE, order="", **PLAIN_SOFT),
            "values",
            marks=pytest.mark.slow,
        ),
        (PR2Rule(**SOFT), lambda: reference.Soft(*SIZE, order="agent", **PLAIN_SOFT), "q"),
        pytest.param(
            RommeoThesisRule(**SOFT),
            lambda: reference.Soft(*SIZE, order="opponent", **PLAIN_SOFT),
            "q",
            marks=pytest.mark.slow,
        ),
        *(
            pytest.param(
                kind(**SOFT, beta_other=beta_other),
                lambda beta_other=beta_other: reference.Soft(
                    *SIZE, order="agent", **{**PLAIN_SOFT, "beta_other": beta_other}
                ),
                "q",
                marks=() if kind is BalancingRule else pytest.mark.slow,
            )
            for kind, beta_other in ((BalancingRule, -0.5), (ProbabilisticBalancingRule, 0.9))
        ),
        pytest.param(
            GR2Rule(**SOFT, mixture=True),
            lambda: reference.Levels(*SIZE, order="", weights=POISSON, **PLAIN_SOFT),
            "tables",
            marks=pytest.mark.slow,
        ),
        (
            RommeoRule(**COMMON, initial_spread=0.0, temperature=0.8, window=7),
            lambda: reference.Rommeo(*SIZE, alpha=harmonic, empirical=False, window=7, **PLAIN),
            "q",
        ),
        pytest.param(
            RommeoRule(
                **COMMON,
                initial_spread=0.0,
                temperature=0.8,
                temperature_schedule="exponential",
                window=7,
                model="empirical",
            ),
            lambda: reference.Rommeo(*SIZE, alpha=exponential, empirical=True, window=7, **PLAIN),
            "q",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            JointActionRule(**COMMON, initial_spread=0.0, window=7),
            lambda: reference.JointAction(*SIZE, window=7, **PLAIN),
            "q",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            FriendRule(**COMMON),
            lambda: reference.FriendOrFoe(*SIZE, foe=False, **PLAIN),
            "q",
            marks=pytest.mark.slow,
        ),
        (FoeRule(**COMMON), lambda: reference.FriendOrFoe(*SIZE, foe=True, **PLAIN), "q"),
        (
            WoLFRule(**COMMON, initial_spread=0.0, step_winning=0.03, step_losing=0.07),
            lambda: reference.WoLF(*SIZE, winning=0.03, losing=0.07, **PLAIN),
            "values",
        ),
        pytest.param(
            FMQRule(**COMMON, initial_spread=0.0, weight=2.0, temperature=5.0),
            lambda: reference.FMQ(*SIZE, weight=2.0, temperature=5.0, floor=0.0, **PLAIN),
            "values",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_rules_beside_plain_numpy(float64, rule, learner, table):
    steps, plain = player_steps(60), learner()
    policies, tables = learn_by_rule(rule, PLAYER, steps)
    expected = learn_by_reference(plain, steps)
    np.testing.assert_allclose(tables["q"], getattr(plain, table), rtol=1e-9, atol=1e-10)
    if not isinstance(rule, FoeRule):
        np.testing.assert_allclose(policies, expected, rtol=1e-9, atol=1e-10)


def test_fmq_counts_best_rewards_from_its_players_floor(float64):
    rule = FMQRule(**COMMON, initial_spread=0.0, weight=2.0, temperature=5.0)
    steps = player_steps(60)
    plain = reference.FMQ(*SIZE, weight=2.0, temperature=5.0, floor=-2.5, **PLAIN)
    policies, _ = learn_by_rule(rule, PLAYER._replace(floor=-2.5), steps)
    np.testing.assert_allclose(policies, learn_by_reference(plain, steps), rtol=1e-9, atol=1e-10)


def test_a_players_floor_is_the_best_reward_of_its_worst_action():
    def floors(env):
        return [float(player.floor) for _, _, player in baselines.make("fmq").sides(GameSpec.of(env))]

    rising, falling = [[-5.0, -1, -9, -7], [-3, -8, -2, -6]], [[9.0, 8, 7, 6], [-5, -4, -3, -2]]
    assert floors(matrix_game(rising)) == [-2, -6]
    assert floors(general_sum_game([rising, falling])) == [-2, 0]
    # The published rule is for games like these, whose losses are avoided by any action.
    assert floors(matrix_game(CLIMBING)) == floors(matrix_game(penalty_payoff())) == [0, 0]
    ending = from_matrix_game(matrix_game(np.asarray(rising)))  # what its last state would pay is never paid
    assert floors(ending) == [-2, -6]
    assert floors(ending.replace(terminal=np.zeros(2, bool), reward=ending.reward.at[1].set(-20))) == [
        -20,
        -20,
    ]


# Policies on the papers' games


def stage_policy(rule, payoff, player=ROW, time=0, **more):
    tables = {"q": jnp.asarray(payoff)[None], **more}
    return rule.policy(player, tables, jnp.asarray(0), jnp.asarray(time, jnp.int32))


@pytest.mark.parametrize(
    ("rule", "payoff", "time", "policy"),
    [
        (PR2Rule(), THESIS, 0, (0.317717, 0.291454, 0.390830)),
        (RommeoThesisRule(), THESIS, 0, (0.317717, 0.291454, 0.390830)),
        (PR2Rule(beta=1.0, beta_growth=1.0), THESIS, 7, (0.002149, 0.002634, 0.995217)),
        (BalancingRule(), THESIS, 0, (0.344180, 0.307453, 0.348367)),
        (ProbabilisticBalancingRule(), THESIS, 0, (0.344180, 0.307453, 0.348367)),
        # The adversary's own table: it is paid the negative, and its action comes first.
        (BalancingRule(), -THESIS.T, 0, (0.389043, 0.347529, 0.263429)),
        (BalancingRule(beta_growth=10.0), THESIS, 1, (0.745606, 0.126353, 0.128041)),  # ω = 10
        (FoeRule(), THESIS, 0, (1, 0, 0)),
        (FriendRule(), THESIS, 0, (0, 0, 1)),
    ],
)
def test_policies_on_the_thesis_game(float64, rule, payoff, time, policy):
    np.testing.assert_allclose(stage_policy(rule, payoff, time=time), policy, atol=1e-6)


@pytest.mark.parametrize(
    ("alpha", "policy"),
    [
        (1.0, (0.973174, 0.024381, 0.002445)),
        (0.5, (0.975139, 0.024027, 0.000835)),
        (5.0, (0.768275, 0.088768, 0.142957)),
    ],
)
def test_published_rommeo_on_the_climbing_game(float64, alpha, policy):
    nothing = jnp.full((1, 50), -1, jnp.int32)  # before it has seen the other play, its prior is uniform
    ours = stage_policy(RommeoRule(temperature=alpha), CLIMBING, seen=nothing)
    np.testing.assert_allclose(ours, policy, atol=1e-6)


def test_published_rommeo_takes_its_prior_from_what_it_saw(float64):
    seen = jnp.asarray([[0, 1, 1, 2, 2, 2, 2, 2, 2, 2, -1, -1]])  # P = (.1, .2, .7)
    ours = stage_policy(RommeoRule(window=12), CLIMBING, seen=seen)
    np.testing.assert_allclose(ours, (0.908111, 0.076088, 0.015801), atol=1e-6)
    rule = RommeoRule(window=12, model="empirical")
    tables = {"q": jnp.asarray(CLIMBING)[None], "seen": seen}
    model = rule.opponent_model(ROW, tables, jnp.asarray(0), jnp.asarray(0))
    np.testing.assert_allclose(model, (0.1, 0.2, 0.7), rtol=1e-12)


@pytest.mark.parametrize("kind", but_slow([BalancingRule, ProbabilisticBalancingRule], [BalancingRule]))
@pytest.mark.parametrize(
    ("beta", "beta_other", "value", "policy"),
    [
        (INF, INF, 10, (0, 0, 1)),  # a team
        (INF, -INF, 2, (1, 0, 0)),  # a zero-sum game
        (INF, 0.0, 11 / 3, (0, 0, 1)),  # the best row against a uniform column
        (0.0, -INF, 2 / 3, (1 / 3, 1 / 3, 1 / 3)),  # a uniform row against the worst column
        (0.0, 0.0, 24 / 9, (1 / 3, 1 / 3, 1 / 3)),  # nobody chooses
        (-INF, -INF, 0, (0, 0.5, 0.5)),  # both harm; rows 2 and 3 tie
        (-INF, INF, 3, (1, 0, 0)),  # harms itself, the other helps: (3, 4, 10)
    ],
)
def test_limits_of_balancing_q(float64, kind, beta, beta_other, value, policy):
    """+inf is a team, -inf minimax, 0 the mean, on either side; late and early."""
    rule = kind(beta=beta, beta_other=beta_other, gamma=1.0, learning_rate=1.0)
    for time in (0, 10**6):
        np.testing.assert_allclose(stage_policy(rule, THESIS, time=time), policy, atol=1e-9)
    step = PlayerStep(*map(jnp.asarray, (0, 1, 2, jnp.zeros(2), 1.0, 0)))
    learned = rule.learn(ROW, {"q": jnp.asarray(THESIS)[None]}, step, jnp.asarray(0))["q"]
    np.testing.assert_allclose(learned[0, 1, 2], value, atol=1e-9)


@pytest.mark.parametrize("beta", [-INF, -3e38, -1.0, -1.2e-38, 0.0, 1.2e-38, 0.1, 1e6, INF])
def test_temperatures_keep_their_sign_and_never_become_nan(beta):
    """In float32 too, and when ω has overflowed."""
    rule = SoftQRule(beta=beta)
    for time in (0, 50, 10**4, 10**6):
        grown = float(rule.beta_at(beta, jnp.asarray(time)))
        assert not math.isnan(grown)
        assert np.sign(grown) in (np.sign(beta), 0)  # subnormal numbers are 0 to XLA
        if abs(beta) >= 0.1:
            assert abs(grown) >= abs(beta) * 0.999


@pytest.mark.parametrize(
    "kind",
    but_slow(
        [PR2Rule, RommeoThesisRule, BalancingRule, ProbabilisticBalancingRule, SoftQRule, GR2Rule],
        [BalancingRule, GR2Rule],
    ),
)
def test_policies_are_greedy_in_the_end(kind):
    """After ω has overflowed float32 they are distributions still, and learning leaves finite tables."""
    shape = {SoftQRule: (1, 3), GR2Rule: (2, 1, 3, 3)}.get(kind, (1, 3, 3))
    values = np.random.default_rng(1).normal(scale=30, size=shape).astype(np.float32)
    tables, time = {"q": jnp.asarray(values)}, jnp.asarray(10**5)
    policy = np.asarray(kind().policy(ROW, tables, jnp.asarray(0), time))
    assert sorted(policy) == [0, 0, 1]
    step = PlayerStep(*map(jnp.asarray, (0, 1, 2, np.ones(2, np.float32), 1.0, 0)))
    assert np.isfinite(kind().learn(ROW, tables, step, time)["q"]).all()


def test_both_sides_of_a_tie_pick_the_same_joint_action():
    """The penalty game has two optima, (A, A) and (C, C), and both sides name the first."""
    payoff = np.asarray(penalty_payoff(-10.0))
    friends = stage_policy(FriendRule(), payoff), stage_policy(FriendRule(), payoff.T, COLUMN)
    pair = {"q": jnp.asarray(np.stack([payoff, payoff]))[:, None]}
    nash = [
        jax.jit(functools.partial(NashRule().policy, player))(pair, jnp.asarray(0), jnp.asarray(0))
        for player in (ROW, COLUMN)
    ]
    for row, column in (friends, nash):
        np.testing.assert_array_equal(row, [1, 0, 0])
        np.testing.assert_array_equal(column, [1, 0, 0])
    # Row-major order seen from both sides: (1, 0) comes before (0, 1) only in the column's own table.
    other = np.array([[0.0, 5.0], [5.0, 0.0]])
    row, column = PlayerSpec(True, 1, 2, 2), PlayerSpec(False, 1, 2, 2)
    np.testing.assert_array_equal(stage_policy(FriendRule(), other, row), [1, 0])
    np.testing.assert_array_equal(stage_policy(FriendRule(), other.T, column), [0, 1])


def test_both_nash_learners_keep_the_same_tables(float64):
    """Each sees the other's actions and rewards, so both solve the same game."""
    steps = jax.tree.map(jnp.asarray, player_steps(20))
    mirrored = steps._replace(own=steps.other, other=steps.own, rewards=steps.rewards[:, ::-1])

    def learned(player, steps):
        return learn_by_rule(NashRule(**COMMON), player, steps)[1]["q"]

    rows, columns = learned(PLAYER, steps), learned(PlayerSpec(False, 2, 3, 2), mirrored)
    assert np.abs(rows).max() > 1
    np.testing.assert_array_equal(rows, columns)


def test_hill_climbing_never_takes_more_than_there_is():
    policy = hill_climb(jnp.asarray([0.5, 0.49, 0.01]), jnp.asarray([1.0, 2.0, 2.0]), jnp.asarray(0.1))
    np.testing.assert_allclose(policy, [0.45, 0.55, 0.0], atol=1e-7)
    np.testing.assert_array_equal(hill_climb(jnp.ones(1), jnp.zeros(1), jnp.asarray(0.1)), [1])


# In the loop


def run(algorithm, env, seeds, steps, num_envs=1, games=0):
    experiment = Experiment(
        algorithm=algorithm,
        environment=env,
        seeds=tuple(range(seeds)),
        env_steps=steps * num_envs,
        num_envs=num_envs,
        games=games,
        evaluations=3,
        evaluation_episodes=1,
        probe=joint_policy,
    )
    return train(experiment)


@pytest.mark.slow
def test_pr2_against_an_adversary_as_in_the_thesis():
    """Exact limit 1, simulated mean 1.93, 1.21 near .85 to 1 at steps 100, 200, 300."""
    match = Match(row=PR2Rule(), column=BalancingRule(), learn_from="first")
    history = run(match, envs.make("matrix-thesis-zero-sum"), 64, 300, num_envs=10).history
    rows, columns = history.last["row_policy"][:, 0], history.last["column_policy"][:, 0]
    expected = np.einsum("sa,ab,sb->s", rows, THESIS, columns)
    assert (rows.argmax(1) == 2).mean() >= 0.95 and (columns.argmax(1) == 0).mean() >= 0.95
    assert expected.mean() == pytest.approx(0.98, abs=0.05)
    last = history.last
    np.testing.assert_allclose(last["row_reward"], -last["column_reward"], rtol=1e-6)
    np.testing.assert_array_equal(last["episode_return"], np.tile([1, -1], (64, 1)))
    assert history.arrays()["row_reward"][2].mean() == pytest.approx(1.2, abs=0.35)  # steps 101 to 200


@pytest.mark.slow
def test_nash_q_mixes_half_and_half_in_pr2s_game():
    """Wen et al. (2019): the only equilibrium of the game."""
    result = run(SelfPlay(rule=NashRule(learning_rate=1.0)), envs.make("matrix-pr2"), 8, 60)
    np.testing.assert_allclose(result.history.last["row_policy"][:, 0], np.full((8, 2), 0.5), atol=1e-5)
    np.testing.assert_allclose(result.history.last["column_policy"][:, 0], np.full((8, 2), 0.5), atol=1e-5)


@pytest.mark.slow
def test_foe_q_on_a_batch_of_games():
    """After every joint action was tried, each policy guarantees the value that linear programming finds."""
    payoffs = np.random.default_rng(5).uniform(-1, 1, (12, 2, 3)).astype(np.float32)
    games = [zero_sum_game(payoff) for payoff in payoffs]
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *games)
    result = run(SelfPlay(rule=FoeRule(learning_rate=1.0)), batch, 2, 80, games=12)
    row, column = (
        result.history.last[f"{side}_policy"][:, 0].reshape(12, 2, -1) for side in ("row", "column")
    )
    for game, payoff in enumerate(payoffs.astype(float)):
        value = max_min_value(payoff)
        np.testing.assert_allclose((row[game] @ payoff).min(1), value, atol=1e-5)
        np.testing.assert_allclose((column[game] @ payoff.T).max(1), value, atol=1e-5)


def test_a_match_of_rules_that_share_settings_takes_whole_rules(bad_input):
    match = Match(row=PR2Rule(), column=BalancingRule())
    with bad_input("Match has a setting 'learning_rate' in row (PR2Rule) and in column (BalancingRule)"):
        replaced(match, learning_rate=0.5)
    row = PR2Rule(learning_rate=0.5)
    assert replaced(match, row=row, learn_from="first") == Match(
        row=row, column=BalancingRule(), learn_from="first"
    )
    assert id_of(match) is None


def test_learning_from_all_roll_outs_is_learning_one_by_one():
    """Two environments at a time teach "all" both transitions and "first" the first."""
    env, key = matrix_game(THESIS), jax.random.key(3)
    rule = PR2Rule(gamma=0.5)
    observation = first_observation(env)
    actions, reward = [[0, 2], [2, 1]], [3.0, 0.5]
    batch = transitions(observation, actions, reward, [0.0, 0.0], observation)
    from_two = {}
    for learn_from in ("all", "first"):
        learner = Match(row=rule, column=rule, learn_from=learn_from).bind(GameSpec.of(env), num_envs=2)
        learned, metrics = learner.update(learner.init(key), batch, clock_at(), key)
        from_two[learn_from] = learned.params
        assert float(metrics["row_reward"]) == float(metrics["column_reward"]) == 1.75
        assert int(learned.params["time"]) == 1
    np.testing.assert_allclose(
        from_two["first"]["row"]["q"][0], [[0, 0, 1.8], [0, 0, 0], [0, 0, 0]], rtol=1e-6
    )
    np.testing.assert_allclose(
        from_two["all"]["row"]["q"][0], [[0, 0, 1.8], [0, 0, 0], [0, 0.3, 0]], rtol=1e-6
    )
    np.testing.assert_allclose(from_two["all"]["column"]["q"][0].T, from_two["all"]["row"]["q"][0], rtol=1e-6)


@pytest.mark.parametrize(
    ("algorithm_id", "env_id"),
    [
        pytest.param(*each, marks=() if each[0] in ("soft-q", "gr2-q", "nash-q", "fmq") else pytest.mark.slow)
        for each in zip(IDS, itertools.cycle(["matrix-ltql", "matrix-pr2", "two-step", "team-mdp-line"]))
    ],
)
def test_every_id_takes_small_games(algorithm_id, env_id):
    """Shapes only, without running: one-shot and staged games, unequal actions, one reward or two."""
    algorithm, env = baselines.make(algorithm_id), envs.make(env_id)
    learner = algorithm.bind(GameSpec.of(env))

    def once(key):
        start = learner.init(key)
        state, _ = env.reset(key)
        observation = env.observe(state)
        actions = learner.act(start.params, (), observation, clock_at(), key).actions
        _, timestep = env.step(state, actions)
        after = timestep.observation
        if not env.stateless:  # which memories show once, for the whole batch
            observation, after = jax.tree.map(lambda leaf: leaf[None], (observation, after))
        batch = transitions(observation, actions[None], timestep.reward[None], timestep.discount[None], after)
        learned, _ = learner.update(start, batch, clock_at(), key)
        return start, learned, actions, joint_policy(algorithm, env, learned.params)

    before, after, actions, policies = jax.eval_shape(once, jax.random.key(0))
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), before) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), after
    )
    states = env.observation_spec.agents_view.shape[-1]
    assert actions.shape == (2,)
    assert policies["row_policy"].shape == (states, env.action_counts[0])
    assert policies["column_policy"].shape == (states, env.action_counts[1])


def test_experiments_with_rules_are_saved_and_read():
    experiment = Experiment(
        algorithm=Match(row=RommeoRule(model="empirical"), column=BalancingRule(own_prior=(0.5, 0.5))),
        environment=envs.make("matrix-pr2"),
        seeds=(0,),
        env_steps=10,
        evaluations=1,
        probe=joint_policy,
    )
    again = from_json(json.loads(json.dumps(to_json(experiment), allow_nan=False)))
    assert again.algorithm == experiment.algorithm
    assert again.environment.general_sum
    assert again.probe is joint_policy


# Bad input


@pytest.mark.parametrize(
    ("algorithm", "env_id", "says"),
    [
        (SelfPlay(rule=RommeoRule()), "differential", "the algorithm needs discrete actions"),
        (
            SelfPlay(rule=RommeoRule()),
            "predator-prey-2",
            "a table cannot hold the observations of PredatorPrey",
        ),
        (SelfPlay(rule=FoeRule()), "differential-grid", "a 41x41 game is too large"),
        (SelfPlay(rule=NashRule()), "matrix-21x21", "a 21x21 game is too large"),
        (
            Match(row=PR2Rule(own_prior=(0.5, 0.6, 0.1)), column=PR2Rule()),
            "matrix-thesis",
            "own_prior sums to 1.2",
        ),
        (
            Match(row=PR2Rule(), column=GR2Rule(other_prior=(0.5, 0.5))),
            "matrix-thesis",
            "other_prior has shape (2,)",
        ),
        (
            Match(row=PR2Rule(own_prior=(1.5, -0.5)), column=PR2Rule()),
            "matrix-pr2",
            "own_prior holds negative",
        ),
    ],
)
def test_games_that_cannot_be_played(bad_input, algorithm, env_id, says):
    with bad_input(says):
        algorithm.bind(GameSpec.of(envs.make(env_id)))


def test_three_players_are_refused(bad_input):
    with bad_input("the algorithm is for two players, and this MatrixGame has 3 agents"):
        baselines.make("pr2-q").bind(GameSpec.of(envs.make("matrix-random", agents=3)))


def test_team_learners_refuse_a_reward_per_agent(bad_input):
    for algorithm_id in ("vdn", "qmix", "qtran-base", "qtran-alt"):
        with bad_input("learns from a reward of the whole team"):
            baselines.make(algorithm_id).bind(GameSpec.of(envs.make("matrix-pr2")))
        with bad_input("needs discrete actions"):
            baselines.make(algorithm_id).bind(GameSpec.of(envs.make("differential")))


@pytest.mark.parametrize(
    ("kind", "setting", "says"),
    [
        (PR2Rule, {"learning_rate": 0.0}, "learning_rate must be in (0, 1], not 0.0"),
        (PR2Rule, {"rate_half_life": -1.0}, "rate_half_life must be 0 (never) or above"),
        (PR2Rule, {"gamma": 1.1}, "gamma must be in [0, 1]"),
        (PR2Rule, {"epsilon": -0.1}, "epsilon must be in [0, 1]"),
        (PR2Rule, {"initial_spread": INF}, "initial_spread must be a finite number, not inf"),
        (PR2Rule, {"beta": math.nan}, "beta must be a number, which may be 0, negative or infinite"),
        # Subnormal numbers are 0 to XLA.
        (PR2Rule, {"beta": 1e-38}, "beta must be 0 or at least 1.2e-38 in size"),
        (BalancingRule, {"beta_other": -1e-40}, "to fit into 32 bits, not -1e-40"),
        (PR2Rule, {"beta_growth": 0.9}, "beta_growth must be at least 1"),
        (BalancingRule, {"beta_other": math.nan}, "beta_other must be a number"),
        (RommeoRule, {"temperature": -1.0}, "temperature must be 0 or above"),
        (RommeoRule, {"model": "none"}, "model must be inferred or empirical, not none"),
        (
            RommeoRule,
            {"temperature_schedule": "x"},
            "temperature_schedule must be constant or harmonic or exponential",
        ),
        (RommeoRule, {"window": 0}, "window must be at least 1"),
        (GR2Rule, {"levels": 0}, "levels must be at least 1"),
        (GR2Rule, {"poisson_mean": -1.0}, "poisson_mean must be 0 or above"),
        (WoLFRule, {"step_losing": 2.0}, "step_losing must be in [0, 1]"),
        (FMQRule, {"weight": math.nan}, "weight must be 0 or above"),
    ],
)
def test_settings_that_cannot_be(bad_input, kind, setting, says):
    with bad_input(says):
        kind(**setting)
    with bad_input("learn_from must be all or first, not some"):
        Match(row=PR2Rule(), column=PR2Rule(), learn_from="some")
