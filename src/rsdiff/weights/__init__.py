"""Safe readers of foreign checkpoints, and the key maps that turn them into ours."""

from rsdiff.weights.importer import export_weights, import_weights
from rsdiff.weights.pickle_machine import Record, Reference, UnsafeFileError
from rsdiff.weights.unpickler import read_checkpoint, read_pickle

__all__ = ["Record", "Reference", "UnsafeFileError", "export_weights", "import_weights", "read_checkpoint", "read_pickle"]
