"""Reading and writing a scene's files while the main thread computes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

import rasterio

from rsdiff.inference.scene_input import STRICT

Made = TypeVar("Made")


class FileThread:
    """One thread that does all work with the files of a scene, in the order in which it was given. A context manager.

    GDAL's data sets must not be used by two threads at once: while this one exists, only what it is given may touch them. At the end, be it
    by an error or an interruption, what it was given before is still done.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "rsdiff-files")

    def __enter__(self) -> FileThread:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._pool.shutdown(wait=True)

    def begin(self, work: Callable[[], Made]) -> Future[Made]:
        """Do `work` after all that was given before; the result raises its error."""

        def done() -> Made:
            with rasterio.Env(**STRICT):  # every thread has settings of its own
                return work()

        return self._pool.submit(done)
