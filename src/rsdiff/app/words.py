"""The words of a command line before Hydra reads them: its flags, its settings, and values that are paths taken as the shell gave them."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from rsdiff.app.groups import FAMILIES
from rsdiff.app.habits import MEANT
from rsdiff.config import ConfigError, former
from rsdiff.config.typed import nearest
from rsdiff.runs.settings import CARRIED

WITH_VALUE = {
    "-c": "cfg",
    "--cfg": "cfg",
    "-p": "package",
    "--package": "package",
    "-cp": "config_path",
    "--config-path": "config_path",
    "-cn": "config_name",
    "--config-name": "config_name",
    "-cd": "config_dir",
    "--config-dir": "config_dir",
    "--experimental-rerun": "rerun",
    "--info": "info",
}
"""Hydra's flags that take the next word."""
FLAGS = frozenset(
    {
        *(*WITH_VALUE, "-h", "--help", "--hydra-help", "--version", "--resolve", "-r", "--run", "-m", "--multirun"),
        *("-sc", "--shell-completion", "-i", "--info"),
    }
)
"""Hydra's flags."""
CHOICES = {"cfg": {"all", "hydra", "job"}, "info": {"all", "config", "defaults", "defaults-tree", "plugins", "searchpath"}}
"""What may follow Hydra's flags --cfg and --info."""
PATH_NAMES = frozenset(
    {
        *(
            "checkpoint",
            "input",
            "output",
            "source",
            "outputs",
            "root",
            "data_root",
            "file",
            "table",
            "weights",
            "reference",
            "change_mask",
        ),
        *("train_list", "test_list", "hr_folder", "lr_folder", "ref_folder", "mask_folder", "sweep", "hr", "sr", "area"),
        *("calibration", "dir", "subdir"),  # hydra.run.dir, hydra.sweep.subdir
    }
)
"""Settings, by the last part of their name, whose value is a path."""
TEXT_NAMES = PATH_NAMES | {
    *("variable", "name", "project", "entity", "group", "notes", "job_type", "optimise", "baseline", "download", "test_pattern"),
    *("hr_prefix", "hr_suffix", "lr_prefix", "lr_suffix"),
    *("title", "does", "licence", "recipe", "repository", "calibration", "best_metric", "extend"),
}
"""Settings, by the last part of their name, whose value is free text."""
MAY_BE_LISTS = frozenset({"input", "sr"})
ALSO_CALLED = {"trainer.batch=auto": "trainer.accumulate=auto"}
"""The batch stays the recipe's; what follows the memory is into how many micro-batches it is shared."""
_SETTING = re.compile(r"(?P<key>\+{0,2}[A-Za-z_][\w./@-]*)=(?P<value>.*)", re.DOTALL)


@dataclass(frozen=True)
class Words:
    """A command line in parts.

    flags      Hydra's flags with their values, in the order given
    overrides  the settings
    """

    flags: tuple[str, ...]
    overrides: tuple[str, ...]

    @property
    def is_multirun(self) -> bool:
        return any(word in self.flags for word in ("-m", "--multirun"))

    @property
    def wants_help(self) -> bool:
        return any(word in self.flags for word in ("-h", "--help"))

    @property
    def is_completion(self) -> bool:
        return any(word in self.flags for word in ("-sc", "--shell-completion"))

    @property
    def config_folders(self) -> list[str]:
        """Folders of configs that the command line adds."""
        folder = self.value("config_dir")
        return [] if folder is None else [folder]

    @property
    def plugins(self) -> list[str]:
        """The modules that `plugins=[..]` names."""
        given = [word.partition("=")[2].strip("[]") for word in self.overrides if word.startswith("plugins=")]
        return [name for part in given[-1].split(",") if (name := part.strip(" '\""))] if given else []

    def value(self, name: str) -> str | None:
        """Return what was given to one of Hydra's flags ('config_name'), or None."""
        words = list(self.flags)
        given = [words[k + 1] for k in range(len(words) - 1) if WITH_VALUE.get(words[k]) == name]
        joined = [word.partition("=")[2] for word in words if "=" in word and WITH_VALUE.get(word.partition("=")[0]) == name]
        return next(iter([*joined, *given]), None)


def words_of(arguments: Sequence[str]) -> Words:
    """Return the parts of a command line; Hydra's flags may stand anywhere in it, also after settings."""
    flags, overrides = [], []
    left = list(arguments)
    while left:
        word = left.pop(0)
        if not word.startswith("-"):
            overrides.append(word)
            continue
        flags.append(word)
        if word in ("-i", "--info"):  # Hydra would take the next setting for what is asked
            flags[-1] = f"--info={left.pop(0) if left and not is_setting(left[0]) else 'all'}"
        elif word in WITH_VALUE and left:
            flags.append(left.pop(0))
        name, _, value = "=".join(flags[-2:]).rpartition("=") if word in WITH_VALUE else word.partition("=")
        if WITH_VALUE.get(name) == "config_path":  # which Hydra would look for beside its own module
            flags[-1] = flags[-1].removesuffix(value) + os.path.abspath(value)
    return Words(tuple(flags), tuple(overrides))


