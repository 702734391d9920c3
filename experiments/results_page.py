"""Write the page of results from the records that reproduction scripts left.

python experiments/results_page.py [--results DIR]

Reads DIR/*/*.json with their pictures and writes DIR/README.md; and, where DIR/benchmark/benchmark.md is,
its table too.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from envs.errors import BadInputError
from jaxmarl_fac import cli


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
    papers = sorted(folder for folder in options.results.glob("*") if list(folder.glob("*.png")))
    if not papers:
        raise BadInputError(
            f"{options.results} holds no results: run a reproduction with --out {options.results}/PAPER"
        )
    lines = [
        "# Results",
        "",
        "Made by `experiments/results_page.py` from the records beside the pictures.",
        "",
    ]
    for folder in papers:
        records = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
        records = [record for record in records if "verdict" in record]
        if records:
            lines += _page(folder.name, records)
    benchmarks = sorted(options.results.glob("benchmark*/benchmark.md"))
    lines += ["## Benchmark", ""] if benchmarks else []
    for table in benchmarks:
        lines += [table.read_text(), f"![{table.parent.name}]({table.parent.name}/benchmark.png)", ""]
    (options.results / "README.md").write_text("\n".join(lines))
    print(f"written: {options.results / 'README.md'}")
    return cli.DONE


def _page(paper: str, records: list[dict]) -> list[str]:
    lines = [
        f"## {paper}",
        "",
        "| figure | source | verdict | what was found | scale, seeds |",
        "|---|---|---|---|---|",
    ]
    for record in records:
        seeds = f", {record['seeds']} seeds" if record["seeds"] else ""
        lines.append(
            f"| [{record['id']}](#{paper}-{record['id']}) | {record['source']} | **{record['verdict']}** "
            f"| {record['why']} | {record['scale']}{seeds} |"
        )
    for record in records:
        versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
        lines += [
            "",
            f'<a id="{paper}-{record["id"]}"></a>',
            f"### {record['id']}: {record['claim']}",
            "",
            f"Accepted if: {record['accept']}",
            "",
            f"![{record['id']}]({paper}/{record['id']}.png)",
            "",
            f"{record['seconds']} s on {record['device']}; {versions}. All numbers: "
            f"[{record['id']}.json]({paper}/{record['id']}.json).",
        ]
    return [*lines, ""]


if __name__ == "__main__":
    cli.run(main)
