"""A notebook with its saved outputs as a page."""

import base64
import json
from pathlib import Path
from typing import Any


def as_markdown(path: Path) -> tuple[str, dict[str, bytes]]:
    """The page, and its pictures by the names of their files."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    lines: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            lines += [source, ""]
            continue
        lines += ["```python", source, "```", ""]
        for output in cell["outputs"]:
            lines += _output(output, path.stem, pictures)
    return "\n".join(lines), pictures


def _output(output: dict[str, Any], stem: str, pictures: dict[str, bytes]) -> list[str]:
    if output["output_type"] == "stream":
        return ["```text", "".join(output["text"]).rstrip(), "```", ""]
    data = output["data"]
    for kind, suffix in (("image/png", "png"), ("image/gif", "gif")):
        if kind in data:
            name = f"{stem}-{len(pictures)}.{suffix}"
            pictures[name] = base64.b64decode("".join(data[kind]))
            return [f"![{name}]({name})", ""]
    return ["```text", "".join(data["text/plain"]).rstrip(), "```", ""]
