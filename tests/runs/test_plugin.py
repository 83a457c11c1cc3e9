"""The template of a package of one's own (examples/plugin): found as installed and as named, in tasks and in workers of a launcher."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.runs.test_hydra import type_commands

PLUGIN = REPOSITORY / "examples" / "plugin"
SMALL = ["trainer.steps=2", "trainer.batch=2", "trainer.patch=32", "dataset.size=64"]


def install(folder: Path) -> None:
    """Leave what pip leaves of an installed package for Python to find its entry points."""
    info = folder / "mysr-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mysr\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[rsdiff.plugins]\nmysr = mysr\n")


@pytest.mark.slow  # four processes import PyTorch; test_extending.py has a plugin in this one
def test_a_package_of_ones_own_trains_in_workers_and_is_evaluated(tmp_path: Path) -> None:
    install(tmp_path / "installed")
    path = os.pathsep.join([str(REPOSITORY / "src"), str(PLUGIN), str(tmp_path / "installed")])
    choice = ["model=mysr", "degradation=haze", "metrics.metrics=[psnr,median_error]", *SMALL]
    listed, swept = type_commands(
        tmp_path,
        ["degradation=haze", "model=mysr", "plugins=[mysr]", "--help"],  # installed, and named all the same
        ["-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "model.width=8,16", *choice],
        PYTHONPATH=path,
    )
    assert "model.gradient_weight=0.1: Weight of the gradients' error." in listed[1]
    assert "degradation.thickest=0.3: Share of white" in listed[1]
    assert swept[0] == 0, swept
    assert "2 of 2 runs finished" in swept[1]
    run = sorted((tmp_path / "outputs" / "train").glob("mysr-*/*"))[0]
    figures = json.loads((run / "status.json").read_text())["summary"]
    assert figures["median_error"] > 0

    by_name = os.pathsep.join([str(REPOSITORY / "src"), str(PLUGIN)])
    named = ["plugins=[mysr]", f"checkpoint={run}"]
    evaluated, network, unknown = type_commands(
        tmp_path,
        ["task=evaluate", *named, "dataset.seed=3", "metrics.metrics=[median_error]"],
        ["model=rrdb", "model.network=shuffle", "plugins=[mysr]", "--cfg", "job", "--package", "model.network"],
        ["model=mysr", "plugins=[mysr, nowhere]"],
        PYTHONPATH=by_name,
    )
    assert evaluated[0] == 0, evaluated
    assert "Median error" in evaluated[1]
    assert "width: 32" in network[1], network
    assert "names the module nowhere, which cannot be imported" in unknown[2]
    for plugins, place in (("", path), (", plugins=['mysr']", by_name)):
        picture = "numpy.arange(768).reshape(16, 16, 3).astype('uint8')"
        code = f"import numpy, rsdiff; print(rsdiff.load({str(run)!r}{plugins}).restore({picture}).shape)"
        environment = {**os.environ, "PYTHONPATH": place}
        loaded = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
        assert loaded.stdout == "(64, 64, 3)\n", loaded.stderr
