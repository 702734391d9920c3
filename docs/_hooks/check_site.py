"""Check the built site: every link, picture and script leads to a file of it, and every anchor exists.

python docs/_hooks/check_site.py SITE
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

#: Scripts, style sheets and pictures must come from the site itself, so that it works without a network.
LOADED = {("script", "src"), ("img", "src"), ("link", "href"), ("source", "src"), ("iframe", "src")}


class References(HTMLParser):
    """Ids and references of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect them."""
        for name, value in attrs:
            if name == "id" or (tag == "a" and name == "name"):
                self.ids.add(value or "")
            elif (tag, name) in LOADED:
                self.loaded.append(value or "")
            elif (tag, name) == ("a", "href"):
                self.links.append(value or "")


def problems(site: Path) -> list[str]:
    """A line for everything that is broken."""
    pages = {path: References() for path in sorted(site.rglob("*.html"))}
    for path, found in pages.items():
        found.feed(path.read_text(encoding="utf-8"))
    lines = []
    for path, found in pages.items():
        if path.name == "404.html":  # its links are absolute, as it is shown at any address
            continue
        lines += [
            f"{path}: {url} is loaded from elsewhere"
            for url in found.loaded
            if urlsplit(url).scheme in ("http", "https") or url.startswith("//")
        ]
        for url in [*found.links, *found.loaded]:
            parts = urlsplit(url)
            if parts.scheme or url.startswith("//"):
                continue
            address, anchor = urldefrag(unquote(url))
            target = (path.parent / address.split("?")[0]).resolve() if address else path
            target = target / "index.html" if target.is_dir() else target
            if not target.exists():
                lines.append(f"{path}: {url} leads nowhere")
            elif anchor and target in pages and anchor not in pages[target].ids:
                lines.append(f"{path}: {url} has no such anchor")
    return lines


if __name__ == "__main__":
    (folder,) = sys.argv[1:]
    found = problems(Path(folder).resolve())
    print(*found, sep="\n", end="\n" if found else "")
    sys.exit(bool(found))
