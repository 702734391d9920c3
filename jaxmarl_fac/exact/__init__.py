"""Exact theory of small games, in float64 where the caller enables it; no part of the training loop."""
