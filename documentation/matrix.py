"""Which model goes with which data set, degradation and scale: every combination asked, and docs/features.md's table made of the answers.

The answers come from the same check that a command line goes through before anything runs. Samplers are no part of it: a diffusion takes
any of them, other methods ignore theirs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose
from omegaconf import DictConfig

from rsdiff.app.command_line import CONFIG_NAME, composing
from rsdiff.app.composition import group_config
from rsdiff.app.diagnosis import options_of
from rsdiff.app.schemas import register_schemas
from rsdiff.config import ConfigError, UserError
from rsdiff.data.frames import markdown_of
from rsdiff.data.source import DataError
from rsdiff.degradations.grid import GridConfig
from rsdiff.methods.base import MethodConfig, Problem
from rsdiff.runs.compatibility import check_compatible, fields_given
from rsdiff.runs.options import RunOptions
from rsdiff.runs.settings import RunSettings
from rsdiff.tasks.options import EvaluateTask, TrainTask
from rsdiff.weights.keymaps import KEY_MAPS

SCALES = (1.0, 2.0, 2.5, 3.0, 4.0, 8.0, 16.0)
START, END = "<!-- features -->", "<!-- end of features -->"
MOST_NAMES = 5
"""More data sets or degradations than this are counted instead of named."""


@dataclass(frozen=True, slots=True)
class Combination:
    """One combination and the sentence that refuses it, or None where it can run."""

    model: str
    dataset: str
    degradation: str
    scale: float
    refusal: str | None


@dataclass(frozen=True)
class Shipped:
    """The typed options of the groups that must fit together, by name.

    kinds  of the models
    """

    models: Mapping[str, MethodConfig]
    kinds: Mapping[str, str]
    datasets: Mapping[str, Any]
    degradations: Mapping[str, Any]

    def combinations(self, scales: Sequence[float] = SCALES) -> Iterator[Combination]:
        """Yield every combination of model, data set, degradation and scale with its answer."""
        gives = {name: fields_given({"dataset": data}, "dataset") for name, data in self.datasets.items()}
        built = {name: degradation.build().gives for name, degradation in self.degradations.items()}
        tasks = {True: EvaluateTask(), False: TrainTask()}
        for dataset, data in self.datasets.items():
            bands = bands_of(data)
            for degradation, degrading in self.degradations.items():
                fields = {
                    "dataset": gives[dataset],
                    "degradation": built[degradation] | ({"lr"} if "hr" in degrading.requires & data.gives else frozenset()),
                }
                for model, method in self.models.items():
                    choices = {"model": model, "dataset": dataset, "degradation": degradation, "task": "train"}
                    groups = {"model": method, "dataset": data, "degradation": degrading}
                    for scale in scales:
                        settings = RunSettings(RunOptions(scale=scale), tasks[method.is_ready], groups, choices, {})
                        yield Combination(model, dataset, degradation, scale, refusal_of(settings, fields, bands))


def refusal_of(settings: RunSettings, fields: Mapping[str, frozenset[str]], bands: int) -> str | None:
    """Return the sentence that refuses a run, or None; `bands` of the data, which files tell when a run opens them."""
    try:
        check_compatible(settings, fields=fields)
        lr_bands = bands if "lr" in fields["dataset"] else settings.degradation.lr_bands(bands)
    except ValueError as refusal:  # ConfigError is one
        return str(refusal)
    return settings.model.refuse(Problem(settings.scale, bands, lr_bands))


def bands_of(dataset: Any) -> int:
    """Return the bands that a data set's options tell, or 3."""
    return int(getattr(dataset, "bands", None) or len(getattr(dataset, "wavelengths", ())) or 3)


def shipped(conf: Path) -> Shipped:
    """Return the options in the folder `conf`; what only a user knows, such as a folder, is filled in."""
    names = {group: options_of(conf / group) for group in ("model", "dataset", "degradation")}
    found: dict[str, dict[str, Any]] = {group: {} for group in names}
    kinds = {}
    with composing(conf):
        # One composition serves an option of each group: composing takes most of the time.
        for row in range(max(map(len, names.values()))):
            chosen = {group: options[row] for group, options in names.items() if row < len(options)}
            composed = complete(chosen)
            for group, option in chosen.items():
                found[group][option] = group_config(composed, group)
            if "model" in chosen:
                kinds[chosen["model"]] = str(composed.model.kind)
    return Shipped(
        found["model"], kinds, {name: data for name, data in found["dataset"].items() if _tells_fields(data)}, found["degradation"]
    )


