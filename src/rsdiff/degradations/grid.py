"""Test grids: a list of named, fixed degradations, each of which is a test set of its own (Gaussian8, the DiffBSR and BlindSRSNF tests)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from rsdiff.config import UserError, config
from rsdiff.degradations.base import Degradation, DegradationConfig
from rsdiff.degradations.gaussian import GaussianDegradation, GaussianDegradationConfig


@config
class NamedCase:
    """One fixed degradation of a test grid."""

    name: str
    "names the case in result rows and folders"
    width: float
    "standard deviation of the kernel in HR pixels (first axis); 0 is no blur"
    second_width: float | None = None
    "standard deviation along the second axis; null for an isotropic kernel"
    angle: float = 0.0
    "angle of the first axis in radians; needs second_width"
    noise: float = 0.0
    "standard deviation of the LR noise in 8-bit grey levels"

    def __post_init__(self) -> None:
        if self.second_width is None and self.angle != 0:
            raise UserError(f"case {self.name} turns an isotropic kernel by {self.angle}; give second_width, or leave the angle out.")

    def degradation(self, common: GaussianDegradationConfig) -> GaussianDegradationConfig:
        """Return `common` with this case's kernel and noise."""
        if self.second_width is None:
            return replace(common, kernel="isotropic", width=self.width, noise=self.noise)
        return replace(common, kernel="anisotropic", width=self.width, second_width=self.second_width, angle=self.angle, noise=self.noise)


@config
class GridConfig(DegradationConfig):
    """A list of fixed Gaussian degradations; evaluation treats each as a test set."""

    common: GaussianDegradationConfig = GaussianDegradationConfig()
    "what the cases share: kernel size, resize back-end, rounding, clamping"
    cases: tuple[NamedCase, ...]
    "the cases, in the order of the report"
    only: tuple[str, ...] = ()
    "names of the cases to use; empty means all"

    def __post_init__(self) -> None:
        names = [case.name for case in self.cases]
        if not names or len(set(names)) != len(names):
            raise UserError(f"cases={names} must be at least one case, each with a name of its own.")
        unknown = sorted(set(self.only) - set(names))
        if unknown:
            raise UserError(f"only={list(self.only)} names {', '.join(unknown)}; the cases are {', '.join(names)}.")
        self.build()  # a case that is not a valid degradation is refused here, before any data are touched

    def build(self) -> DegradationGrid:
        used = [case for case in self.cases if not self.only or case.name in self.only]
        return DegradationGrid({case.name: case.degradation(self.common).build() for case in used})


@dataclass(frozen=True)
class DegradationGrid:
    """Named fixed degradations. It is no `Degradation` itself: evaluation iterates over it, training on it makes no sense."""

    cases: dict[str, GaussianDegradation]

    @property
    def gives(self) -> frozenset[str]:
        """Batch fields that every case fills besides lr."""
        return frozenset.intersection(*(case.gives for case in self.cases.values()))

    def __iter__(self) -> Iterator[tuple[str, Degradation]]:
        return iter(self.cases.items())


def named_cases(degradation: Degradation | DegradationGrid) -> list[tuple[str, Degradation]]:
    """Return (name, degradation) of every test set that `degradation` stands for; a single degradation is one case with an empty name."""
    return list(degradation) if isinstance(degradation, DegradationGrid) else [("", degradation)]
