"""Checkpoints: a run that is killed at any moment goes on from the last one, to the same bits."""

import contextlib
import gc
import json
import logging
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
from jaxmarl_fac.experiment import Experiment, save_experiment, to_json
from jaxmarl_fac.files import prepare_folder
from jaxmarl_fac.parallel import EVERYWHERE
from jaxmarl_fac.tracking import History


class Checkpoints:
    """The checkpoints of one experiment in one folder.

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
        options = ocp.CheckpointManagerOptions(max_to_keep=1, enable_async_checkpointing=False)
        prepare_folder(self._folder / "checkpoints")
        self._manager = ocp.CheckpointManager(self._folder / "checkpoints", options=options)

    def save(self, lanes: Any, iteration: int, history: History, seconds: float) -> None:
        """Keep the state after `iteration`, and drop the one before; the history in metrics.npz too."""
        history.save(self._folder / "metrics.npz")
        count = jax.tree.leaves(lanes)[0].shape[0]
        numbers = {"seconds": np.float64(seconds), "stored_lanes": np.int64(count)}
        self._manager.save(
            iteration,
            args=ocp.args.Composite(
                lanes=ocp.args.StandardSave(jax.tree.map(_without_key_type, lanes)),
                history=ocp.args.StandardSave({**history.arrays(), **numbers}),
            ),
        )

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
                restored = self._read(iteration, history=ocp.args.StandardRestore())["history"]
                stored = int(restored.pop("stored_lanes"))
                wanted = jax.tree.map(lambda leaf: _abstract_without_key_type(leaf, stored), abstract_lanes)
                lanes = self._read(iteration, lanes=ocp.args.StandardRestore(wanted))["lanes"]
            except Exception as error:  # whatever orbax, tensorstore or the file system say of broken files
                complaint = (str(error) or type(error).__name__).splitlines()[0][:200]
            if complaint:
                _drop_leftovers()
        if complaint:
            raise BadInputError(
                f"the checkpoint in {self._folder} is damaged and cannot be read ({complaint}): "
                "remove that folder, or choose another"
            )
        history = {name: np.asarray(rows) for name, rows in restored.items()}
        seconds = float(history.pop("seconds"))
        lanes = jax.tree.map(_with_key_type, abstract_lanes, lanes)
        return lanes, iteration, History(history), seconds

    def _read(self, iteration: int, **items: Any) -> Any:
        return self._manager.restore(iteration, args=ocp.args.Composite(**items))


def _check_same(record: Path, experiment: Experiment) -> None:
    try:
        saved = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInputError(f"{record} cannot be read: remove its folder, or choose another") from error
    wanted = json.loads(json.dumps(to_json(experiment)))
    if saved != wanted:
        differing = ", ".join(_differences(saved, wanted)) or "its form"
        raise BadInputError(
            f"{record.parent} holds another experiment (it differs in {differing}): "
            "choose another folder, or remove that one"
        )


def _differences(saved: Any, wanted: Any, prefix: str = "") -> list[str]:
    if not isinstance(saved, dict) or not isinstance(wanted, dict):
        return [prefix] if saved != wanted else []
    names = sorted(saved.keys() | wanted.keys())
    return [
        found
        for name in names
        for found in _differences(saved.get(name), wanted.get(name), f"{prefix}.{name}" if prefix else name)
    ]


# At the first array that it cannot read orbax gives up, and leaves its other reads to themselves: they would
# complain by hundreds of lines, through three channels, after our one.


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    logger = logging.getLogger("asyncio")
    before = sys.excepthook, sys.unraisablehook, logger.disabled
    sys.excepthook, sys.unraisablehook, logger.disabled = _ignore, _ignore, True
    try:
        yield
    finally:
        sys.excepthook, sys.unraisablehook, logger.disabled = before


def _ignore(*_: Any) -> None:
    pass


def _drop_leftovers() -> None:
    gc.collect()
    time.sleep(0.2)  # for the reads still going on in other threads
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