def _tells_fields(dataset: Any) -> bool:
    """Whether a data set's options tell what its samples hold; a packed file must be opened for that, and stands for what it packs."""
    try:
        return bool(dataset.gives)
    except DataError:
        return False


def complete(chosen: Mapping[str, str]) -> DictConfig:
    """Compose options of groups, filling in required ones that the data set's file leaves to the user. Hydra must be composing."""
    overrides = [f"{group}={option}" for group, option in chosen.items()]
    while True:
        composed = compose(CONFIG_NAME, overrides)
        try:
            for group in chosen:
                group_config(composed, group)
        except ConfigError as error:
            missing = re.match(r"(\S+) is required and was not given", str(error))
            if missing is None:
                raise
            overrides.append(f"{missing[1]}=given")
            continue
        return composed


def feature_table(options: Shipped, combinations: Iterable[Combination]) -> str:
    """Return the table of features as Markdown: one line per published model. `combinations` are all of `options`."""
    trainable = {name for name, degradation in options.degradations.items() if not isinstance(degradation, GridConfig)}
    allowed: dict[str, list[Combination]] = {name: [] for name in options.models if not name.endswith(("_tiny", "_quick"))}
    total = refused = 0
    for combination in combinations:
        total += 1
        if combination.refusal is not None:
            refused += 1
        elif combination.model in allowed:
            allowed[combination.model].append(combination)
    rows = []
    for model, found in sorted(allowed.items()):
        config = options.models[model]
        needs = ", ".join(sorted(config.requires - {"hr", "lr", "hr_views"})) or "-"
        scales = sorted({combination.scale for combination in found})
        shown = "any" if config.any_scale else ", ".join(f"{scale:g}" for scale in scales)
        data = _named({combination.dataset for combination in found}, set(options.datasets))
        degradations = _named({combination.degradation for combination in found}, trainable)
        smaller = ", ".join(kind for kind in ("tiny", "quick") if f"{model}_{kind}" in options.models) or "-"
        imports = "yes" if options.kinds[model] in KEY_MAPS else "-"
        rows.append([f"`{model}`", needs, shown, data, degradations, smaller, imports])
    lines = [
        markdown_of(["`model=`", "needs besides HR and LR", "scales", "data sets", "degradations", "smaller", "imports"], rows),
        "",
        f"Of {total} combinations of {len(options.models)} models, {len(options.datasets)} data sets, {len(options.degradations)} "
        f"degradations and {len(SCALES)} scales ({', '.join(f'{scale:g}' for scale in SCALES)}), {total - refused} can be trained and "
        f"{refused} are refused in one sentence. Datasets whose band count is known only after opening the files are assumed to be RGB.",
    ]
    return "\n".join(lines) + "\n"


def _named(some: set[str], everything: set[str]) -> str:
    found = some & everything
    if len(found) > MOST_NAMES:
        return f"{len(found)} of {len(everything)}"
    return ", ".join(sorted(found)) or "none"


def with_features(page: str, table: str) -> str:
    """Return the page with its table replaced; raises UserError where the marks between which it stands are missing."""
    head, start, rest = page.partition(START)
    _, end, tail = rest.partition(END)
    if not start or not end:
        raise UserError(f"docs/features.md must hold the marks '{START}' and '{END}'; put them where the table belongs.")
    return f"{head}{START}\n{table}{END}{tail}"


def main(repository: Path) -> None:
    """Write the table of features into docs/features.md."""
    register_schemas()
    path = repository / "docs" / "features.md"
    options = shipped(repository / "conf")
    table = feature_table(options, options.combinations())
    path.write_text(with_features(path.read_text(), table))
    print(f"wrote the table of features into {path}")


if __name__ == "__main__":
    main(Path.cwd())
