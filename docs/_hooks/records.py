"""The records in results/: pages, cards of the gallery, and who was trained for them."""

import dataclasses
import functools
import io
import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pieces import code, codes, escaped, table
from PIL import Image

import baselines.registry as algorithms
from jaxmarl_fac.report.script import read_record
from jaxmarl_fac.saved import from_json

#: The folders of results/, in the order of the gallery, and what is reproduced there.
PAPERS = {
    "qtran": "QTRAN (Son et al., 2019)",
    "qplex": "QPLEX (Wang et al., 2021)",
    "remix": "ReMIX (Mei et al., 2023)",
    "fqi": "Factored fitted Q-iteration (Wang et al., 2021)",
    "ltql": "Logical Team Q-learning (Cassano and Sayed, 2021)",
    "memarl": "Opponent modelling: PR2, ROMMEO, Balancing-Q, MAVEN",
    "options": "Soft options",
    "belief": "Hidden state and public beliefs",
}
VERDICTS = ("reproduced", "partly", "not reproduced", "undecided")
#: Numbers of a record are shown up to this length of JSON; the rest is in the record itself.
MAX_NUMBERS = 4000
THUMBNAIL = (560, 420)  # pixels at the most


@dataclasses.dataclass(frozen=True)
class Record:
    """One record of results/.

    Attributes:
        paper: its folder in results/.
        content: the JSON.
        path: of the JSON file.
    """

    paper: str
    content: Mapping[str, Any]
    path: Path

    @property
    def name(self) -> str:
        """Such as qtran/fig4a."""
        return f"{self.paper}/{self.content['id']}"

    @property
    def title(self) -> str:
        """What is reproduced, without the numbers of a list that is not part of the suite."""
        return without_register(self.content["source"])

    @property
    def command(self) -> str:
        """The command that makes it anew."""
        parts = ["python", f"experiments/reproduce_{self.paper}.py", "--figures", self.content["id"]]
        parts += ["--scale", self.content["scale"]]
        if self.content["asked_seeds"]:
            parts += ["--seeds", str(self.content["asked_seeds"])]
        return shlex.join(parts)

    def trained(self) -> set[str]:
        """The ids of the algorithms that were trained for it."""
        found = set()
        for experiment in self.content["experiment"].values():
            for value in _algorithms(experiment["algorithm"]):
                found.add(value)
        return found


def read_all(results: Path) -> list[Record]:
    """All records, paper by paper.

    Raises:
        BadInputError: for a file that is none.
    """
    found = []
    for paper in PAPERS:
        for path in sorted((results / paper).glob("*.json")):
            found.append(Record(paper, read_record(path), path))
    return found


def without_register(text: str) -> str:
    """Without references such as (R5) and (FACTS.md 10.6), to lists that are not part of the suite."""
    text = re.sub(r" by FACTS [\d.]+| \(FACTS\.md [\d.]+\)", "", text)
    return re.sub(r"\s*\((?:R\d+(?:; )?)([^)]*)\)", lambda rest: f" ({rest[1]})" if rest[1] else "", text)


def _algorithms(saved: Mapping[str, Any]) -> Iterator[str]:
    """The ids of a saved algorithm: one, or those of both sides of a match."""
    key = json.dumps(saved, sort_keys=True)
    yield from _ids(key)


@functools.cache
def _ids(saved: str) -> tuple[str, ...]:
    algorithm = from_json(json.loads(saved))
    name = algorithms.id_of(algorithm)
    if name is not None:
        return (name,)
    rules = [getattr(algorithm, side, None) for side in ("row", "column")]
    found = []
    for rule in rules:
        for name, entry in algorithms.ALGORITHMS.items():
            if rule is not None and getattr(entry.algorithm, "rule", None) == rule:
                found.append(name)
                break
        else:
            found += [
                name
                for name, entry in algorithms.ALGORITHMS.items()
                if type(getattr(entry.algorithm, "rule", None)) is type(rule)
            ][:1]
    return tuple(found)


def badge(verdict: str) -> str:
    """A verdict in its colour."""
    return f'<span class="verdict {verdict.replace(" ", "-")}">{verdict}</span>'


def thumbnail(picture: Path) -> bytes:
    """A smaller copy of a picture, as WebP."""
    with Image.open(picture) as image:
        small = image.convert("RGB")
        small.thumbnail(THUMBNAIL)
    file = io.BytesIO()
    small.save(file, "WEBP", quality=82)
    return file.getvalue()


def gallery(records: Iterable[Record]) -> str:
    """The cards of all records, with the controls that filter them."""
    records = list(records)
    counts = {verdict: sum(r.content["verdict"] == verdict for r in records) for verdict in VERDICTS}
    lines = [
        '<div class="filters">',
        '<label>Paper <select id="filter-paper"><option value="">all</option>',
        *(f'<option value="{paper}">{title}</option>' for paper, title in PAPERS.items()),
        "</select></label>",
        '<label>Verdict <select id="filter-verdict"><option value="">all</option>',
        *(f'<option value="{verdict}">{verdict} ({counts[verdict]})</option>' for verdict in VERDICTS),
        "</select></label>",
        f'<span id="filter-count">{len(records)} of {len(records)}</span>',
        "</div>",
        "",
        '<div class="gallery" markdown>',
        "",
    ]
    for record in records:
        content = record.content
        data = f'data-paper="{record.paper}" data-verdict="{content["verdict"]}"'
        lines += [
            f'<article class="record" {data} markdown>',
            "",
            f"[![{content['id']}]({record.name}.webp){{ loading=lazy }}]({record.name}.md)",
            "",
            f"{badge(content['verdict'])} [{escaped(record.title)}]({record.name}.md)",
            "",
            escaped(without_register(content["claim"])),
            "",
            "</article>",
            "",
        ]
    return "\n".join([*lines, "</div>", ""])


