"""Adds pages from outside docs/ to the site, and adapts links: `make site` and `make lint` run it through MkDocs.

MkDocs reads pages from docs/ only, so links between docs/ and the root lose their `docs/` or `../` here.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
HOME = {"README.md": "index.md"}  # file -> page, where the names differ
PAGES = ("README.md", "CONTRIBUTING.md", "benchmarks/results.md")
LINKS = {  # as on a code host -> in the site
    "](docs/": "](",
    "](../docs/": "](../",
    "](../benchmarks/": "](benchmarks/",
    "](../CONTRIBUTING.md": "](CONTRIBUTING.md",
    "](../README.md": "](index.md",
    "](README.md": "](index.md",
}


def on_files(files: Files, config: MkDocsConfig, **_: Any) -> Files:
    """Add PAGES to the files of docs/."""
    for name in PAGES:
        files.append(File.generated(config, HOME.get(name, name), content=(ROOT / name).read_text()))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Return a page with the links of the site, and without the marks of blocks that the tests run."""
    for code_host, site in LINKS.items():
        markdown = markdown.replace(code_host, site)
    return re.sub(r"^```(console|python) test$", r"```\1", markdown, flags=re.MULTILINE)
