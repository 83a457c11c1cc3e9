"""task=downstream: is a restored image as good as HR for what it is used for? See rsdiff.downstream."""

from __future__ import annotations

from functools import partial

from rsdiff.config import UserError
from rsdiff.downstream.learning import classes_of, train_network
from rsdiff.downstream.looking import Examination, recognise, search
from rsdiff.reporting.records import write_records, write_text
from rsdiff.runs.result import TaskResult
from rsdiff.runs.run_folder import RunFolder
from rsdiff.runs.settings import RunSettings
from rsdiff.tasks.experiment import make_accelerator, problem_of, sets_to_test, tested_method
from rsdiff.tasks.options import DownstreamTask
from rsdiff.tracking import Tracker


def run(settings: RunSettings, folder: RunFolder, tracker: Tracker) -> TaskResult:
    """Train the network on HR, look at every test image three times, and write the tables."""
    task, accelerator = settings.task, make_accelerator()
    assert isinstance(task, DownstreamTask)
    if accelerator.num_processes > 1:
        raise UserError("task=downstream trains a small network and runs in one process; start it without accelerate.")
    device = accelerator.device
    train, test = settings.split("train"), settings.split("test")
    method, checkpoint = tested_method(settings, problem_of(settings, test))
    method.to(device)
    say_steps = partial(tracker.progress, "training the network on HR")
    network = train_network(train, task, settings.seed, device, folder.path / "network.safetensors", say_steps)
    searches = "change_mask" in train.gives
    say_images = partial(tracker.progress, "searching" if searches else "recognising")
    looks_at = Examination(method, sets_to_test(settings, test), settings.sampler, settings.seed, device, say_images)
    if searches:
        rows, text, summary = search(looks_at, network, task, folder.path / "panels")
    else:
        rows, text, summary = recognise(looks_at, network, classes_of(train))
    write_records(folder.path / "evaluation", rows)
    heading = f"# {'Objects found' if searches else 'Scenes recognised'}: {settings.choices['model']} on {settings.choices['dataset']}"
    page = folder.path / "results.md"
    write_text(page, f"{heading}\n\n{text}")
    weights = [] if checkpoint is None else [f"checkpoint {checkpoint.name}"]
    return TaskResult(
        messages=[text.strip(), *weights, f"records  {folder.path / 'evaluation' / 'records.csv'}", f"report   {page}"],
        summary=summary,
        report=page,
        files=[page],
    )
