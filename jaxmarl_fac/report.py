"""Figures with claims and verdicts: what every `experiments/reproduce_*.py` script is made of."""

import base64
import dataclasses
import importlib.metadata
import json
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import numpy as np
from jinja2 import Environment, PackageLoader
from matplotlib.figure import Figure

from envs.errors import BadInputError
from jaxmarl_fac import cli
from jaxmarl_fac.errors import DivergedError
from jaxmarl_fac.experiment import Experiment, seed_numbers, to_json
from jaxmarl_fac.figures import save
from jaxmarl_fac.files import prepare_folder, write_text
from jaxmarl_fac.loop import Result, train

Scale = Literal["smoke", "quick", "paper"]
Verdict = Literal["reproduced", "partly", "not reproduced"]

#: What runs came to, by folder and experiment (as JSON).
Finished = dict[tuple[Path, str], Result]

PACKAGES = ("jax", "jaxlib", "flax", "optax", "chex", "distrax", "jumanji", "numpy", "scipy")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a figure came to.

    Attributes:
        figure: the picture.
        paper: the paper's numbers.
        ours: our numbers, with 95 % intervals; the same whenever the figure is made, so no times.
        verdict: computed from `ours` by the claim's rule.
        why: one or two sentences.
    """

    figure: Figure
    paper: dict[str, Any]
    ours: dict[str, Any]
    verdict: Verdict
    why: str


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

    def choose(self, *, smoke: Any, quick: Any, paper: Any) -> Any:
        """The one for the scale."""
        return {"smoke": smoke, "quick": quick, "paper": paper}[self.scale]

    def seeds(self, *, smoke: int, quick: int, paper: int) -> tuple[int, ...]:
        """Seed numbers: as many as the user asked for, else the scale's."""
        return seed_numbers(self._seeds or self.choose(smoke=smoke, quick=quick, paper=paper))

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
        accept: the rule by which a reproduction counts, written before the run.
        cost: an estimate for each scale.
        make: does the work.
    """

    id: str
    source: str
    claim: str
    accept: str
    cost: Mapping[Scale, str]
    make: Callable[[Workshop], Outcome]


@dataclasses.dataclass(frozen=True)
class Options:
    """What every reproduction script understands.

    Attributes:
        figures: ids of the figures to make; all of them if none is given.
        scale: smoke (seconds), quick (minutes on two CPU cores) or paper (the paper's own budget).
        seeds: seeds per algorithm, in place of the scale's own number.
        out: folder for pictures, JSON, the report and checkpoints.
        again: make figures anew that are already done.
        list: only list the figures, their claims and their cost.
    """

    figures: tuple[str, ...] = ()
    scale: str = "quick"
    seeds: int | None = None
    out: Path = Path("runs")
    again: bool = False
    list: bool = False


def main(title: str, claims: Sequence[Claim], out: Path, argv: Sequence[str]) -> int:
    """The whole of a reproduction script; returns its exit status.

    Raises:
        BadInputError: for unknown figures or scales, no seeds, or a folder that cannot be written.
    """
    options = cli.parse(Options, argv, default=Options(out=out), description=title)
    if options.list:
        for claim in claims:
            cost = ", ".join(f"{scale}: {estimate}" for scale, estimate in claim.cost.items())
            print(f"{claim.id}: {claim.source}\n    claim: {claim.claim}\n    cost:  {cost}")
        return cli.DONE

    wanted = _choose(claims, options.figures)
    if options.scale not in ("smoke", "quick", "paper"):
        raise BadInputError(f"unknown scale {options.scale!r}: choose smoke, quick or paper")
    if options.seeds is not None:
        seed_numbers(options.seeds)  # refuses before anything is made
    prepare_folder(options.out)

    failed = []
    finished: Finished = {}
    for claim in wanted:
        path = options.out / f"{claim.id}.json"
        if not options.again and _is_done(path, options):
            print(f"{claim.id}: done before; --again makes it anew")
            continue
        try:
            _make(claim, options, path, finished)
        except DivergedError as error:
            failed.append(claim.id)
            print(f"{claim.id}: {error}", file=sys.stderr)
    paths = [options.out / f"{claim.id}.json" for claim in claims]
    records = read_records([path for path in paths if path.exists()])
    report = write_report(title, records, options.out)
    print_table(records)
    print(f"report: {report}")
    return cli.FAILED if failed else cli.DONE


def read_record(path: Path) -> dict[str, Any]:
    """The record of a figure.

    Raises:
        BadInputError: if the file holds none, or the picture beside it is missing.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        record = None
    if not _is_record(record, path.stem):
        raise BadInputError(f"{path} is no record of this suite: remove it, or make it anew with its script")
    if not _is_picture(path.with_suffix(".png")):
        raise BadInputError(f"{path} has no picture beside it: make both anew with their script")
    return record  # type: ignore[no-any-return]


def read_records(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """The records of figures; what is none is left out, with a line on stderr."""
    records = []
    for path in paths:
        try:
            records.append(read_record(path))
        except BadInputError as error:
            print(f"left out of the report: {error}", file=sys.stderr)
    return records


def write_report(title: str, records: Sequence[Mapping[str, Any]], folder: Path) -> Path:
    """One self-contained page with every figure beside its claim and verdict."""
    pictures = {r["id"]: base64.b64encode((folder / f"{r['id']}.png").read_bytes()).decode() for r in records}
    environment = Environment(loader=PackageLoader("jaxmarl_fac"), autoescape=True, trim_blocks=True)
    environment.filters["pretty"] = _pretty
    page = environment.get_template("report.html.j2").render(title=title, records=records, pictures=pictures)
    path = folder / "report.html"
    write_text(path, page)
    return path


def print_table(records: Sequence[Mapping[str, Any]]) -> None:
    """Ids, verdicts and reasons on the terminal."""
    for record in records:
        print(f"{record['id']:<10} {record['verdict']:<15} {record['scale']:<6} {record['why']}")


def _choose(claims: Sequence[Claim], ids: Sequence[str]) -> list[Claim]:
    by_id = {claim.id: claim for claim in claims}
    for wanted in ids:
        if wanted not in by_id:
            raise BadInputError(f"unknown figure {wanted!r}: choose from {', '.join(by_id)}")
    return [by_id[wanted] for wanted in ids] or list(claims)


def _is_done(path: Path, options: Options) -> bool:
    try:
        record = read_record(path)
    except BadInputError:
        return False
    return bool(record["scale"] == options.scale and record["asked_seeds"] == options.seeds)


def _is_record(record: Any, name: str) -> bool:
    texts = ("id", "source", "claim", "accept", "scale", "verdict", "why", "device")
    return (
        isinstance(record, dict)
        and record.keys() >= {"paper", "ours", "asked_seeds"}
        and all(isinstance(record.get(key), str) for key in texts)
        and all(isinstance(record.get(key), int | float) for key in ("seeds", "env_steps", "seconds"))
        and isinstance(record.get("versions"), dict)
        and record["verdict"] in get_args(Verdict)
        and record["id"] == name
    )


def _is_picture(path: Path) -> bool:
    try:
        return path.read_bytes().startswith(b"\x89PNG")
    except OSError:
        return False


def _make(claim: Claim, options: Options, path: Path, finished: Finished) -> None:
    print(f"{claim.id}: {claim.claim}", flush=True)
    workshop = Workshop(options.scale, options.seeds, options.out, finished)  # type: ignore[arg-type]
    start = time.monotonic()
    outcome = claim.make(workshop)
    record = {
        "id": claim.id,
        "source": claim.source,
        "claim": claim.claim,
        "accept": claim.accept,
        "scale": options.scale,
        "paper": outcome.paper,
        "ours": plain(outcome.ours),
        "verdict": outcome.verdict,
        "why": outcome.why,
        "seeds": max((len(e.seeds) for e in workshop.experiments.values()), default=0),
        "asked_seeds": options.seeds,
        "env_steps": workshop.env_steps,
        "seconds": round(time.monotonic() - start + workshop.earlier_seconds, 1),
        "training_seconds": plain(workshop.training_seconds),
        "experiment": {name: to_json(experiment) for name, experiment in workshop.experiments.items()},
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind} ({platform.machine()})",
    }
    save(outcome.figure, path.with_suffix(".png"))
    write_text(path, json.dumps(record, indent=1))
    print(f"{claim.id}: {outcome.verdict} ({record['seconds']} s). {outcome.why}", flush=True)


def plain(value: Any) -> Any:
    """NumPy numbers, arrays and intervals as what JSON can hold; numbers rounded to six digits."""
    if hasattr(value, "to_json"):
        return plain(value.to_json())
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        return plain(np.asarray(value).tolist())
    if isinstance(value, float):
        return float(f"{value:.6g}") if np.isfinite(value) else None
    return value


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=1)
