"""Finds the sentence for a command line that Hydra could not compose: what is wrong in it and what to type instead.

Composing succeeds for most commands, so the diagnosis, which composes more than once, is made only after a failure. Hydra must be composing
(see `rsdiff.app.checks.composing`).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra import compose
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rsdiff.app.groups import FAMILIES, GROUPS, RECIPES
from rsdiff.app.habits import MEANT
from rsdiff.config import ConfigError
from rsdiff.config.typed import nearest
from rsdiff.runs.options import RunOptions

MAX_NAMED = 4
OPTIONAL = {
    "hydra/sweeper=optuna": "rsdiff[search]",
    "hydra/sweeper=ax": "hydra-ax-sweeper",
    "hydra/sweeper=nevergrad": "hydra-nevergrad-sweeper",
    "hydra/launcher=ray": "hydra-ray-launcher",
    "hydra/launcher=rq": "hydra-rq-launcher",
    "hydra/job_logging=colorlog": "hydra-colorlog",
    "hydra/hydra_logging=colorlog": "hydra-colorlog",
}
"""What Hydra's manual names and other packages bring."""


PICTURES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".gif", ".bmp", ".jp2", ".heic"})


def parse(overrides: Sequence[str]) -> list[Override]:
    """Return settings as Hydra reads them; raises ConfigError in one sentence."""
    try:
        return OverridesParser.create(config_loader=loader_at_hand()).parse_overrides(list(overrides))
    except OverrideParseException as error:
        word = error.override
        key, equals, value = str(word).partition("=")
        if any(value.count(first) != value.count(last) for first, last in ("[]", "{}")):
            raise ConfigError(
                f"'{word}' cannot be read as a setting; a bracket is not closed, or the shell took a part of it: quote it."
            ) from error
        if key != key.strip() or (not equals and ":" in key):
            name, _, value = str(word).replace(":", "=", 0 if equals else 1).partition("=")
            raise ConfigError(f"'{word}' cannot be read as a setting; write {name.strip()}={value.strip()}, without spaces.") from error
        if not equals and (better := _setting_meant(str(word), overrides)) is not None:
            raise ConfigError(better) from error
        is_list = value[:1] == "[" and value[-1:] == "]"
        texts = ",".join(f'"{item.strip()}"' for item in value[1:-1].split(",")) if is_list else ""
        quoted = (f"{key}='[{texts}]'" if is_list else f"""{key}='"{value}"'""") if equals else f"'{word}=VALUE'"
        raise ConfigError(
            f"'{word}' cannot be read as a setting; settings are written key=value, with quotes around values that hold "
            f"spaces or special characters: {quoted}."
        ) from error
    except HydraException as error:
        raise ConfigError(first_paragraph(error)) from error


def _setting_meant(word: str, overrides: Sequence[str]) -> str | None:
    """Return the sentence for a word without an equals sign, where what it stands for or its neighbours tell what was meant."""
    after = overrides[list(overrides).index(word) + 1 :] if word in overrides else []
    if after and after[0].startswith("="):
        value = after[0][1:] or next(iter(after[1:]), "VALUE")
        return f"'{word} {' '.join(after[: 1 + (after[0] == '=')])}' is not a setting; type {word}={value}, without spaces."
    if word.lower() in ("help", "version"):
        return f"'{word}' is not a setting; type --{word.lower()}."
    if (
        (word in GROUPS or ("." in word and not _is_path(word)) or word in RunOptions.__dataclass_fields__)
        and after
        and "=" not in after[0]
    ):
        return f"'{word} {after[0]}' is not a setting; type {word}={after[0]}, with an equals sign and without spaces."
    groups = [group for group in (*GROUPS, *RECIPES) if word in options_of_group(group)]
    if groups:
        return f"'{word}' is not a setting; type {' or '.join(f'{group}={word}' for group in groups)}."
    if _is_path(word):
        return f"'{word}' is a path, and not said what for; type input={word}, dataset.root={word} or checkpoint={word}, for example."
    return None


