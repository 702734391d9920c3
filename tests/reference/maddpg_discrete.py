"""MADDPG with discrete actions along one episode, in plain NumPy loops from the formulas.

Parameters as in `tests.reference.q_learners`; episodes, and transitions as episodes of one step, as in
`tests.reference.recurrent`.
"""

from typing import Any, NamedTuple

import numpy as np

from tests.reference.q_learners import Params, mlp, own_part
from tests.reference.q_learners import utilities as feed_forward
from tests.reference.recurrent import Episode
from tests.reference.recurrent import utilities as recurrent


class Noise(NamedTuple):
    """Standard Gumbel numbers."""

    after: np.ndarray  # (T, n, A), of the target policies' actions after each step
    now: np.ndarray  # (T, n, A), of the actions that the policies are improved by


class Settings(NamedTuple):
    gamma: float
    temperature: float
    logit_penalty: float
    others_from: str


def all_logits(params: Params, episode: Episode) -> np.ndarray:
    """`(T + 1, n, A)`."""
    if "cell" in params["agent"]:
        return recurrent(params["agent"], episode)
    return np.asarray([feed_forward(params, episode.observation(t)) for t in range(len(episode.views))])


def value(params: Params, i: int, observation: tuple, joint: list[np.ndarray]) -> float:
    """Agent i's Q of vectors of actions, one for each agent."""
    views, state, _ = observation
    layers = params["critics"]["critic"]
    if layers["Dense_0"]["kernel"].ndim == 3:
        layers = own_part(layers, i)
    inputs = np.concatenate([state, views[i], *joint, np.eye(len(views))[i]])
    return float(mlp(layers, inputs, last_is_linear=True)[0])


def softmax(logits: np.ndarray, mask: np.ndarray) -> np.ndarray:
    weights = np.where(mask, np.exp(logits - logits[mask].max()), 0)
    return weights / weights.sum()


def hard_sample(logits: np.ndarray, mask: np.ndarray, noise: np.ndarray) -> np.ndarray:
    best = max(np.flatnonzero(mask), key=lambda u: logits[u] + noise[u])
    return np.eye(len(mask))[best]


def targets(target: Params, episode: Episode, noise: Noise, settings: Settings) -> np.ndarray:
    """`(T, n)`; rewards may be `(T,)` or `(T, n)`."""
    logits = all_logits(target, episode)
    steps, n = episode.actions.shape
    rewards = np.broadcast_to(episode.rewards.reshape(steps, -1), (steps, n))
    found = np.zeros((steps, n))
    for t in range(steps):
        joint = [hard_sample(logits[t + 1, j], episode.masks[t + 1, j], noise.after[t, j]) for j in range(n)]
        for i in range(n):
            q = value(target, i, episode.observation(t + 1), joint)
            found[t, i] = rewards[t, i] + settings.gamma * episode.discounts[t] * q
    return found


def critic_losses(params: Params, y: np.ndarray, episode: Episode) -> np.ndarray:
    """The mean squared error over agents of each step, `(T,)`."""
    steps, n = episode.actions.shape
    taken = np.eye(episode.masks.shape[-1])[episode.actions]
    errors = [
        [value(params, i, episode.observation(t), list(taken[t])) - y[t, i] for i in range(n)]
        for t in range(steps)
    ]
    return np.mean(np.square(errors), axis=1)


def policy_losses(
    params: Params, at: Params, episode: Episode, noise: Noise, settings: Settings
) -> np.ndarray:
    """The policies' loss of each step, `(T,)`, written so that its gradient in `at` is straight-through.

    Hard samples, and samples of others, are those by the parameters `at`; critics have these too. To an
    agent's own hard sample the relaxed one is added and that by `at` taken off again.
    """
    logits, logits_at = all_logits(params, episode), all_logits(at, episode)
    steps, n = episode.actions.shape
    taken = np.eye(episode.masks.shape[-1])[episode.actions]
    found = np.zeros(steps)
    for t in range(steps):
        mask = episode.masks[t]
        hard = [hard_sample(logits_at[t, j], mask[j], noise.now[t, j]) for j in range(n)]
        others = list(taken[t]) if settings.others_from == "replay" else hard
        for i in range(n):
            relaxed, relaxed_at = (
                softmax((each[t, i] + noise.now[t, i]) / settings.temperature, mask[i])
                for each in (logits, logits_at)
            )
            joint = [*others]
            joint[i] = hard[i] + relaxed - relaxed_at
            found[t] -= value(at, i, episode.observation(t), joint) / n
        found[t] += settings.logit_penalty * np.mean(np.where(mask, logits[t], 0) ** 2)
    return found


def moved(params: Params, direction: Params, by: float) -> Any:
    """Parameters after a step in a direction."""
    if not isinstance(params, dict):
        return np.asarray(params, float) + by * direction
    return {name: moved(params[name], direction[name], by) for name in params}
