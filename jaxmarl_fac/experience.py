"""What agents decide, what the loop records of it, and what learners are fed: one type for all of them.

A transition is a trajectory of T = 1 step, an episode one that is padded to the time limit, and a rollout one
that may run across the borders of episodes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from envs.base import Observation


class Clock(NamedTuple):
    """How far training has come; counts stop at the largest int32 instead of wrapping."""

    env_steps: jax.Array  # () int32, steps of all environments of one learner together
    updates: jax.Array  # () int32, gradient steps before this moment
    progress: jax.Array  # () float32 in [0, 1], the fraction of training that is done


class Decision(NamedTuple):
    """What the agents do at one observation."""

    actions: jax.Array  # (n,) int32, or float32 where actions are numbers
    carry: Any = ()  # agent memory for the rest of the episode: hidden states, an option, a belief
    extras: Any = ()  # stored with the step: log-probabilities, latents; in dtypes as small as they can be


class Step(NamedTuple):
    """One step of one environment as a memory stores it; E side by side have a leading axis `(E, ...)`."""

    state: Any  # before the step
    carry: Any  # agent memory before the decision
    actions: jax.Array  # (n,)
    extras: Any  # of the decision
    reward: jax.Array  # (), or (n,) in a game with a reward per agent
    discount: jax.Array  # (), 0 after a termination
    last: jax.Array  # () bool, the step ended its episode
    mask: jax.Array  # () bool, False where the environment was only being reset
    next_state: Any  # where the step led, before any reset


class Trajectory(NamedTuple):
    """T consecutive steps of one environment; a batch of them has a leading axis `(B, ...)` on every leaf.

    Only in stateless games may the observations of a batch lack that axis: see `over_batch`. Where `mask` is
    0 (padding after an episode's end, or an environment that spends a row on being reset) reward and discount
    mean nothing. Step t leads to observation t + 1 also at the end of an episode, so that every step may
    bootstrap from there.

    Example:
        An episode of two steps and the reset after it:

        >>> import jax.numpy as jnp
        >>> import envs
        >>> game = envs.make("two-step")
        >>> observation = game.observe(game.reset(jax.random.key(0))[0])
        >>> trajectory = Trajectory(
        ...     observation=jax.tree.map(lambda leaf: jnp.stack([leaf] * 4), observation),
        ...     first=jnp.array([True, False, False, True]),
        ...     carry=(),
        ...     actions=jnp.zeros((3, 2), jnp.int32),
        ...     extras=(),
        ...     reward=jnp.array([0.0, 7.0, 0.0]),
        ...     discount=jnp.array([1.0, 0.0, 1.0]),
        ...     mask=jnp.array([1.0, 1.0, 0.0]),
        ... )
        >>> batch = jax.tree.map(lambda leaf: leaf[None], trajectory)
        >>> over_batch(lambda steps: jnp.sum(steps.reward * steps.mask), batch)  # (B,)
        Array([7.], dtype=float32)
    """

    observation: Observation  # (T + 1, ...)
    first: jax.Array  # (T + 1,) bool, an episode begins here, with fresh memory; not known of transitions
    carry: Any  # agent memory at observation 0; () where memories do not keep it
    actions: jax.Array  # (T, n)
    extras: Any  # (T, ...), what `act` attached
    reward: jax.Array  # (T,), or (T, n)
    discount: jax.Array  # (T,), 0 after a termination, else 1
    mask: jax.Array  # (T,) float32


def over_batch(function: Callable[..., Any], batch: Trajectory, *others: Any) -> Any:
    """Map a function of one trajectory over a batch.

    Only this, `take` and `take_steps` know of observations without a batch axis: a stateless game shows the
    same to every sample, so networks are evaluated there once for the whole batch.

    Args:
        function: takes a trajectory and one item of each of `others`.
        batch: of trajectories.
        others: with a leading axis `(B,)`.

    Returns:
        What it returns, with a leading axis `(B,)`.
    """
    return jax.vmap(function, (_batch_axes(batch), *[0] * len(others)))(batch, *others)


def take(batch: Trajectory, rows: jax.Array) -> Trajectory:
    """The trajectories `(R,)` of a batch at `rows (R,)`."""
    axes = _batch_axes(batch)
    parts = [
        tree if axis is None else jax.tree.map(lambda leaf: leaf[rows], tree)
        for axis, tree in zip(axes, batch, strict=True)
    ]
    return Trajectory(*parts)


def take_steps(batch: Trajectory, places: jax.Array) -> Trajectory:
    """Single steps `(R,)` of a batch of B trajectories, each a trajectory of its own without agent memory.

    Args:
        batch: of trajectories of T steps.
        places: `(R,)`, of `b T + t` for step t of trajectory b.
    """
    b, t = jnp.divmod(places, batch.actions.shape[1])

    def pair(leaf: jax.Array) -> jax.Array:
        return jnp.stack([leaf[b, t], leaf[b, t + 1]], axis=1)  # (R, 2, ...)

    def step(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf[b, t][:, None], tree)  # (R, 1, ...)

    observation = batch.observation
    own = _batch_axes(batch).observation is not None
    return Trajectory(
        observation=jax.tree.map(pair if own else lambda leaf: leaf[:2], observation),
        first=pair(batch.first),
        carry=(),
        actions=step(batch.actions),
        extras=step(batch.extras),
        reward=step(batch.reward),
        discount=step(batch.discount),
        mask=step(batch.mask),
    )


def _batch_axes(batch: Trajectory) -> Any:
    """Where each part of a batch has its leading axis; None for observations without one."""
    own = batch.observation.agents_view.ndim > batch.actions.ndim  # (B, T + 1, n, O) beside (B, T, n)
    return Trajectory(0 if own else None, 0, 0, 0, 0, 0, 0, 0)  # type: ignore[arg-type]
