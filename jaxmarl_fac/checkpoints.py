"""Checkpoints: a run that is killed at any moment goes on from the last one, to the same bits."""

import contextlib
import dataclasses
import errno
import gc
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import NamedSharding
from orbax.checkpoint import checkpoint_managers as policies

from envs.errors import BadInputError
from jaxmarl_fac.experiment import Experiment
from jaxmarl_fac.files import prepare_folder
from jaxmarl_fac.parallel import EVERYWHERE
from jaxmarl_fac.saved import load_experiment, outside_modules, save_experiment, to_json
from jaxmarl_fac.tracking import History

#: Times that the newest checkpoint is tried anew, when a run replaces it while it is read.
ATTEMPTS = 100


class Saved(NamedTuple):
    """A checkpoint without its lanes.

    Attributes:
        step: its name: the iteration, or a later number where seeds were added to a run.
        experiment: that it belongs to; of one run's checkpoints seeds and env_steps may differ.
        iteration: of the loop.
        history: up to then.
        seconds: spent, over all sessions.
        stored_lanes: as many as it holds, those that only fill up devices included.
        exact: whether replay has the rows that this many env_steps ask for; earlier code did not say.
    """

    step: int
    experiment: Experiment
    iteration: int
    history: History
    seconds: float
    stored_lanes: int
    exact: bool

    @property
    def finished(self) -> bool:
        """Whether it is the end of its experiment."""
        return self.iteration == self.experiment.iterations


