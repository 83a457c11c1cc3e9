"""Which HR and LR files are pairs, as data sets are distributed: where the two lie, and what their names have beside what they share.

Recognised where one reading alone is possible: folders HR and LR, GT or GTmod12 and LRbicx4, X_HR and X_LR_bicubic/X4 (DIV2K, DF2K; train
and valid in X tell splits), HR and LR_bicubic/X4 (as EDSR has benchmarks), image_SRF_4 with *_HR and *_LR side by side (Set5, Urban100).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rsdiff.data.source import DataError

_HR_FOLDER = re.compile(r"(?P<set>.*?[_-])?(hr|gt|gtmod\d+|highres|hires|target|targets)", re.IGNORECASE)
_LR_FOLDER = re.compile(r"(?P<set>.*?[_-])?(lr|lowres|input|inputs)(?P<kind>[_-]?[a-z]*?)([_-]?x?(?P<scale>\d+)x?)?", re.IGNORECASE)
_ROLE = {"hr": re.compile(r"^(hr)[_-]|[_-](hr)$", re.IGNORECASE), "lr": re.compile(r"^(lr)[_-]|[_-](lr)(x?\d+)?$", re.IGNORECASE)}


@dataclass(frozen=True)
class Affixes:
    """What the last part of a name has before and after what identifies the image."""

    prefix: str = ""
    suffix: str = ""

    def __bool__(self) -> bool:
        return bool(self.prefix or self.suffix)

    def core(self, stem: str) -> str | None:
        """Return a name without the affixes, or None where it lacks them."""
        folder, slash, last = stem.rpartition("/")
        if not (last.startswith(self.prefix) and last.endswith(self.suffix) and len(last) >= len(self.prefix) + len(self.suffix)):
            return None
        return folder + slash + last[len(self.prefix) : len(last) - len(self.suffix)]


@dataclass(frozen=True)
class Pairing:
    """Files that belong together.

    pairs  (name of the pair, HR stem, LR stem), in the order of the HR files
    alone  (role, stem) of files without a partner
    """

    pairs: tuple[tuple[str, str, str], ...]
    alone: tuple[tuple[Literal["hr", "lr"], str], ...]


@dataclass(frozen=True)
class Places:
    """Where the files of the two roles lie; the same folder where they lie side by side. `part` is what the folder names share."""

    hr: Path
    lr: Path
    part: str = ""


def pair(hr: Sequence[str], lr: Sequence[str], given: Mapping[str, Affixes]) -> Pairing:
    """Return which stems belong together: by the affixes given, else by equal names, else by what all names of a role have in common."""
    if any(given.values()):
        return _paired(hr, lr, given["hr"], given["lr"], keeps_hr=False)
    equal = _paired(hr, lr, Affixes(), Affixes(), keeps_hr=True)
    if not equal.alone or not hr or not lr:
        return equal
    # Where a file is missing, what is left may share more than the affix: "baby" and "bird" begin alike. So each affix may stay, too.
    tried = [_paired(hr, lr, high, low, keeps_hr=True) for high in common_affixes(hr) for low in common_affixes(lr)]
    return max([equal, *tried], key=lambda pairing: len(pairing.pairs))  # the first of equals, which takes least away


def common_affixes(stems: Iterable[str]) -> list[Affixes]:
    """Return what the last parts of names have in common: nothing, their suffix, their prefix, and both (the suffix of what is left)."""
    lasts = [stem.rpartition("/")[2] for stem in stems]
    prefix = _common_start(lasts)
    rest = [last[len(prefix) :] for last in lasts]
    suffix, rest_suffix = (_common_start([text[::-1] for text in texts])[::-1] for texts in (lasts, rest))
    return [Affixes(), Affixes("", suffix), Affixes(prefix, ""), Affixes(prefix, rest_suffix)]


def role_of(stem: str) -> str | None:
    """Return the role, 'hr' or 'lr', that a file name says, or None."""
    last = stem.rpartition("/")[2]
    return next((role for role, pattern in _ROLE.items() if pattern.search(last)), None)


def recognised(folder: Path, scale: float, stems: Sequence[str]) -> list[Places]:
    """Return where pairs at `scale` lie below a folder, by the names that data sets are distributed with.

    stems  names of the images in the folder itself
    """
    side_by_side = next((path for path in _folders(folder) if path.name.lower() == f"image_srf_{scale:g}"), None)
    if side_by_side is not None:
        return [Places(side_by_side, side_by_side)]
    highs = [(path, match["set"] or "") for path in _folders(folder) if (match := _HR_FOLDER.fullmatch(path.name))]
    lows = [
        (place, match["set"] or "")
        for path in _folders(folder)
        if (match := _LR_FOLDER.fullmatch(path.name))
        for place in _at(path, match, scale)
    ]
    found = [Places(high, low, part) for high, part in highs for low, other in lows if part == other]
    if not found and {role_of(stem) for stem in stems if "/" not in stem} >= {"hr", "lr"}:
        return [Places(folder, folder)]
    return found


def require_one(found: Sequence[Places], folder: Path) -> Places:
    """Return the only place of pairs; raises DataError that names what to choose from where there are several."""
    if len(found) == 1:
        return found[0]
    listed = " or ".join(
        f"dataset.hr_folder={place.hr.relative_to(folder)} dataset.lr_folder={place.lr.relative_to(folder)}" for place in found
    )
    raise DataError(f"{folder} holds pairs in several folders; choose {listed}.")


def _paired(hr: Sequence[str], lr: Sequence[str], hr_affixes: Affixes, lr_affixes: Affixes, keeps_hr: bool) -> Pairing:
    cores = {
        role: {stem: affixes.core(stem) for stem in stems} for role, stems, affixes in (("hr", hr, hr_affixes), ("lr", lr, lr_affixes))
    }
    lows = {core: stem for stem, core in cores["lr"].items() if core is not None}
    pairs = tuple((stem if keeps_hr else core, stem, lows[core]) for stem, core in cores["hr"].items() if core is not None and core in lows)
    taken = {low for _, _, low in pairs}, {high for _, high, _ in pairs}
    if len(taken[0]) < len(pairs):  # two HR files with one LR file: the affixes are not what tells them apart
        return Pairing((), tuple([("hr", stem) for stem in hr] + [("lr", stem) for stem in lr]))
    alone: list[tuple[Literal["hr", "lr"], str]] = [("hr", stem) for stem in hr if stem not in taken[1]]
    return Pairing(pairs, (*alone, *(("lr", stem) for stem in lr if stem not in taken[0])))


def _common_start(texts: Sequence[str]) -> str:
    """Return the longest text that all of `texts` begin with."""
    first, last = min(texts, default=""), max(texts, default="")
    return first[: next((at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))]


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _at(path: Path, match: re.Match[str], scale: float) -> list[Path]:
    """Return the folder of LR images at `scale`: one below that is called X4 or 4x, or the folder itself unless its name says another."""
    inner = [place for place in _folders(path) if re.fullmatch(rf"x?{scale:g}x?", place.name, re.IGNORECASE)]
    if inner:
        return inner
    if any(re.fullmatch(r"x\d+|\d+x", place.name, re.IGNORECASE) for place in _folders(path)):
        return []  # at other scales
    return [path] if match["scale"] in (None, f"{scale:g}") else []
