"""Safe readers of foreign checkpoints: files are read without executing anything of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rsdiff.config.kinds import on_demand

if TYPE_CHECKING:
    from rsdiff.foreign.inert import Record, Reference, UnsafeFileError
    from rsdiff.foreign.reader import read_checkpoint, read_pickle

_MODULES = {
    "Record": "inert",
    "Reference": "inert",
    "UnsafeFileError": "inert",
    "read_checkpoint": "reader",
    "read_pickle": "reader",
}
__getattr__ = on_demand(__name__, _MODULES)

__all__ = ["Record", "Reference", "UnsafeFileError", "read_checkpoint", "read_pickle"]
