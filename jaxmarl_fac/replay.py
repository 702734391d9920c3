"""What a learner remembers of its experience: transitions or whole episodes, kept as compact states.

`memory_for` gives an algorithm what it consumes. All memories are pure functions over their arrays.

A ring of our own, not flashbax's, for two reasons, measured on one core with QTRAN-base on the 3x3 game
and 128 seeds. Flashbax's sampling (two bounded integers, four key splits) took 11 % of an iteration,
because threefry is dear on CPUs; here it is one draw of random bits. And every transition is one row of
bytes: a sample is one gather, where three arrays needed three and were copied whole in every iteration.
"""

import dataclasses
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jumanji.types import TimeStep

from envs.base import TeamEnvironment
from jaxmarl_fac.algorithm import Algorithm, Trajectory, Transition

Buffer = Any


class Memory(Protocol):
    """What the loop does with one lane's experience."""

    def init(self, env: TeamEnvironment) -> Buffer:
        """An empty buffer."""

    def add(
        self,
        env: TeamEnvironment,
        buffer: Buffer,
        additions: jax.Array,
        states: Any,
        actions: jax.Array,
        timesteps: TimeStep,
        after: Any,
    ) -> Buffer:
        """Store one step of each environment, over the oldest ones where the buffer is full.

        Args:
            env: the game.
            buffer: to add to.
            additions: `()`, how often something was added before; the same for all seeds.
            states: before the step, as all that follows with a leading axis `(E,)`.
            actions: joint actions.
            timesteps: what the environments answered.
            after: the states that the steps led to.
        """

    def sample(self, env: TeamEnvironment, buffer: Buffer, additions: jax.Array, key: jax.Array) -> Any:
        """A batch from what `additions` have stored."""


def memory_for(algorithm: Algorithm, env: TeamEnvironment, num_envs: int, iterations: int) -> Memory:
    """The memory that the algorithm consumes.

    Args:
        algorithm: says what it learns from, and how much of it is kept.
        env: the game.
        num_envs: environments side by side.
        iterations: steps of each of them in the whole run; no memory is larger than what they can fill.
    """
    if algorithm.consumes == "latest":
        return Latest(num_envs)
    settings: Any = algorithm  # an algorithm that learns from replay says how much
    kept = min(settings.replay_size, iterations * num_envs)  # of either; an episode has a step at least
    if algorithm.consumes == "transitions":
        newest = getattr(settings, "newest_transitions", 0)
        return Replay(kept, settings.batch_size, num_envs, newest)
    recent = getattr(settings, "recent_episodes", 0), getattr(settings, "recent_fraction", 0.0)
    return EpisodeReplay(kept, settings.batch_size, num_envs, env.time_limit, *recent)


