"""Plot the learning curves of one or more runs of train.py, finished or still training.

python experiments/plot.py DIR [DIR ...] [--metric NAME] [--out FILE.png|.pdf|.csv] [--labels TEXT ...]
    [--smooth N]

Each DIR is the --out of a run. A curve is the interquartile mean over the run's seeds with a 95 % bootstrap
band; a run with a reward per agent has one curve per agent, a run on several games one per game.
"""

import csv
import dataclasses
import io
import os
import sys
import zipfile
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

import baselines.registry as algorithms
import envs.registry as environments
from envs.errors import BadInputError
from jaxmarl_fac import cli
from jaxmarl_fac.experiment import Experiment
from jaxmarl_fac.files import prepare_folder, write_text
from jaxmarl_fac.report.figures import learning_curves, panels, save
from jaxmarl_fac.report.styles import DASHES, PALETTE
from jaxmarl_fac.saved import load_experiment, to_json
from jaxmarl_fac.statistics import learning_curve

#: Number of distinct pairs of colour and dashes.
MAX_CURVES = len(PALETTE) * len(DASHES)


@dataclasses.dataclass(frozen=True)
class Options:
    """What to draw.

    Attributes:
        runs: folders of runs.
        metric: name of a metric in the runs' metrics.npz.
        out: a picture (.png or .pdf), or the numbers behind it (.csv).
        labels: names of the runs in the legend, one per folder.
        smooth: window of a moving average over each seed's evaluations.
        modules: modules outside the suite that define the runs' algorithms or games.
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    metric: str = "episode_return"
    out: Path = Path("runs/curves.png")
    labels: tuple[str, ...] = ()
    smooth: int = 1
    modules: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Run:
    """The contents of a run's folder.

    Attributes:
        folder: of the run.
        experiment: the run's experiment.
        env_steps: `(evaluations,)`.
        values: the metric, `(evaluations, lanes)` or `(evaluations, lanes, n)`.
    """

    folder: Path
    experiment: Experiment
    env_steps: np.ndarray
    values: np.ndarray

    @property
    def total_steps(self) -> int:
        """Environment steps of the finished run."""
        return self.experiment.iterations * self.experiment.num_envs

    @property
    def algorithm(self) -> str:
        """The algorithm's id, or its class name if it is not registered."""
        algorithm = self.experiment.algorithm
        return algorithms.id_of(algorithm) or type(algorithm).__name__


def main(argv: Sequence[str]) -> int:
    """Plot, and print a table; returns the exit status."""
    options = cli.parse(Options, argv, description=__doc__)
    if options.smooth < 1:
        raise BadInputError(f"--smooth must be at least 1, not {options.smooth}")
    if options.out.suffix.lower() not in (".png", ".pdf", ".csv"):
        raise BadInputError(f"--out {options.out} must end in .png, .pdf or .csv")
    if not options.runs:
        raise BadInputError("give the folder of at least one run: plot.py DIR [DIR ...]")
    if len({folder.resolve() for folder in options.runs}) < len(options.runs):
        raise BadInputError("the same folder is given twice")
    runs = [read_run(folder, options.metric, options.modules) for folder in options.runs]
    games = [game_of(run.experiment) for run in runs]
    if any(to_json(run.experiment.environment) != to_json(runs[0].experiment.environment) for run in runs):
        print(f"the runs are on different games: {', '.join(dict.fromkeys(games))}", file=sys.stderr)
    names = labels(runs, games, options.labels)

    tables, steps, shown, lines = {}, {}, {}, {}
    for run, name in zip(runs, names, strict=True):
        for part, table in curves(run).items():
            key = ", ".join(filter(None, (name, part)))
            tables[key], steps[key] = smoothed(table, options.smooth), run.env_steps
            shown[key] = key if run.env_steps[-1] >= run.total_steps else f"{key}, unfinished"
            lines[shown[key]] = last_evaluation(tables[key], run)
    if len(tables) > MAX_CURVES:
        raise BadInputError(f"{len(tables)} curves are too many to tell apart: draw at most {MAX_CURVES}")
    for label, line in lines.items():
        print(f"{label:<{max(map(len, lines))}}  {line}")
    prepare_folder(options.out.parent)
    if options.out.suffix.lower() == ".csv":
        write_text(options.out, as_csv(steps, tables))
    else:
        legend = max(map(len, shown.values())) + len(" (1000 seeds)")
        size = (4.8 + 0.08 * legend, max(4.0, 0.2 * len(shown)))  # inches; the legend is beside the axes
        figure, axes = panels(1, 1, size)
        title = games[0] if len(set(games)) == 1 else ""
        metric = options.metric.replace("_", " ")
        learning_curves(axes[0, 0], steps, tables, ylabel=metric, title=title, labels=shown)
        save(figure, options.out)
    print(f"written: {options.out}")
    return cli.DONE


