"""`python run.py --help`: the groups with their options, examples, and what each option of a chosen component means."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rsdiff.app.command_line import compose_command, composing
from rsdiff.app.diagnosis import options_of_group
from rsdiff.app.groups import GROUPS
from rsdiff.app.words import Words, present_words
from rsdiff.config import ConfigError, Ours, default_values, marks_of
from rsdiff.config.ours import typed
from rsdiff.config.reading import read_beside, unread_beside
from rsdiff.config.tagged import family_of
from rsdiff.runs.command import next_command
from rsdiff.runs.errors import CONFIG_ERROR, OK, print_error
from rsdiff.runs.options import RunOptions

INTRODUCTION = """\
rsdiff: composable experiments in remote-sensing super-resolution.

  python run.py                                                a small network on generated scenes: train, evaluate, report
  python run.py model=sr3 degradation=iso scale=4              an option of each group; model=NAME is the published configuration
  python run.py trainer.steps=2000 trainer.batch=8             any setting
  python run.py dataset=folder dataset.root=/data/AIRS         your images
  python run.py task=evaluate checkpoint=RUN_FOLDER            everything you do not override is taken from the checkpoint
  python run.py task=restore checkpoint=RUN_FOLDER input=scene.tif output=scene_x4.tif
  python run.py task=restore checkpoint=zoo:any_scale input=photo.png output=photo_x4.png
  python run.py task=prepare dataset=folder source=/data/AIRS output=airs.h5
  python run.py task=preview degradation=bsrgan
  python run.py task=import model=sr3 source=released_weights.pth
  python run.py -m scale=2,4 seed=0,1                          a sweep; hydra/launcher=joblib or slurm spreads it
  python run.py task=board                                     one page of all runs, to sort, filter and compare
  python run.py task=status                                    the state of every run of a sweep
  accelerate launch run.py model=sr3                           several GPUs or nodes

  python run.py model=sr3 --help                               what every setting of a choice means
  python run.py --cfg job                                      the composed settings

The same command again continues an unfinished run and reports a finished one.
"""


def print_help(conf: Path, words: Words) -> int:
    """Print the general help, or, with choices before --help, the options of what they choose; return the exit code."""
    with composing(conf, words.config_folders):
        if words.overrides:
            return _print_choices([present for word in words.overrides for present in present_words(word)])
        print(INTRODUCTION.replace("python run.py", next_command()))
        print("Groups and their options (group=option):")
        for group in (*GROUPS, "experiments", "sweeps"):
            _print_names(group, options_of_group(group))
    print("\nTop-level settings (name=value):")
    _print_options("", RunOptions, default_values(RunOptions))
    return OK


def field_sentences(cls: type[Any]) -> dict[str, str]:
    """Return the sentence written below each field of a config class or of the classes it extends."""
    sentences = {}
    for owner in reversed([base for base in cls.__mro__ if dataclasses.is_dataclass(base)]):
        tree = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]
        assert isinstance(tree, ast.ClassDef)
        for statement, following in zip(tree.body, tree.body[1:], strict=False):
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and isinstance(following, ast.Expr):
                sentences[statement.target.id] = " ".join(str(ast.literal_eval(following.value)).split())
    return sentences


def _print_choices(overrides: Sequence[str]) -> int:
    """Print what the command line chooses, whether or not it lacks something that a run would need."""
    try:
        composed = compose_command(overrides)
        named = [group for group in GROUPS if any(override.split("=")[0] == group for override in overrides)]
        chosen: dict[str, Any] = {group: _values(composed[group]) for group in named}
    except ConfigError as error:
        print_error(error)
        return CONFIG_ERROR
    for group, values in chosen.items():
        cls = GROUPS[group][values["kind"]]
        print(f"{group}={composed.hydra.runtime.choices[group]}: {(inspect.getdoc(cls) or '').splitlines()[0]}")
        _print_options(f"{group}.", cls, values)
    return OK


def _values(options: DictConfig) -> Any:
    """Return an option's values; as its files have them where one cannot be resolved (an environment variable that is not set)."""
    try:
        return OmegaConf.to_container(options, resolve=True)
    except OmegaConfBaseException:
        return OmegaConf.to_container(options)


def _print_options(prefix: str, cls: type[Any], values: Any, hidden: Collection[str] = ()) -> None:
    """Print the options that are read beside the values, but for `hidden` ones; the others are named with what they need."""
    sentences, unread = field_sentences(cls), unread_beside(cls, values)
    for field, mark in marks_of(cls):
        if field.name in unread or field.name in hidden:
            continue
        value = values[field.name]
        default = field.default
        if isinstance(value, dict) and (family := family_of(default)) is not None:
            kinds = ", ".join(sorted(family.kinds))
            print(f"  {prefix}{field.name}={value['kind']}: {sentences.get(field.name, '')} One of {kinds}.{_note(mark)}")
            _print_options(f"{prefix}{field.name}.", family.class_of(value["kind"]), value)
        elif isinstance(value, dict) and dataclasses.is_dataclass(default):
            print(f"  {prefix}{field.name}: {sentences.get(field.name, '')}")
            inside = [option.removeprefix(f"{field.name}.") for option in unread]
            _print_options(f"{prefix}{field.name}.", type(default), value, inside)
        else:
            print(f"  {prefix}{field.name}={'null' if value is None else value}: {sentences.get(field.name, '')}{_note(mark)}")
    needs: dict[str, list[str]] = {}
    for option in unread:
        needs.setdefault(read_beside(cls, option), []).append(option)
    told = "; ".join(f"{', '.join(options)} (with {beside})" for beside, options in needs.items() if beside)
    if told:
        print(textwrap.fill(f"{prefix}* not read beside these: {told}", 140, initial_indent="  ", subsequent_indent="    "))


def _note(mark: Ours | None) -> str:
    if mark is None:
        return ""
    known = f"with another value than {' and '.join(map(typed, mark.published)) or 'the default'}"
    return {
        "weights": f" [ours: {known}, weights cannot be exchanged with the published code]",
        "training": f" [ours: {known}, the training is not the published one]",
        "sampling": f" [ours: {known}, images are not restored as published]",
    }[mark.changes]


def _print_names(group: str, names: Sequence[str]) -> None:
    print(textwrap.fill(", ".join(names) or "(none)", 120, initial_indent=f"  {group + ':':14}", subsequent_indent=" " * 16))
