"""Test sets: the images of a split, whole, under every degradation of a run."""

from __future__ import annotations

from dataclasses import dataclass

from rsdiff.config import UserError
from rsdiff.data.source import ImageSource, SizeRule
from rsdiff.data.views import Draw, TestSamples
from rsdiff.degradations.base import Degradation, DegradationConfig
from rsdiff.degradations.grid import named_cases
from rsdiff.degradations.paired import Paired


@dataclass(frozen=True)
class TestSet:
    """Images under one degradation of a grid, or under the only one (name '')."""

    __test__ = False  # not a test class, whatever pytest makes of the name

    name: str
    degradation: Degradation
    samples: TestSamples


def build_test_sets(source: ImageSource, degradation: DegradationConfig, scale: float, seed: int, size_rule: SizeRule) -> list[TestSet]:
    """Return the test sets of a split; the degradation is told the wavelengths of the data, and draws from (seed, name) alone."""
    cases = named_cases(degradation.for_wavelengths(source.wavelengths).for_tests().build())
    return [TestSet(name, one, TestSamples(source, scale, seed, draw_of(one, source), size_rule=size_rule)) for name, one in cases]


def draw_of(degradation: Degradation, source: ImageSource) -> Draw | None:
    """Return the draw that samples of `source` need: none where the dataset has its own LR.

    Raises UserError when the LR of the data and a degradation that would make another are both given.
    """
    if isinstance(degradation, Paired):
        return None
    if "lr" in source.gives:
        raise UserError("this dataset has LR images of its own, so no degradation is applied to it; choose degradation=paired.")
    return degradation.draw
