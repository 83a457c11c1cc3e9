"""task=downstream: is a restored image as good as HR for what it is used for? A network trained on HR looks at bicubic, SR and HR.

Data with masks (`change_mask`) are searched for objects, data with class folders are recognised. The network, its training and the images
are the same for all three; differences are paired by image.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchmetrics.classification import BinaryJaccardIndex, MulticlassAccuracy

from rsdiff.config import UserError
from rsdiff.data.sample import Batch
from rsdiff.data.seeding import derived_seed, keyed_generator
from rsdiff.data.source import ImageSource, Window
from rsdiff.data.views import TestSamples
from rsdiff.degradations import named_cases
from rsdiff.inference.images import restore_images
from rsdiff.methods.base import Method
from rsdiff.metrics.baseline import bicubic
from rsdiff.metrics.objects import Found, Outlines, objects_of, outlines
from rsdiff.metrics.statistics import paired_difference
from rsdiff.networks.recognition import ObjectNetwork, SceneNetwork
from rsdiff.reporting.records import write_records, write_text
from rsdiff.runs.result import TaskResult
from rsdiff.runs.run_folder import RunFolder
from rsdiff.runs.settings import RunSettings
from rsdiff.tasks.experiment import degradation_for, draw_of, make_accelerator, problem_of, tested_method
from rsdiff.tasks.options import DownstreamTask
from rsdiff.tracking import Tracker

INPUTS = ("bicubic", "SR", "HR")
"""What the network looks at; the first is left out where bands are added."""
FOUND = 0.5
"""Score from which a pixel belongs to an object."""
Row = dict[str, Any]
Findings = tuple[list[Row], str, dict[str, Any]]
"""Rows, tables in Markdown, summary."""


@dataclass
class Seen:
    """What the network made of all test images of one input."""

    rows: list[Row] = field(default_factory=list)
    lines: Outlines = field(default_factory=Outlines)
    objects: list[Found] = field(default_factory=list)
    jaccard: BinaryJaccardIndex = field(default_factory=BinaryJaccardIndex)


def run(settings: RunSettings, folder: RunFolder, tracker: Tracker) -> TaskResult:
    """Train the network on HR, look at every test image three times, and write the tables."""
    task = settings.task
    assert isinstance(task, DownstreamTask)
    accelerator = make_accelerator()
    if accelerator.num_processes > 1:
        raise UserError("task=downstream trains a small network and runs in one process; start it without accelerate.")
    train, test = settings.split("train"), settings.split("test")
    if "hr" not in train.gives:
        raise UserError(f"dataset={settings.choices['dataset']} has no HR images, on which the network is trained; choose data that have.")
    labels = classes_of(train)
    if "change_mask" not in train.gives and len(labels) < 2:
        raise UserError(
            "these data have neither masks of objects nor classes in folders; give masks (dataset=paired dataset.lr_folder= "
            "dataset.mask_folder=DIR, or dataset=synthetic dataset.mask=buildings) or a folder per class (dataset=folder)."
        )
    method, checkpoint = tested_method(settings, problem_of(settings, test))
    method.to(accelerator.device)
    searches = "change_mask" in train.gives
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(settings.seed, "recognition"))
        network = ObjectNetwork(train.bands, task.width) if searches else SceneNetwork(train.bands, len(labels), task.width)
    trained(network, settings, train, labels, folder.path / "network.safetensors", accelerator, tracker)
    look = search if searches else recognise
    rows, text, summary = look(Examination(settings, method, network, test, labels, folder.path, accelerator.device, tracker))
    write_records(folder.path / "evaluation", rows)
    heading = f"# {'Objects found' if searches else 'Scenes recognised'}: {settings.choices['model']} on {settings.choices['dataset']}"
    write_text(folder.path / "results.md", f"{heading}\n\n{text}")
    weights = [] if checkpoint is None else [f"checkpoint {checkpoint.folder}"]
    page = folder.path / "results.md"
    return TaskResult(
        messages=[text.strip(), *weights, f"records  {folder.path / 'evaluation' / 'records.csv'}", f"report   {page}"],
        summary=summary,
        report=page,
        files=[page],
    )


def classes_of(source: ImageSource) -> list[str]:
    """Return the class folders of a split."""
    return sorted({dict(source.meta(index).labels).get("class", "") for index in range(len(source))} - {""})


def trained(
    network: nn.Module,
    settings: RunSettings,
    train: ImageSource,
    labels: Sequence[str],
    path: Path,
    accelerator: Accelerator,
    tracker: Tracker,
) -> None:
    """Train the network on crops of HR, or take what an earlier process of this run trained."""
    task = settings.task
    assert isinstance(task, DownstreamTask)
    network.to(accelerator.device)
    if path.exists():
        network.load_state_dict(load_file(path))
    else:
        optimiser = torch.optim.AdamW(network.parameters(), lr=task.learning_rate)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, task.learning_rate, total_steps=task.steps)
        groups = groups_of(train, labels)
        for step in range(task.steps):
            images, targets = (part.to(accelerator.device) for part in crops(train, groups, task, settings.seed, step))
            optimiser.zero_grad()
            loss = F.cross_entropy(network(images), targets) if targets.ndim == 1 else masked_loss(network(images), targets)
            loss.backward()
            optimiser.step()
            schedule.step()
            tracker.progress("training the network on HR", step + 1, task.steps)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(network.state_dict(), path)
    network.eval()


def masked_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean of cross entropy and Dice loss of a mask: the one for its edges, the other for few small objects."""
    shares = torch.sigmoid(logits)
    overlap = 2 * (shares * targets).sum() / (shares.sum() + targets.sum() + 1)
    return F.binary_cross_entropy_with_logits(logits, targets) + 1 - overlap


