"""Crafted checkpoints never execute anything: they become records or are refused in one sentence."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rsdiff.foreign import Record, Reference, UnsafeFileError, read_checkpoint, read_pickle


class Reduces:
    """Pickles as the given reduction."""

    def __init__(self, *reduction: Any) -> None:
        self.reduction = reduction

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduction


def opcodes(*parts: bytes) -> bytes:
    return b"\x80\x04" + b"".join(parts) + b"."


def text(value: str) -> bytes:
    return b"\x8c" + struct.pack("<B", len(value)) + value.encode()


def name(module: str, attribute: str) -> bytes:
    return text(module) + text(attribute) + b"\x93"


def hostile_files(trap: Path) -> dict[str, bytes]:
    """Files that create `trap` (or worse) when an ordinary unpickler reads them."""
    command = f"touch {trap}"
    statement = f"open({str(trap)!r}, 'w').close()"
    call = name("os", "system") + text(command) + b"\x85R"
    nested = b"(" * 50_000 + b"t" * 50_000
    return {
        "os.system": pickle.dumps(Reduces(os.system, (command,))),
        "builtins.exec": pickle.dumps(Reduces(exec, (statement,))),
        "protocol 0 eval": f"c__builtin__\neval\n(V{statement}\ntR.".encode(),
        "inst opcode": f"(V{command}\nios\nsystem\n.".encode(),
        "obj opcode": b"(" + name("os", "system")[0:] + text(command) + b"o.",
        "getattr chain": opcodes(
            name("builtins", "getattr")
            + name("builtins", "__import__")
            + text("os")
            + b"\x85R"
            + text("system")
            + b"\x86R"
            + text(command)
            + b"\x85R"
        ),
        "callable of a result": opcodes(call + text("x") + b"\x85R"),
        "setstate of an object": pickle.dumps(Reduces(Reduces, (), {"__setstate__": os.system, "reduction": command})),
        "attributes of a function": opcodes(name("torch._utils", "_rebuild_tensor_v2") + b"N}" + text("__code__") + call + b"s\x86b"),
        "state of an OrderedDict": opcodes(name("collections", "OrderedDict") + b")R}" + text("__class__") + call + b"sb"),
        "default factory": opcodes(name("collections", "defaultdict") + call + b"\x85R"),
        "extension registry": b"\x80\x02\x82\x01.",
        "persistent id": b"\x80\x02" + call + b"Q.",
        "numpy object array": pickle.dumps(np.array([Reduces(os.system, (command,))], dtype=object)),
        "torch file inside bytes": opcodes(
            name("torch.storage", "_load_from_bytes") + b"B" + struct.pack("<I", len(opcodes(call))) + opcodes(call) + b"\x85R"
        ),
        "deep tuple as a key": b"}" + nested + b"Ns.",
        "reserve of memory": opcodes(name("builtins", "bytearray") + b"J\xff\xff\xff\x7f\x85R"),
        "opcode of no pickle": b"\x80\x04\xff.",
        "empty stack": b"0.",
        "truncated": pickle.dumps({"a": [1, 2, 3]})[:-3],
        "nothing": b"",
    }


def refusal(path: Path) -> str | None:
    """Return why the file is refused, or None if it is read."""
    try:
        read_pickle(path)
    except UnsafeFileError as error:
        return str(error)
    return None


@pytest.mark.parametrize("kind", hostile_files(Path("trap")))
def test_hostile_pickle_executes_nothing(kind: str, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    path = tmp_path / "weights.pt"
    path.write_bytes(hostile_files(trap)[kind])
    message = refusal(path)
    assert message is None or (message.startswith("weights.pt was not read: ") and "\n" not in message)
    assert not trap.exists()


def test_unknown_objects_become_records_with_all_their_parts(tmp_path: Path) -> None:
    path = tmp_path / "objects.pkl"
    path.write_bytes(pickle.dumps({"call": Reduces(os.system, ("true",)), "name": os.getcwd}))
    content = read_pickle(path)
    assert isinstance(content["call"], Record)
    assert content["call"].name.endswith(".system")
    assert content["call"].args == ("true",)
    assert content["name"] == Reference(f"{os.getcwd.__module__}.getcwd")


def test_hostile_data_in_a_torch_file_executes_nothing(tmp_path: Path) -> None:
    trap, path = tmp_path / "trap", tmp_path / "weights.pth"
    for zipped in (True, False):
        content = {"state_dict": {"w": torch.ones(2)}, "hook": Reduces(os.system, (f"touch {trap}",))}
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        read = read_checkpoint(path)
        assert torch.equal(read["state_dict"]["w"], torch.ones(2))
        assert isinstance(read["hook"], Record)
    assert not trap.exists()


@pytest.mark.filterwarnings("ignore:TypedStorage")
def test_tensor_that_reaches_beyond_its_storage_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    storage = torch.ones(4).storage()
    for sizes, strides, offset in (((5,), (1,), 0), ((2, 2), (2, 2), 1), ((2**40,), (0,), 0), ((1,), (1,), -1)):
        view = Reduces(
            torch._utils._rebuild_tensor_v2,
            (storage, offset, sizes, strides, False, {}),
        )
        torch.save({"w": view}, path)
        with pytest.raises(UnsafeFileError):
            read_pickle(path)


def test_compressed_torch_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + b"N0" * 1_000_000 + b"N.")
    with pytest.raises(UnsafeFileError, match="compressed"):
        read_pickle(path)


def test_parts_larger_than_the_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "legacy.pt"
    stream = io.BytesIO()
    torch.save({"w": torch.ones(3)}, stream, _use_new_zipfile_serialization=False)
    for size in range(0, len(stream.getvalue()), 7):
        path.write_bytes(stream.getvalue()[:size])
        with pytest.raises(UnsafeFileError):
            read_checkpoint(path)


def test_file_without_a_dictionary_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "list.pt"
    torch.save([torch.ones(1)], path)
    with pytest.raises(UnsafeFileError, match="a checkpoint is a non-empty dictionary"):
        read_checkpoint(path)
