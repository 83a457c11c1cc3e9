"""What any tool restored, against its references: images of two folders matched by name, and scored under a protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from rsdiff.config import UserError
from rsdiff.data.data_range import RangeError
from rsdiff.data.file_dataset import by_stem, class_label
from rsdiff.data.file_options import FileOptions
from rsdiff.data.files import FileSource, list_images
from rsdiff.data.normalisation import Normaliser, NormaliserConfig
from rsdiff.data.pairing import Affixes, pair
from rsdiff.data.rasters import raster_info
from rsdiff.data.sample import Batch, Sample, SampleMeta
from rsdiff.data.scales import target_sides
from rsdiff.data.scanning import Item
from rsdiff.data.source import Window
from rsdiff.metrics.evaluator import Evaluator, Row
from rsdiff.metrics.options import MetricsConfig
from rsdiff.metrics.summary import Summary

Progress = Callable[[int, int], None]
"""Called with the images done and the images in all."""
KeepMaps = Callable[[Tensor | None, SampleMeta], None]
"""Called with the maps (3, H, W) of an image's detail."""


@dataclass(frozen=True)
class Scored:
    """Rows of one tool's images, with the evaluators that made them; `parts` are rows by band, degradation or class."""

    name: str
    rows: list[Row]
    summary: Summary
    parts: list[tuple[str, Summary]]


OTHER_UNIT = 20.0
"""So many times as bright and as varied as its reference no method restores an image, or the other way round; 10000 / 255 is 39."""


class Images:
    """Restored images with their references, matched by name; read one at a time.

    restored, reference  two folders, nested alike or flat, or two files; names may differ by what all of a folder have in common. Where
                         every folder in `restored` has an image of every reference, they are told apart as degradations
    others               folders of LR images ('lr') and of masks whose 0 does not count ('change_mask'), named as the references
    Raises UserError (DataError) where a file has no partner or sizes do not belong together.
    """

    def __init__(self, restored: Path, reference: Path, others: Mapping[str, Path], options: FileOptions, scale: float) -> None:
        if restored.exists() and restored.resolve() == reference.resolve():
            raise UserError(f"sr={restored} and hr={reference} are the same; give the restored images and what they are compared with.")
        sr, hr = (stems_of(place, name, options) for place, name in ((restored, "sr"), (reference, "hr")))
        one_file = restored.is_file() and reference.is_file()
        one_pair = [("", next(iter(hr)), next(iter(hr)), next(iter(sr)))]
        pairs = one_pair if one_file else by_degradation(hr, sr) or [("", *one) for one in matched(hr, sr, reference, restored)]
        found = {role: stems_of(place, role, options) for role, place in others.items()}
        items, made = [], []
        for degradation, name, high, low in pairs:
            label = f"{degradation}/" if degradation else ""
            beside = {role: stems.get(label + high, stems.get(high)) for role, stems in found.items()}
            lacking = next((role for role, path in beside.items() if path is None), None)
            if lacking is not None:
                raise UserError(f"{hr[high]} has no partner of its name in {others[lacking]}; add it, or leave that folder out.")
            labels = (*([("degradation", degradation)] if degradation else []), *class_label(high))
            items.append(Item(label + name, {"hr": hr[high], **{role: path for role, path in beside.items() if path}}, labels))
            made.append(Item(label + name, {"hr": sr[low]}))
        self.scale = scale
        try:
            self.references = FileSource(items, options, scale, items)
            self.restored = FileSource(made, unlimited(options, made, self.references.normaliser), scale, made)
        except RangeError as error:
            raise UserError(f"{error.what}; say which stored values are 0 and the peak with task.low and task.high.") from None
        if self.restored.bands != self.references.bands:
            raise UserError(
                f"{restored} has {self.restored.bands}-band images and {reference} {self.references.bands}-band ones; set task.rgb=true to "
                "compare three bands of each, or task.bands."
            )

    def __len__(self) -> int:
        return len(self.references)

    def __iter__(self) -> Iterator[tuple[Batch, Tensor]]:
        """Yield every reference as a batch of one, and the restored image (1, C, H, W); both cut to the size they share."""
        for index in range(len(self)):
            size = self.shared_size(index)
            window = Window(0, 0, *size)
            target = self.references.read(index, None if self.references.size(index) == size else window)
            made = self.restored.read(index, None if self.restored.size(index) == size else window)
            assert target.hr is not None
            assert made.hr is not None
            require_one_unit(made.hr, target.hr, self.references.name(index))
            yield batch_of(target, made, self.scale), made.hr[None]

    def shared_size(self, index: int) -> tuple[int, int]:
        """Return (H, W): a restored image may lack the rows and columns that do not fill an LR pixel, and no others."""
        own, target = self.restored.size(index), self.references.size(index)
        cut = target_sides(target, self.scale, "crop")
        if any(side not in sides for side, *sides in zip(own, target, cut, strict=True)):
            raise UserError(
                f"the restored image of {self.references.name(index)} is {own[0]}x{own[1]} pixels and its reference "
                f"{target[0]}x{target[1]}; give images of the reference's size."
            )
        return own


