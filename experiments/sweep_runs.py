"""The runs of a sweep: what they are, which of them train in one program, and what came of each."""

import dataclasses
import hashlib
import json
import math
import re
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.sweep_engines import Ended, Job
from jaxmarl_fac.files import write_text
from jaxmarl_fac.statistics import bootstrap_interval, iqm

#: The table, in a sweep's output folder.
TABLE = "sweep.json"
#: All that sweeps have finished in this folder.
ALL_FINISHED = "finished.json"
#: States of a run in the table.
FINISHED, FAILED, NOT_PLAYABLE = "finished", "failed", "not playable"
#: A run's row in the table.
Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a sweep.

    Attributes:
        index: its number.
        settings: by name.
        varying: the values of those that can have several within one program.
        experiment: a digest of what it is a run of: a file that it reads may change.
    """

    index: int
    settings: Mapping[str, Any]
    varying: Mapping[str, float] = dataclasses.field(default_factory=dict)
    experiment: str = ""

    @property
    def values(self) -> tuple[float, ...]:
        """Values of the settings that can vary, in the order of their names."""
        return tuple(self.varying[name] for name in sorted(self.varying))

    @property
    def fixed(self) -> tuple[str, ...]:
        """Flags of the other settings."""
        return tuple(
            flags_of({name: value for name, value in self.settings.items() if name not in self.varying})
        )

    @property
    def command(self) -> str:
        """The run by itself, for a shell."""
        return shlex.join(["python", "experiments/train.py", *flags_of(self.settings)])

    def row(self, status: str, reason: str = "", **more: Any) -> Row:
        """Its row in the table."""
        told = {"reason": reason} if reason else {}
        return {
            "run": self.index,
            "return": None,
            "low": None,
            "high": None,
            "status": status,
            **told,
            **more,
            "settings": _as_json(self.settings),
            "command": self.command,
            "experiment": self.experiment,
        }


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs of one program.

    Attributes:
        variants: for each variant the runs that it is, at least one; several if they have the same settings.
        job: that trains them.
    """

    variants: tuple[tuple[Run, ...], ...]
    job: Job

    @property
    def runs(self) -> tuple[Run, ...]:
        """All of them."""
        return tuple(run for variant in self.variants for run in variant)

    def rows(self, ended: Ended) -> list[Row]:
        """The rows of its runs, once the job has ended."""
        returns = _last_returns(self.job.folder)  # (variants * seeds, ...)
        if returns is None:
            return [run.row(FAILED, ended.said) for run in self.runs]
        rows = []
        for variant, (runs, own) in enumerate(
            zip(self.variants, np.split(returns, len(self.variants)), strict=True)
        ):
            scores = _scores(own)
            outcome = scores or {"status": FAILED, "reason": "it diverged to NaN or infinity"}
            place = {"folder": self.job.folder.name, "variant": variant if len(self.variants) > 1 else None}
            rows += [run.row(**{"status": FINISHED, **outcome, **place}) for run in runs]
        return rows


def grouped(runs: Sequence[Run], out: Path, more: Sequence[str], together: int) -> list[Group]:
    """The runs by the program that they can train in, of which each has at most `together` variants.

    Args:
        runs: in the order of the sweep.
        out: of the sweep.
        more: flags of all of them, which their own settings override.
        together: at least 1.
    """
    programs: dict[Any, dict[tuple[float, ...], list[Run]]] = {}
    for run in runs:
        programs.setdefault((run.fixed, tuple(sorted(run.varying))), {}).setdefault(run.values, []).append(
            run
        )
    return [
        _group(variants[start : start + together], out, more)
        for variants in (list(map(tuple, program.values())) for program in programs.values())
        for start in range(0, len(variants), together)
    ]


