"""Soft options, alone and communicated one step late: figures of the thesis's chapter 4."""

from experiments.claims.options import degeneracy, delayed, lobo_jordan, single

CLAIMS = (
    *single.CLAIMS,
    *degeneracy.CLAIMS,
    *lobo_jordan.CLAIMS,
    *delayed.CLAIMS,
)
