"""Data set `synthetic`: generated overhead scenes, in colour or many bands, with a second date and its exact change mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from rsdiff.config import UserError, config
from rsdiff.config.reading import ReadWith
from rsdiff.data.digests import digest_of
from rsdiff.data.normalisation import Normaliser
from rsdiff.data.sample import Sample, SampleMeta
from rsdiff.data.seeding import derived_seed
from rsdiff.data.source import ImageSource, RawSample, Split, Window, cached, cut_sample, sample_from

RGB_NM = (650.0, 560.0, 470.0)
GREY_NM = (580.0,)
_REFLECTANCE_UNIT = 10_000  # of 16-bit values, as in the products of most optical satellites
_DISPLAY_WHITE, _DISPLAY_GAMMA = 0.5, 1.6


@config
class SyntheticDataset:
    """Generated scenes: fields, towns, woods, water, roads; the same for the same seed, on any machine and in any order."""

    result_neutral: ClassVar[frozenset[str]] = frozenset({"cache_mb"})
    read_with: ClassVar[ReadWith] = {"illumination": ("second_date", (True,))}

    size: int = 256
    """Side of the square scenes in pixels (about half a metre each)."""
    train_images: int = 128
    """Scenes of the training split."""
    test_images: int = 8
    """Scenes of the test split."""
    bands: int = 3
    """3 or 1: colour or grey of 8 bits; any other number: reflectance of 16 bits at wavelengths spaced evenly from 400 to 1000 nm."""
    second_date: bool = True
    """Give `ref`, the same place at another date, and `change_mask`, 1 where it differs; False halves the time a scene takes."""
    mask: Literal["changes", "buildings"] = "changes"
    """What `change_mask` shows: where the second date differs, or the buildings of the first, which task=downstream looks for."""
    changes: float = 0.3
    """Share of the fields and buildings that differ at the second date (and another draw of the first)."""
    illumination: float = 1.0
    """How much sun and haze differ at the second date; 0: not at all."""
    cache_mb: int = 512
    """Memory per loader process for generated scenes, in MB; 0 means none is kept."""
    seed: int = 0
    """Seed of the scenes; independent of the run's seed."""
    small: Literal["refuse", "skip", "pad"] = "refuse"
    """Images smaller than the training crop: stop with their names, leave them out, or extend them by mirroring."""
    size_rule: Literal["crop", "keep"] = "crop"
    """Test targets: crop bottom and right to a multiple of the scale, or keep the size and round the LR's down."""

    def __post_init__(self) -> None:
        if not 16 <= self.size <= 8192:
            raise UserError(f"size is {self.size}; scenes of 16 to 8192 pixels can be generated.")
        if self.bands < 1:
            raise UserError(f"bands is {self.bands}; it must be at least 1.")
        if self.train_images < 1 or self.test_images < 1:
            raise UserError(f"train_images is {self.train_images} and test_images {self.test_images}; both must be at least 1.")
        if not 0 <= self.changes <= 1 or not 0 <= self.illumination <= 3:
            raise UserError(f"changes is {self.changes} (0 to 1 are accepted) and illumination {self.illumination} (0 to 3).")

    @property
    def wavelengths(self) -> tuple[float, ...]:
        """Band centres in nm."""
        return wavelengths_of(self.bands)

    @property
    def gives(self) -> frozenset[str]:
        """Fields of every sample."""
        mask = {"change_mask"} if self.second_date or self.mask == "buildings" else set()
        return frozenset({"hr", *mask, *({"ref"} if self.second_date else ())})

    def check(self) -> None:
        """Nothing can be missing."""

    def build(self, split: Split, scale: float) -> ImageSource:
        """Return the scenes of a split; the scale does not matter to them."""
        return cached(SyntheticSource(self, split), self.cache_mb, scale)


