"""Small games, random parameters and transitions for the tests of Q-learners with networks.

Numbers are made by NumPy and put on the device: each operation of `jax.numpy` compiles a program per shape.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from envs.differential_game import DifferentialGame
from envs.matrix_games import MatrixGame, matrix_game, staged_game
from jaxmarl_fac.game import GameSpec
from tests.helpers import transitions

GAMMA = 0.9
#: Three agents with 2, 3 and 3 actions, on one of three stages.
COUNTS = (2, 3, 3)
STAGED = staged_game(np.zeros((3, *COUNTS)), np.full((3, *COUNTS), -1), np.full(3, 1 / 3), time_limit=1)
ONE_SHOT = matrix_game(np.arange(18.0).reshape(COUNTS))


@struct.dataclass(eq=False)
class Repeated(MatrixGame):
    """A one-shot game that pretends to have states, so that nothing is shared between samples."""

    stateless = False


REPEATED = Repeated(ONE_SHOT.payoff, ONE_SHOT.next_stage, ONE_SHOT.start, action_counts=COUNTS)
#: (stage, actions, reward, discount, next stage): ordinary steps, a truncation and a termination.
STEPS = [
    (0, (1, 2, 0), 1.5, 1.0, 1),
    (1, (0, 1, 2), -0.5, 1.0, 2),
    (2, (1, 0, 1), 2.0, 0.0, 2),
    (1, (0, 2, 2), 0.0, 1.0, 0),
]


def one_hill():
    """A single hill of height 10 at (3, -4): nothing to be misled by."""
    return DifferentialGame(
        heights=jnp.asarray([10.0]),
        centres=jnp.asarray([[3.0, -4.0]]),
        widths=jnp.asarray([3.0]),
        scales=jnp.asarray([1.0]),
    )


def randomised(params, seed, scale=0.6):
    """Normal numbers for all parameters: fresh biases would be 0, and hide mistakes."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jax.device_put(np.asarray(scale * rng.normal(size=leaf.shape), np.float32)), params
    )


def random_state(algorithm, env, seed, target_seed=None, num_envs=1):
    """A learner's state with random parameters; with a `target_seed`, others in the target network."""
    shapes = jax.eval_shape(algorithm.bind(GameSpec.of(env), num_envs).init, jax.random.key(0))
    fresh = jax.tree.map(lambda leaf: jax.device_put(np.zeros(leaf.shape, leaf.dtype)), shapes)
    params = randomised(shapes.params, seed)
    target_params = params if target_seed is None else randomised(shapes.params, target_seed)
    return fresh.replace(params=params, target_params=target_params)


def random_params(algorithm, env, seed):
    return random_state(algorithm, env, seed).params


def batch_loss(algorithm, env):
    """The algorithm's loss of a batch and what is logged of it: `(params, target_params, batch)` to these."""
    network = algorithm.network(GameSpec.of(env))

    def loss(params, target_params, batch):
        online, target = network.bind(params), network.bind(target_params)
        return algorithm.method.loss(online, target, batch, algorithm.gamma)

    return loss


def at_stage(env, stage):
    """The observation of a stage."""
    return _at_stage(env, jax.random.key(0), np.int8(stage))


@jax.jit
def _at_stage(env, key, stage):
    state, _ = env.reset(key)
    return env.observe(state.replace(stage=stage))


def staged_steps():
    """STEPS as transitions of STAGED: batches of one."""
    return [
        transitions(
            one(at_stage(STAGED, stage)),
            [actions],
            [reward],
            [discount],
            one(at_stage(STAGED, following)),
        )
        for stage, actions, reward, discount, following in STEPS
    ]


def one(tree):
    """With an axis `(1,)`."""
    return jax.tree.map(lambda leaf: jax.device_put(np.asarray(leaf)[None]), tree)


def concatenated(batches):
    """One batch of several."""
    return jax.tree.map(lambda *leaves: jax.device_put(np.concatenate(leaves)), *batches)


def observation_at(batch, t, sample=0):
    """The observation at a time of one trajectory of a batch."""
    return jax.tree.map(lambda leaf: jax.device_put(np.asarray(leaf)[sample, t]), batch.observation)


def plain(observation):
    """What the references take: view, state and mask in NumPy."""
    return tuple(np.asarray(leaf) for leaf in observation[:3])


def plain_transition(step):
    """A batch of one transition as the references take it."""
    return (
        plain(observation_at(step, 0)),
        np.asarray(step.actions)[0, 0].tolist(),
        float(np.asarray(step.reward)[0, 0]),
        float(np.asarray(step.discount)[0, 0]),
        plain(observation_at(step, 1)),
    )
