"""Slow projections by other means than the engine's: least squares on one-hot designs, and min-max."""

import itertools

import numpy as np


def additive_by_least_squares(payoff: np.ndarray, probabilities: list[np.ndarray]) -> np.ndarray:
    """The additive fit `(A_1, ..., A_n)` from numpy's weighted least squares."""
    joint = list(itertools.product(*(range(size) for size in payoff.shape)))
    offsets = np.concatenate([[0], np.cumsum(payoff.shape)])
    design = np.zeros((len(joint), offsets[-1]))
    for row, actions in enumerate(joint):
        for agent, action in enumerate(actions):
            design[row, offsets[agent] + action] = 1
    root = np.sqrt([np.prod([p[a] for p, a in zip(probabilities, u, strict=True)]) for u in joint])
    utilities, *_ = np.linalg.lstsq(design * root[:, None], payoff.reshape(-1) * root, rcond=None)
    return (design @ utilities).reshape(payoff.shape)


def isotonic_by_min_max(y: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Isotonic regression on a grid: f(x) = max over upper sets U of min over lower sets L of the mean.

    The mean is of y on U and L together, both hold x. Tries all subsets of the grid: up to a dozen cells.
    """
    cells = list(np.ndindex(y.shape))
    below = [[all(a <= b for a, b in zip(c, d, strict=True)) for d in cells] for c in cells]
    covers = [(i, j) for i, j in itertools.permutations(range(len(cells)), 2) if below[i][j]]
    upper = [
        members
        for members in itertools.product([False, True], repeat=len(cells))
        if all(members[j] or not members[i] for i, j in covers)
    ]
    values, weights = y.reshape(-1), w.reshape(-1)
    best = np.full(len(cells), -np.inf)
    for upper_set in upper:
        worst = np.full(len(cells), np.inf)
        for other in upper:
            both = np.array(upper_set) & ~np.array(other)  # the complement of an upper set is a lower set
            if both.any():
                worst[both] = np.minimum(worst[both], np.average(values[both], weights=weights[both]))
        inside = np.array(upper_set)
        best[inside] = np.maximum(best[inside], worst[inside])
    return best.reshape(y.shape)


def monotone_sse(payoff: np.ndarray, weights: np.ndarray) -> float:
    """The smallest error of an isotonic regression over every tuple of action orders."""
    errors = []
    for orders in itertools.product(*(itertools.permutations(range(size)) for size in payoff.shape)):
        y, w = payoff[np.ix_(*orders)], weights[np.ix_(*orders)]
        errors.append((w * (y - isotonic_by_min_max(y, w)) ** 2).sum())
    return min(errors)
