"""What a learner is fed from: memories are values that a learner chooses and the loop binds to a game."""

from jaxmarl_fac.memory.base import Buffer, Memory, Store
from jaxmarl_fac.memory.episodes import Episodes
from jaxmarl_fac.memory.rollout import Rollout
from jaxmarl_fac.memory.together import Together
from jaxmarl_fac.memory.transitions import Newest, Transitions

__all__ = ["Buffer", "Episodes", "Memory", "Newest", "Rollout", "Store", "Together", "Transitions"]
