"""The loop on small experiments. All runs of one shape share a compiled program, through JAX's cache."""

import dataclasses
import functools
import math
import os
import re
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

import baselines
import envs
from envs import memory
from envs.matrix_games import QTRAN_PAYOFF, matrix_game, two_step_game
from envs.predator_prey import predator_prey
from jaxmarl_fac import loop, parallel, progress
from jaxmarl_fac.algorithm import Learner, LearnerState, periods
from jaxmarl_fac.errors import DivergedError
from jaxmarl_fac.experience import Decision
from jaxmarl_fac.experiment import Experiment
from jaxmarl_fac.files import locked
from jaxmarl_fac.game import GameSpec
from jaxmarl_fac.loop import InterruptedRunError, train
from jaxmarl_fac.memory import Rollout
from jaxmarl_fac.parallel import AXIS
from jaxmarl_fac.program import Program
from jaxmarl_fac.saved import save_experiment
from tests.helpers import but_slow

SMALL = {
    "hidden": (8,),
    "batch_size": 8,
    "replay_size": 64,
    "learning_starts": 10,
    "learning_rate": 0.01,
    "target_period": 7,
    "epsilon_end": 0.1,
    "epsilon_steps": 150,
}
#: 205 steps make no whole number of replay buffers, target periods, episodes or evaluation intervals.
BASE = Experiment(
    algorithm=baselines.make("vdn", **SMALL),
    environment=two_step_game(),
    seeds=tuple(range(64)),
    env_steps=205,
    evaluations=4,
    evaluation_episodes=2,
)
POINTS = [0, 52, 103, 154, 205]


def changed(experiment=BASE, **fields):
    return dataclasses.replace(experiment, **fields)


def host(tree):
    """The leaves of a tree, as NumPy arrays; typed keys as their bits."""
    return [
        np.asarray(
            jax.random.key_data(leaf) if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
        )
        for leaf in jax.tree.leaves(tree)
    ]


def assert_same(one, other, lanes=slice(None), other_lanes=slice(None)):
    """Two trees or results, or some lanes of them, to the bit."""
    for a, b in zip(host(one), host(other), strict=True):
        np.testing.assert_array_equal(a[lanes], b[other_lanes])


#: With another number of lanes on a device XLA may compile another program, which adds up matrix products
#: in another order. After BASE's 205 steps that made up to 3e-7. To the bit is asked of all else: of the
#: same lanes on the same devices, however they are cut, stopped, killed and resumed.
TOLERANCE = 1e-5


def assert_same_result(one, other, lanes=slice(None), other_lanes=slice(None), tolerance=0.0):
    """The same learners and the same history, to the bit or within a tolerance."""
    for a, b in zip(host(one.learner), host(other.learner), strict=True):
        np.testing.assert_allclose(a[lanes], b[other_lanes], rtol=tolerance, atol=tolerance)
    a, b = one.history.arrays(), other.history.arrays()
    assert list(a) == list(b)
    np.testing.assert_array_equal(a.pop("env_steps"), b.pop("env_steps"))
    for name in a:
        rows, other_rows = a[name][:, lanes], b[name][:, other_lanes]
        np.testing.assert_allclose(rows, other_rows, rtol=tolerance, atol=tolerance, err_msg=name)


class Listener:
    """A tracker that notes the evaluations it hears of, and asks to stop at one of them."""

    def __init__(self, stop_at=None, number=signal.SIGTERM):
        self.heard, self.stop_at, self.number = [], stop_at, number

    def start(self, history):
        self.before = history.arrays()["env_steps"].tolist()

    def log(self, history, seconds):
        self.heard.append(history.last_env_steps)
        if history.last_env_steps == self.stop_at:
            os.kill(os.getpid(), self.number)


def interrupted(experiment, out, **options):
    """What a run left that a signal stopped."""
    with pytest.raises(InterruptedRunError) as stop:
        train(experiment, out, **options)
    assert isinstance(stop.value, KeyboardInterrupt)  # a script that trains on is stopped too
    return stop.value.result


@pytest.fixture(scope="module")
def whole():
    """All of BASE, uninterrupted."""
    return train(BASE)


# What a run leaves


def test_evaluations_and_their_metrics(whole):
    history = whole.history.arrays()
    assert history["env_steps"].tolist() == POINTS
    assert set(history) == {"env_steps", "episode_return", "episode_length", "loss", "mean_q_tot"}
    for name, rows in history.items():
        assert name == "env_steps" or rows.shape == (5, 64)
    assert (history["episode_length"] == 2).all()
    assert set(np.unique(history["episode_return"])) <= {0, 1, 7, 8}
    assert np.isnan(history["loss"][0]).all()  # nothing was learned yet
    assert np.isfinite(history["loss"][1:]).all()
    assert whole.env_steps == 205
    assert whole.seconds > 0
    assert all(leaf.shape[0] == 64 for leaf in jax.tree.leaves(whole.learner))


