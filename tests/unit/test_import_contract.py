"""The rooms of the house: who may import whom."""

import subprocess
import sys

from tests.conftest import REPOSITORY


def test_a_room_imports_only_rooms_below_it() -> None:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, env={"PYTHONPATH": "src", "PATH": ""})
    assert ended.returncode == 0, ended.stdout
    assert "1 kept, 0 broken" in ended.stdout