def read_run(folder: Path, metric: str, modules: Collection[str] = ()) -> Run:
    """Read one metric of the run in a folder.

    Raises:
        BadInputError: if there is no run, it has no such metric, or its files are damaged.
    """
    experiment = load_experiment(folder / "experiment.json", modules)
    path = folder / "metrics.npz"
    damaged = f"{path} is damaged: the run rewrites it at its next checkpoint"
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            env_steps = arrays["env_steps"]
            plottable = [name for name in arrays if _is_plottable(arrays[name], len(env_steps), experiment)]
            values = arrays[metric] if metric in plottable else None
    except FileNotFoundError as error:
        raise BadInputError(f"there is no {path} yet: it is written with the first checkpoint") from error
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise BadInputError(damaged) from error
    if not plottable:
        raise BadInputError(damaged)
    if values is None:
        raise BadInputError(
            f"{folder} has no metric {metric!r} to plot: choose one of {', '.join(sorted(plottable))}"
        )
    return Run(folder, experiment, env_steps, values.astype(np.float64))


def _is_plottable(table: np.ndarray, evaluations: int, experiment: Experiment) -> bool:
    """Whether the table has one number per evaluation and lane, or one per agent of these."""
    shape = (evaluations, experiment.lanes)
    shaped = evaluations > 0 and table.shape in (shape, (*shape, experiment.environment.num_agents))
    return shaped and np.issubdtype(table.dtype, np.number)


def game_of(experiment: Experiment) -> str:
    """The environment's id, or its class name for a batch of games or parameters of no registered id."""
    wanted = to_json(experiment.environment)
    known = () if experiment.games else environments.ENVIRONMENTS
    same = (name for name in known if to_json(environments.make(name)) == wanted)
    return next(same, type(experiment.environment).__name__)


def labels(runs: Sequence[Run], games: Sequence[str], given: Sequence[str]) -> list[str]:
    """A name for each run: the given ones, or the algorithm, with game and folder where needed.

    Raises:
        BadInputError: if names are given, but not a distinct one for each run.
    """
    if given:
        if len(given) != len(runs) or len(set(given)) < len(given):
            raise BadInputError(
                f"--labels needs {len(runs)} different name(s), one for each run, not {len(given)} "
                f"({', '.join(given)})"
            )
        if not all(label.strip() for label in given):
            raise BadInputError("--labels must not be blank: give each run a name")
        return [_printable(label) for label in given]
    names = [run.algorithm for run in runs]
    if len(set(games)) > 1:
        names = [f"{name} on {game}" for name, game in zip(names, games, strict=True)]
    counts = Counter(names)
    folders = [_printable(run.folder) for run in runs]
    return [
        f"{name} ({folder})" if counts[name] > 1 else name
        for name, folder in zip(names, folders, strict=True)
    ]


def _printable(text: str | Path) -> str:
    """The text with undecodable bytes of file names escaped."""
    return os.fsencode(text).decode(errors="backslashreplace")


def curves(run: Run) -> dict[str, np.ndarray]:
    """The run's curves `(evaluations, seeds)`, by variant, game and agent if there are several."""
    evaluations, seeds = len(run.env_steps), len(run.experiment.seeds)
    table = run.values.reshape(evaluations, -1, seeds, *run.values.shape[2:])  # (evaluations, groups, seeds)
    found = {}
    several = table.shape[1] > 1
    for place, group in enumerate(run.experiment.groups if several else ("",)):
        if table.ndim == 3:
            found[group] = table[:, place]
        else:
            for agent in range(table.shape[3]):
                name = ", ".join(filter(None, (group, f"agent {agent + 1}")))
                found[name] = table[:, place, :, agent]
    return found


def smoothed(table: np.ndarray, width: int) -> np.ndarray:
    """Moving average of `table (evaluations, seeds)` over `width` evaluations; NaN stays NaN."""
    count = len(table)
    before, after = (width - 1) // 2, width // 2
    means = [
        np.nansum(window, axis=0) / np.maximum(1, np.isfinite(window).sum(axis=0))
        for window in (table[max(0, i - before) : i + after + 1] for i in range(count))
    ]
    return np.where(np.isnan(table), np.nan, means)


def last_evaluation(table: np.ndarray, run: Run) -> str:
    """The last evaluation as one line of text."""
    centre, low, high = (bound[-1] for bound in learning_curve(table[-1:]))
    steps = f"{run.env_steps[-1]:,} of {run.total_steps:,} steps"
    return f"{table.shape[1]:>5} seed(s)  {steps:<32} {centre:.4g} [{low:.4g}, {high:.4g}]"


def as_csv(env_steps: dict[str, np.ndarray], tables: dict[str, np.ndarray]) -> str:
    """One row per curve and evaluation; numbers that are not finite are left empty."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["curve", "seeds", "env_steps", "iqm", "low", "high"])
    for name, table in tables.items():
        for steps, *numbers in zip(env_steps[name], *learning_curve(table), strict=True):
            finite = [float(number) if np.isfinite(number) else "" for number in numbers]
            rows.writerow([name, table.shape[1], int(steps), *finite])
    return text.getvalue()


if __name__ == "__main__":
    cli.run(main)
