"""A golden case on disk, and the deterministic parameters and inputs it refers to."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from . import fill

Runner = Callable[["Case"], Mapping[str, Any]]
RUNNERS: dict[tuple[str, str], Runner] = {}


def runner(folder: str, *kinds: str) -> Callable[[Runner], Runner]:
    """Register a runner: it takes a case and returns {output name: value} for every output it computed."""

    def register(function: Runner) -> Runner:
        for kind in kinds:
            if (folder, kind) in RUNNERS:
                raise ValueError(f"two runners for {folder}/{kind}")
            RUNNERS[folder, kind] = function
        return function

    return register


@dataclass(frozen=True)
class Case:
    """One golden case: `spec` is its JSON, `arrays` its npz (inputs and outputs).

    What a runner reads through `input`, `tensor` or `weights` is an input; every other stored array is an output it must compute.
    """

    path: Path
    read: set[str] = field(default_factory=set)

    @property
    def folder(self) -> str:
        return self.path.parent.name

    @property
    def name(self) -> str:
        return self.path.stem

    @cached_property
    def spec(self) -> dict[str, Any]:
        return json.loads(self.path.read_text())

    @property
    def kind(self) -> str:
        return self.spec["kind"]

    @property
    def config(self) -> dict[str, Any]:
        return self.spec.get("config", {})

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        with np.load(self.path.with_suffix(".npz"), allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}

    def input(self, name: str) -> np.ndarray:
        """Return the input `name`: stored in the npz, or named in the JSON as a fill.image / fill.noise draw."""
        if name in self.arrays:
            listed = self.spec.get("outputs", {})
            if isinstance(listed, dict) and name in listed and name not in self.spec.get("inputs", {}):
                raise KeyError(f"{name} is an output of {self.folder}/{self.name}, not an input")
            self.read.add(name)
            return self.arrays[name]
        spec = self.spec["inputs"][name]
        maker = fill.image if spec["fill"] == "image" else fill.noise
        return maker(spec["name"], tuple(spec["shape"]), spec.get("salt", 0))

    def tensor(self, name: str) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(self.input(name)))

    def published(self, name: str) -> torch.Tensor:
        """Return an output as published, which is compared all the same: where a later output is ill-conditioned in an earlier one."""
        return torch.from_numpy(np.ascontiguousarray(self.arrays[name]))

    def weights(self, field: str = "keys") -> dict[str, torch.Tensor]:
        """Return the filled published state dict of the network under `field`, following the case's fill, scale and alias rules."""
        rule = self.spec.get("fill", {})
        salt = rule.get("salt", self.config.get("fill_salt", self.spec.get("salt", 0)))
        gain, by_substring = rule.get("gain", 1.0), rule.get("gain_by_substring", {})
        filled: dict[str, torch.Tensor] = {}
        for key, shape in self.spec[field].items():
            stored = next((name for name in (key, key.replace(".", "/")) if name in self.arrays), None)
            if stored is not None:
                self.read.add(stored)
                filled[key] = torch.from_numpy(np.ascontiguousarray(self.arrays[stored]))
                continue
            values = fill.fill_array(key, tuple(shape), salt)
            if len(shape) >= 2:
                factor = gain
                for substring, special in by_substring.items():
                    factor = special if substring in key else factor
                values = values * np.float32(factor)
            filled[key] = torch.from_numpy(values.reshape(tuple(shape)))
        for key, factor in self.config.get("scale_after_fill", {}).items():
            if key in filled:
                filled[key] = filled[key] * factor
        # Folders differ in the direction of `aliases`; a case that copies its right-hand keys onto the left-hand ones says so in words.
        leftwards = "right-hand key onto the left-hand" in self.spec.get("aliases_note", "")
        for left, right in self.spec.get("aliases", {}).items():
            source, target = (right, left) if leftwards else (left, right)
            filled[target] = filled[source]
        return filled

    def check(self, outputs: Mapping[str, Any]) -> None:
        """Compare every stored array that is no input; an output that the runner did not compute fails.

        Arrays that the case calls informational show what published code gives and are not compared.
        """
        expected = sorted(set(self.arrays) - self.read - set(self.spec.get("informational", [])))
        assert expected, f"{self.folder}/{self.name}: the case stores no outputs"
        missing = sorted(set(expected) - set(outputs))
        assert not missing, f"{self.folder}/{self.name}: the runner did not compute {missing}"
        for name in expected:
            compare(f"{self.folder}/{self.name}: {name}", outputs[name], self.arrays[name], *self.tolerance(name))

    def tolerance(self, output: str) -> tuple[float, float]:
        """Return (rtol, atol) of one output: the case's tolerance, or its override for that output.

        Overrides stand beside rtol/atol, under 'overrides' or 'per_array', or in the case's 'tolerance_overrides'; their keys are names,
        wildcards or comma-separated lists, their values {"rtol": .., "atol": ..} or words ("rtol 1e-3, atol 1e-4", "exact").
        """
        tolerance = self.spec["tolerance"]
        rtol, atol = float(tolerance.get("rtol", 0)), float(tolerance.get("atol", 0))
        for table in (tolerance, tolerance.get("overrides", {}), tolerance.get("per_array", {}), self.spec.get("tolerance_overrides", {})):
            for names, rule in table.items():
                if any(fnmatchcase(output, name.strip()) for name in names.split(",")):
                    return _parse_tolerance(rule, rtol, atol)
        return rtol, atol


@dataclass(frozen=True)
class AlmostEverywhere:
    """An output of which the case's JSON allows, in words, a share of values to differ by more than the tolerance.

    share   largest share of values that may differ (0.001 for "at most 0.1 %")
    by      largest difference of those values
    within  difference up to which values count as equal; None: the case's tolerance
    """

    value: Any
    share: float
    by: float
    within: float | None = None


def compare(label: str, value: Any, published: np.ndarray, rtol: float, atol: float) -> None:
    """Assert that `value` equals `published` within the tolerance."""
    share, by, within = 0.0, 0.0, None
    if isinstance(value, AlmostEverywhere):
        share, by, within, value = value.share, value.by, value.within, value.value
    value = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    assert value.shape == published.shape, f"{label}: shape {value.shape}, published {published.shape}"
    if share and published.size:
        difference = np.abs(value.astype(np.float64) - published.astype(np.float64))
        beyond = difference > (atol + rtol * np.abs(published.astype(np.float64)) if within is None else within)
        assert beyond.mean() <= share, f"{label}: {beyond.mean():.2%} of the values differ, {share:.2%} may"
        assert difference.max() <= by, f"{label}: largest difference {difference.max()}, allowed {by}"
        return
    np.testing.assert_allclose(value, published, rtol=rtol, atol=atol, err_msg=label)


def _parse_tolerance(rule: Any, rtol: float, atol: float) -> tuple[float, float]:
    if isinstance(rule, Mapping):
        return float(rule.get("rtol", rtol)), float(rule.get("atol", atol))
    if rule == "exact":
        return 0.0, 0.0
    numbers = dict(re.findall(r"(rtol|atol) ([0-9.e+-]+[0-9])", str(rule)))
    return float(numbers.get("rtol", rtol)), float(numbers.get("atol", atol))


def find_cases(folder: Path) -> list[Case]:
    """Return the cases under `folder`/<method>/<case>.json, sorted; raises if there are none."""
    paths = sorted(path for path in folder.glob("*/*.json"))
    if not paths:
        raise FileNotFoundError(f"no golden cases under {folder}: set RSDIFF_GOLDENS to a folder of <method>/<case>.json files.")
    return [Case(path) for path in paths]
