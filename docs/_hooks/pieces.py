"""Pieces of Markdown that several generated pages are made of."""

import html
from collections.abc import Iterable, Sequence


def escaped(text: str) -> str:
    """Plain text as Markdown that shows it as it is, in a table too."""
    text = html.escape(text, quote=False)
    for character in "\\*_$|[]":
        text = text.replace(character, f"\\{character}")
    return text


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are Markdown already, without line breaks or bare `|`."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(" ".join(cell.split()) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def code(value: object) -> str:
    """A value as inline code, in a table too."""
    return "`" + str(value).replace("|", "\\|") + "`"


def codes(names: Iterable[object]) -> str:
    """Several of them, separated by commas."""
    return ", ".join(map(code, names))
