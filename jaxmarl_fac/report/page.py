"""Records as one HTML page and as a table on the terminal."""

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jinja2 import Environment, PackageLoader

from jaxmarl_fac.files import write_text


def write_report(title: str, records: Sequence[Mapping[str, Any]], folder: Path) -> Path:
    """One self-contained page with every figure beside its claim and verdict."""
    pictures = {r["id"]: base64.b64encode((folder / f"{r['id']}.png").read_bytes()).decode() for r in records}
    environment = Environment(loader=PackageLoader("jaxmarl_fac.report"), autoescape=True, trim_blocks=True)
    environment.filters["pretty"] = _pretty
    page = environment.get_template("report.html.j2").render(title=title, records=records, pictures=pictures)
    path = folder / "report.html"
    write_text(path, page)
    return path


def print_table(records: Sequence[Mapping[str, Any]]) -> None:
    """Ids, verdicts and reasons on the terminal."""
    for record in records:
        print(f"{record['id']:<10} {record['verdict']:<15} {record['scale']:<6} {record['why']}")


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
