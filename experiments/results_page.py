"""Write the results page from the records of the reproduction scripts.

python experiments/results_page.py [--results DIR]

Reads DIR/*/*.json and writes DIR/README.md: for each figure its verdict, its claim, and links to the picture
and to the record. `make docs` makes the gallery of them, with rules, numbers and provenance.
"""

import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from envs.errors import BadInputError
from jaxmarl_fac import cli
from jaxmarl_fac.files import write_text
from jaxmarl_fac.report.script import read_records


@dataclasses.dataclass(frozen=True)
class Options:
    """Where the results are.

    Attributes:
        results: folder with one folder for each paper.
    """

    results: Path = Path("results")


def main(argv: Sequence[str]) -> int:
    """Write the page; returns the exit status."""
    options = cli.parse(Options, argv, description=__doc__)
    lines = [
        "# Results",
        "",
        "Made by `experiments/results_page.py` from the records beside the pictures. `make docs` shows each",
        "with what was found, the rule, all numbers, the command and the versions.",
        "",
    ]
    try:
        folders = sorted(path for path in options.results.iterdir() if path.is_dir())
    except OSError as error:
        raise BadInputError(f"{options.results} cannot be read: {error.strerror}") from error
    papers = []
    for folder in folders:
        files = sorted(path for path in folder.glob("*.json") if path.name != "benchmark.json")
        if records := read_records(files):
            papers += _page(folder.name, records)
    benchmarks = []
    for path in sorted(options.results.glob("benchmark*/benchmark.md")):
        name = path.parent.name
        try:
            about = path.read_text(encoding="utf-8").partition("\n")[0]
        except (OSError, ValueError):
            print(f"left out: {path} cannot be read as text: run benchmark.py again", file=sys.stderr)
            continue
        benchmarks.append(f"| [{name}]({_link(name)}/benchmark.md) | {about} |")
    if not papers and not benchmarks:
        raise BadInputError(
            f"{options.results} holds no results: run a reproduction with --out {options.results}/PAPER"
        )
    if benchmarks:
        papers += ["## Benchmarks", "", "| benchmark | machine |", "|---|---|", *benchmarks, ""]
    lines += papers
    write_text(options.results / "README.md", "\n".join(lines))
    print(f"written: {options.results / 'README.md'}")
    return cli.DONE


def _link(folder: str) -> str:
    """A folder's name as part of a link, with spaces and undecodable bytes escaped."""
    return quote(os.fsencode(folder))


def _page(paper: str, records: list[dict]) -> list[str]:
    folder = _link(paper)
    lines = [f"## {paper}", "", "| figure | verdict | claim | scale |", "|---|---|---|---|"]
    for record in records:
        seeds = f", {record['seeds']} seeds" if record.get("seeds") else ""
        seeds += f", {record['games']} games" if record.get("games") else ""
        lines.append(
            f"| [{record['id']}]({folder}/{record['id']}.png) ([record]({folder}/{record['id']}.json)) "
            f"| **{record['verdict']}** | {record['claim']} | {record['scale']}{seeds} |"
        )
    return [*lines, ""]


if __name__ == "__main__":
    cli.run(main)
