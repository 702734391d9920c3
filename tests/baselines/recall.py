"""A game that must be remembered."""

import jax
import jax.numpy as jnp
from flax import struct

from envs.base import Observation, TeamEnvironment


@struct.dataclass
class Recalled:
    """What a `Recall` is in."""

    key: jax.Array | None
    cue: jax.Array  # () int8
    length: jax.Array  # () int8, steps of this episode
    played: jax.Array  # (n,) int8, the last actions; -1 at the start
    step_count: jax.Array  # () int8


@struct.dataclass(eq=False)
class Recall(TeamEnvironment):
    """Two agents see one of three cues in the first step, and in the last step both have to name it, for 1.

    In between they see nothing but whether it is the last step. Episodes take `shortest` to `longest` steps.
    The global state is what they see, and the cue in every step if `cue_in_state`.
    """

    shortest: int = struct.field(pytree_node=False, default=3)
    longest: int = struct.field(pytree_node=False, default=3)
    cue_in_state: bool = struct.field(pytree_node=False, default=False)

    num_agents = 2
    num_actions = 3

    @property
    def time_limit(self):
        return self.longest

    def reset(self, key):
        key, cue_key, length_key = jax.random.split(key, 3)
        state = Recalled(
            key=key,
            cue=jax.random.randint(cue_key, (), 0, 3).astype(jnp.int8),
            length=jax.random.randint(length_key, (), self.shortest, self.longest + 1).astype(jnp.int8),
            played=jnp.full((2,), -1, jnp.int8),
            step_count=jnp.int8(0),
        )
        return state, self.first_timestep(state)

    def step(self, state, actions):
        over = state.step_count + 1 >= state.length
        reward = jnp.where(over & (actions == state.cue).all(), 1.0, 0.0)
        state = state.replace(played=actions.astype(jnp.int8), step_count=state.step_count + jnp.int8(1))
        return state, self.next_timestep(state, reward, over, jnp.bool_(False))

    def observe(self, state):
        cue = jnp.where(state.step_count == 0, jax.nn.one_hot(state.cue, 3), 0)
        last = (state.step_count + 1 == state.length).astype(jnp.float32)
        view = jnp.concatenate([cue, last[None]])
        shown = jnp.concatenate([view, jax.nn.one_hot(state.cue, 3)]) if self.cue_in_state else view
        return Observation(
            agents_view=jnp.stack([view, view]),
            global_state=shown,
            action_mask=jnp.ones((2, 3), bool),
            step_count=state.step_count.astype(jnp.int32),
        )
