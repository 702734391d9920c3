"""Gaussian squeeze, slowly: one joint action at a time."""

import itertools
import math
from collections.abc import Sequence


def reward(levels: Sequence[int], s: Sequence[float], mu: Sequence[float], sigma: Sequence[float]) -> float:
    usage = 0.0
    for level, resource in zip(levels, s, strict=True):
        usage += resource * level
    return sum(usage * math.exp(-((usage - m) ** 2) / w**2) for m, w in zip(mu, sigma, strict=True))


def optimum(s: Sequence[float], mu: Sequence[float], sigma: Sequence[float], actions: int) -> float:
    """The best of all `actions ** n` joint actions."""
    joint = itertools.product(range(actions), repeat=len(s))
    return max(reward(levels, s, mu, sigma) for levels in joint)
