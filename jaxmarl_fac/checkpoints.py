"""Checkpoints: a run that is killed at any moment goes on from the last one, to the same bits."""

import contextlib
import errno
import gc
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import NamedSharding

from envs.errors import BadInputError
from jaxmarl_fac.experiment import Experiment, load_experiment, save_experiment, to_json
from jaxmarl_fac.files import prepare_folder
from jaxmarl_fac.parallel import EVERYWHERE
from jaxmarl_fac.tracking import History

#: Times that the newest checkpoint is tried anew, when a run replaces it while it is read.
ATTEMPTS = 100


class Checkpoints:
    """The checkpoints of one experiment in one folder, which nobody else writes to meanwhile: see `locked`.

    Args:
        folder: made if it is not there. `experiment.json` in it says what the checkpoints belong to.
        experiment: what is being run.

    Raises:
        BadInputError: if the folder cannot be written or belongs to another experiment.
    """

    def __init__(self, folder: Path, experiment: Experiment):
        prepare_folder(folder)
        self._folder = folder.absolute()
        record = self._folder / "experiment.json"
        if not record.exists():
            save_experiment(experiment, record)
        _check_same(record, experiment)
        prepare_folder(self._folder / "checkpoints")
        self._drop_halves()
        self._manager = _manager(self._folder, max_to_keep=1)

    def save(self, lanes: Any, iteration: int, history: History, seconds: float) -> None:
        """Keep the state after `iteration`, and drop the one before; the history in metrics.npz too.

        Raises:
            BadInputError: if it cannot be written; the one before stays.
        """
        count = jax.tree.leaves(lanes)[0].shape[0]
        numbers = {"seconds": np.float64(seconds), "stored_lanes": np.int64(count)}
        items = ocp.args.Composite(
            lanes=ocp.args.StandardSave(jax.tree.map(_without_key_type, lanes)),
            history=ocp.args.StandardSave({**history.arrays(), **numbers}),
        )
        reason = ""
        with _hushed():
            try:
                self._manager.save(iteration, args=items)
            except Exception as error:
                reason = _reason_not_to_write(error)
                if not reason:
                    raise
            if reason:
                _drop_leftovers()
        if reason:
            self._drop_halves()
            kept = (
                "the last checkpoint is kept" if self._manager.latest_step() is not None else "none is kept"
            )
            raise BadInputError(f"a checkpoint in {self._folder} cannot be written: {reason}; {kept}")
        history.save(self._folder / "metrics.npz")

    def restore(self, abstract_lanes: Any) -> tuple[Any, int, History, float] | None:
        """The last kept lanes, iteration, history and seconds; None if nothing was kept yet.

        Args:
            abstract_lanes: shapes, dtypes and shardings to restore to. The number of devices may differ
                from that of the run that saved, and with it the number of lanes that fill them up: the
                lanes come back as many as they were stored.

        Raises:
            BadInputError: if the checkpoint cannot be read.
        """
        iteration = self._manager.latest_step()
        if iteration is None:
            return None
        complaint = ""
        with _hushed():
            try:
                history, seconds, stored = _read_history(self._manager, iteration)
                wanted = jax.tree.map(lambda leaf: _abstract_without_key_type(leaf, stored), abstract_lanes)
                lanes = _read(self._manager, iteration, lanes=ocp.args.StandardRestore(wanted))
            except Exception as error:  # whatever orbax, tensorstore or the file system say of broken files
                complaint = _complaint(error)
            if complaint:
                _drop_leftovers()
        if complaint:
            raise _damaged(self._folder, complaint)
        return jax.tree.map(_with_key_type, abstract_lanes, lanes), iteration, history, seconds

    def _drop_halves(self) -> None:
        """What a save left that did not come to its end."""
        for half in (self._folder / "checkpoints").glob("*.orbax-checkpoint-tmp*"):
            shutil.rmtree(half, ignore_errors=True)


def read_params(folder: Path, abstract_params: Any) -> tuple[Any, int]:
    """The parameters of all lanes at the last checkpoint of a run, and its iteration.

    Nothing is written, and the run may go on meanwhile: if it replaces the checkpoint while that is read, the
    next one is read.

    Args:
        folder: of the run.
        abstract_params: shapes and dtypes of one lane's parameters.

    Raises:
        BadInputError: if there is no checkpoint, or it cannot be read.
    """
    folder = folder.absolute()
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    complaint, failed = "", None
    with _hushed():
        for _ in range(ATTEMPTS):
            steps: list[int] = []
            try:
                with contextlib.closing(_manager(folder, read_only=True)) as manager:
                    steps = list(manager.all_steps())
                    if not steps:
                        break
                    return _read_params(manager, steps[-1], abstract_params, device), steps[-1]
            except Exception as error:  # see `Checkpoints.restore`
                complaint = _complaint(error)
            _drop_leftovers()
            if steps == failed:  # and no run is at work on them
                raise _damaged(folder, complaint)
            failed = steps
    if complaint:
        raise BadInputError(
            f"the run in {folder} replaces its checkpoints faster than they can be read: try again"
        )
    raise BadInputError(f"{folder} holds no checkpoint yet: let the run go on until it has saved one")


def _read_params(manager: ocp.CheckpointManager, iteration: int, abstract_params: Any, device: Any) -> Any:
    _, _, stored = _read_history(manager, iteration)
    wanted = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((stored, *leaf.shape), leaf.dtype, sharding=device),
        {"learner": {"params": abstract_params}},
    )
    how = jax.tree.map(
        lambda leaf: ocp.ArrayRestoreArgs(sharding=device, global_shape=leaf.shape, dtype=leaf.dtype), wanted
    )
    lanes = _read(manager, iteration, lanes=ocp.args.PyTreeRestore(wanted, how, partial_restore=True))
    if not all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(lanes)):
        raise ValueError("parameters are missing")
    return lanes["learner"]["params"]


def _manager(folder: Path, **options: Any) -> ocp.CheckpointManager:
    with _hushed():
        return ocp.CheckpointManager(
            folder / "checkpoints",
            options=ocp.CheckpointManagerOptions(enable_async_checkpointing=False, **options),
        )


def _read(manager: ocp.CheckpointManager, iteration: int, **item: Any) -> Any:
    (read,) = manager.restore(iteration, args=ocp.args.Composite(**item)).values()
    return read


def _read_history(manager: ocp.CheckpointManager, iteration: int) -> tuple[History, float, int]:
    """The history, the seconds, and the number of stored lanes."""
    restored = _read(manager, iteration, history=ocp.args.StandardRestore())
    arrays = {name: np.asarray(rows) for name, rows in restored.items()}
    seconds, stored = float(arrays.pop("seconds")), int(arrays.pop("stored_lanes"))
    return History(arrays), seconds, stored


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


def _check_same(record: Path, experiment: Experiment) -> None:
    try:
        saved = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInputError(f"{record} cannot be read: remove its folder, or choose another") from error
    with contextlib.suppress(BadInputError):  # code from before a setting saved a run without it
        saved = _as_json(load_experiment(record))
    wanted = _as_json(experiment)
    if saved != wanted:
        differing = ", ".join(_differences(saved, wanted)) or "its form"
        raise BadInputError(
            f"{record.parent} holds another experiment (it differs in {differing}): "
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
