"""rsdiff in Python: what the commands do, with arrays in and arrays out and nothing printed."""

from rsdiff.api.arrays import degrade, score
from rsdiff.api.commands import Ended, calibrate, compose, evaluate, run
from rsdiff.api.model import Model, load
from rsdiff.api.restoring import restore

__all__ = ["Ended", "Model", "calibrate", "compose", "degrade", "evaluate", "load", "restore", "run", "score"]
