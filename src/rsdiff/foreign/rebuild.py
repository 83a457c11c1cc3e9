"""What a checkpoint's pickle may name and get a value for: plain containers, numpy arrays, torch tensors. Everything else is a record."""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rsdiff.foreign.inert import Record, Reference, Unfinished, UnsafeFileError, checked_key, set_items

MAX_EXPANDED = 1 << 20
"""Elements a tensor may have beyond those stored: expanded views are legitimate, but must not fill the memory."""

STORAGE_DTYPES: Mapping[str, torch.dtype] = {
    f"torch.{name}Storage": dtype
    for name, dtype in {
        "Double": torch.float64,
        "Float": torch.float32,
        "Half": torch.float16,
        "BFloat16": torch.bfloat16,
        "Long": torch.int64,
        "Int": torch.int32,
        "Short": torch.int16,
        "Char": torch.int8,
        "Byte": torch.uint8,
        "Bool": torch.bool,
        "ComplexFloat": torch.complex64,
        "ComplexDouble": torch.complex128,
    }.items()
} | {"torch.storage.UntypedStorage": torch.uint8}

DTYPES: Mapping[str, torch.dtype] = {f"torch.{str(dtype).removeprefix('torch.')}": dtype for dtype in STORAGE_DTYPES.values()}

_NUMPY_KIND = re.compile(r"[<>=|]?(?:[iuf][1248]|f16|c8|c16|c32|b1|\?|[SUa]\d+)")


@dataclass(eq=False)
class Storage:
    """The flat data of one or more tensors."""

    data: Tensor


def storage_dtype(kind: Any) -> torch.dtype:
    """Return the element type of a storage class named in a pickle."""
    if isinstance(kind, Reference) and kind.name in STORAGE_DTYPES:
        return STORAGE_DTYPES[kind.name]
    raise UnsafeFileError(f"the file stores tensors as {kind}, which is not a known storage type.")


def flat_tensor(data: Any, dtype: torch.dtype, start: int, count: int) -> Tensor:
    """Return `count` elements that lie in a writable buffer from byte `start` on, as a one-dimensional tensor that shares its memory.

    What does not lie at a multiple of the element's size is copied.
    """
    if not count:
        return torch.empty(0, dtype=dtype)
    if start % dtype.itemsize:
        return torch.frombuffer(bytearray(data[start : start + count * dtype.itemsize]), dtype=dtype)
    return torch.frombuffer(data, dtype=dtype, count=count, offset=start)


def table(load_torch: Callable[[bytes], Any]) -> dict[str, Callable[..., Any]]:
    """Return the rebuild table; `load_torch` reads a torch file held in bytes (whole storages are pickled that way)."""
    made: dict[str, Callable[..., Any]] = {
        "collections.OrderedDict": lambda *args: _mapping(OrderedDict(), *args),
        "collections.defaultdict": lambda _factory=None, *args: _mapping({}, *args),
        "collections.Counter": lambda *args: _mapping({}, *args),
        "_codecs.encode": _encode,
        "torch.Size": lambda sizes: tuple(sizes),
        "torch._utils._rebuild_tensor": lambda storage, offset, size, stride: rebuild_tensor(storage, offset, size, stride),
        "torch._utils._rebuild_tensor_v2": rebuild_tensor,
        "torch._utils._rebuild_tensor_v3": _rebuild_tensor_v3,
        "torch._utils._rebuild_parameter": lambda data, *_: _tensor(data),
        "torch._utils._rebuild_parameter_with_state": lambda data, *_: _tensor(data),
        "torch.storage._load_from_bytes": load_torch,
        "torch._tensor._rebuild_from_type_v2": _rebuild_from_type,
        "numpy.dtype": _NumpyType,
        "copyreg._reconstructor": _reconstructed,
        "copy_reg._reconstructor": _reconstructed,
    }
    for builtins in ("builtins", "__builtin__"):
        made |= {
            f"{builtins}.set": lambda values=(): {checked_key(value) for value in values},
            f"{builtins}.frozenset": lambda values=(): frozenset(checked_key(value) for value in values),
            f"{builtins}.list": lambda values=(): list(_plain_sequence(values)),
            f"{builtins}.tuple": lambda values=(): tuple(_plain_sequence(values)),
            f"{builtins}.dict": lambda *args: _mapping({}, *args),
            f"{builtins}.complex": lambda real, imaginary: complex(float(real), float(imaginary)),
            f"{builtins}.bytearray": _bytearray,
        }
    for core in ("numpy.core", "numpy._core"):
        made |= {
            f"{core}.multiarray._reconstruct": lambda *args: _NumpyArray("numpy.ndarray", args),
            f"{core}.multiarray.scalar": _numpy_scalar,
            f"{core}.numeric._frombuffer": _numpy_from_buffer,
        }
    return made


def _plain_sequence(values: Any) -> Any:
    if not isinstance(values, list | tuple | set | frozenset | dict | str | bytes):
        raise UnsafeFileError(f"the pickle makes a sequence of a {type(values).__name__}.")
    return values


def _mapping(target: dict[Any, Any], *args: Any) -> dict[Any, Any]:
    for values in args:
        pairs = values.items() if isinstance(values, dict) else _plain_sequence(values)
        for pair in pairs:
            if not isinstance(pair, list | tuple) or len(pair) != 2:
                raise UnsafeFileError("the pickle makes a dictionary of something that is no list of pairs.")
            set_items(target, list(pair))
    return target