def test_it_learns(whole):
    loss = whole.history.arrays()["loss"].mean(axis=1)
    # From all 0 to the mean square of rewards in about 0, 1, 7, 8: well under a half of it.
    assert loss[4] < loss[1] / 2


def test_metrics_are_means_since_the_last_evaluation(whole):
    program = Program(BASE)
    lanes, _ = program.chunk(program.initial_lanes(), 0, 52)
    losses = np.asarray(lanes.sums["loss"])
    first, lanes = program.evaluate(lanes, 52, 0)
    np.testing.assert_array_equal(first["loss"], losses / np.float32(52 - 10))  # 10 steps without learning
    for total in jax.tree.leaves(lanes.sums):
        np.testing.assert_array_equal(total, 0)
    lanes, _ = program.chunk(lanes, 52, 103)
    losses = np.asarray(lanes.sums["loss"])
    second, _ = program.evaluate(lanes, 103, 52)
    np.testing.assert_array_equal(second["loss"], losses / np.float32(51))
    np.testing.assert_array_equal(whole.history.arrays()["loss"][1:3], [first["loss"], second["loss"]])


# A seed's life does not depend on the others, on chunks or on devices


def test_seed_7_alone_and_among_64(whole):
    alone = train(changed(seeds=(7,)))
    assert_same_result(alone, whole, other_lanes=slice(7, 8), tolerance=TOLERANCE)


@pytest.mark.slow
def test_seeds_in_any_order_and_number(whole):
    """Three lanes do not divide among two devices."""
    three = train(changed(seeds=(7, 63, 2)))
    assert_same_result(three, whole, other_lanes=[7, 63, 2], tolerance=TOLERANCE)
    assert three.history.arrays()["loss"].shape == (5, 3)


def test_seeds_differ(whole):
    for leaf in host(whole.learner.params):
        if leaf.ndim > 2:
            assert len(np.unique(leaf.reshape(64, -1), axis=0)) == 64


@pytest.mark.slow
def test_another_root_key_is_another_life(whole):
    other = train(changed(root_key=1))
    differing = [
        (a != b).reshape(64, -1).any(axis=1).all()
        for a, b in zip(host(other.learner.params), host(whole.learner.params), strict=True)
    ]
    assert all(differing)


@pytest.mark.slow
def test_chunks_change_nothing(whole, monkeypatch):
    cut = []
    original = Program.chunk

    def noting(self, lanes, start, stop):
        cut.append(stop - start)
        return original(self, lanes, start, stop)

    monkeypatch.setattr(Program, "chunk", noting)
    monkeypatch.setattr(loop, "CHUNK_SECONDS", 0.0)
    assert_same_result(train(BASE), whole)
    assert cut == [52] + [1] * 153  # one iteration at a time, after the first chunk


def test_odd_chunks_change_nothing(whole):
    """Cut at and around the warm-up's end (10) and the target copies (17, 24, ...)."""
    program = Program(BASE)
    lanes, before = program.initial_lanes(), 0
    for stop in (1, 9, 10, 11, 16, 17, 18, 24, 25, 38, 66, 205):
        lanes, healthy = program.chunk(lanes, before, stop)
        assert healthy.all()
        before = stop
    assert_same(program.unpad(lanes.learner), whole.learner)


def one_device(lanes):
    return Mesh(np.asarray(jax.devices()[:1]), (AXIS,))


#: Learners of each kind, small; agents with a memory and networks of actors too.
KINDS = {
    "feed-forward": BASE,
    "recurrent": changed(
        algorithm=baselines.make("vdn", **SMALL, consumes="episodes", recurrent=True), env_steps=60
    ),
    "tabular": changed(algorithm=baselines.make("iql-tabular")),
    "actor-critic": changed(
        algorithm=baselines.make("sac", hidden=(16,), batch_size=64),
        environment=envs.make("differential"),
        env_steps=60,
    ),
}


@pytest.mark.parametrize("kind", but_slow(KINDS, ["tabular"]))
def test_bitwise_seeds_are_the_same_bits_alone_among_others_and_on_other_devices(kind, monkeypatch):
    """The default is only the same but for rounding: SAC's 60 steps already differ in the first digits."""
    base = changed(KINDS[kind], bitwise_seeds=True, evaluations=2)
    among = train(changed(base, seeds=(0, 1, 2, 7, 3)))
    alone = train(changed(base, seeds=(7,)))
    assert_same_result(alone, among, other_lanes=slice(3, 4))
    monkeypatch.setattr("jaxmarl_fac.program.lane_mesh", one_device)
    assert_same_result(train(changed(base, seeds=(7, 2))), among, other_lanes=[3, 2])


@pytest.mark.slow
@pytest.mark.parametrize("devices", [3, 8])
@pytest.mark.parametrize("kind", KINDS)
def test_bitwise_seeds_on_three_and_eight_devices(kind, devices, tmp_path):
    """A run that starts on so many devices and ends on two is the one that has two from start to end."""
    experiment = changed(KINDS[kind], bitwise_seeds=True, seeds=tuple(range(9)), evaluations=2)
    save_experiment(experiment, tmp_path / "experiment.json")
    half = experiment.schedule.eval_iterations[1]
    process = start_elsewhere(tmp_path, devices, stop_at=half, checkpoint_seconds=60)
    _, complaints = process.communicate(timeout=300)
    assert process.returncode == 0, complaints
    assert_same_result(train(experiment, tmp_path), train(experiment))


