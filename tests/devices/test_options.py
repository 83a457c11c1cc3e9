"""Options that no small model sets, on the pretended accelerator."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rsdiff.diffusion.augmentation import AugmentationConfig
from rsdiff.diffusion.bases import EnlargedConfig
from rsdiff.diffusion.regression_base import RegressionConfig
from tests.devices.stand import on_the_device
from tests.runs.pairs import options, sampler_of

EVERY_AUGMENTATION = AugmentationConfig(
    probability=1.0,
    x_flip=1.0,
    y_flip=1.0,
    quarter_turn=1.0,
    shift=1.0,
    scale=1.0,
    rotation=1.0,
    stretch=1.0,
    translation=1.0,
    brightness=1.0,
    contrast=1.0,
    luma_flip=1.0,
    hue=1.0,
    saturation=1.0,
)
WAITS = {"sr3_quick: condition": 2}
"""Pillow makes the condition on the host, as published."""
CASES: list[tuple[str, dict[str, Any]]] = [
    ("edm_sr_quick", {"augmentation": EVERY_AUGMENTATION}),
    ("edm_sr_quick", {"preconditioning": "vp"}),
    ("edm_sr_quick", {"preconditioning": "ve"}),
    *(("refdiff_quick", {"mask": mask}) for mask in ("unchanged", "changed", "given", "checked", "estimated")),
    ("refdiff_quick", {"changed_reference": "hidden", "mask_codes": (0, 128, 255)}),
    ("refdiff_quick", {"base": EnlargedConfig()}),
    ("refdiff_quick", {"wrong_reference": 0.5, "train_eight_bit": True}),
    ("scdm_quick", {"base": RegressionConfig(ridge=1e-3)}),
    ("sr3_quick", {"condition": "pillow_8bit"}),
    ("sr3_quick", {"steps_drawn": "batch"}),
    ("sr3_quick", {"time": "discrete"}),
    ("ldcsr_quick", {"latent_scale": "published"}),
    ("blinddiff_quick", {"data_range": "signed", "kernel_weight": 0.0}),
    ("liif_tiny", {"queries": 0}),
    ("liif_tiny", {"encoder": "rdn"}),
    ("diffbsr_quick", {"pretrain_steps": 1}),
]


def of(case: tuple[str, dict[str, Any]]) -> str:
    return f"{case[0]}: {', '.join(case[1])}"


@pytest.mark.parametrize("case", [CASES[0], *(pytest.param(case, marks=pytest.mark.slow) for case in CASES[1:])], ids=str)
def test_an_option_makes_the_host_wait_nowhere(case: tuple[str, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, changed = case
    name = f"{of(case)} {list(changed.values())}"
    monkeypatch.setitem(options().models, name, replace(options().models[model], **changed))  # type: ignore[arg-type]
    tally, _, _ = on_the_device(name, tmp_path, sampler_of(model))
    assert not tally.lines("mismatch")
    for phase in ("step", "restore"):
        assert tally.count("sync", phase) <= WAITS.get(of(case), 0), tally.lines("sync", phase)
        assert not tally.lines("host draw", phase)