def page(record: Record) -> str:
    """The page of one record."""
    content = record.content
    versions = ", ".join(f"{name} {version}" for name, version in content["versions"].items())
    size = [f"{content['seeds']} seeds" if content.get("seeds") else ""]
    size += [f"{content['games']:,} random games" if content.get("games") else ""]
    size += [f"{content['env_steps']:,} environment steps" if content["env_steps"] else ""]
    trained = sorted(record.trained(), key=list(algorithms.ALGORITHMS).index)
    lines = [
        "---",
        f"title: {json.dumps(record.title)}",
        "hide: [toc]",
        "---",
        "",
        f"# {escaped(record.title)}",
        "",
        f"{badge(content['verdict'])} &nbsp; {escaped(PAPERS[record.paper])}",
        "",
        f"**Claim.** {escaped(without_register(content['claim']))}",
        "",
        f"![{content['id']}]({content['id']}.png)",
        "",
        f"**What was found.** {escaped(without_register(content['why']))}",
        "",
        f"**The rule, written before the run.** {escaped(without_register(content['accept']))}",
        "",
        *_parts(content),
        "```sh",
        record.command,
        "```",
        "",
        table(
            ("", ""),
            [
                ("Scale", ", ".join(filter(None, [code(content["scale"]), *size]))),
                ("Time", f"{content['seconds']:,} s on {escaped(content['device'])}"),
                ("Versions", escaped(versions)),
                ("Record", f"[{content['id']}.json]({content['id']}.json)"),
                *([("Trained", codes(trained))] if trained else []),
            ],
        ),
        "",
        *_numbers(content),
        "",
        "[All results](../index.md)",
        "",
    ]
    return "\n".join(lines)


def _parts(content: Mapping[str, Any]) -> list[str]:
    """A table of the rule's parts, each with what was measured for it."""
    parts, measured = content.get("parts") or {}, content.get("measured") or {}
    if not parts:
        return []
    rows = []
    for sentence, holds in parts.items():
        names = [name for name in measured if sentence.startswith(name)]
        found = _number(measured[max(names, key=len)]) if names else ""
        rows.append((escaped(sentence), found, "yes" if holds else "**no**"))
    return [table(("Part of the rule", "Measured", "Holds"), rows), ""]


def _number(value: Any) -> str:
    if isinstance(value, Mapping) and "value" in value:
        low, high = value.get("low"), value.get("high")
        around = (
            "" if low is None or low == high == value["value"] else f" \\[{_plain(low)}, {_plain(high)}\\]"
        )
        return _plain(value["value"]) + around
    return _plain(value)


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return (
        f"{value:.4g}" if isinstance(value, int | float) else escaped(json.dumps(value, ensure_ascii=False))
    )


def _numbers(content: Mapping[str, Any]) -> list[str]:
    """The paper's numbers and ours, folded away."""
    lines = []
    for title, key in (("The paper's numbers", "paper"), ("Our numbers", "ours")):
        if not content[key]:
            continue
        text = _compact(content[key])
        if len(text) > MAX_NUMBERS:
            text = (
                text[: text.rfind("\n", 0, MAX_NUMBERS)] + f"\n... (all of them are in {content['id']}.json)"
            )
        block = ["```json", *text.splitlines(), "```"]
        lines += ["", f'??? note "{title}"', "", *(f"    {line}" for line in block)]
    return lines


def _compact(value: Any, indent: int = 0) -> str:
    """JSON with what fits into a line on one line."""
    flat = json.dumps(value, ensure_ascii=False)
    if len(flat) + indent <= 100 or not isinstance(value, dict | list) or not value:
        return flat
    if isinstance(value, list) and not any(isinstance(item, dict | list) for item in value):
        return flat
    inner = " " * (indent + 1)
    if isinstance(value, dict):
        items = [f"{json.dumps(k, ensure_ascii=False)}: {_compact(v, indent + 1)}" for k, v in value.items()]
        opening, closing = "{", "}"
    else:
        items = [_compact(item, indent + 1) for item in value]
        opening, closing = "[", "]"
    return f"{opening}\n" + ",\n".join(inner + item for item in items) + f"\n{' ' * indent}{closing}"


def benchmarks(results: Path) -> list[tuple[str, str, Path | None]]:
    """The name, the table and, where there is one, the picture of every benchmark."""
    found = []
    for path in sorted(results.glob("benchmark*/benchmark.md")):
        picture = path.with_suffix(".png")
        found.append(
            (path.parent.name, path.read_text(encoding="utf-8"), picture if picture.exists() else None)
        )
    return found


def comparison(results: Path) -> dict[str, Path]:
    """The pictures of the committed comparison, in the order of its report, by what they show."""
    shown = {
        "aggregates": "Normalised scores over all games, with 95 % stratified bootstrap intervals",
        "profiles": "Performance profiles and sample efficiency",
        "improvements": "Probabilities of improvement",
        "curves": "Learning curves",
    }
    paths = {text: results / "comparison" / f"{name}.png" for name, text in shown.items()}
    return {text: path for text, path in paths.items() if path.exists()}
