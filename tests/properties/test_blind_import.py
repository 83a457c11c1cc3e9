"""Lightning checkpoints of DiffBSR, its ablations and BlindSRSNF: what is written is read back, anything else is refused."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from rsdiff.config import config_from_mapping
from rsdiff.foreign import UnsafeFileError
from rsdiff.methods import METHODS
from rsdiff.methods.base import Problem
from rsdiff.weights import export_weights, import_weights
from rsdiff.weights.lightning import read_settings
from tests.unit.test_blind_methods import CONTRAST, KINDS, TINY

RGB = Problem(4, 3, 3)


def config_of(kind: str) -> Any:
    return config_from_mapping(METHODS[kind], {"contrast": CONTRAST, **TINY[kind]}, "model")


def written(kind: str, config: Any | None = None) -> tuple[Any, dict[str, Tensor], dict[str, Tensor]]:
    """Return (config, our state, published state) of a method with random weights."""
    config = config or config_of(kind)
    torch.manual_seed(0)
    ours = config.build(RGB).state_dict()
    return config, ours, export_weights(kind, config, ours)


def assert_equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[key]) for key, value in first.items())


@pytest.mark.parametrize("kind", KINDS)
def test_a_method_survives_export_and_import(kind: str) -> None:
    config, ours, published = written(kind)
    found, imported = import_weights(kind, {"state_dict": published}, config)
    assert found == config
    assert_equal(imported, ours)
    assert_equal(export_weights(kind, config, imported), published)


@pytest.mark.parametrize("kind", KINDS)
def test_sizes_are_told_by_the_file_alone(kind: str) -> None:
    config, ours, published = written(kind)
    bare = {key: value for key, value in published.items() if not key.startswith("diffusion.") or "rrdb" in key}
    found, imported = import_weights(kind, {"state_dict": bare})
    assert (found.restorer.width, found.unet.width, found.unet.multipliers) == (
        config.restorer.width,
        config.unet.width,
        config.unet.multipliers,
    )
    assert found.contrast.queue_size == config.contrast.queue_size
    assert {key: value.shape for key, value in found.build(RGB).state_dict().items()} == {key: v.shape for key, v in imported.items()}
    assert_equal(imported, ours)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", ["missing", "unknown", "shape"])
def test_a_file_that_does_not_fit_exactly_is_refused(kind: str, damage: str) -> None:
    config, _, published = written(kind)
    key = "E.encoder_k.mlp.2.weight"
    if damage == "missing":
        del published[key]
    elif damage == "unknown":
        published["E.further"] = torch.zeros(1)
    else:
        published[key] = torch.zeros(3, 3)
    with pytest.raises(ValueError, match="further" if damage == "unknown" else "encoder_k.mlp.2.weight"):
        import_weights(kind, {"state_dict": published}, config)


def test_a_u_net_copy_that_differs_is_refused() -> None:
    config, _, published = written("diffbsr")
    published["diffusion.denoise_fn.downs.0.bias"] = published["diffusion.denoise_fn.downs.0.bias"] + 1
    with pytest.raises(ValueError, match="damaged"):
        import_weights("diffbsr", {"state_dict": published}, config)


def test_an_enlargement_whose_copies_differ_is_refused() -> None:
    config, _, published = written("diffbsr")
    published["encoder.GAB_UP.upsampling.3.bias"] = published["encoder.GAB_UP.upsampling.3.bias"] + 1
    with pytest.raises(ValueError, match="differs from stage 0"):
        import_weights("diffbsr", {"state_dict": published}, config)


@pytest.mark.parametrize("kind", ["diffbsr", "blindsrsnf"])
def test_a_schedule_that_is_not_the_configs_is_refused(kind: str) -> None:
    config, _, published = written(kind)
    published["diffusion.betas"] = published["diffusion.betas"] * 1.1
    with pytest.raises(ValueError, match=r"diffusion\.betas"):
        import_weights(kind, {"state_dict": published}, config)


def test_blindsrsnf_takes_the_average_of_the_u_net_and_diffbsr_does_not() -> None:
    for kind, takes_average in (("blindsrsnf", True), ("diffbsr", False)):
        config, ours, published = written(kind)
        for key in list(published):
            if key.startswith("ema."):
                published[key] = published[key] + 1
        _, imported = import_weights(kind, {"state_dict": published}, config)
        assert torch.equal(imported["unet.conv_out.bias"], ours["unet.conv_out.bias"] + (1 if takes_average else 0))


def test_convolutions_that_are_never_applied_are_kept_or_left_out_as_the_config_says() -> None:
    kept = config_from_mapping(METHODS["diffbsr"], {"contrast": CONTRAST, **TINY["diffbsr"]}, "model")
    unet = {**TINY["diffbsr"]["unet"], "keep_unused": True}
    full = config_from_mapping(METHODS["diffbsr"], {"contrast": CONTRAST, **TINY["diffbsr"], "unet": unet}, "model")
    _, ours, published = written("diffbsr", full)
    found, imported = import_weights("diffbsr", {"state_dict": published})
    assert found.unet.keep_unused
    assert_equal(imported, ours)
    _, without = import_weights("diffbsr", {"state_dict": published}, kept)
    assert without.keys() == {key for key in ours if ".unused." not in key}


def settings_of(kind: str) -> dict[str, Any]:
    """Return settings as the released code stores them, of the tiny networks."""
    unet = {"norm_groups": 4, "dropout": 0.1 if kind == "diffbsr" else 0, "inner_channel": 8, "channel_mults": [1, 2], "res_blocks": 1}
    encoder = {"rla_mode": "CA-SA", "bla_mode": "CA-SA", "ga_mode": "CA-SA", "pool_mode": "Avg|Max", "addconv": True}
    schedule = {"schedule": "linear_cosine", "n_timestep": 20, "linear_start": 1e-6, "linear_end": 0.01}
    return {
        "trainer": {"max_epochs": 400},
        "lit_model": {
            "args": {
                "contrast_loss_weight": 0.07,
                "encoder": {"name": "x", "args": encoder},
                "diffusion_model": {"name": "y", "args": unet},
                **({"beta_schedule": schedule} if kind == "diffbsr" else {"diffusion": {"beta_type": "cosine", "n_timestep": 1000}}),
            }
        },
    }


@contextmanager
def easydict() -> Iterator[type]:
    """A module `easydict` as the released code imports it, for the time of writing only."""
    module = types.ModuleType("easydict")

    class EasyDict(dict):  # type: ignore[type-arg]
        def __init__(self, values: dict[str, Any] | None = None) -> None:
            super().__init__()
            for key, value in (values or {}).items():
                wrapped = EasyDict(value) if isinstance(value, dict) else value
                setattr(self, key, wrapped)
                self[key] = wrapped

    EasyDict.__module__, EasyDict.__qualname__ = "easydict", "EasyDict"
    module.EasyDict = EasyDict  # type: ignore[attr-defined]
    sys.modules["easydict"] = module
    try:
        yield EasyDict
    finally:
        del sys.modules["easydict"]


@pytest.mark.parametrize("kind", ["diffbsr", "blindsrsnf"])
@pytest.mark.parametrize("place", ["checkpoint", "yaml"])
def test_settings_are_read_from_easydicts_without_importing_them(kind: str, place: str, tmp_path: Path) -> None:
    _, ours, published = written(kind)
    path = tmp_path / "version_0" / "checkpoints" / "epoch=399-step=799999.ckpt"
    path.parent.mkdir(parents=True)
    content: dict[str, Any] = {"epoch": 399, "state_dict": published, "pytorch-lightning_version": "1.5.5"}
    with easydict() as EasyDict:
        stored = {key: EasyDict(value) for key, value in settings_of(kind).items()}
        if place == "checkpoint":
            content["hyper_parameters"] = stored
        else:
            (path.parent.parent / "hparams.yaml").write_text(yaml.dump(stored))
        torch.save(content, path)
    assert "easydict" not in sys.modules
    config, imported = import_weights(kind, path)
    assert config.contrast.weight == 0.07
    assert config.unet.norm_groups == 4
    if kind == "diffbsr":
        assert config.unet.dropout == 0.1
    assert_equal(imported, ours)


def test_yaml_that_would_execute_something_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "hparams.yaml"
    path.write_text("a: !!python/object/apply:os.system ['touch stolen']\n")
    with pytest.raises(UnsafeFileError, match="was not read"):
        read_settings(path)
    assert not (tmp_path / "stolen").exists()
