"""An experiment's compiled functions: all lanes act, store, learn and are evaluated on the devices."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from envs.base import TeamEnvironment
from envs.memory import check_fits
from jaxmarl_fac.algorithm import LearnerState
from jaxmarl_fac.evaluation import evaluate
from jaxmarl_fac.experiment import Experiment
from jaxmarl_fac.memory.base import Buffer
from jaxmarl_fac.memory.choice import memory_for
from jaxmarl_fac.memory.packing import tree_bytes
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

#: The largest number that the loop can count to on a device.
LARGEST = 2**31 - 1

#: Fold-in constants for the initialisation and evaluation keys; larger than any iteration number.
INITIAL, EVALUATION = LARGEST, LARGEST - 1


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
