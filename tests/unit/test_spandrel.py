"""Released networks of other projects through spandrel."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from spandrel.architectures.Compact.__arch.SRVGG import SRVGGNetCompact
from torch import nn

from rsdiff.diffusion.noise import ReplayNoise
from rsdiff.diffusion.sampler import SamplerConfig
from rsdiff.methods.base import Problem
from rsdiff.methods.regression import HATConfig, RRDBMethodConfig
from rsdiff.methods.restoring import HaloTilesConfig
from rsdiff.methods.spandrel import SpandrelConfig
from rsdiff.networks.rrdb import RRDBNetConfig
from rsdiff.weights import export_weights, import_weights
from tests.unit.test_rrdb import batch_of, method_of, problem

PLAIN = RRDBMethodConfig(network=RRDBNetConfig(width=8, blocks=1))  # spandrel takes every RRDBNet to have the published growth


@pytest.fixture
def esrgan_file(tmp_path: Path) -> Path:
    weights = export_weights("rrdb", PLAIN, method_of(PLAIN).state_dict())
    torch.save({"params_ema": weights}, tmp_path / "esrgan.pth")
    return tmp_path / "esrgan.pth"


def test_a_file_that_we_read_ourselves_restores_alike_through_spandrel(esrgan_file: Path) -> None:
    method = SpandrelConfig(weights=str(esrgan_file)).build(problem())
    batch = batch_of()
    ours = method_of(PLAIN).eval().restore(batch, SamplerConfig(), ReplayNoise([]))
    theirs = method.restore(batch, SamplerConfig(), ReplayNoise([]))
    torch.testing.assert_close(theirs, ours.clamp(0, 1), rtol=1e-4, atol=1e-5)
    assert not any(parameter.requires_grad for parameter in method.parameters())


def test_safetensors_are_read_too(esrgan_file: Path) -> None:
    content = torch.load(esrgan_file, weights_only=True)["params_ema"]
    save_file(content, esrgan_file.with_suffix(".safetensors"))
    first, second = (SpandrelConfig(weights=str(path)).build(problem()) for path in (esrgan_file, esrgan_file.with_suffix(".safetensors")))
    assert all(torch.equal(value, second.state_dict()[key]) for key, value in first.state_dict().items())


def test_tiles_bound_what_the_network_sees(esrgan_file: Path) -> None:
    method = SpandrelConfig(weights=str(esrgan_file), tiles=HaloTilesConfig(tile=8, halo=4)).build(problem())
    sizes: list[tuple[int, int]] = []
    method.network.register_forward_hook(lambda module, args, output: sizes.append(tuple(args[0].shape[-2:])))
    image = method.restore(batch_of(lr_size=(20, 24), count=1), SamplerConfig(), ReplayNoise([]))
    assert image.shape == (1, 3, 80, 96)
    assert max(max(size) for size in sizes) <= 16


def test_another_scale_or_number_of_bands_is_one_sentence(esrgan_file: Path) -> None:
    config = SpandrelConfig(weights=str(esrgan_file))
    with pytest.raises(ValueError, match="set scale=4"):
        config.build(problem(scale=2))
    with pytest.raises(ValueError, match="3 bands"):
        config.build(Problem(scale=4, bands=4, lr_bands=4))


def test_what_is_no_file_of_a_known_network_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="add checkpoint=FILE"):
        SpandrelConfig().build(problem())
    with pytest.raises(ValueError, match="is not a file"):
        SpandrelConfig(weights=str(tmp_path / "none.pth")).build(problem())
    torch.save({"layer.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="no network that this version of spandrel knows"):
        SpandrelConfig(weights=str(tmp_path / "other.pth")).build(problem())
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(ValueError, match=r"text\.pth was not read"):
        SpandrelConfig(weights=str(tmp_path / "text.pth")).build(problem())
    torch.save({"network": nn.Conv2d(1, 1, 1)}, tmp_path / "object.pth")
    with pytest.raises(ValueError, match="no network that this version of spandrel knows"):
        SpandrelConfig(weights=str(tmp_path / "object.pth")).build(problem())


def test_what_a_training_stores_beside_the_weights_is_no_hindrance(esrgan_file: Path, tmp_path: Path) -> None:
    content = torch.load(esrgan_file, weights_only=True)
    torch.save({**content, "args": argparse.Namespace(lr=1e-4), "epoch": 3}, tmp_path / "with_args.pth")
    theirs = SpandrelConfig(weights=str(tmp_path / "with_args.pth")).build(problem()).state_dict()
    _, ours = import_weights("rrdb", tmp_path / "with_args.pth")
    assert len(theirs) == len(ours) == len(content["params_ema"])


def test_an_import_as_the_wrong_model_says_whose_file_it_is(tmp_path: Path) -> None:
    network = SRVGGNetCompact(num_feat=16, num_conv=2, upscale=4)
    torch.save({"params": network.state_dict()}, tmp_path / "compact.pth")
    with pytest.raises(ValueError, match=r"spandrel knows it as .*: model=spandrel checkpoint=.*compact.pth runs it as it is"):
        import_weights("esrgan", tmp_path / "compact.pth")
    hat = HATConfig(width=16, blocks=(1,), heads=(2,), window=4, squeeze=4, head_width=8)
    torch.save(export_weights("hat", hat, hat.build(problem()).state_dict()), tmp_path / "hat.pth")
    with pytest.raises(ValueError, match="weights of the kind hat"):
        import_weights("rrdb", tmp_path / "hat.pth")


def test_runs_are_told_apart_by_the_content_of_the_file(esrgan_file: Path) -> None:
    assert SpandrelConfig(weights=str(esrgan_file)).files == [esrgan_file]
    assert SpandrelConfig(weights=str(esrgan_file)).is_ready
