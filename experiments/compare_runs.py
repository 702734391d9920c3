"""The runs of a comparison: trained, or read back if finished, and merged with runs made elsewhere."""

import dataclasses
import json
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from envs.base import TeamEnvironment
from envs.errors import BadInputError
from experiments.compare_plan import Pair
from experiments.plot import Run, game_of, read_run
from jaxmarl_fac.experiment import Experiment
from jaxmarl_fac.files import write_text
from jaxmarl_fac.loop import train
from jaxmarl_fac.random_play import random_return
from jaxmarl_fac.report.comparison import FinishedRun, Yardstick, yardstick
from jaxmarl_fac.saved import to_json
from jaxmarl_fac.tracking import History

#: Beside a run's other files: the ids it was asked for by, and the seconds that it took.
RECORD = "compare.json"
#: What distinguishes runs of one algorithm on one game that can be merged, besides their seeds.
METRIC = "episode_return"


@dataclasses.dataclass(frozen=True)
class Found:
    """A finished run, the folder it is in, and what it is a run of."""

    run: FinishedRun
    folder: Path
    experiment: Experiment


class Stopwatch:
    """A tracker that keeps the seconds of training at every evaluation in a run's `RECORD`."""

    def __init__(self, pair: Pair, folder: Path):
        self._path = folder / RECORD
        self._pair = pair
        self._elapsed: dict[int, float] = {}

    def start(self, history: History) -> None:
        """Read what an earlier session kept."""
        before = _record(self._path.parent).get("elapsed", {})
        self._elapsed = {
            int(at): seconds for at, seconds in before.items() if int(at) <= history.last_env_steps
        }

    def log(self, history: History, seconds: float) -> None:
        """Keep the seconds at an evaluation."""
        self._elapsed[history.last_env_steps] = seconds
        self.write(None)

    def write(self, seconds: float | None) -> None:
        """Write the record; `seconds` of the whole run once it is finished."""
        record = {
            "algorithm": self._pair.algorithm,
            "env": self._pair.env,
            "seconds": seconds,
            "elapsed": self._elapsed,
        }
        write_text(self._path, json.dumps(record))


def folder_of(out: Path, pair: Pair) -> Path:
    """Where a pair's run is kept."""
    return out / "runs" / re.sub(r"[^\w.-]+", "-", f"{pair.env}_{pair.algorithm}")


def check_folders(out: Path, pairs: Iterable[Pair]) -> None:
    """Refuse an output folder with runs of other settings, before anything is trained.

    Raises:
        BadInputError: if there is one.
    """
    for pair in pairs:
        folder, wanted = folder_of(out, pair), json.loads(json.dumps(to_json(pair.experiment)))
        saved = _json(folder / "experiment.json")
        if saved is None:
            continue
        differing = sorted(
            name for name in {*saved, *wanted} - {"seeds", "env_steps"} if saved.get(name) != wanted.get(name)
        )
        if differing:
            raise BadInputError(
                f"{folder} holds another experiment (it differs in {', '.join(differing)}): choose another "
                "--out, or remove that folder"
            )
        if not set(saved["seeds"]) <= set(wanted["seeds"]) or saved["env_steps"] > wanted["env_steps"]:
            raise BadInputError(
                f"{folder} holds a run with {len(saved['seeds'])} seed(s) and {saved['env_steps']:,} "
                f"environment steps: both may be raised, not lowered to {len(wanted['seeds'])} and "
                f"{wanted['env_steps']:,}; choose another --out"
            )


def finished(out: Path, pair: Pair) -> Found | None:
    """The pair's run, if it is finished; None if there is something left to train."""
    folder = folder_of(out, pair)
    if _json(folder / "experiment.json") != json.loads(json.dumps(to_json(pair.experiment))):
        return None
    try:
        run = read_run(folder, METRIC, _modules(pair))
    except BadInputError:  # no checkpoint yet, or one that training mends
        return None
    record = _record(folder)
    if run.env_steps[-1] < run.total_steps or record.get("seconds") is None:
        return None
    return Found(_finished_run(run, pair.algorithm, pair.env, record), folder, pair.experiment)


def train_pair(out: Path, pair: Pair, title: str) -> Found:
    """Train a pair to its end, from where it stopped.

    Raises:
        BadInputError: as `loop.train`.
        DivergedError: likewise.
        InterruptedRunError: likewise.
    """
    folder = folder_of(out, pair)
    stopwatch = Stopwatch(pair, folder)
    result = train(pair.experiment, folder, tracker=stopwatch, title=title, show_progress=True)
    stopwatch.write(result.seconds)
    history = result.history.arrays()
    run = Run(folder, pair.experiment, history["env_steps"], history[METRIC].astype(np.float64))
    return Found(_finished_run(run, pair.algorithm, pair.env, _record(folder)), folder, pair.experiment)


def read_folders(folders: Sequence[Path], modules: Collection[str] = ()) -> list[Found]:
    """All runs in folders that train.py or compare.py wrote, or in folders of such folders.

    Raises:
        BadInputError: if a folder has no run, or one that is not finished or not of one team game.
    """
    found = []
    for folder in folders:
        records = sorted(
            Path(place, "experiment.json")
            for place, _, files in os.walk(folder)  # which passes over what cannot be read
            if "experiment.json" in files
            and not any(part.startswith(".") for part in Path(place).relative_to(folder).parts)
        )
        if not records:
            raise BadInputError(f"there is no run in {folder}: give the --out of train.py or of compare.py")
        found += [_read(record.parent, modules) for record in records]
    return found


