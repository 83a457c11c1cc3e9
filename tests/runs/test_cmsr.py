"""A table of CMSR is measured for a trained method of LMF, and restores with it."""

from __future__ import annotations

import re
from pathlib import Path

from tests.conftest import Command
from tests.runs.short import SHORT, scenes


def test_a_table_is_measured_on_training_images_and_taken_by_the_command_that_is_named(run_command: Command, tmp_path: Path) -> None:
    data, scored = scenes(32, 1), ["metrics.metrics=[psnr]", "metrics.panels=0"]
    ended = run_command("model=lmf_liif_tiny", "scale=4", "trainer.patch=32", *SHORT, *data, *scored, f"outputs={tmp_path}")
    assert ended.code == 0, ended.err
    (folder,) = (path for path in (tmp_path / "train").glob("*/*") if (path / "checkpoints").is_dir())
    fitted = run_command("task=fit-cmsr", f"checkpoint={folder}", "scale=4", "task.images=2", "task.tolerance=10", *data)
    assert fitted.code == 0, fitted.err
    found = re.search(r"model\.cmsr\.table=\[\[4,1,([0-9.]+),2,([0-9.]+),3,([0-9.]+),4,([0-9.]+)\]\]", fitted.out)
    assert found is not None, fitted.out
    assert float(found[1]) > 0  # so much is tolerated that everything is easy
    restored = run_command("task=evaluate", f"checkpoint={folder}", "scale=4", found[0], *data, *scored)
    assert restored.code == 0, restored.err
    refused = run_command("task=fit-cmsr", f"checkpoint={folder}", "scale=1", *data)
    assert "scale=1 has no smaller scales to render at; choose a whole one above 1." in refused.err