def require_one_unit(made: Tensor, target: Tensor, name: str) -> None:
    """Raise UserError where an image and its reference (C, H, W) are stored in different units: up to 255 and 10000.

    A flat image is no such case as long as it is about as bright; nor is a black one, which a method that failed may have written.
    """
    (bright, wide), (wanted, span) = ((float(image.nan_to_num().amax()), float(image.nan_to_num().std())) for image in (made, target))
    if min(bright, wanted) > 0 and max(bright / wanted, wanted / bright) > OTHER_UNIT < max(wide, span) / max(min(wide, span), 1e-12):
        raise UserError(
            f"the restored image of {name} has values up to {bright:.3g} of the peak and its reference up to {wanted:.3g}, as if they were "
            "stored in different units; write the restored images in the units of the references."
        )


def unlimited(options: FileOptions, items: Sequence[Item], references: Normaliser) -> FileOptions:
    """Return the options for restored images: those for 0 to 1 may lie beyond, and the protocol says what becomes of that.

    references  the range of the references, which signed types, whose range is measured, must share
    """
    kind = raster_info(items[0].paths["hr"]).dtype.kind
    if options.normaliser.rule != "type" or kind == "u":
        return options
    if kind == "i":
        return replace(options, normaliser=NormaliserConfig(rule="fixed", low=references.low, high=references.high, clip=False))
    return replace(options, normaliser=NormaliserConfig(rule="fixed", clip=False))


def batch_of(target: Sample, made: Sample, scale: float) -> Batch:
    """Return a reference with its LR and mask as a batch of one; where either image is missing, nothing counts."""
    assert target.hr is not None
    masks = [mask.expand_as(target.hr) for mask in (target.valid, made.valid) if mask is not None]
    if target.change_mask is not None:
        masks.append((target.change_mask > 0).to(target.hr).expand_as(target.hr))
    H, W = target.hr.shape[-2:]
    lr_size = (round(H / scale), round(W / scale)) if target.lr is None else (target.lr.shape[-2], target.lr.shape[-1])
    return Batch(
        metas=[target.meta],
        size=(H, W),
        lr_size=lr_size,
        given_scale=scale,
        hr=target.hr[None],
        lr=None if target.lr is None else target.lr[None],
        lr_valid=None if target.lr is None or target.lr_valid is None else target.lr_valid.expand_as(target.lr)[None],
        valid=torch.stack(masks).amin(0)[None] if masks else None,
    )


def stems_of(place: Path, role: str, options: FileOptions) -> dict[str, Path]:
    """Return the images of a folder by their names below it, or a file by its name; raises UserError where there is none."""
    if place.is_file():
        return {place.stem: place}
    found = by_stem(list_images(place, options.extensions), place) if place.is_dir() else {}
    if not found:
        what = "holds no image" if place.is_dir() else "does not exist"
        raise UserError(f"{role}={place} {what}; give an image or a folder of images ({', '.join(options.extensions[:6])}, ...).")
    return found