def _encode(text: Any, encoding: Any = "utf-8") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "utf-8", "ascii"):
        raise UnsafeFileError(f"the pickle encodes a {type(text).__name__} as {encoding}.")
    return text.encode(encoding)


def _bytearray(data: Any = b"", encoding: Any = None) -> bytearray:
    if isinstance(data, str):
        data = _encode(data, "latin1" if encoding is None else encoding)
    if not isinstance(data, bytes | bytearray):
        raise UnsafeFileError(f"the pickle makes bytes of a {type(data).__name__}.")
    return bytearray(data)


def _reconstructed(kind: Any, _base: Any, value: Any, *_: Any) -> Record:
    """An instance as pickle protocols 0 and 1 write it; `value` is that of a built-in base class."""
    if not isinstance(kind, Reference):
        raise UnsafeFileError(f"the pickle makes an instance of a {type(kind).__name__}.")
    return Record(kind.name, items=dict(value) if isinstance(value, dict) else {}, elements=list(value) if isinstance(value, list) else [])


# Tensors


def _tensor(data: Any) -> Tensor:
    if not isinstance(data, Tensor):
        raise UnsafeFileError(f"the pickle makes a parameter of a {type(data).__name__}.")
    return data


def _numbers(values: Any) -> tuple[int, ...]:
    if not isinstance(values, tuple | list) or not all(isinstance(value, int) and value >= 0 for value in values):
        raise UnsafeFileError(f"a tensor's sizes are {values!r} where whole numbers are expected.")
    return tuple(values)


def rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
    """Return the view of `storage` that a pickle describes, after checking that it lies inside it."""
    if not isinstance(storage, Storage):
        raise UnsafeFileError(f"a tensor's data are a {type(storage).__name__} where a storage is expected.")
    (start,), sizes, strides = _numbers([offset]), _numbers(size), _numbers(stride)
    if len(sizes) != len(strides):
        raise UnsafeFileError(f"a tensor has {len(sizes)} sizes and {len(strides)} strides.")
    count, stored = math.prod(sizes), storage.data.numel()
    last = start + sum((n - 1) * step for n, step in zip(sizes, strides, strict=True)) if count else start
    if count and last >= stored:
        raise UnsafeFileError(f"a tensor of sizes {sizes} reaches element {last} of a storage of {stored}.")
    if count > stored + MAX_EXPANDED:
        raise UnsafeFileError(f"a tensor of sizes {sizes} expands a storage of {stored} elements beyond reason.")
    return storage.data.as_strided(sizes, strides, start) if count else storage.data.new_empty(sizes)


def _rebuild_tensor_v3(storage: Any, offset: Any, size: Any, stride: Any, _grad: Any, _hooks: Any, dtype: Any, *_: Any) -> Tensor:
    if not isinstance(storage, Storage) or not isinstance(dtype, Reference) or dtype.name not in DTYPES:
        raise UnsafeFileError(f"a tensor has the element type {dtype}, which is not known.")
    return rebuild_tensor(Storage(storage.data.view(DTYPES[dtype.name])), offset, size, stride)


def _rebuild_from_type(function: Any, _kind: Any, args: Any, _state: Any) -> Tensor:
    """A tensor with attributes of its own, which are dropped."""
    if function != Reference("torch._utils._rebuild_tensor_v2") or not isinstance(args, tuple):
        raise UnsafeFileError(f"a tensor is made by {function}, which is not known.")
    return rebuild_tensor(*args)


# Arrays


class _NumpyType(Unfinished):
    """A numpy type whose byte order a BUILD operation gives."""

    def __init__(self, kind: Any = "", *_: Any) -> None:
        super().__init__("numpy.dtype", (kind,))

    def finish(self, state: Any) -> Any:
        kind = self.args[0]
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else "="
        if not isinstance(kind, str) or not _NUMPY_KIND.fullmatch(kind) or order not in ("<", ">", "|", "="):
            return Record(self.name, self.args, state=state)  # structured and object arrays: their elements may be anything
        return np.dtype(kind).newbyteorder(">" if order == ">" else "<")


class _NumpyArray(Unfinished):
    """An array whose shape, type and data a BUILD operation gives."""

    def finish(self, state: Any) -> Any:
        if not isinstance(state, tuple) or len(state) != 5:
            raise UnsafeFileError("an array's state is not the five values numpy stores.")
        _, shape, dtype, is_fortran, data = state
        if not isinstance(dtype, np.dtype):
            return Record(self.name, self.args, state=state)
        return _array(data, dtype, _numbers(shape), "F" if is_fortran else "C")


def _array(data: Any, dtype: np.dtype[Any], shape: tuple[int, ...], order: str) -> np.ndarray[Any, Any]:
    if isinstance(data, str):  # written by Python 2
        data = data.encode("latin1")
    if not isinstance(data, bytes | bytearray) or len(data) != math.prod(shape) * dtype.itemsize:
        raise UnsafeFileError(f"an array of shape {shape} and type {dtype} does not hold as many bytes as that takes.")
    return np.frombuffer(bytearray(data), dtype).reshape(shape, order="F" if order == "F" else "C")


def _numpy_scalar(dtype: Any, data: Any) -> Any:
    if not isinstance(dtype, np.dtype):
        return Record("numpy.scalar", (dtype, data))
    return _array(data, dtype, (), "C")[()]


def _numpy_from_buffer(data: Any, dtype: Any, shape: Any, order: Any, *_: Any) -> Any:
    if not isinstance(dtype, np.dtype):
        return Record("numpy.ndarray", (data, dtype, shape, order))
    return _array(data, dtype, _numbers(shape), "F" if order == "F" else "C")
