"""Which images test where nothing is trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

from rsdiff.config.paths import typed_path


class Testing(Protocol):
    """What is asked of the settings of a run."""

    @property
    def dataset(self) -> Any: ...
    @property
    def degradation(self) -> Any: ...
    @property
    def metrics(self) -> Any: ...
    @property
    def scale(self) -> float: ...
    @property
    def starting_point(self) -> Path | None: ...


def tested_dataset(settings: Testing) -> Any:
    """Return the data set that a run tests on: all of a folder where nothing tells test images from others.

    The data that the checkpoint was trained on keep the division they were trained with, and so do data of which the linear baseline needs
    training images.
    """
    dataset = settings.dataset
    if not hasattr(dataset, "for_testing") or _was_trained_on(settings):
        return dataset
    alone = dataset.for_testing()
    return dataset if alone == dataset or _needs_training_images(settings) else alone


def _was_trained_on(settings: Testing) -> bool:
    if settings.starting_point is None:
        return False
    card = json.loads((settings.starting_point / "card.json").read_text(encoding="utf-8"))
    root = card.get("config", {}).get("dataset", {}).get("root")
    own = settings.dataset.root
    return bool(root) and bool(own) and _place(root) == _place(own)


def _needs_training_images(settings: Testing) -> bool:
    """Say whether bands are added to pixels that stay, where the baseline is fitted to training images."""
    if settings.scale != 1 or not settings.metrics.baseline:
        return False
    source = settings.dataset.build("test", settings.scale)
    if "lr" in source.gives:
        return bool(source.lr_bands != source.bands)
    return bool(settings.degradation.for_wavelengths(source.wavelengths).lr_bands(source.bands) != source.bands)


def _place(root: str) -> Path:
    return typed_path(root).resolve()
