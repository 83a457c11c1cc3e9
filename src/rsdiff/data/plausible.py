"""Headers that lie: a file of a kilobyte that announces terabytes is refused before memory is taken for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rsdiff.data.source import DataError

SMALL_BYTES, LARGEST_RATIO = 2**28, 4096
"""Pixels up to 256 MiB are decoded whatever the file's size; beyond, no lossless coding packs real images more than 4096 times."""


def require_plausible(path: Path, decoded: int, files: Sequence[Path | str]) -> None:
    """Raise DataError where the header announces far more bytes than the files can hold: decoding would fill the memory with nothing."""
    stored = sum(Path(file).stat().st_size for file in files if Path(file).is_file())
    if decoded > max(SMALL_BYTES, LARGEST_RATIO * stored):
        raise DataError(
            f"{path} announces {decoded / 2**20:,.0f} MiB of pixels and has {stored / 2**20:.3g} MiB on the disk, more than "
            f"{LARGEST_RATIO} times less; it is damaged or a trap: delete it."
        )
