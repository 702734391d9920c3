"""Running in an output folder, and adding seeds to a finished run."""

import contextlib
import dataclasses
import functools
import json
import shutil
from pathlib import Path
from typing import Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from envs.errors import BadInputError
from jaxmarl_fac.checkpoints import Checkpoints, Saved
from jaxmarl_fac.files import locked
from jaxmarl_fac.hosts import on_main
from jaxmarl_fac.job import count
from jaxmarl_fac.program import Program
from jaxmarl_fac.tracking import History

#: Return type of `run`, which is `loop.Result`.
ResultT = TypeVar("ResultT")


def run_in(
    folder: Path,
    program: Program,
    run: functools.partial[ResultT],
    keep: int | Literal["all"] = 1,
    keep_best: bool = False,
    grow: bool = True,
) -> ResultT:
    """Call `run` with the folder's checkpoints; seeds that a finished run there lacks are trained first.

    Args:
        folder: output folder, locked meanwhile.
        program: of the experiment.
        run: takes a program and its checkpoints.
        keep: see `Checkpoints`.
        keep_best: see `Checkpoints`.
        grow: see `Checkpoints`.
    """
    experiment, added = program.experiment, folder / ".added"
    with contextlib.ExitStack() as stack:
        on_main(lambda: stack.enter_context(locked(folder)))
        checkpoints = Checkpoints(folder, experiment, keep, keep_best, grow)
        if checkpoints.saved and checkpoints.saved.experiment.seeds != experiment.seeds:
            if count() > 1:
                raise BadInputError(f"seeds are added to a finished run by one process: {folder} has fewer")
            _add_seeds(added, experiment.seeds, checkpoints, checkpoints.saved, run)
        _drop_joined(added, experiment.seeds)
        return run(program, checkpoints)


def _add_seeds(
    folder: Path,
    seeds: tuple[int, ...],
    checkpoints: Checkpoints,
    saved: Saved,
    run: functools.partial[ResultT],
) -> None:
    """Train the missing seeds of a finished run in `folder`, then merge both into one checkpoint."""
    old, groups = saved.experiment, len(saved.experiment.groups)
    new = dataclasses.replace(old, seeds=tuple(seed for seed in seeds if seed not in old.seeds))
    joined = dataclasses.replace(old, seeds=seeds)
    history = saved.history.arrays()
    eval_iterations = tuple(int(steps) // old.num_envs for steps in history.pop("env_steps"))
    title = f"{run.keywords['title']}, new seeds"
    run_in(
        folder,
        Program(new),
        functools.partial(run, eval_iterations=eval_iterations, tracker=None, title=title),
    )

    # Lanes are ordered by group, then by seed; `order` indexes the old lanes followed by the new ones.
    places = {seed: (place, len(old.seeds), 0) for place, seed in enumerate(old.seeds)}
    places |= {seed: (place, len(new.seeds), old.lanes) for place, seed in enumerate(new.seeds)}
    wanted = [places[seed] for seed in seeds]
    order = np.asarray(
        [start + group * count + place for group in range(groups) for place, count, start in wanted]
    )
    abstract = Program(joined).abstract_lanes()
    first, second = checkpoints.restore(abstract), Checkpoints(folder, new).restore(abstract)
    assert first and second  # both runs are finished
    (lanes, iteration, _, seconds), (more, _, later, more_seconds) = first, second
    lanes = jax.tree.map(
        lambda one, other: jnp.concatenate([one[: old.lanes], other[: new.lanes]])[order], lanes, more
    )
    rows = later.arrays()
    for name, table in history.items():
        rows[name] = np.concatenate([table, rows[name]], axis=1)[:, order]
    checkpoints.save(lanes, iteration, History(rows), seconds + more_seconds, joined)


def _drop_joined(added: Path, seeds: tuple[int, ...]) -> None:
    """Remove the folder of added seeds once the run contains all of them."""
    try:
        left = json.loads((added / "experiment.json").read_text(encoding="utf-8"))["seeds"]
    except (OSError, ValueError):  # missing, or only partly removed
        left = ()
    if set(left) <= set(seeds):
        shutil.rmtree(added, ignore_errors=True)
