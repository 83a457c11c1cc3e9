"""No method imports another one: what two share has a module of its own, which no kind is built from."""

from __future__ import annotations

import ast
from pathlib import Path

from rsdiff import methods
from rsdiff.methods import METHODS

FOLDER = Path(methods.__file__).parent


def imported_by(file: Path) -> set[str]:
    """Return the modules that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    return found


def test_no_method_imports_another_method() -> None:
    homes = {METHODS[kind].__module__ for kind in METHODS}
    assert len(homes) > 20
    sideways = {file.name: both for file in FOLDER.rglob("*.py") if (both := imported_by(file) & homes - {f"rsdiff.methods.{file.stem}"})}
    assert sideways == {}
