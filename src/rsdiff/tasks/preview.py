"""task=preview: look at a degradation before training on it. One sheet of degraded images, one of the drawn parameters, one table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor

from rsdiff.data.sample import Sample
from rsdiff.data.seeding import keyed_generator
from rsdiff.data.source import ImageSource
from rsdiff.data.views import SampleKey, TrainingSamples
from rsdiff.degradations import Degradation, RecordValue, named_cases
from rsdiff.degradations.test_sets import draw_of
from rsdiff.reporting.preview import PreviewRow, write_contact_sheet, write_parameter_sheet
from rsdiff.reporting.records import write_records
from rsdiff.runs.result import TaskResult
from rsdiff.runs.run_folder import RunFolder
from rsdiff.runs.settings import RunSettings
from rsdiff.tasks.experiment import degradation_for
from rsdiff.tasks.options import PreviewTask
from rsdiff.tracking import Tracker


def run(settings: RunSettings, folder: RunFolder, tracker: Tracker) -> TaskResult:
    """Degrade crops of the training images several times and write the sheets into the run's folder."""
    options = cast(PreviewTask, settings.task)
    source = settings.split("train")
    crops = first_crops(settings, options, source)
    columns: list[Column] = []
    drawn: list[dict[str, RecordValue]] = []
    for name, degradation in named_cases(degradation_for(settings, source).for_tests().build()):
        if draw_of(degradation, source) is None:
            columns.append(Column("Input (LR)", [lr_of(crop) for crop in crops]))
            continue
        columns += degraded_columns(settings, options, name, degradation, crops)
        drawn += drawn_rows(settings, options, name, degradation, crops[0])
    title = f"degradation={settings.choices['degradation']} on dataset={settings.choices['dataset']}, x{settings.scale:g}"
    sheet = folder.path / "degraded.png"
    rows = [PreviewRow(crop.meta.name, hr_of(crop), [column.images[index] for column in columns]) for index, crop in enumerate(crops)]
    write_contact_sheet(sheet, title, [column.title for column in columns], rows, options.rgb_bands)
    messages = [f"degraded images    {sheet}"]
    if drawn:
        frame = write_records(folder.path, drawn)
        parameters = folder.path / "parameters.png"
        if write_parameter_sheet(parameters, f"{title}: {options.draws} draws", frame.drop(columns="name")):
            messages.append(f"drawn parameters   {parameters}")
        messages.append(f"table of draws     {folder.path / 'records.csv'}")
    messages.append("next               the same command without task=preview")
    return TaskResult(messages=messages, summary={"images": len(crops), "draws": len(drawn)}, report=sheet, files=[sheet])


@dataclass(frozen=True)
class Column:
    """A column of the sheet: one degraded form (c, h, w) of every crop."""

    title: str
    images: list[Tensor]


def first_crops(settings: RunSettings, options: PreviewTask, source: ImageSource) -> list[Sample]:
    """Return crops of the first images, without decisions; images smaller than the crop are mirrored."""
    scale = settings.scale
    patch = round(max(1, options.patch // scale) * scale)
    samples = TrainingSamples(source, scale, patch, settings.seed, None, augment=False, small="pad")
    return [samples[SampleKey(0, index, 0)] for index in range(min(options.images, len(samples)))]


def degraded_columns(settings: RunSettings, options: PreviewTask, name: str, degradation: Degradation, crops: list[Sample]) -> list[Column]:
    """Return one column per draw; a single one where nothing is drawn but noise."""
    columns = []
    for number in range(options.columns):
        images, records = [], []
        for index, crop in enumerate(crops):
            decision = drawn_decision(settings, degradation, crop, name, "image", index, number)
            images.append(degradation.apply(hr_of(crop)[None], [decision]).lr[0])
            records.append(degradation.record(decision))
        columns.append(Column(name or f"draw {number + 1}", images))
        if name or not any(records):
            break
    return columns


def drawn_rows(
    settings: RunSettings, options: PreviewTask, name: str, degradation: Degradation, crop: Sample
) -> list[dict[str, RecordValue]]:
    """Return what `options.draws` draws for a crop record, one row each; a case of a list of test sets is fixed and has one."""
    rows: list[dict[str, RecordValue]] = []
    for number in range(1 if name else options.draws):
        record: Mapping[str, RecordValue] = degradation.record(drawn_decision(settings, degradation, crop, name, "draw", number))
        if record:
            rows.append({"name": name or f"draw{number:05d}", **record})
    return rows


def drawn_decision(settings: RunSettings, degradation: Degradation, crop: Sample, *key: int | str) -> Any:
    """Return the decisions that belong to this key and crop."""
    assert crop.lr_size is not None
    hr = hr_of(crop)
    return degradation.draw(keyed_generator(settings.seed, "preview", *key), (hr.shape[0], hr.shape[1], hr.shape[2]), crop.lr_size)[0]


def hr_of(crop: Sample) -> Tensor:
    """Return the HR crop (C, H, W); `TrainingSamples` refuses data without it."""
    assert crop.hr is not None
    return crop.hr


def lr_of(crop: Sample) -> Tensor:
    """Return the LR crop (c, h, w) of data that bring one."""
    assert crop.lr is not None
    return crop.lr
