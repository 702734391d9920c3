"""The games, as pure-functional Jumanji environments."""

from envs.base import Observation, TeamEnvironment
from envs.errors import BadInputError
from envs.registry import ENVIRONMENTS, make

__all__ = ["ENVIRONMENTS", "BadInputError", "Observation", "TeamEnvironment", "make"]
