"""task=fit-cmsr: measure how difficult what a smaller scale renders may be, for model.cmsr.table of a trained method of LMF."""

from __future__ import annotations

from typing import cast

from torch import Tensor

from rsdiff.config import UserError
from rsdiff.data.sample import collate
from rsdiff.degradations.base import degrade
from rsdiff.methods.cmsr import build_row
from rsdiff.methods.continuous import ContinuousRegression
from rsdiff.networks.lmf import LMFNetwork
from rsdiff.runs.command import next_command
from rsdiff.runs.result import TaskResult
from rsdiff.runs.run_folder import RunFolder
from rsdiff.runs.settings import RunSettings
from rsdiff.tasks.experiment import make_accelerator, sets_to_test
from rsdiff.tasks.options import FitCmsrTask
from rsdiff.tracking import Tracker
from rsdiff.training.built import method_from
from rsdiff.training.checkpoints import read_checkpoint


def run(settings: RunSettings, folder: RunFolder, tracker: Tracker) -> TaskResult:
    """Measure the row for `scale` on the training images, never those of the test.

    Raises UserError where the checkpoint holds another method, or the scale has no smaller ones.
    """
    options, place = cast(FitCmsrTask, settings.task), settings.checkpoint
    assert place is not None, "the task needs a checkpoint"
    scale = int(settings.scale)
    smaller = [float(step) for step in options.decode_scales if step < scale]
    if scale != settings.scale or not smaller:
        raise UserError(
            f"scale={settings.scale:g} has no smaller scales to render at; choose a whole one above {min(options.decode_scales):g}."
        )
    trained = method_from(read_checkpoint(place), settings.scale, settings.model)
    if not isinstance(trained.method, ContinuousRegression) or not isinstance(trained.method.network, LMFNetwork):
        raise UserError(
            f"{place} holds model={settings.choices['model']}, which has no CMSR; give a checkpoint of lmf_liif, lmf_lte or lmf_ciaosr."
        )
    source, method = settings.split("train"), trained.method.to(make_accelerator().device)
    (tested,) = sets_to_test(settings, source)
    count = min(options.images, len(source))
    images: list[Tensor] = []
    for index in range(count):
        batch = collate([tested.samples[index]]).to(next(method.parameters()).device)
        batch = degrade(batch, tested.degradation) if batch.lr is None else batch
        images.append(method.normalised(batch.need("lr")))
        tracker.progress("reading", index + 1, count)
    found = build_row(method, images, scale, options.tolerance, [*smaller, float(scale)])
    row = [settings.scale, *(round(number, 4) for pair in found.items() for number in pair)]
    table = f"model.cmsr.table=[[{','.join(f'{number:g}' for number in row)}]]"
    return TaskResult(
        messages=[
            f"table    '{table}', of {count} images",
            f"next     {next_command('task=evaluate', f'checkpoint={place}', f'scale={scale}', table)}",
        ],
        summary={"images": count, "table": table.partition("=")[2]},
    )
