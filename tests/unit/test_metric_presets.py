"""Every file of conf/metrics composes into a checked config whose protocol carries the file's name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from rsdiff.app.schemas import register_schemas
from rsdiff.config import config_from_mapping
from rsdiff.metrics import MetricsConfig

CONF = Path(__file__).resolve().parents[2] / "conf"
PRESETS = sorted(path.stem for path in (CONF / "metrics").glob("*.yaml"))


@pytest.mark.parametrize("preset", PRESETS)
def test_preset_composes_and_names_its_protocol(preset: str) -> None:
    register_schemas()
    with initialize_config_dir(str(CONF), version_base=None):
        composed = compose(overrides=[f"+metrics={preset}"])
    values: Any = OmegaConf.to_container(composed.metrics, resolve=True)
    assert values.pop("kind") == "metrics"
    config = config_from_mapping(MetricsConfig, values, "metrics")
    assert config.protocol.name == ("litsr" if preset in ("standard", "proof") else preset)  # more metrics under its protocol