@pytest.mark.slow
def test_bitwise_seeds_learn_what_the_default_learns(whole):
    bitwise = train(changed(bitwise_seeds=True, seeds=(7, 63)))
    assert_same_result(bitwise, whole, other_lanes=[7, 63], tolerance=TOLERANCE)


@pytest.mark.slow
def test_blocks_of_lanes_change_nothing(whole, monkeypatch):
    """Blocks of 7 lanes on two devices: 32 of 35 lanes each have work."""
    assert Program(BASE).block == 16
    monkeypatch.setattr(parallel, "CPU_BLOCK", 7)
    assert len(Program(BASE).pad_index) == 70
    assert_same_result(train(BASE), whole, tolerance=TOLERANCE)


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_resets_are_the_same_whether_drawn_in_every_step_or_where_an_episode_ends(seeds, monkeypatch):
    """On CPU they are drawn where any environment needs one: here 3 that are out of step with one another."""
    short = changed(seeds=seeds, num_envs=3, env_steps=150, environment=envs.make("team-mdp-line"))

    def branches() -> int:
        return Program(short).lowered()["chunk"].as_text().count("stablehlo.case")

    asks, sometimes = branches(), train(short)
    monkeypatch.setattr("jaxmarl_fac.program.on_cpu", lambda mesh: False)
    assert branches() < asks
    assert_same_result(train(short), sometimes)


@pytest.mark.parametrize("precision", but_slow(["highest", "default", "tensorfloat32"], ["highest"]))
def test_every_matrix_product_of_a_run_has_the_experiments_precision(precision):
    asked = {"highest": "HIGHEST", "default": "DEFAULT", "tensorfloat32": "HIGH"}[precision]
    lowered = Program(changed(seeds=(0,), matmul_precision=precision)).lowered()
    for name in ("chunk", "evaluation"):
        products = re.findall(r"dot_general .*", lowered[name].as_text())
        assert len(products) >= 2, name
        for product in products:
            assert f"precision = [{asked}, {asked}]" in product


@pytest.mark.slow
def test_on_cpu_the_precision_changes_no_bit(whole):
    assert_same_result(train(changed(matmul_precision="default")), whole)


@pytest.mark.slow
def test_lanes_that_update_by_groups_change_nothing(whole, monkeypatch):
    """As on an accelerator with large batches: all act at once, 16 in a block, and 5 at a time update."""
    monkeypatch.setattr("jaxmarl_fac.program.block_sizes", lambda *_: (16, 5))
    assert (Program(BASE).block, Program(BASE).updating) == (16, 5)
    assert_same_result(train(BASE), whole, tolerance=TOLERANCE)


@pytest.mark.slow
def test_one_device_and_two(whole, monkeypatch, tmp_path):
    """One device for the first half, two for the second: the numbers of two from start to end."""
    assert Program(BASE).mesh.size == 2
    with monkeypatch.context() as patch:
        patch.setattr("jaxmarl_fac.program.lane_mesh", one_device)
        half = interrupted(BASE, tmp_path, tracker=Listener(stop_at=103))
    assert half.env_steps == 103
    assert {leaf.sharding.num_devices for leaf in jax.tree.leaves(half.learner)} == {1}
    assert_same_result(train(BASE, tmp_path), whole, tolerance=TOLERANCE)


@pytest.mark.slow
def test_three_seeds_on_one_device_and_on_two(whole, monkeypatch, tmp_path):
    """Two devices have four lanes then, one of them idle, and one device has three."""
    three = changed(seeds=(7, 63, 2))
    with monkeypatch.context() as patch:
        patch.setattr("jaxmarl_fac.program.lane_mesh", one_device)
        interrupted(three, tmp_path, tracker=Listener(stop_at=52))
    interrupted(three, tmp_path, tracker=Listener(stop_at=103))  # on two
    monkeypatch.setattr("jaxmarl_fac.program.lane_mesh", one_device)
    result = train(three, tmp_path)
    assert_same_result(result, whole, other_lanes=[7, 63, 2], tolerance=TOLERANCE)


IN_ANOTHER_PROCESS = """
import sys
from pathlib import Path

import jaxmarl_fac.all_cores

import os, signal
import jax
from jaxmarl_fac import loop, parallel, progress
from jaxmarl_fac.saved import load_experiment

out, devices, stop_at = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
assert len(jax.devices()) == devices, jax.devices()
loop.CHUNK_SECONDS = 0.0

class Listener:
    def start(self, history):
        pass

    def log(self, history, seconds):
        if history.last_env_steps == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

experiment, seconds = load_experiment(out / "experiment.json"), float(sys.argv[4])
try:
    loop.train(experiment, out, tracker=Listener(), checkpoint_seconds=seconds)
except loop.InterruptedRunError:
    sys.exit()
raise AssertionError("it was not interrupted")
"""


