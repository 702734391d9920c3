"""The worker that trains JaxMARL's learners for `benchmark.py peers`, by the functions of a script of theirs.

Needs JaxMARL and what the script imports; of this suite it imports nothing that has dependencies.
"""

import copy
import importlib.metadata
import importlib.util
import math
import re
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np

from experiments.benchmark_workers import cores, serve

#: Runs of the shorter training by which the longer one's length is chosen: the first one fills caches.
TRIALS = 2
#: What a training takes of memory, by what XLA counts (seen: 2.3 GB by 1.3 GB, recurrent QMIX on SMAX).
MEMORY_FACTOR = 2


class Learner:
    """What a script of JaxMARL trains, with `make_train(settings, environment)` of theirs."""

    def __init__(self) -> None:
        self._script: Any = None
        self._runs: dict[int, Any] = {}  # compiled trainings by their updates, the shorter first
        self._keys: jax.Array  # of the seeds that these train together

    def load(self, script: str) -> dict[str, Any]:
        """Import the script."""
        spec: Any = importlib.util.spec_from_file_location("jaxmarl_script", script)
        self._script = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self._script)
        return {
            "cores": cores(),
            "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
            "versions": {
                name: _version(name) for name in ("jax", "jaxlib", "flax", "optax", "flashbax", "jaxmarl")
            },
        }

    def compile(self, settings: dict[str, Any], seeds: int, warmup: int, seconds: float) -> dict[str, Any]:
        """Compile two trainings of different lengths, whose difference is what is timed.

        It has neither what every training begins with, such as an empty replay, nor the updates before
        learning starts.

        Args:
            settings: of the script.
            seeds: how many train together.
            warmup: updates before learning starts.
            seconds: target of the longer one.
        """
        settings = settings | {"TEST_DURING_TRAINING": False, "WANDB_MODE": "disabled"}
        self._runs, self._keys = {}, _keys(seeds)
        start = time.perf_counter()
        shorter = warmup + 1
        self._runs[shorter] = self._training(settings, seeds, shorter)
        compile_seconds = time.perf_counter() - start
        taken = min(self._seconds(shorter) for _ in range(TRIALS))
        longer = shorter + max(1, math.ceil((seconds - taken) / (taken / shorter)))
        self._runs[longer] = self._training(settings, seeds, longer)
        counts = [self._run(length) for length in (shorter, longer)]
        steps, updates, gradient_steps = (
            int(counts[1][name] - counts[0][name]) for name in ("timesteps", "n_updates", "grad_steps")
        )
        return {
            "compile_seconds": compile_seconds,
            "num_envs": settings["NUM_ENVS"],
            "env_steps_per_update": _per(steps, updates),
            "gradient_steps_per_update": _per(gradient_steps, updates),
            "batch_size": _batch_size(settings),
            "replay_size": int(float(settings.get("BUFFER_SIZE", 0))),
            "parameters": counts[0]["parameters"],
        }

    def time(self) -> dict[str, Any]:
        """Seconds of both trainings, and by how many updates they differ."""
        shorter, longer = self._runs
        return {
            "before": self._seconds(shorter),
            "whole": self._seconds(longer),
            "updates": longer - shorter,
        }

    def returns(
        self, settings: dict[str, Any], seeds: int, env_steps: int, evaluations: int, episodes: int
    ) -> dict[str, Any]:
        """Train one seed after the other, and tell the mean greedy returns, evaluations by seeds."""
        per_update = settings["NUM_ENVS"] * settings["NUM_STEPS"]
        updates = env_steps // per_update
        period = max(1, updates // evaluations)
        found: dict[int, float] = {}

        def log(metrics: dict[str, Any], step: Any = None) -> None:
            if int(metrics["update_steps"]) % period == 0:
                found[int(metrics["update_steps"])] = float(metrics["test_returned_episode_returns"])

        # Training gives back no metrics: it only logs them.
        vars(self._script)["wandb"] = SimpleNamespace(log=log)
        evaluated = {
            "TEST_DURING_TRAINING": True,
            "TEST_INTERVAL": (period + 0.5) / updates,  # their count of updates between tests: `period`
            "TEST_NUM_ENVS": episodes,
            "WANDB_MODE": "offline",
        }
        training = self._training(settings | evaluated, 1, updates)
        curves = []
        for key in _keys(seeds):
            found.clear()
            jax.block_until_ready(training(key[None]))
            jax.effects_barrier()
            curves.append([found[step] for step in sorted(found)])
        return {"returns": np.transpose(curves).tolist()}

    def _training(self, settings: dict[str, Any], seeds: int, updates: int) -> Callable[[jax.Array], Any]:
        """The compiled training of several seeds together.

        Raises:
            MemoryError: if it would not fit, before the system ends processes for want of memory.
        """
        steps = updates * settings["NUM_ENVS"] * settings["NUM_STEPS"]
        settings = {**copy.deepcopy(settings), "TOTAL_TIMESTEPS": steps}  # they write into it
        environment, _ = self._script.env_from_config(settings)
        train = jax.jit(jax.vmap(self._script.make_train(settings, environment)))
        compiled = train.lower(_keys(seeds)).compile()
        memory: Any = compiled.memory_analysis()
        needed = MEMORY_FACTOR * (memory.temp_size_in_bytes + memory.output_size_in_bytes)
        free = free_bytes()
        if free is not None and needed > free:
            raise MemoryError(f"it needs {needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} are free")
        return compiled

    def _run(self, updates: int) -> dict[str, int]:
        """What one seed's training of so many updates has counted at its end, and its parameters."""
        trained = jax.block_until_ready(self._runs[updates](self._keys))["runner_state"][0]
        counted = {name: getattr(trained, name) for name in ("timesteps", "n_updates", "grad_steps")}
        return {
            **{name: int(np.ravel(value)[0]) for name, value in counted.items()},
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(trained.params)) // len(self._keys),
        }

    def _seconds(self, updates: int) -> float:
        start = time.perf_counter()
        jax.block_until_ready(self._runs[updates](self._keys))
        return time.perf_counter() - start


def free_bytes() -> int | None:
    """Memory that can be had without swapping; None where the system does not tell."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(r"^MemAvailable: +(\d+) kB$", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def _keys(seeds: int) -> jax.Array:
    """A key for each seed, as in JaxMARL's scripts: `(seeds, 2)`."""
    return jax.random.split(jax.random.PRNGKey(0), seeds)


def _per(count: int, updates: int) -> float:
    """A count for each update: a whole number, as it should be, is an integer."""
    whole, rest = divmod(count, updates)
    return count / updates if rest else whole


def _batch_size(settings: dict[str, Any]) -> int:
    if "BUFFER_BATCH_SIZE" in settings:
        return int(settings["BUFFER_BATCH_SIZE"])
    return int(settings["NUM_ENVS"] * settings["NUM_STEPS"] // settings["NUM_MINIBATCHES"])


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    serve(Learner())
