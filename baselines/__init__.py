"""The algorithms, one module per family."""

from baselines.registry import ALGORITHMS, make

__all__ = ["ALGORITHMS", "make"]