def start_elsewhere(out, devices, stop_at, checkpoint_seconds):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    environment = {**os.environ, "XLA_FLAGS": flags}
    del environment["JAX_NUM_CPU_DEVICES"]
    command = [
        sys.executable,
        "-c",
        IN_ANOTHER_PROCESS,
        str(out),
        str(devices),
        str(stop_at),
        str(checkpoint_seconds),
    ]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_eight_devices_and_two(whole, tmp_path):
    """Eight devices for the first half, two for the second: the numbers of two from start to end."""
    save_experiment(BASE, tmp_path / "experiment.json")
    process = start_elsewhere(tmp_path, devices=8, stop_at=103, checkpoint_seconds=60)
    _, complaints = process.communicate(timeout=300)
    assert process.returncode == 0, complaints
    listener = Listener()
    assert_same_result(train(BASE, tmp_path, tracker=listener), whole, tolerance=TOLERANCE)
    assert listener.heard == [154, 205]


# Interrupted and resumed


@pytest.mark.parametrize("number", but_slow([signal.SIGTERM, signal.SIGINT], [signal.SIGTERM]))
def test_stopped_by_a_signal_and_resumed(whole, tmp_path, number):
    first, second, third = Listener(52, number), Listener(154, number), Listener()
    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    parts = [interrupted(BASE, tmp_path, tracker=tracker) for tracker in (first, second)]
    parts.append(train(BASE, tmp_path, tracker=third))
    assert [part.env_steps for part in parts] == [52, 154, 205]
    assert first.heard + second.heard + third.heard == POINTS  # each once
    assert_same_result(parts[2], whole)
    assert parts[0].seconds < parts[1].seconds < parts[2].seconds  # counted over all sessions
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == handlers


@pytest.mark.slow
def test_stopped_between_evaluations_and_resumed(whole, tmp_path, monkeypatch):
    """In the middle of episodes, of a target period and of an interval of metrics."""
    original = Program.chunk

    def stopping(self, lanes, start, stop):
        if start == 111:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, lanes, start, stop)

    monkeypatch.setattr(loop, "CHUNK_SECONDS", 0.0)  # single iterations, from the second chunk on
    with monkeypatch.context() as patch:
        patch.setattr(Program, "chunk", stopping)
        half = interrupted(BASE, tmp_path)
    assert half.env_steps == 111 + 1  # the iteration that was under way is finished first
    assert half.history.last_env_steps == 103
    assert_same_result(train(BASE, tmp_path), whole)


def kill_and_resume(out, kills, seed, whole):
    """Kill a process with checkpoints after every iteration at random moments, then go on here."""
    rng = np.random.default_rng(seed)
    save_experiment(BASE, out / "experiment.json")

    def kept():
        """Iterations of whole checkpoints; others have longer names."""
        return {path.name for path in (out / "checkpoints").glob("*") if path.name.isdigit()}

    for _ in range(kills):
        before = kept()
        process = start_elsewhere(out, devices=2, stop_at=-1, checkpoint_seconds=0)
        deadline = time.monotonic() + 240
        while not kept() - before:
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.3))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    listener = Listener()
    assert_same_result(train(BASE, out, tracker=listener), whole)
    assert 0 not in listener.heard  # it went on, and did not start again
    assert listener.heard[-1] == 205


@pytest.mark.slow
def test_killed_at_a_random_moment_and_resumed(whole, tmp_path):
    kill_and_resume(tmp_path, kills=1, seed=time.time_ns(), whole=whole)


@pytest.mark.slow
def test_killed_many_times_and_resumed(whole, tmp_path):
    kill_and_resume(tmp_path, kills=4, seed=0, whole=whole)


# When things happen


@pytest.fixture(scope="module")
def steps():
    """The learners of BASE after every one of its first 40 iterations."""
    program = Program(BASE)
    lanes = program.initial_lanes()
    learners = [jax.tree.map(np.asarray, lanes.learner)]
    for iteration in range(40):
        lanes, _ = program.chunk(lanes, iteration, iteration + 1)
        learners.append(jax.tree.map(np.asarray, lanes.learner))
    return learners


def test_no_learning_before_learning_starts(steps):
    for learner in steps[:11]:  # after 0 to 10 steps
        assert_same(learner, steps[0])
    for before, after in zip(host(steps[10].params), host(steps[11].params), strict=True):
        assert (before != after).reshape(64, -1).any()


def test_one_update_for_every_step(steps):
    for taken, learner in enumerate(steps):
        assert set(np.asarray(learner.opt_state.count)) == {max(0, taken - 10)}


def test_the_target_is_copied_after_every_target_period_and_not_before(steps):
    for taken, learner in enumerate(steps):
        copied = taken if taken <= 10 else 10 + (taken - 10) // 7 * 7
        assert_same(learner.target_params, steps[copied].params)
        if taken > copied:
            assert any(
                (a != b).any() for a, b in zip(host(learner.params), host(learner.target_params), strict=True)
            )