class Checkpoints:
    """The checkpoints of one experiment in one folder, which nobody else writes to meanwhile: see `locked`.

    The run in the folder may be that of fewer env_steps, and if it is finished, of fewer seeds.

    Args:
        folder: made if it is not there. `experiment.json` in it says what the checkpoints belong to.
        experiment: what is being run.
        keep: how many of the newest checkpoints stay; "all" of them.
        keep_best: whether the one with the best mean return stays besides.
        grow: False refuses a folder whose run has fewer env_steps or seeds.

    Attributes:
        saved: the newest checkpoint; None if there is none.

    Raises:
        BadInputError: if the folder cannot be written, belongs to another experiment, or its newest
            checkpoint cannot be read.
    """

    def __init__(
        self,
        folder: Path,
        experiment: Experiment,
        keep: int | Literal["all"] = 1,
        keep_best: bool = False,
        grow: bool = True,
    ):
        prepare_folder(folder)
        self._folder = folder.absolute()
        self._experiment = experiment
        self._keep_best = keep_best
        self._record = self._folder / "experiment.json"
        if not self._record.exists():
            save_experiment(experiment, self._record)
        recorded = _check_same(self._record, experiment, {"env_steps", "seeds"} if grow else set())
        self._recorded = _plan(recorded)
        prepare_folder(self._folder / "checkpoints")
        self._drop_halves()
        newest, best = (
            policies.LatestN(None if keep == "all" else keep),
            policies.BestN(get_metric_fn=_score, n=1, keep_checkpoints_without_metrics=False),
        )
        self.saved: Saved | None = None
        with self._reading():
            self._manager = _manager(
                self._folder,
                preservation_policy=policies.AnyPreservationPolicy([newest, best] if keep_best else [newest]),
            )
            step = self._manager.latest_step()
            if step is not None:
                self.saved = _read_saved(self._manager, step, recorded)
        _check_growth(self._folder, self.saved, recorded, experiment)

    def save(
        self,
        lanes: Any,
        iteration: int,
        history: History,
        seconds: float,
        experiment: Experiment | None = None,
    ) -> None:
        """Keep the state after `iteration`, and drop older ones; the history in metrics.npz too.

        Args:
            lanes: to keep.
            iteration: that they stand at.
            history: up to then.
            seconds: spent, over all sessions.
            experiment: that they belong to, if it is not yet the one that is being run.

        Raises:
            BadInputError: if it cannot be written; the one before stays.
        """
        experiment, before = experiment or self._experiment, self.saved
        # The checkpoint says what it belongs to; the files beside it follow, if need be after a restart.
        if before is None or (before.iteration, _plan(before.experiment)) != (iteration, _plan(experiment)):
            step = iteration if before is None else max(iteration, before.step + 1)
            count = jax.tree.leaves(lanes)[0].shape[0]
            self._write(step, iteration, lanes, history, _numbers(experiment, iteration, seconds, count))
            self.saved = Saved(step, experiment, iteration, history, seconds, count, True)
        if self._recorded != _plan(experiment):
            save_experiment(experiment, self._record)
            self._recorded = _plan(experiment)
        self.save_history(history)

    def save_history(self, history: History) -> None:
        """Write metrics.npz.

        Raises:
            BadInputError: if it cannot be written.
        """
        history.save(self._folder / "metrics.npz")

    def is_best(self, history: History) -> bool:
        """Whether the last evaluation is better than every kept one, and the best is wanted."""
        if not self._keep_best:
            return False
        best = self._manager.best_step()
        kept = self._manager.metrics(best) if best is not None else None
        return not kept or _mean_return(history) > _score(kept)

    def restore(self, abstract_lanes: Any) -> tuple[Any, int, History, float] | None:
        """The last kept lanes, iteration, history and seconds; None if nothing was kept yet.

        Args:
            abstract_lanes: shapes, dtypes and shardings to restore to. The number of devices may differ
                from that of the run that saved, and with it the number of lanes that fill them up: the
                lanes come back as many as they were stored. If env_steps was raised, the rows of replay that
                the run had no room for come back as zeros.

        Raises:
            BadInputError: if the checkpoint cannot be read.
        """
        saved = self.saved
        if saved is None:
            return None
        # A ring that was capped to the steps of its run has not wrapped: its rows stay where they are.
        exact = saved.exact and saved.experiment.env_steps == self._experiment.env_steps
        wanted = jax.tree.map(
            lambda leaf: _abstract_without_key_type(leaf, saved.stored_lanes), abstract_lanes
        )
        with self._reading():
            lanes = _read_arrays(self._manager, saved.step, wanted, exact)
        lanes = jax.tree.map(_with_key_type, abstract_lanes, lanes)
        return lanes, saved.iteration, saved.history, saved.seconds

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """Errors of the block as one line."""
        complaint = ""
        with _hushed():
            try:
                yield
            except Exception as error:  # whatever orbax, tensorstore or the file system say of broken files
                complaint = _complaint(error)
            if complaint:
                _drop_leftovers()
        if complaint:
            raise _damaged(self._folder, complaint)

    def _write(
        self, step: int, iteration: int, lanes: Any, history: History, numbers: dict[str, Any]
    ) -> None:
        items = ocp.args.Composite(
            lanes=ocp.args.PyTreeSave(jax.tree.map(_without_key_type, lanes)),
            history=ocp.args.StandardSave({**history.arrays(), **numbers}),
        )
        evaluated = history.last_env_steps == iteration * self._experiment.num_envs
        score = _mean_return(history) if evaluated else np.nan
        reason = ""
        with _hushed():
            try:
                metrics = {"episode_return": score} if np.isfinite(score) else None
                self._manager.save(step, args=items, metrics=metrics)
            except Exception as error:
                reason = _reason_not_to_write(error)
                if not reason:
                    raise
            if reason:
                _drop_leftovers()
        if reason:
            self._drop_halves()
            kept = "the last checkpoint is kept" if self.saved else "none is kept"
            raise BadInputError(f"a checkpoint in {self._folder} cannot be written: {reason}; {kept}")

    def _drop_halves(self) -> None:
        """What a save left that did not come to its end."""
        for half in (self._folder / "checkpoints").glob("*.orbax-checkpoint-tmp*"):
            shutil.rmtree(half, ignore_errors=True)


def read_params(
    folder: Path,
    abstract_params: Any,
    which: int | Literal["best"] | None = None,
    modules: Collection[str] = (),
) -> tuple[Saved, Any]:
    """A checkpoint of a run, and the parameters of all its lanes.

    Nothing is written, and the run may go on meanwhile: if it replaces the checkpoint while that is read, the
    next one is read.

    Args:
        folder: of the run.
        abstract_params: shapes and dtypes of one lane's parameters.
        which: environment steps that it stands at, or "best" for the best mean return among those that are
            kept; the last one if None.
        modules: see `saved.load_experiment`.

    Raises:
        BadInputError: if there is no run or no such checkpoint, or it cannot be read.
    """
    folder = folder.absolute()
    complaint, failed = "", None
    with _hushed():
        for _ in range(ATTEMPTS):
            recorded, steps = load_experiment(folder / "experiment.json", modules), None
            try:
                with contextlib.closing(_manager(folder, read_only=True)) as manager:
                    steps = list(manager.all_steps())
                    saved = _choose(manager, which, recorded, folder)
                    return saved, _read_params(manager, saved, abstract_params)
            except BadInputError:
                raise
            except Exception as error:  # see `Checkpoints`
                complaint = _complaint(error)
            _drop_leftovers()
            if steps == failed:  # and no run is at work on them
                raise _damaged(folder, complaint)
            failed = steps
    raise BadInputError(
        f"the run in {folder} replaces its checkpoints faster than they can be read: try again"
    )


