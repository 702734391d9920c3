"""A learner from outside, without any base class, that needs all that the frame has, trained by the loop.

It is an advantage actor-critic with lambda-returns. Its agents have a GRU, and a latent that is drawn where
an episode begins; it may learn from a replay besides. What it is fed is logged as metrics, one update to a
row, and checked against the tables of the game and NumPy.
"""

import collections
import dataclasses
import functools
import itertools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from envs.matrix_games import matrix_game, staged_game
from jaxmarl_fac.algorithm import Learner, LearnerState, no_memory, periods
from jaxmarl_fac.evaluation import evaluate, greedy_return
from jaxmarl_fac.experience import Decision, over_batch
from jaxmarl_fac.experiment import Experiment
from jaxmarl_fac.game import GameSpec
from jaxmarl_fac.loop import train
from jaxmarl_fac.memory import Episodes, Memory, Rollout, Together, Transitions
from jaxmarl_fac.play import Player
from jaxmarl_fac.program import Program
from jaxmarl_fac.targets import lambda_returns
from jaxmarl_fac.values import mask_unavailable, masked_mean
from tests.engine.memory.games import stages_at_random
from tests.helpers import but_slow
from tests.reference import recurrent

LATENTS, WIDTH = 4, 6
GAMMA, LAMBDA, RATE = 0.9, 0.7, 0.05


class AgentsMemory(NamedTuple):
    """What the agents remember."""

    hidden: jax.Array  # (n, H)
    latent: jax.Array  # () uint32: of all its bits the network sees the last two