def crops(source: ImageSource, groups: Sequence[Sequence[int]], task: DownstreamTask, seed: int, step: int) -> tuple[Tensor, Tensor]:
    """Return a batch of HR crops (B, C, p, p), flipped at random, with masks (B, 1, p, p) or class numbers (B,).

    groups  numbers of the images of every class, see `groups_of`: classes are drawn equally often, however many images each has
    """
    generator = keyed_generator(seed, "recognition", step)
    images, targets = [], []
    for number in torch.randint(len(groups), (task.batch,), generator=generator).tolist():
        index = groups[number][int(torch.randint(len(groups[number]), (), generator=generator))]
        H, W = source.size(index)
        side = min(task.patch, H, W)
        top, left = (int(torch.randint(length - side + 1, (), generator=generator)) for length in (H, W))
        sample = source.read(index, Window(top, left, side, side))
        axes = [axis for axis in (-2, -1) if torch.rand((), generator=generator) < 0.5]
        assert sample.hr is not None
        images.append(sample.hr.flip(axes))
        if sample.change_mask is not None:
            targets.append((sample.change_mask > 0).float().flip(axes))
        else:
            targets.append(torch.tensor(number))
    smallest = min(image.shape[-1] for image in images)
    cut = [image[..., :smallest, :smallest] for image in images]
    return torch.stack(cut), torch.stack([target[..., :smallest, :smallest] if target.ndim else target for target in targets])


def groups_of(source: ImageSource, labels: Sequence[str]) -> list[list[int]]:
    """Return the numbers of the images of every class, or of all images in one group where objects are searched."""
    if "change_mask" in source.gives:
        return [list(range(len(source)))]
    groups: dict[str, list[int]] = {label: [] for label in labels}
    for index in range(len(source)):
        groups[dict(source.meta(index).labels)["class"]].append(index)
    return list(groups.values())


