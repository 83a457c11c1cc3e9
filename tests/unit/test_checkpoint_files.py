"""Every way in which checkpoints are written gives the same content."""

from __future__ import annotations

import pickle
from collections import Counter, OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from rsdiff.foreign import Record, read_checkpoint, read_pickle


class Options(dict[str, Any]):
    """A dict subclass such as easydict.EasyDict."""


def content() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(4, 5, generator=generator)
    shared = torch.arange(6.0)
    return {
        "transposed": values.t()[1:3],
        "expanded": values[:1].expand(7, 5),
        "half": values.half(),
        "bfloat16": values.bfloat16(),
        "bool": values > 0,
        "complex": torch.complex(values, values),
        "integer": torch.tensor(7),
        "empty": torch.empty(0, 3),
        "parameter": nn.Parameter(values),
        "first": shared[:3],
        "second": shared[2:],
        "array": np.arange(6.0).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6, dtype=">i2").reshape(2, 3)),
        "text_array": np.array(["a", "bc"]),
        "scalar": np.float32(3),
        "plain": [1, 2.5, None, True, "x", b"y", (1, (2,)), {3}, frozenset({4}), 1j, 2**70, -1],
        "ordered": OrderedDict(a=1),
        "default": defaultdict(list, {1: [2]}),
        "counter": Counter({200: 1}),
        "size": torch.Size([1, 2]),
    }


def assert_same(read: Any, written: Any) -> None:
    if isinstance(written, Tensor):
        assert read.dtype == written.dtype
        assert torch.equal(read, written.detach())
    elif isinstance(written, np.ndarray | np.generic):
        assert read.dtype == written.dtype
        assert np.array_equal(read, written)
    elif isinstance(written, dict):
        assert list(read) == list(written)
        for key, value in written.items():
            assert_same(read[key], value)
    else:
        assert read == written


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 4])
def test_torch_files_are_read_as_torch_reads_them(zipped: bool, protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(content(), path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    assert_same(read_checkpoint(path), content())


@pytest.mark.parametrize("protocol", range(6))
def test_plain_pickles_of_every_protocol_are_read(protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps(content(), protocol=protocol))
    assert_same(read_pickle(path), content())


def test_safetensors_are_read(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({"w": torch.ones(2)}, path)
    assert_same(read_checkpoint(path), {"w": torch.ones(2)})


@pytest.mark.parametrize("protocol", range(6))
def test_dict_subclasses_become_records_that_keep_their_items(protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "options.pkl"
    options = Options(a=1)
    options.note = "n"  # type: ignore[attr-defined]
    path.write_bytes(pickle.dumps(options, protocol=protocol))
    record = read_pickle(path)
    assert isinstance(record, Record)
    assert record.name.endswith(".Options")
    assert record.items == {"a": 1}
    assert record.attributes() == {"note": "n"}


def test_whole_modules_become_records_with_their_tensors(tmp_path: Path) -> None:
    path = tmp_path / "module.pt"
    module = nn.Linear(2, 3)
    torch.save({"ema": module}, path)
    record = read_checkpoint(path)["ema"]
    assert record.name == "torch.nn.modules.linear.Linear"
    assert torch.equal(record.attributes()["_parameters"]["weight"], module.weight)