def _is_path(word: str) -> bool:
    """Whether a word without an equals sign means a file or folder rather than a setting: photo.png, not trainer.steps."""
    return Path(word).exists() or "/" in word or Path(word).suffix.lower() in PICTURES


def loader_at_hand() -> ConfigLoader:
    """Return the configuration loader that Hydra built for this command."""
    return GlobalHydra.instance().config_loader()


def diagnosis(config_name: str, overrides: Sequence[str], error: Exception) -> str:
    """Return the sentence for a composition that failed: an unknown option, an unknown key, or what Hydra said."""
    if isinstance(error, yaml.YAMLError):
        return _yaml_sentence(error)
    if isinstance(error, KeyError):
        return f"hydra.job.env_copy names the environment variable {error.args[0]}, which is not set; set it, or leave it out."
    parsed = parse(overrides)
    try:
        searched = [text_of(override) for override in parsed if override.key_or_group == "hydra.searchpath"]
        usual = compose(config_name, searched, return_hydra_config=True)
        groups = [str(group) for group in usual.hydra.runtime.choices]
    except (HydraException, OmegaConfBaseException, ValueError, yaml.YAMLError):
        return first_paragraph(error)
    for override in parsed:
        if override.key_or_group in groups and not override.is_delete() and not override.is_sweep_override() and override.value() is None:
            group = override.key_or_group
            return f"{text_of(override)} names no option; choose {group}=NAME, or ~{group} where the task needs none."
    removed = {override.key_or_group: text_of(override) for override in parsed if override.is_delete() and override.key_or_group in groups}
    for override in parsed:
        group, dot, _ = override.key_or_group.partition(".")
        if dot and group in removed:
            return f"{text_of(override)} sets an option of {group}, which {removed[group]} removes; leave one of the two out."
    for override in parsed:
        key = override.key_or_group
        if override.package is not None and key in FAMILIES:
            sentence = _wrong_choice(override, error)
            if sentence is not None:
                return sentence
        if text_of(override) in OPTIONAL:
            return f"{text_of(override)} is a package of its own; install it: pip install '{OPTIONAL[text_of(override)]}'."
        options = options_of_group(key, config_name, searched) if key in groups else []
        for option in _values(override):
            if options and option is not None and str(option) not in options:
                if key == "metrics" and _is_metric(str(option)):
                    return f"metrics={option} is a metric and no protocol; type 'metrics.metrics=[{option}]'."
                if key == "dataset" and Path(str(option)).is_dir():
                    return f"dataset={option} is a folder and no option; type dataset=folder dataset.root={option}."
                return f"{key}={option} does not exist{nearest(str(option), options)}; the options of {key} are {', '.join(options)}."
    if isinstance(error, MissingConfigException):
        return _missing_in_a_file(error, parsed)
    for override in parsed:
        if override.key_or_group in RECIPES and f"@{override.key_or_group}." in str(error):
            return (
                f"{text_of(override)} lacks the line '# @package _global_' at the beginning of its file; add it: without it nothing is set."
            )
    choosing = [override for override in parsed if override.key_or_group in (FAMILIES if override.package else groups)]
    chosen = [f"{override.get_key_element()}={_values(override)[0]}" for override in choosing if _values(override)]
    try:
        composed = compose(config_name, [*searched, *chosen], return_hydra_config=True) if chosen else usual
    except (HydraException, OmegaConfBaseException, ValueError, yaml.YAMLError):
        return first_paragraph(error)
    for override in parsed:
        if not override.is_add() and not override.is_force_add() and override not in choosing:
            sentence = _unknown_key(composed, override.key_or_group, groups)
            if sentence is not None:
                return sentence
            if f"'{override.key_or_group}'" in str(error) and any(choice.is_sweep_override() for choice in choosing):
                return (
                    f"{text_of(override)} sets an option of what the sweep chooses, which Hydra leaves out of the configuration that it "
                    f"composes first; type ++{text_of(override)}."
                )
    return first_paragraph(error)


