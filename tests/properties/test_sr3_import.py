"""Released checkpoints of SR3: whatever is written is found, understood and loaded, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rsdiff.diffusion.schedules import ScheduleConfig
from rsdiff.methods.base import Problem
from rsdiff.methods.sr3 import SR3Config
from rsdiff.networks.diffusion_unet import attention_levels, nominal_sizes
from rsdiff.weights import export_weights, import_weights

TINY = SR3Config(width=8, multipliers=(1, 2, 2), blocks=1, norm_groups=4, nominal_size=16, attention_sizes=(8,))


def weights_of(config: SR3Config, bands: int = 3, lr_bands: int = 3) -> dict[str, Tensor]:
    with torch.device("meta"):
        conditions = 0 if config.condition == "none" else lr_bands
        shapes = {name: value.shape for name, value in config.build_network(conditions + bands, bands).state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    return {f"network.{name}": torch.rand(shape, generator=generator) for name, shape in shapes.items()}


def assert_equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


@st.composite
def configs(draw: st.DrawFn) -> SR3Config:
    levels = draw(st.integers(1, 4))
    time = draw(st.sampled_from(["continuous", "discrete"]))
    schedule = draw(st.sampled_from(["linear", "quad", "const", "warmup10", "cosine"]))
    return SR3Config(
        time=time,
        width=draw(st.sampled_from([2, 4, 6])),
        multipliers=tuple(draw(st.lists(st.integers(1, 3), min_size=levels, max_size=levels))),
        blocks=draw(st.integers(1, 3)),
        norm_groups=2,
        nominal_size=draw(st.integers(8, 40)),
        attention_sizes=tuple(draw(st.lists(st.integers(1, 40), max_size=3))),
        condition=draw(st.sampled_from(["bicubic", "none"])),
        schedule=ScheduleConfig(name=schedule, steps=draw(st.integers(20, 60)), start=1e-4, end=draw(st.sampled_from([1e-3, 2e-2]))),
    )


@settings(max_examples=12, deadline=None)
@given(config=configs(), bands=st.integers(1, 4), lr_bands=st.integers(1, 4))
def test_a_network_is_rebuilt_from_its_file_alone(config: SR3Config, bands: int, lr_bands: int) -> None:
    weights = weights_of(config, bands, lr_bands)
    detected, imported = import_weights("sr3", export_weights("sr3", config, weights))
    assert_equal(imported, weights)
    assert (detected.time, detected.width, detected.multipliers, detected.blocks) == (
        config.time,
        config.width,
        config.multipliers,
        config.blocks,
    )
    assert detected.condition == config.condition
    assert torch.allclose(detected.schedule.build().betas, config.schedule.build().betas, rtol=1e-5)
    assert_equal(weights_of(detected, bands, lr_bands), weights)


@settings(max_examples=100, deadline=None)
@given(levels=st.integers(1, 6), size=st.integers(32, 600), sizes=st.lists(st.integers(1, 600), max_size=4))
def test_attention_levels_are_found_again_from_nominal_sizes(levels: int, size: int, sizes: list[int]) -> None:
    wanted = attention_levels(size, sizes, levels)
    assert attention_levels(*nominal_sizes(*wanted, levels), levels) == wanted


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"params": state, "params_ema": state},
        lambda state: {"model": {"state_dict": state}},
        lambda state: {f"module.{key}": tensor for key, tensor in state.items()},
        lambda state: {key.removeprefix("denoise_fn."): tensor for key, tensor in state.items()},
        lambda state: {key.removeprefix("denoise_fn."): tensor for key, tensor in state.items() if key.startswith("denoise_fn.")},
    ],
    ids=["plain", "state_dict", "ema", "nested", "parallel", "bare", "without buffers"],
)
@pytest.mark.parametrize("suffix", [".pth", ".ckpt"])
def test_wrappers_are_seen_through(wrap: Any, suffix: str, tmp_path: Path) -> None:
    weights = weights_of(TINY)
    torch.save(wrap(export_weights("sr3", TINY, weights)), tmp_path / f"weights{suffix}")
    config, imported = import_weights("sr3", tmp_path / f"weights{suffix}", TINY)
    assert config == TINY
    assert_equal(imported, weights)


def lightning(config: SR3Config, weights: dict[str, Tensor]) -> dict[str, Any]:
    """A file as BlindSRSNF's SR3 writes it: every weight twice, settings in hyper_parameters."""
    exported = export_weights("sr3", config, weights)
    twice = {f"netG.{key}": tensor for key, tensor in exported.items()}
    twice |= {key.replace("denoise_fn.", "model."): tensor for key, tensor in exported.items() if key.startswith("denoise_fn.")}
    arguments = {
        "in_channel": 6,
        "out_channel": 3,
        "inner_channel": config.width,
        "norm_groups": config.norm_groups,
        "channel_mults": list(config.multipliers),
        "attn_res": list(config.attention_sizes),
        "res_blocks": config.blocks,
        "dropout": config.dropout,
        "image_size": config.nominal_size,
    }
    return {"state_dict": twice, "hyper_parameters": {"opt": {"network": [{"args": arguments}]}}}