MANY = changed(
    algorithm=baselines.make(
        "vdn",
        **{**SMALL, "epsilon_start": 0.0, "epsilon_end": 1.0, "epsilon_steps": 4, "target_period": 6},
    ),
    environment=matrix_game(QTRAN_PAYOFF),
    env_steps=40,
    num_envs=4,
    updates_per_step=2,
    evaluations=1,
)


@pytest.mark.slow
def test_several_environments_and_updates_in_a_step():
    program = Program(MANY)
    lanes, learners = program.initial_lanes(), []
    for iteration in range(10):
        lanes, _ = program.chunk(lanes, iteration, iteration + 1)
        learners.append(jax.tree.map(np.asarray, lanes.learner))
    # 10 steps without learning take three steps of four environments; then there are two updates in each.
    updates = [0, 0, 0, 2, 4, 6, 8, 10, 12, 14]
    assert [set(np.asarray(learner.opt_state.count)) for learner in learners] == [{n} for n in updates]
    # Six updates are three iterations.
    for i, copied in {3: 0, 4: 0, 5: 5, 6: 5, 7: 5, 8: 8, 9: 8}.items():
        assert_same(learners[i].target_params, learners[copied].params)
    row, _ = program.evaluate(lanes, 10, 0)
    np.testing.assert_array_equal(row["loss"], np.asarray(lanes.sums["loss"]) / np.float32(14))


def greedy_actions(experiment, params):
    """The greedy joint action of every lane at the start, `(lanes, n)`."""
    env, learner = experiment.environment, experiment.bind()
    key = jax.random.key(0)
    observation = env.observe(env.reset(key)[0])
    greedy = jax.vmap(lambda params: learner.act_greedily(params, (), observation, key).actions)
    return np.asarray(greedy(params))


def stored_actions(program, buffer):
    """The joint actions in every place of replay, `(lanes, size, n)`."""
    _, store = program.bind(program.experiment.environment)
    places = jnp.arange(store.size)
    return np.asarray(jax.jit(jax.vmap(store.transitions, (0, None)))(buffer, places)["actions"])


@pytest.mark.slow
def test_epsilon_is_that_of_the_environment_steps():
    """MANY's goes from 0 to 1 in 4 steps, which are its first iteration: greedy there, then uniform."""
    program = Program(MANY)
    start = program.initial_lanes()
    greedy = greedy_actions(MANY, start.learner.params)
    lanes, _ = program.chunk(start, 0, 3)
    actions = stored_actions(program, lanes.buffer)  # (lanes, size, n)
    is_greedy = (actions == greedy[:, None]).all(axis=-1)
    assert is_greedy[:, :4].all()
    # 512 joint actions, each greedy by chance with 1/9
    assert abs(is_greedy[:, 4:12].mean() - 1 / 9) < 5 * np.sqrt(8 / 81 / 512)


@pytest.mark.slow
def test_beyond_32_bits_exploration_stays_at_its_end_and_replay_in_its_rows():
    """From iteration 2^29 on the count of four environments' steps no longer fits into 32 bits."""
    settings = {**SMALL, "epsilon_start": 1.0, "epsilon_end": 0.0, "epsilon_steps": 4, "learning_rate": 1e-9}
    settings["target_period"] = 6  # a multiple of the updates in a step
    far = changed(MANY, algorithm=baselines.make("vdn", **settings), env_steps=2**33 - 80)
    program = Program(far)
    lanes, _ = program.chunk(program.initial_lanes(), 0, 4)
    start = 2**29 + 5
    lanes = lanes.replace(buffer=jnp.full_like(lanes.buffer, 2))  # the joint action (2, 2)
    lanes, healthy = program.chunk(lanes, start, start + 3)
    assert healthy.all()
    best = greedy_actions(far, lanes.learner.params)  # (lanes, n)
    actions = stored_actions(program, lanes.buffer)  # (lanes, 64, n)
    slots = [4 * ((start + i) % 16) for i in range(3)]
    written = sorted(slot + i for slot in slots for i in range(4))
    assert (actions[:, written] == best[:, None]).all()
    assert (np.delete(actions, written, axis=1) == 2).all()
    assert (best != 2).any(axis=1).mean() > 0.5  # so that what was written can be told apart