class SyntheticSource:
    """The scenes of one split as an ImageSource; the last one is kept for further windows."""

    left_out: Sequence[tuple[str, str]] = ()

    def __init__(self, options: SyntheticDataset, split: Split) -> None:
        self._options, self._split = options, split
        self._length = options.train_images if split == "train" else options.test_images
        self.gives = options.gives
        self.bands = self.lr_bands = options.bands
        self.wavelengths = options.wavelengths
        self._is_8_bit = options.bands in (1, 3)
        self.normaliser = self.lr_normaliser = Normaliser((0.0,), (255.0 if self._is_8_bit else float(_REFLECTANCE_UNIT),))
        self._last: RawSample | None = None

    def __len__(self) -> int:
        return self._length

    def name(self, index: int) -> str:
        """See ImageSource."""
        return f"{self._split}_{index:05d}"

    def size(self, index: int) -> tuple[int, int]:
        """See ImageSource."""
        return self._options.size, self._options.size

    def meta(self, index: int) -> SampleMeta:
        """See ImageSource."""
        return SampleMeta(self.name(index), index, wavelengths=self.wavelengths)

    def raw(self, index: int, window: Window | None = None) -> RawSample:
        """See ImageSource."""
        if not 0 <= index < self._length:
            raise IndexError(index)
        if window is not None and not window.within(self.size(index)):
            raise UserError(f"{window} does not lie inside {self.name(index)} of size {self.size(index)}.")
        if self._last is None or self._last.meta.index != index:
            self._last = self._generate(index)
        return cut_sample(self._last, window or Window(0, 0, *self.size(index)), 1.0)

    def read(self, index: int, window: Window | None = None) -> Sample:
        """See ImageSource."""
        return sample_from(self.raw(index, window), self.normaliser, self.lr_normaliser)

    def fingerprint(self) -> str:
        """Return a digest of the options that shape the scenes: the data are nothing else."""
        o = self._options
        scenes = (o.size, len(self), o.bands, o.second_date, o.changes, o.illumination, o.seed)
        of_mask = () if o.mask == "changes" else (o.mask,)
        return f"{derived_seed('synthetic', self._split, repr((*scenes, *of_mask))):016x}"

    def remarks(self) -> Sequence[str]:
        """See ImageSource."""
        return ()

    def contents(self) -> Sequence[str]:
        """See ImageSource: a scene is what its options and its number say."""
        o = self._options
        scene = (o.size, o.bands, o.changes, o.seed, self._split)
        return [digest_of(["synthetic", repr(scene), str(index)]) for index in range(len(self))]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_last": None}

    def _generate(self, index: int) -> RawSample:
        from rsdiff.data.scenes import FIRST, SECOND, buildings, changed, lay_out, paint, render  # with OpenCV, only to make one

        options = self._options
        rng = np.random.Generator(np.random.PCG64(derived_seed(options.seed, "scene", self._split, index)))
        scene = lay_out(self.size(index), rng, options.changes)
        first = paint(scene, FIRST)
        arrays = {"hr": self._stored(render(scene, first, self.wavelengths))}
        if options.second_date:
            second = paint(scene, SECOND)
            other = render(scene, second, self.wavelengths)
            if options.illumination:
                other = relit(other, self.wavelengths, rng, options.illumination)
            arrays["ref"] = self._stored(other)
            arrays["change_mask"] = changed(first, second) * np.uint8(255)
        if options.mask == "buildings":
            arrays["change_mask"] = buildings(first) * np.uint8(255)
        return RawSample(self.meta(index), arrays)

    def _stored(self, reflectance: NDArray[np.float32]) -> NDArray[Any]:
        """Return 8-bit display values of colour and grey, 16-bit reflectance of other bands."""
        if self._is_8_bit:
            return displayed(reflectance)
        return np.minimum(np.rint(reflectance * _REFLECTANCE_UNIT), _REFLECTANCE_UNIT).astype(np.uint16)


def wavelengths_of(bands: int) -> tuple[float, ...]:
    """Return the band centres in nm of scenes with `bands` bands."""
    if bands in (1, 3):
        return RGB_NM if bands == 3 else GREY_NM
    return tuple(float(value) for value in np.linspace(400, 1000, bands))


def displayed(reflectance: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return reflectance as an 8-bit picture: 0.5 and above is white, gamma 1.6."""
    return np.rint(255 * np.clip(reflectance / _DISPLAY_WHITE, 0, 1) ** (1 / _DISPLAY_GAMMA)).astype(np.uint8)


def relit(image: NDArray[np.float32], wavelengths: Sequence[float], rng: np.random.Generator, strength: float) -> NDArray[np.float32]:
    """Return reflectance (bands, H, W) as seen under another sun: gain and tilt over wavelength, and haze that is strongest in the blue."""
    gain, tilt, haze = 1 + strength * rng.uniform(-0.2, 0.2), strength * rng.uniform(-0.08, 0.08), strength * rng.uniform(0.0, 0.02)
    nm = np.asarray(wavelengths)
    factor = gain * (1 + tilt * (nm - 600) / 200)
    offset = haze * (nm / 550) ** -2
    return image * factor.astype(np.float32)[:, None, None] + offset.astype(np.float32)[:, None, None]
