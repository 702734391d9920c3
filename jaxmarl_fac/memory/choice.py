"""The memory that an algorithm consumes."""

from typing import Any

from envs.base import TeamEnvironment
from jaxmarl_fac.algorithm import Algorithm
from jaxmarl_fac.memory.base import Memory
from jaxmarl_fac.memory.episodes import EpisodeReplay
from jaxmarl_fac.memory.rollout import Latest
from jaxmarl_fac.memory.transitions import Replay


def memory_for(algorithm: Algorithm, env: TeamEnvironment, num_envs: int, iterations: int) -> Memory:
    """The memory that the algorithm consumes.

    Args:
        algorithm: says what it learns from, and how much of it is kept.
        env: the game.
        num_envs: environments side by side.
        iterations: steps of each of them in the whole run; no memory is larger than what they can fill.
    """
    if algorithm.consumes == "latest":
        return Latest(num_envs)
    settings: Any = algorithm  # an algorithm that learns from replay says how much
    kept = min(settings.replay_size, iterations * num_envs)  # of either; an episode has a step at least
    if algorithm.consumes == "transitions":
        newest = getattr(settings, "newest_transitions", 0)
        return Replay(kept, settings.batch_size, num_envs, newest)
    recent = getattr(settings, "recent_episodes", 0), getattr(settings, "recent_fraction", 0.0)
    return EpisodeReplay(kept, settings.batch_size, num_envs, env.time_limit, *recent)
