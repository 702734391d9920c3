"""One update of PQN in plain NumPy loops from the paper: targets, minibatches, gradients and the optimiser.

Gradients are central differences of the loss in float64. Parameters as in `tests.reference.q_learners`.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from tests.reference.q_learners import Params, best_actions
from tests.reference.q_learners import utilities as utilities_at
from tests.reference.recurrent import Episode, lambda_returns, unroll

#: Where a step is: rollout and time.
Place = tuple[int, int]


class Piece(NamedTuple):
    """The steps of one episode within a rollout, and where they stand."""

    episode: Episode
    places: list[Place]
    memory: Any  # of recurrent agents before its first observation: hidden states and actions; None if fresh


def pieces(rollouts: Any) -> list[Piece]:
    """What there is between resets in a batch of rollouts, a `Trajectory` of NumPy arrays `(E, T, ...)`."""
    found = []
    for e, mask in enumerate(rollouts.mask):
        start = 0
        for t in range(len(mask) + 1):
            if t < len(mask) and mask[t]:
                continue
            if t > start:
                seen = slice(start, t + 1)
                steps = slice(start, t)
                episode = Episode(
                    views=rollouts.observation.agents_view[e, seen],
                    states=rollouts.observation.global_state[e, seen],
                    masks=rollouts.observation.action_mask[e, seen],
                    actions=rollouts.actions[e, steps],
                    rewards=rollouts.reward[e, steps],
                    discounts=rollouts.discount[e, steps],
                )
                begun = start > 0 or rollouts.first[e, 0]
                memory = None if begun or not rollouts.carry else [leaf[e] for leaf in rollouts.carry]
                found.append(Piece(episode, [(e, place) for place in range(start, t)], memory))
            start = t + 1
    return found


def q_values(params: Params, piece: Piece, recurrent: bool) -> np.ndarray:
    """All agents' utilities at every observation of a piece, `(L + 1, n, A)`."""
    episode = piece.episode
    if recurrent:
        return np.asarray(
            [[q for q, _ in each] for each in unroll(params["agent"], episode, memory=piece.memory)]
        )
    return np.asarray([utilities_at(params, episode.observation(t)) for t in range(len(episode.views))])


def targets(
    params: Params,
    piece: Piece,
    mix: Callable[..., float] | None,
    gamma: float,
    lambda_: float,
    recurrent: bool,
) -> list[Any]:
    """Y of each step: a number, or one for each agent where there is no mixer."""
    episode, q = piece.episode, q_values(params, piece, recurrent)
    values = []
    for t in range(1, len(q)):
        best = best_actions(q[t], episode.masks[t])
        greedy = [q[t, i, u] for i, u in enumerate(best)]
        values.append(greedy if mix is None else [mix(params, greedy, episode.states[t])])
    each = [
        lambda_returns(episode.rewards, episode.discounts, column, gamma, lambda_)
        for column in np.asarray(values).T
    ]
    columns = np.asarray(each).T  # (L, 1) or (L, n)
    return list(columns if mix is None else columns[:, 0])


def loss(
    params: Params,
    found: Sequence[Piece],
    y: dict[Place, Any],
    places: set[Place],
    mix: Callable[..., float] | None,
    recurrent: bool,
) -> float:
    """The mean over those of the steps that are in a minibatch."""
    errors = []
    for piece in found:
        if not places.intersection(piece.places):
            continue
        q = q_values(params, piece, recurrent=True) if recurrent else None
        for t, place in enumerate(piece.places):
            if place in places:
                now = utilities_at(params, piece.episode.observation(t)) if q is None else q[t]
                taken = [now[i, u] for i, u in enumerate(piece.episode.actions[t])]
                if mix is not None:
                    taken = [mix(params, taken, piece.episode.states[t])]
                errors.append(np.mean(np.square(np.asarray(taken) - y[place])))
    return float(np.mean(errors)) if errors else 0.0


def leaves(tree: Params) -> Iterable[np.ndarray]:
    for name in sorted(tree):
        yield from leaves(tree[name]) if isinstance(tree[name], dict) else (tree[name],)


def update(
    params: Params,
    rollouts: Any,
    minibatches: Sequence[set[Place]],
    mix: Callable[..., float] | None,
    *,
    recurrent: bool,
    gamma: float,
    lambda_: float,
    rate: float,
    eps: float,
    max_grad_norm: float,
) -> list[float]:
    """Change float64 parameters in place, by Adam with clipped gradients; the loss of every minibatch."""
    found = pieces(rollouts)
    y = {
        place: value
        for piece in found
        for place, value in zip(
            piece.places, targets(params, piece, mix, gamma, lambda_, recurrent), strict=True
        )
    }
    all_leaves = list(leaves(params))
    first, second = ([np.zeros_like(leaf) for leaf in all_leaves] for _ in range(2))
    losses = []
    for step, places in enumerate(minibatches, start=1):
        losses.append(loss(params, found, y, places, mix, recurrent))
        gradients = []
        for leaf in all_leaves:
            gradient = np.zeros_like(leaf)
            for index in np.ndindex(leaf.shape):
                kept, around = leaf[index], []
                for sign in (1, -1):
                    leaf[index] = kept + sign * 1e-6
                    around.append(loss(params, found, y, places, mix, recurrent))
                leaf[index] = kept
                gradient[index] = (around[0] - around[1]) / 2e-6
            gradients.append(gradient)
        norm = np.sqrt(sum(np.sum(gradient**2) for gradient in gradients))
        clip = min(1.0, max_grad_norm / norm)
        for i, gradient in enumerate(gradients):
            first[i] = 0.9 * first[i] + 0.1 * clip * gradient
            second[i] = 0.999 * second[i] + 0.001 * (clip * gradient) ** 2
            deviation = np.sqrt(second[i] / (1 - 0.999**step))
            all_leaves[i] -= rate * first[i] / (1 - 0.9**step) / (deviation + eps)
    return losses