def _missing_in_a_file(error: MissingConfigException, parsed: Sequence[Override]) -> str:
    """Return the sentence for an option that a config file chooses and nobody offers."""
    wanted = next((word for word in OPTIONAL if word.replace("=", "/") in str(error)), None)  # of a file, such as one of sweeps
    if wanted is not None:
        return f"{wanted} is a package of its own; install it: pip install '{OPTIONAL[wanted]}'."
    group, _, option = str(error.missing_cfg_file or "").rpartition("/")
    known = options_of_group(group) if group else []
    if not known:
        return first_paragraph(error)
    recipes = [text_of(override) for override in parsed if override.key_or_group in RECIPES]
    return (
        f"the file of {' or '.join(recipes) or 'a chosen option'} chooses {group}={option}, which does not exist{nearest(option, known)}; "
        f"the options of {group} are {', '.join(known)}."
    )


def with_file(error: ConfigError, choices: Mapping[str, Any], overrides: Sequence[str]) -> ConfigError:
    """Return an error about a setting that nobody typed with the file it stands in, where one of the chosen options has it.

    choices    option of each group, as Hydra chose them
    overrides  what was typed
    """
    found = re.match(r"[A-Za-z_][\w.]*\.\w+(?==| is )", str(error))
    if found is None or any(word.lstrip("+").partition("=")[0] == found[0] for word in overrides):
        return error
    loader: Any = loader_at_hand()  # Hydra's own, of whose files its interface does not tell
    for group, option in sorted(choices.items(), key=lambda choice: choice[0] not in RECIPES):
        source = loader.repository.load_config(f"{group}/{option}") if option else None
        if source is None or not OmegaConf.is_dict(source.config):
            continue
        within = found[0] if source.header.get("package") == "_global_" else found[0].removeprefix(f"{group}.")
        parent, _, name = within.rpartition(".")
        node = OmegaConf.select(source.config, parent) if parent else source.config
        if isinstance(node, DictConfig) and name in node:
            return ConfigError(f"{group}={option}: {error}")
    return error


def _wrong_choice(override: Override, error: Exception) -> str | None:
    """Return the sentence for a choice inside an option ('network@model.network=hat') that there is not, or None."""
    family, setting = override.key_or_group, str(override.package)
    known = options_of_group(family)
    for value in _values(override):
        if value not in known:
            return f"{setting}={value} does not exist{nearest(value, known)}; choose one of {', '.join(known)}."
    if f"{family}@{setting}" in str(error):
        group = setting.partition(".")[0]
        return f"{setting} is not a setting of this {group}; leave it out, or choose another {group}."
    return None


def options_of_group(group: str, config_name: str | None = None, searched: Sequence[str] = ()) -> list[str]:
    """Return the options of a group wherever Hydra finds them, those in sub-folders as 'folder/name'.

    searched  the override of hydra.searchpath, where there is one, with the name of the primary config
    """

    def listed(kind: ObjectType) -> list[str]:
        return list(loader_at_hand().get_group_options(group, kind, config_name if searched else None, list(searched) or None))

    within = [
        f"{folder}/{option}"
        for folder in listed(ObjectType.GROUP)
        for option in options_of_group(f"{group}/{folder}", config_name, searched)
    ]
    return sorted({*listed(ObjectType.CONFIG), *within})


def text_of(override: Override) -> str:
    """Return an override as it was typed."""
    assert override.input_line is not None
    return override.input_line


def first_paragraph(error: Exception) -> str:
    """Return what Hydra says of an error, as one sentence."""
    lines = [line.strip() for line in str(error).split("\n\n")[0].splitlines() if line.strip() and "full_key" not in line]
    cause = f" ({error.__cause__})" if isinstance(error.__cause__, OmegaConfBaseException) else ""
    return f"{'; '.join(lines)}{cause}".removesuffix(".") + "."


def _values(override: Override) -> list[str]:
    """Return the values that an override gives, one for each run of a sweep; none where it removes something or gives null."""
    if override.is_delete() or (override.is_sweep_override() and not override.is_discrete_sweep()):
        return []
    if override.is_sweep_override():
        return list(override.sweep_string_iterator())
    value = override.value()
    return [] if value is None else list(map(str, value)) if isinstance(value, list) else [str(value)]


