"""Every model on a pretended accelerator: nothing mixes devices, and in a steady step the host neither waits nor draws."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.devices.stand import on_the_device
from tests.runs.pairs import MODELS

WAITS = {"hat_l_tiny": 1, "ddpm_quick": 2}
"""Times that the host waits in a steady training step, and in a restoration, where it does at all: to be lowered only.

spandrel's HAT copies the mask of its shifted windows for images of another size than it was built for; `ddpm_quick` has its condition
enlarged by Pillow, as published, which only the host can.
"""


@pytest.mark.parametrize("model", MODELS)
def test_the_host_never_waits_in_a_steady_step_or_a_restoration(model: str, tmp_path: Path) -> None:
    tally, _, _ = on_the_device(model, tmp_path)
    assert not tally.lines("mismatch")
    for phase in ("step", "restore"):
        assert tally.count("sync", phase) <= WAITS.get(model, 0), tally.lines("sync", phase)
        assert not tally.lines("host draw", phase)
