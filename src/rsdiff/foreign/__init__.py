"""Safe readers of foreign checkpoints: files are read without executing anything of them."""

from rsdiff.foreign.inert import Record, Reference, UnsafeFileError
from rsdiff.foreign.reader import read_checkpoint, read_pickle

__all__ = ["Record", "Reference", "UnsafeFileError", "read_checkpoint", "read_pickle"]