def _unknown_key(composed: DictConfig, key: str, groups: Sequence[str]) -> str | None:
    """Return the sentence for a dotted key that the composed config lacks, or None if it has it."""
    node: object = composed
    place: list[str] = []
    for part in key.split("."):
        known = [str(name) for name in node] if isinstance(node, DictConfig) else []
        if part not in known:
            break
        node = OmegaConf.select(composed, ".".join([*place, part]))
        place.append(part)
    else:
        return None
    known = [name for name in known if name not in ("kind", "hydra")]
    where = ".".join(place)
    if part in MEANT and where in ("", "trainer") and not _deeper(node, where, part):
        return f"{key} is not a setting; {MEANT[part]}."
    if where:
        if not known:
            return f"{key} is not a setting; {where} has no options of its own (write +{key}=VALUE if it takes names of your choice)."
        deeper = _deeper(node, where, part)
        hint = nearest(part, known).replace("did you mean ", f"did you mean {where}.") or deeper or _having(where, part)
        return f"{key} is not a setting{hint}; the options of {where} are {', '.join(sorted(known))}."
    everywhere = [f"{name}.{option}" for name in GROUPS if isinstance(composed.get(name), DictConfig) for option in composed[name]]
    same_name = [path for path in everywhere if path.rpartition(".")[2] == part]
    names = sorted({*known, *(group for group in groups if not {"/", "@"} & set(group))})
    if not part:
        return "a setting without a name was given; settings are written key=value."
    if OmegaConf.select(composed, dotted := part.replace("/", ".")) is not None:
        return f"{key} is not a group (did you mean {dotted}?); an option of a group is written with a dot."
    hint = f" (did you mean {' or '.join(same_name)}?)" if same_name else nearest(part, names)
    return f"{key} is not a setting{hint}; the groups and top-level settings are {', '.join(names)}."


def _is_metric(name: str) -> bool:
    from rsdiff.metrics.table import METRICS  # here and not above: it imports PyTorch, which completing a command in a shell does without

    return name in METRICS


def _deeper(node: object, where: str, setting: str) -> str:
    """Return ' (did you mean ...?)' for settings of this name further down (trainer.lr: trainer.optimiser.lr), or an empty string."""
    found: list[str] = []
    nodes = [(where, node)]
    while nodes:
        path, values = nodes.pop()
        if isinstance(values, DictConfig):
            found += [f"{path}.{setting}"] if path != where and setting in values else []
            nodes += [(f"{path}.{name!s}", values.get(name)) for name in values if not OmegaConf.is_missing(values, name)]
    return f" (did you mean {' or '.join(sorted(found)[:MAX_NAMED])}?)" if found else ""


def _having(group: str, setting: str) -> str:
    """Return ' (it is one of ...)' for options of a group that have a setting which the chosen one lacks, or an empty string."""
    options = set(options_of_group(group)) if group in GROUPS else set()
    kinds = [kind for kind in GROUPS.get(group, {}) if kind in options]
    named = [kind for kind in kinds if setting in {field.name for field in dataclasses.fields(GROUPS[group][kind])}][:MAX_NAMED]
    return f" (it is one of {', '.join(f'{group}={kind}' for kind in named)})" if named else ""


def _yaml_sentence(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    where = f"{mark.name}, line {mark.line + 1}, column {mark.column + 1}" if mark else "a config file"
    problem = str(getattr(error, "problem", None) or error)
    if "\\t" in problem:
        problem = "a tab stands where YAML takes spaces only"
    elif "block" in problem or "mapping values" in problem:
        problem += "; the lines of one level must begin in the same column, with a space after every colon"
    return f"{where} is not valid YAML: {problem}."


def options_of(folder: Path) -> list[str]:
    """Return the options that the files of a group's folder are, those in sub-folders as 'folder/name'."""
    return sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml"))