def check_comparable(found: Sequence[Found], pairs: Sequence[Pair] = ()) -> None:
    """Refuse runs that are of different things under one name.

    Args:
        found: runs.
        pairs: that are going to be trained.

    Raises:
        BadInputError: if runs of one task are of different games, or runs of one pair have other settings.
    """
    named = [(each.run.algorithm, each.run.task, each.experiment, str(each.folder)) for each in found]
    named += [(pair.algorithm, pair.env, pair.experiment, "this comparison") for pair in pairs]
    games: dict[str, tuple[Any, str]] = {}
    settings: dict[tuple[str, str], tuple[Any, str]] = {}
    for algorithm, task, experiment, where in named:
        whole = to_json(dataclasses.replace(experiment, seeds=(0,)))
        game, other = games.setdefault(task, (whole["environment"], where))
        if game != whole["environment"]:
            raise BadInputError(f"{other} and {where} have different games, both called {task}: compare one")
        before, other = settings.setdefault((algorithm, task), (whole, where))
        differing = sorted(name for name in whole if whole[name] != before.get(name))
        if differing:
            raise BadInputError(
                f"{other} and {where} have {algorithm} on {task} with different settings (they differ in "
                f"{', '.join(differing)}): compare one of them"
            )


def merged(found: Sequence[Found]) -> dict[tuple[str, str], FinishedRun]:
    """The runs by algorithm and task; seeds of one pair that lie in several folders are put together.

    Raises:
        BadInputError: as `check_comparable`, or if runs of one pair were evaluated at different steps.
    """
    check_comparable(found)
    by_pair: dict[tuple[str, str], FinishedRun] = {}
    for each in found:
        pair = each.run.algorithm, each.run.task
        if pair not in by_pair:
            by_pair[pair] = each.run
        elif np.array_equal(by_pair[pair].env_steps, each.run.env_steps):
            by_pair[pair] = _joined(by_pair[pair], each.run)
        else:
            raise BadInputError(
                f"{each.folder} has {pair[0]} on {pair[1]} evaluated at other environment steps than another "
                "folder: leave it out"
            )
    return by_pair


def yardsticks(
    runs: Mapping[tuple[str, str], FinishedRun], games: Mapping[str, TeamEnvironment]
) -> dict[str, Yardstick]:
    """By what the returns of each task are measured."""
    found = {}
    for task in dict.fromkeys(task for _, task in runs):
        optimum = games[task].optimal_return()
        random = None if optimum is None else random_return(games[task])
        found[task] = yardstick([run for (_, other), run in runs.items() if other == task], random, optimum)
    return found


def _read(folder: Path, modules: Collection[str]) -> Found:
    run = read_run(folder, METRIC, modules)
    if run.experiment.games:
        raise BadInputError(f"{folder} holds runs on a batch of games: only runs on one game are compared")
    if run.experiment.variants:
        raise BadInputError(
            f"{folder} holds variants of an algorithm: only runs with one setting are compared"
        )
    if run.values.ndim != 2:
        raise BadInputError(f"{folder} holds a run with a reward per agent: only team games are compared")
    if run.env_steps[-1] < run.total_steps:
        raise BadInputError(
            f"{folder} holds a run at {run.env_steps[-1]:,} of {run.total_steps:,} environment steps: finish "
            "it first"
        )
    record = _record(folder)
    algorithm = record.get("algorithm") or run.algorithm
    return Found(
        _finished_run(run, algorithm, record.get("env") or game_of(run.experiment), record),
        folder,
        run.experiment,
    )


def _finished_run(run: Run, algorithm: str, task: str, record: Mapping[str, Any]) -> FinishedRun:
    elapsed = [record.get("elapsed", {}).get(str(int(at))) for at in run.env_steps]
    return FinishedRun(
        algorithm,
        task,
        run.experiment.seeds,
        run.env_steps,
        run.values,
        record.get("seconds"),
        None if None in elapsed else np.asarray(elapsed, np.float64),
    )


def _joined(one: FinishedRun, other: FinishedRun) -> FinishedRun:
    """Both runs' seeds together; a seed that both have counts once.

    The time of the first one stands: seconds of different machines do not add up.
    """
    new = [lane for lane, seed in enumerate(other.seeds) if seed not in one.seeds]
    return dataclasses.replace(
        one,
        seeds=one.seeds + tuple(other.seeds[lane] for lane in new),
        returns=np.concatenate([one.returns, other.returns[:, new]], axis=1),
    )


def _modules(pair: Pair) -> set[str]:
    """Modules of the user's own that the pair is from."""
    return {name.partition(":")[0] for name in (pair.algorithm, pair.env) if ":" in name}


def _record(folder: Path) -> dict[str, Any]:
    record = _json(folder / RECORD)
    return record if isinstance(record, dict) else {}


def _json(path: Path) -> Any:
    """The content of a JSON file; None if there is none, or it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