def refuse_unknown_flags(words: Words) -> None:
    """Raise ConfigError for a word that looks like a flag and is none of Hydra's, or the beginning of one."""
    for word in words.flags:
        name = word.partition("=")[0]
        if not name.startswith("-") or name in FLAGS:
            continue
        meant = [flag for flag in FLAGS if name.startswith("--") and flag.startswith(name)]
        if len(meant) > 1:
            raise ConfigError(f"{word} is the beginning of several flags; choose one of {', '.join(sorted(meant))}.")
        if not meant and (habit := MEANT.get(name.lstrip("-").replace("-", "_"))) is not None:
            raise ConfigError(f"{word} is not a flag; {habit}.")
        if not meant:
            raise ConfigError(f"{word} is not a flag{nearest(name, sorted(FLAGS))}; settings are written key=value, and --help lists them.")
    for flag, known in CHOICES.items():
        if (given := words.value(flag)) is not None and given not in known:
            raise ConfigError(f"--{flag} {given} does not exist{nearest(given, sorted(known))}; choose {', '.join(sorted(known))}.")
    folder = words.value("config_dir")
    if folder is not None and not os.path.isdir(folder):
        raise ConfigError(f"--config-dir {folder} is no folder (seen from {os.getcwd()}); give the one that holds experiments/ or model/.")
    folder = words.value("config_path")
    if folder is not None and not os.path.isdir(os.path.join(folder, "task")):
        raise ConfigError(
            f"--config-path {folder} would take the place of all configs of rsdiff and holds no tasks; to add a folder of your own, give "
            f"--config-dir {folder}."
        )


def is_setting(word: str) -> bool:
    """Whether a word is written as a setting or a flag, rather than as what a flag takes."""
    return "=" in word or word.startswith(("-", "~"))


def for_hydra(words: Words) -> list[str]:
    """Return the command line as Hydra reads it.

    Flags come first, paths are quoted where Hydra's grammar would take them for something else, and options of groups that a checkpoint
    brings get '++', see `with_options_of_checkpoint`.
    """
    if words.is_completion:
        return [*words.flags, *words.overrides]
    present = [now for word in words.overrides for now in present_words(ALSO_CALLED.get(word, word))]
    typed = [literal_path(word, words.is_multirun) for word in present]
    return [*words.flags, *with_options_of_checkpoint(typed)]


def present_words(word: str) -> list[str]:
    """Return what Hydra is given for a setting: a former name under its present one, a choice inside an option as one of its family.

    'model.network=hat' -> ['network@model.network=hat'], which changes Hydra's list of defaults, so that hat's own options are there.
    """
    words = []
    for present in former.present_words(word):
        name, equals, value = present.partition("=")
        family = name.rpartition(".")[2]
        plain = "." in name and "@" not in name and name[:1].isalpha()
        nested = equals and plain and family in FAMILIES and not value.startswith("{")
        words.append(f"{family}@{present}" if nested else present)
    return words


def literal_path(word: str, multirun: bool) -> str:
    """Return the setting with its value quoted, if it is a text that Hydra's grammar would read otherwise (2024, a,b.tif, x=1.png).

    Left as it is: what is quoted already, null, an interpolation, with -m a list of values or glob(), and for `input` also [a,b]; unless a
    file or folder is called exactly so.
    """
    found = _SETTING.fullmatch(word)
    if found is None or found["key"].rpartition(".")[2].lstrip("+") not in TEXT_NAMES or not found["value"]:
        return word
    value = found["value"]
    parsed = _parsed(word)
    if not _is_there(value) and parsed is not None:
        meaning = parsed.value()
        nested = isinstance(meaning, list) and all(isinstance(item, list) for item in meaning)  # model.cmsr.table=[[4,1,0.1,2,0.2]]
        is_list = nested or (isinstance(meaning, list) and found["key"] in MAY_BE_LISTS)
        quoted = value[:1] in "'\"" and value[-1:] == value[:1]
        if meaning is None or isinstance(meaning, dict) or quoted or is_list or "${" in value or (multirun and parsed.is_sweep_override()):
            return word
    if parsed is not None and not parsed.is_sweep_override() and parsed.value() == value and "${" not in value:
        return word
    text = re.sub(r"(\\*)'", lambda match: match[1] * 2 + "\\'", value)
    text = re.sub(r"(\\+)$", lambda match: match[1] * 2, text)
    if _is_there(value) or not re.search(r"\$\{[^{}]+\}", value):
        text = text.replace("${", "\\${")
    return f"{found['key']}='{text}'"


def _is_there(value: str) -> bool:
    """Whether a file or folder is called exactly so; of what is yet to be written and looks like an interpolation, the folder around it."""
    path = os.path.expanduser(value)
    return os.path.lexists(path) or ("${" in os.path.dirname(path) and os.path.isdir(os.path.dirname(path)))


def with_options_of_checkpoint(overrides: Sequence[str]) -> list[str]:
    """Return the settings with '++' before options of groups that a checkpoint brings, such as its data set.

    Hydra composes before the checkpoint is read and knows only the options of the group's default; `settings_from` finds out whether what
    the checkpoint brings has them; where it brings nothing, the typed config refuses what its group lacks.
    """
    keys = {word.partition("=")[0] for word in overrides}
    if "checkpoint" not in keys:
        return list(overrides)
    brought = tuple(f"{group}." for group in CARRIED if group not in keys)
    return [f"++{word}" if word.startswith(brought) and "=" in word else word for word in overrides]


def _parsed(word: str) -> Override | None:
    try:
        return OverridesParser.create().parse_override(word)
    except HydraException:
        return None
