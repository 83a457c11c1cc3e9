"""One line on what a command will do, said before it does it; how long that takes is measured by its first steps (rsdiff.config.pace)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from accelerate import Accelerator

from rsdiff.runs.settings import RunSettings


def training(settings: RunSettings, parameters: int, done: int, test_images: int, accelerator: Accelerator) -> str:
    """Return the line of a training of a network with `parameters` weights that has `done` steps behind it."""
    config = settings.trainer
    steps = counted(config.steps, "step") if not done else f"steps {done + 1} to {config.steps}"
    if config.processor_minutes is not None:
        steps = f"{config.processor_minutes:g} minutes of processor time" + (f" from step {done + 1} on," if done else "")
    precision = "" if config.precision == "no" else f" in {config.precision}"
    crops = f"{counted(config.batch, 'crop')} of {config.patch} x {config.patch} pixels"
    return (
        f"plan     train {settings.choices['model']} ({in_words(parameters)} parameters): {steps} of {crops} on {place(accelerator)}"
        f"{precision}, then evaluate {counted(test_images, 'image')}"
    )


def evaluation(settings: RunSettings, parameters: int, test_images: int, accelerator: Accelerator) -> str:
    """Return the line of an evaluation."""
    weights = f" ({in_words(parameters)} parameters)" if parameters else ""
    return f"plan     evaluate {settings.choices['model']}{weights} on {counted(test_images, 'image')} on {place(accelerator)}"


def restoration(settings: RunSettings, parameters: int, inputs: Sequence[Path], accelerator: Accelerator) -> str:
    """Return the line of a restoration of rasters."""
    what = inputs[0].name if len(inputs) == 1 else f"{len(inputs)} rasters"
    return (
        f"plan     restore {what} at x{settings.scale:g} with {settings.choices['model']} ({in_words(parameters)} parameters) "
        f"on {place(accelerator)}"
    )


def place(accelerator: Accelerator) -> str:
    """Return 'cpu', or 'cuda, 4 processes'."""
    count = accelerator.num_processes
    return accelerator.device.type + (f", {count} processes" if count > 1 else "")


def in_words(count: int) -> str:
    """Return '742', '61 thousand' or '16.7 million'."""
    if count < 1000:
        return str(count)
    return f"{count / 1000:.3g} thousand" if count < 999_500 else f"{count / 1e6:.3g} million"


def counted(number: int, what: str) -> str:
    """Return '1 crop' or '8 crops'."""
    return f"{number} {what}{'s' * (number != 1)}"
