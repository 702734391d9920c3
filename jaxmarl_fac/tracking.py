"""The metrics of a run: in memory, in metrics.npz, and in Weights & Biases."""

import importlib
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from envs.errors import BadInputError
from jaxmarl_fac.files import replacing, write_text
from jaxmarl_fac.statistics import bootstrap_interval

#: Seeds that are logged to W&B one by one. All seeds are in metrics.npz.
MAX_SINGLE_SEEDS = 64

#: W&B's limits on the characters of a tag, and of a name or group.
MAX_TAG_LENGTH, MAX_NAME_LENGTH = 64, 128

#: File in a run's folder with the id of its W&B run, which a resumed run continues.
RUN_ID_FILE = "wandb_id"


class History:
    """Metrics by name, one row per evaluation."""

    def __init__(self, arrays: Mapping[str, np.ndarray] | None = None):
        arrays = dict(arrays or {})
        self._env_steps = [int(steps) for steps in arrays.pop("env_steps", [])]
        self._rows = [{name: rows[i] for name, rows in arrays.items()} for i in range(len(self._env_steps))]

    def append(self, env_steps: int, row: dict[str, np.ndarray]) -> None:
        """Append an evaluation, each metric `(lanes, ...)`."""
        self._env_steps.append(env_steps)
        self._rows.append(row)

    @property
    def last_env_steps(self) -> int:
        """Environment steps at the last evaluation; -1 if there is none yet."""
        return self._env_steps[-1] if self._env_steps else -1

    @property
    def last(self) -> dict[str, np.ndarray]:
        """The last evaluation, each metric `(lanes, ...)`."""
        return self._rows[-1]

    def undefined(self) -> np.ndarray:
        """Which lanes have NaN as their last return, `(lanes,)`; before an evaluation False, `()`."""
        returns = self.last["episode_return"] if self._rows else np.zeros(())
        return np.asarray(np.isnan(returns).any(axis=tuple(range(1, returns.ndim))))

    def since(self, env_steps: int) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """Environment steps and metrics of the evaluations at `env_steps` or later."""
        for steps, row in zip(self._env_steps, self._rows, strict=True):
            if steps >= env_steps:
                yield steps, row

    def arrays(self) -> dict[str, np.ndarray]:
        """Every metric `(evaluations, lanes, ...)`, and `env_steps (evaluations,)`."""
        # Sorted, because a checkpoint gives them back so: a resumed run writes the same file.
        names = sorted(self._rows[0]) if self._rows else []
        return {
            "env_steps": np.asarray(self._env_steps, np.int64),
            **{name: np.stack([row[name] for row in self._rows]) for name in names},
        }

    def part(self, index: int, count: int) -> "History":
        """The history of one of `count` equal parts of the lanes."""

        def cut(table: np.ndarray) -> np.ndarray:
            size = len(table) // count
            return table[index * size : (index + 1) * size]

        part = History()
        for env_steps, row in zip(self._env_steps, self._rows, strict=True):
            part.append(env_steps, {name: cut(table) for name, table in row.items()})
        return part

    def save(self, path: Path) -> None:
        """Write `arrays` atomically as .npz."""
        with replacing(path) as file:
            np.savez_compressed(file, **self.arrays())  # type: ignore[arg-type]


class Tracker(Protocol):
    """Receives every evaluation of a run."""

    def start(self, history: History) -> None:
        """Called when training starts, or resumes after the evaluations in `history`."""

    def log(self, history: History, seconds: float) -> None:
        """Called after each evaluation: `history`'s last row is new, at `seconds` of training."""


