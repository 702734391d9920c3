"""Checkpoints: a killed run resumes from its last checkpoint and ends with the same bits."""

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
from jaxmarl_fac.hosts import on_main
from jaxmarl_fac.parallel import REPLICATED
from jaxmarl_fac.saved import load_experiment, outside_modules, save_experiment, to_json
from jaxmarl_fac.tracking import History

#: Attempts to read the newest checkpoint of a run that may replace it meanwhile.
ATTEMPTS = 100


class Saved(NamedTuple):
    """A checkpoint without its lanes.

    Attributes:
        step: its orbax step: the iteration, or a larger number after seeds were added.
        experiment: that it belongs to; within a run, seeds and env_steps may differ between checkpoints.
        iteration: of the loop.
        history: evaluations up to then.
        seconds: training time, summed over all sessions.
        stored_lanes: number of lanes in it, including padding.
        exact: the replay buffers are known to have the size that `experiment` needs; False for checkpoints of
            older versions.
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
        """Whether its experiment is finished."""
        return self.iteration == self.experiment.iterations


class Checkpoints:
    """The checkpoints of one experiment in one folder; the caller holds its lock, see `files.locked`.

    The run in the folder may have fewer env_steps and, if it is finished, fewer seeds.

    Args:
        folder: created if missing; its `experiment.json` records the experiment.
        experiment: what is being run.
        keep: number of newest checkpoints to keep, or "all".
        keep_best: whether to keep the one with the best mean return too.
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
        self._folder = folder.absolute()
        self._experiment = experiment
        self._keep_best = keep_best
        self._record = self._folder / "experiment.json"
        on_main(self._prepare)
        recorded = _check_same(self._record, experiment, {"env_steps", "seeds"} if grow else set())
        self._recorded = _growable(recorded)
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

    def _prepare(self) -> None:
        """Make the folders and the record, and clear up after a run that was killed."""
        prepare_folder(self._folder)
        if not self._record.exists():
            save_experiment(self._experiment, self._record)
        prepare_folder(self._folder / "checkpoints")
        self._remove_partial_saves()

    def save(
        self,
        lanes: Any,
        iteration: int,
        history: History,
        seconds: float,
        experiment: Experiment | None = None,
    ) -> None:
        """Save the state after `iteration`, remove checkpoints beyond `keep`, and write metrics.npz.

        Args:
            lanes: to save.
            iteration: number of iterations done.
            history: evaluations up to then.
            seconds: training time, summed over all sessions.
            experiment: that they belong to, if it differs from the one that is being run.

        Raises:
            BadInputError: if it cannot be written; the previous checkpoint is kept.
        """
        experiment, before = experiment or self._experiment, self.saved
        # The checkpoint holds its experiment; the files beside it are updated after it, or after a restart.
        wanted = iteration, _growable(experiment)
        if before is None or (before.iteration, _growable(before.experiment)) != wanted:
            step = iteration if before is None else max(iteration, before.step + 1)
            count = jax.tree.leaves(lanes)[0].shape[0]
            self._write(step, iteration, lanes, history, _numbers(experiment, iteration, seconds, count))
            self.saved = Saved(step, experiment, iteration, history, seconds, count, True)
        if self._recorded != _growable(experiment):
            save_experiment(experiment, self._record)
            self._recorded = _growable(experiment)
        self.save_history(history)

    def save_history(self, history: History) -> None:
        """Write metrics.npz.

        Raises:
            BadInputError: if it cannot be written.
        """
        history.save(self._folder / "metrics.npz")

    def is_best(self, history: History) -> bool:
        """Whether `keep_best` is set and the last evaluation beats the best checkpoint."""
        if not self._keep_best:
            return False
        best = self._manager.best_step()
        kept = self._manager.metrics(best) if best is not None else None
        return not kept or _mean_return(history) > _score(kept)

    def restore(self, abstract_lanes: Any) -> tuple[Any, int, History, float] | None:
        """The lanes, iteration, history and seconds of the newest checkpoint; None if there is none.

        Args:
            abstract_lanes: shapes, dtypes and shardings to restore to. If the run was saved on another number
                of devices, the lanes are returned with the padding they were stored with. If env_steps was
                raised, the additional rows of replay are zeros.

        Raises:
            BadInputError: if the checkpoint cannot be read.
        """
        saved = self.saved
        if saved is None:
            return None
        # A ring buffer that was capped to the steps of its run has not wrapped: its rows keep their places.
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
        """Turn any error of the block into a one-line `BadInputError`."""
        message = ""
        with _silenced():
            try:
                yield
            except Exception as error:  # orbax, tensorstore and the file system raise many types on bad files
                message = _first_line(error)
            if message:
                _collect_failed_io()
        if message:
            raise _damaged(self._folder, message)

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
        with _silenced():
            try:
                metrics = {"episode_return": score} if np.isfinite(score) else None
                self._manager.save(step, args=items, metrics=metrics)
            except Exception as error:
                reason = _system_error(error)
                if not reason:
                    raise
            if reason:
                _collect_failed_io()
        if reason:
            self._remove_partial_saves()
            kept = "the last checkpoint is kept" if self.saved else "none is kept"
            raise BadInputError(f"a checkpoint in {self._folder} cannot be written: {reason}; {kept}")

    def _remove_partial_saves(self) -> None:
        """Remove the temporary folders of interrupted saves."""
        for partial in (self._folder / "checkpoints").glob("*.orbax-checkpoint-tmp*"):
            shutil.rmtree(partial, ignore_errors=True)


