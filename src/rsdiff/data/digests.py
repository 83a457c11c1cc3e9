"""Digests of data: of texts, and the short ones by which images that were trained on are known again."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence

DIGEST_BYTES = 16
_SHORT_BYTES = 6  # a test image is taken for one of 20,000 others with a probability of 1e-10


def digest_of(parts: Iterable[str]) -> str:
    """Return the digest of a list of texts."""
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for part in parts:
        digest.update(part.encode() + b"\n")
    return digest.hexdigest()


def short_digests(contents: Iterable[str]) -> str:
    """Return the digests of images (ImageSource.contents) as one text of 8 characters an image."""
    short = sorted({bytes.fromhex(digest)[:_SHORT_BYTES] for digest in contents})
    return base64.b64encode(b"".join(short)).decode()


def found_in(contents: Sequence[str], short: str) -> list[int]:
    """Return the positions of the images whose digests are among those of `short_digests`."""
    joined = base64.b64decode(short)
    known = {joined[start : start + _SHORT_BYTES] for start in range(0, len(joined), _SHORT_BYTES)}
    return [position for position, digest in enumerate(contents) if bytes.fromhex(digest)[:_SHORT_BYTES] in known]