@pytest.mark.slow
def test_the_newest_step_is_sampled_too():
    """The first update, after two steps, learns from both: its loss is a mixture of their losses."""
    env = matrix_game(np.arange(100.0).reshape(10, 10))
    settings = {**SMALL, "learning_starts": 1, "batch_size": 64, "epsilon_end": 1.0}
    algorithm = baselines.make("vdn", **settings)
    program = Program(changed(algorithm=algorithm, environment=env))
    lanes = program.initial_lanes()
    params = jax.tree.map(np.asarray, lanes.learner.params)
    lanes, _ = program.chunk(lanes, 0, 2)
    observation, game = env.observe(env.reset(jax.random.key(0))[0]), GameSpec.of(env)
    _, store = program.bind(env)

    def loss(params, item):
        value = algorithm.joint_values(game, params, observation, item["actions"].astype(jnp.int32))["q_tot"]
        return jnp.square(value - item["reward"])

    steps = jax.vmap(store.transitions, (0, None))(lanes.buffer, jnp.arange(2))  # (lanes, 2, ...)
    both = np.asarray(jax.jit(jax.vmap(jax.vmap(loss, (None, 0))))(params, steps))  # (lanes, 2)
    first, newest = both.T
    apart = np.abs(newest - first) > 1
    share = ((np.asarray(lanes.sums["loss"]) - first) / (newest - first))[apart]
    assert apart.sum() > 50
    # Of 64 samples in every lane half are the newest: 5 standard deviations over all lanes.
    assert abs(share.mean() - 0.5) < 5 * 0.5 / np.sqrt(64 * apart.sum())


# Batches of games


def games(*payoffs):
    one = matrix_game(payoffs[0])
    count = len(payoffs)
    return one.replace(
        payoff=jnp.asarray(payoffs, jnp.float32)[:, None],
        next_stage=jnp.broadcast_to(one.next_stage, (count, *one.next_stage.shape)),
        start=jnp.ones((count, 1)),
    )


OTHER, THIRD = np.eye(3) * 5, np.arange(9.0).reshape(3, 3)
#: Learning starts late enough that the first evaluation comes before it.
SEVERAL = changed(
    algorithm=baselines.make("vdn", **{**SMALL, "learning_starts": 60}),
    environment=games(QTRAN_PAYOFF, OTHER, THIRD),
    games=3,
    seeds=(4, 9),
)


@pytest.fixture(scope="module")
def several():
    return train(SEVERAL)


def test_the_first_game_of_a_batch_equals_it_alone(several):
    alone = train(changed(SEVERAL, environment=matrix_game(QTRAN_PAYOFF), games=0))
    assert_same_result(alone, several, other_lanes=slice(0, 2), tolerance=TOLERANCE)


@pytest.mark.parametrize(
    ("batch", "game"),
    [
        ((THIRD, OTHER, QTRAN_PAYOFF), 1),
        pytest.param((OTHER, QTRAN_PAYOFF, THIRD), 2, marks=pytest.mark.slow),
    ],
)
def test_no_game_depends_on_the_others_of_its_batch(several, batch, game):
    other = train(changed(SEVERAL, environment=games(*batch)))
    lanes = slice(2 * game, 2 * game + 2)
    assert_same_result(other, several, lanes, lanes)
    with pytest.raises(AssertionError):
        assert_same(other.learner, several.learner, slice(0, 2), slice(0, 2))


@pytest.mark.slow
def test_equal_games_of_a_batch_live_different_lives():
    result = train(changed(SEVERAL, environment=games(THIRD, THIRD, THIRD)))
    kernels = np.asarray(jax.tree.leaves(result.learner.params)[-1]).reshape(6, -1)
    assert len(np.unique(kernels, axis=0)) == 6


# Divergence

#: A reward whose square float32 cannot hold.
EXPLOSIVE = np.full((3, 3), 3e38)


def test_divergence_names_its_lanes_and_keeps_what_was_finished(several, tmp_path):
    with pytest.raises(DivergedError) as caught:
        train(changed(SEVERAL, environment=games(QTRAN_PAYOFF, EXPLOSIVE, THIRD)), tmp_path)
    error = caught.value
    assert error.lanes == ["game 1 seed 4", "game 1 seed 9"]
    assert "game 1 seed 4, game 1 seed 9" in str(error)
    assert "try a smaller learning rate" in str(error)
    assert "\n" not in str(error)
    kept, expected = error.history.arrays(), several.history.arrays()
    assert kept["env_steps"].tolist() == [0, 52]
    np.testing.assert_array_equal(
        kept["episode_return"][:, [0, 1, 4, 5]], expected["episode_return"][:2, [0, 1, 4, 5]]
    )


@pytest.mark.slow
def test_divergence_does_not_poison_the_others(several):
    program = Program(changed(SEVERAL, environment=games(QTRAN_PAYOFF, EXPLOSIVE, THIRD)))
    lanes, healthy = program.chunk(program.initial_lanes(), 0, 205)
    assert healthy.tolist() == [True, True, False, False, True, True]
    learner = program.unpad(lanes.learner)
    for leaf in host(learner.params):
        assert np.isfinite(leaf[[0, 1, 4, 5]]).all()
    assert_same(learner, several.learner, [0, 1, 4, 5], [0, 1, 4, 5])


@pytest.mark.slow
def test_every_seed_that_diverges_is_named():
    explosive = changed(environment=matrix_game(EXPLOSIVE), seeds=(3, 11), algorithm=SEVERAL.algorithm)
    with pytest.raises(DivergedError) as caught:
        train(explosive)
    assert caught.value.lanes == ["seed 3", "seed 11"]
    long = DivergedError([f"seed {i}" for i in range(64)], 100, caught.value.history)
    assert "environment step 100: seed 0, seed 1," in str(long)
    assert "seed 9 and 54 more" in str(long)


