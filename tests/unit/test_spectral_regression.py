"""MST++, MST-L, HSCNN+ and AWAN: laws of their networks and loss, import, ensembles, and the options of data that they brought."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rsdiff.data.paired import PairedDataset
from rsdiff.data.source import Window
from rsdiff.data.views import SampleKey, TrainingSamples
from rsdiff.diffusion.noise import SeededNoise
from rsdiff.diffusion.sampler import SamplerConfig
from rsdiff.inference.images import combined, restore
from rsdiff.losses.images import relative_error
from rsdiff.methods.base import Method, Problem
from rsdiff.methods.regression import AWANConfig, HSCNNPlusConfig, MSTLConfig, MSTPlusPlusConfig, RegressionMethodConfig
from rsdiff.networks.awan import SecondOrderAttention
from rsdiff.weights.importer import export_weights, import_weights
from tests.method_losses import losses_of
from tests.unit.test_spectral_methods import batch_of, noise_of

PROBLEM = Problem(scale=1, bands=12, lr_bands=4)
TINY: dict[str, RegressionMethodConfig] = {
    "mstpp": MSTPlusPlusConfig(stages=2, blocks=(1, 2, 1)),
    "mst_l": MSTLConfig(blocks=(1, 1)),
    "hscnn_plus": HSCNNPlusConfig(blocks=2),
    "awan": AWANConfig(width=16, blocks=2),
}
each = pytest.mark.parametrize("kind", TINY)


def build(kind: str, **changes: int) -> Method:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = TINY[kind]
        return type(config)(**{**config.__dict__, **changes}).build(PROBLEM).eval()


def restored(method: Method, lr: torch.Tensor) -> torch.Tensor:
    batch = batch_of(torch.rand(len(lr), 12, *lr.shape[-2:]), lr)
    return restore(method, batch, SamplerConfig(), SeededNoise([(0, i) for i in range(len(lr))]))


@each
def test_an_image_of_any_size_is_restored_alike_alone_and_in_a_batch(kind: str) -> None:
    method, lr = build(kind), torch.rand(2, 4, 11, 9)
    together = restored(method, lr)
    assert together.shape == (2, 12, 11, 9)
    torch.testing.assert_close(together[1:], restored(method, lr[1:]), rtol=1e-4, atol=1e-5)


def test_the_mask_of_the_first_image_serves_the_batch_only_if_asked_for() -> None:
    method, lr = build("mst_l", mask_of_first=True), torch.rand(2, 4, 8, 8)
    assert not torch.allclose(restored(method, lr)[1:], restored(method, lr[1:]), atol=1e-4)
    torch.testing.assert_close(restored(method, lr)[:1], restored(method, lr[:1]), rtol=1e-4, atol=1e-5)


@each
def test_weights_survive_export_and_import_and_tell_their_config(kind: str) -> None:
    method = build(kind)
    published = export_weights(kind, TINY[kind], method.state_dict())
    wrapped = {"epoch": 3, "state_dict": {f"module.{key}": value for key, value in published.items()}}
    made, state = import_weights(kind, wrapped)
    assert made == TINY[kind]
    assert all(torch.equal(state[key], value) for key, value in method.state_dict().items())
    with pytest.raises(ValueError, match="lacks"):
        import_weights(kind, dict(itertools.islice(published.items(), len(published) - 1)), TINY[kind])


@pytest.mark.parametrize("kind", ["mstpp", "mst_l"])
def test_a_width_of_its_own_makes_the_network_independent_of_the_bands(kind: str) -> None:
    method = build(kind, width=5)
    inner = sum(p.numel() for name, p in method.named_parameters() if not name.startswith("network.leave"))
    many = type(TINY[kind])(**{**TINY[kind].__dict__, "width": 5}).build(Problem(scale=1, bands=100, lr_bands=4))
    assert inner == sum(p.numel() for name, p in many.named_parameters() if not name.startswith("network.leave"))
    made, _ = import_weights(kind, export_weights(kind, TINY[kind], method.state_dict()))
    assert made.width == 5


@each
def test_what_a_network_cannot_do_is_refused(kind: str) -> None:
    config = TINY[kind]
    assert config.refuse(PROBLEM) is None
    assert "scale=1" in str(config.refuse(Problem(scale=4, bands=12, lr_bands=12)))
    method = build(kind)
    odd = batch_of(torch.rand(1, 12, 10, 10) + 0.1, torch.rand(1, 4, 10, 10))
    if method.pixel_multiple() > 1:
        with pytest.raises(ValueError, match="multiple of 8"):
            losses_of(method, odd, noise_of("a"))
    else:
        assert bool(losses_of(method, odd, noise_of("a")).total > 0)
    if kind == "awan":
        assert "at least 8" in str(config.refuse(Problem(scale=1, bands=7, lr_bands=3)))


def test_second_order_attention_starts_as_the_identity_and_mixes_pixels_wherever_they_lie() -> None:
    layer, x = SecondOrderAttention(16), torch.rand(1, 16, 4, 5)
    assert torch.equal(layer(x), x)
    torch.nn.init.normal_(layer.out.weight)
    order = torch.randperm(20)
    shuffled = x.flatten(2)[..., order].unflatten(2, (4, 5))
    torch.testing.assert_close(layer(shuffled).flatten(2), layer(x).flatten(2)[..., order])


def test_relative_error_ignores_the_unit_and_a_floor_bounds_the_weight_of_dark_values() -> None:
    estimate, target = torch.rand(1, 5, 4, 4) + 0.1, torch.rand(1, 5, 4, 4) + 0.1
    torch.testing.assert_close(relative_error(7 * estimate, 7 * target), relative_error(estimate, target))
    target[0, 0, 0, 0] = 0
    assert not torch.isfinite(relative_error(estimate, target))
    assert float(relative_error(estimate, target, 0.1)) <= float((estimate - target).abs().mean()) / 0.1


@pytest.mark.parametrize("rule", ["mean", "median"])
def test_an_ensemble_of_a_map_of_pixels_is_the_map_itself(rule: str) -> None:
    batch = batch_of(torch.rand(2, 3, 6, 9), torch.rand(2, 3, 6, 9))
    together = combined(lambda variant, _: 2 * variant.need("lr"), batch, rule)  # type: ignore[arg-type]
    torch.testing.assert_close(together, 2 * batch.need("lr"))


def test_the_median_of_an_ensemble_is_its_fourth_smallest_value() -> None:
    batch = batch_of(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4))
    values: Callable[..., torch.Tensor] = lambda variant, number: variant.need("lr") + number  # noqa: E731
    assert float(combined(values, batch, "median").max()) == 3


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for folder in ("HR", "LR"):
        (tmp_path / folder).mkdir()
        for name in ("a", "b"):
            Image.fromarray(generator.integers(40, 90, (48, 40, 3), dtype=np.uint8)).save(tmp_path / folder / f"{name}.png")
    return tmp_path


def test_stretched_images_fill_the_range_and_windows_of_them_agree(pairs: Path) -> None:
    source = PairedDataset(root=str(pairs), split="all", stretch_lr=True).build("train", 1)
    whole = source.read(0).lr
    assert whole is not None
    assert (float(whole.min()), float(whole.max())) == (0, 1)
    part = source.read(0, Window(8, 4, 16, 16)).lr
    assert part is not None
    assert torch.equal(part, whole[:, 8:24, 4:20])
    plain = PairedDataset(root=str(pairs), split="all").build("train", 1)
    assert torch.equal(plain.read(0).hr, source.read(0).hr)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="stretch_lr"):
        PairedDataset(root=str(pairs), lr_folder="", stretch_lr=True)


def test_crops_begin_at_multiples_of_the_step(pairs: Path) -> None:
    source = PairedDataset(root=str(pairs), split="all").build("train", 1)
    whole = [source.read(index).hr for index in range(2)]
    samples = TrainingSamples(source, 1, 16, 0, None, augment=False, crop_step=8)
    places = set()
    for epoch in range(40):
        sample = samples[SampleKey(epoch, epoch % 2, epoch)]
        corner = itertools.product(range(33), range(25))
        image = whole[epoch % 2]
        assert sample.hr is not None
        assert image is not None
        places.add(next((r, c) for r, c in corner if torch.equal(image[:, r : r + 16, c : c + 16], sample.hr)))
    assert all(row % 8 == 0 and column % 8 == 0 for row, column in places)
    assert len(places) > 8
