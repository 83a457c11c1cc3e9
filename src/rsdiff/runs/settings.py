"""Everything a run depends on, as typed, frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rsdiff.config.paths import typed_path
from rsdiff.runs.options import RunOptions, TaskOptions

if TYPE_CHECKING:
    from rsdiff.data.source import ImageSource, Split
    from rsdiff.diffusion.sampler import SamplerConfig
    from rsdiff.methods.base import MethodConfig
    from rsdiff.runs.decision import Decision
    from rsdiff.runs.identity import Identity
    from rsdiff.tracking import LoggerConfig
    from rsdiff.training.config import TrainerConfig

CARRIED = ("model", "dataset", "degradation", "sampler", "metrics")
"""Groups whose settings a checkpoint brings along."""


@dataclass(frozen=True)
class RunSettings:
    """Everything a run depends on.

    options  top-level settings
    task     the task with its own options
    groups   typed config by group, of the groups the task uses and the logger
    choices  option chosen by group, e.g. {'model': 'sr3_quick'}; what a checkpoint brought keeps its name
    resolved the composed settings as plain values: stored with the run and in checkpoint cards
    place    the run's folder, where it was chosen (hydra.run.dir); None for the one that the signature names
    opened   splits of the data set that were opened, see `split`
    """

    options: RunOptions
    task: TaskOptions
    groups: Mapping[str, Any]
    choices: Mapping[str, str]
    resolved: Mapping[str, Any]
    place: Path | None = None
    opened: dict[Split, ImageSource] = field(default_factory=dict, compare=False, repr=False)

    def _group(self, name: str) -> Any:
        assert name in self.groups, f"task={self.choices['task']} reads the group '{name}', which its options class does not list in `uses`"
        return self.groups[name]

    @property
    def model(self) -> MethodConfig:
        return cast("MethodConfig", self._group("model"))

    @property
    def dataset(self) -> Any:
        return self._group("dataset")

    @property
    def degradation(self) -> Any:
        return self._group("degradation")

    @property
    def sampler(self) -> SamplerConfig:
        return cast("SamplerConfig", self._group("sampler"))

    @property
    def trainer(self) -> TrainerConfig:
        return cast("TrainerConfig", self._group("trainer"))

    @property
    def metrics(self) -> Any:
        return self._group("metrics")

    @property
    def logger(self) -> LoggerConfig:
        return cast("LoggerConfig", self._group("logger"))

    @property
    def scale(self) -> float:
        return self.options.scale

    @property
    def seed(self) -> int:
        return self.options.seed

    @property
    def checkpoint(self) -> Path | None:
        return _path(self.options.checkpoint)

    @cached_property
    def starting_point(self) -> Path | None:
        """The checkpoint folder that the run continues, evaluates or starts from; for training it may be found, see `predecessor`."""
        from rsdiff.runs.predecessor import starting_point  # with PyTorch, which looking at runs does not need
        from rsdiff.training.checkpoints import find_checkpoint

        if self.task.starts and "model" in self.groups:
            return starting_point(self.model, self.resolved, self.checkpoint, self.outputs, self._training_images)
        return find_checkpoint(self.checkpoint) if self.checkpoint else None

    @cached_property
    def beside(self) -> tuple[Path, ...]:
        """The checkpoint folders that restore samples beside the run's own, which does not count where it is named again."""
        from rsdiff.runs.predecessor import locate
        from rsdiff.training.checkpoints import find_checkpoint

        found = [find_checkpoint(locate(place, self.outputs)) for place in self.task.beside]
        own = None if self.starting_point is None else self.starting_point.resolve()
        return tuple(place for place in dict.fromkeys(found) if place.resolve() != own)

    def _training_images(self) -> str:
        from rsdiff.runs.content import digest_of_images

        return digest_of_images(self.split("train"))

    def _fits_a_baseline(self) -> bool:
        """Whether an evaluation fits its baseline to training images: where bands are added to pixels that stay."""
        if "test" not in self.task.reads or self.scale != 1 or not getattr(self.groups.get("metrics"), "baseline", False):
            return False
        test = self.split("test")
        degraded = self.degradation.for_wavelengths(test.wavelengths).lr_bands(test.bands)
        return bool((test.lr_bands if "lr" in test.gives else degraded) != test.bands)

    @property
    def inputs(self) -> list[Path]:
        """The rasters that `input` names."""
        if self.options.input is None:
            return []
        from rsdiff.runs.inputs import rasters_of  # it imports the readers of all formats

        return rasters_of(self.options.input)

    @property
    def output(self) -> Path | None:
        return _path(self.options.output)

    @property
    def source(self) -> Path | None:
        return _path(self.options.source)

    @property
    def restored(self) -> tuple[str, ...]:
        """The places that `sr` names."""
        given = self.options.sr
        return () if given is None else (given,) if isinstance(given, str) else given

    @property
    def outputs(self) -> Path:
        return Path(self.options.outputs)

    @property
    def name(self) -> str:
        """'<model>-<dataset>' as far as the task uses them: how the run is called in folders and logs."""
        parts = [self.choices[group].replace("/", "_") for group in ("model", "dataset") if group in self.task.uses]
        return "-".join(parts) or self.choices["task"]

    def split(self, split: Split) -> ImageSource:
        """Open one split of the data set, after its own check and once for all who ask."""
        if split not in self.opened:
            dataset = self.tested if split == "test" and self.task.tests_alone else self.dataset
            dataset.check()
            if set(self.task.reads) == {"train", "test"} and hasattr(dataset, "build_each"):
                self.opened.update(dataset.build_each(self.scale))  # the folder is looked at once
            else:
                self.opened[split] = dataset.build(split, self.scale)
        return self.opened[split]

    @cached_property
    def tested(self) -> Any:
        """The data set whose test images a run takes that does not train: all images where nothing tells test images from others."""
        from rsdiff.runs.tested import tested_dataset

        return tested_dataset(self)

    @cached_property
    def identity(self) -> Identity:
        """What the run is; see rsdiff.runs.identity. Raises DataError and the like for data that are not there."""
        from rsdiff.data.source import DataError
        from rsdiff.runs.content import (
            NOTHING,
            digest_of_calibrations,
            digest_of_checkpoint,
            digest_of_images,
            digest_of_path,
            images_of,
            located_files,
            metric_files,
        )
        from rsdiff.runs.identity import Identity, plain, settings_of
        from rsdiff.runs.predecessor import name_of_run

        used = sorted(self.task.uses)
        groups = {group: {"kind": self.resolved[group]["kind"], **plain(self.groups[group])} for group in used}
        if "trainer" in groups and self.trainer.extend is not None:
            groups["trainer"]["extend"] = name_of_run(self.trainer.extend, self.outputs)
        settings = {
            "task": {"kind": self.resolved["task"]["kind"], **plain(self.task)},
            "scale": self.scale,
            "seed": self.seed,
            **({"output": str(self.output.resolve())} if self.output else {}),
            **groups,
        }
        content: dict[str, str] = {}
        if self.starting_point is not None:
            content["start"] = digest_of_checkpoint(self.starting_point)
            if self.task.is_calibrated and getattr(self.task, "samples", 1) > 1:
                found = digest_of_calibrations(self.starting_point)
                content |= {"calibrations": found} if found else {}
        content |= {f"ensemble/{number}": digest_of_checkpoint(place) for number, place in enumerate(self.beside)}
        content |= {f"input/{number}": digest_of_path(path) for number, path in enumerate(self.inputs)}
        if self.source is not None:
            content["source"] = digest_of_path(self.source)
        content |= {f"sr/{number}": digest_of_path(Path(place)) for number, place in enumerate(self.restored)}
        if self.options.hr is not None:
            content["hr"] = digest_of_path(Path(self.options.hr))
        content |= dict(located_files("task", self.task))
        for group in used:
            content |= dict(located_files(group, self.groups[group])) if group != "dataset" else {}
        content |= metric_files(self.groups.get("metrics"))
        splits = {split: self.split(split) for split in self.task.reads}
        content |= {split: digest_of_images(source) for split, source in splits.items()}
        if "train" not in content and self._fits_a_baseline():
            try:
                content["train"] = self._training_images()
            except DataError:
                content["train"] = NOTHING  # the baseline is left out
        images = {str(split): images_of(source) for split, source in splits.items()}
        return Identity(settings_of(settings), content, images)

    @cached_property
    def decision(self) -> Decision:
        """Whether the run is finished, goes on or begins, in which folder, and why."""
        from rsdiff.runs.decision import decide
        from rsdiff.runs.former import adopt_former

        beside = self.outputs / self.choices["task"] / self.name
        adopt_former(beside, self.identity, {group: self.groups[group] for group in self.task.uses}, self.resolved)
        return decide(self.identity, beside, can_extend="trainer" in self.task.uses, chosen=self.place)

    @property
    def signature(self) -> str:
        """The name of the run: a hash of what can change its result, at the time it began."""
        return self.decision.signature

    @property
    def run_path(self) -> Path:
        """The run's folder: `<outputs>/<task>/<model>-<dataset>/<signature>`, wherever outputs are now."""
        return self.decision.folder


def _path(text: str | None) -> Path | None:
    return None if text is None else typed_path(text)
