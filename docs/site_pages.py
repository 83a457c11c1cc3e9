"""MkDocs hook: the start page is README.md, the reference is made of the code, and pages of the repository's root join the site."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
sys.path += [str(ROOT), str(ROOT / "docs")]
from flow import with_pictures  # noqa: E402 - a file beside this one, which mkdocs does not make importable

from documentation.reference import pages  # noqa: E402 - of the repository, not of the package

MOVED = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md", "SECURITY.md": "security.md"}
"""Pages of the root and where the site has them."""


def on_files(files: Files, config: Any) -> Files:
    trained = json.loads((ROOT / "docs/trained.json").read_text())
    made = {"index.md": (ROOT / "README.md").read_text().replace("(docs/", "("), **pages(trained)}
    made |= {place: (ROOT / name).read_text() for name, place in MOVED.items()}
    for place, text in made.items():
        files.append(File.generated(config, place, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    for name, place in MOVED.items():
        markdown = markdown.replace(f"(../{name}", f"({place}").replace(f"({name}", f"({place}")
    markdown = with_pictures(markdown)
    return markdown.replace("(CITATION.cff)", "(https://citation-file-format.github.io)")
