"""Safe readers of foreign checkpoints, and the key maps that turn them into ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rsdiff.config.kinds import on_demand

if TYPE_CHECKING:
    from rsdiff.weights.importer import export_weights, import_weights
    from rsdiff.weights.pickle_machine import Record, Reference, UnsafeFileError
    from rsdiff.weights.unpickler import read_checkpoint, read_pickle

_MODULES = {
    "Record": "pickle_machine",
    "Reference": "pickle_machine",
    "UnsafeFileError": "pickle_machine",
    "export_weights": "importer",
    "import_weights": "importer",
    "read_checkpoint": "unpickler",
    "read_pickle": "unpickler",
}
__getattr__ = on_demand(__name__, _MODULES)

__all__ = [
    "Record",
    "Reference",
    "UnsafeFileError",
    "export_weights",
    "import_weights",
    "read_checkpoint",
    "read_pickle",
]
