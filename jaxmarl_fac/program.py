"""The compiled functions of an experiment: acting, storing, learning and evaluation of all lanes."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.sharding import Mesh, NamedSharding

import jaxmarl_fac.threefry  # noqa: F401  (random numbers in one kernel)
from envs.base import Observation, TeamEnvironment
from envs.errors import BadInputError
from envs.memory import check_fits
from jaxmarl_fac.algorithm import Learner, LearnerState, Params
from jaxmarl_fac.evaluation import AGENTS, evaluate
from jaxmarl_fac.experience import Clock, Decision, Step
from jaxmarl_fac.experiment import Experiment
from jaxmarl_fac.memory.base import Buffer, Store
from jaxmarl_fac.memory.packing import plain_step, tree_bytes
from jaxmarl_fac.parallel import (
    PER_LANE,
    REPLICATED,
    block_sizes,
    cheap_compile,
    each_lane_alone,
    free_on_devices,
    lane_mesh,
    lane_sharding,
    on_cpu,
    over_lanes,
    padded_count,
    per_device,
    shard,
    to_host,
)

#: The largest int32, up to which the loop counts on a device.
MAX_COUNT = 2**31 - 1

#: Fold-in constants for the initialisation and evaluation keys; larger than any iteration number.
INITIAL, EVALUATION = MAX_COUNT, MAX_COUNT - 1


@struct.dataclass
class Lane:
    """The training state of one learner."""

    learner: LearnerState
    buffer: Buffer
    env_states: Any  # of `num_envs` environments
    carries: Any  # agent memory within the episode of each environment
    sums: dict[str, jax.Array]  # update metrics, summed since the last evaluation
    #: (E,) bool, environments whose next step is their reset; None where resets take no step of their own.
    waiting: jax.Array | None = None


@struct.dataclass
class LaneConstants:
    """What distinguishes one lane from another, constant during training."""

    key: jax.Array
    environment: TeamEnvironment
    #: Scalars by name, of the settings that vary between lanes.
    settings: dict[str, jax.Array]


class Moves(NamedTuple):
    """What one step of each environment `(E,)` has brought."""

    decisions: Decision  # actions (E, n)
    after: Any  # states
    reward: jax.Array
    discount: jax.Array
    last: jax.Array  # bool, the step ended an episode
    over: jax.Array  # bool, an episode starts anew after it


class Program:
    """The compiled functions of an experiment over all its lanes.

    Args:
        experiment: what to run.
        mesh: the devices; `lane_mesh` if not given. For those of a topology, which nothing can run on, the
            functions can be compiled.
    """

    def __init__(self, experiment: Experiment, mesh: Mesh | None = None):
        self.experiment = experiment
        self.mesh = lane_mesh(experiment.lanes) if mesh is None else mesh
        bound, env = experiment.bind(), experiment.first_game
        learner = jax.eval_shape(lambda: bound.init(jax.random.key(0)))
        self._example = step_example(env, bound, learner.params)
        #: Lanes that one device runs at a time, and those among them that it updates at a time.
        self.block, self.updating = 1, 1
        if not experiment.bitwise_seeds:
            self.block, self.updating = block_sizes(
                experiment.lanes,
                self.mesh,
                tree_bytes(learner),
                lambda: tree_bytes(jax.eval_shape(self._batch, jax.random.key(0))),
            )
        #: Gather index that pads the lanes to a multiple of the device count by repeating the first ones.
        self.pad_index = np.arange(padded_count(experiment.lanes, self.mesh, self.block)) % experiment.lanes
        self._lane_arguments = (
            jax.tree.map(jnp.asarray, experiment.environment),
            np.asarray(experiment.seeds, np.uint32),
            {name: np.asarray(values, np.float32) for name, values in experiment.variants},
        )
        self._padded = jax.eval_shape(self._lane_constants, *self._lane_arguments)
        self.schedule = experiment.schedule

        lanes, shared = PER_LANE, REPLICATED
        chunk_specs, eval_specs = (lanes, lanes, shared, shared), (lanes, lanes, shared)
        start = over_lanes(self._precisely(self._init_lane), self.mesh)
        evaluate_lanes = jax.vmap(self._precisely(self._evaluate_lane), (0, 0, None))
        run = self._precisely(self._run)
        #: Traced once, both for the shapes of the lanes and for the lanes themselves.
        self._init = jax.jit(
            per_device(start, self.mesh, lanes, lanes), compiler_options=cheap_compile(self.mesh)
        )
        self._start: Callable[[LaneConstants], Lane] = self._init
        self._chunk: Any
        if experiment.bitwise_seeds:
            self._start = each_lane_alone(start, self.mesh, (lanes,))
            self._chunk = each_lane_alone(run, self.mesh, chunk_specs)
            self._evaluate = each_lane_alone(evaluate_lanes, self.mesh, eval_specs)
        else:
            self._chunk = jax.jit(per_device(run, self.mesh, chunk_specs, (lanes, lanes)), donate_argnums=0)
            self._evaluate = jax.jit(per_device(evaluate_lanes, self.mesh, eval_specs, lanes))

    # --- on the host ---

    @functools.cached_property
    def constants(self) -> LaneConstants:
        """What distinguishes the lanes, on the devices."""
        # As one function: operation by operation takes a compilation each.
        compiled = jax.jit(
            self._lane_constants,
            out_shardings=lane_sharding(self.mesh),
            compiler_options=cheap_compile(self.mesh),
        )
        constants: LaneConstants = compiled(*self._lane_arguments)
        return constants

    def initial_lanes(self) -> Lane:
        """All lanes at iteration 0."""
        return self._start(self.constants)

    def abstract_lanes(self) -> Lane:
        """Shapes, dtypes and shardings of the lanes, for restoring a checkpoint."""
        return self._abstract(jax.eval_shape(self._init, self._padded))

    def _abstract(self, tree: Any) -> Any:
        """Shapes, dtypes and shardings of a tree with a leading lane axis."""
        sharding = lane_sharding(self.mesh)
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree
        )

    def check_memory(self) -> None:
        """Check that the lanes, and what agents remember in evaluations, fit into memory, before any is made.

        Raises:
            BadInputError: if they do not, with the needed and the available memory.
        """
        lanes, free = self.abstract_lanes(), free_on_devices(self.mesh)
        needed, replay = tree_bytes(lanes), tree_bytes(lanes.buffer)
        what = f"{self.experiment.lanes:,} lane(s), {100 * replay / needed:.0f} % of them replay,"
        check_fits(needed, what, free)
        episodes = self.experiment.evaluation_episodes
        of_one_env = tree_bytes(lanes.carries) // (len(self.pad_index) * self.experiment.num_envs)
        remembered = 2 * of_one_env * episodes * self.block * self.mesh.size  # before and after a step
        what = f"what agents remember in {episodes:,} evaluation episodes at a time, and the lanes,"
        check_fits(needed + remembered, what, free)

    def lowered(self) -> dict[str, jax.stages.Lowered]:
        """The functions by name, to be compiled without being run (not with `bitwise_seeds`).

        Of `chunk` it is what `chunk` compiles when it is first called.
        """
        lanes, constants = self.abstract_lanes(), self._abstract(self._padded)
        iteration = jax.ShapeDtypeStruct((), jnp.int32)
        evaluation: Any = self._evaluate
        return {
            "start": self._init.lower(constants),
            "chunk": self._chunk.lower(lanes, constants, iteration, iteration),
            "evaluation": evaluation.lower(lanes, constants, iteration),
        }

    def compile_chunk(self, lanes: Lane) -> jax.stages.Compiled:
        """The compiled chunk for cost analysis (not with `bitwise_seeds`); `chunk` compiles on first call."""
        compiled: jax.stages.Compiled = self._chunk.lower(
            lanes, self.constants, jnp.int32(0), jnp.int32(1)
        ).compile()
        return compiled

    def iteration_costs(self) -> dict[str, float]:
        """XLA's cost analysis of an iteration with an update of one block of lanes on one device."""
        lowered = jax.jit(self._learning_step(), donate_argnums=0).lower(*self._block_shapes())
        costs: Any = lowered.compile().cost_analysis()
        return {name: float(cost) for name, cost in costs.items()}

    def _learning_step(self) -> Callable[..., Lane]:
        """An iteration of a block with an update, to be traced."""
        return self._precisely(functools.partial(self._iteration, learn=True))

    def _block_shapes(self) -> tuple[Any, Any, Any]:
        """Shapes of one block of lanes, its constants and the iteration, on the first device."""
        device = NamedSharding(Mesh(self.mesh.devices[:1], self.mesh.axis_names), REPLICATED)

        def one_block(leaf: jax.Array) -> jax.ShapeDtypeStruct:
            shape = leaf.shape[1:] if self.block == 1 else (self.block, *leaf.shape[1:])
            return jax.ShapeDtypeStruct(shape, leaf.dtype, sharding=device)

        lanes, constants = jax.tree.map(one_block, (jax.eval_shape(self._init, self._padded), self._padded))
        return lanes, constants, jax.ShapeDtypeStruct((), jnp.int32)

    def chunk(self, lanes: Lane, start: int, stop: int) -> tuple[Lane, np.ndarray]:
        """Run iterations `start` to `stop`; returns the lanes, and whether each is finite, `(lanes,)`."""
        lanes, healthy = self._chunk(lanes, self.constants, jnp.int32(start), jnp.int32(stop))
        return lanes, self.unpad(to_host(healthy))

    def evaluate(self, lanes: Lane, iteration: int, last: int) -> tuple[dict[str, np.ndarray], Lane]:
        """Evaluate greedy play and the probe, and average the update metrics since iteration `last`.

        Returns:
            The metrics by name, each `(lanes, ...)`, and the lanes with their sums set to 0.
        """
        row = self.unpad(to_host(self._evaluate(lanes, self.constants, jnp.int32(iteration))))
        updates = self.schedule.updates(iteration) - self.schedule.updates(last)
        for name, total in self.unpad(to_host(lanes.sums)).items():
            row[name] = total / updates if updates > 0 else total * np.nan  # float, also for integer metrics
        return row, lanes.replace(sums=jax.tree.map(jnp.zeros_like, lanes.sums))  # type: ignore[attr-defined]

    def repad(self, lanes: Lane) -> Lane:
        """Pad lanes that were stored on another number of devices to the number of lanes of these."""
        if jax.tree.leaves(lanes)[0].shape[0] == len(self.pad_index):
            return lanes
        repadded: Lane = shard(jax.tree.map(lambda leaf: leaf[self.pad_index], lanes), self.mesh)
        return repadded

    def unpad(self, tree: Any) -> Any:
        """Remove the padding lanes."""
        return jax.tree.map(lambda leaf: leaf[: self.experiment.lanes], tree)

    def whole_variants(self, which: np.ndarray) -> np.ndarray:
        """All lanes of the variants of which a lane is in `which (lanes,)`."""
        of_variants = which.reshape(len(self.experiment.variant_settings), -1)
        return np.repeat(of_variants.any(axis=1), of_variants.shape[1])

    def lane_names(self, which: np.ndarray) -> list[str]:
        """Names of the lanes where `which (lanes,)` is True, such as "game 0 seed 3"."""
        experiment = self.experiment
        names = [f"{group} seed {seed}".strip() for group in experiment.groups for seed in experiment.seeds]
        return [name for name, named in zip(names, which, strict=True) if named]

    def _precisely(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, traced with the experiment's precision of matrix products."""

        def traced(*arguments: Any) -> Any:
            with jax.default_matmul_precision(self.experiment.matmul_precision):
                return self._with_variants(function, *arguments)

        return traced

    def _with_variants(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """The result of `function`, in which a setting that varies may turn out to decide a branch."""
        try:
            return function(*arguments)
        except (
            TypeError
        ) as error:  # JAX's errors on a traced value where Python needs a number are TypeErrors
            if not self.experiment.variants:
                raise
            names = " or ".join(name for name, _ in self.experiment.variants)
            raise BadInputError(
                f"{names} cannot vary within one program, because shapes or the code itself depend on it: "
                "train one run for each value"
            ) from error

    def check_variants(self) -> None:
        """Trace what lanes do, if their settings vary.

        Raises:
            BadInputError: if one of these cannot vary within a program.
        """
        if self.experiment.variants:
            jax.eval_shape(self._learning_step(), *self._block_shapes())

    def _lane_constants(
        self, environment: TeamEnvironment, seeds: jax.Array, settings: dict[str, jax.Array]
    ) -> LaneConstants:
        """Those of all lanes, padded, from the games, the numbers of the seeds and the variants' settings."""
        experiment = self.experiment
        root = jax.random.key(np.uint32(experiment.root_key))
        by_seed = jax.vmap(jax.random.fold_in, (None, 0))(root, seeds)

        def keys_of_game(game: jax.Array) -> jax.Array:
            # Game 0 has the same keys as an experiment on that game alone.
            other = jax.vmap(jax.random.fold_in, (0, None))(by_seed, game)
            return jnp.where(game == 0, by_seed, other)

        keys = jax.vmap(keys_of_game)(jnp.arange(max(1, experiment.games)))  # (games, seeds)
        if not experiment.games:
            environment = jax.tree.map(lambda leaf: leaf[None], environment)
        environment = jax.tree.map(lambda leaf: jnp.repeat(leaf, len(seeds), axis=0), environment)
        variants = len(experiment.variant_settings)
        keys, environment = jax.tree.map(
            lambda leaf: jnp.concatenate([leaf] * variants) if variants > 1 else leaf,
            (keys.reshape(-1), environment),
        )
        each = len(seeds) * max(1, experiment.games)
        settings = {name: jnp.repeat(values, each) for name, values in settings.items()}
        lanes = LaneConstants(keys, environment, settings)
        return jax.tree.map(lambda leaf: leaf[self.pad_index], lanes)  # type: ignore[no-any-return]

    # --- on the devices, for one lane; the attributes of `self` are static under jit ---

    def bind(
        self, env: TeamEnvironment, settings: dict[str, jax.Array] | None = None
    ) -> tuple[Learner, Store]:
        """The learner bound to one game, with one variant's settings, and its memory's store."""
        experiment, learner = self.experiment, self.experiment.bind(env, settings)
        store = learner.memory.bind(
            env,
            self._example,
            experiment.num_envs,
            experiment.iterations,
            reset_rows=learner.memory.resets_take_a_row,
        )
        return learner, store

    def _init_lane(self, constants: LaneConstants) -> Lane:
        env, (learner, store) = constants.environment, self._bind_lane(constants)
        learner_key, reset_key = jax.random.split(jax.random.fold_in(constants.key, INITIAL))
        state, buffer = learner.init(learner_key), store.init()
        keys = _split(reset_key, self.experiment.num_envs)
        env_states, _ = jax.vmap(env.reset)(keys)
        carries = _begin(learner, env, state.params, env_states, keys)
        metrics = jax.eval_shape(
            lambda: learner.update(
                state, store.sample(buffer, jnp.int32(1), reset_key), self._clock(jnp.int32(1), 0), reset_key
            )[1]
        )
        sums = jax.tree.map(lambda m: jnp.zeros(m.shape, jnp.int32 if m.dtype == bool else m.dtype), metrics)
        takes_a_row = learner.memory.resets_take_a_row
        waiting = jnp.zeros((self.experiment.num_envs,), bool) if takes_a_row else None
        return Lane(state, buffer, env_states, carries, sums, waiting)

    def _bind_lane(self, constants: LaneConstants) -> tuple[Learner, Store]:
        return self.bind(constants.environment, constants.settings)

    def _batch(self, key: jax.Array) -> Any:
        """A batch, for its shapes."""
        _, store = self.bind(self.experiment.first_game)
        return store.sample(store.init(), jnp.int32(1), key)

    def _clock(self, iteration: jax.Array, updates: int) -> Clock:
        """The clock at the start of an iteration, after `updates` of its updates."""
        experiment, schedule = self.experiment, self.schedule
        since = jnp.maximum(iteration - schedule.warmup, 0)
        rounds = since // schedule.update_every + (since % schedule.update_every > 0)
        return Clock(
            # Both saturate at the largest int32 instead of wrapping; exploration has ended long before.
            env_steps=jnp.minimum(iteration, MAX_COUNT // experiment.num_envs) * experiment.num_envs,
            updates=jnp.minimum(rounds, MAX_COUNT // schedule.updates_per_step - 1)
            * schedule.updates_per_step
            + updates,
            progress=jnp.minimum(iteration / experiment.iterations, 1),  # rounding may exceed 1
        )

    def _iteration(self, lanes: Lane, constants: LaneConstants, iteration: jax.Array, learn: bool) -> Lane:
        """Act in every environment of a block of lanes, store the steps and, if `learn`, update."""
        moves = self._each_lane(self._move)(lanes, constants, iteration)
        begun = self._restarted(lanes, constants, iteration, moves)
        lanes, keys = self._each_lane(self._record)(lanes, constants, iteration, moves, begun)
        if not learn:
            return lanes
        if self.updating == self.block:
            learners, sums = self._each_lane(self._learn)(lanes, constants, iteration, keys)
        else:

            def learn_one(place: jax.Array) -> Any:
                lane, of_lane, key = jax.tree.map(lambda leaf: leaf[place], (lanes, constants, keys))
                return self._learn(lane, of_lane, iteration, key)

            learners, sums = jax.lax.map(learn_one, jnp.arange(self.block), batch_size=self.updating)
        return lanes.replace(learner=learners, sums=sums)  # type: ignore[attr-defined,no-any-return]

    def _each_lane(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function of one lane, its constants, the iteration and what else is a lane's, of a block."""

        def of_block(lanes: Lane, constants: LaneConstants, iteration: jax.Array, *more: Any) -> Any:
            if self.block == 1:
                return function(lanes, constants, iteration, *more)
            axes = (0, 0, None, *[0] * len(more))
            return jax.vmap(function, axes)(lanes, constants, iteration, *more)

        return of_block

    def _keys(self, constants: LaneConstants, iteration: jax.Array) -> jax.Array:
        """The keys `(3,)` for acting, for resets and for batches."""
        return jax.random.split(jax.random.fold_in(constants.key, iteration), 3)

    def _move(self, lane: Lane, constants: LaneConstants, iteration: jax.Array) -> Moves:
        """Act in every environment."""
        env, (learner, _) = constants.environment, self._bind_lane(constants)
        params, clock = lane.learner.params, self._clock(iteration, 0)

        def act(state: Any, carry: Any, key: jax.Array) -> Decision:
            return learner.act(params, carry, env.observe(state), clock, key)

        keys = _split(self._keys(constants, iteration)[0], self.experiment.num_envs)
        decisions = jax.vmap(act)(lane.env_states, lane.carries, keys)  # actions (E, n)
        after, timesteps = jax.vmap(env.step)(lane.env_states, decisions.actions)
        last = timesteps.last()
        over = last
        if lane.waiting is not None:  # after an episode's end, the reset takes a step of its own
            over, last = lane.waiting, last & ~lane.waiting
        return Moves(decisions, after, timesteps.reward, timesteps.discount, last, over)

    def _restarted(self, lanes: Lane, constants: LaneConstants, iteration: jax.Array, moves: Moves) -> Any:
        """States and agents' memories of a block of lanes: new ones where an episode is over."""

        def restart(lane: Lane, constants: LaneConstants, iteration: jax.Array, moves: Moves) -> Any:
            env, (learner, _) = constants.environment, self._bind_lane(constants)
            keys = _split(self._keys(constants, iteration)[1], self.experiment.num_envs)
            fresh, _ = jax.vmap(env.reset)(keys)
            begun = _begin(learner, env, lane.learner.params, fresh, keys)
            return _where(moves.over, (fresh, begun), (moves.after, moves.decisions.carry))

        restarted = functools.partial(self._each_lane(restart), lanes, constants, iteration)
        if not on_cpu(self.mesh) or self.experiment.environment.time_limit == 1:
            return restarted(moves)
        # Most steps end no episode. An accelerator would wait longer for the answer than drawing takes.
        unchanged = lambda moves: (moves.after, moves.decisions.carry)  # noqa: E731
        return jax.lax.cond(jnp.any(moves.over), restarted, unchanged, moves)

    def _record(
        self, lane: Lane, constants: LaneConstants, iteration: jax.Array, moves: Moves, begun: Any
    ) -> tuple[Lane, jax.Array]:
        """Store the steps and go on from states and memories `begun`; also the key that draws batches."""
        _, store = self._bind_lane(constants)
        env_states, carries = begun
        waiting = lane.waiting
        steps = Step(
            lane.env_states,
            lane.carries,
            moves.decisions.actions,
            moves.decisions.extras,
            moves.reward,
            moves.discount,
            moves.last,
            jnp.ones_like(moves.last) if waiting is None else ~waiting,
            moves.after if waiting is None else env_states,
        )
        buffer = store.add(lane.buffer, iteration, steps)
        waiting = None if waiting is None else moves.last
        lane = Lane(lane.learner, buffer, env_states, carries, lane.sums, waiting)
        return lane, self._keys(constants, iteration)[2]

    def _learn(
        self, lane: Lane, constants: LaneConstants, iteration: jax.Array, sample_key: jax.Array
    ) -> tuple[LearnerState, dict[str, jax.Array]]:
        """Update with the batches of an iteration; returns the learner and the sums of metrics."""
        learner, store = self._bind_lane(constants)
        state, sums = lane.learner, lane.sums
        for place, key in enumerate(_split(sample_key, self.experiment.updates_per_step)):
            batch = store.sample(lane.buffer, iteration + 1, key)
            time = self._clock(iteration + 1, 0)._replace(updates=self._clock(iteration, place).updates)
            update_key = jax.random.fold_in(key, 1)  # XLA drops it where it is not used
            state, metrics = learner.update(state, batch, time, update_key)
            sums = jax.tree.map(jnp.add, sums, metrics)
        return state, sums

    def _evaluate_lane(
        self, lane: Lane, constants: LaneConstants, iteration: jax.Array
    ) -> dict[str, jax.Array]:
        experiment, env, params = self.experiment, constants.environment, lane.learner.params
        key = jax.random.fold_in(jax.random.fold_in(constants.key, EVALUATION), iteration)
        learner = experiment.bind(env, constants.settings)
        row = evaluate(learner, env, params, key, experiment.evaluation_episodes)
        algorithm = experiment.lane_algorithm(constants.settings)
        probed = experiment.probe(algorithm, env, params) if experiment.probe else {}
        return {**row, **probed}

    # --- on one device, for all its lanes ---

    def _run(
        self, lanes: Lane, constants: LaneConstants, start: jax.Array, stop: jax.Array
    ) -> tuple[Lane, jax.Array]:
        """Iterations `start` to `stop`, one block of lanes after another; and whether each lane is finite."""
        size, blocks = self.block, jax.tree.leaves(lanes)[0].shape[0] // self.block

        def run_block(index: jax.Array, lanes: Lane) -> Lane:
            def cut(leaf: jax.Array) -> jax.Array:
                return jax.lax.dynamic_slice_in_dim(leaf, index * size, size)

            def put(leaf: jax.Array, new: jax.Array) -> jax.Array:
                return jax.lax.dynamic_update_slice_in_dim(leaf, new, index * size, 0)

            block = run(jax.tree.map(cut, lanes), jax.tree.map(cut, constants), start, stop)
            return jax.tree.map(put, lanes, block)

        run = self._run_one if size == 1 else self._run_block
        if blocks == 1:
            lanes = run(lanes, constants, start, stop)
        else:
            lanes = jax.lax.fori_loop(0, blocks, run_block, lanes)
        finite = [
            jnp.all(jnp.isfinite(leaf), axis=tuple(range(1, leaf.ndim)))
            for leaf in jax.tree.leaves((lanes.learner.params, lanes.sums))
        ]
        return lanes, jnp.all(jnp.stack(finite), axis=0)

    def _run_one(self, lanes: Lane, constants: LaneConstants, start: jax.Array, stop: jax.Array) -> Lane:
        """`_run_block` of one lane, without its axis: on CPU XLA runs batches of one product slowly.

        The axis is put aside before the loops: within them, taking it off would copy the buffer.
        """
        lane, of_lane = jax.tree.map(lambda leaf: leaf[0], (lanes, constants))
        lane = self._run_block(lane, of_lane, start, stop)
        return jax.tree.map(lambda leaf: leaf[None], lane)  # type: ignore[no-any-return]

    def _run_block(self, lanes: Lane, constants: LaneConstants, start: jax.Array, stop: jax.Array) -> Lane:
        """Iterations `start` to `stop`; the schedule is applied outside the vmap, the same for all lanes."""
        schedule = self.schedule

        def iterate(learn: bool) -> Callable[[jax.Array, Lane], Lane]:
            return lambda iteration, lanes: self._iteration(lanes, constants, iteration, learn)

        # Compares differences: the next multiple of a long period may overflow int32.

        def learning(iteration: jax.Array, end: jax.Array, lanes: Lane) -> Lane:
            """Iterations `iteration` to `end`, with updates where they are due."""
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
    """`count` keys `(count,)`; for `count == 1` no split is made, since threefry is slow on CPU."""
    return key[None] if count == 1 else jax.random.split(key, count)


def _where(condition: jax.Array, yes: Any, no: Any) -> Any:
    """Select the leaves of one of two trees for each environment, by `condition (E,)`."""
    choose = jax.vmap(lambda c, a, b: jax.tree.map(lambda x, y: jnp.where(c, x, y), a, b))
    return choose(condition, yes, no)


def _begin(learner: Learner, env: TeamEnvironment, params: Any, states: Any, keys: jax.Array) -> Any:
    """Agent memory at the start of an episode in each environment `(E,)`."""

    def begin(state: Any, key: jax.Array) -> Any:
        return learner.begin(params, env.observe(state), jax.random.fold_in(key, AGENTS))

    return jax.vmap(begin)(states, keys)


def step_example(env: TeamEnvironment, learner: Learner, params: Params) -> Step:
    """Shapes and dtypes of one step as a memory stores it, given those of the parameters."""

    def decide(params: Params, observation: Observation, key: jax.Array) -> tuple[Any, Decision]:
        carry, zero = learner.begin(params, observation, key), jnp.zeros((), jnp.int32)
        return carry, learner.act(params, carry, observation, Clock(zero, zero, jnp.zeros(())), key)

    carry, decision = jax.eval_shape(decide, params, env.observation_shapes, jax.random.key(0))
    return plain_step(env)._replace(carry=carry, actions=decision.actions, extras=decision.extras)
