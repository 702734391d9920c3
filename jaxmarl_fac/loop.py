"""The one loop. Read it from top to bottom.

A lane is one learner: one seed of one game. The lane axis is the leading axis of everything, laid out
over all devices; compute happens in jitted chunks of many iterations; between chunks the host shows
progress, logs, saves and listens for signals. What is computed never depends on how it is chunked.
"""

import dataclasses
import functools
import json
import math
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from envs.base import TeamEnvironment
from envs.errors import BadInputError
from envs.memory import check_fits
from jaxmarl_fac.algorithm import LearnerState
from jaxmarl_fac.checkpoints import Checkpoints, Saved
from jaxmarl_fac.errors import DivergedError
from jaxmarl_fac.evaluation import evaluate
from jaxmarl_fac.experiment import Experiment
from jaxmarl_fac.files import locked
from jaxmarl_fac.parallel import (
    EVERYWHERE,
    SEEDS,
    block_size,
    each_lane_alone,
    free_on_devices,
    over_lanes,
    over_seeds,
    padded,
    run_once,
    seed_mesh,
    seed_sharding,
    shard,
    to_host,
)
from jaxmarl_fac.progress import Progress
from jaxmarl_fac.replay import Buffer, memory_for, tree_bytes
from jaxmarl_fac.tracking import History, Tracker

#: The host wants to hear from the devices about this often, in seconds.
CHUNK_SECONDS = 2.0

#: The largest number that the loop can count to on a device.
LARGEST = 2**31 - 1

#: Fold-in constants for the initialisation and evaluation keys; larger than any iteration number.
INITIAL, EVALUATION = LARGEST, LARGEST - 1


class InterruptedRunError(KeyboardInterrupt):
    """A signal stopped a run before its end; its checkpoint is kept, and the same call goes on from there.

    A KeyboardInterrupt, so that a script that trains several runs stops too, unless it says otherwise.

    Attributes:
        result: of the run so far.
    """

    def __init__(self, result: "Result"):
        self.result = result
        super().__init__(f"stopped after {result.env_steps:,} environment steps; the same call goes on")


@struct.dataclass
class Lane:
    """All that changes while one learner learns."""

    learner: LearnerState
    buffer: Buffer
    env_states: Any  # of `num_envs` environments
    carries: Any  # what the agents of each environment remember within its episode
    sums: dict[str, jax.Array]  # of the update metrics since the last evaluation


@struct.dataclass
class Fixed:
    """What makes one lane differ from another, and never changes."""

    key: jax.Array
    environment: TeamEnvironment


@dataclasses.dataclass(frozen=True)
class Result:
    """What a run leaves.

    Attributes:
        history: metrics by name, each `(evaluations, lanes, ...)`, and the environment steps.
        learner: of every lane, leading axis `(lanes,)`.
        env_steps: environment steps that each lane has taken.
        seconds: time spent, over all sessions.
    """

    history: History
    learner: LearnerState
    env_steps: int
    seconds: float