def read_params(
    folder: Path,
    abstract_params: Any,
    which: int | Literal["best"] | None = None,
    modules: Collection[str] = (),
) -> tuple[Saved, Any]:
    """Read a checkpoint of a run and the parameters of all its lanes.

    Nothing is written, and the run may still be training: if it replaces the checkpoint meanwhile, the next
    one is read.

    Args:
        folder: of the run.
        abstract_params: shapes and dtypes of one lane's parameters.
        which: environment steps of the checkpoint, or "best" for the best mean return among those that are
            kept; the last one if None.
        modules: see `saved.load_experiment`.

    Raises:
        BadInputError: if there is no run or no such checkpoint, or it cannot be read.
    """
    folder = folder.absolute()
    message, failed = "", None
    with _silenced():
        for _ in range(ATTEMPTS):
            recorded, steps = load_experiment(folder / "experiment.json", modules), None
            try:
                with contextlib.closing(_manager(folder, read_only=True)) as manager:
                    steps = list(manager.all_steps())
                    saved = _choose(manager, which, recorded, folder)
                    return saved, _read_params(manager, saved, abstract_params)
            except BadInputError:
                raise
            except Exception as error:  # see `Checkpoints._reading`
                message = _first_line(error)
            _collect_failed_io()
            if steps == failed:  # no run is replacing them
                raise _damaged(folder, message)
            failed = steps
    raise BadInputError(
        f"the run in {folder} replaces its checkpoints faster than they can be read: try again"
    )


def _choose(
    manager: ocp.CheckpointManager, which: int | Literal["best"] | None, recorded: Experiment, folder: Path
) -> Saved:
    steps = manager.all_steps()
    if not steps:
        raise BadInputError(f"{folder} holds no checkpoint yet: continue the run until it has saved one")
    if which is None:
        return _read_saved(manager, steps[-1], recorded)
    if which == "best":
        best = manager.best_step()
        if best is None:
            raise BadInputError(f"{folder} keeps no evaluated checkpoint yet: continue the run")
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
    """The lanes or a part of them; unless `exact`, replay buffers are truncated or padded with zeros."""

    def how(path: Any, leaf: Any) -> ocp.ArrayRestoreArgs:
        strict = exact or jax.tree_util.keystr(path[:1], simple=True) != "buffer"
        return ocp.ArrayRestoreArgs(
            sharding=leaf.sharding, global_shape=leaf.shape, dtype=leaf.dtype, strict=strict
        )

    every = jax.tree_util.tree_map_with_path(how, wanted)
    return _read(manager, step, lanes=ocp.args.PyTreeRestore(wanted, every, **options))


def _numbers(experiment: Experiment, iteration: int, seconds: float, stored_lanes: int) -> dict[str, Any]:
    """The numbers stored with the history, which `_read_saved` reads."""
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
    exact = "seeds" in arrays  # older versions stored neither seeds nor env_steps
    iteration = int(arrays.pop("iteration", step))
    env_steps = int(arrays.pop("planned_env_steps", recorded.env_steps))
    seeds = tuple(map(int, arrays.pop("seeds", recorded.seeds)))
    seconds, stored = float(arrays.pop("seconds")), int(arrays.pop("stored_lanes"))
    experiment = dataclasses.replace(recorded, env_steps=env_steps, seeds=seeds)
    return Saved(step, experiment, iteration, History(arrays), seconds, stored, exact)


