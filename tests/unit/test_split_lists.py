"""Split lists that come as a pickle."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from rsdiff.data.source import DataError
from rsdiff.data.splits import by_list

NAMES = ["Beach/beach_1", "Beach/beach_2", "Port/port_1"]


class Hostile:
    """Runs a command when it is unpickled."""

    def __init__(self, flag: Path) -> None:
        self.flag = flag

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.flag}",)


def test_names_of_each_split_are_read_from_the_authors_pickle(tmp_path: Path) -> None:
    path = tmp_path / "split.pkl"
    path.write_bytes(pickle.dumps({"train": ["Beach/beach_1.jpg", "Port/port_1.jpg"], "test": ["Beach/beach_2.jpg"]}, protocol=4))
    assert by_list(NAMES, str(path), "train_list") == ["Beach/beach_1", "Port/port_1"]
    assert by_list(NAMES, str(path), "test_list") == ["Beach/beach_2"]


def test_a_pickle_that_asks_for_a_class_is_refused_and_not_run(tmp_path: Path) -> None:
    path, flag = tmp_path / "split.pkl", tmp_path / "ran"
    path.write_bytes(pickle.dumps({"train": [Hostile(flag)]}))
    with pytest.raises(DataError, match="system"):
        by_list(NAMES, str(path), "train_list")
    assert not flag.exists()


@pytest.mark.parametrize("content", [b"", b"\x80\x04garbage", pickle.dumps([1, 2]), pickle.dumps({"train": [1]})])
def test_anything_else_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "split.pkl"
    path.write_bytes(content)
    with pytest.raises(DataError, match="one name per line"):
        by_list(NAMES, str(path), "train_list")