@dataclass(frozen=True)
class Examination:
    """What the trained network looks at, and where the results go."""

    settings: RunSettings
    method: Method
    network: nn.Module
    test: ImageSource
    labels: Sequence[str]
    folder: Path
    device: torch.device
    tracker: Tracker

    def images(self, doing: str) -> Iterator[tuple[Row, Batch, dict[str, Tensor]]]:
        """Yield (row with its name, batch of one, images by input) of every test image under every degradation of the run.

        doing  in a word, for the line of progress
        """
        settings = self.settings
        cases = named_cases(degradation_for(settings, self.test).for_tests().build())
        done = 0
        for case, degradation in cases:
            draw = draw_of(degradation, self.test)
            views = TestSamples(self.test, settings.scale, settings.seed, draw, size_rule=settings.dataset.size_rule)
            samples = (views[index] for index in range(len(views)))
            for restored in restore_images(self.method, samples, degradation, settings.sampler, settings.seed, self.device):
                batch = restored.batch
                lr, hr = batch.need("lr"), batch.need("hr")
                images = {"SR": restored.image, "HR": hr}
                if lr.shape[1] == hr.shape[1]:
                    images["bicubic"] = bicubic(lr[0], batch.size)[None].clamp(0, 1)
                name = batch.metas[0].name
                row: Row = {"name": f"{case}/{name}", "degradation": case} if case else {"name": name}
                yield row, batch, {name: images[name] for name in INPUTS if name in images}
                done += 1
                self.tracker.progress(doing, done, len(cases) * len(self.test))


@torch.no_grad()
def search(on: Examination) -> Findings:
    """Return rows, tables and summary of the objects found."""
    task = on.settings.task
    assert isinstance(task, DownstreamTask)
    seen: dict[str, Seen] = {}
    rows: list[Row] = []
    for number, (row, batch, images) in enumerate(on.images("searching")):
        mask = batch.need("change_mask")[0, 0].cpu().numpy() > 0
        shown = []
        for name, image in images.items():
            scores = torch.sigmoid(on.network(image.float()))[0, 0].cpu().numpy()
            found = scores >= FOUND
            known = seen.setdefault(name, Seen())
            union = int((found | mask).sum())
            row[f"{name}_iou"] = float((found & mask).sum() / union) if union else math.nan
            lines = outlines(found, mask, task.tolerance)
            row[f"{name}_boundary_f1"] = lines.f1
            known.lines += lines
            known.objects += objects_of(mask, scores)
            known.jaccard.update(torch.from_numpy(found.astype(np.int64)), torch.from_numpy(mask.astype(np.int64)))
            shown.append(overlaid(image[0].cpu(), found, mask))
        rows.append(row)
        if number < task.panels:
            picture = np.concatenate(shown, axis=1)
            (on.folder / "panels").mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(on.folder / "panels" / f"{row['name'].replace('/', '_')}.png")
    text = tables(seen, rows, task.sizes)
    summary = {f"{name}_iou": float(found.jaccard.compute()) for name, found in seen.items()}
    return rows, text, {**summary, "images": len(rows)}


def tables(seen: Mapping[str, Seen], rows: Sequence[Row], sizes: Sequence[int]) -> str:
    """Return the tables of objects in Markdown: over all pixels and objects, by size, and paired differences over images."""
    bounds = list(pairwise([0, *sizes, math.inf]))
    ranges = [f"{low + 1} to {high}" if high < math.inf else f"over {low}" for low, high in bounds]
    lines = [
        "The network was trained on HR. Pooled over all test images; an object is found where its mean score is 0.5 or more.",
        "",
        f"| seen | IoU | boundary F1 | objects found | {' | '.join(f'{one} px' for one in ranges)} |",
        f"|---|---:|---:|---:|{'---:|' * len(ranges)}",
    ]
    for name, known in seen.items():
        groups = [[one for one in known.objects if low < one.pixels <= high] for low, high in bounds]
        found = [recall(group) for group in (known.objects, *groups)]
        lines.append(f"| {name} | {float(known.jaccard.compute()):.3f} | {known.lines.f1:.3f} | {' | '.join(found)} |")
    count = len(next(iter(seen.values())).objects) if seen else 0
    lines += [
        "",
        f"{count} objects in {len(rows)} images. As opensr-usecases has them: mean score, and share of which any pixel has 0.5 or more:",
        "",
        f"| seen | {' | '.join(f'{one} px' for one in ranges)} |",
        f"|---|{'---:|' * len(ranges)}",
    ]
    for name, known in seen.items():
        groups = [[one for one in known.objects if low < one.pixels <= high] for low, high in bounds]
        lines.append(f"| {name} | {' | '.join(touched(group) for group in groups)} |")
    lines += ["", *differences(rows, ("iou", "boundary_f1"))]
    return "\n".join([*lines, ""])