class Agents(nn.Module):
    """A GRU, `(n, H)` and `(n, I)` to `(n, H)` and logits `(n, A)`."""

    num_actions: int

    @nn.compact
    def __call__(self, hidden: jax.Array, inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        hidden, _ = nn.GRUCell(WIDTH)(hidden, inputs)
        return hidden, nn.Dense(self.num_actions)(hidden)


def one_hot(latent):
    return jax.nn.one_hot(latent % LATENTS, LATENTS)


@dataclasses.dataclass(frozen=True)
class LatentActorCritic:
    """The algorithm: any dataclass with a method `bind`."""

    memory: Memory
    update_period: int = 1
    learning_starts: int = 0
    rate: float = RATE
    log: bool = True

    def bind(self, game: GameSpec, num_envs: int = 1) -> Learner:
        agents = Agents(game.num_actions)

        def inputs(observation, latent):
            n = game.num_agents
            rows = [observation.agents_view, jnp.eye(n), jnp.broadcast_to(one_hot(latent), (n, LATENTS))]
            return jnp.concatenate(rows, axis=-1)

        def init(key):
            nothing = jnp.zeros((game.num_agents, WIDTH))
            weights = agents.init(key, nothing, inputs(game.observation(), jnp.uint32(0)))
            value = jnp.zeros(game.state_size + LATENTS)
            return LearnerState({"agents": weights, "value": value}, (), ())

        def begin(params, observation, key):
            return AgentsMemory(jnp.zeros((game.num_agents, WIDTH)), jax.random.bits(key))

        def policy(params, hidden, observation, latent):
            hidden, logits = agents.apply(params["agents"], hidden, inputs(observation, latent))
            return hidden, nn.log_softmax(mask_unavailable(logits, observation.action_mask))

        def act(params, carry, observation, clock, key):
            hidden, log_policy = policy(params, carry.hidden, observation, carry.latent)
            actions = jax.random.categorical(key, log_policy).astype(jnp.int32)
            extras = {
                "latent": carry.latent,
                "log_prob": jnp.take_along_axis(log_policy, actions[:, None], 1)[:, 0],
                "clock": jnp.stack([clock.env_steps, clock.updates]),
                "progress": clock.progress,
            }
            return Decision(actions, carry._replace(hidden=hidden), extras)

        def act_greedily(params, carry, observation, key):
            """The policy is what has been learned: it is played as it is."""
            hidden, log_policy = policy(params, carry.hidden, observation, carry.latent)
            return Decision(jax.random.categorical(key, log_policy), carry._replace(hidden=hidden))

        def values(value, trajectory):
            """Before each step and after it, with the latent of the step."""
            states, latents = trajectory.observation.global_state, one_hot(trajectory.extras["latent"])
            own, of_latent = value[: game.state_size], latents @ value[game.state_size :]
            return states[:-1] @ own + of_latent, states[1:] @ own + of_latent

        def unrolled(params, trajectory, hidden):
            """Log-probabilities `(T, n)` of the actions."""

            def step(hidden, row):
                first, observation, latent, actions = row
                hidden, log_policy = policy(params, jnp.where(first, 0, hidden), observation, latent)
                return hidden, jnp.take_along_axis(log_policy, actions[:, None], 1)[:, 0]

            seen = jax.tree.map(lambda leaf: leaf[:-1], trajectory.observation)
            rows = trajectory.first[:-1], seen, trajectory.extras["latent"], trajectory.actions
            return jax.lax.scan(step, hidden, rows)[1]

        def critic(value, trajectory):
            now, following = values(value, trajectory)
            steps = trajectory.reward, trajectory.discount, following, trajectory.mask
            returns = lambda_returns(*steps, GAMMA, LAMBDA)
            return jnp.square(now - returns), returns, returns - jax.lax.stop_gradient(now)

        def update(state, batch, clock, key):
            batches = batch if isinstance(batch, dict) else {"fresh": batch}
            fresh = batches["fresh"]

            def loss(params):
                total, returns = 0.0, {}
                for name, each in batches.items():
                    squares, returns[name], advantages = over_batch(
                        functools.partial(critic, params["value"]), each
                    )
                    total += masked_mean(squares, each.mask)
                    if name == "fresh":
                        log_probs = over_batch(
                            lambda trajectory: unrolled(params, trajectory, trajectory.carry.hidden), each
                        )
                        total -= masked_mean(jnp.sum(log_probs, axis=-1) * advantages, each.mask)
                return total, (returns, log_probs)

            gradients, (returns, log_probs) = jax.grad(loss, has_aux=True)(state.params)
            params = jax.tree.map(lambda param, slope: param - self.rate * slope, state.params, gradients)
            metrics = {"loss": masked_mean(jnp.square(log_probs[..., 0]), fresh.mask)}
            if self.log:
                forgetful = over_batch(
                    lambda trajectory: unrolled(state.params, trajectory, 0 * trajectory.carry.hidden), fresh
                )
                apart = [jnp.abs(each - fresh.extras["log_prob"]) for each in (log_probs, forgetful)]
                on_steps = [jnp.max(jnp.where(fresh.mask[..., None] > 0, each, 0)) for each in apart]
                metrics |= {"value": state.params["value"]}
                metrics |= {"acted_apart": on_steps[0], "forgetful_apart": on_steps[1]}
                metrics |= {"update_clock": jnp.stack([clock.env_steps, clock.updates])}
                for name, each in batches.items():
                    each = each._replace(carry=each.carry and each.carry.latent)
                    for path, leaf in jax.tree_util.tree_leaves_with_path((each, {"returns": returns[name]})):
                        metrics[name + jax.tree_util.keystr(path[1:])] = leaf
            return LearnerState(params, (), ()), metrics

        when = periods(
            self.memory,
            game,
            num_envs,
            learning_starts=self.learning_starts,
            update_period=self.update_period,
        )
        return Learner(self.memory, when, init, begin, act, act_greedily, update)


GAME = stages_at_random()
LENGTH, E, UPDATES = 8, 3, 60
MEMORIES = {
    "rollout": Rollout(LENGTH),
    "together": Together(fresh=Rollout(LENGTH), episodes=Episodes(30, 5), transitions=Transitions(200, 16)),
}
#: Batches of an update.
BATCHES = {"rollout": ["fresh"], "together": ["fresh", "episodes", "transitions"]}
every_memory = pytest.mark.parametrize("memory", but_slow(MEMORIES, ["together"]))


@functools.cache
def logged(memory):
    """Every update of a run, `(updates, seeds, ...)`. It is evaluated after each."""
    algorithm = LatentActorCritic(MEMORIES[memory])
    experiment = Experiment(
        algorithm=algorithm,
        environment=GAME,
        seeds=(0, 1),
        env_steps=LENGTH * E * UPDATES,
        num_envs=E,
        evaluations=UPDATES,
        evaluation_episodes=1,
    )
    history = train(experiment).history
    return {name: leaf[1:] for name, leaf in history.arrays().items() if name != "env_steps"}


class Row(NamedTuple):
    """One step of one environment, or a reset."""

    stage: int
    actions: tuple[int, ...]
    reward: float
    discount: float
    following: int
    mask: float
    first: float


def fresh_rows(run, seed, e):
    """What one environment did from the first step to the last."""

    def stream(name):
        leaf = run[f"fresh{name}"][:, seed, e]  # (updates, T, ...)
        return leaf.reshape(-1, *leaf.shape[2:])

    stages = run["fresh.observation.global_state"][:, seed, e].argmax(-1)  # (updates, T + 1)
    first = run["fresh.first"][:, seed, e]
    rows = [
        Row(*row)
        for row in zip(
            stages[:, :-1].ravel(),
            map(tuple, stream(".actions").astype(int)),
            stream(".reward"),
            stream(".discount"),
            stages[:, 1:].ravel(),
            stream(".mask"),
            first[:, :-1].ravel(),
            strict=True,
        )
    ]
    return rows, stream


def every_stream(run):
    for seed in range(2):
        for e in range(E):
            yield fresh_rows(run, seed, e)


def is_of_the_game(row):
    """Whether the tables of the game say so, the clock apart."""
    following = GAME_WAYS[(row.stage, *row.actions)]
    paid = row.reward == GAME_PAYOFF[(row.stage, *row.actions)]
    if following < 0:
        return paid and row.discount == 0
    return paid and row.discount == 1 and row.following == following


GAME_WAYS, GAME_PAYOFF = np.asarray(GAME.next_stage), np.asarray(GAME.payoff)


# What the loop feeds


@every_memory
def test_rollouts_are_the_game_step_by_step(memory):
    """Without a gap, with a row of its own for every reset, and for nothing else."""
    lengths = collections.Counter()
    for rows, _ in every_stream(logged(memory)):
        steps, fresh = 0, True
        for place, row in enumerate(rows):
            assert row.first == fresh
            if row.mask:
                assert is_of_the_game(row)
                steps, fresh = steps + 1, False
                over = row.discount == 0 or steps == GAME.time_limit
            else:
                assert over, place
                lengths[steps, rows[place - 1].discount] += 1
                steps, fresh, over = 0, True, False
            if place + 1 < len(rows):
                assert rows[place + 1].stage == row.following
                assert rows[place + 1].mask == (not (row.mask and over))
    assert {steps for steps, _ in lengths} == set(range(1, 8))
    assert {discount for _, discount in lengths} == {0, 1}
    assert lengths[7, 1] > 5  # cut off by the clock


@every_memory
def test_lambda_returns_across_the_borders_of_episodes(memory):
    """Of every piece of an episode by itself, from the values that the learner had before the update."""
    run = logged(memory)
    pieces = collections.Counter()
    for seed in range(2):
        for e in range(E):
            rows, stream = fresh_rows(run, seed, e)
            found, latents = stream("['returns']"), stream(".extras['latent']")
            piece: list[int] = []
            for place, row in enumerate(rows):
                if row.mask:
                    piece.append(place)
                at_the_end = (place + 1) % LENGTH == 0
                if piece and (at_the_end or not row.mask or not rows[place + 1].mask):
                    weights = run["value"][place // LENGTH, seed]
                    following = [
                        weights[rows[t].following] + weights[GAME.num_stages + int(latents[t]) % LATENTS]
                        for t in piece
                    ]
                    expected = recurrent.lambda_returns(
                        np.asarray([rows[t].reward for t in piece]),
                        np.asarray([rows[t].discount for t in piece]),
                        np.asarray(following),
                        GAMMA,
                        LAMBDA,
                    )
                    np.testing.assert_allclose(found[piece], expected, rtol=1e-5, atol=1e-5)
                    pieces[len(piece)] += 1
                    piece = []
    assert set(pieces) == set(range(1, 8)) and sum(pieces.values()) > 300


# What the agents remember, and what is stored with a step


@every_memory
def test_a_latent_is_drawn_where_an_episode_begins_and_stored_with_every_step(memory):
    seen = set()
    for rows, stream in every_stream(logged(memory)):
        latents = stream(".extras['latent']")
        for place, row in enumerate(rows):
            if row.first:
                assert latents[place] not in seen  # 32 bits: no two episodes have the same by chance
                seen.add(latents[place])
            else:
                assert latents[place] == latents[place - 1]  # a reset has the old one too
    assert len(seen) > 300
    drawn = np.bincount(np.asarray(sorted(seen)).astype(np.int64) % LATENTS, minlength=LATENTS)
    assert stats.chisquare(drawn).pvalue > 1e-4


@every_memory
def test_the_memory_that_is_stored_is_the_one_of_the_first_row(memory):
    run = logged(memory)
    np.testing.assert_array_equal(run["fresh.carry"], run["fresh.extras['latent']"][..., 0])


@every_memory
def test_agents_unrolled_again_from_the_stored_memory_are_as_they_acted(memory):
    run = logged(memory)
    assert run["acted_apart"].max() < 1e-5
    # It is the stored memory that does it: most rollouts begin amid an episode.
    assert (run["forgetful_apart"] > 1e-4).mean() > 0.8


def test_every_step_is_told_the_time():
    """Rollouts of one update every eight iterations: none before the first one is whole."""
    for _, stream in every_stream(logged("together")):
        iterations = np.arange(LENGTH * UPDATES)
        clocks = np.stack([iterations * E, iterations // LENGTH], axis=1)
        np.testing.assert_array_equal(stream(".extras['clock']"), clocks)
        np.testing.assert_allclose(stream(".extras['progress']"), iterations / len(iterations), rtol=1e-6)
    run = logged("together")
    expected = [[[(k + 1) * LENGTH * E, k]] * 2 for k in range(UPDATES)]
    np.testing.assert_array_equal(run["update_clock"], expected)


# Learning


def masked_mean_slope(weights, stages, latents, targets, mask):
    """Of the mean squared error of linear values, in NumPy."""
    features = np.concatenate([np.eye(GAME.num_stages)[stages], np.eye(LATENTS)[latents % LATENTS]], axis=-1)
    errors = features @ weights - targets
    return np.sum((2 * mask * errors)[..., None] * features, axis=tuple(range(mask.ndim))) / mask.sum()


@every_memory
def test_one_update_learns_from_all_that_it_is_fed(memory):
    """Values by NumPy from the logged batches; rows that are resets, or padding, count for nothing."""
    run = logged(memory)
    masked = collections.Counter()
    for k in range(UPDATES - 1):
        for seed in range(2):
            weights = run["value"][k, seed].astype(np.float64)
            slope = np.zeros_like(weights)
            for part in BATCHES[memory]:
                stages = run[f"{part}.observation.global_state"][k, seed].argmax(-1)[:, :-1]
                latents = run[f"{part}.extras['latent']"][k, seed].astype(np.int64)
                mask = run[f"{part}.mask"][k, seed]
                targets = run[f"{part}['returns']"][k, seed]
                slope += masked_mean_slope(weights, stages, latents, targets, mask)
                masked[part] += (mask == 0).sum()
            expected = weights - RATE * slope
            np.testing.assert_allclose(run["value"][k + 1, seed], expected, rtol=2e-4, atol=2e-5)
    assert all(masked[part] > 100 for part in BATCHES[memory])


@pytest.mark.parametrize("replay", ["episodes", "transitions"])
def test_the_replay_gives_back_what_happened(replay):
    """Each row is one of the rollouts' so far, and where it was a reset it is masked."""
    run = logged("together")
    whole = collections.Counter()
    for seed in range(2):
        happened = {}
        for e in range(E):
            rows, stream = fresh_rows(run, seed, e)
            for row, clock, latent in zip(
                rows, stream(".extras['clock']"), stream(".extras['latent']"), strict=True
            ):
                happened[int(clock[0]), int(latent)] = row
        for k in range(UPDATES):
            stages = run[f"{replay}.observation.global_state"][k, seed].argmax(-1)
            for b in range(len(stages)):
                names = ("actions", "reward", "discount", "mask", "extras['latent']", "extras['clock']")
                actions, reward, discount, mask, latents, clocks = (
                    run[f"{replay}.{name}"][k, seed, b] for name in names
                )
                assert clocks.max() < (k + 1) * LENGTH * E
                length = len(mask) if replay == "transitions" else int(mask.sum())
                assert replay == "transitions" or (mask[:length] == 1).all()
                for t in range(length):
                    row = happened[int(clocks[t, 0]), int(latents[t])]
                    given = (stages[b, t], tuple(actions[t].astype(int)), reward[t], discount[t])
                    assert (*given, stages[b, t + 1], mask[t]) == row[:-1]
                    assert replay == "transitions" or (t == 0) == row.first
                    assert clocks[t, 0] == clocks[0, 0] + t * E
                    whole[row.mask] += 1
                if replay == "episodes":
                    assert discount[length - 1] == 0 or length == GAME.time_limit
                    assert not reward[length:].any()
    assert whole[1] > 1000 and (replay == "episodes") == (whole[0] == 0)


@pytest.mark.slow
def test_it_learns():
    """To play the best of two joint actions that agents have to agree on, at each of three stages."""
    experiment = Experiment(
        algorithm=LatentActorCritic(Together(fresh=Rollout(6), replay=Episodes(100, 8)), rate=0.1, log=False),
        environment=matrix_game([[2, -1], [-1, 1]], stages=3),
        seeds=range(2),
        env_steps=10_000,
        num_envs=4,
        evaluations=1,
        evaluation_episodes=64,
    )
    returns = train(experiment).history.arrays()["episode_return"]
    assert (returns[0] < 3).all()
    assert (returns[-1] > 5.5).all()  # of 6


# When


@dataclasses.dataclass(frozen=True)
class Counter:
    """Keeps the time of every update."""

    memory: Memory
    update_period: int = 1
    learning_starts: int = 0
    keep: int = 100

    def bind(self, game: GameSpec, num_envs: int = 1) -> Learner:
        def act(params, carry, observation, clock, key):
            return Decision(jax.random.randint(key, (2,), 0, 3))

        def update(state, batch, clock, key):
            place, times = state.opt_state
            now = jnp.stack([clock.env_steps, clock.updates, clock.progress])
            return state.replace(opt_state=(place + 1, times.at[place].set(now))), {
                "learned": clock.updates >= 0
            }

        when = periods(
            self.memory,
            game,
            num_envs,
            learning_starts=self.learning_starts,
            update_period=self.update_period,
        )
        return Learner(
            memory=self.memory,
            periods=when,
            init=lambda key: LearnerState((), (), (jnp.int32(0), jnp.zeros((self.keep, 3)))),
            begin=no_memory,
            act=act,
            act_greedily=lambda params, carry, observation, key: act(params, carry, observation, None, key),
            update=update,
        )


def updates_one_by_one(experiment):
    """`(env_steps, updates, progress)` that every update should be told."""
    schedule, found = experiment.schedule, []
    for iteration in range(experiment.iterations):
        since = iteration - schedule.warmup
        if since >= 0 and since % schedule.update_every == 0:
            taken = iteration + 1
            for _ in range(experiment.updates_per_step):
                found.append((taken * experiment.num_envs, len(found), taken / experiment.iterations))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "fields", "first"),
    [
        (Counter(Rollout(4)), {}, 4),
        (Counter(Rollout(4), 2, 50), {"num_envs": 3, "updates_per_step": 2}, 20),
        (Counter(Together(fresh=Rollout(4), replay=Transitions(50, 4)), 1, 30), {"num_envs": 2}, 16),
        (Counter(Together(fresh=Rollout(5), replay=Episodes(50, 4))), {"updates_per_step": 3}, 10),
    ],
)
def test_updates_are_counted(algorithm, fields, first):
    num_envs = fields.get("num_envs", 1)
    experiment = Experiment(
        algorithm=algorithm,
        environment=GAME,
        seeds=(4, 5),
        env_steps=101 * num_envs,
        evaluations=3,
        evaluation_episodes=1,
        **fields,
    )
    result, expected = train(experiment), updates_one_by_one(experiment)
    assert expected[0][0] == first * num_envs and len(expected) > 7
    count, times = result.learner.opt_state
    assert count.tolist() == [len(expected)] * 2
    for seed in range(2):
        np.testing.assert_allclose(times[seed, : len(expected)], expected, rtol=1e-6)
        assert not times[seed, len(expected) :].any()
    # What is yes or no has a mean too, and none before there was an update.
    learned = result.history.arrays()["learned"]
    assert np.isnan(learned[0]).all() and (learned[1:] == 1).all()


def test_counts_stop_at_the_largest_that_32_bits_hold():
    experiment = Experiment(
        algorithm=Counter(Rollout(4)),
        environment=GAME,
        seeds=(0,),
        env_steps=4096 * (2**31 - 10),
        num_envs=4096,
        updates_per_step=7,
    )
    program = Program(experiment)
    late = program._clock(jnp.int32(2**31 - 10), 6)
    assert late.env_steps == 4096 * ((2**31 - 1) // 4096)
    assert 2**31 - 1 - 14 <= int(late.updates) <= 2**31 - 1 and int(late.updates) % 7 == 6
    assert late.progress == 1
    early = program._clock(jnp.int32(8 * 1000), 0)
    assert (int(early.env_steps), int(early.updates)) == (8000 * 4096, 2000 * 7)


# Keys


@dataclasses.dataclass(frozen=True)
class Guesser:
    """Draws at the start as a game with this start does, or at each step, and plays what it has drawn."""

    start: tuple[float, ...]
    at_each_step: bool = False

    def bind(self, game: GameSpec, num_envs: int = 1) -> Learner:
        def draw(key):
            return jax.random.choice(key, len(self.start), p=jnp.asarray(self.start)).astype(jnp.int32)

        def begin(params, observation, key):
            return () if self.at_each_step else draw(key)

        def act_greedily(params, carry, observation, key):
            if self.at_each_step:
                return Decision(jax.vmap(draw)(jax.random.split(key, game.num_agents)))
            return Decision(jnp.broadcast_to(carry, (game.num_agents,)), carry)

        memory = Rollout()
        return Learner(
            memory=memory,
            periods=periods(memory, game, num_envs),
            init=lambda key: LearnerState((), (), {"hits": jnp.zeros(()), "all": jnp.zeros(())}),
            begin=no_memory if self.at_each_step else begin,
            act=lambda params, carry, observation, clock, key: act_greedily(params, carry, observation, key),
            act_greedily=act_greedily,
            update=lambda state, batch, clock, key: (
                state.replace(
                    opt_state={
                        "hits": state.opt_state["hits"] + batch.reward.sum(),
                        "all": state.opt_state["all"] + batch.mask.sum(),
                    }
                ),
                {"reward": batch.reward.mean()},
            ),
        )


def guessing_game(stages=4):
    """Pays 1 if the first agent names the stage, each as likely as the other, and is over."""
    payoff = np.zeros((stages, stages, stages))
    payoff[np.arange(stages), np.arange(stages)] = 1
    return staged_game(payoff, np.full(payoff.shape, -1), np.full(stages, 1 / stages), time_limit=1)


@pytest.mark.slow
def test_what_agents_draw_at_the_start_is_independent_of_what_the_game_draws():
    """In greedy play and in training: keys that are the same, or made in the same way, would guess it."""
    env = guessing_game()
    guesser = Guesser((0.25,) * 4)
    bound = 5 * np.sqrt(1 / 4 * 3 / 4 / 4000)
    returned = jax.jit(lambda key: evaluate(guesser.bind(GameSpec.of(env)), env, (), key, 4000))(
        jax.random.key(0)
    )
    assert float(returned["episode_return"]) == pytest.approx(1 / 4, abs=bound)
    experiment = Experiment(
        algorithm=guesser,
        environment=env,
        seeds=(0,),
        env_steps=4000,
        num_envs=40,
        evaluations=1,
        evaluation_episodes=1,
    )
    tally = train(experiment).learner.opt_state
    assert tally["all"].tolist() == [4000]
    assert float(tally["hits"][0]) / 4000 == pytest.approx(1 / 4, abs=bound)


def test_a_stochastic_policy_can_be_played_greedily():
    """Every step and every agent has a draw of its own: hits out of 6 are binomial."""
    payoff = np.zeros((2, 2))
    payoff[0, 0] = 1
    env = matrix_game(payoff, stages=6)
    guesser = Guesser((0.7, 0.3), at_each_step=True)
    learner = guesser.bind(GameSpec.of(env))
    keys = jax.random.split(jax.random.key(1), 5000)
    returns, lengths = jax.jit(jax.vmap(lambda key: greedy_return(learner, env, (), key)))(keys)
    assert (lengths == 6).all()
    expected = stats.binom.pmf(np.arange(7), 6, 0.7**2) * 5000
    counted = np.bincount(np.asarray(returns).astype(int), minlength=7)
    assert stats.chisquare(counted, expected).pvalue > 1e-4


@pytest.mark.parametrize(
    "algorithm",
    [
        Guesser((0.2, 0.3, 0.5)),
        pytest.param(Guesser((0.2, 0.3, 0.5), at_each_step=True), marks=pytest.mark.slow),
        pytest.param(LatentActorCritic(Rollout(8)), marks=pytest.mark.slow),
    ],
    ids=["drawn-at-the-start", "drawn-at-each-step", "latent"],
)
def test_a_player_plays_a_stochastic_policy_again_from_the_same_key(algorithm):
    """And what is watched is the episode that is counted."""
    learner = algorithm.bind(GameSpec.of(GAME))
    params = learner.init(jax.random.key(7)).params
    player = Player(algorithm, GAME, params, env_steps=0)
    np.testing.assert_array_equal(player.returns(16, key=3), player.returns(16, key=3))
    assert (player.returns(16, key=3) != player.returns(16, key=4)).any()
    counted = jax.jit(functools.partial(greedy_return, learner, GAME, params))
    paths = set()
    for key in range(4):
        states = player.states(key)
        paths.add(tuple(tuple(state.last_actions.tolist()) for state in states))
        total, length = counted(jax.random.key(np.uint32(key)))
        paid = [
            GAME_PAYOFF[(int(before.stage), *map(int, after.last_actions))]
            for before, after in itertools.pairwise(states)
        ]
        assert len(paid) == int(length)
        assert float(total) == pytest.approx(sum(paid), abs=1e-5)
    assert len(paths) > 2


def test_a_latent_of_greedy_play_is_kept_for_the_episode():
    """The agents of a game of six stages play the latent that they drew at its start."""
    payoff = np.diag(np.arange(4.0) * 10)
    env = matrix_game(payoff, stages=6)
    learner = Guesser((0.25,) * 4).bind(GameSpec.of(env))
    keys = jax.random.split(jax.random.key(1), 2000)
    returns, _ = jax.jit(jax.vmap(lambda key: greedy_return(learner, env, (), key)))(keys)
    found, counts = np.unique(returns, return_counts=True)
    assert found.tolist() == [0, 60, 120, 180]
    assert stats.chisquare(counts).pvalue > 1e-4


def test_the_agents_of_a_start_are_those_of_that_observation():
    """`begin` is given what the agents see there, and the parameters."""

    @dataclasses.dataclass(frozen=True)
    class Remembering(Guesser):
        def bind(self, game, num_envs=1):
            learner = super().bind(game, num_envs)

            def begin(params, observation, key):
                return observation.agents_view[0].argmax().astype(jnp.int32) + params

            def act(params, carry, observation, clock, key):
                return Decision(jnp.zeros(2, jnp.int32), carry, {"start": carry})

            def update(state, batch, clock, key):
                stage = batch.observation.agents_view[:, 0, 0].argmax(-1)
                wrong = batch.first[:, 0] & (batch.extras["start"][:, 0] != stage + state.params)
                return state, {"wrong": wrong.sum(), "begun": batch.first[:, 0].sum()}

            init = lambda key: LearnerState(jnp.int32(7), (), ())  # noqa: E731
            return learner._replace(init=init, begin=begin, act=act, update=update)

    experiment = Experiment(
        algorithm=Remembering((0.2,) * 5),
        environment=GAME,
        seeds=(0,),
        env_steps=400,
        num_envs=2,
        evaluations=1,
        evaluation_episodes=1,
    )
    seen = train(experiment).history.last
    assert seen["wrong"].tolist() == [0]
    assert seen["begun"][0] * 200 > 50
