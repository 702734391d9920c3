"""What is generated on the pages of algorithms: commands, settings, results, code.

The page itself, in docs/algorithms/, says in its front matter whose these are:

    algorithms: [vdn, qmix]      ids of baselines/registry.py
    example: --algo qmix --env two-step
    results: [qtran/theory]      records besides those for which one of the algorithms was trained
    code: [baselines.factored, jaxmarl_fac.mixers]
"""

import functools
import importlib
import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, get_args, get_origin

from pieces import code, codes, escaped, table
from records import Record, badge

import baselines.registry as algorithms
from baselines.families import ALGORITHM_SETTINGS, FAMILY_SETTINGS
from envs.ranges import Constraint
from jaxmarl_fac.settings import Leaf, leaves

#: The front matter that such a page must have.
KEYS = ("algorithms", "example", "code")


def sections(meta: Mapping[str, Any], records: Sequence[Record]) -> str:
    """What follows the text of a page."""
    ids = meta["algorithms"]
    used = [r for r in records if r.trained() & set(ids) or r.name in meta.get("results", ())]
    unknown = set(meta.get("results", ())) - {record.name for record in records}
    if unknown:
        raise KeyError(f"no such record: {', '.join(sorted(unknown))}")
    parts = ["## Train it", train(meta), "## Results", results(used, ids), "## Settings", settings(ids)]
    return "\n\n".join([*parts, "## Code", modules(meta["code"])])


@functools.cache
def _leaves(algorithm_id: str) -> dict[str, Leaf]:
    return leaves(algorithms.lookup(algorithm_id))


def summary(ids: Iterable[str]) -> str:
    """The ids with a line about each, for the head of a page."""
    rows = [(code(name), _about(algorithms.ALGORITHMS[name].about)) for name in ids]
    return table(("`--algo`", ""), rows)


def train(meta: Mapping[str, Any]) -> str:
    """The command that trains one of them."""
    return f"```sh\npython experiments/train.py {meta['example']}\n```"


def results(records: Sequence[Record], ids: Sequence[str]) -> str:
    """The records that show what the algorithms do."""
    if not records:
        return "No figure of the papers shows them; `compare.py` does (see [Compare](../guides/compare.md))."
    rows = [
        (
            f"[{escaped(record.title)}](../results/{record.name}.md)",
            badge(record.content["verdict"]),
            escaped(record.content["claim"]),
        )
        for record in records
    ]
    return table(("Figure", "Verdict", "Claim"), rows)


def settings(ids: Sequence[str]) -> str:
    """All settings of the algorithms, and what the families of games change."""
    found = {name: _leaves(name) for name in ids}
    names = list(dict.fromkeys(name for own in found.values() for name in own))
    rows = [
        _row(name, {each: own[name] for each, own in found.items() if name in own}, ids) for name in names
    ]
    lines = [
        "Each is a flag of `train.py` (`learning_rate` is `--learning-rate`) and a keyword of",
        "`baselines.make`.",
        "",
        table(("Setting", "Default", "Range", "Meaning"), rows),
    ]
    changes = list(_changes(ids))
    if changes:
        lines += [
            "",
            "Games come in families, each with the settings of the paper that it is from:",
            "",
            table(("Family", "Differs from the defaults"), changes),
        ]
    return "\n".join(lines)


def modules(names: Iterable[str]) -> str:
    """Links to the modules, with the first line of each one's docstring."""
    lines = []
    for name in names:
        about = (inspect.getdoc(importlib.import_module(name)) or "").partition("\n")[0]
        lines.append(f"- [`{name}`](../api/{name}.md): {escaped(about)}")
    return "\n".join(lines)


def _about(text: str) -> str:
    """A line of the registry, whose formulas are in backticks."""
    return "".join(part if i % 2 else escaped(part) for i, part in enumerate(_split_code(text)))


def _split_code(text: str) -> list[str]:
    pieces = text.split("`")
    return [f"`{piece}`" if i % 2 else piece for i, piece in enumerate(pieces)]


def _row(name: str, having: Mapping[str, Leaf], ids: Sequence[str]) -> tuple[str, str, str, str]:
    leaf = next(iter(having.values()))
    by_value: dict[str, list[str]] = {}
    for each, own in having.items():
        by_value.setdefault(shown(own.value), []).append(each)
    if len(by_value) == 1:
        default = code(next(iter(by_value)))
        if len(having) < len(ids):
            default += f" ({codes(having)})"
    else:
        default = "; ".join(f"{code(value)} ({codes(owners)})" for value, owners in by_value.items())
    return code(name), default, range_of(leaf.hint), _about(leaf.about)


def shown(value: Any) -> str:
    """A setting's value, as on the command line."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or "()"
    if isinstance(value, int) and value >= 10_000:
        return f"{value:,}"
    return str(value)


def range_of(hint: Any) -> str:
    """What a setting may be, in words."""
    if get_origin(hint) is Annotated:
        words = [each.words for each in get_args(hint)[1:] if isinstance(each, Constraint)]
        words = words or [each for each in get_args(hint)[1:] if isinstance(each, str)]
        return escaped(", ".join(words))
    if get_origin(hint) is Literal:
        return codes(get_args(hint))
    if hint is bool:
        return "yes, no"
    kinds = [kind for kind in get_args(hint) if kind is not type(None)]
    if kinds and type(None) in get_args(hint):
        return f"{range_of(kinds[0])}, or none".removeprefix(", ")
    return ""


def _changes(ids: Sequence[str]) -> Iterable[tuple[str, str]]:
    """Each family of games that changes something, and what."""
    for family in dict.fromkeys([*FAMILY_SETTINGS, *(family for _, family in ALGORITHM_SETTINGS)]):
        by_id = {}
        for name in ids:
            default = _leaves(name)
            made = {
                **FAMILY_SETTINGS.get(family, {}),
                **ALGORITHM_SETTINGS.get((name, family), {}),
            }  # as `make` does
            by_id[name] = {
                each: shown(value)
                for each, value in made.items()
                if each in default and value != default[each].value
            }
        # Settings that all who have them share are told once.
        words = []
        for setting in dict.fromkeys(each for own in by_id.values() for each in own):
            values: dict[str, list[str]] = {}
            for name, own in by_id.items():
                if setting in own:
                    values.setdefault(own[setting], []).append(name)
            for value, owners in values.items():
                having = [n for n in ids if setting in _leaves(n)]
                whose = "" if len(owners) == len(having) else f" ({codes(owners)})"
                words.append(f"`{setting}` {value}{whose}")
        if words:
            yield code(family), ", ".join(words)
