"""GeoTIFFs that stay open between reads: opening one takes as long as reading a crop of it, whose blocks are decoded anew each time.

One pool serves a process. It closes first what was not read for the longest time, reads a file anew that is another one than before, and
closes all before a fork: parent and child would share the place in a file at which the next byte is read.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections import OrderedDict, deque
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path

import rasterio

from rsdiff.data.opening import in_one_sentence
from rsdiff.data.raster_files import GdalRaster, Header, Raster, RasterFile
from rsdiff.data.rasters import open_file
from rsdiff.data.source import DataError, Window

KEPT_DRIVERS = frozenset({"GTiff"})
"""Formats whose pixels lie in the file itself; a mosaic changes with the files it names."""
LIMIT, SHARE = 64, 16
"""Files that stay open: this many, and at most one for so many descriptors that the process may have."""
HEADERS = 4096
"""Headers that are remembered, so that a file that was closed is opened without another look at it."""
BLOCKS = 64 * 2**20
"""Bytes of decoded blocks that GDAL keeps for all files together; by itself it takes a twentieth of the memory, in every worker."""

State = tuple[int, int, int, int]
Key = tuple[Path, bool, str]
"""Path, whether a palette image counts as codes, and the array that is taken of a file with several."""


class OpenFiles:
    """A pool of open files.

    limit  number of files that stay open
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()  # a file of GDAL's may be read by one thread at a time
        self._files: OrderedDict[Key, tuple[State, GdalRaster]] = OrderedDict()
        self._headers: OrderedDict[Key, tuple[State, Header]] = OrderedDict()
        self._unwanted: deque[Collection[Path]] = deque()

    @property
    def paths(self) -> list[Path]:
        """The files that are open, the one read last at the end."""
        return [key[0] for key in self._files]

    def read(self, key: Key, state: State, window: Window, bands: Sequence[int]) -> Raster:
        """Return the pixels of a window as `read_raster` does.

        state  what tells the file from its successors
        """
        if not self._lock.acquire(blocking=False):  # another thread is reading: this one opens the file for itself
            with open_file(*key) as file:
                return file.read(window, bands)
        try:
            self._close_unwanted()
            with environment(), in_one_sentence(key[0]):
                return self._read(key, state, window, bands)
        finally:
            self._lock.release()

    def close(self, paths: Collection[Path]) -> None:
        """Close files that nobody will read again; at the next read, where a thread is reading now."""
        self._unwanted.append(paths)
        if self._lock.acquire(blocking=False):
            try:
                self._close_unwanted()
            finally:
                self._lock.release()

    def before_fork(self) -> None:
        """Wait for the thread that is reading, and close all."""
        self._lock.acquire()
        self._close_all()

    def after_fork(self) -> None:
        """Let files be read again, in the parent and in the child."""
        self._lock.release()

    def _read(self, key: Key, state: State, window: Window, bands: Sequence[int]) -> Raster:
        known = self._files.pop(key, None)
        file: RasterFile
        if known is not None and known[0] == state:
            file = known[1]
        else:
            if known is not None:
                known[1].close()
            file = self._opened(key, state)
        is_kept = isinstance(file, GdalRaster) and file.header.driver in KEPT_DRIVERS
        try:
            raster = file.read(window, bands)
        except BaseException:
            is_kept = False
            raise
        finally:
            if not is_kept:
                file.__exit__(None, None, None)
        if isinstance(file, GdalRaster) and is_kept:
            self._files[key] = state, file
            self._headers[key] = state, file.header
            self._headers.move_to_end(key)
            self._shrink()
        return raster

    def _opened(self, key: Key, state: State) -> RasterFile:
        """Open a file; where the process has no descriptors left, once more after all others are closed."""
        header = self._headers.get(key)
        try:
            if header is not None and header[0] == state:
                return GdalRaster(*key, known=header[1])
            return open_file(*key)
        except (DataError, OSError, rasterio.errors.RasterioError):
            if not self._files:
                raise
            self._close_all()
            return open_file(*key)

    def _shrink(self) -> None:
        while len(self._files) > self._limit:
            self._files.popitem(last=False)[1][1].close()
        while len(self._headers) > HEADERS:
            self._headers.popitem(last=False)

    def _close_unwanted(self) -> None:
        while self._unwanted:
            paths = self._unwanted.popleft()
            for key in [key for key in self._files if key[0] in paths]:
                self._files.pop(key)[1].close()

    def _close_all(self) -> None:
        while self._files:
            self._files.popitem()[1][1].close()


def environment() -> AbstractContextManager[object]:
    """Return GDAL's environment to read in: one that bounds its memory, or that which somebody has entered.

    Entering one takes a tenth of reading a crop: a worker of a loader stays in it until it ends.
    """
    if rasterio.env.hasenv():
        return nullcontext()
    bounded = rasterio.Env(GDAL_CACHEMAX=BLOCKS)
    if multiprocessing.parent_process() is None:
        return bounded
    bounded.__enter__()
    return nullcontext()


@cache
def open_files() -> OpenFiles:
    """Return the pool of this process."""
    pool = OpenFiles(min(LIMIT, _descriptors() // SHARE))
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=pool.before_fork, after_in_parent=pool.after_fork, after_in_child=pool.after_fork)
    return pool


def _descriptors() -> int:
    """Return the number of files that this process may have open."""
    if sys.platform == "win32":
        return 512
    import resource

    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return LIMIT * SHARE if limit == resource.RLIM_INFINITY else limit