# What an algorithm may ask of the loop


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clerk:
    """Writes down what the loop does with it. Agents play the number of steps they remember, modulo 2."""

    learning_starts: int = 0
    target_period: int = 0
    update_period: int = 1

    def bind(self, game, num_envs=1):
        def init(key):
            params = {"updates": jnp.zeros(()), "seen": jnp.zeros((40,))}
            return LearnerState(params, params, ())

        def begin(params, observation, key):
            return jnp.zeros((), jnp.int32)

        def act(params, carry, observation, clock, key):
            return Decision(jnp.full((game.num_agents,), carry % 2), carry + 1)

        def act_greedily(params, carry, observation, key):
            return act(params, carry, observation, None, key)

        def update(state, batch, clock, key):
            count = state.params["updates"].astype(int)
            code = 10 * batch.actions[0, 0, 0] + batch.reward[0, 0]
            params = {
                "updates": state.params["updates"] + 1,
                "seen": state.params["seen"].at[count].set(code),
            }
            return state.replace(params=params), {"code": code.astype(jnp.float32)}

        memory = Rollout()
        return Learner(
            memory,
            periods(memory, game, num_envs, **dataclasses.asdict(self)),
            init,
            begin,
            act,
            act_greedily,
            update,
        )


#: Two steps to an episode. Agents that remember play (0, 0), which leads to the stage that pays 7 for
#: everything; so the steps are (action 0, reward 0) and (action 1, reward 7), in turn.
CLERK = Experiment(
    algorithm=Clerk(), environment=two_step_game(), seeds=(0, 1, 2), env_steps=40, evaluations=2
)


@functools.cache
def clerks_program(clerk):
    """Compiled once for all ways to cut it."""
    return Program(changed(CLERK, algorithm=clerk))


@pytest.mark.parametrize(
    ("settings", "updates", "copied"),
    [
        ({}, range(40), 0),
        pytest.param({"learning_starts": 5}, range(5, 40), 0, marks=pytest.mark.slow),
        pytest.param({"update_period": 3}, range(0, 40, 3), 0, marks=pytest.mark.slow),
        pytest.param({"update_period": 3, "learning_starts": 5}, range(5, 40, 3), 0, marks=pytest.mark.slow),
        ({"update_period": 3, "learning_starts": 5, "target_period": 4}, range(5, 40, 3), 8),
        pytest.param({"target_period": 7}, range(40), 35, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("cuts", [(40,), (1, 2, 3, 7, 8, 20, 40)])
def test_updates_and_copies_come_when_they_are_due(settings, updates, copied, cuts):
    """Whatever the chunks; each update sees the latest step; memory starts anew with every episode."""
    program = clerks_program(Clerk(**settings))
    lanes, start = program.initial_lanes(), 0
    for stop in cuts:
        lanes, healthy = program.chunk(lanes, start, stop)
        start = stop
    assert healthy.all()
    params, target = (
        jax.tree.map(np.asarray, t) for t in (lanes.learner.params, lanes.learner.target_params)
    )
    steps = np.asarray(updates)
    expected = np.zeros(40)
    expected[: len(steps)] = np.where(steps % 2 == 0, 0, 17)
    for lane in range(3):
        assert params["updates"][lane] == len(steps)
        np.testing.assert_array_equal(params["seen"][lane], expected)
        assert target["updates"][lane] == copied
    row, _ = program.evaluate(lanes, 40, 20)
    assert (row["episode_return"] == 7).all()
    late = [0 if step % 2 == 0 else 17 for step in steps if step >= 20]
    if cuts == (40,):  # the sums run from the start, and are divided by the updates since the last point
        assert row["code"][0] == pytest.approx(expected.sum() / len(late))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"env_steps": 10}, "no update is due within 10 iterations of 1 environment(s)"),
        ({"env_steps": 9, "num_envs": 2}, "raise env_steps above 10, or lower learning_starts"),
        ({"env_steps": 9, "algorithm": Clerk(learning_starts=9, update_period=4)}, "comes after 9"),
        (
            {
                "env_steps": 199,
                "algorithm": baselines.make("vdn", consumes="episodes", learning_starts=1),
                "environment": predator_prey(time_limit=200),
            },
            "raise env_steps above 199",
        ),
    ],
)
def test_a_run_without_a_single_update_is_refused(bad_input, fields, says):
    with bad_input(says):
        train(changed(**{"evaluations": 1, **fields}))


@pytest.mark.parametrize("seconds", ["soon", None, -1.0, math.nan, math.inf])
def test_times_between_checkpoints_that_cannot_be(bad_input, tmp_path, seconds):
    with bad_input(f"checkpoint_seconds must be a finite number, 0 or above, not {seconds!r}"):
        train(CLERK, tmp_path / "run", checkpoint_seconds=seconds)
    assert not (tmp_path / "run").exists()


def test_arguments_of_other_types_are_refused(bad_input):
    for experiment in (None, CLERK.algorithm):
        with bad_input(f"experiment must be an Experiment, not {type(experiment).__name__}"):
            train(experiment)
    with bad_input("out must be the path of a folder, not int"):
        train(CLERK, 3)


