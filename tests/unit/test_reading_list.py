"""A method can be followed through a training step and a sampling in few files."""

from __future__ import annotations

import json
import subprocess
import sys

MOST = 12
"""Files of each of the examples."""


def test_few_files_stand_behind_a_training_step_and_a_sampling() -> None:
    made = subprocess.run([sys.executable, "-m", "tests.reading_list"], capture_output=True, text=True, check=False, timeout=300)
    assert made.returncode == 0, made.stderr
    lists: dict[str, list[str]] = json.loads(made.stdout)
    assert {kind: len(files) for kind, files in lists.items() if len(files) > MOST} == {}, lists
    methods = {kind: [file for file in files if file.startswith("methods/")] for kind, files in lists.items()}
    assert methods["ldcsr"] == ["methods/base.py", "methods/ldcsr.py"], "it needs nothing of the training of its first stage"
