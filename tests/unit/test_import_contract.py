"""Who may import whom."""

import subprocess
import sys

from tests.conftest import REPOSITORY


def test_a_package_imports_only_packages_below_it_and_has_no_circles() -> None:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, env={"PYTHONPATH": "src", "PATH": ""})
    assert ended.returncode == 0, ended.stdout
    assert "2 kept, 0 broken" in ended.stdout