def recall(objects: Sequence[Found]) -> str:
    """Return the share of objects that were found."""
    return f"{np.mean([one.mean >= FOUND for one in objects]):.3f}" if objects else "-"


def touched(objects: Sequence[Found]) -> str:
    """Return the mean score of objects, and the share of which any pixel was found."""
    if not objects:
        return "-"
    return f"{np.mean([one.mean for one in objects]):.3f}, {np.mean([one.highest >= FOUND for one in objects]):.3f}"


def differences(rows: Sequence[Row], figures: Sequence[str]) -> list[str]:
    """Return a table of SR minus bicubic and HR minus SR, paired by image."""
    lines = ["| difference | mean | 95 % interval | better on | p |", "|---|---:|---:|---:|---:|"]
    for figure in figures:
        for first, second in (("SR", "bicubic"), ("HR", "SR")):
            better, worse = ([float(row.get(f"{name}_{figure}", math.nan)) for row in rows] for name in (first, second))
            if not np.isfinite([better, worse]).all(axis=0).any():
                continue
            found = paired_difference(better, worse)
            p = "-" if found.p != found.p else f"{found.p:.2g}" + (" n.s." if found.p >= 0.05 else "")
            interval = f"{found.low:+.3f} to {found.high:+.3f}"
            lines.append(f"| {figure.replace('_', ' ')}, {first} - {second} | {found.mean:+.3f} | {interval} | {found.better:.0%} | {p} |")
    return lines


def overlaid(image: Tensor, found: NDArray[np.bool_], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return an image (C, H, W) as a picture (H, W, 3): what was found rightly is green, wrongly red, what was missed blue."""
    grey = image.float().mean(0).clamp(0, 1).numpy()[..., None] * np.full(3, 255.0)
    for where, colour in ((found & mask, (0, 200, 0)), (found & ~mask, (230, 0, 0)), (~found & mask, (0, 90, 255))):
        grey[where] = 0.55 * grey[where] + 0.45 * np.array(colour)
    shown: NDArray[np.uint8] = grey.round().astype(np.uint8)
    return shown


@torch.no_grad()
def recognise(on: Examination) -> Findings:
    """Return rows, table and summary of the scenes recognised."""
    unknown = sorted(set(classes_of(on.test)) - set(on.labels))
    if unknown:
        raise UserError(f"the test images have classes that the training images lack ({', '.join(unknown[:3])}); choose another split.")
    rows: list[Row] = []
    accuracy: dict[str, MulticlassAccuracy] = {}
    for row, batch, images in on.images("recognising"):
        true = dict(batch.metas[0].labels)["class"]
        row["class"] = true
        for name, image in images.items():
            logits = on.network(image.float()).cpu()
            row[f"{name}_class"] = on.labels[int(logits.argmax())]
            row[f"{name}_right"] = float(row[f"{name}_class"] == true)
            known = accuracy.setdefault(name, MulticlassAccuracy(len(on.labels), average="micro"))
            known.update(logits, torch.tensor([on.labels.index(true)]))
        rows.append(row)
    found = {name: float(known.compute()) for name, known in accuracy.items()}
    lines = [
        f"The network was trained on HR of {len(on.labels)} classes.",
        "",
        "| seen | accuracy |",
        "|---|---:|",
        *(f"| {name} | {value:.3f} |" for name, value in found.items()),
        "",
        f"{len(rows)} images.",
        "",
        *differences(rows, ("right",)),
    ]
    return rows, "\n".join([*lines, ""]), {**{f"{name}_accuracy": value for name, value in found.items()}, "images": len(rows)}
