"""What earlier commands found out about image files, so that 20,000 of them are not opened anew by every command.

Headers and content digests are kept in `$RSDIFF_CACHE` (else `$XDG_CACHE_HOME/rsdiff`, else `~/.cache/rsdiff`), one file per data folder.
An entry counts while the file has the size, the times and the inode it had then, and the files beside it that share its name (.hdr, .tfw,
.aux.xml) have theirs. Deleting the folder loses nothing but time; a folder that cannot be written is no error.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from rsdiff.config.paths import cache_folder
from rsdiff.data import cubes, opening, palettes, pictures, raster_files, rasters
from rsdiff.data.digests import DIGEST_BYTES, digest_of
from rsdiff.data.durable import write_text
from rsdiff.data.rasters import RasterInfo
from rsdiff.data.sample import Georeference
from rsdiff.data.source import DataError

_CHUNK = 1 << 20
_THREADS = 8  # files on network drives wait more than they compute
_SETTLED_NS = 2_000_000_000  # a file changed a moment ago may change again within one tick of the file system's clock
_SIDE_FILES = (".hdr", ".msk")
"""Files beside an image that are part of its content: without them its pixels or their validity are others."""


class FileRecords:
    """The records of some files, read from the cache when made and written back by `save`.

    states  path -> what tells a file from its successors; raises DataError for a path that is no file
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.states = states_of(paths)
        self._place = _cache_file(paths)
        self._headers, self._known = _load(self._place)
        self._index = {repr(header): number for number, header in enumerate(self._headers)}
        self._is_changed = False

    def knows(self, path: Path, as_codes: bool, variable: str) -> bool:
        """Say whether `header` need not open a file."""
        return f"{int(as_codes)}{variable}" in self._entry(path)[2]

    def header(self, path: Path, as_codes: bool, variable: str, read: Callable[[Path, bool, str], RasterInfo]) -> RasterInfo:
        """Return what `read` says of a file, from the records where the file is the one it was."""
        kind = f"{int(as_codes)}{variable}"
        entry = self._entry(path)
        if kind in entry[2]:
            return self._headers[entry[2][kind]]
        found = read(path, as_codes, variable)
        if path.suffix.lower() != ".vrt":  # a mosaic changes with the files it names
            entry[2][kind] = self._number_of(found)
            self._is_changed = True
        return found

    def facts(self, path: Path, as_codes: bool, variable: str, read: Callable[[Path, bool, str], PixelFacts]) -> PixelFacts:
        """Return what `read` says of a file's pixels, from the records where the file is the one it was."""
        kind = f"{int(as_codes)}{variable}"
        entry = self._entry(path)
        if kind in entry[3]:
            return PixelFacts(*entry[3][kind])
        found = read(path, as_codes, variable)
        if path.suffix.lower() != ".vrt":
            entry[3][kind] = list(dataclasses.astuple(found))
            self._is_changed = True
        return found

    def digests(self, paths: Iterable[Path]) -> dict[Path, str]:
        """Return the digest of the content of every file, read only where it is not recorded."""
        wanted = list(dict.fromkeys(paths))
        new = [path for path in wanted if self._entry(path)[1] is None or path.suffix.lower() == ".vrt"]
        if new:
            with ThreadPoolExecutor(_THREADS) as pool:
                for path, digest in zip(new, pool.map(content_digest, new), strict=True):
                    self._entry(path)[1] = digest
            self._is_changed = True
        return {path: str(self._entry(path)[1]) for path in wanted}

    def save(self) -> None:
        """Write what is new to the cache; files that changed within the last seconds are left out."""
        if not self._is_changed:
            return
        self._take_what_others_saved()
        settled = time.time_ns() - _SETTLED_NS
        files = {name: entry for name, entry in self._known.items() if max(entry[0][1], entry[0][2]) < settled}
        if len(files) > 2 * len(self.states):  # the folder was another one before
            files = {name: entry for name, entry in files.items() if os.path.exists(name)}
        text = json.dumps({"reader": _reader(), "headers": [_plain(header) for header in self._headers], "files": files})
        try:
            self._place.parent.mkdir(parents=True, exist_ok=True)
            write_text(self._place, text)
        except OSError:
            return
        self._is_changed = False

    def _take_what_others_saved(self) -> None:
        """Add what was saved since these records were made: those of the other split, or of another process."""
        headers, files = _load(self._place)
        for name, (state, digest, kinds, facts) in files.items():
            entry = self._known.setdefault(name, [state, None, {}, {}])
            if entry[0] == state:
                entry[1] = entry[1] or digest
                entry[2] = {**{kind: self._number_of(headers[number]) for kind, number in kinds.items()}, **entry[2]}
                entry[3] = {**facts, **entry[3]}

    def _number_of(self, header: RasterInfo) -> int:
        """Return the number of a header among those of these records, which files share."""
        text = repr(header)
        if text not in self._index:
            self._headers.append(header)
            self._index[text] = len(self._headers) - 1
        return self._index[text]

    def _entry(self, path: Path) -> list[Any]:
        """Return [state, digest or None, {kind: number of its header}, {kind: facts}] of a file, empty if it is not the recorded one."""
        name, state = str(path), list(self.states[path])
        entry = self._known.get(name)
        if entry is None or entry[0] != state:
            entry = self._known[name] = [state, None, {}, {}]
        return entry


