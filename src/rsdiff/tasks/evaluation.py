"""Evaluation on the test images: rows and panels, kept as they are made, so that a killed evaluation goes on where it stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import Accelerator

from rsdiff.config.errors import during
from rsdiff.data.loading import read_ahead
from rsdiff.data.sample import Batch
from rsdiff.data.source import ImageSource
from rsdiff.data.transfer import done_behind, has_queue
from rsdiff.degradations import RecordValue
from rsdiff.degradations.test_sets import TestSet
from rsdiff.inference.draws import restored_draws
from rsdiff.inference.images import Execution, Restored, restore_images
from rsdiff.inference.saving import save_image, save_maps
from rsdiff.methods.base import Method
from rsdiff.metrics import Evaluator
from rsdiff.metrics.baseline import BICUBIC, Baseline, bicubic
from rsdiff.metrics.kernel import KERNEL_PSNR, kernel_psnr
from rsdiff.metrics.summary import Summary
from rsdiff.reporting.panels import Panel, write_panel
from rsdiff.reporting.spectra import FEWEST_BANDS, SpectralImages, write_spectra
from rsdiff.runs.calibrations import Stored
from rsdiff.runs.console import say
from rsdiff.runs.settings import RunSettings
from rsdiff.tasks.experiment import sets_to_test
from rsdiff.tasks.options import EvaluateTask
from rsdiff.training.processes import wait_for_all

Row = dict[str, RecordValue]
Progress = Callable[[int, int], None]
"""Called with the images done and the images in all."""


@dataclass(frozen=True)
class TestCase(TestSet):
    """A test set with what scores it."""

    evaluator: Evaluator


@dataclass(frozen=True)
class CaseResult:
    """Rows (one per image, in the order of the data set), their summary, and the panels drawn."""

    name: str
    rows: list[Row]
    summary: Summary
    panels: list[Path]


def build_test_cases(
    settings: RunSettings,
    source: ImageSource,
    bands: int,
    device: torch.device,
    baseline: Baseline = BICUBIC,
    stored: Stored | None = None,
    are_quantiles: bool = False,
) -> list[TestCase]:
    """Return the test sets of the settings with their evaluators, ready: what cannot be computed is known from here on.

    stored         calibration of the intervals that several samples give, or None
    are_quantiles  whether several samples are quantiles of every pixel
    """
    cases = []
    protocol = settings.metrics.protocol.for_values(source.normaliser.low, source.normaliser.high)
    metrics = replace(settings.metrics, protocol=protocol)
    drawn = settings.task.samples if isinstance(settings.task, EvaluateTask) else 1
    metrics = metrics.for_samples(are_quantiles) if drawn > 1 else metrics
    intervals = (drawn, None, frozenset[str]()) if stored is None else (drawn, stored.calibration, stored.names_in(source))
    for one in sets_to_test(settings, source):
        operator = None if "lr" in source.gives else one.degradation
        evaluator = metrics.build(bands, "hr" in source.gives, operator, device, baseline, *intervals, are_quantiles)
        cases.append(TestCase(one.name, one.degradation, one.samples, evaluator))
    return cases


@dataclass(frozen=True)
class Prepared:
    """A restored batch with all that the method has to say of it: further draws (N, B, C, H, W) and kernels, where there are any."""

    restored: Restored
    draws: torch.Tensor | None
    kernels: Kernels | None


def evaluate_case(
    settings: RunSettings,
    method: Method,
    case: TestCase,
    folder: Path,
    accelerator: Accelerator,
    panels: int,
    progress: Progress,
    beside: Sequence[Method] = (),
) -> CaseResult:
    """Restore and score the images of a case, shared among the processes; every process returns the whole result.

    beside  methods that restore further samples
    folder  of this case; rows/<process>.jsonl, panels/ and features/ (of FID and its like) lie in it
    panels  how many of the first images are drawn
    """
    kept = RowFiles(folder / "rows")
    case.evaluator.keep_features_in(folder / "features")
    done = kept.read()
    wait_for_all(accelerator)  # every process has read the same rows before any adds one
    total = len(case.samples)
    waiting = [index for index in range(total) if case.samples.name(index) not in done]
    share = waiting[accelerator.process_index :: accelerator.num_processes]
    # A training ends with an evaluation in the batches of its validations.
    # On an accelerator its loader's processes read ahead, too; on a CPU they would take the restoration's time.
    task = settings.task
    if not isinstance(task, EvaluateTask):
        workers = settings.trainer.workers if has_queue(accelerator.device) else 0
        task = EvaluateTask(batch=settings.trainer.validation_batch, workers=workers)
    restoring = restore_images(
        method,
        read_ahead(case.samples, share, task.workers),
        case.degradation,
        settings.sampler,
        settings.seed,
        accelerator.device,
        batch_size=task.batch,
        ensemble=task.ensemble if isinstance(task.ensemble, str) else "none",
        execution=Execution(task.precision, task.compile, task.channels_last),
        warms_up=True,
        say=say,
        tile=task.tile,
    )

    def prepared(restored: Restored) -> Prepared:
        several = None
        if task.samples > 1:
            several = restored_draws(
                (method, *beside),
                restored.batch,
                settings.sampler,
                settings.seed,
                task.samples,
                restored.image,
                task.precision,
                task.tile,
            )
        return Prepared(restored, several, kernels_of(method, restored.batch))

    def score(one: Prepared) -> list[Row]:
        restored, kernels = one.restored, one.kernels
        rows = case.evaluator.rows(restored.batch, restored.image, restored.seconds, one.draws)
        for position, row in enumerate(rows):
            if kernels is not None:
                row[KERNEL_PSNR.name] = kernel_psnr(kernels.true[position], kernels.estimated[position])
            if task.save_images:
                save_image(case.samples.source, restored, position, folder / "images")
            maps = None
            if task.save_maps:
                maps = case.evaluator.detail_maps(restored.batch, position, restored.image[position])
                save_maps(maps, restored.batch.metas[position], folder / "maps")
            if restored.batch.metas[position].index < panels:
                draw_panel(settings, restored, position, row, folder / "panels", kernels, maps)
                draw_spectra(settings, case.evaluator, restored, position, folder / "panels")
        kept.add(accelerator.process_index, rows)
        return rows

    mine = 0
    with during("evaluation"):
        for rows in done_behind(score, map(prepared, restoring), task.workers > 0, accelerator.device):
            mine += len(rows)
            progress(min(len(done) + mine * accelerator.num_processes, total), total)
    wait_for_all(accelerator)
    found = kept.read()
    ordered = [found[case.samples.name(index)] for index in range(total)]
    drawn = [path for path in sorted((folder / "panels").glob("*.png")) if path.with_suffix("").suffix == ""]
    return CaseResult(case.name, ordered, case.evaluator.summary(ordered), drawn)


def draw_panel(
    settings: RunSettings,
    restored: Restored,
    position: int,
    row: Row,
    folder: Path,
    kernels: Kernels | None = None,
    maps: torch.Tensor | None = None,
) -> None:
    """Write the comparison panel of one image of a batch; `maps` (3, H, W) are of its detail."""
    batch = restored.batch
    lr, image = batch.need("lr")[position].cpu(), restored.image[position].cpu()
    comparable = lr.shape[0] == image.shape[0]
    captions = [("sr", caption(row, "")), ("bicubic", caption(row, "bicubic_"))]
    if kernels is not None:
        captions.append(("kernel", f"PSNR {float(row[KERNEL_PSNR.name]):.2f} dB"))
    write_panel(
        folder,
        Panel(
            name=batch.metas[position].name,
            lr=lr,
            restored=image,
            method=settings.choices["model"],
            bicubic=bicubic(lr, batch.size).clamp(0, 1) if comparable else None,
            hr=None if batch.hr is None else batch.hr[position].cpu(),
            captions=tuple((key, text) for key, text in captions if text),
            rgb_bands=settings.metrics.rgb_bands,
            kernels=None if kernels is None else (kernels.true[position], kernels.estimated[position]),
            detail=None if maps is None else maps.cpu(),
        ),
    )


def draw_spectra(settings: RunSettings, evaluator: Evaluator, restored: Restored, position: int, folder: Path) -> None:
    """Write the spectra and band errors of one image of a batch, if it has so many bands that they make a curve."""
    batch = restored.batch
    if batch.hr is None or batch.hr.shape[1] < FEWEST_BANDS:
        return
    meta = batch.metas[position]
    lr, hr = batch.need("lr")[position], batch.hr[position]
    compared = evaluator.compared_with(lr, len(hr), batch.size)
    images = SpectralImages(
        name=meta.name,
        method=settings.choices["model"],
        restored=restored.image[position],
        hr=hr,
        baseline=None if compared is None else (evaluator.baseline.name, compared),
        wavelengths=meta.wavelengths,
    )
    write_spectra(folder, images)


def caption(row: Row, prefix: str) -> str:
    """Return 'PSNR 27.31 dB, SSIM 0.812' from a row, or ''."""
    psnr, ssim = row.get(f"{prefix}psnr"), row.get(f"{prefix}ssim")
    parts = [f"PSNR {float(psnr):.2f} dB"] if psnr is not None else []
    return ", ".join(parts + ([f"SSIM {float(ssim):.3f}"] if ssim is not None else []))


class RowFiles:
    """Rows of an evaluation under way: one JSON-lines file per process, each row written when it is known."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, process: int, rows: list[Row]) -> None:
        """Append rows, flushed; a line that a kill or a full disk left incomplete is ended first."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"{process}.jsonl").open("ab+") as stream:
            if stream.tell() and os.pread(stream.fileno(), 1, stream.tell() - 1) != b"\n":
                stream.write(b"\n")
            stream.writelines(f"{json.dumps(row)}\n".encode() for row in rows)

    def read(self) -> dict[str, Row]:
        """Return the complete rows of all processes by image name; a line that a kill left incomplete is ignored."""
        rows: dict[str, Row] = {}
        for path in sorted(self.folder.glob("*.jsonl")):
            for line in path.read_text().splitlines(keepends=True):
                if line.endswith("}\n"):
                    row = json.loads(line)
                    rows[str(row["name"])] = row
        return rows


@dataclass(frozen=True)
class Kernels:
    """Blur kernels of a batch, true and estimated, (B, k, k) each; of unequal k where a method's kernels have a size of their own."""

    true: torch.Tensor
    estimated: torch.Tensor


def kernels_of(method: Method, batch: Batch) -> Kernels | None:
    """Return the kernels of a batch where the method estimates them and the true ones are known.

    The method says what its kernels are to be compared with: that depends on the grid they blur.
    """
    estimates = method.estimates(batch)
    if "kernel" not in estimates or "true_kernel" not in estimates:
        return None
    return Kernels(estimates["true_kernel"].cpu(), estimates["kernel"].cpu())
