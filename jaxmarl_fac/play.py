"""Trained learners outside the loop: load one from a run's folder, play it greedily, animate an episode."""

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
from jaxmarl_fac.files import as_path
from jaxmarl_fac.game import GameSpec
from jaxmarl_fac.saved import load_experiment

#: Most episodes that are played at once.
MAX_EPISODES = 2**20


@dataclasses.dataclass(frozen=True)
class Player:
    """A trained learner and the game that it was trained on.

    Attributes:
        algorithm: with all its hyper-parameters.
        environment: a single game, without a leading axis.
        params: parameters of this learner, without a lane axis.
        env_steps: environment steps of training.
    """

    algorithm: Algorithm
    environment: TeamEnvironment
    params: Params
    env_steps: int

    def returns(self, episodes: int = 32, key: int = 0) -> np.ndarray:
        """Undiscounted returns `(episodes,)` of greedy play, or `(episodes, n)` with a reward per agent.

        Args:
            episodes: number of episodes.
            key: seed of the random key; the same key gives the same episodes.

        Raises:
            BadInputError: if `episodes` or `key` is out of range.
        """
        if not 1 <= episodes <= MAX_EPISODES:
            bound = "least 1" if episodes < 1 else f"most {MAX_EPISODES}"
            raise BadInputError(f"episodes must be at {bound}, not {episodes}")

        learner = self.algorithm.bind(GameSpec.of(self.environment))

        def episode(key: jax.Array) -> jax.Array:
            return greedy_return(learner, self.environment, self.params, key)[0]

        return np.asarray(jax.jit(jax.vmap(episode))(jax.random.split(_key(key), episodes)))

    def states(self, key: int = 0) -> list[Any]:
        """The states of one greedy episode, from the first to the last.

        Raises:
            BadInputError: if `key` is out of range.
        """
        return self._episode(key)[0]

    def _episode(self, key: int) -> tuple[list[Any], list[Any]]:
        """The states of one greedy episode, and the agents' memory after each decision."""
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
        states, carries = [state], []
        while not over:
            state, carry, over = step(state, carry, np.int32(len(states)))
            states.append(state)
            carries.append(carry)
        return states, carries

    def animate(self, path: str | Path, key: int = 0) -> None:
        """Write an animation of one greedy episode.

        In a game with options, of agents that follow some, it shows these too.

        Args:
            path: of a .gif file.
            key: see `returns`.

        Raises:
            BadInputError: if `path` does not end in .gif or cannot be written, the game has no viewer, or
                `key` is out of range.
        """
        path, env = Path(path), self.environment
        if not hasattr(env, "animate"):
            raise BadInputError(
                f"{type(env).__name__} has no viewer and cannot be animated: leave the animation out"
            )
        if path.suffix.lower() != ".gif":
            raise BadInputError(f"animations are written as GIF: {path} must end in .gif")
        try:
            with path.open("ab"):  # fails early, before the episode is played
                pass
        except OSError as error:
            raise BadInputError(f"animation {path} cannot be written: {error.strerror}") from error
        states, carries = self._episode(key)
        shown = {}
        if env.num_options and hasattr(carries[0], "options"):
            followed = [carry.options for carry in carries]
            shown["options"] = [*followed, followed[-1]]  # nobody decides in the last state
        env.animate(states, save_path=str(path), **shown)


def load_player(
    folder: str | Path,
    seed: int | None = None,
    game: int = 0,
    step: int | Literal["best"] | None = None,
    modules: Collection[str] = (),
    variant: int = 0,
) -> Player:
    """Load one trained learner from a run's folder; the run may still be training.

    Args:
        folder: the `out` of `loop.train`, with experiment.json and checkpoints.
        seed: seed number; the run's first if None.
        game: index in a batch of games.
        step: environment steps of the checkpoint, if the run keeps several, or "best" for the one with the
            best mean return; the last one if None.
        modules: modules outside the suite that define the run's algorithm or game.
        variant: index of the variant, if the run has several.

    Raises:
        BadInputError: if `folder` is no path, there is no run or no such checkpoint, either is damaged, or
            the run has no such seed, game or variant.

    Example:
        >>> import tempfile
        >>> import baselines
        >>> from envs.matrix_games import matrix_game
        >>> from jaxmarl_fac.experiment import Experiment
        >>> from jaxmarl_fac.loop import train
        >>> experiment = Experiment(
        ...     algorithm=baselines.make("iql-tabular", epsilon_end=1.0),
        ...     environment=matrix_game([[1, 0], [0, 0]]), seeds=(0, 1), env_steps=500, evaluations=1
        ... )
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     result = train(experiment, folder)
        ...     player = load_player(folder, seed=1)
        >>> player.returns(episodes=3)
        array([1., 1., 1.], dtype=float32)
    """
    folder = as_path(folder, "folder")
    if not (step is None or step == "best" or isinstance(step, int)):
        raise BadInputError(f"step must be a number of environment steps or 'best', not {step!r}")
    experiment = load_experiment(folder / "experiment.json", modules)
    games, variants = max(1, experiment.games), len(experiment.variant_settings)
    for what, index, count in (("game", game, games), ("variant", variant, variants)):
        if not 0 <= index < count:
            choices = _numbers(tuple(range(count)))
            raise BadInputError(f"{folder} has no {what} {index}: choose one of {choices}")
    algorithm, environment = (
        experiment.variant_algorithm(variant),
        jax.tree.map(jax.numpy.asarray, experiment.environment),
    )
    if experiment.games:
        environment = jax.tree.map(lambda leaf: leaf[game], environment)
    learner = jax.eval_shape(algorithm.bind(GameSpec.of(environment)).init, jax.random.key(0))
    saved, params = read_params(folder, learner.params, step, modules)
    seeds = saved.experiment.seeds
    seed = seeds[0] if seed is None else seed
    if seed not in seeds:
        raise BadInputError(f"{folder} has no seed {seed}: choose one of {_numbers(seeds)}")
    lane = (variant * games + game) * len(seeds) + seeds.index(seed)
    params = jax.tree.map(lambda leaf: leaf[lane], params)
    return Player(algorithm, environment, params, saved.iteration * experiment.num_envs)


def _key(number: int) -> jax.Array:
    return jax.random.key(np.uint32(check_value("key", Seed, number)))


def _numbers(numbers: tuple[int, ...]) -> str:
    """A short list: "0 to 7", or "3, 5, 8"."""
    if len(numbers) > 2 and numbers == tuple(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]} to {numbers[-1]}"
    return ", ".join(map(str, numbers[:20])) + (", ..." if len(numbers) > 20 else "")
