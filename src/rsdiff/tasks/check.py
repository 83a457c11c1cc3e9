"""task=check: find out before a run what would end it late, or spoil its figures, and say all of it at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from rsdiff.config import UserError
from rsdiff.config.paths import typed_path
from rsdiff.data.file_dataset import FileDataset, check_root, folder_of
from rsdiff.data.file_records import FileRecords, PixelFacts
from rsdiff.data.holdout import hold_out
from rsdiff.data.packed import PackedDataset, is_packed, open_packed
from rsdiff.data.packing import damaged
from rsdiff.data.scanning import Scanned, facts_of, scan
from rsdiff.data.source import DataError, ImageSource, Split
from rsdiff.data.views import TestSamples, lr_patch_of, usable_images
from rsdiff.inference.speed import measure
from rsdiff.metrics.baseline import BICUBIC
from rsdiff.reporting.records import write_text
from rsdiff.runs.compatibility import check_compatible
from rsdiff.runs.result import TaskResult
from rsdiff.runs.run_folder import RunFolder
from rsdiff.runs.settings import RunSettings
from rsdiff.tasks import used_data
from rsdiff.tasks.experiment import make_accelerator, problem_of, sets_to_test
from rsdiff.tasks.options import CheckTask, EvaluateTask, TrainTask
from rsdiff.tracking import Tracker
from rsdiff.training.built import build_method

SMALL_SHARE = 0.25
"""Share of 8 bits below which the values of a data set look as if they were stored in another unit."""
T = TypeVar("T")


class Findings:
    """What is wrong, one sentence each, in the order it was found, and notes on what a run will go on without."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.notes: list[str] = []

    def add(self, problem: str) -> None:
        """Note a problem once."""
        text = problem.rstrip(".") + "."
        if text not in self.problems:
            self.problems.append(text)

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note what a step says in a sentence of its own instead of ending with it."""
        try:
            yield
        except (UserError, OSError) as error:
            self.add(str(error))

    def of(self, step: Callable[[], T]) -> T | None:
        """Return the result of a step, or None where it says what is wrong."""
        with self.noted():
            return step()
        return None


def run(settings: RunSettings, folder: RunFolder, tracker: Tracker) -> TaskResult:
    """Check settings, files, sizes, ranges, pairs, weights and disk space; ends with code 1 where anything is wrong."""
    found = Findings()
    trains = not settings.model.is_ready and "hr" in (found.of(lambda: settings.dataset.gives) or frozenset())
    with found.noted():
        check_compatible(replace(settings, task=TrainTask() if trains else EvaluateTask()))
    splits: tuple[Split, ...] = ("train", "test") if trains else ("test",)
    dataset = settings.dataset if trains else settings.tested
    if isinstance(dataset, FileDataset):
        with found.noted():
            check_root(dataset)
            if is_packed(dataset.root):
                check_packed(folder_of(dataset), found)
            else:
                for split in splits:
                    check_files(dataset, split, settings.scale, found, tracker)
                dataset = replace(dataset, odd="skip")
    elif isinstance(dataset, PackedDataset):
        with found.noted():
            check_packed(typed_path(dataset.file), found)
    sources = {split: source for split in splits if (source := found.of(lambda split=split: opened(dataset, split, settings.scale)))}  # type: ignore[misc]
    said = [] if not sources else check_sources(settings, sources, found)
    check_methods(settings, sources, folder, trains, found)
    if isinstance(settings.task, CheckTask) and settings.task.speed and sources:
        with found.noted():
            said = [*said, measured_speed(settings, next(iter(sources.values())))]
    return told(settings, folder, said, found)


def measured_speed(settings: RunSettings, source: ImageSource) -> str:
    """Return what speed=fast brings to restoring with this model, of whatever weights, on this device."""
    if settings.checkpoint is not None:
        raise UserError(
            f"task.speed measures model={settings.choices['model']} without a checkpoint; leave checkpoint out, or add task.speed=fast to "
            "task=evaluate or task=restore, which measure it"
        )
    device, problem = make_accelerator().device, problem_of(settings, source)
    method = build_method(settings.model, problem, settings.seed).to(device).eval()
    return measure(method, problem, settings.model.requires, settings.sampler, device).told() + "; other weights have another distance"


def opened(dataset: Any, split: Split, scale: float) -> ImageSource:
    """Return one split of a data set after its own check."""
    dataset.check()
    source: ImageSource = dataset.build(split, scale)
    return source


def check_files(dataset: FileDataset, split: Split, scale: float, found: Findings, tracker: Tracker) -> None:
    """Note every file of a split that cannot be used, and values that do not suit the normaliser; each file is decoded once."""
    items = found.of(lambda: dataset.chosen(split, scale))
    if not items:
        return
    records = FileRecords([path for item in items for path in item.paths.values()])
    options = replace(dataset, odd="skip")
    try:
        scanned, odd = scan(items, options, scale, records, lambda done, total: tracker.progress(f"decoding {split} images", done, total))
    except DataError as error:
        found.add(str(error))
        return
    for _, reason in odd:
        found.add(f"{reason.rstrip('.')}; or leave it out with dataset.odd=skip")
    facts = list(facts_of(scanned, options, records, None))
    for name, by_role in facts:
        for role in [role for role in by_role if role != "change_mask"]:
            fact = by_role[role]
            if fact.valid == 0:
                found.add(f"{name} ({role}) has no valid pixel: delete it, or correct its nodata value")
            elif fact.low == fact.high:
                found.add(f"{name} ({role}) has the value {fact.low:g} everywhere: delete it, or export it anew")
    source = found.of(lambda: options.build(split, scale))
    if source is not None:
        check_ranges(source, scanned, [by_role for _, by_role in facts], found)


def check_packed(path: Path, found: Findings) -> None:
    """Note images of a packed file whose pixels are not those that were packed; every one is read once."""
    packed = open_packed(path)
    wrong = [packed.manifest.names[row] for row in damaged(packed)]
    if wrong:
        found.add(
            f"{len(wrong)} images of {path}, {wrong[0]} among them, are damaged: copy the file again, or delete it and repeat task=prepare"
        )


def check_ranges(source: ImageSource, scanned: Sequence[Scanned], facts: Sequence[dict[str, PixelFacts]], found: Findings) -> None:
    """Note images whose values lie far off the range that the others have, and those that fill a small part of 8 bits."""
    for role, rule in (("hr", source.normaliser), ("lr", source.lr_normaliser)):
        known = [by_role[role] for by_role in facts if role in by_role and by_role[role].valid > 0]
        if not known:
            continue
        low, high = min(fact.low for fact in known), max(fact.high for fact in known)
        first, last = min(rule.low), max(rule.high)
        advice = f"set dataset.range=[{_round_down(low):g},{_round_up(high):g}], or a name that --help lists"
        outside = [sample.item.name for sample, by_role in zip(scanned, facts, strict=True) if _leaves(by_role.get(role), first, last)]
        if outside:
            found.add(f"{len(outside)} {role} images, {outside[0]} among them, leave the range from {first:g} to {last:g}: {advice}")
        elif (first, last) == (0, 255) and high - first < SMALL_SHARE * (last - first):
            found.add(f"{role} images reach {high:g} and {first:g} to {last:g} become 0 to 1, of which they fill a small part: {advice}")


def check_sources(settings: RunSettings, sources: dict[Split, ImageSource], found: Findings) -> list[str]:
    """Note what is wrong with the splits as a whole; return what a run would say of them."""
    test, training = sources.get("test"), sources.get("train")
    validation = None
    if test is not None:
        with found.noted():
            TestSamples(test, settings.scale, settings.seed, None, size_rule=settings.dataset.size_rule)
    if training is not None:
        whole = training
        with found.noted():
            training, validation = hold_out(whole, settings.trainer.validation_images, settings.scale)
        with found.noted():
            lr_patch_of(settings.trainer.patch, settings.scale)
            usable_images(whole, settings.trainer.patch, settings.dataset.small)
    if test is None:
        return []
    said = used_data.sentences(settings, test, training, validation)
    for line in said:
        if line.startswith("caution"):
            found.add(line.removeprefix("caution").strip())
    return said


def check_methods(settings: RunSettings, sources: dict[Split, ImageSource], folder: RunFolder, trains: bool, found: Findings) -> None:
    """Note missing weights, a model that cannot treat the data, a disk that is too full, and metrics that will be left out."""
    for path in settings.model.files:
        if not path.exists():
            found.add(f"{path}, which model={settings.choices['model']} needs, is not there: put it there, or correct the path")
    source = sources.get("train") or sources.get("test")
    if source is None:
        return
    with found.noted():
        operator = None if "lr" in source.gives else sets_to_test(settings, source)[0].degradation
        evaluator = settings.metrics.build(source.bands, "hr" in source.gives, operator, torch.device("cpu"), BICUBIC)
        found.notes += [f"note     {sentence}" for sentence in evaluator.check()]
    with found.noted():
        method = build_method(settings.model, problem_of(settings, source), settings.seed)
        parameters = sum(parameter.numel() for parameter in method.parameters())
        if trains:
            folder.require_space(4 * parameters * 5 * (settings.trainer.keep_checkpoints + 2))


def told(settings: RunSettings, folder: RunFolder, said: Sequence[str], found: Findings) -> TaskResult:
    """Return the lines to print, which is kept in check.md, too."""
    place = folder_of(settings.dataset) if isinstance(settings.dataset, FileDataset) else settings.choices["dataset"]
    count = len(found.problems)
    lines = [line for line in said if not line.startswith("caution")] + found.notes
    lines += [f"{number:3}. {problem}" for number, problem in enumerate(found.problems, 1)]
    report = folder.path / "check.md"
    write_text(report, "\n".join([f"# {place}", "", *lines, ""]))
    failure = f"{count} problem{'s were found; they are' if count > 1 else ' was found; it is'} listed in {report}." if count else ""
    lines += [] if count else [f"nothing wrong was found in {place}", "next     the same command without task=check"]
    return TaskResult(messages=lines, summary={"problems": count}, report=report, failure=failure)


def _leaves(fact: PixelFacts | None, first: float, last: float) -> bool:
    far = last - first  # clouds and noise below 0 leave it by less; how many of them there are is told when the data set is opened
    return fact is not None and fact.valid > 0 and (fact.low < first - far or fact.high > last + far)


def _round_up(value: float) -> float:
    """Return the next of 1, 1.5, 2, 3, 4, 5, 6, 8, 10 times a power of ten that is not below a value."""
    if value <= 0:
        return 0.0 if value == 0 else -_round_down(-value)
    unit = 10.0 ** math.floor(math.log10(value))
    return next(step * unit for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if step * unit >= value * (1 - 1e-9))


def _round_down(value: float) -> float:
    """Return 0 for a value that is not negative, else the next such number that is not above it."""
    return 0.0 if value >= 0 else -_round_up(-value)