@dataclasses.dataclass(frozen=True)
class PixelFacts:
    """What is known of a file once every pixel was decoded.

    low, high, mean  of the valid values, as stored; 0 where none is valid
    valid            share of the values that are valid
    problem          why the file cannot be decoded, in one sentence; empty where it can
    """

    low: float
    high: float
    mean: float
    valid: float
    problem: str


State = tuple[int, int, int, int, int]
"""Size, time of change, time of change of the directory entry, inode, and a number for the files beside it that share its name."""


def states_of(paths: Sequence[Path]) -> dict[Path, State]:
    """Return the states of files; their folders are listed instead of asking for every file."""
    found: dict[Path, State] = {}
    by_folder: dict[str, list[Path]] = {}
    for path in dict.fromkeys(paths):
        by_folder.setdefault(os.path.dirname(path), []).append(path)
    for folder, members in by_folder.items():
        wanted = {os.path.basename(path) for path in members}
        stems = {name.split(".", 1)[0] for name in wanted}
        entries: dict[str, list[tuple[str, os.stat_result]]] = {}
        try:
            with os.scandir(folder or ".") as listing:
                for entry in listing:
                    stem = entry.name.split(".", 1)[0]
                    if stem in stems:
                        try:
                            entries.setdefault(stem, []).append((entry.name, entry.stat()))
                        except OSError:
                            continue  # a broken link; named below if it is asked for
        except OSError as error:
            raise _gone(members[0], error) from None
        for path in members:
            name = os.path.basename(path)
            group = entries.get(name.split(".", 1)[0], [])
            own = next((stat for other, stat in group if other == name), None)
            if own is None:
                raise _gone(path, None)
            beside = sorted((other, stat.st_size, stat.st_mtime_ns) for other, stat in group if other != name)
            number = int.from_bytes(hashlib.blake2b(repr(beside).encode(), digest_size=6).digest(), "big") if beside else 0
            found[path] = (own.st_size, own.st_mtime_ns, own.st_ctime_ns, own.st_ino, number)
    return found


def own_state(path: Path) -> tuple[int, int, int, int]:
    """Return the state of one file, without what lies beside it; cheap enough for every read."""
    try:
        stat = path.stat()
    except OSError as error:
        raise _gone(path, error) from None
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


def content_digest(path: Path) -> str:
    """Return a digest of a file's bytes and of those beside it that belong to its content; a mosaic's is of the files it names, too."""
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for part in _content_files(path):
        try:
            with part.open("rb", buffering=0) as file:
                while block := file.read(_CHUNK):
                    digest.update(block)
        except OSError as error:
            raise _gone(part, error) from None
    return digest.hexdigest()


def _content_files(path: Path) -> list[Path]:
    if path.suffix.lower() == ".vrt":
        with opening.in_one_sentence(path), opening.without_warnings(), opening.open_raster(path) as file:
            return sorted({path, *(Path(name) for name in file.files if Path(name).is_file())})
    beside = [place for ending in _SIDE_FILES for place in (path.with_suffix(ending), path.with_name(path.name + ending))]
    return [path, *(place for place in dict.fromkeys(beside) if place.is_file())]


def _gone(path: Path, error: OSError | None) -> DataError:
    reason = error.strerror if error is not None else "No such file or directory"
    return DataError(f"{path} does not exist any more or cannot be reached ({reason}); put it back.")


def _cache_file(paths: Sequence[Path]) -> Path:
    """Return the records' place for files of one data folder: the deepest folder that holds all of them."""
    folder = os.path.commonpath([os.path.abspath(place) for place in {os.path.dirname(path) for path in paths}]) if paths else ""
    return cache_folder() / "files" / f"{digest_of([os.path.realpath(folder)])}.json"


@functools.cache
def _reader() -> str:
    """Return what changes when files are read otherwise: another version of the readers makes all records new."""
    readers = (rasters, raster_files, pictures, opening, palettes, cubes)
    sources = [Path(module.__file__).read_text(encoding="utf-8") for module in readers if module.__file__]
    return digest_of([*sources, *(field.name for kind in (RasterInfo, PixelFacts) for field in dataclasses.fields(kind))])


def _load(place: Path) -> tuple[list[RasterInfo], dict[str, list[Any]]]:
    try:
        values = json.loads(place.read_text(encoding="utf-8"))
        if values["reader"] != _reader():
            return [], {}
        return [_info(header) for header in values["headers"]], dict(values["files"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return [], {}  # none yet, or damaged: made anew


def _plain(header: RasterInfo) -> dict[str, Any]:
    return {**dataclasses.asdict(header), "dtype": header.dtype.str}


def _info(values: Mapping[str, Any]) -> RasterInfo:
    place = values["georeference"]
    known = {name: _tuples(value) for name, value in values.items()}
    georeference = None if place is None else Georeference(**_tuples_of(place))
    return RasterInfo(**{**known, "dtype": np.dtype(values["dtype"]), "georeference": georeference})


def _tuples_of(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _tuples(value) for name, value in values.items()}


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
