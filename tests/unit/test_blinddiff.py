"""BlindDiff as a method: batches, guidance with every solver, memory of sampling, gradients, kernels, refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rsdiff.config.typed import plain_values
from rsdiff.data.sample import Batch, SampleMeta
from rsdiff.diffusion.noise import SeededNoise
from rsdiff.diffusion.sampler import SamplerConfig
from rsdiff.methods.base import Problem
from rsdiff.methods.blinddiff import BlindDiff, BlindDiffConfig, GuidanceConfig, reblurred
from rsdiff.networks.mcformer import MCFormerConfig
from rsdiff.runs.predecessor import begin
from rsdiff.training.checkpoints import write_checkpoint
from rsdiff.weights import export_weights, import_weights
from tests.method_losses import losses_of

TINY = MCFormerConfig(width=4, blocks=(1, 1), refinement=1, heads=(1, 2), kernel_size=5)
NATIVE = SamplerConfig(solver="native", steps=4, spacing="linspace")


def tiny(**options: Any) -> BlindDiff:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        method = BlindDiffConfig(**{"network": TINY, **options}).build(Problem(4, 3, 3))
    with torch.no_grad():
        method.network.out.weight *= 0.1  # fresh weights let the reverse process grow without bound
    return method.eval()


def batch(count: int, height: int = 4, width: int = 6) -> Batch:
    generator = torch.Generator().manual_seed(1)
    kernel = torch.rand(count, 5, 5, generator=generator)
    return Batch(
        metas=[SampleMeta(str(index)) for index in range(count)],
        size=(4 * height, 4 * width),
        lr_size=(height, width),
        hr=torch.rand(count, 3, 4 * height, 4 * width, generator=generator),
        lr=torch.rand(count, 3, height, width, generator=generator),
        kernel=kernel / kernel.sum((1, 2), keepdim=True),
    )


def pick(whole: Batch, index: int) -> Batch:
    only = slice(index, index + 1)
    return replace(whole, metas=whole.metas[only], **{name: getattr(whole, name)[only] for name in ("hr", "lr", "kernel")})


def noise(count: int, first: int = 0) -> SeededNoise:
    return SeededNoise([("test", first + index) for index in range(count)])


@pytest.mark.parametrize("through", ["network_and_kernel", "network", "estimate"])
def test_an_image_is_restored_alike_alone_and_in_a_batch(through: Any) -> None:
    method, whole = tiny(guidance=GuidanceConfig(through=through)), batch(3)
    together = method.restore(whole, NATIVE, noise(3))
    for index in range(3):
        alone = method.restore(pick(whole, index), NATIVE, noise(1, index))
        torch.testing.assert_close(together[index : index + 1], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("solver", ["native", "ddpm", "ddim", "heun", "dpmpp_2m"])
def test_guidance_changes_the_result_of_every_solver_and_weight_0_does_not(solver: Any) -> None:
    sampler = SamplerConfig(solver=solver, steps=3, spacing="linspace")
    weights = {weight: tiny(guidance=GuidanceConfig(weight=weight)).restore(batch(1), sampler, noise(1)) for weight in (0.0, 1e-9, 1.0)}
    torch.testing.assert_close(weights[1e-9], weights[0.0], rtol=1e-5, atol=1e-5)
    assert (weights[1.0] - weights[0.0]).abs().max() > 1e-4


def test_guidance_brings_the_reblurred_image_nearer_to_the_lr() -> None:
    """With a single short step at the lowest level, where the estimate is nearly the state, and the gradient points the way."""
    whole = batch(2)
    sampler = SamplerConfig(solver="ddim", steps=1, grid="list", sigmas=(0.02,), start="image")
    distances = []
    for weight in (0.0, 0.05):
        method = tiny(guidance=GuidanceConfig(weight=weight, prior=0.0))
        image = method.restore(whole, sampler, noise(2))
        kernel = torch.full((2, 5, 5), 1 / 25)
        distances.append((whole.need("lr") - reblurred(image, kernel, whole.lr_size)).flatten(1).norm(dim=1))
    assert bool((distances[1] < distances[0]).all())


def test_parameters_get_no_gradient_and_the_result_no_graph() -> None:
    method = tiny()
    assert not method.restore(batch(1), NATIVE, noise(1)).requires_grad
    assert all(parameter.grad is None for parameter in method.parameters())


def test_sampling_keeps_as_many_tensors_for_the_backward_pass_however_many_steps_it_has() -> None:
    """Counted at the end of each step through hooks on saved tensors: a graph that grows would keep all of them."""
    kept = []
    for steps in (2, 8):
        alive: set[int] = set()
        most = 0

        class Saved:
            def __init__(self, tensor: Tensor) -> None:
                nonlocal most
                self.tensor = tensor.detach()  # with its graph it would keep itself alive
                alive.add(id(self))  # noqa: B023
                most = max(most, len(alive))  # noqa: B023

            def __del__(self) -> None:
                alive.discard(id(self))  # noqa: B023

        with torch.autograd.graph.saved_tensors_hooks(Saved, lambda saved: saved.tensor):
            tiny().restore(batch(1), replace(NATIVE, steps=steps), noise(1))
        kept.append(most)
    assert kept[0] == kept[1] > 0


def test_losses_reach_every_parameter() -> None:
    method = tiny()
    losses = losses_of(method, batch(2), noise(2))
    losses.total.backward()
    assert set(losses.terms) == {"noise", "bound", "kernel"}
    assert all(parameter.grad is not None and bool(parameter.grad.isfinite().all()) for parameter in method.parameters())


def test_without_the_kernel_loss_no_true_kernel_is_needed() -> None:
    config = BlindDiffConfig(network=TINY, kernel_weight=0.0)
    assert config.requires == {"hr", "lr"}
    terms = losses_of(tiny(kernel_weight=0.0), replace(batch(2), kernel=None), noise(2)).terms
    assert set(terms) == {"noise", "bound"}


def test_the_signed_range_is_the_same_process_on_shifted_images() -> None:
    """A network that ignores its input restores the shifted image of what it restores without shift, but for guidance."""
    images = []
    for data_range in ("unit", "signed"):
        method = tiny(data_range=data_range, guidance=GuidanceConfig(weight=0.0))
        torch.nn.init.zeros_(method.network.out.weight)
        assert torch.equal(method.outside(method.inside(batch(1).need("hr"))), batch(1).need("hr")) or data_range == "signed"
        images.append(method.inside(method.restore(batch(1), replace(NATIVE, steps=2), noise(1))))
    torch.testing.assert_close(images[0], images[1], rtol=1e-4, atol=1e-4)


def test_estimated_kernels_are_kernels_at_any_lr_size_and_always_the_same() -> None:
    method, whole = tiny(), batch(2, 3, 5)
    found = method.estimates(whole)
    first, second = found["kernel"], method.estimates(replace(pick(whole, 1), kernel=None))["kernel"]
    assert found["true_kernel"] is whole.kernel
    assert first.shape == (2, 5, 5)
    torch.testing.assert_close(first.sum((1, 2)), torch.ones(2))
    assert float(first.min()) >= 0
    torch.testing.assert_close(first[1:], second, rtol=1e-4, atol=1e-6)


def test_checkpointing_changes_no_gradient() -> None:
    gradients = []
    for checkpointing in (False, True):
        method = tiny(network=replace(TINY, checkpointing=checkpointing))
        losses_of(method, batch(1), noise(1)).total.backward()
        gradients.append([parameter.grad for parameter in method.parameters()])
    torch.testing.assert_close(gradients[0], gradients[1])


def test_an_exported_file_is_imported_again_with_its_config() -> None:
    config = BlindDiffConfig(network=replace(TINY, blocks=(1, 2, 1), heads=(1, 2, 4), refinement=3))
    state = config.build(Problem(4, 3, 3)).state_dict()
    published = export_weights("blinddiff", config, state)
    made, again = import_weights("blinddiff", {"params": {}, "params_ema": published})
    assert made == config
    assert all(torch.equal(again[key], value) for key, value in state.items())


def test_setting_2_starts_from_the_averages_of_setting_1(tmp_path: Path) -> None:
    first, second = tiny(), tiny()
    average = {name: value + 1 for name, value in first.state_dict().items()}
    options = {"kind": "blinddiff", **plain_values(first.options)}
    card = {"config": {"model": options}, "problem": {"scale": 4.0, "bands": 3, "lr_bands": 3}}
    write_checkpoint(tmp_path, 1, first.state_dict(), [average], card, None)
    begin(second, second.options, "blinddiff", (3, 3), tmp_path / "step_00000001")
    assert all(torch.equal(value, average[name]) for name, value in second.state_dict().items())


def test_what_cannot_work_is_refused_in_a_sentence() -> None:
    assert "bands" in str(BlindDiffConfig().refuse(Problem(4, 3, 1)))
    assert "whole numbers" in str(BlindDiffConfig().refuse(Problem(2.5, 3, 3)))
    with pytest.raises(ValueError, match="kept"):
        BlindDiffConfig(kept_steps=1001)
    with pytest.raises(ValueError, match="heads"):
        MCFormerConfig(heads=(1, 2, 4))
    with pytest.raises(ValueError, match="kernel_size"):
        losses_of(tiny(network=replace(TINY, kernel_size=7)), batch(1), noise(1))
