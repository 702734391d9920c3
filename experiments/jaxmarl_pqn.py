"""JaxMARL's own PQN of VDN on MPE, from a checkout, for the benchmark to train beside `pqn-vdn`."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np

from envs.errors import BadInputError

#: Within a checkout.
FOLDER = Path("baselines", "QLearning")
SCRIPT, SETTINGS = FOLDER / "pqn_vdn_ff.py", FOLDER / "config" / "alg" / "pqn_vdn_ff_mpe.yaml"
#: Greedy episodes after each update, where returns are compared.
EPISODES = 128
#: Updates of one call where speed is measured.
UPDATES = 4


class JaxMARLPQN:
    """The learner with its published settings.

    Args:
        checkout: folder of a checkout of JaxMARL.

    Raises:
        BadInputError: if the script or its settings are not there, or cannot be loaded.
    """

    def __init__(self, checkout: Path):
        for path in (SCRIPT, SETTINGS):
            if not (checkout / path).is_file():
                raise BadInputError(
                    f"{checkout} is no checkout of JaxMARL: it has no {path}; "
                    "git clone https://github.com/FLAIROx/JaxMARL"
                )
        spec: Any = importlib.util.spec_from_file_location("jaxmarl_pqn_vdn_ff", checkout / SCRIPT)
        self._script = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(self._script)
        except ImportError as error:
            raise BadInputError(
                f"{checkout / SCRIPT} needs {error.name}: pip install -e '.[peers]' -c constraints.txt"
            ) from error
        settings = self._script.OmegaConf
        self._settings: dict[str, Any] = settings.to_container(settings.load(checkout / SETTINGS))
        self.num_envs, self.rollout_length = (self._settings[name] for name in ("NUM_ENVS", "NUM_STEPS"))

    def training(self, seeds: int, env_steps: int, evaluated: bool = False) -> Any:
        """The compiled training of that many seeds together, whose only argument is `keys(seeds)`.

        Args:
            seeds: how many.
            env_steps: of each seed.
            evaluated: whether `EPISODES` greedy episodes follow each update.
        """
        settings = self._settings | {
            "TOTAL_TIMESTEPS": env_steps,
            # Exploration falls over as many steps as in training of the published length.
            "EPS_DECAY": self._settings["EPS_DECAY"] * self._settings["TOTAL_TIMESTEPS"] / env_steps,
            "TEST_DURING_TRAINING": evaluated,
            "TEST_INTERVAL": 1.5 / self.updates(env_steps),  # their count of updates between tests: 1
            "TEST_NUM_ENVS": EPISODES,
            "WANDB_MODE": "offline" if evaluated else "disabled",
            "WANDB_LOG_ALL_SEEDS": True,
        }
        env, _ = self._script.env_from_config(settings)
        train: Callable[..., Any] = jax.jit(jax.vmap(self._script.make_train(settings, env)))
        return train.lower(keys(seeds)).compile()  # type: ignore[attr-defined]

    def updates(self, env_steps: int) -> int:
        """How many updates of a seed so many environment steps bring."""
        return env_steps // (self.num_envs * self.rollout_length)

    def some_updates(self, seeds: int) -> tuple[Callable[[int], None], int]:
        """A function that trains for a given number of iterations, and what that must be a multiple of.

        An iteration is a step of every environment. Each call starts anew.
        """
        iterations = UPDATES * self.rollout_length
        training = self.training(seeds, iterations * self.num_envs)

        def run(count: int) -> None:
            for _ in range(count // iterations):
                jax.block_until_ready(training(keys(seeds)))

        return run, iterations

    def returns(self, seeds: int, env_steps: int) -> np.ndarray:
        """The mean returns of greedy episodes after each update, `(updates, seeds)`."""
        found: dict[str, dict[int, float]] = {}  # by seed and update

        def log(metrics: dict[str, Any], step: Any) -> None:
            for name, value in metrics.items():
                seed, _, metric = name.partition("/")
                if metric == "test_returned_episode_returns":
                    found.setdefault(seed, {})[int(step)] = float(value)

        # Training gives back no metrics: it only logs them.
        vars(self._script)["wandb"] = SimpleNamespace(log=log)
        jax.block_until_ready(self.training(seeds, env_steps, evaluated=True)(keys(seeds)))
        jax.effects_barrier()
        curves = [found[f"rng{int(key[0])}"] for key in keys(seeds)]
        return np.asarray([[curve[step] for curve in curves] for step in sorted(curves[0])])


def keys(seeds: int) -> jax.Array:
    """A key for each seed, as in JaxMARL's scripts: `(seeds, 2)`."""
    return jax.random.split(jax.random.PRNGKey(0), seeds)
