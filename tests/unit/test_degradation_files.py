"""Every file of conf/degradation composes into a valid config; the figures of the published ones."""

import functools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from rsdiff.config import config_from_mapping, default_values
from rsdiff.degradations import DEGRADATIONS, DegradationGrid, GaussianDegradation, GaussianDegradationConfig, named_cases

CONF = Path(__file__).parents[2] / "conf"
FILES = sorted(path.stem for path in (CONF / "degradation").glob("*.yaml"))


@pytest.fixture(autouse=True, scope="module")
def hydra() -> Iterator[None]:
    store = ConfigStore.instance()
    for kind, cls in DEGRADATIONS.items():
        store.store(name=kind, group="schema/degradation", node={"kind": kind, **default_values(cls)})
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


@functools.cache
def composed(name: str, *overrides: str) -> Any:
    settings = compose(overrides=[f"+degradation={name}", "+scale=4", *overrides])
    values = dict(OmegaConf.to_container(settings, resolve=True)["degradation"])
    return config_from_mapping(DEGRADATIONS[values.pop("kind")], values, "degradation")


@pytest.mark.parametrize("name", FILES)
def test_every_shipped_degradation_composes_and_builds(name: str) -> None:
    assert named_cases(composed(name).build())


def test_a_number_fixes_the_noise_and_a_list_draws_it() -> None:
    assert composed("aniso", "degradation.noise=15").noise == 15
    assert composed("iso", "degradation.noise=[5,10]").noise == (5, 10)


def test_the_released_blindsrsnf_and_diffbsr_angles_cover_one_degree_only() -> None:
    for name in ("blindsrsnf_aniso", "diffbsr_aniso"):
        assert composed(name).angle == (0.0, pytest.approx(math.radians(1)))


def test_dcls_widths_end_at_the_scale() -> None:
    assert [composed("dcls_setting1", f"scale={scale}").width for scale in (2, 3, 4)] == [(0.2, 2.0), (0.2, 3.0), (0.2, 4.0)]


def test_setting_2_has_the_released_kernel_sizes_and_disturbance() -> None:
    sizes = {name: composed(name).kernel_size for name in ("dan_setting2_x2", "dan_setting2_x4", "dcls_setting2_x2", "dcls_setting2_x4")}
    assert sizes == {"dan_setting2_x2": 11, "dan_setting2_x4": 31, "dcls_setting2_x2": 11, "dcls_setting2_x4": 31}
    assert composed("dcls_setting2_x4").disturbance == 0.25


def test_the_test_grids_have_the_published_number_of_cases() -> None:
    built = {name: composed(name).build() for name in FILES}
    counts = {name: len(named_cases(grid)) for name, grid in built.items() if isinstance(grid, DegradationGrid)}
    assert counts == {
        "blindsrsnf_aniso_test": 12,
        "blindsrsnf_iso_test": 5,
        "dasr_widths_x2": 4,
        "dasr_widths_x3": 4,
        "dasr_widths_x4": 4,
        "diffbsr_test": 7,
        "gaussian8_x2": 8,
        "gaussian8_x3": 8,
        "gaussian8_x4": 8,
    }


def test_gaussian8_widths_are_evenly_spaced_over_the_published_ranges() -> None:
    for scale, (low, high) in {2: (0.8, 1.6), 3: (1.35, 2.4), 4: (1.8, 3.2)}.items():
        widths = [case.width for case in composed(f"gaussian8_x{scale}").cases]
        assert widths == pytest.approx([low + (high - low) * i / 7 for i in range(8)], abs=1e-5)


def test_published_variants_use_the_resizing_of_their_family() -> None:
    gaussians = {name: composed(name) for name in FILES if isinstance(composed(name).build(), GaussianDegradation)}
    for name, settings in gaussians.items():
        assert isinstance(settings, GaussianDegradationConfig)
        family_b = name.startswith(("dan_", "dcls_", "blinddiff_", "diffbsr_dan_"))
        assert settings.resize == ("matlab" if family_b else "clamped"), name