def _group(variants: Sequence[tuple[Run, ...]], out: Path, more: Sequence[str]) -> Group:
    first = variants[0][0]
    flags, about = flags_of(first.settings), ""
    if len(variants) > 1:
        columns = zip(*(same[0].values for same in variants), strict=True)
        several = {name: list(values) for name, values in zip(sorted(first.varying), columns, strict=True)}
        # What does not differ stays a setting of the algorithm.
        several = {name: values for name, values in several.items() if len(set(values)) > 1}
        flags = [*flags_of({**first.settings, **several}), "--combine=zip"]
        about = f"{len(variants)} runs in one program: "
    what = [*flags, *(same[0].experiment for same in variants)]
    job = Job((*more, *flags), out / _folder_name(first, what), about + shlex.join(flags))
    return Group(tuple(variants), job)


def _folder_name(run: Run, what: Sequence[str]) -> str:
    """The same for the same flags and experiments, in whatever sweep."""
    names = [str(run.settings.get(name) or "payoff") for name in ("algo", "env")]
    code = hashlib.sha256("\0".join(what).encode(errors="surrogatepass")).hexdigest()[:8]
    return re.sub(r"[^\w.-]+", "-", "_".join([*names, code]))[-100:]


def flags_of(settings: Mapping[str, Any]) -> list[str]:
    """A run's settings as flags of train.py, written as `wandb agent` writes them."""
    return [f"--{name}={value}" for name, value in settings.items()]


def read_finished(out: Path, runs: Iterable[Run]) -> dict[int, Row]:
    """Rows of those runs, by index, that an earlier call finished in the same output folder."""
    finished = _read_all(out)
    found = {run.index: finished.get(_key(run.command, run.experiment)) for run in runs}
    return {
        index: {**row, "run": index}
        for index, row in found.items()
        if row and (out / row["folder"] / "metrics.npz").exists()
    }


def _key(command: str, experiment: str) -> str:
    return f"{experiment} {command}"


def _read_all(out: Path) -> dict[str, Row]:
    """All finished runs of an output folder, also those of other sweeps, by command and experiment."""
    try:
        rows: dict[str, Row] = json.loads((out / ALL_FINISHED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return rows


def write_table(out: Path, rows: Collection[Row]) -> list[Row]:
    """Write the table, the best run first, and keep what is finished for other sweeps; returns the table."""
    finished = {_key(row["command"], row["experiment"]): row for row in rows if row["status"] == FINISHED}
    write_text(out / ALL_FINISHED, json.dumps(_read_all(out) | finished, indent=1, allow_nan=False))

    def rank(row: Row) -> tuple[bool, float, float, int]:
        """By return, then by the lower end of its interval; without a return last."""
        return row["return"] is None, -(row["return"] or 0), -(row["low"] or 0), row["run"]

    ranked = sorted(rows, key=rank)
    write_text(out / TABLE, json.dumps(ranked, indent=1, allow_nan=False))
    return ranked


def _last_returns(folder: Path) -> np.ndarray | None:
    """The last returns `(lanes,)`, or `(lanes, n)`, of a run that was trained to its end; else None."""
    try:
        experiment = json.loads((folder / "experiment.json").read_text(encoding="utf-8"))
        with np.load(folder / "metrics.npz") as metrics:
            if metrics["env_steps"][-1] < experiment["env_steps"]:
                return None
            returns: np.ndarray = metrics["episode_return"][-1]
            return returns
    except (OSError, ValueError, KeyError, IndexError):
        return None


def _scores(returns: np.ndarray) -> dict[str, Any]:
    """Interquartile mean and interval of returns `(seeds,)` or `(seeds, n)`; empty if one is not finite."""
    score = bootstrap_interval(returns.reshape(len(returns), -1).mean(axis=1))
    if not math.isfinite(score.value):
        return {}
    agents = enumerate(returns.T, start=1) if returns.ndim == 2 else ()
    return {
        "return": score.value,
        "low": score.low,
        "high": score.high,
        **{f"return/{agent}": float(iqm(own)) for agent, own in agents},
    }


def _as_json(value: Any) -> Any:
    """The value with infinities and NaN as text, because JSON has none."""
    if isinstance(value, Mapping):
        return {name: _as_json(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_as_json(each) for each in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