class WandbTracker:
    """Logs every evaluation to Weights & Biases.

    For each scalar metric it logs `<metric>/iqm`, `<metric>/low` and `<metric>/high` (95 % bootstrap
    interval over seeds), and `seeds/<metric>/<seed>` for up to 64 seeds. Metrics with one number per agent,
    such as returns in a game with a reward per agent, are logged as `<metric>/1` and so on.

    A resumed run continues the same W&B run, whose id is kept in `out`. Only evaluations that W&B lacks are
    sent: a run killed after logging but before its next checkpoint repeats some.

    Args:
        mode: "online" or "offline"; an offline run is kept under `out` for `wandb sync`.
        config: saved with the run.
        seeds: seed numbers, in the order of the lanes.
        project: W&B project.
        group, name: shortened in the middle to 128 characters.
        tags: shortened in the middle to 64 characters; empty ones are dropped.
        out: folder of the run, for W&B's files.
    """

    def __init__(
        self,
        mode: str,
        config: dict[str, Any],
        seeds: Sequence[int],
        *,
        project: str,
        group: str,
        tags: Sequence[str],
        name: str,
        out: Path,
    ):
        self._seeds, self._out = seeds, out
        self._options = {
            "mode": mode,
            "resume": "allow",
            "config": config,
            "project": project,
            "group": shortened(group, MAX_NAME_LENGTH),
            "tags": list(
                dict.fromkeys(shortened(tag.strip(), MAX_TAG_LENGTH) for tag in tags if tag.strip())
            ),
            "name": shortened(name, MAX_NAME_LENGTH),
            "dir": str(out),
            "reinit": "create_new",  # variants have a run each, side by side
        }
        #: W&B's run (None before `start`), and the first environment step that it lacks.
        self._run: Any = None
        self._next = 0

    def start(self, history: History) -> None:
        """Start or resume the W&B run, and send the evaluations of the history that it lacks.

        Raises:
            BadInputError: if wandb cannot start a run.
        """
        # Imported here, because importing wandb takes seconds and untracked runs do not need it.
        wandb = importlib.import_module("wandb")
        if not str(self._out).isprintable():
            raise BadInputError(f"wandb needs a folder whose name is plain text, not {str(self._out)!r}")
        # `wandb agent` chooses the id itself.
        run_id = os.environ.get("WANDB_RUN_ID") or _kept_id(self._out) or secrets.token_hex(4)
        self._out.mkdir(parents=True, exist_ok=True)
        write_text(self._out / RUN_ID_FILE, run_id)
        try:
            self._run = wandb.init(**self._options, id=run_id, settings=wandb.Settings(silent=True))
        except Exception as error:
            hint = ": try --wandb offline" if self._options["mode"] == "online" else ""
            raise BadInputError(f"wandb could not start ({' '.join(str(error).split())}){hint}") from error
        self._next = self._run.starting_step
        self._send(history, {})

    def log(self, history: History, seconds: float) -> None:
        """Log the newest evaluation."""
        self._send(history, {"seconds": seconds})

    def finish(self, exit_code: int = 0) -> None:
        """Close the run."""
        self._run.finish(exit_code=exit_code)

    def _send(self, history: History, more: dict[str, float]) -> None:
        """Log the evaluations that W&B lacks, each with the values in `more`."""
        for env_steps, row in history.since(self._next):
            values: dict[str, float] = {"env_steps": env_steps, **more}
            for name, metric in row.items():
                if metric.ndim == 1:
                    values |= self._over_seeds(name, metric)
                elif metric.ndim == 2:
                    for agent, per_seed in enumerate(metric.T, start=1):
                        values |= self._over_seeds(f"{name}/{agent}", per_seed)
            self._run.log(values, step=env_steps)
            self._next = env_steps + 1

    def _over_seeds(self, name: str, per_seed: np.ndarray) -> dict[str, float]:
        """The values to log for a metric `(seeds,)`; none if one of them is not finite."""
        if not np.isfinite(per_seed).all():
            return {}
        interval = bootstrap_interval(per_seed, resamples=500)
        shown = zip(self._seeds[:MAX_SINGLE_SEEDS], per_seed, strict=False)
        return {
            f"{name}/iqm": interval.value,
            f"{name}/low": interval.low,
            f"{name}/high": interval.high,
            **{f"seeds/{name}/{seed}": float(value) for seed, value in shown},
        }


class PerVariant:
    """A tracker for each variant of an experiment, which are equal parts of the lanes.

    Args:
        trackers: in the order of the variants.
    """

    def __init__(self, trackers: Sequence[WandbTracker]):
        self._trackers = trackers
        self._diverged = [False] * len(trackers)

    def start(self, history: History) -> None:
        """See `Tracker`."""
        for index, part in enumerate(self._parts(history)):
            self._trackers[index].start(part)

    def log(self, history: History, seconds: float) -> None:
        """See `Tracker`."""
        for index, part in enumerate(self._parts(history)):
            self._trackers[index].log(part, seconds)

    def finish(self, exit_code: int = 0) -> None:
        """Close all runs, those of variants that diverged as failed."""
        for tracker, diverged in zip(self._trackers, self._diverged, strict=True):
            tracker.finish(exit_code or int(diverged))

    def _parts(self, history: History) -> list[History]:
        """Each variant's history."""
        count = len(self._trackers)
        parts = [history.part(index, count) for index in range(count)]
        self._diverged = [bool(part.undefined().any()) for part in parts]
        return parts


def _kept_id(folder: Path) -> str | None:
    path = folder / RUN_ID_FILE
    return path.read_text(encoding="utf-8", errors="replace").strip() if path.exists() else None


def shortened(text: str, most: int) -> str:
    """`text` cut to at most `most` characters in the middle: paths often differ at their ends."""
    if len(text) <= most:
        return text
    return f"{text[: most // 2 - 1]}…{text[-(most // 2) :]}"