def _growable(experiment: Experiment) -> tuple[Any, ...]:
    """The fields that may change between sessions of a run."""
    return experiment.seeds, experiment.env_steps


def _mean_return(history: History) -> float:
    """Of the variants that have not diverged; NaN if all have."""
    returns = history.last["episode_return"]
    defined = returns[~np.isnan(returns)]
    return float(np.mean(defined)) if defined.size else float("nan")


def _score(metrics: Any) -> float:
    return float(metrics["episode_return"])


def _damaged(folder: Path, message: str) -> BadInputError:
    return BadInputError(
        f"the checkpoint in {folder} is damaged and cannot be read ({message}): "
        "remove that folder, or choose another"
    )


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]


def _system_error(error: Exception) -> str:
    """The operating system's message about a failed write; empty for any other error."""
    # tensorstore raises an error of another type, with the message in the middle of a long line.
    messages = [
        os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO)
    ]
    own = (error.strerror or "") if isinstance(error, OSError) else ""
    return next((message for message in messages if message in str(error)), own)


def _check_same(record: Path, experiment: Experiment, free: set[str]) -> Experiment:
    """The recorded experiment, if it differs from `experiment` in the `free` fields only."""
    try:
        saved = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadInputError(f"{record} cannot be read: remove its folder, or choose another") from error
    with contextlib.suppress(BadInputError):  # fills in settings that older versions did not have
        saved = _as_json(load_experiment(record, outside_modules(experiment)))
    differing = _differences(saved, _as_json(experiment))
    if set(differing) - free:
        raise _another(record.parent, differing)
    return dataclasses.replace(experiment, env_steps=saved["env_steps"], seeds=tuple(saved["seeds"]))


def _check_growth(folder: Path, saved: Saved | None, recorded: Experiment, wanted: Experiment) -> None:
    """Refuse a wanted experiment that the run in the folder cannot be extended to."""
    old = saved.experiment if saved else recorded
    if wanted.seeds != old.seeds:
        if not set(wanted.seeds) > set(old.seeds):
            differing = ["env_steps", "seeds"] if wanted.env_steps != old.env_steps else ["seeds"]
            raise _another(folder, differing)
        if saved is None or not saved.finished:
            steps = f"{saved.iteration * old.num_envs if saved else 0:,} of {old.env_steps:,}"
            raise BadInputError(
                f"seeds can be added to a finished run only, and {folder} is at {steps} environment "
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
    """The experiment as it would be read back from experiment.json."""
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


# orbax leaves its other reads and writes running after the first failure; silence their output, which is
# hundreds of lines through two loggers and two hooks.


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    loggers = logging.getLogger("asyncio"), logging.getLogger("absl")
    before = sys.excepthook, sys.unraisablehook
    sys.excepthook = sys.unraisablehook = _ignore
    for logger in loggers:
        logger.addFilter(_ignore)  # absl's logger ignores `disabled`
    try:
        yield
    finally:
        sys.excepthook, sys.unraisablehook = before
        for logger in loggers:
            logger.removeFilter(_ignore)


def _ignore(*_: Any) -> bool:
    return False


def _collect_failed_io() -> None:
    gc.collect()
    time.sleep(0.2)  # for reads and writes that still run in other threads
    gc.collect()


# orbax stores arrays of numbers; typed PRNG keys are converted to their data and back.


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _without_key_type(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _abstract_without_key_type(leaf: Any, lanes: int) -> Any:
    mesh = leaf.sharding.mesh
    sharding = leaf.sharding if lanes % mesh.size == 0 else NamedSharding(mesh, REPLICATED)
    data = jax.eval_shape(jax.random.key_data, leaf) if _is_key(leaf) else leaf
    return jax.ShapeDtypeStruct((lanes, *data.shape[1:]), data.dtype, sharding=sharding)


def _with_key_type(abstract: Any, leaf: Any) -> Any:
    return jax.random.wrap_key_data(leaf) if _is_key(abstract) else leaf
