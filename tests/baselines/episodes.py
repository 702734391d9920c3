"""Random episodes of a small game, as the references take them and as a memory of episodes draws them."""

import functools

import jax
import numpy as np

from envs.base import Observation
from jaxmarl_fac.experience import Trajectory
from tests.baselines.learners import STAGED, at_stage, concatenated
from tests.reference import recurrent

#: Steps of the longest episode below.
LONGEST = 4


def random_episode(rng, length, terminates):
    """One of STAGED's shape, unlike anything that happens there; some actions are not available."""
    shapes = jax.tree.map(lambda leaf: (length + 1, *leaf.shape), at_stage(STAGED, 0))
    _, n, count = shapes.action_mask
    actions = rng.integers(count, size=(length, n))
    masks = rng.random(shapes.action_mask) < 0.6
    masks[np.arange(length)[:, None], np.arange(n), actions] = True  # what was played was there
    masks[length, :, rng.integers(count)] = True
    discounts = np.ones(length)
    discounts[-1] = 0 if terminates else 1
    return recurrent.Episode(
        views=rng.normal(size=shapes.agents_view),
        states=rng.normal(size=shapes.global_state),
        masks=masks,
        actions=actions,
        rewards=rng.normal(size=length),
        discounts=discounts,
    )


def padded(episode, rng, size=LONGEST):
    """A batch of the one episode as a trajectory of `size` steps, with random nonsense after its end."""
    missing = size - len(episode.actions)

    def longer(array, nonsense):
        return np.concatenate([array, nonsense(size=(missing, *array.shape[1:]))])[None]

    normal = functools.partial(rng.normal, scale=10.0)
    masks = longer(episode.masks, functools.partial(rng.integers, 2)).astype(bool)
    masks[..., 0] |= ~masks.any(axis=-1)
    trajectory = Trajectory(
        observation=Observation(
            agents_view=longer(episode.views, normal).astype(np.float32),
            global_state=longer(episode.states, normal).astype(np.float32),
            action_mask=masks,
            step_count=np.arange(size + 1, dtype=np.int32)[None],
        ),
        first=np.arange(size + 1)[None] == 0,
        carry=(),
        actions=longer(episode.actions, functools.partial(rng.integers, 3)).astype(np.int32),
        extras=(),
        reward=longer(episode.rewards, normal).astype(np.float32),
        discount=longer(episode.discounts, functools.partial(rng.integers, 2)).astype(np.float32),
        mask=(np.arange(size) < len(episode.actions)).astype(np.float32)[None],
    )
    return jax.device_put(trajectory)


def batch_of(episodes, seed):
    rng = np.random.default_rng(seed)
    return concatenated([padded(episode, rng) for episode in episodes])


def only(batch):
    """The trajectory of a batch of one."""
    return jax.tree.map(lambda leaf: jax.device_put(np.asarray(leaf)[0]), batch)


#: Of all lengths; of each, one that terminates and one that is cut off.
EPISODES = [
    random_episode(np.random.default_rng(10 * length + terminates), length, terminates)
    for length in range(1, LONGEST + 1)
    for terminates in (False, True)
]
