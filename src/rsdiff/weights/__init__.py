"""Safe readers of foreign checkpoints, and the key maps that turn them into ours."""

from rsdiff.foreign.inert import Record, Reference, UnsafeFileError
from rsdiff.foreign.reader import read_checkpoint, read_pickle
from rsdiff.weights.importer import export_weights, import_weights

__all__ = ["Record", "Reference", "UnsafeFileError", "export_weights", "import_weights", "read_checkpoint", "read_pickle"]