def test_lightning_file_brings_its_settings() -> None:
    weights = weights_of(TINY)
    config, imported = import_weights("sr3", lightning(TINY, weights))
    assert config == TINY
    assert_equal(imported, weights)


class Options(dict[str, Any]):
    """Stands for easydict.EasyDict, which the published trainer stores its settings in."""


def test_settings_are_found_in_objects_of_foreign_classes(tmp_path: Path) -> None:
    content = lightning(TINY, weights_of(TINY))
    network = content["hyper_parameters"]["opt"]["network"]
    content["hyper_parameters"]["opt"] = Options(network=[Options(args=Options(network[0]["args"]))])
    torch.save(content, tmp_path / "last.ckpt")
    config, _ = import_weights("sr3", tmp_path / "last.ckpt")
    assert config == TINY


def test_two_versions_that_differ_are_refused() -> None:
    content = lightning(TINY, weights_of(TINY))
    state = content["state_dict"]
    state["model.final_conv.block.3.weight"] = state["model.final_conv.block.3.weight"] + 1
    with pytest.raises(ValueError, match="two versions"):
        import_weights("sr3", content)


def test_exported_weights_load_into_the_method() -> None:
    with torch.random.fork_rng():
        first, second = (TINY.build(Problem(4, 3, 3)) for _ in range(2))
    _, imported = import_weights("sr3", export_weights("sr3", TINY, first.state_dict()), TINY)
    second.load_state_dict(imported)
    assert_equal(dict(second.state_dict()), dict(first.state_dict()))


def spoilt() -> dict[str, tuple[Any, str]]:
    def without(state: dict[str, Tensor]) -> None:
        del state["denoise_fn.mid.0.attn.qkv.weight"]

    def beside(state: dict[str, Tensor]) -> None:
        state["encoder.weight"] = torch.ones(1)

    def inside(state: dict[str, Tensor]) -> None:
        state["denoise_fn.condition_scale1.0.weight"] = torch.ones(1)

    def shape(state: dict[str, Tensor]) -> None:
        state["denoise_fn.mid.0.attn.out.bias"] = torch.ones(1)

    def schedule(state: dict[str, Tensor]) -> None:
        state["betas"] = state["betas"] * 1.1

    def stem(state: dict[str, Tensor]) -> None:
        del state["denoise_fn.downs.0.weight"]

    return {
        "a missing tensor": (without, "lacks 'mid.0.attn.qkv.weight'"),
        "a tensor beside the network": (beside, "'encoder.weight'"),
        "a tensor of another network": (inside, "holds 'condition_scale1.0.weight'"),
        "a wrong shape": (shape, "has shape"),
        "another schedule": (schedule, "schedule"),
        "no stem": (stem, "stem"),
    }


@pytest.mark.parametrize("what", spoilt())
@pytest.mark.parametrize("config", [None, TINY], ids=["inferred", "given"])
def test_files_that_do_not_fit_are_refused_in_one_sentence(what: str, config: SR3Config | None) -> None:
    spoil, message = spoilt()[what]
    state = export_weights("sr3", TINY, weights_of(TINY))
    spoil(state)
    with pytest.raises(ValueError, match=message) as refused:
        import_weights("sr3", state, config)
    assert "\n" not in str(refused.value)


def test_file_of_another_configuration_is_refused() -> None:
    other = SR3Config(width=8, multipliers=(1, 2), blocks=1, norm_groups=4)
    with pytest.raises(ValueError, match="configuration"):
        import_weights("sr3", export_weights("sr3", TINY, weights_of(TINY)), other)


def test_file_of_another_network_is_refused() -> None:
    with pytest.raises(ValueError, match="choose the model the file belongs to"):
        import_weights("sr3", {"state_dict": {"conv.weight": torch.ones(1)}})


def test_kind_without_importer_is_refused() -> None:
    with pytest.raises(ValueError, match="no importer for model kind 'bicubic'"):
        import_weights("bicubic", {})
