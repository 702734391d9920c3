"""The whole of an `experiments/reproduce_*.py` script: its flags, its figures' records, its report."""

import dataclasses
import importlib.metadata
import json
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import jax

from envs.errors import BadInputError
from jaxmarl_fac import cli
from jaxmarl_fac.errors import DivergedError
from jaxmarl_fac.experiment import seed_numbers
from jaxmarl_fac.files import prepare_folder, write_text
from jaxmarl_fac.hosts import Hosts, as_main, on_main
from jaxmarl_fac.job import is_main, warn
from jaxmarl_fac.report.claims import Claim, Finished, Scale, Workshop
from jaxmarl_fac.report.figures import save
from jaxmarl_fac.report.page import plain, print_table, write_report
from jaxmarl_fac.report.verdicts import Verdict
from jaxmarl_fac.saved import to_json

PACKAGES = ("jax", "jaxlib", "flax", "optax", "chex", "distrax", "jumanji", "numpy", "scipy")
SCALES = get_args(Scale)


@dataclasses.dataclass(frozen=True)
class Options:
    """What every reproduction script understands.

    Attributes:
        figures: ids of the figures to make; all of them if none is given.
        scale: smoke (seconds), quick (minutes on two CPU cores), long (hours on two CPU cores) or paper (the
            paper's own budget).
        seeds: seeds per algorithm, in place of the scale's own number.
        out: folder for pictures, JSON, the report and checkpoints.
        again: make figures anew that are already done.
        list: only list the figures, their claims and their cost.
        hosts: other processes to train with.
    """

    figures: tuple[str, ...] | None = None
    scale: str = "quick"
    seeds: int | None = None
    out: Path = Path("runs")
    again: bool = False
    list: bool = False
    hosts: Hosts = dataclasses.field(default_factory=Hosts)


def main(title: str, claims: Sequence[Claim], out: Path, argv: Sequence[str]) -> int:
    """The whole of a reproduction script; returns its exit status.

    Raises:
        BadInputError: for unknown figures or scales, no seeds, or a folder that cannot be written.
    """
    options = cli.parse(Options, argv, default=Options(out=out), description=title)
    if options.list:
        for claim in claims:
            cost = ", ".join(f"{scale}: {claim.cost.get(scale, claim.cost['paper'])}" for scale in SCALES)
            print(f"{claim.id}: {claim.source}\n    claim: {claim.claim}\n    cost:  {cost}")
        return cli.DONE

    wanted = _choose(claims, options.figures)
    if options.scale not in SCALES:
        raise BadInputError(f"unknown scale {options.scale!r}: choose from {', '.join(SCALES)}")
    if options.seeds is not None:
        seed_numbers(options.seeds)  # refuses before anything is made
    on_main(lambda: prepare_folder(options.out))

    failed = []
    finished: Finished = {}
    for claim in wanted:
        path = options.out / f"{claim.id}.json"
        if not options.again and as_main(_is_done(path, options)):
            print(f"{claim.id}: done before; --again makes it anew")
            continue
        try:
            _make(claim, options, path, finished)
        except DivergedError as error:
            failed.append(claim.id)
            warn(f"{claim.id}: {error}")
    status = cli.FAILED if failed else cli.DONE
    if not is_main():
        return status
    paths = [options.out / f"{claim.id}.json" for claim in claims]
    records = read_records([path for path in paths if path.exists()])
    report = write_report(title, records, options.out)
    print_table(records)
    print(f"report: {report}")
    return status


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


def _choose(claims: Sequence[Claim], ids: Sequence[str] | None) -> list[Claim]:
    by_id = {claim.id: claim for claim in claims}
    if ids is None:
        return list(claims)
    if not ids:
        raise BadInputError(f"--figures needs ids: choose from {', '.join(by_id)}")
    for wanted in ids:
        if wanted not in by_id:
            raise BadInputError(f"unknown figure {wanted!r}: choose from {', '.join(by_id)}")
    return [by_id[wanted] for wanted in ids]


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
        and all(isinstance(record.get(key), int | float) for key in ("env_steps", "seconds"))
        and isinstance(record.get("games", record.get("seeds")), int | float)
        and isinstance(record.get("parts", {}), dict)  # records had none at first
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
    verdict, reasons = claim.rule.judge(outcome.measured)
    why = f"{outcome.why} {reasons}".strip()
    seeds = max((len(e.seeds) for e in workshop.experiments.values()), default=0)
    record = {
        "id": claim.id,
        "source": claim.source,
        "claim": claim.claim,
        "accept": claim.rule.accept,
        "scale": options.scale,
        "paper": outcome.paper,
        "ours": plain(outcome.ours),
        "measured": plain(outcome.measured),
        "parts": claim.rule.check(outcome.measured),
        "verdict": verdict,
        "why": why,
        **({"games": outcome.games} if outcome.games else {"seeds": seeds}),
        "asked_seeds": options.seeds,
        "env_steps": workshop.env_steps,
        "seconds": round(time.monotonic() - start + workshop.earlier_seconds, 1),
        "training_seconds": plain(workshop.training_seconds),
        "experiment": {name: to_json(experiment) for name, experiment in workshop.experiments.items()},
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind} ({platform.machine()})",
    }
    if is_main():
        save(outcome.figure, path.with_suffix(".png"))
    write_text(path, json.dumps(record, indent=1))
    print(f"{claim.id}: {verdict} ({record['seconds']} s). {why}", flush=True)
