"""Exact theory of small games, in float64 if the caller enables it; not used by the training loop."""
