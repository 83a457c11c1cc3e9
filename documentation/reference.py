"""Reference pages made of the code: every group with its options, every setting with its default and sentence, every public Python name."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

import rsdiff
from documentation.method_pages import method_pages
from rsdiff.app.groups import GROUPS
from rsdiff.app.help import field_sentences
from rsdiff.config import default_values, marks_of
from rsdiff.config.reading import read_beside
from rsdiff.config.tagged import family_of
from rsdiff.runs.options import RunOptions


def pages(trained: Mapping[str, Any]) -> dict[str, str]:
    """Return the text of every page (Markdown) by its place: reference/GROUP.md, settings.md, python.md, and the pages of methods.

    trained  see documentation.method_pages
    """
    made = {f"reference/{group}.md": group_page(group, kinds) for group, kinds in GROUPS.items()}
    made["reference/settings.md"] = "# Top-level settings\n\n" + "\n".join(_rows("", RunOptions, default_values(RunOptions))) + "\n"
    made["reference/python.md"] = python_page()
    return made | method_pages(trained)


def group_page(group: str, kinds: Mapping[str, type[Any]]) -> str:
    """Return the page of a group: each kind of option with its first sentence and its settings."""
    parts = [f"# {group}=\n\nWhat every setting means; `python run.py {group}=NAME --help` prints the same for one choice."]
    for kind in sorted(kinds):
        cls = kinds[kind]
        parts.append(f"## {kind}\n\n{inspect.getdoc(cls) or ''}\n\n" + "\n".join(_rows(f"{group}.", cls, default_values(cls))))
    return "\n\n".join(parts) + "\n"


def _rows(prefix: str, cls: type[Any], values: Any) -> list[str]:
    """Return one list item per setting, nested settings under their own names."""
    sentences = field_sentences(cls)
    rows: list[str] = []
    for field, mark in marks_of(cls):
        value = values.get(field.name) if isinstance(values, Mapping) else None
        note = "" if mark is None else " *(ours)*"
        if beside := read_beside(cls, field.name):
            note += f" Read with {beside}."
        default = field.default
        family = family_of(default)
        if isinstance(value, Mapping) and (family is not None or dataclasses.is_dataclass(default)):
            choices = f" One of {', '.join(f'`{kind}`' for kind in sorted(family.kinds))}." if family is not None else ""
            rows.append(f"- `{prefix}{field.name}`: {sentences.get(field.name, '')}{choices}{note}")
            rows += _rows(f"{prefix}{field.name}.", type(default), value)
        else:
            rows.append(f"- `{prefix}{field.name}={'null' if value is None else value}`: {sentences.get(field.name, '')}{note}")
    return rows


def python_page() -> str:
    """Return the page of `import rsdiff`: signatures and docstrings of its public names."""
    parts = ["# Python\n\nWhat `import rsdiff` offers."]
    for name in rsdiff.__all__:
        value = getattr(rsdiff, name)
        if not callable(value):
            continue
        parts.append(f"## rsdiff.{name}\n\n{_described(name, value)}")
        if inspect.isclass(value):
            members = [(each, of) for each, of in vars(value).items() if not each.startswith("_") and callable(of)]
            parts += [f"### {name}.{each}\n\n{_described(each, of)}" for each, of in members]
    return "\n\n".join(parts) + "\n"


def _described(name: str, value: Any) -> str:
    return f"```text\n{name}{inspect.signature(value)}\n\n{inspect.getdoc(value) or ''}\n```"
