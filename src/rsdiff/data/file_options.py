"""Options of every data set that is read from files."""

from __future__ import annotations

from typing import ClassVar, Literal

from rsdiff.config import UserError, config
from rsdiff.config.reading import ReadWith
from rsdiff.data.data_range import RangeName, rule_of
from rsdiff.data.normalisation import NormaliserConfig


@config
class FileOptions:
    """Options of every data set that is read from files."""

    result_neutral: ClassVar[frozenset[str]] = frozenset({"cache_mb", "download", "odd"})  # odd images tell by what is taken
    read_with: ClassVar[ReadWith] = {"normaliser": ("range", ("auto", "measured"))}

    extensions: tuple[str, ...] = ("png", "jpg", "jpeg", "bmp", "webp", "tif", "tiff", "jp2", "img", "dat", "mat", "npy")
    """Endings of the files that belong to the data set, in any case."""
    convert: Literal["no", "rgb"] = "no"
    """no: bands as the files have them, all alike; rgb: grey is repeated, alpha and further bands are dropped, three bands remain."""
    take_bands: tuple[int, ...] = ()
    """Bands to use, counted from 1 and in this order; empty means all."""
    odd: Literal["refuse", "skip"] = "refuse"
    """Unreadable files, files of another band count or type than most, files without partner and pairs of wrong sizes: stop with their
    names, or leave them out. skip decodes every file once before a run begins, so that a damaged one is found then."""
    small: Literal["refuse", "skip", "pad"] = "refuse"
    """Images smaller than the training crop: stop with their names, leave them out, or extend them by mirroring."""
    size_rule: Literal["crop", "keep"] = "crop"
    """Test targets: crop bottom and right to a multiple of the scale, or keep the size and round the LR's down."""
    range: RangeName | tuple[float, float] = "auto"
    """Stored values that become 0 and 1: auto: as `normaliser` says; measured on the training images; sentinel2 (baseline 04.00 and later:
    1000 to 11000), sentinel2_harmonized (0 to 10000), landsat_c2 (level 2: 7273 to 43636), [low, high]; type: the type's range."""
    normaliser: NormaliserConfig = NormaliserConfig()
    """How stored values become [0, 1] where `range` does not say so."""
    wavelengths: tuple[float, ...] = ()
    """Band centres of hr in nanometres (after take_bands); empty means those in the files' headers."""
    variable: str = ""
    """Array to read from MATLAB files that hold several cubes."""
    cache_mb: int = 0
    """Memory per loader process for decoded images, in MB; 0 means none is kept."""

    def __post_init__(self) -> None:
        rule_of(self.range, self.normaliser)
        if any(band < 1 for band in self.take_bands):
            raise UserError(f"take_bands is {list(self.take_bands)}; bands are counted from 1.")

    @property
    def value_rule(self) -> NormaliserConfig:
        """How stored values become [0, 1]."""
        return rule_of(self.range, self.normaliser)
