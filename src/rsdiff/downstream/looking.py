"""What the trained network finds in bicubic, SR and HR: objects by masks, scenes by class folders."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from rsdiff.config import UserError
from rsdiff.data.sample import Batch
from rsdiff.degradations.test_sets import TestSet
from rsdiff.diffusion.sampler import SamplerConfig
from rsdiff.downstream.learning import classes_of
from rsdiff.downstream.options import DownstreamOptions
from rsdiff.downstream.tables import FOUND, Row, Seen, table_of_classes, table_of_objects
from rsdiff.inference.images import restore_images
from rsdiff.methods.base import Method
from rsdiff.metrics.baseline import bicubic
from rsdiff.metrics.objects import objects_of, outlines
from rsdiff.reporting.panels import file_name

INPUTS = ("bicubic", "SR", "HR")
"""What the network looks at; the first is left out where bands are added."""
Findings = tuple[list[Row], str, dict[str, Any]]
"""Rows, tables in Markdown, summary."""


@dataclass(frozen=True)
class Examination:
    """What the trained network looks at: every image of the test sets of one split, restored by `method`, beside bicubic and HR."""

    method: Method
    sets: Sequence[TestSet]
    sampler: SamplerConfig
    seed: int
    device: torch.device
    progress: Callable[[int, int], None]

    def images(self) -> Iterator[tuple[Row, Batch, dict[str, Tensor]]]:
        """Yield (row with its name, batch of one, images by input) of every test image under every degradation."""
        done, total = 0, sum(len(tested.samples) for tested in self.sets)
        for tested in self.sets:
            samples = (tested.samples[index] for index in range(len(tested.samples)))
            for restored in restore_images(self.method, samples, tested.degradation, self.sampler, self.seed, self.device):
                batch = restored.batch
                lr, hr = batch.need("lr"), batch.need("hr")
                images = {"SR": restored.image, "HR": hr}
                if lr.shape[1] == hr.shape[1]:
                    images["bicubic"] = bicubic(lr[0], batch.size)[None].clamp(0, 1)
                name = batch.metas[0].name
                row: Row = {"name": f"{tested.name}/{name}", "degradation": tested.name} if tested.name else {"name": name}
                yield row, batch, {name: images[name] for name in INPUTS if name in images}
                done += 1
                self.progress(done, total)


@torch.no_grad()
def search(on: Examination, network: nn.Module, options: DownstreamOptions, panels: Path) -> Findings:
    """Return rows, tables and summary of the objects found; pictures of the first images are written into the folder `panels`."""
    seen: dict[str, Seen] = {}
    rows: list[Row] = []
    for number, (row, batch, images) in enumerate(on.images()):
        mask = batch.need("change_mask")[0, 0].cpu().numpy() > 0
        shown = []
        for name, image in images.items():
            scores = torch.sigmoid(network(image.float()))[0, 0].cpu().numpy()
            found = scores >= FOUND
            known = seen.setdefault(name, Seen())
            union = int((found | mask).sum())
            row[f"{name}_iou"] = float((found & mask).sum() / union) if union else math.nan
            lines = outlines(found, mask, options.tolerance)
            row[f"{name}_boundary_f1"] = lines.f1
            known.lines += lines
            known.objects += objects_of(mask, scores)
            known.jaccard.update(torch.from_numpy(found.astype(np.int64)), torch.from_numpy(mask.astype(np.int64)))
            shown.append(overlaid(image[0].cpu(), found, mask))
        rows.append(row)
        if number < options.panels:
            picture = np.concatenate(shown, axis=1)
            panels.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(panels / f"{file_name(row['name'])}.png")
    text = table_of_objects(seen, rows, options.sizes)
    summary = {f"{name}_iou": float(found.jaccard.compute()) for name, found in seen.items()}
    return rows, text, {**summary, "images": len(rows)}


def overlaid(image: Tensor, found: NDArray[np.bool_], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return an image (C, H, W) as a picture (H, W, 3): what was found rightly is green, wrongly red, what was missed blue."""
    grey = image.float().mean(0).clamp(0, 1).numpy()[..., None] * np.full(3, 255.0)
    for where, colour in ((found & mask, (0, 200, 0)), (found & ~mask, (230, 0, 0)), (~found & mask, (0, 90, 255))):
        grey[where] = 0.55 * grey[where] + 0.45 * np.array(colour)
    shown: NDArray[np.uint8] = grey.round().astype(np.uint8)
    return shown


@torch.no_grad()
def recognise(on: Examination, network: nn.Module, labels: Sequence[str]) -> Findings:
    """Return rows, table and summary of the scenes recognised."""
    found_there = classes_of(on.sets[0].samples.source)
    if not found_there:
        raise UserError("the test images lie in no class folders, as the training images do; sort them into such folders.")
    unknown = sorted(set(found_there) - set(labels))
    if unknown:
        raise UserError(f"the test images have classes that the training images lack ({', '.join(unknown[:3])}); choose another split.")
    rows: list[Row] = []
    accuracy: dict[str, MulticlassAccuracy] = {}
    for row, batch, images in on.images():
        true = dict(batch.metas[0].labels)["class"]
        row["class"] = true
        for name, image in images.items():
            logits = network(image.float()).cpu()
            row[f"{name}_class"] = labels[int(logits.argmax())]
            row[f"{name}_right"] = float(row[f"{name}_class"] == true)
            known = accuracy.setdefault(name, MulticlassAccuracy(len(labels), average="micro"))
            known.update(logits, torch.tensor([labels.index(true)]))
        rows.append(row)
    found = {name: float(known.compute()) for name, known in accuracy.items()}
    return (
        rows,
        table_of_classes(found, rows, len(labels)),
        {**{f"{name}_accuracy": value for name, value in found.items()}, "images": len(rows)},
    )
