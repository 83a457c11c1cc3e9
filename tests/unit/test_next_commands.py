"""Commands that messages tell to type begin as the user's did, are quoted for a shell, and are kept as they were typed."""

from __future__ import annotations

import shlex
import sys

import pytest

from rsdiff.runs.command import TYPED, next_command, remember_typed, restore_with, shell_text, typed_command
from tests.conftest import REPOSITORY

WORDS = ["task=evaluate", "checkpoint=my runs/it's", "metrics.metrics=[psnr,ssim]", "input=$HOME/*.tif"]
SPELT = {"help.py", "about.py", "command.py"}
"""Help begins its examples as the user does; a page of weights is for others; publish.py's recipe is text."""


@pytest.mark.parametrize(
    ("started", "begins"),
    [
        ("run.py", "python run.py"),
        ("/clone here/run.py", "python '/clone here/run.py'"),
        ("/env/bin/rsdiff", "rsdiff"),
        ("/env/site-packages/rsdiff/__main__.py", "python -m rsdiff"),
        ("/env/ipykernel_launcher.py", "rsdiff"),
    ],
)
def test_the_next_command_begins_as_the_present_one_and_survives_a_shell(
    started: str, begins: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(TYPED, raising=False)
    monkeypatch.setattr(sys, "argv", [started])
    said = next_command(*WORDS)
    assert said.startswith(begins)
    assert shlex.split(said)[-len(WORDS) :] == WORDS
    assert restore_with("zoo:x") == f"{begins} task=restore checkpoint=zoo:x input=IMAGE output=RESTORED.tif"


def test_the_next_command_has_the_plugins_of_the_present_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TYPED, "run.py model=mine plugins=[mine]")
    assert restore_with("RUN") == "python run.py 'plugins=[mine]' task=restore checkpoint=RUN input=IMAGE output=RESTORED.tif"


def test_what_was_typed_is_kept_beside_what_hydra_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TYPED, "")
    typed = ["run.py", "checkpoint=a", "dataset.root=my photos"]
    monkeypatch.setattr(sys, "argv", typed)
    remember_typed()
    sys.argv = ["run.py", "checkpoint=a", "++dataset.root='my photos'"]
    assert typed_command() == typed
    assert shell_text(typed_command()) == "python run.py checkpoint=a 'dataset.root=my photos'"


def test_no_message_spells_the_program_itself() -> None:
    messages = [path for part in ("tasks", "runs", "app") for path in (REPOSITORY / "src/rsdiff" / part).rglob("*.py")]
    spelt = {path.name for path in messages if "python run.py " in path.read_text().replace("recipe='python run.py", "")}
    assert spelt <= SPELT, "write next_command(...), which also serves those who typed rsdiff"
