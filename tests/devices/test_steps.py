"""Every model on a pretended accelerator: nothing mixes devices, and in a steady step the host neither waits nor draws.

What a step launches and computes in float64 is held at or below a stored table. Make it anew where more is worth it:
`python -m tests.devices.test_steps` (for some models: their names).
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.devices.pretended import Tally, device
from tests.devices.stand import on_the_device
from tests.runs.pairs import MODELS

WAITS = {"hat_l_tiny": 1, "ddpm_quick": 2}
"""Times that the host waits in a steady training step, and in a restoration, where it does at all: to be lowered only.

spandrel's HAT copies the mask of its shifted windows for images of another size than it was built for; `ddpm_quick` has its condition
enlarged by Pillow, as published, which only the host can.
"""
PHASES = ("step", "restore")
VARIANTS = ("diffbsr_srdiff_tiny", "diffbsr_ddpm_tiny", "spsr_quick", "lcmsr_quick", "dasr_quick", "ldcsr_vae_quick")
"""Long ones, most of whose steps another model has: `make test-slow` has them."""
COUNTS = Path(__file__).with_name("counts.json")
SLACK = 1.05
"""Launches of another PyTorch than the table's, and of a network that changed a little, as a share of the stored ones."""


def counted(tally: Tally) -> dict[str, Any]:
    """Return launches and float64 operations of a steady step and of a restoration."""
    return {phase: {"launches": tally.launches[phase], "float64": tally.functions("float64", phase)} for phase in PHASES}


@pytest.mark.parametrize("model", [pytest.param(name, marks=pytest.mark.slow) if name in VARIANTS else name for name in MODELS])
def test_the_host_never_waits_in_a_steady_step_or_a_restoration(model: str, tmp_path: Path) -> None:
    tally, _, _ = on_the_device(model, tmp_path)
    assert not tally.lines("mismatch")
    for phase in PHASES:
        assert tally.count("sync", phase) <= WAITS.get(model, 0), tally.lines("sync", phase)
        assert not tally.lines("host draw", phase)
    stored, found = json.loads(COUNTS.read_text())["models"], counted(tally)
    assert model in stored, f"write the counts of {model}: python -m tests.devices.test_steps {model}"
    for phase in PHASES:
        now, before = found[phase], stored[model][phase]
        assert now["launches"] <= SLACK * before["launches"], f"launches of a {phase} rose from {before['launches']} to {now['launches']}"
        more = {name: count for name, count in now["float64"].items() if count > before["float64"].get(name, 0)}
        assert not more, f"more float64 operations in a {phase}: {tally.lines('float64', phase)}"


def main(models: list[str]) -> None:
    """Store the counts of these models, or of all."""
    device()
    stored = json.loads(COUNTS.read_text())["models"] if COUNTS.exists() and models else {}
    for model in models or MODELS:
        with tempfile.TemporaryDirectory() as store:
            stored[model] = counted(on_the_device(model, Path(store))[0])
        print(model, {phase: stored[model][phase]["launches"] for phase in PHASES}, flush=True)
    COUNTS.write_text(json.dumps({"torch": torch.__version__.partition("+")[0], "models": stored}, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
