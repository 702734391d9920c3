"""Soft options, alone and communicated one step late: figures of the thesis's chapter 4."""

from experiments.claims.options import (
    degeneracy,
    delayed,
    doors,
    four_rooms,
    learning,
    lobo_jordan,
    single,
)

CLAIMS = (
    *single.CLAIMS,
    *four_rooms.CLAIMS,
    *degeneracy.CLAIMS,
    *lobo_jordan.CLAIMS,
    *delayed.CLAIMS,
    *doors.CLAIMS,
    *learning.CLAIMS,
)
