"""SR3 as a method: sizes, batches, gradients, refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from rsdiff.config import ConfigError, config_from_mapping, default_values
from rsdiff.data.sample import Batch, SampleMeta
from rsdiff.diffusion.noise import SeededNoise
from rsdiff.diffusion.sampler import SamplerConfig
from rsdiff.methods import METHODS
from rsdiff.methods.base import Problem
from rsdiff.methods.sr3 import SR3, SR3Config, enlarge
from rsdiff.networks.layers import reflect_to
from tests.method_losses import losses_of

TINY: dict[str, Any] = {"width": 8, "multipliers": (1, 2), "blocks": 1, "norm_groups": 4, "nominal_size": 16, "attention_sizes": (8,)}
FEW_STEPS = SamplerConfig(solver="ddim", eta=1.0, steps=3, clip=True)


def tiny(bands: int = 3, lr_bands: int | None = None, **options: Any) -> SR3:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SR3Config(**{**TINY, **options}).build(Problem(2, bands, bands if lr_bands is None else lr_bands)).eval()


def batch(count: int, size: tuple[int, int] = (16, 16), bands: int = 3, lr_bands: int | None = None) -> Batch:
    generator = torch.Generator().manual_seed(1)
    hr = torch.rand(count, bands, *size, generator=generator)
    lr = torch.rand(count, bands if lr_bands is None else lr_bands, -(-size[0] // 2), -(-size[1] // 2), generator=generator)
    return Batch([SampleMeta(str(i)) for i in range(count)], size, (lr.shape[-2], lr.shape[-1]), hr=hr, lr=lr)


def noise(count: int, first: int = 0) -> SeededNoise:
    return SeededNoise([("test", first + i) for i in range(count)])


def pick(whole: Batch, index: int) -> Batch:
    assert whole.hr is not None
    assert whole.lr is not None
    only = slice(index, index + 1)
    return Batch(whole.metas[only], whole.size, whole.lr_size, hr=whole.hr[only], lr=whole.lr[only])


@pytest.mark.parametrize("time", ["continuous", "discrete"])
def test_an_image_is_restored_alike_alone_and_in_a_batch(time: str) -> None:
    method, whole = tiny(time=time), batch(3)
    together = method.restore(whole, FEW_STEPS, noise(3))
    for index in range(3):
        alone = method.restore(pick(whole, index), FEW_STEPS, noise(1, index))
        torch.testing.assert_close(alone[0], together[index], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(16, 16), (15, 18), (5, 3), (1, 1)])
def test_any_size_is_restored(size: tuple[int, int]) -> None:
    method = tiny(multipliers=(1, 1, 2))
    restored = method.restore(batch(1, size), FEW_STEPS, noise(1))
    assert restored.shape == (1, 3, *size)
    assert restored.dtype == torch.float32
    assert restored.isfinite().all()


@pytest.mark.parametrize(("bands", "lr_bands"), [(1, 1), (4, 4), (12, 3), (1, 5)])
def test_bands_are_free(bands: int, lr_bands: int) -> None:
    method, given = tiny(bands, lr_bands), batch(1, bands=bands, lr_bands=lr_bands)
    assert method.restore(given, FEW_STEPS, noise(1)).shape == (1, bands, 16, 16)
    assert losses_of(method, given, noise(1)).total.isfinite()


@pytest.mark.parametrize("time", ["continuous", "discrete"])
@pytest.mark.parametrize("steps_drawn", ["batch", "image"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_every_parameter_gets_a_gradient(time: str, steps_drawn: str, checkpointing: bool) -> None:
    method = tiny(time=time, steps_drawn=steps_drawn, checkpointing=checkpointing).train()
    losses_of(method, batch(2), noise(2)).total.backward()
    without = [name for name, parameter in method.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert not without


def test_recomputing_activations_changes_no_gradient() -> None:
    gradients = []
    for checkpointing in (False, True):
        method = tiny(checkpointing=checkpointing, dropout=0.0).train()
        losses_of(method, batch(2), noise(2)).total.backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in method.parameters() if parameter.grad is not None]))
    torch.testing.assert_close(gradients[0], gradients[1])


def test_a_batch_shares_its_step_and_images_can_draw_their_own() -> None:
    hr = torch.zeros(16, 3, 4, 4)
    shared = tiny(time="discrete").noised(hr, noise(16)).time
    assert len(shared.unique()) == 1
    assert len(tiny(time="discrete", steps_drawn="image").noised(hr, noise(16)).time.unique()) > 1


def test_level_lies_between_the_neighbours_of_its_step() -> None:
    method = tiny(steps_drawn="image")
    level = method.noised(torch.zeros(64, 1, 1, 1), noise(64)).time
    signal = method.schedule.signal_levels
    assert level.min() >= signal[-1].float()
    assert level.max() <= 1


def test_generation_needs_no_lr() -> None:
    method = tiny(condition="none")
    given = batch(2)
    given.lr = None
    assert method.options.requires == {"hr"}
    assert method.restore(given, FEW_STEPS, noise(2)).shape == (2, 3, 16, 16)
    assert losses_of(method, given, noise(2)).total.isfinite()


def test_eight_bit_condition_is_eight_bit() -> None:
    levels = (enlarge(torch.rand(1, 3, 4, 4), (8, 8), "pillow_8bit") + 1) / 2 * 255
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-4)


def test_training_patches_that_cannot_be_halved_are_refused() -> None:
    with pytest.raises(ValueError, match=r"choose trainer\.patch as a multiple of 2"):
        losses_of(tiny(), batch(1, (15, 16)), noise(1))


@pytest.mark.parametrize(
    "options",
    [{"width": 7}, {"multipliers": []}, {"norm_groups": 3}, {"dropout": 1.0}, {"nominal_size": 8}, {"blocks": 0}, {"condition": "lanczos"}],
)
def test_impossible_options_are_refused_in_one_sentence(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as refused:
        config_from_mapping(SR3Config, {**default_values(SR3Config), **options}, "model")
    assert str(refused.value).startswith("model")
    assert "\n" not in str(refused.value)


def test_restored_image_does_not_depend_on_channels_last() -> None:
    method, given = tiny(), batch(1)
    plain = method.restore(given, FEW_STEPS, noise(1))
    method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    torch.testing.assert_close(method.restore(given, FEW_STEPS, noise(1)), plain, rtol=1e-4, atol=1e-5)


def test_extension_by_reflection_is_that_of_torch_and_goes_further() -> None:
    image = torch.arange(12.0).view(1, 1, 3, 4)
    torch.testing.assert_close(reflect_to(image, 5, 7), F.pad(image, (0, 3, 0, 2), mode="reflect"))
    assert reflect_to(image[..., :1, :2], 3, 5).flatten().tolist() == [0, 1, 0, 1, 0] * 3


def test_bicubic_keeps_constants_and_refuses_other_bands() -> None:
    config = METHODS["bicubic"]()
    method = config.build(Problem(2, 3, 3))
    given = batch(2)
    given.lr = torch.full((2, 3, 8, 8), 0.3)
    torch.testing.assert_close(method.restore(given, FEW_STEPS, noise(2)), torch.full((2, 3, 16, 16), 0.3))
    assert config.refuse(Problem(2, 3, 3)) is None
    assert "trained" in config.refuse(Problem(2, 3, 1))
