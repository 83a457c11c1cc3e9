"""What a run says reaches the terminal in any encoding, and the log of its folder."""

from __future__ import annotations

import io
import logging
import sys
import warnings
from pathlib import Path

import pytest

from rsdiff.metrics import METRICS
from rsdiff.metrics.weight_files import missing_lines
from rsdiff.runs.console import LOG, SAID, accept_any_encoding, logging_to, say, say_once
from rsdiff.runs.sweep import text_table


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp1252", "utf-8"])
def test_a_table_is_shown_in_a_terminal_of_any_encoding(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    accept_any_encoding()
    say([text_table([{"run": 0, "psnr": 30.5, "place": "Zürich → 東京"}])])
    sys.stdout.flush()
    shown = sys.stdout.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
    assert "30.5" in shown
    assert ("Zürich" in shown) == (encoding != "ascii")


def test_the_log_has_what_was_said_and_the_warnings_of_every_attempt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for attempt in ("first", "second"):
        with logging_to(tmp_path, f"python run.py seed={attempt}"):
            say([f"the {attempt} attempt"])
            warnings.warn(f"careful with the {attempt}", stacklevel=1)
            logging.getLogger("a library").warning("%s warning", attempt)
    say(["outside"])
    log = (tmp_path / LOG).read_text()
    for attempt in ("first", "second"):
        for text in (f"seed={attempt}", f"the {attempt} attempt", f"careful with the {attempt}", f"{attempt} warning"):
            assert log.count(text) == 1
    assert "outside" not in log
    assert capsys.readouterr().out == "the first attempt\nthe second attempt\noutside\n"


def test_what_every_run_of_a_sweep_says_is_printed_once_and_logged_by_each(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SAID, "")
    for run in ("a", "b"):
        (tmp_path / run).mkdir()
        with logging_to(tmp_path / run, "run.py"):
            say_once(["left out LPIPS"])
            say_once([])
    assert capfd.readouterr().out == "left out LPIPS\n"
    assert all("left out LPIPS" in (tmp_path / run / LOG).read_text() for run in ("a", "b"))


NEEDING = ("lpips_alex", "dists", "fid")


def test_metrics_without_weights_take_a_line_and_the_addresses_of_their_files() -> None:
    first, *addresses = missing_lines(["LPIPS (alex)", "DISTS", "FID"], [METRICS[name].files for name in NEEDING], ["weights"])
    assert first.startswith("left out LPIPS (alex), DISTS, FID: their weights are not in weights, ")
    assert [address.strip().rpartition("/")[2] for address in addresses] == [METRICS[name].files[0] for name in NEEDING]
    assert all(address.strip().startswith("https://") for address in addresses)
    (own,) = missing_lines(["NIQE (rs)"], [("niqe_rs.npz",)], ["weights"])
    assert "(niqe_rs.npz)" in own


def test_brackets_and_small_numbers_are_shown_as_they_are() -> None:
    shown = text_table([{"metrics": "[psnr]", "name": "a:b:c", "seconds": 0.00020872000095550902}])
    assert "[psnr]" in shown
    assert "a:b:c" in shown
    assert "0.0002087 " in shown
