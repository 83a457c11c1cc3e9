"""A page of the documentation per method, made of the code: its docstring, its options, experiments, tables and importable files."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

import rsdiff
from rsdiff.app.groups import GROUPS
from rsdiff.app.help import field_sentences
from rsdiff.config import marks_of
from rsdiff.data.frames import markdown_of
from rsdiff.weights.keymaps import KEY_MAPS
from rsdiff.weights.releases import release_of

CONF = (Path(rsdiff.__file__).parent / "conf").resolve()
NAMES = (
    "`model=NAME` is the published configuration, `NAME_tiny` the same in smaller sizes, `NAME_quick` a variant of ours for small budgets."
)

MEASURED = (
    "A fresh network of the small configuration, trained with the published objective on textures whose best answer is known, relative "
    "to that answer: 1 is perfect for an estimate or a loss. [Fresh networks against the best answer](../trained.md) explains the columns."
)


def method_pages(trained: Mapping[str, Any]) -> dict[str, str]:
    """Return the text (Markdown) of method/index.md and of method/KIND.md for every kind of model.

    trained  what `make trained-page` measured: heads of a table, and by model its rows and the place of a picture under docs/
    """
    options: dict[str, list[str]] = {}
    for path in sorted((CONF / "model").glob("*.yaml")):
        options.setdefault(kind_of(path.stem), []).append(path.stem)
    made = {f"method/{kind}.md": page_of(kind, options[kind], trained) for kind in sorted(options)}
    chosen = {kind: ", ".join(f"`{name}`" for name in names) for kind, names in options.items()}
    rows = [f"| [{kind}]({kind}.md) | {summary_of(kind)} | {chosen[kind]} |" for kind in sorted(options)]
    index = ["# Methods", "", NAMES, "", "| kind | what it is | `model=` |", "|---|---|---|", *rows]
    return {"method/index.md": "\n".join(index) + "\n", **made}


@cache
def kind_of(option: str) -> str:
    """Return the kind of an option of the group model, which its file names or takes from the one it extends."""
    content = yaml.safe_load((CONF / "model" / f"{option}.yaml").read_text())
    if "kind" in content:
        return str(content["kind"])
    (base,) = [entry for entry in content["defaults"] if isinstance(entry, str) and not entry.startswith("/") and entry != "_self_"]
    return kind_of(base)


def summary_of(kind: str) -> str:
    """Return the first sentence of a method's module, or of its own options where several methods share the module."""
    shared = sum(GROUPS["model"][other].__module__ == GROUPS["model"][kind].__module__ for other in GROUPS["model"]) > 1
    text = (inspect.getdoc(GROUPS["model"][kind]) or "") if shared else docstring_of(kind)
    return " ".join((text.split("\n\n")[0]).split()).replace("|", "\\|")


def docstring_of(kind: str) -> str:
    return inspect.cleandoc(importlib.import_module(GROUPS["model"][kind].__module__).__doc__ or "")


def page_of(kind: str, options: list[str], trained: Mapping[str, Any]) -> str:
    """Return the page of one method."""
    head, _, more = docstring_of(kind).partition("\n\n")
    parts = [f"# {kind}", *dict.fromkeys([summary_of(kind), " ".join(head.split())]), listed(more)]
    parts += ["## Configurations", "\n".join(f"- `model={name}`: {comment_of(CONF / 'model' / f'{name}.yaml')}" for name in options)]
    ours = ours_of(GROUPS["model"][kind])
    if ours:
        parts += [
            "## What is ours",
            "Settings that the published method does not have. With their defaults the model is the published one.",
            "\n".join(ours),
        ]
    experiments = list(experiments_of(options))
    if experiments:
        parts += ["## Experiments", "\n".join(f"- `experiments={name}`: {comment}" for name, comment in experiments)]
    tables = list(tables_of(options))
    if tables:
        parts += ["## Published tables", "\n".join(f"- `sweeps=tables/{name}`: {title}" for name, title in tables)]
    measured = [trained["models"][name] for name in options if name in trained["models"]]
    if measured:
        parts += ["## Measured", MEASURED, without_empty_columns(trained["heads"], [row for found in measured for row in found["rows"]])]
        parts += [f"![Distance from the best answer by training step](../{found['picture']})" for found in measured if found["picture"]]
    if kind in KEY_MAPS:
        parts += ["## Released weights", *released(kind, options), imports_of(kind, options[0])]
    parts.append(f"Every setting: [reference](../reference/model.md#{kind}), or `python run.py model={options[0]} --help`.")
    return "\n\n".join(part for part in parts if part) + "\n"


