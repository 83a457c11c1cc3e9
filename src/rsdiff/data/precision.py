"""Which parts of a step compute in reduced precision: the networks, and nothing around them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import ParamSpec

import torch
from torch import Tensor

from rsdiff.config.computing import Precision

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_Arguments = ParamSpec("_Arguments")


def mixed(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Return the block in which networks compute in `precision` on `device`."""
    return nullcontext() if precision == "no" else torch.autocast(device.type, dtype=_DTYPES[precision])


def set_float32(tf32: bool, cudnn_benchmark: bool) -> None:
    """Say for this process how a GPU computes in float32; see the options of these names. A CPU computes as it always does."""
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32  # PyTorch's own default is True for convolutions and False for products
    torch.backends.cudnn.benchmark = cudnn_benchmark


def in_float32(function: Callable[_Arguments, Tensor]) -> Callable[_Arguments, Tensor]:
    """Return `function`, whose first argument is a tensor, computing in float32 also where the networks around it do not.

    For products that are no layer of a network: resizing, blur, transforms, positions. In 8 bits of mantissa they would lose what the
    network adds to, and training and restoration would see other images. Tensors of 16 bits among the arguments become float32.
    """

    @functools.wraps(function)
    def exact(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> Tensor:
        kind = args[0].device.type  # type: ignore[attr-defined]
        if not torch.is_autocast_enabled(kind):
            return function(*args, **kwargs)
        with torch.autocast(kind, enabled=False):
            return function(*[_widened(value) for value in args], **{name: _widened(value) for name, value in kwargs.items()})  # type: ignore[arg-type]

    return exact


def _widened(value: object) -> object:
    return value.float() if isinstance(value, Tensor) and value.dtype in _DTYPES.values() else value
