"""Several memories of the same experience, for learners that are fed from more than one."""

import math
from typing import Any

import jax

from envs.base import TeamEnvironment
from jaxmarl_fac.experience import Step
from jaxmarl_fac.memory.base import Memory, Store


class Together:
    """Batches by name, one from each memory: `Together(fresh=Rollout(8), replay=Transitions(5000, 32))`.

    A batch is due when every member has one. Order counts for equality, because it decides the
    keys that members draw with.

    Args:
        members: by name.
    """

    def __init__(self, **members: Memory):
        self._members = members

    def __repr__(self) -> str:
        return f"Together({', '.join(f'{name}={member!r}' for name, member in self._members.items())})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Together):
            return NotImplemented
        return tuple(self._members.items()) == tuple(other._members.items())

    def __hash__(self) -> int:
        return hash(tuple(self._members.items()))

    @property
    def period(self) -> int:
        """A multiple of every member's."""
        return math.lcm(*(member.period for member in self._members.values()))

    @property
    def resets_take_a_row(self) -> bool:
        """If one of them wants it."""
        return any(member.resets_take_a_row for member in self._members.values())

    def warmup(self, time_limit: int) -> int:
        """Until all have a batch."""
        return max(member.warmup(time_limit) for member in self._members.values())

    def bind(
        self, env: TeamEnvironment, example: Step, num_envs: int, iterations: int, reset_rows: bool = False
    ) -> "Stores":
        """Every member's functions."""
        return Stores(
            {
                name: member.bind(env, example, num_envs, iterations, reset_rows)
                for name, member in self._members.items()
            }
        )


class Stores:
    """Functions over a dictionary of buffers; see `memory.base.Store`.

    Args:
        stores: by name.
    """

    def __init__(self, stores: dict[str, Store]):
        self._stores = stores

    def init(self) -> dict[str, Any]:
        """Nothing stored."""
        return {name: store.init() for name, store in self._stores.items()}

    def add(self, buffer: dict[str, Any], additions: jax.Array, steps: Step) -> dict[str, Any]:
        """Store the steps in each."""
        return {name: store.add(buffer[name], additions, steps) for name, store in self._stores.items()}

    def sample(self, buffer: dict[str, Any], additions: jax.Array, key: jax.Array) -> dict[str, Any]:
        """A batch from each, by name."""

        def own(place: int) -> jax.Array:
            """The first one's key is the one that it would have alone; 1 makes the key of the update."""
            return jax.random.fold_in(key, place + 1) if place else key

        return {
            name: store.sample(buffer[name], additions, own(place))
            for place, (name, store) in enumerate(self._stores.items())
        }
