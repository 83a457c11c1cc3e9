"""Every sampler on the pretended accelerator, with a model of each kind of diffusion."""

from __future__ import annotations

from pathlib import Path

import pytest

from rsdiff.config import UserError
from tests.devices.pretended import PretendedAccelerator
from tests.devices.stand import on_the_device
from tests.runs.pairs import samplers

SLOW = (
    *("ldcsr_quick", "scdm_quick", "blinddiff_quick", "ediffsr_quick", "refdiff_quick", "diffbsr_quick"),
    *("edm_sr_quick", "resshift_tiny", "flow_tiny"),
)


@pytest.mark.parametrize("model", ["sr3_quick", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_no_sampler_makes_the_host_wait(model: str, tmp_path: Path) -> None:
    _, work, method = on_the_device(model, tmp_path)
    took = []
    for name, sampler in samplers(3).items():
        with PretendedAccelerator() as tally:
            try:
                work.restore(method, sampler)
            except UserError:  # the command line refuses the pair
                continue
        took.append(name)
        assert not [line for kind in ("mismatch", "sync", "host draw") for line in tally.lines(kind, "")], name  # type: ignore[arg-type]
    assert len(took) > 5
