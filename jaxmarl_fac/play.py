"""Trained learners outside the loop: load one from a run's folder, play it greedily, watch it."""

import dataclasses
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from envs.base import TeamEnvironment
from envs.errors import BadInputError
from envs.ranges import Seed, check_value
from jaxmarl_fac.algorithm import Algorithm, Params
from jaxmarl_fac.checkpoints import read_params
from jaxmarl_fac.evaluation import AGENTS, greedy_return
from jaxmarl_fac.game import GameSpec
from jaxmarl_fac.saved import load_experiment

#: Episodes that are played side by side.
MOST_EPISODES = 2**20


@dataclasses.dataclass(frozen=True)
class Player:
    """One trained learner and the game that it was trained on.

    Attributes:
        algorithm: with all its hyper-parameters.
        environment: one game, without a leading axis.
        params: of this learner alone.
        env_steps: environment steps that it was trained for.
    """

    algorithm: Algorithm
    environment: TeamEnvironment
    params: Params
    env_steps: int

    def returns(self, episodes: int = 32, key: int = 0) -> np.ndarray:
        """Undiscounted returns `(episodes,)` of greedy play, or `(episodes, n)` with a reward per agent.

        Args:
            episodes: how many.
            key: of the games' randomness; the same one gives the same games.

        Raises:
            BadInputError: for no or too many episodes, or a key that is none.
        """
        if not 1 <= episodes <= MOST_EPISODES:
            bound = "least 1" if episodes < 1 else f"most {MOST_EPISODES}"
            raise BadInputError(f"episodes must be at {bound}, not {episodes}")

        learner = self.algorithm.bind(GameSpec.of(self.environment))

        def episode(key: jax.Array) -> jax.Array:
            return greedy_return(learner, self.environment, self.params, key)[0]

        return np.asarray(jax.jit(jax.vmap(episode))(jax.random.split(_key(key), episodes)))

    def states(self, key: int = 0) -> list[Any]:
        """The states of one greedy episode, from the first to the last.

        Raises:
            BadInputError: for a key that is none.
        """
        env, params = self.environment, self.params
        learner = self.algorithm.bind(GameSpec.of(env))
        agents_key = jax.random.fold_in(_key(key), AGENTS)

        @jax.jit
        def step(state: Any, carry: Any, number: jax.Array) -> tuple[Any, Any, jax.Array]:
            key = jax.random.fold_in(agents_key, number)
            decision = learner.act_greedily(params, carry, env.observe(state), key)
            state, timestep = env.step(state, decision.actions)
            return state, decision.carry, timestep.last()

        state, over = env.reset(_key(key))[0], False
        carry = learner.begin(params, env.observe(state), jax.random.fold_in(agents_key, 0))
        states = [state]
        while not over:
            state, carry, over = step(state, carry, np.int32(len(states)))
            states.append(state)
        return states

    def animate(self, path: str | Path, key: int = 0) -> None:
        """Write one greedy episode as an animation.

        Args:
            path: ends in .gif.
            key: see `returns`.

        Raises:
            BadInputError: if `path` does not end in .gif or cannot be written, nobody can draw the game, or
                the key is none.
        """
        path, env = Path(path), self.environment
        if not hasattr(env, "animate"):
            raise BadInputError(
                f"{type(env).__name__} has no pictures: it can only be played for its returns"
            )
        if path.suffix.lower() != ".gif":
            raise BadInputError(f"animations are written as GIF: {path} must end in .gif")
        try:
            with path.open("ab"):  # refused before anything is played
                pass
        except OSError as error:
            raise BadInputError(f"animation {path} cannot be written: {error.strerror}") from error
        env.animate(self.states(key), save_path=str(path))


def load_player(
    folder: str | Path,
    seed: int | None = None,
    game: int = 0,
    step: int | Literal["best"] | None = None,
    modules: Collection[str] = (),
) -> Player:
    """The learner that a run left in its folder; the run may go on meanwhile.

    Args:
        folder: what `loop.train` was given as `out`, with experiment.json and checkpoints in it.
        seed: which; the run's first if None.
        game: which of a batch of games.
        step: environment steps of the checkpoint, if the run keeps several, or "best" for the one with the
            best mean return; the last one if None.
        modules: outside of the suite, from which the run's algorithm or game may be taken.

    Raises:
        BadInputError: if there is no run or no such checkpoint, if either is damaged, or if it has no such
            seed or game.
    """
    folder = Path(folder)
    if not (step is None or step == "best" or isinstance(step, int)):
        raise BadInputError(f"step must be a number of environment steps or 'best', not {step!r}")
    experiment = load_experiment(folder / "experiment.json", modules)
    games = max(1, experiment.games)
    if not 0 <= game < games:
        raise BadInputError(f"{folder} has no game {game}: choose one of {_numbers(tuple(range(games)))}")
    algorithm, environment = experiment.algorithm, jax.tree.map(jax.numpy.asarray, experiment.environment)
    if experiment.games:
        environment = jax.tree.map(lambda leaf: leaf[game], environment)
    learner = jax.eval_shape(algorithm.bind(GameSpec.of(environment)).init, jax.random.key(0))
    saved, params = read_params(folder, learner.params, step, modules)
    seeds = saved.experiment.seeds
    seed = seeds[0] if seed is None else seed
    if seed not in seeds:
        raise BadInputError(f"{folder} has no seed {seed}: choose one of {_numbers(seeds)}")
    lane = game * len(seeds) + seeds.index(seed)
    params = jax.tree.map(lambda leaf: leaf[lane], params)
    return Player(algorithm, environment, params, saved.iteration * experiment.num_envs)


def _key(number: int) -> jax.Array:
    return jax.random.key(np.uint32(check_value("key", Seed, number)))


def _numbers(numbers: tuple[int, ...]) -> str:
    """In words, and short."""
    if len(numbers) > 2 and numbers == tuple(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]} to {numbers[-1]}"
    return ", ".join(map(str, numbers[:20])) + (", ..." if len(numbers) > 20 else "")
