"""Figures with claims: what a figure is judged by, what it works with, and what it comes to."""

import dataclasses
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from matplotlib.figure import Figure

from jaxmarl_fac.experiment import Experiment, seed_numbers
from jaxmarl_fac.loop import Result, train
from jaxmarl_fac.report.verdicts import Measured, Rule
from jaxmarl_fac.saved import to_json

#: Seconds; minutes on two CPU cores; hours on two CPU cores; the paper's own budget.
Scale = Literal["smoke", "quick", "long", "paper"]


def at_scale(scale: Scale, *, smoke: Any, quick: Any, paper: Any, long: Any = None) -> Any:
    """The one for a scale; where none is given for "long", two cores can do what is for "paper"."""
    return {"smoke": smoke, "quick": quick, "long": paper if long is None else long, "paper": paper}[scale]


#: What runs came to, by folder and experiment (as JSON).
Finished = dict[tuple[Path, str], Result]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a figure came to.

    Attributes:
        figure: the picture.
        paper: the paper's numbers.
        ours: our numbers, with 95 % intervals; the same whenever the figure is made, so no times.
        measured: what the claim's rule judges, by name.
        why: one or two sentences on what was found; the rule adds what does not hold.
        games: how many random games stand for seeds; 0 if seeds do.
    """

    figure: Figure
    paper: dict[str, Any]
    ours: dict[str, Any]
    measured: Measured
    why: str
    games: int = 0


class Workshop:
    """What a figure's function works with: the scale, and a way to train.

    Runs are kept under `out/runs`, so that figures share them and an interrupted one goes on.

    Args:
        scale: of all runs.
        seeds: that the user asked for, in place of the scale's own number.
        out: folder.
        finished: runs of figures before this one; this figure's are added. To read one back takes about a
            second.
    """

    def __init__(self, scale: Scale, seeds: int | None, out: Path, finished: Finished | None = None):
        self.scale = scale
        self._seeds = seeds
        self._out = out
        self._finished = {} if finished is None else finished
        self.experiments: dict[str, Experiment] = {}
        self.env_steps = 0
        self.training_seconds: dict[str, float] = {}
        self.earlier_seconds = 0.0  # that its runs took in other sessions, or for figures before this one

    def choose(self, *, smoke: Any, quick: Any, paper: Any, long: Any = None) -> Any:
        """The one for the scale, see `at_scale`."""
        return at_scale(self.scale, smoke=smoke, quick=quick, paper=paper, long=long)

    def seeds(self, *, smoke: int, quick: int, paper: int, long: int | None = None) -> tuple[int, ...]:
        """Seed numbers: as many as the user asked for, else the scale's."""
        return seed_numbers(self._seeds or self.choose(smoke=smoke, quick=quick, paper=paper, long=long))

    def train(self, name: str, experiment: Experiment) -> Result:
        """Run an experiment, or take up where it stopped, or read it if it is done.

        Raises:
            InterruptedRunError: if a signal stopped it.
            DivergedError: if a seed is no longer finite.
        """
        self.experiments[name] = experiment
        start = time.monotonic()
        folder = self._out / "runs" / f"{name}-{self.scale}-{len(experiment.seeds)}"
        run = folder, json.dumps(to_json(experiment))
        if run not in self._finished:
            self._finished[run] = train(experiment, folder, title=name, show_progress=True, grow=False)
        result = self._finished[run]
        self.training_seconds[name] = result.seconds
        self.earlier_seconds += result.seconds - (time.monotonic() - start)
        self.env_steps += experiment.lanes * experiment.iterations * experiment.num_envs
        return result


@dataclasses.dataclass(frozen=True)
class Claim:
    """A figure or table of a paper, and how it is judged.

    Attributes:
        id: on the command line and of the files.
        source: paper and figure.
        claim: what it says.
        rule: by which a reproduction counts, written before the run.
        cost: an estimate for each scale; that of "long", if not given, is that of "paper".
        make: does the work.
    """

    id: str
    source: str
    claim: str
    rule: Rule
    cost: Mapping[Scale, str]
    make: Callable[[Workshop], Outcome]