def _choose(
    manager: ocp.CheckpointManager, which: int | Literal["best"] | None, recorded: Experiment, folder: Path
) -> Saved:
    steps = manager.all_steps()
    if not steps:
        raise BadInputError(f"{folder} holds no checkpoint yet: let the run go on until it has saved one")
    if which is None:
        return _read_saved(manager, steps[-1], recorded)
    if which == "best":
        best = manager.best_step()
        if best is None:
            raise BadInputError(f"{folder} keeps no evaluated checkpoint yet: let the run go on")
        return _read_saved(manager, best, recorded)
    for step in reversed(steps):
        if step * recorded.num_envs < which:
            break
        saved = _read_saved(manager, step, recorded)
        if saved.iteration * recorded.num_envs == which:
            return saved
    kept = sorted({_read_saved(manager, step, recorded).iteration * recorded.num_envs for step in steps})
    raise BadInputError(
        f"{folder} keeps no checkpoint at {which} environment steps: choose "
        f"{', '.join(map(str, kept))} or best"
    )


def _read_params(manager: ocp.CheckpointManager, saved: Saved, abstract_params: Any) -> Any:
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    wanted = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((saved.stored_lanes, *leaf.shape), leaf.dtype, sharding=device),
        {"learner": {"params": abstract_params}},
    )
    lanes = _read_arrays(manager, saved.step, wanted, partial_restore=True)
    if not all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(lanes)):
        raise ValueError("parameters are missing")
    return lanes["learner"]["params"]


def _manager(folder: Path, **options: Any) -> ocp.CheckpointManager:
    return ocp.CheckpointManager(
        folder / "checkpoints",
        options=ocp.CheckpointManagerOptions(enable_async_checkpointing=False, best_fn=_score, **options),
    )


def _read(manager: ocp.CheckpointManager, step: int, **item: Any) -> Any:
    (read,) = manager.restore(step, args=ocp.args.Composite(**item)).values()
    return read


def _read_arrays(
    manager: ocp.CheckpointManager, step: int, wanted: Any, exact: bool = True, **options: Any
) -> Any:
    """Lanes, or a part of them; unless `exact`, rows of replay are cut off or filled up with zeros."""

    def how(path: Any, leaf: Any) -> ocp.ArrayRestoreArgs:
        strict = exact or jax.tree_util.keystr(path[:1], simple=True) != "buffer"
        return ocp.ArrayRestoreArgs(
            sharding=leaf.sharding, global_shape=leaf.shape, dtype=leaf.dtype, strict=strict
        )

    every = jax.tree_util.tree_map_with_path(how, wanted)
    return _read(manager, step, lanes=ocp.args.PyTreeRestore(wanted, every, **options))


def _numbers(experiment: Experiment, iteration: int, seconds: float, stored_lanes: int) -> dict[str, Any]:
    """What is kept beside the history, and read by `_read_saved`."""
    return {
        "seconds": np.float64(seconds),
        "stored_lanes": np.int64(stored_lanes),
        "iteration": np.int64(iteration),
        "planned_env_steps": np.int64(experiment.env_steps),
        "seeds": np.asarray(experiment.seeds, np.int64),
    }


def _read_saved(manager: ocp.CheckpointManager, step: int, recorded: Experiment) -> Saved:
    restored = _read(manager, step, history=ocp.args.StandardRestore())
    arrays = {name: np.asarray(rows) for name, rows in restored.items()}
    exact = "seeds" in arrays  # earlier code knew of no change to a run
    iteration = int(arrays.pop("iteration", step))
    env_steps = int(arrays.pop("planned_env_steps", recorded.env_steps))
    seeds = tuple(map(int, arrays.pop("seeds", recorded.seeds)))
    seconds, stored = float(arrays.pop("seconds")), int(arrays.pop("stored_lanes"))
    experiment = dataclasses.replace(recorded, env_steps=env_steps, seeds=seeds)
    return Saved(step, experiment, iteration, History(arrays), seconds, stored, exact)


def _plan(experiment: Experiment) -> tuple[Any, ...]:
    """What may change in a run."""
    return experiment.seeds, experiment.env_steps


def _mean_return(history: History) -> float:
    return float(np.mean(history.last["episode_return"]))


def _score(metrics: Any) -> float:
    return float(metrics["episode_return"])


