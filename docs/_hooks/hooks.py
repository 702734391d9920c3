"""MkDocs hooks: pages and parts of pages that are made from the registries and the records, at build time."""

import ast
import functools
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import algorithms
import games
import notebook
import records
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from mkdocs.utils.meta import get_data
from pieces import codes

ROOT = Path(__file__).parents[2]
#: Whose modules the API pages show.
PACKAGES = ("envs", "jaxmarl_fac", "baselines")
NOTEBOOK = "notebooks/quickstart.ipynb"


@functools.cache
def all_records() -> list[records.Record]:
    """The records in results/."""
    return records.read_all(ROOT / "results")


def modules() -> list[str]:
    """Every module that has an API page, by its dotted name."""
    found = []
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            if parts[-1] != "__init__" or ast.parse(path.read_text(encoding="utf-8")).body[1:]:
                found.append(name)
    return found


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the modules into the navigation, package by package."""
    for section in config.nav or ():
        if isinstance(section, dict) and "API" in section:
            for package in PACKAGES:
                own = [name for name in modules() if name.split(".")[0] == package]
                section["API"].append({package: [{name: f"api/{name}.md"} for name in own]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what is not in docs/: results, pictures of games, API pages, the notebook, MathJax."""

    def add(name: str, content: str | bytes) -> None:
        files.append(File.generated(config, name, content=content))

    def copy(name: str, path: Path) -> None:
        files.append(File.generated(config, name, abs_src_path=str(path)))

    for record in all_records():
        add(f"results/{record.name}.md", records.page(record))
        add(f"results/{record.name}.webp", records.thumbnail(record.path.with_suffix(".png")))
        copy(f"results/{record.name}.png", record.path.with_suffix(".png"))
        copy(f"results/{record.name}.json", record.path)
    for name, _, picture in records.benchmarks(ROOT / "results"):
        if picture:
            copy(f"results/{name}.png", picture)
    for picture in records.comparison(ROOT / "results").values():
        copy(f"guides/comparison/{picture.name}", picture)
    metas = [_meta(file) for file in files.documentation_pages()]
    for name, content in games.pictures([meta for meta in metas if "games" in meta]).items():
        add(f"games/{name}", content)
    for name in modules():
        add(f"api/{name}.md", f"---\ntitle: {name}\n---\n\n::: {name}\n")
    page, pictures = notebook.as_markdown(ROOT / NOTEBOOK)
    add("guides/notebook.md", page)
    copy("guides/quickstart.ipynb", ROOT / NOTEBOOK)
    for name, content in pictures.items():
        add(f"guides/{name}", content)
    copy("assets/mathjax.js", _mathjax())
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Complete the pages of algorithms and of games, and fill in what others ask for."""
    meta = page.meta
    if "algorithms" in meta:
        _require(meta, algorithms.KEYS, page)
        head, text = _after_title(markdown)
        return f"{head}\n\n{algorithms.summary(meta['algorithms'])}\n\n{text}\n\n" + algorithms.sections(
            meta, all_records()
        )
    if "games" in meta:
        _require(meta, games.KEYS, page)
        head, text = _after_title(markdown)
        return f"{head}\n\n{text}\n\n{games.summary(meta)}\n\n{games.sections(meta)}"
    for mark, make in FILLERS.items():
        if mark in markdown:
            markdown = markdown.replace(mark, make(files))
    return markdown


def _gallery(_: Files) -> str:
    return records.gallery(all_records())


def _benchmarks(_: Files) -> str:
    parts = [
        f"## {name}\n\n{text}\n\n" + (f"![{name}]({name}.png)" if picture else "")
        for name, text, picture in records.benchmarks(ROOT / "results")
    ]
    return "\n\n".join(parts)


def _comparison(_: Files) -> str:
    shown = records.comparison(ROOT / "results").items()
    return "\n\n".join(f"![{text}](comparison/{path.name})\n\n*{text}.*" for text, path in shown)


def _algorithm_index(files: Files) -> str:
    """Every id of an algorithm, page by page."""
    lines = []
    for file in files.documentation_pages():
        meta = _meta(file)
        if "algorithms" in meta:
            lines += [
                f"## [{_title(file)}]({Path(file.src_uri).name})",
                "",
                algorithms.summary(meta["algorithms"]),
                "",
            ]
    return "\n".join(lines)


def _game_index(files: Files) -> str:
    """Every game with its picture."""
    lines = ['<div class="gallery" markdown>', ""]
    for file in files.documentation_pages():
        meta = _meta(file)
        if "games" in meta:
            page = Path(file.src_uri).name
            lines += ['<article class="record" markdown>', ""]
            if meta["pictures"]:
                lines += [f"[![{_title(file)}]({games.picture_name(meta['pictures'][0])})]({page})", ""]
            lines += [f"**[{_title(file)}]({page})**", "", codes(meta["games"]), "", "</article>", ""]
    return "\n".join([*lines, "</div>"])


FILLERS = {
    "<!-- gallery -->": _gallery,
    "<!-- benchmarks -->": _benchmarks,
    "<!-- comparison -->": _comparison,
    "<!-- algorithms -->": _algorithm_index,
    "<!-- games -->": _game_index,
}


def _meta(file: File) -> Mapping[str, Any]:
    return get_data(file.content_string)[1]  # type: ignore[no-any-return]


def _title(file: File) -> str:
    return _after_title(get_data(file.content_string)[0])[0].removeprefix("# ")


def _after_title(markdown: str) -> tuple[str, str]:
    head, _, text = markdown.lstrip().partition("\n")
    return head, text.strip()


def _require(meta: Mapping[str, Any], keys: tuple[str, ...], page: Page) -> None:
    missing = [key for key in keys if key not in meta]
    if missing:
        raise PluginError(f"{page.file.src_uri}: the front matter lacks {', '.join(missing)}")


def _mathjax() -> Path:
    """MathJax in one file, from a package of the extra `docs`: pages need no network."""
    spec = importlib.util.find_spec("mathjax")
    if spec is None or not spec.submodule_search_locations:
        raise PluginError("django-static-mathjax is missing: install the extra `docs`")
    return Path(next(iter(spec.submodule_search_locations))) / "static/mathjax/es5/tex-svg.js"
