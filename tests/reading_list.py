"""The files behind one training step and one sampling of a method: what a reader opens to follow them.

`python -m tests.reading_list` prints them. Counted are the modules of rsdiff that a fresh process has imported once both have run, without
those of config/ and data/ and without the __init__ of packages.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

UNET = {"width": 8, "multipliers": [1, 1], "blocks": 1, "norm_groups": 4}
AUTOENCODER = {
    "encoder": {"width": 32, "multipliers": [1, 1], "blocks": 1},
    "decoder": {"width": 32, "multipliers": [1, 1], "blocks": 1, "refinements": [1, 1]},
}


class Example(NamedTuple):
    """A method in small: its options, its published sampler, and the shapes of what its batch holds besides the usual."""

    model: Mapping[str, Any]
    sampler: Mapping[str, Any]
    lr: tuple[int, ...] = (2, 3, 8, 8)
    hr: tuple[int, ...] = (2, 3, 32, 32)
    more: Mapping[str, tuple[int, ...]] = {}


EXAMPLES: Mapping[str, Example] = {
    "diffbsr": Example(
        {
            "restorer": {"width": 16, "groups": 1, "blocks": 1},
            "unet": {**UNET, "width": 16},
            "contrast": {"width": 4, "queue_size": 4},
        },
        {"solver": "ddpm", "steps": 20, "clip": True},
        more={"lr_views": (2, 1, 3, 8, 8)},
    ),
    "refdiff": Example(
        {"network": {"trunk": {"model_channels": 16, "channel_mult": [1, 1], "num_blocks": 1, "attention_levels": [1]}}},
        {"solver": "heun", "steps": 2, "grid": "edm", "start": "image_times_sigma"},
        more={"ref": (2, 3, 32, 32), "change_mask": (2, 1, 32, 32)},
    ),
    "ldcsr": Example(
        {
            "first_stage": AUTOENCODER,
            "condition": AUTOENCODER["encoder"],
            "unet": {"width": 32, "multipliers": [1, 1], "blocks": 1, "attention_levels": [1]},
        },
        {"solver": "ddpm", "steps": 4},
    ),
    "scdm": Example(
        {**UNET, "strides": [2, 1], "time_width": 8, "attention_levels": [1]},
        {"solver": "ddpm", "variance": "beta", "steps": 2},
        lr=(2, 2, 8, 8),
        hr=(2, 6, 8, 8),
    ),
    "esrgan": Example(
        {
            "network": {"kind": "rrdb", "width": 8, "blocks": 1, "growth": 4},
            "perceptual": {"weight": 0.0},
            "discriminator": {"kind": "unet", "width": 4},
        },
        {},
    ),
}
"""BSRGAN is esrgan."""


def files_of(kind: str) -> list[str]:
    """Train a method for a step, let it restore, and return the files that were imported for it."""
    from rsdiff.config import config_from_mapping
    from rsdiff.data.problem import Problem
    from rsdiff.data.sample import Batch, SampleMeta
    from rsdiff.methods import METHODS

    example = EXAMPLES[kind]
    method = config_from_mapping(METHODS[kind], example.model, "model").build(
        Problem(example.hr[-1] / example.lr[-1], example.hr[1], example.lr[1])
    )
    images = {name: torch.rand(shape) for name, shape in {"hr": example.hr, "lr": example.lr, **example.more}.items()}
    metas = [SampleMeta(str(index)) for index in range(len(images["hr"]))]
    batch = Batch(metas, (example.hr[-2], example.hr[-1]), (example.lr[-2], example.lr[-1]), **images)
    noise: Any = None
    sampler: Any = None
    if example.sampler:
        from rsdiff.diffusion.noise import SeededNoise
        from rsdiff.diffusion.sampler import SamplerConfig

        noise = SeededNoise([(index,) for index in range(len(metas))])
        sampler = config_from_mapping(SamplerConfig, example.sampler, "sampler")
    method.train()
    for losses in method.losses(batch, method.stages()[-1], noise).values():
        losses.total.backward()
    method.eval().restore(batch, sampler, noise)
    names = (module.__file__ or "" for name, module in sys.modules.items() if name.startswith("rsdiff."))
    files = {name.partition("/rsdiff/")[2] for name in names if not name.endswith("__init__.py")}
    return sorted(file for file in files if not file.startswith(("config/", "data/")))


def reading_lists() -> dict[str, list[str]]:
    """Return the files of every example, each found in a process of its own that had imported nothing of rsdiff."""
    found = {}
    for kind in EXAMPLES:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(writing, json.dumps(files_of(kind)).encode())
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as stream:
            found[kind] = json.loads(stream.read())
        os.waitpid(child, 0)
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(reading_lists(), indent=1))