def _damaged(folder: Path, complaint: str) -> BadInputError:
    return BadInputError(
        f"the checkpoint in {folder} is damaged and cannot be read ({complaint}): "
        "remove that folder, or choose another"
    )


def _complaint(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]


def _reason_not_to_write(error: Exception) -> str:
    """What the system says of a failed write, in its own words; empty if it was something else."""
    # tensorstore says it in the middle of a long line, in an error of another type.
    reasons = [
        os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO)
    ]
    told = (error.strerror or "") if isinstance(error, OSError) else ""
    return next((reason for reason in reasons if reason in str(error)), told)


def _check_same(record: Path, experiment: Experiment, free: set[str]) -> Experiment:
    """What the record holds, if it is the same experiment but for the `free` fields."""
    try:
        saved = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadInputError(f"{record} cannot be read: remove its folder, or choose another") from error
    with contextlib.suppress(BadInputError):  # code from before a setting saved a run without it
        saved = _as_json(load_experiment(record, outside_modules(experiment)))
    differing = _differences(saved, _as_json(experiment))
    if set(differing) - free:
        raise _another(record.parent, differing)
    return dataclasses.replace(experiment, env_steps=saved["env_steps"], seeds=tuple(saved["seeds"]))


def _check_growth(folder: Path, saved: Saved | None, recorded: Experiment, wanted: Experiment) -> None:
    """Whether the wanted experiment may go on from what there is."""
    old = saved.experiment if saved else recorded
    if wanted.seeds != old.seeds:
        if not set(wanted.seeds) > set(old.seeds):
            differing = ["env_steps", "seeds"] if wanted.env_steps != old.env_steps else ["seeds"]
            raise _another(folder, differing)
        if saved is None or not saved.finished:
            steps = f"{saved.iteration * old.num_envs if saved else 0:,} of {old.env_steps:,}"
            raise BadInputError(
                f"seeds can be added to a finished run only, and {folder} stands at {steps} environment "
                f"steps: finish it first, with its {len(old.seeds)} seed(s)"
            )
    if wanted.env_steps < old.env_steps:
        raise BadInputError(
            f"{folder} holds a run of {old.env_steps:,} environment steps: env_steps may be raised, not "
            f"lowered to {wanted.env_steps:,}; choose another folder, or remove that one"
        )


def _another(folder: Path, differing: list[str]) -> BadInputError:
    return BadInputError(
        f"{folder} holds another experiment (it differs in {', '.join(differing) or 'its form'}): "
        "choose another folder, or remove that one"
    )


def _as_json(experiment: Experiment) -> Any:
    """As it is read back from a file."""
    return json.loads(json.dumps(to_json(experiment)))


def _differences(saved: Any, wanted: Any, prefix: str = "") -> list[str]:
    if not isinstance(saved, dict) or not isinstance(wanted, dict):
        return [prefix] if saved != wanted else []
    names = sorted(saved.keys() | wanted.keys())
    return [
        found
        for name in names
        for found in _differences(saved.get(name), wanted.get(name), f"{prefix}.{name}" if prefix else name)
    ]


# orbax leaves its other reads and writes running after the first failure: their complaints, hundreds of lines
# through four channels, are silenced.


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    loggers = logging.getLogger("asyncio"), logging.getLogger("absl")
    before = sys.excepthook, sys.unraisablehook
    sys.excepthook = sys.unraisablehook = _ignore
    for logger in loggers:
        logger.addFilter(_ignore)  # absl's takes no notice of `disabled`
    try:
        yield
    finally:
        sys.excepthook, sys.unraisablehook = before
        for logger in loggers:
            logger.removeFilter(_ignore)


def _ignore(*_: Any) -> bool:
    return False


def _drop_leftovers() -> None:
    gc.collect()
    time.sleep(0.2)  # for what is still going on in other threads
    gc.collect()


# orbax keeps arrays of numbers; typed PRNG keys travel as theirs.


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _without_key_type(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _abstract_without_key_type(leaf: Any, lanes: int) -> Any:
    mesh = leaf.sharding.mesh
    sharding = leaf.sharding if lanes % mesh.size == 0 else NamedSharding(mesh, EVERYWHERE)
    data = jax.eval_shape(jax.random.key_data, leaf) if _is_key(leaf) else leaf
    return jax.ShapeDtypeStruct((lanes, *data.shape[1:]), data.dtype, sharding=sharding)


def _with_key_type(abstract: Any, leaf: Any) -> Any:
    return jax.random.wrap_key_data(leaf) if _is_key(abstract) else leaf