def without_empty_columns(heads: list[str], rows: list[list[str]]) -> str:
    """Return a table of those columns in which some row has a value."""
    kept = [index for index in range(len(heads)) if any(row[index] != "-" for row in rows)]
    return markdown_of([heads[index] for index in kept], [[row[index] for index in kept] for row in rows])


def released(kind: str, options: list[str]) -> list[str]:
    """Return a list of the addresses from which authors offer weights, or nothing."""
    found: dict[str, list[str]] = {}
    for option in options:
        release = release_of(option, kind)
        if release is not None and release.weights and not option.endswith(("_tiny", "_quick")):
            told = f"[{release.repository}]({release.address}) (licence of the code: {release.licence}), [weights]({release.weights})"
            found.setdefault(told, []).append(f"`{option}`")
    return ["\n".join(f"- {', '.join(names)}: {told}" for told, names in found.items())] if found else []


def listed(text: str) -> str:
    """Return the rest of a docstring as Markdown, with its lists set apart from the lines before them."""
    return re.sub(r"(?m)^(?!- |  )(.+)\n(- )", r"\1\n\n\2", text)


def ours_of(cls: type[Any], prefix: str = "model") -> list[str]:
    """Return a list item per setting that the published method does not have."""
    sentences = field_sentences(cls)
    return [f"- `{prefix}.{field.name}`: {sentences.get(field.name, '')}" for field, mark in marks_of(cls) if mark is not None]


def experiments_of(options: list[str]) -> Iterator[tuple[str, str]]:
    """Yield (name, comment) of every experiment that chooses one of the options, also through one that it extends."""
    root = CONF / "experiments"
    models = {path.relative_to(root).with_suffix("").as_posix(): model_of(path) for path in root.rglob("*.yaml")}
    for name in sorted(models):
        if models[name] in options:
            yield name, comment_of(root / f"{name}.yaml")


def model_of(path: Path) -> str | None:
    """Return the model that an experiment's file chooses, or the one it extends."""
    content: Mapping[str, Any] = yaml.safe_load(path.read_text()) or {}
    chosen = None
    for entry in content.get("defaults", []):
        if isinstance(entry, str) and entry.startswith("/experiments/"):
            chosen = model_of(CONF / f"{entry[1:]}.yaml")
        elif isinstance(entry, Mapping) and "override /model" in entry:
            return str(entry["override /model"])
    return chosen


def tables_of(options: list[str]) -> Iterator[tuple[str, str]]:
    """Yield (name, title) of every published table with a row of one of the options."""
    for path in sorted((CONF / "sweeps/tables").glob("*.yaml")):
        text = path.read_text()
        if any(re.search(rf"\bmodel[:=] ?{re.escape(name)}\b", text) for name in options):
            yield path.stem, str(yaml.safe_load(text)["task"]["table"]["title"])


def imports_of(kind: str, option: str) -> str:
    """Return how released files become checkpoints, and what the module of their names says of them."""
    described = inspect.cleandoc(importlib.import_module(type(KEY_MAPS[kind]).__module__).__doc__ or "")
    return f"```bash\npython run.py task=import model={option} source=FILE\n```\n\n{listed(described)}"


def comment_of(path: Path) -> str:
    """Return the comment at the head of a YAML file, without Hydra's own lines."""
    lines = []
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            break
        if "@package" not in line:
            lines.append(line.removeprefix("#").strip())
    # A command has no full stop, so that it can be copied; a sentence may begin on the next line.
    return re.sub(r"(=\S*\w)\n(?=[A-Z])", r"\1. ", "\n".join(lines)).replace("\n", " ")