def test_a_folder_in_use_is_refused_and_left_as_it_is(tmp_path, bad_input):
    with locked(tmp_path):
        before = list(tmp_path.iterdir())
        with bad_input(f"{tmp_path} is in use by process {os.getpid()} on "):
            train(CLERK, tmp_path)
        assert list(tmp_path.iterdir()) == before
    assert train(CLERK, tmp_path).env_steps == 40


def test_the_folder_may_be_text(tmp_path):
    train(CLERK, str(tmp_path / "run"))
    assert (tmp_path / "run" / "experiment.json").exists()


def test_the_first_update_may_be_the_last_step():
    result = train(changed(CLERK, algorithm=Clerk(learning_starts=39, update_period=7)))
    assert result.learner.params["updates"].tolist() == [1, 1, 1]


def test_an_algorithm_for_team_rewards_refuses_a_game_with_one_per_agent(bad_input):
    selfish = GameSpec.of(envs.make("matrix-pr2"))
    with bad_input("the algorithm learns from a reward of the whole team, and MatrixGame has one per agent"):
        baselines.make("vdn").bind(selfish)
    baselines.make("iql").bind(selfish)
    with bad_input("the algorithm needs discrete actions, but DifferentialGame has continuous ones"):
        baselines.make("vdn").bind(GameSpec.of(envs.make("differential")))


def test_targets_are_not_copied_amid_the_updates_of_an_iteration(bad_input):
    algorithm = baselines.make("vdn", **{**SMALL, "target_period": 7})
    with bad_input("target_period must be a multiple of updates_per_step (2), not 7"):
        train(changed(algorithm=algorithm, updates_per_step=2))


# What a person sees meanwhile


LOGGED = changed(CLERK, seeds=(0, 1), env_steps=205, evaluations=4)


def test_a_log_gets_lines_with_steps_speed_return_and_time_left(monkeypatch, capsys):
    monkeypatch.setattr(progress, "LOG_SECONDS", 0.0)
    train(LOGGED, title="vdn on two-step", show_progress=True)
    lines = capsys.readouterr().err.splitlines()
    pattern = (
        r"vdn on two-step: ([\d,]+) of 205 steps, [\d,]+ steps/s of 2 lane\(s\), "
        r"return IQM \S+, \d\d:\d\d left"
    )
    steps = [int(re.fullmatch(pattern, line).group(1)) for line in lines]
    assert steps == sorted(set(steps))
    assert steps[-1] == 205


def test_a_short_run_leaves_no_line_in_a_log(capsys):
    train(LOGGED, show_progress=True)
    assert not capsys.readouterr().err


def test_what_does_not_fit_into_memory_is_refused_before_it_is_made(bad_input, monkeypatch):
    """A million transitions of predator-prey for each of 100,000 seeds."""
    monkeypatch.setattr(memory, "free_bytes", lambda: 10**10)
    huge = changed(
        algorithm=baselines.make("vdn", replay_size=10**6),
        environment=predator_prey(),
        seeds=range(100_000),
        env_steps=10**7,
    )
    with bad_input("100,000 lane(s), 100 % of them replay, would take 1.83 TB of memory, and 10 GB are free"):
        train(huge)
    assert huge.lanes == 100_000


@pytest.mark.slow
def test_what_agents_remember_in_evaluations_is_counted(bad_input, monkeypatch):
    """A million particles of 16 bytes: 48 MB for the lane, and 2 * 1000 times 16 MB to evaluate it."""
    monkeypatch.setattr(memory, "free_bytes", lambda: 10**9)
    many = changed(
        algorithm=baselines.make("bad-particles", particles=10**6),
        environment=envs.make("private-cards"),
        seeds=(0,),
        evaluation_episodes=1000,
    )
    with bad_input("in 1,000 evaluation episodes at a time, and the lanes, would take 32 GB of memory"):
        train(many)


def test_a_short_run_needs_no_large_replay():
    """A thousand seeds with the paper's replay of a million, for 200 steps: 3.4 MB and not 17 GB."""
    short = changed(
        algorithm=baselines.make("vdn", replay_size=10**6),
        environment=predator_prey(),
        seeds=range(1000),
        env_steps=200,
    )
    lanes = Program(short).abstract_lanes()
    assert lanes.buffer.shape[1:] == (1, 29, 128)  # 7 transitions to a row
    assert lanes.buffer.size < 4e6  # bytes


def test_a_finished_run_is_not_run_again_and_keeps_its_time(tmp_path, monkeypatch):
    first = train(CLERK, tmp_path)

    def never(*args):
        raise AssertionError("it trained again")

    monkeypatch.setattr(Program, "chunk", never)
    listener = Listener()
    again = train(CLERK, tmp_path, tracker=listener)
    assert again.env_steps == 40
    assert listener.heard == []
    assert_same_result(again, first)
    assert train(CLERK, tmp_path).seconds == again.seconds == first.seconds
