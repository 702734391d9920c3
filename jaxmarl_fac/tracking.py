"""What a run measured: in memory, in a file, and in Weights & Biases."""

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from envs.errors import BadInputError
from jaxmarl_fac.files import replacing
from jaxmarl_fac.statistics import bootstrap_interval

#: Seeds that W&B shows one by one. Every seed is in metrics.npz.
MOST_SINGLE_SEEDS = 64


class History:
    """Metrics by name, one row for each evaluation."""

    def __init__(self, arrays: Mapping[str, np.ndarray] | None = None):
        arrays = dict(arrays or {})
        self._env_steps = [int(steps) for steps in arrays.pop("env_steps", [])]
        self._rows = [{name: rows[i] for name, rows in arrays.items()} for i in range(len(self._env_steps))]

    def append(self, env_steps: int, row: dict[str, np.ndarray]) -> None:
        """Add an evaluation, each metric `(lanes, ...)`."""
        self._env_steps.append(env_steps)
        self._rows.append(row)

    @property
    def last_env_steps(self) -> int:
        """Environment steps at the last evaluation; -1 before the first."""
        return self._env_steps[-1] if self._env_steps else -1

    @property
    def last(self) -> dict[str, np.ndarray]:
        """The last evaluation, each metric `(lanes, ...)`."""
        return self._rows[-1]

    def arrays(self) -> dict[str, np.ndarray]:
        """Every metric `(evaluations, lanes, ...)`, and `env_steps (evaluations,)`."""
        names = self._rows[0] if self._rows else {}
        return {
            "env_steps": np.asarray(self._env_steps, np.int64),
            **{name: np.stack([row[name] for row in self._rows]) for name in names},
        }

    def save(self, path: Path) -> None:
        """Write `arrays` as .npz, whole or not at all."""
        with replacing(path) as file:
            np.savez_compressed(file, **self.arrays())  # type: ignore[arg-type]


class Tracker(Protocol):
    """Hears of every evaluation."""

    def log(self, history: History, seconds: float) -> None:
        """The last row of `history` is new; `seconds` of work went before it."""


class WandbTracker:
    """Sends every evaluation to Weights & Biases.

    For each scalar metric it logs `<metric>/iqm`, `<metric>/low` and `<metric>/high` (95 % bootstrap
    interval over seeds), and `seeds/<metric>/<seed>` for up to 64 seeds.

    Args:
        mode: "online" or "offline"; an offline run is kept under `out` for `wandb sync`.
        config: saved with the run.
        seeds: seed numbers, in the order of the lanes.
        project, group, tags: where W&B files the run.
        out: folder for W&B's files.

    Raises:
        BadInputError: if wandb cannot start a run.
    """

    def __init__(
        self,
        mode: str,
        config: dict[str, Any],
        seeds: Sequence[int],
        *,
        project: str,
        group: str | None,
        tags: Sequence[str],
        name: str,
        out: Path,
    ):
        # By name, so that a run without tracking never imports wandb: it takes seconds.
        self._wandb = importlib.import_module("wandb")
        self._seeds = seeds
        try:
            self._run = self._wandb.init(
                mode=mode,
                config=config,
                project=project,
                group=group,
                tags=list(tags),
                name=name,
                dir=str(out),
                settings=self._wandb.Settings(silent=True),
            )
        except Exception as error:
            raise BadInputError(f"wandb could not start ({error}): try --wandb offline") from error

    def log(self, history: History, seconds: float) -> None:
        """Log the newest evaluation."""
        values: dict[str, float] = {"seconds": seconds}
        for name, per_seed in history.last.items():
            if per_seed.ndim != 1 or not np.isfinite(per_seed).all():
                continue
            interval = bootstrap_interval(per_seed, resamples=500)
            values |= {
                f"{name}/iqm": interval.value,
                f"{name}/low": interval.low,
                f"{name}/high": interval.high,
            }
            shown = zip(self._seeds[:MOST_SINGLE_SEEDS], per_seed, strict=False)
            values |= {f"seeds/{name}/{seed}": float(value) for seed, value in shown}
        self._run.log({"env_steps": history.last_env_steps, **values}, step=history.last_env_steps)

    def finish(self, exit_code: int = 0) -> None:
        """Close the run."""
        self._run.finish(exit_code=exit_code)
