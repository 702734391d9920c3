import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmarl_fac.memory import Episodes, Newest, Rollout, Together, Transitions
from tests.engine.memory.games import record, stages_at_random, stamped_step

ENV = stages_at_random()
MEMBERS = {"fresh": Rollout(4), "replay": Transitions(40, 6), "episodes": Episodes(9, 5), "new": Newest(3)}


class SideBySide:
    """Stores that see the same steps, and are drawn from with the same key, in one compiled program."""

    def __init__(self, stores):
        self.stores = stores

    def init(self):
        return {name: store.init() for name, store in self.stores.items()}

    def add(self, buffer, additions, steps):
        return {name: store.add(buffer[name], additions, steps) for name, store in self.stores.items()}

    def sample(self, buffer, additions, key):
        return {name: store.sample(buffer[name], additions, key) for name, store in self.stores.items()}


@pytest.fixture(scope="module")
def recorded():
    """Buffers, and the batches after each of 60 iterations, together and of each member by itself."""
    actions = jnp.asarray(np.random.default_rng(0).integers(3, size=(60, 2, 2)))
    memories = {"together": Together(**MEMBERS), **MEMBERS}
    stores = {
        name: memory.bind(ENV, stamped_step(ENV), 2, 60, reset_rows=True) for name, memory in memories.items()
    }
    keys = jax.random.key(1), jax.random.key(2)
    store = SideBySide(stores)
    buffers, _, batches = record(ENV, store, 60, actions, keys[0], reset_rows=True, sample_key=keys[1])
    return buffers, batches


def test_each_member_holds_what_it_would_hold_alone(recorded):
    buffers, _ = recorded
    alone = {name: buffers[name] for name in MEMBERS}
    assert buffers["together"].keys() == alone.keys()
    jax.tree.map(np.testing.assert_array_equal, buffers["together"], alone)


def test_what_is_not_drawn_comes_in_the_same_batches(recorded):
    _, batches = recorded
    for name in ("fresh", "new"):
        jax.tree.map(np.testing.assert_array_equal, batches["together"][name], batches[name])


def test_members_draw_with_keys_of_their_own_which_are_not_the_updates():
    """`fold_in(key, 1)` is what an update is given."""
    seen = []

    class Noting:
        period, resets_take_a_row = 1, False

        def bind(self, *args):
            return self

        def sample(self, buffer, additions, key):
            seen.append(tuple(jax.random.key_data(key).tolist()))
            return ()

    store = Together(one=Noting(), two=Noting(), three=Noting()).bind(ENV, None, 1, 1)
    key = jax.random.key(3)
    store.sample(dict.fromkeys(("one", "two", "three")), jnp.int32(1), key)
    assert seen[0] == tuple(jax.random.key_data(key).tolist())  # one memory is drawn from as if alone
    assert len(set(seen)) == 3
    assert tuple(jax.random.key_data(jax.random.fold_in(key, 1)).tolist()) not in seen


@pytest.mark.parametrize(
    ("members", "period", "rows", "warmup"),
    [
        ((Transitions(9, 3), Newest(3)), 1, False, 0),
        ((Rollout(), Transitions(9, 3)), 1, False, 0),
        ((Rollout(4), Transitions(9, 3)), 4, True, 3),
        ((Rollout(4), Rollout(6)), 12, True, 5),
        ((Rollout(4), Episodes(9, 3)), 4, True, 49),
        ((Together(a=Rollout(4), b=Newest(2)), Episodes(9, 3)), 4, True, 49),
    ],
)
def test_a_batch_is_due_when_every_member_has_one(members, period, rows, warmup):
    memory = Together(**{f"of_{i}": member for i, member in enumerate(members)})
    assert memory.period == period
    assert memory.resets_take_a_row is rows
    assert memory.warmup(time_limit=50) == warmup


def test_memories_together_are_values():
    memory = Together(fresh=Rollout(4), replay=Transitions(40, 6))
    same = Together(fresh=Rollout(4), replay=Transitions(40, 6))
    assert memory == same and hash(memory) == hash(same)
    assert Together(inner=memory, new=Newest(3)) == Together(inner=same, new=Newest(3))
    others = [
        Together(fresh=Rollout(5), replay=Transitions(40, 6)),
        Together(recent=Rollout(4), replay=Transitions(40, 6)),
        Together(replay=Transitions(40, 6), fresh=Rollout(4)),  # each draws with the other's key
        Together(fresh=Rollout(4)),
        Rollout(4),
    ]
    assert memory not in others


def test_memories_together_are_shown_as_they_are_written():
    memory = Together(fresh=Rollout(4), both=Together(new=Newest(3)))
    assert repr(memory) == "Together(fresh=Rollout(length=4), both=Together(new=Newest(batch_size=3)))"
    assert eval(repr(memory)) == memory
