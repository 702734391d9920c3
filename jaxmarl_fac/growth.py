"""Runs in a folder, and seeds that are added to a finished one."""

import dataclasses
import functools
import json
import shutil
from pathlib import Path
from typing import Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxmarl_fac.checkpoints import Checkpoints, Saved
from jaxmarl_fac.files import locked
from jaxmarl_fac.program import Program
from jaxmarl_fac.tracking import History

#: What a run leaves.
ResultT = TypeVar("ResultT")


def run_in(
    folder: Path,
    program: Program,
    run: functools.partial[ResultT],
    keep: int | Literal["all"] = 1,
    keep_best: bool = False,
    grow: bool = True,
) -> ResultT:
    """`run` with the checkpoints in a folder, after seeds that are new to it were trained as the others."""
    experiment, added = program.experiment, folder / ".added"
    with locked(folder):
        checkpoints = Checkpoints(folder, experiment, keep, keep_best, grow)
        if checkpoints.saved and checkpoints.saved.experiment.seeds != experiment.seeds:
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
    """Train in `folder` the seeds that a finished run lacks, and join them with it in one checkpoint."""
    old, games = saved.experiment, max(1, saved.experiment.games)
    new = dataclasses.replace(old, seeds=tuple(seed for seed in seeds if seed not in old.seeds))
    joined = dataclasses.replace(old, seeds=seeds)
    history = saved.history.arrays()
    points = tuple(int(steps) // old.num_envs for steps in history.pop("env_steps"))
    title = f"{run.keywords['title']}, new seeds"
    run_in(folder, Program(new), functools.partial(run, points=points, tracker=None, title=title))

    # Game by game, the seeds in their order: from the old lanes followed by the new ones.
    places = {seed: (place, len(old.seeds), 0) for place, seed in enumerate(old.seeds)}
    places |= {seed: (place, len(new.seeds), old.lanes) for place, seed in enumerate(new.seeds)}
    wanted = [places[seed] for seed in seeds]
    order = np.asarray(
        [start + game * count + place for game in range(games) for place, count, start in wanted]
    )
    abstract = Program(joined).abstract_lanes()
    first, second = checkpoints.restore(abstract), Checkpoints(folder, new).restore(abstract)
    assert first and second  # both runs have come to their end
    (lanes, iteration, _, seconds), (more, _, later, more_seconds) = first, second
    lanes = jax.tree.map(
        lambda one, other: jnp.concatenate([one[: old.lanes], other[: new.lanes]])[order], lanes, more
    )
    rows = later.arrays()
    for name, table in history.items():
        rows[name] = np.concatenate([table, rows[name]], axis=1)[:, order]
    checkpoints.save(lanes, iteration, History(rows), seconds + more_seconds, joined)


def _drop_joined(added: Path, seeds: tuple[int, ...]) -> None:
    """Remove a folder of added seeds, once a run has them all; those that still train stay."""
    try:
        left = json.loads((added / "experiment.json").read_text(encoding="utf-8"))["seeds"]
    except (OSError, ValueError):  # removed by half, or not there
        left = ()
    if set(left) <= set(seeds):
        shutil.rmtree(added, ignore_errors=True)