@dataclasses.dataclass(frozen=True)
class Replay:
    """A uniform replay buffer for one seed, as pure functions over its arrays `(size, ...)`.

    What is stored of a step is the state before it, the actions, the reward, the discount and the
    state after it (before any reset), all without PRNG keys; observations are recomputed when sampled.
    For a stateless game no states are stored at all.

    Args:
        capacity: transitions to keep, rounded up to a multiple of `num_envs`.
        batch_size: transitions in a sample.
        num_envs: E, transitions that are added at a time.
        newest: so many of the newest transitions follow the `batch_size` drawn ones in every sample, the
            newest first, and from the start again while there are fewer.
    """

    capacity: int
    batch_size: int
    num_envs: int = 1
    newest: int = 0

    @property
    def slots(self) -> int:
        """Transitions of each environment that are kept."""
        return -(-self.capacity // self.num_envs)

    @property
    def size(self) -> int:
        """Transitions kept."""
        return self.slots * self.num_envs

    def bytes_per_transition(self, env: TeamEnvironment) -> int:
        """Bytes that one transition takes."""
        return tree_bytes(_example(env))

    def init(self, env: TeamEnvironment) -> Buffer:
        """An empty buffer: `(size, bytes)` uint8."""
        return jnp.zeros((self.size, self.bytes_per_transition(env)), jnp.uint8)

    def add(
        self,
        env: TeamEnvironment,
        buffer: Buffer,
        additions: jax.Array,
        states: Any,
        actions: jax.Array,
        timesteps: TimeStep,
        after: Any,
    ) -> Buffer:
        """Store one step of each environment; see `Memory`."""
        rows = jax.vmap(lambda *step: _to_bytes(_pack(env, *step)))(states, actions, timesteps, after)
        place = additions % self.slots * self.num_envs  # the product alone could wrap
        return jax.lax.dynamic_update_slice_in_dim(buffer, rows, place, 0)

    def sample(
        self, env: TeamEnvironment, buffer: Buffer, additions: jax.Array, key: jax.Array
    ) -> Transition:
        """A batch drawn uniformly with replacement from what `additions` have stored, and the newest.

        For its axes see `Transition`.
        """
        filled = (jnp.minimum(additions, self.slots) * self.num_envs).astype(jnp.uint32)
        # Reducing 32 random bits modulo at most a million favours some items by less than 1 in 4,000.
        places = (jax.random.bits(key, (self.batch_size,)) % filled).astype(jnp.int32)
        if self.newest:
            last = additions % self.slots * self.num_envs - 1
            newest = (last - jnp.arange(self.newest)) % filled.astype(jnp.int32)
            places = jnp.concatenate([places, newest])
        return _transitions(env, jax.vmap(lambda row: _from_bytes(row, _example(env)))(buffer[places]))


@dataclasses.dataclass(frozen=True)
class Latest:
    """The transition that each of E environments has just made, for those who learn as they go.

    Args:
        num_envs: E.
    """

    num_envs: int = 1

    def init(self, env: TeamEnvironment) -> Buffer:
        """Transitions of zeros: arrays `(E, ...)`."""
        return jax.tree.map(lambda leaf: jnp.zeros((self.num_envs, *leaf.shape), leaf.dtype), _example(env))

    def add(
        self,
        env: TeamEnvironment,
        buffer: Buffer,
        additions: jax.Array,
        states: Any,
        actions: jax.Array,
        timesteps: TimeStep,
        after: Any,
    ) -> Buffer:
        """Put the new transitions in the old ones' place; see `Memory`."""
        return jax.vmap(lambda *step: _pack(env, *step))(states, actions, timesteps, after)

    def sample(
        self, env: TeamEnvironment, buffer: Buffer, additions: jax.Array, key: jax.Array
    ) -> Transition:
        """All E of them. For the axes see `Transition`."""
        return _transitions(env, buffer)


@struct.dataclass
class Episodes:
    """What `EpisodeReplay` keeps. A slot holds one episode; every environment has slots of its own."""

    rows: jax.Array  # (E, slots, T + 1, bytes) uint8: one step each; the last one's state ends the episode
    lengths: jax.Array  # (E, slots) int32, steps of the episode in each slot
    steps: jax.Array  # (E,) int32, steps so far of the episode that each environment is in
    finished: jax.Array  # (E,) int32, episodes that each environment has ended


@dataclasses.dataclass(frozen=True)
class EpisodeReplay:
    """A uniform replay buffer of whole episodes for one seed.

    Environments step side by side and end their episodes when they do: each writes into a slot of its
    own, and its next slot holds its oldest episode. Only episodes that are over are sampled. States are
    kept once, as `Replay` does without keys, and observations are recomputed.

    Args:
        capacity: episodes to keep, besides those that are being played; rounded up to a multiple of E.
        batch_size: episodes in a sample.
        num_envs: E.
        time_limit: T, steps of the longest episode.
        recent: how many of the newest episodes the recent part of a batch is drawn from, rounded up to
            a multiple of E.
        recent_fraction: share of a batch that is drawn from those.
    """

    capacity: int
    batch_size: int
    num_envs: int
    time_limit: int
    recent: int = 0
    recent_fraction: float = 0.0

    @property
    def slots(self) -> int:
        """Slots of each environment; one of them is being written."""
        return -(-self.capacity // self.num_envs) + 1

    def init(self, env: TeamEnvironment) -> Episodes:
        """No episodes."""
        width = tree_bytes(_example_step(env))
        nothing = jnp.zeros((self.num_envs,), jnp.int32)
        return Episodes(
            rows=jnp.zeros((self.num_envs, self.slots, self.time_limit + 1, width), jnp.uint8),
            lengths=jnp.zeros((self.num_envs, self.slots), jnp.int32),
            steps=nothing,
            finished=nothing,
        )

    def add(
        self,
        env: TeamEnvironment,
        buffer: Episodes,
        additions: jax.Array,
        states: Any,
        actions: jax.Array,
        timesteps: TimeStep,
        after: Any,
    ) -> Episodes:
        """Store one step of each environment; see `Memory`."""

        def rows_of(state: Any, actions: jax.Array, timestep: TimeStep, after: Any) -> jax.Array:
            step = _to_bytes(_pack_step(env, state, actions, timestep))
            return jnp.stack([step, _to_bytes(_pack_step(env, after, actions, timestep))])  # (2, bytes)

        rows = jax.vmap(rows_of)(states, actions, timesteps, after)  # (E, 2, bytes)
        slot = buffer.finished % self.slots  # (E,)
        # The state after the step is written too, and overwritten by the next step if there is one.
        place = jnp.stack([buffer.steps, buffer.steps + 1], axis=1)  # (E, 2)
        each = jnp.arange(self.num_envs)
        over = timesteps.last()
        return Episodes(
            rows=buffer.rows.at[each[:, None], slot[:, None], place].set(rows),
            lengths=buffer.lengths.at[each, slot].set(buffer.steps + 1),
            steps=jnp.where(over, 0, buffer.steps + 1),
            finished=buffer.finished + over,
        )

    def sample(
        self, env: TeamEnvironment, buffer: Episodes, additions: jax.Array, key: jax.Array
    ) -> Trajectory:
        """A batch drawn with replacement: part of it from the newest episodes, the rest from all kept."""
        kept = jnp.minimum(buffer.finished, self.slots - 1)  # (E,)
        newest = jnp.minimum(kept, max(1, -(-self.recent // self.num_envs)))
        recent = jnp.arange(self.batch_size) < round(self.recent_fraction * self.batch_size)  # (B,)
        bits = jax.random.bits(key, (self.batch_size,))

        def draw(bits: jax.Array, recent: jax.Array) -> Trajectory:
            ends = jnp.cumsum(jnp.where(recent, newest, kept))  # (E,)
            index = (bits % jnp.maximum(ends[-1], 1).astype(jnp.uint32)).astype(jnp.int32)
            each = jnp.searchsorted(ends, index, side="right")
            back = ends[each] - index  # 1 is this environment's last finished episode
            slot = (buffer.finished[each] - back) % self.slots
            return self._trajectory(env, buffer.rows[each, slot], buffer.lengths[each, slot])

        return jax.vmap(draw)(bits, recent)

    def _trajectory(self, env: TeamEnvironment, rows: jax.Array, length: jax.Array) -> Trajectory:
        """The episode in the rows `(T + 1, bytes)`, of which `length` are steps."""
        # What lies behind the end is left from an older episode: the last state stands in for it.
        rows = rows[jnp.minimum(jnp.arange(self.time_limit + 1), length)]
        items = jax.vmap(lambda row: _from_bytes(row, _example_step(env)))(rows)
        mask = jnp.arange(self.time_limit) < length  # (T,)

        def steps(leaf: jax.Array) -> jax.Array:
            """The first T entries, with zeros after the episode's end."""
            return jnp.where(mask.reshape(-1, *[1] * (leaf.ndim - 1)), leaf[:-1], 0)

        return Trajectory(
            observation=jax.vmap(env.observe)(items["state"]),
            actions=steps(_widened(items["actions"])),
            reward=steps(items["reward"]),
            discount=steps(items["discount"]).astype(jnp.float32),
            mask=mask.astype(jnp.float32),
        )


def _transitions(env: TeamEnvironment, items: dict[str, Any]) -> Transition:
    """Packed steps `(B, ...)` as a batch, with their observations recomputed."""
    discount = items["discount"].astype(jnp.float32)
    if env.stateless:
        # The one observation there is: any state shows it.
        before = after = env.observe(env.reset(jax.random.key(0))[0])
        if env.time_limit == 1:
            discount = jnp.zeros_like(discount)  # as it is; a constant spares what would follow
    else:
        before, after = jax.vmap(env.observe)(items["state"]), jax.vmap(env.observe)(items["next_state"])
    return Transition(before, _widened(items["actions"]), items["reward"], discount, after)


def _widened(actions: jax.Array) -> jax.Array:
    return actions if jnp.issubdtype(actions.dtype, jnp.floating) else actions.astype(jnp.int32)


def _example(env: TeamEnvironment) -> Any:
    """Shapes and dtypes of a packed transition."""
    state, actions, timestep = _first_step(env)
    return jax.eval_shape(lambda *step: _pack(env, *step), state, actions, timestep, state)


def _example_step(env: TeamEnvironment) -> Any:
    """Shapes and dtypes of a packed step of an episode."""
    return jax.eval_shape(lambda *first: _pack_step(env, *first), *_first_step(env))


def _first_step(env: TeamEnvironment) -> Any:
    """Shapes and dtypes of a state, a joint action and a time step."""
    discrete = env.num_actions > 0
    actions = jax.ShapeDtypeStruct((env.num_agents,), jnp.int32 if discrete else jnp.float32)
    state, _ = jax.eval_shape(env.reset, jax.random.key(0))
    return state, actions, jax.eval_shape(env.step, state, actions)[1]


def _pack(
    env: TeamEnvironment, state: Any, actions: jax.Array, timestep: TimeStep, after: Any
) -> dict[str, Any]:
    """One transition in as few bytes as it can be kept in."""
    step = _pack_step(env, state, actions, timestep)
    if env.stateless:
        del step["state"]
        return step
    return {**step, "next_state": after.replace(key=None)}


def _pack_step(env: TeamEnvironment, state: Any, actions: jax.Array, timestep: TimeStep) -> dict[str, Any]:
    """One step, without the state that it leads to."""
    return {
        "state": state.replace(key=None),
        "actions": actions.astype(env.action_dtype),
        "reward": jnp.asarray(timestep.reward, jnp.float32),
        "discount": timestep.discount.astype(jnp.int8 if env.binary_discounts else jnp.float32),
    }


def tree_bytes(tree: Any) -> int:
    """Bytes that the arrays of a tree take, which may be known by shape only."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _to_bytes(tree: Any) -> jax.Array:
    """All leaves after each other, `(bytes,)` uint8."""
    leaves = [leaf.astype(jnp.uint8) if leaf.dtype == bool else leaf for leaf in jax.tree.leaves(tree)]
    return jnp.concatenate([jax.lax.bitcast_convert_type(leaf, jnp.uint8).reshape(-1) for leaf in leaves])


def _from_bytes(row: jax.Array, example: Any) -> Any:
    """The inverse of `_to_bytes`, for a tree like `example`."""
    leaves, treedef = jax.tree.flatten(example)
    ends = np.cumsum([leaf.size * leaf.dtype.itemsize for leaf in leaves])
    parts = jnp.split(row, ends[:-1])
    return jax.tree.unflatten(treedef, [_from_part(*pair) for pair in zip(parts, leaves, strict=True)])


def _from_part(part: jax.Array, leaf: jax.ShapeDtypeStruct) -> jax.Array:
    if leaf.dtype == bool:
        return part.reshape(leaf.shape).astype(bool)
    width = leaf.dtype.itemsize
    shape = leaf.shape if width == 1 else (*leaf.shape, width)
    return jax.lax.bitcast_convert_type(part.reshape(shape), leaf.dtype)
