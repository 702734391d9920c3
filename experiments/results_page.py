"""Write the results page from the records of the reproduction scripts, the benchmarks and the comparison.

python experiments/results_page.py [--results DIR]

Reads DIR/*/*.json and writes DIR/README.md: for each figure its verdict, its claim, and links to the picture
and to the record. `make docs` makes the gallery of them, with rules, numbers and provenance.
"""

import dataclasses
import json
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
        if (folder / "comparison.json").exists():
            continue
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
    comparisons = [_comparison(path) for path in sorted(options.results.glob("*/comparison.json"))]
    if not papers and not benchmarks and not comparisons:
        raise BadInputError(
            f"{options.results} holds no results: run a reproduction with --out {options.results}/PAPER"
        )
    if benchmarks:
        papers += ["## Benchmarks", "", "| benchmark | machine |", "|---|---|", *benchmarks, ""]
    if comparisons:
        head = ["| comparison | algorithms | games | IQM of normalised scores |", "|---|---|---|---|"]
        papers += ["## Comparisons", "", *head, *comparisons, ""]
    lines += papers
    write_text(options.results / "README.md", "\n".join(lines))
    print(f"written: {options.results / 'README.md'}")
    return cli.DONE


def _link(folder: str) -> str:
    """A folder's name as part of a link, with spaces and undecodable bytes escaped."""
    return quote(os.fsencode(folder))


def _comparison(path: Path) -> str:
    """A row about a comparison.

    Raises:
        BadInputError: for a file that compare.py has not written.
    """
    try:
        numbers = json.loads(path.read_text(encoding="utf-8"))
        scores = numbers["scores"]["IQM"].items()
        shown = ", ".join(f"{name} {score['value']:.2f}" for name, score in scores)
        name = path.parent.name
        pictures = ", ".join(
            f"[{picture.stem}]({_link(name)}/{picture.name})" for picture in sorted(path.parent.glob("*.png"))
        )
        algorithms, tasks = (", ".join(numbers[part]) for part in ("algorithms", "tasks"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInputError(f"{path} is not from compare.py: remove its folder, or make it anew") from error
    return f"| {name}: {pictures} | {algorithms} | {tasks} | {shown} |"


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