def matched(hr: Mapping[str, Path], sr: Mapping[str, Path], reference: Path, restored: Path) -> list[tuple[str, str, str]]:
    """Return (name, HR stem, SR stem) of every image, by equal names or by what the names of a folder have in common around them."""
    found = pair(list(hr), list(sr), {"hr": Affixes(), "lr": Affixes()})
    if found.alone or not found.pairs:
        role, stem = found.alone[0] if found.alone else ("hr", next(iter(hr)))
        path, other = (hr[stem], restored) if role == "hr" else (sr[stem], reference)
        raise UserError(
            f"{path} has no partner in {other} ({len(found.pairs)} of {len(hr)} references have one); give folders whose files have "
            "the same names, or one prefix or suffix each."
        )
    return list(found.pairs)


def by_degradation(hr: Mapping[str, Path], sr: Mapping[str, Path]) -> list[tuple[str, str, str, str]]:
    """Return (folder, name, HR stem, SR stem) where two folders or more each hold an image of every reference; else nothing."""
    folders: dict[str, dict[str, str]] = {}
    for stem in sr:
        folder, _, below = stem.partition("/")
        folders.setdefault(folder, {})[below] = stem
    if len(folders) < 2 or any("" in inside for inside in folders.values()):
        return []
    made = []
    for folder, inside in folders.items():
        found = pair(list(hr), list(inside), {"hr": Affixes(), "lr": Affixes()})
        if found.alone or len(found.pairs) != len(hr):
            return []
        made += [(folder, name, high, inside[low]) for name, high, low in found.pairs]
    return made


def score_images(
    name: str,
    images: Images,
    metrics: MetricsConfig,
    per_band: bool = False,
    progress: Progress = lambda done, total: None,
    keep_maps: KeepMaps | None = None,
) -> Scored:
    """Return the rows of a tool's images, their summary, and those of every band, degradation and class folder.

    keep_maps  keeps maps of the images' detail; None makes none
    """
    device, bands = torch.device("cpu"), images.references.bands
    range_of_references = images.references.normaliser
    metrics = replace(metrics, protocol=metrics.protocol.for_values(range_of_references.low, range_of_references.high))
    evaluator = Evaluator(metrics, bands, True, None, device)
    single = Evaluator(replace(metrics, baseline=False), 1, True, None, device) if per_band and bands > 1 else None
    rows: list[Row] = []
    by_band: list[list[Row]] = [[] for _ in range(bands if single else 0)]
    for number_done, (batch, image) in enumerate(images, start=1):
        (row,) = evaluator.rows(batch, image, 0.0)
        del row["seconds"]
        if keep_maps is not None:
            keep_maps(evaluator.detail_maps(batch, 0, image[0]), batch.metas[0])
        for band, kept in enumerate(by_band):
            assert single is not None
            (of_band,) = single.rows(band_of(batch, band), image[:, band : band + 1], 0.0)
            kept.append(of_band)
            row |= {f"{metric.name}_band{band + 1}": of_band[metric.name] for metric in single.metrics if metric.name in of_band}
        rows.append(row)
        progress(number_done, len(images))
    parts = [(f"band {band + 1}", single.summary(kept)) for band, kept in enumerate(by_band) if single]
    for kind in ("degradation", "class"):
        labels = sorted({str(row[kind]) for row in rows if kind in row})
        if len(labels) > 1:
            parts += [(label, evaluator.summary([row for row in rows if row.get(kind) == label])) for label in labels]
    return Scored(name, rows, evaluator.summary(rows), parts)


def band_of(batch: Batch, band: int) -> Batch:
    """Return one band of the target as a batch."""
    kept = slice(band, band + 1)
    return replace(
        batch,
        hr=batch.need("hr")[:, kept],
        valid=None if batch.valid is None else batch.valid[:, kept],
        lr=None,
        lr_valid=None,
    )