def train(
    experiment: Experiment,
    out: str | Path | None = None,
    *,
    tracker: Tracker | None = None,
    title: str = "",
    show_progress: bool = False,
    checkpoint_seconds: float = 60.0,
    keep: int | Literal["all"] = 1,
    keep_best: bool = False,
    grow: bool = True,
) -> Result:
    """Run an experiment to its end, from where its checkpoint in `out` stands if there is one.

    A run of fewer env_steps in `out`, finished or not, goes on to the new end, and is evaluated from there on
    as the new number says. Schedules that span training (linear learning rates, annealings) stretch to the
    new end from then on; without them the numbers are those of one go. To a finished run of fewer seeds the
    new ones are added: they are trained in `out`/.added, evaluated when the old ones were, and then joined
    with them, whose numbers stay as they are. With both, the seeds are added first.

    Args:
        experiment: what to run.
        out: folder for checkpoints; None keeps none.
        tracker: is given every evaluation.
        title: of the progress bar.
        show_progress: on stderr, a bar on a terminal and one line a minute in a log.
        checkpoint_seconds: least time between two checkpoints; one is always written at the end.
        keep: how many of the newest checkpoints stay; "all" of them.
        keep_best: keep the one with the highest mean return too, and write one whenever that rises.
        grow: False refuses to go on from fewer env_steps or seeds, for results that must come from one go.

    Raises:
        DivergedError: if a lane stops being finite.
        InterruptedRunError: if SIGINT (Ctrl-C) or SIGTERM stopped it, after the checkpoint is written.
        BadInputError: if no update is due in so few steps, `checkpoint_seconds` is negative or not finite,
            `keep` is below 1, or `out` cannot be written, is in use, or holds another experiment, more steps
            or a broken checkpoint.
    """
    schedule = experiment.schedule
    if not schedule.updates(experiment.iterations):
        raise BadInputError(
            f"nothing would be learned: no update is due within {experiment.iterations:,} iterations of "
            f"{experiment.num_envs} environment(s), the first one comes after {schedule.warmup:,}: raise "
            f"env_steps above {schedule.warmup * experiment.num_envs:,}, or lower learning_starts"
        )
    if not 0 <= checkpoint_seconds < math.inf:
        raise BadInputError(
            f"checkpoint_seconds must be 0 or a finite number above, not {checkpoint_seconds}"
        )
    if keep != "all" and not (isinstance(keep, int) and keep >= 1):
        raise BadInputError(f"keep must be 'all' or a whole number from 1, not {keep!r}")
    evaluated = len(schedule.evaluation_points) * experiment.evaluation_episodes
    time_limit = experiment.environment.time_limit
    if evaluated * time_limit > LARGEST:
        raise BadInputError(
            f"{evaluated:,} episodes of evaluation would take up to {time_limit:,} steps each: "
            "ask for fewer evaluations or evaluation_episodes, or a lower time limit"
        )
    program = Program(experiment)
    program.check_memory()
    run = functools.partial(
        _run,
        points=schedule.evaluation_points,
        tracker=tracker,
        title=title,
        show_progress=show_progress,
        checkpoint_seconds=checkpoint_seconds,
    )
    return run(program, None) if out is None else _run_in(Path(out), program, run, keep, keep_best, grow)


def _run_in(
    folder: Path,
    program: "Program",
    run: "functools.partial[Result]",
    keep: int | Literal["all"] = 1,
    keep_best: bool = False,
    grow: bool = True,
) -> Result:
    """`run` with the checkpoints in a folder, after seeds that are new to it were trained as the others."""
    experiment, added = program.experiment, folder / ".added"
    with locked(folder):
        checkpoints = Checkpoints(folder, experiment, keep, keep_best, grow)
        if checkpoints.saved and checkpoints.saved.experiment.seeds != experiment.seeds:
            _add_seeds(added, experiment.seeds, checkpoints, checkpoints.saved, run)
        _drop_joined(added, experiment.seeds)
        return run(program, checkpoints)


