"""DiffBSR, its ablations and BlindSRSNF as methods: joint training, momentum contrast, sampling, sizes, refusals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from rsdiff.config import ConfigError, config_from_mapping
from rsdiff.data import FolderDataset
from rsdiff.data.ranges import to_signed_range
from rsdiff.data.sample import Batch, SampleMeta, collate
from rsdiff.data.views import TestSamples
from rsdiff.diffusion.noise import ReplayNoise, SeededNoise
from rsdiff.diffusion.sampler import SamplerConfig
from rsdiff.methods import METHODS
from rsdiff.methods.base import Problem
from rsdiff.methods.joint_blind import JointBlind, add_residual, residual
from rsdiff.networks.degradation_aware import ContrastConfig, DegradationAwareConv, MomentumContrast, contrastive_loss
from rsdiff.networks.rrdb import RRDBConfig, RRDBNet
from rsdiff.networks.srdsran import SRDSRAN, SRDSRANConfig
from tests.method_losses import losses_of

CONTRAST = {"width": 4, "queue_size": 8}
TINY: dict[str, dict[str, Any]] = {
    "diffbsr": {
        "restorer": {"width": 16, "groups": 1, "blocks": 1},
        "unet": {"width": 8, "multipliers": (1, 2), "blocks": 1, "norm_groups": 4},
    },
    "diffbsr_ddpm": {
        "restorer": {"width": 16, "groups": 1, "blocks": 1},
        "unet": {"width": 8, "multipliers": (1, 2), "blocks": 1, "norm_groups": 4},
        "schedule": {"name": "linear", "steps": 20, "start": 1e-4, "end": 0.3},
    },
    "diffbsr_srdiff": {
        "restorer": {"width": 8, "blocks": 1, "growth": 4},
        "unet": {"width": 8, "multipliers": (1, 2), "condition_width": 4, "condition_blocks": 2, "condition_growth": 4},
    },
    "blindsrsnf": {
        "restorer": {"width": 8, "blocks": 1, "growth": 4},
        "unet": {"width": 8, "multipliers": (1, 2), "blocks": 1, "norm_groups": 4},
    },
}
KINDS = tuple(TINY)
FEW_STEPS = SamplerConfig(solver="ddim", eta=1.0, steps=3, clip=True)


def tiny(kind: str, problem: Problem | None = None, **options: Any) -> JointBlind:
    values = {"contrast": CONTRAST, **TINY[kind], **options}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        method = config_from_mapping(METHODS[kind], values, "model").build(problem or Problem(4, 3, 3))
    assert isinstance(method, JointBlind)
    return method.eval()


def batch(count: int = 2, size: tuple[int, int] = (16, 16), scale: int = 4, bands: int = 3, lr_bands: int = 3) -> Batch:
    generator = torch.Generator().manual_seed(1)
    h, w = size[0] // scale, size[1] // scale
    hr = torch.rand(count, bands, *size, generator=generator)
    lr, views = torch.rand(count, lr_bands, h, w, generator=generator), torch.rand(count, 1, lr_bands, h, w, generator=generator)
    return Batch([SampleMeta(str(i)) for i in range(count)], size, (h, w), hr=hr, lr=lr, lr_views=views)


def noise(count: int, first: int = 0) -> SeededNoise:
    return SeededNoise([("test", first + i) for i in range(count)])


@pytest.mark.parametrize("kind", KINDS)
def test_every_trainable_parameter_gets_a_gradient_of_the_joint_loss(kind: str) -> None:
    method = tiny(kind).train()
    # The gains of SRDSRAN's global attention start at 0, which would hide its queries and keys.
    for name, parameter in method.named_parameters():
        if name.endswith("gamma"):
            torch.nn.init.ones_(parameter)
    losses_of(method, batch(), noise(2)).total.backward()
    without = {name for name, parameter in method.named_parameters() if parameter.requires_grad and parameter.grad is None}
    assert without == set()
    still = {name for name, parameter in method.named_parameters() if not parameter.requires_grad}
    allowed = ("contrast.key_encoder.", "condition.conv_up", "condition.conv_hr", "condition.conv_last")
    assert all(name.startswith(allowed) or ".norm2." in name for name in still)


@pytest.mark.parametrize("kind", KINDS)
def test_the_total_is_the_sum_of_its_terms(kind: str) -> None:
    losses = losses_of(tiny(kind).train(), batch(), noise(2))
    assert set(losses.terms) == {"contrast", "restorer", "diffusion"}
    assert torch.allclose(losses.total, torch.stack(list(losses.terms.values())).sum())


@pytest.mark.parametrize("kind", ["diffbsr", "blindsrsnf"])
def test_the_diffusion_loss_also_trains_restorer_and_encoder(kind: str) -> None:
    method = tiny(kind).train()
    given = batch()
    assert given.lr is not None
    assert given.hr is not None
    lr, hr = to_signed_range(given.lr), to_signed_range(given.hr)
    method.diffusion_loss(hr, method.estimate(lr), method.contrast.code(lr), noise(2)).backward()
    for network in (method.restorer, method.contrast.query_encoder.trunk):
        assert isinstance(network, torch.nn.Module)
        assert any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in network.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_a_result_does_not_depend_on_the_batch_it_was_in(kind: str) -> None:
    method, together = tiny(kind), batch(3)
    whole = method.restore(together, FEW_STEPS, noise(3))
    assert together.lr is not None
    alone = Batch([SampleMeta("1")], together.size, together.lr_size, lr=together.lr[1:2])
    assert torch.allclose(method.restore(alone, FEW_STEPS, noise(1, 1)), whole[1:2], atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("bands", "lr_bands"), [(4, 4), (12, 3), (1, 1)])
def test_any_number_of_bands_is_restored(kind: str, bands: int, lr_bands: int) -> None:
    method = tiny(kind, Problem(4, bands, lr_bands))
    image = method.restore(batch(1, bands=bands, lr_bands=lr_bands), FEW_STEPS, noise(1))
    assert image.shape == (1, bands, 16, 16)
    assert bool(image.isfinite().all())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("solver", ["ddpm", "ddim", "euler", "heun", "dpmpp_2m"])
def test_every_solver_runs_on_every_method(kind: str, solver: Any) -> None:
    image = tiny(kind).restore(batch(1), SamplerConfig(solver=solver, steps=5, clip=True), noise(1))
    assert bool(image.isfinite().all())


@pytest.mark.parametrize(("kind", "scale"), [("diffbsr", 2), ("diffbsr", 3), ("blindsrsnf", 2), ("blindsrsnf", 1), ("diffbsr_srdiff", 2)])
def test_other_scales_train_and_restore(kind: str, scale: int) -> None:
    method, given = tiny(kind, Problem(scale, 3, 3)), batch(2, (12, 24), scale)
    assert bool(losses_of(method.train(), given, noise(2)).total.isfinite())
    assert method.eval().restore(given, FEW_STEPS, noise(2)).shape == (2, 3, 12, 24)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [2.5, 5])
def test_a_scale_the_restorer_has_not_is_refused_in_one_sentence(kind: str, scale: float) -> None:
    reason = METHODS[kind]().refuse(Problem(scale, 3, 3))
    assert reason is not None
    assert f"{scale:g}" in reason
    assert "set scale" in reason


def test_a_target_of_another_scale_is_refused() -> None:
    given = batch(1)
    given.size = (20, 20)
    with pytest.raises(ValueError, match="targets are 16x16"):
        tiny("diffbsr").restore(given, FEW_STEPS, noise(1))


@pytest.mark.parametrize(("kind", "multiple"), [("diffbsr", 1), ("diffbsr_ddpm", 1), ("diffbsr_srdiff", 1), ("blindsrsnf", 1)])
def test_the_smallest_padding_that_the_networks_need_is_asked_for(kind: str, multiple: int) -> None:
    assert tiny(kind).pixel_multiple() == multiple
    if kind == "diffbsr":
        deep = {**TINY[kind]["unet"], "multipliers": (1, 2, 2, 2)}
        assert tiny(kind, unet=deep).pixel_multiple() == 2
        assert tiny(kind, Problem(2, 3, 3), unet=deep).pixel_multiple() == 4


def test_pretraining_leaves_the_diffusion_out_until_its_steps_are_over() -> None:
    method = tiny("diffbsr", pretrain_steps=5).train()
    first, joint = method.stages()
    assert (first.steps, joint.steps) == (5, None)
    assert set(losses_of(method, batch(), noise(2), stage=first).terms) == {"contrast", "restorer"}
    assert "diffusion" in losses_of(method, batch(), noise(2), stage=joint).terms


def test_a_batch_without_a_second_view_says_what_is_missing() -> None:
    given = batch()
    given.lr_views = None
    with pytest.raises(ValueError, match="lr_views"):
        losses_of(tiny("blindsrsnf").train(), given, noise(2))


def test_the_residual_maps_invert_each_other_where_nothing_is_clipped() -> None:
    base = torch.linspace(-1, 1, 12).reshape(1, 3, 2, 2)
    image = base + torch.linspace(-0.49, 0.49, 12).reshape(1, 3, 2, 2)
    assert torch.allclose(add_residual(residual(image, base), base), image, atol=1e-6)
    assert (add_residual(residual(base + 3, base), base) - base).max() == 0.5


def test_one_noise_level_per_image_lies_between_neighbouring_levels_of_one_step() -> None:
    method = tiny("diffbsr")
    seen: list[Tensor] = []
    unet = method.unet
    assert isinstance(unet, torch.nn.Module)

    def spy(x: Tensor, level: Tensor, code: Tensor) -> Tensor:
        seen.append(level)
        return torch.zeros_like(x[:, :3])

    unet.forward = spy  # type: ignore[method-assign, assignment]
    given = batch()
    assert given.lr is not None
    assert given.hr is not None
    lr, hr = to_signed_range(given.lr), to_signed_range(given.hr)
    draws = ReplayNoise([7, [0.0, 0.5], torch.zeros_like(hr)])
    method.diffusion_loss(hr, method.estimate(lr), method.contrast.code(lr), draws)
    levels = method.schedule.signal_levels
    assert torch.allclose(seen[0], torch.stack([levels[6], (levels[6] + levels[7]) / 2]).float())


def contrast(queue_size: int = 8) -> MomentumContrast:
    torch.manual_seed(0)
    return ContrastConfig(width=4, queue_size=queue_size, momentum=0.9).build(3)


def test_the_queue_holds_the_last_keys_in_order_and_wraps_around() -> None:
    encoder = contrast(6).train()
    images = torch.rand(4, 2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    keys = []
    for pair in images:
        encoder.contrast(pair, pair)
        encoder.after_step()
        position = int(encoder.queue_position)
        keys.append(encoder.queue[:, [(position - 2) % 6, (position - 1) % 6]].clone())
    assert int(encoder.queue_position) == 2
    assert torch.equal(encoder.queue, torch.cat([keys[3], keys[1], keys[2]], dim=1))
    assert torch.allclose(encoder.queue.norm(dim=0), torch.ones(6))


def test_the_key_encoder_follows_the_query_encoder_and_gets_no_gradient() -> None:
    encoder = contrast().train()
    with torch.no_grad():
        for parameter in encoder.query_encoder.parameters():
            parameter.add_(1.0)
    before = [parameter.clone() for parameter in encoder.key_encoder.parameters()]
    _, logits = encoder.contrast(torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8))
    contrastive_loss(logits).backward()
    for old, slow, fast in zip(before, encoder.key_encoder.parameters(), encoder.query_encoder.parameters(), strict=True):
        assert torch.allclose(slow, 0.9 * old + 0.1 * fast)
        assert slow.grad is None
        assert fast.grad is not None


def test_queue_and_key_encoder_are_part_of_the_state() -> None:
    first, second = contrast().train(), contrast().train()
    images = torch.rand(2, 3, 8, 8)
    first.contrast(images, images)
    first.after_step()
    second.load_state_dict(first.state_dict())
    assert int(second.queue_position) == 2
    assert torch.equal(first.contrast(images, images)[1], second.contrast(images, images)[1])


def test_a_batch_that_does_not_divide_the_queue_is_refused() -> None:
    with pytest.raises(ValueError, match="divides the queue size"):
        contrast(8).train().contrast(torch.rand(3, 3, 8, 8), torch.rand(3, 3, 8, 8))


def test_predicted_kernels_filter_every_image_by_its_own() -> None:
    torch.manual_seed(0)
    layer = DegradationAwareConv(5)
    x, code = torch.randn(3, 5, 6, 7), torch.randn(3, 64)
    together = layer(x, code)
    assert torch.allclose(together, torch.cat([layer(x[i : i + 1], code[i : i + 1]) for i in range(3)]), atol=1e-5)
    assert not torch.allclose(layer(x, code.flip(0)), together)


@pytest.mark.parametrize("gates", ["CA", "SA", "CA-SA", "SA-CA", "CA|SA"])
@pytest.mark.parametrize("pooling", ["Avg", "Max", "Avg|Max"])
def test_all_gates_of_srdsran_keep_the_size(gates: Any, pooling: Any) -> None:
    options = SRDSRANConfig(width=16, groups=1, blocks=1, group_gates=gates, block_gates=gates, global_gates=gates, pooling=pooling)
    network = SRDSRAN(options, 3, 3, scale=2)
    assert network(torch.rand(1, 3, 6, 5)).shape == (1, 3, 12, 10)


@pytest.mark.parametrize(("enlargements", "factor"), [((2,), 2), ((3,), 3), ((2, 2, 2), 8)])
def test_an_rrdb_head_enlarges_by_the_product_of_its_stages(enlargements: tuple[int, ...], factor: int) -> None:
    network = RRDBNet(RRDBConfig(width=8, blocks=1, growth=4), 3, 3, enlargements=enlargements)
    assert network(torch.rand(1, 3, 4, 5)).shape == (1, 3, 4 * factor, 5 * factor)


def refuse(kind: str, **options: Any) -> Callable[[], Any]:
    return lambda: config_from_mapping(METHODS[kind], options, "model")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (refuse("diffbsr", restorer={"width": 8}), "at least 16"),
        (refuse("diffbsr", restorer={"pooling": "Min"}), "is not one of"),
        (refuse("diffbsr", unet={"width": 6}), "multiple of norm_groups"),
        (refuse("diffbsr", unet={"width": 4, "norm_groups": 4, "multipliers": (1,)}), "need 16"),
        (refuse("blindsrsnf", unet={"attention_levels": (4,)}), "levels are 0 to 3"),
        (refuse("blindsrsnf", unet={"dropout": 0.1}), "no effect"),
        (refuse("diffbsr_srdiff", unet={"condition_blocks": 7}), "2, 5, 8"),
        (refuse("blindsrsnf", contrast={"temperature": 0}), "positive temperature"),
    ],
)
def test_options_that_make_no_network_are_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_images_without_targets_are_restored_to_the_enlarged_size(tmp_path: Path) -> None:
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 255, (5, 6, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"gf_{number}.png")
    source = FolderDataset(root=str(tmp_path), images_are="lr", split="all").build("test", 4)
    given = collate(list(TestSamples(source, 4, 0, None)))
    assert (given.size, given.lr_size) == ((20, 24), (5, 6))
    assert tiny("diffbsr").restore(given, FEW_STEPS, noise(2)).shape == (2, 3, 20, 24)