def _add_seeds(
    folder: Path,
    seeds: tuple[int, ...],
    checkpoints: Checkpoints,
    saved: Saved,
    run: "functools.partial[Result]",
) -> None:
    """Train in `folder` the seeds that a finished run lacks, and join them with it in one checkpoint."""
    old, games = saved.experiment, max(1, saved.experiment.games)
    new = dataclasses.replace(old, seeds=tuple(seed for seed in seeds if seed not in old.seeds))
    joined = dataclasses.replace(old, seeds=seeds)
    history = saved.history.arrays()
    points = tuple(int(steps) // old.num_envs for steps in history.pop("env_steps"))
    title = f"{run.keywords['title']}, new seeds"
    _run_in(folder, Program(new), functools.partial(run, points=points, tracker=None, title=title))

    # Game by game, the seeds in their order: from the old lanes followed by the new ones.
    places = {seed: (place, len(old.seeds), 0) for place, seed in enumerate(old.seeds)}
    places |= {seed: (place, len(new.seeds), old.lanes) for place, seed in enumerate(new.seeds)}
    wanted = [places[seed] for seed in seeds]
    order = np.asarray(
        [start + game * count + place for game in range(games) for place, count, start in wanted]
    )
    abstract = Program(joined).abstract_lanes()
    first, second = checkpoints.restore(abstract), Checkpoints(folder, new).restore(abstract)
    assert first and second  # both runs have come to their end
    (lanes, iteration, _, seconds), (more, _, later, more_seconds) = first, second
    lanes = jax.tree.map(
        lambda one, other: jnp.concatenate([one[: old.lanes], other[: new.lanes]])[order], lanes, more
    )
    rows = later.arrays()
    for name, table in history.items():
        rows[name] = np.concatenate([table, rows[name]], axis=1)[:, order]
    checkpoints.save(lanes, iteration, History(rows), seconds + more_seconds, joined)


def _drop_joined(added: Path, seeds: tuple[int, ...]) -> None:
    """Remove a folder of added seeds, once a run has them all; those that still train stay."""
    try:
        left = json.loads((added / "experiment.json").read_text(encoding="utf-8"))["seeds"]
    except (OSError, ValueError):  # removed by half, or not there
        left = ()
    if set(left) <= set(seeds):
        shutil.rmtree(added, ignore_errors=True)


def _run(
    program: "Program",
    checkpoints: Checkpoints | None,
    *,
    points: tuple[int, ...],
    tracker: Tracker | None,
    title: str,
    show_progress: bool,
    checkpoint_seconds: float,
) -> Result:
    """See `train`. `points` are the iterations before which the learners are evaluated."""
    start, experiment = time.monotonic(), program.experiment
    schedule = program.schedule._replace(evaluation_points=points)
    saved = checkpoints.restore(program.abstract_lanes()) if checkpoints else None
    if saved:
        lanes, iteration, history, before = saved
        lanes = program.fitted(lanes)
        start = time.monotonic()  # to read what is there is no work on it
    else:
        lanes, iteration, history, before = program.initial_lanes(), 0, History(), 0.0
    if tracker:
        tracker.start(history)

    def elapsed() -> float:
        return before + time.monotonic() - start

    def save() -> None:
        if checkpoints:
            checkpoints.save(lanes, iteration, history, elapsed())

    last_save, chunk_size = time.monotonic(), 64
    bar = Progress(title, experiment, iteration, enabled=show_progress)
    with graceful_stop() as stop_asked, bar:
        while True:
            env_steps, best = iteration * experiment.num_envs, False
            if iteration in schedule.evaluation_points and history.last_env_steps < env_steps:
                last = max(0, history.last_env_steps) // experiment.num_envs
                row, lanes = program.evaluate(lanes, iteration, last)
                history.append(env_steps, row)
                bar.show(row)
                if tracker:
                    tracker.log(history, elapsed())
                best = checkpoints is not None and checkpoints.is_best(history)
            finished, stopped = iteration == experiment.iterations, stop_asked()
            if finished or stopped or best or time.monotonic() - last_save > checkpoint_seconds:
                save()
                last_save = time.monotonic()
            if finished or stopped:
                result = Result(history, program.unpadded(lanes.learner), env_steps, elapsed())
                if finished:
                    return result
                raise InterruptedRunError(result)

            stop = min(schedule.next_evaluation(iteration), iteration + chunk_size)
            began = time.monotonic()
            lanes, healthy = program.chunk(lanes, iteration, stop)
            if not healthy.all():
                if checkpoints:
                    checkpoints.save_history(history)
                raise DivergedError(program.lane_names(~healthy), stop * experiment.num_envs, history)
            speed = (stop - iteration) / (time.monotonic() - began)
            chunk_size = max(1, min(int(speed * CHUNK_SECONDS), 4 * chunk_size))
            bar.advance(stop - iteration)
            iteration = stop


class Program:
    """An experiment's compiled functions over all its lanes."""

    def __init__(self, experiment: Experiment):
        algorithm = experiment.algorithm
        self.experiment = experiment
        self.mesh = seed_mesh(experiment.lanes)
        fixed = self._fixed_lanes()
        env = jax.tree.map(lambda leaf: leaf[0], fixed.environment)
        algorithm.check(env)
        learner = jax.eval_shape(algorithm.init, env, fixed.key[0])
        #: Lanes that one device runs at a time.
        self.block = (
            1 if experiment.bitwise_seeds else block_size(experiment.lanes, self.mesh, tree_bytes(learner))
        )
        #: Which lane is where: all in their order, then some once more to fill up the devices.
        self.fill = np.arange(padded(experiment.lanes, self.mesh, self.block)) % experiment.lanes
        self.fixed = shard(jax.tree.map(lambda leaf: leaf[self.fill], fixed), self.mesh)
        self.memory = memory_for(algorithm, env, experiment.num_envs, experiment.iterations)
        self.schedule = experiment.schedule

        lanes, every = SEEDS, EVERYWHERE
        chunk_specs, look_specs = (lanes, lanes, every, every), (lanes, lanes, every)
        start = over_lanes(self._init_lane, self.mesh)
        look = jax.vmap(self._evaluate_lane, (0, 0, None))
        #: Traced only once, for the shapes of the lanes and for the lanes themselves.
        self._init = jax.jit(over_seeds(start, self.mesh, lanes, lanes), compiler_options=run_once(self.mesh))
        self._start: Callable[[Fixed], Lane] = self._init
        self._chunk: Any
        if experiment.bitwise_seeds:
            self._start = each_lane_alone(start, self.mesh, (lanes,))
            self._chunk = each_lane_alone(self._run, self.mesh, chunk_specs)
            self._evaluate = each_lane_alone(look, self.mesh, look_specs)
        else:
            run = over_seeds(self._run, self.mesh, chunk_specs, (lanes, lanes))
            self._chunk = jax.jit(run, donate_argnums=0)
            self._evaluate = jax.jit(over_seeds(look, self.mesh, look_specs, lanes))

    # --- on the host ---

    def initial_lanes(self) -> Lane:
        """Every lane before its first step."""
        return self._start(self.fixed)

    def abstract_lanes(self) -> Lane:
        """Shapes, dtypes and layout of the lanes, for restoring a checkpoint."""
        sharding = seed_sharding(self.mesh)
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            jax.eval_shape(self._init, self.fixed),
        )

    def check_memory(self) -> None:
        """Refuse lanes that the devices cannot hold, before any is made.

        Raises:
            BadInputError: saying what they would take and what there is.
        """
        lanes = self.abstract_lanes()
        needed, replay = tree_bytes(lanes), tree_bytes(lanes.buffer)
        what = f"{self.experiment.lanes:,} lane(s), {100 * replay / needed:.0f} % of them replay,"
        check_fits(needed, what, free_on_devices(self.mesh))

    def compile_chunk(self, lanes: Lane) -> jax.stages.Compiled:
        """The compiled chunk, for its costs (not with bitwise seeds); `chunk` compiles on its first call."""
        compiled: jax.stages.Compiled = self._chunk.lower(
            lanes, self.fixed, jnp.int32(0), jnp.int32(1)
        ).compile()
        return compiled

    def flops_per_iteration(self) -> float:
        """Floating point operations of one lane's iteration with learning, by XLA's own count."""

        def one_block(leaf: jax.Array) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((self.block, *leaf.shape[1:]), leaf.dtype)

        step = jax.vmap(functools.partial(self._iteration, learn=True), (0, 0, None))
        lanes = jax.tree.map(one_block, (jax.eval_shape(self._init, self.fixed), self.fixed))
        compiled: Any = jax.jit(step).lower(*lanes, jax.ShapeDtypeStruct((), jnp.int32)).compile()
        return float(compiled.cost_analysis()["flops"]) / self.block

    def chunk(self, lanes: Lane, start: int, stop: int) -> tuple[Lane, np.ndarray]:
        """Iterations `start` to `stop`, and which lanes `(lanes,)` are finite after them."""
        lanes, healthy = self._chunk(lanes, self.fixed, jnp.int32(start), jnp.int32(stop))
        return lanes, self.unpadded(to_host(healthy))

    def evaluate(self, lanes: Lane, iteration: int, last: int) -> tuple[dict[str, np.ndarray], Lane]:
        """Greedy play, the probe, and the update metrics' means since the one at `last`: `(lanes, ...)`."""
        row = self.unpadded(to_host(self._evaluate(lanes, self.fixed, jnp.int32(iteration))))
        updates = self.schedule.updates(iteration) - self.schedule.updates(last)
        for name, total in self.unpadded(to_host(lanes.sums)).items():
            row[name] = total / updates if updates > 0 else np.full_like(total, np.nan)
        return row, lanes.replace(sums=jax.tree.map(jnp.zeros_like, lanes.sums))  # type: ignore[attr-defined]

    def fitted(self, lanes: Lane) -> Lane:
        """Lanes that may come from other devices, with the padding of these."""
        if jax.tree.leaves(lanes)[0].shape[0] == len(self.fill):
            return lanes
        fitted: Lane = shard(jax.tree.map(lambda leaf: leaf[self.fill], lanes), self.mesh)
        return fitted

    def unpadded(self, tree: Any) -> Any:
        """Without the lanes that only fill up the devices."""
        return jax.tree.map(lambda leaf: leaf[: self.experiment.lanes], tree)

    def lane_names(self, which: np.ndarray) -> list[str]:
        """The lanes `(lanes,)` that are True, in words."""
        seeds, games = self.experiment.seeds, self.experiment.games
        names = [f"seed {seed}" for seed in seeds]
        if games:
            names = [f"game {game} {name}" for game in range(games) for name in names]
        return [name for name, named in zip(names, which, strict=True) if named]

    def _fixed_lanes(self) -> Fixed:
        experiment = self.experiment
        root = jax.random.key(np.uint32(experiment.root_key))
        games, seeds = jnp.arange(max(1, experiment.games)), np.asarray(experiment.seeds, np.uint32)
        by_seed = jax.vmap(jax.random.fold_in, (None, 0))(root, seeds)

        def keys_of_game(game: jax.Array) -> jax.Array:
            # The first game of a batch has the keys that it would have alone.
            other = jax.vmap(jax.random.fold_in, (0, None))(by_seed, game)
            return jnp.where(game == 0, by_seed, other)

        keys = jax.vmap(keys_of_game)(games)  # (games, seeds)
        environment, copies = jax.tree.map(jnp.asarray, experiment.environment), len(experiment.seeds)
        if not experiment.games:
            environment = jax.tree.map(lambda leaf: leaf[None], environment)
        environment = jax.tree.map(lambda leaf: jnp.repeat(leaf, copies, axis=0), environment)
        return Fixed(keys.reshape(-1), environment)

    # --- on the devices, for one lane; `self` holds only static things ---

    def _init_lane(self, fixed: Fixed) -> Lane:
        algorithm, env = self.experiment.algorithm, fixed.environment
        learner_key, reset_key = jax.random.split(jax.random.fold_in(fixed.key, INITIAL))
        learner = algorithm.init(env, learner_key)
        buffer = self.memory.init(env)
        env_states, _ = jax.vmap(env.reset)(_split(reset_key, self.experiment.num_envs))
        carries = self._fresh_carries(env)
        metrics = jax.eval_shape(lambda: self._update(learner, buffer, env, jnp.int32(1), reset_key)[1])
        sums = jax.tree.map(lambda m: jnp.zeros(m.shape, m.dtype), metrics)
        return Lane(learner, buffer, env_states, carries, sums)

    def _fresh_carries(self, env: TeamEnvironment) -> Any:
        """For the start of an episode in every environment."""
        carry = self.experiment.algorithm.initial_carry(env)
        return jax.tree.map(lambda leaf: jnp.stack([leaf] * self.experiment.num_envs), carry)

    def _iteration(self, lane: Lane, fixed: Fixed, iteration: jax.Array, learn: bool) -> Lane:
        """Act in every environment, store, and learn."""
        experiment, algorithm, env = self.experiment, self.experiment.algorithm, fixed.environment
        # Stops at the largest int32 instead of wrapping: exploration has long reached its end by then.
        env_steps = jnp.minimum(iteration, LARGEST // experiment.num_envs) * experiment.num_envs
        act_key, reset_key, sample_key = jax.random.split(jax.random.fold_in(fixed.key, iteration), 3)
        epsilon = algorithm.epsilon(env_steps)

        def act(state: Any, carry: Any, key: jax.Array) -> tuple[jax.Array, Any]:
            return algorithm.act(env, lane.learner.params, carry, env.observe(state), epsilon, key)

        keys = _split(act_key, experiment.num_envs)
        actions, carries = jax.vmap(act)(lane.env_states, lane.carries, keys)  # (E, n)
        after, timesteps = jax.vmap(env.step)(lane.env_states, actions)
        buffer = self.memory.add(env, lane.buffer, iteration, lane.env_states, actions, timesteps, after)
        fresh, _ = jax.vmap(env.reset)(_split(reset_key, experiment.num_envs))
        env_states, carries = jax.vmap(
            lambda over, a, b: jax.tree.map(lambda x, y: jnp.where(over, x, y), a, b)
        )(timesteps.last(), (fresh, self._fresh_carries(env)), (after, carries))
        learner, sums = lane.learner, lane.sums
        if learn:
            for key in _split(sample_key, experiment.updates_per_step):
                learner, metrics = self._update(learner, buffer, env, iteration + 1, key)
                sums = jax.tree.map(jnp.add, sums, metrics)
        return Lane(learner, buffer, env_states, carries, sums)

    def _update(
        self,
        learner: LearnerState,
        buffer: Buffer,
        env: TeamEnvironment,
        additions: jax.Array,
        key: jax.Array,
    ) -> tuple[LearnerState, dict[str, jax.Array]]:
        batch = self.memory.sample(env, buffer, additions, key)
        progress = jnp.minimum(additions / self.experiment.iterations, 1)  # rounding may pass 1
        update_key = jax.random.fold_in(key, 1)  # costs nothing where nobody uses it
        return self.experiment.algorithm.update(env, learner, batch, progress, update_key)

    def _evaluate_lane(self, lane: Lane, fixed: Fixed, iteration: jax.Array) -> dict[str, jax.Array]:
        experiment, params = self.experiment, lane.learner.params
        key = jax.random.fold_in(jax.random.fold_in(fixed.key, EVALUATION), iteration)
        row = evaluate(experiment.algorithm, fixed.environment, params, key, experiment.evaluation_episodes)
        probed = experiment.probe(experiment.algorithm, fixed.environment, params) if experiment.probe else {}
        return {**row, **probed}

    # --- on one device, for all its lanes ---

    def _run(self, lanes: Lane, fixed: Fixed, start: jax.Array, stop: jax.Array) -> tuple[Lane, jax.Array]:
        """Iterations `start` to `stop`, block of lanes by block; and which lanes are finite after them."""
        size, blocks = self.block, jax.tree.leaves(lanes)[0].shape[0] // self.block

        def run_block(index: jax.Array, lanes: Lane) -> Lane:
            def cut(leaf: jax.Array) -> jax.Array:
                return jax.lax.dynamic_slice_in_dim(leaf, index * size, size)

            def put(leaf: jax.Array, new: jax.Array) -> jax.Array:
                return jax.lax.dynamic_update_slice_in_dim(leaf, new, index * size, 0)

            block = self._run_block(jax.tree.map(cut, lanes), jax.tree.map(cut, fixed), start, stop)
            return jax.tree.map(put, lanes, block)

        if blocks == 1:
            lanes = self._run_block(lanes, fixed, start, stop)
        else:
            lanes = jax.lax.fori_loop(0, blocks, run_block, lanes)
        finite = [
            jnp.all(jnp.isfinite(leaf), axis=tuple(range(1, leaf.ndim)))
            for leaf in jax.tree.leaves((lanes.learner.params, lanes.sums))
        ]
        return lanes, jnp.all(jnp.stack(finite), axis=0)

    def _run_block(self, lanes: Lane, fixed: Fixed, start: jax.Array, stop: jax.Array) -> Lane:
        """Iterations `start` to `stop`. All that decides *when* is known here, outside the vmap."""
        schedule = self.schedule

        def iterate(learn: bool) -> Callable[[jax.Array, Lane], Lane]:
            step = functools.partial(self._iteration, learn=learn)
            return lambda iteration, lanes: jax.vmap(step, (0, 0, None))(lanes, fixed, iteration)

        # Differences, because the next multiple of a long period may lie beyond what int32 holds.

        def learning(iteration: jax.Array, end: jax.Array, lanes: Lane) -> Lane:
            """Iterations `iteration` to `end`, learning in every one that is due."""
            if schedule.update_every == 1:
                return jax.lax.fori_loop(iteration, end, iterate(True), lanes)

            def until_next_update(carry: tuple[jax.Array, Lane]) -> tuple[jax.Array, Lane]:
                iteration, lanes = carry
                wait = (schedule.warmup - iteration) % schedule.update_every
                due = wait < end - iteration
                acted = jnp.where(due, iteration + wait, end)
                lanes = jax.lax.fori_loop(iteration, acted, iterate(False), lanes)
                learned = jnp.where(due, acted + 1, end)
                return learned, jax.lax.fori_loop(acted, learned, iterate(True), lanes)

            return jax.lax.while_loop(lambda carry: carry[0] < end, until_next_update, (iteration, lanes))[1]

        def until_next_copy(carry: tuple[jax.Array, Lane]) -> tuple[jax.Array, Lane]:
            iteration, lanes = carry
            wait = schedule.target_every - (iteration - schedule.warmup) % schedule.target_every
            due = wait <= stop - iteration
            end = jnp.where(due, iteration + wait, stop)
            lanes = learning(iteration, end, lanes)
            learner = lanes.learner
            target = jax.tree.map(
                lambda new, old: jnp.where(due, new, old), learner.params, learner.target_params
            )
            return end, lanes.replace(learner=learner.replace(target_params=target))  # type: ignore[attr-defined]

        learn_from = jnp.clip(schedule.warmup, start, stop)
        lanes = jax.lax.fori_loop(start, learn_from, iterate(False), lanes)
        if not schedule.target_every:
            return learning(learn_from, stop, lanes)
        _, lanes = jax.lax.while_loop(lambda carry: carry[0] < stop, until_next_copy, (learn_from, lanes))
        return lanes


def _split(key: jax.Array, count: int) -> jax.Array:
    """`count` keys `(count,)`; a single one costs nothing, and threefry is dear on CPUs."""
    return key[None] if count == 1 else jax.random.split(key, count)


@contextmanager
def graceful_stop() -> Iterator[Callable[[], bool]]:
    """Turns Ctrl-C and SIGTERM into a question, asked between chunks. A second Ctrl-C ends at once."""
    asked = False

    def ask(number: int, frame: Any) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False  # only the main thread hears signals
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
