"""DANv2, DCLS, DRSR and DASR as methods: bands and sizes, independence of the batch, stages, kernels, released files, refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rsdiff.data.sample import Batch, SampleMeta
from rsdiff.degradations.gaussian import GaussianDegradationConfig
from rsdiff.degradations.pca import KernelBasisConfig
from rsdiff.diffusion.noise import SeededNoise
from rsdiff.diffusion.sampler import SamplerConfig
from rsdiff.methods.base import Method, Problem
from rsdiff.methods.danv2 import DANv2Config
from rsdiff.methods.dasr import DASRConfig
from rsdiff.methods.dcls import DCLSConfig
from rsdiff.methods.drsr import DRSRConfig
from rsdiff.networks.degradation_aware import ContrastConfig
from rsdiff.networks.modulated import ModulatedConfig
from rsdiff.weights import export_weights, import_weights
from tests.method_losses import losses_of

SMALL = ModulatedConfig(width=8, groups=1, blocks=1)
CONFIGS: dict[str, Any] = {
    "danv2": DANv2Config(
        width=8, groups=2, blocks=1, estimator_width=8, estimator_blocks=1, loops=2, basis=KernelBasisConfig(kernel_size=11, count=50)
    ),
    "dcls": DCLSConfig(width=16, groups=1, blocks=1, latent=4, kernel_size=11),
    "drsr": DRSRConfig(restorer=SMALL, encoder_width=4, hr_contrast_steps=2, lr_contrast_steps=3),
    "dasr": DASRConfig(restorer=SMALL, contrast=ContrastConfig(width=4, queue_size=4, weight=1.0), contrast_steps=2),
}
DEGRADATION = GaussianDegradationConfig(kernel_size=11, width=(0.5, 2.0), resize="matlab").build()
KINDS = pytest.mark.parametrize("kind", CONFIGS)


def images(count: int, bands: int, h: int, w: int, scale: int) -> Batch:
    """A degraded batch with a second view."""
    generator = torch.Generator().manual_seed(0)
    hr, view = torch.rand(2, count, bands, scale * h, scale * w, generator=generator)
    decisions = [DEGRADATION.draw(generator, (bands, scale * h, scale * w), (h, w), views=2) for _ in range(count)]
    made, other = (DEGRADATION.apply(image, [views[v] for views in decisions]) for v, image in enumerate((hr, view)))
    return Batch(
        metas=[SampleMeta(f"image_{index}") for index in range(count)],
        size=(scale * h, scale * w),
        lr_size=(h, w),
        hr=hr,
        lr=made.lr,
        hr_views=view[:, None],
        lr_views=other.lr[:, None],
        kernel=made.kernel,
        lr_clean=made.lr_clean,
    )


def built(kind: str, bands: int = 3, scale: int = 4) -> Method:
    torch.manual_seed(0)
    method: Method = CONFIGS[kind].build(Problem(scale=scale, bands=bands, lr_bands=bands))
    method.prepare_training()
    return method


def restored(method: Method, batch: Batch) -> Tensor:
    return method.eval().restore(batch, SamplerConfig(), SeededNoise([(0, i) for i in range(len(batch))]))


@KINDS
@pytest.mark.parametrize(("bands", "scale", "h", "w"), [(1, 4, 11, 13), (4, 3, 7, 12), (3, 2, 9, 7)])
def test_any_bands_and_odd_sizes_are_enlarged_by_the_scale(kind: str, bands: int, scale: int, h: int, w: int) -> None:
    assert restored(built(kind, bands, scale), images(2, bands, h, w, scale)).shape == (2, bands, scale * h, scale * w)


@pytest.mark.parametrize("kind", ["danv2", "drsr", "dasr"])
def test_one_pixel_is_enlarged(kind: str) -> None:
    lr = torch.rand(1, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    batch = Batch(metas=[SampleMeta("dot")], size=(4, 4), lr_size=(1, 1), lr=lr)
    assert restored(built(kind), batch).isfinite().all()


def test_dcls_says_how_small_an_image_may_be() -> None:
    batch = Batch(metas=[SampleMeta("dot")], size=(24, 32), lr_size=(6, 8), lr=torch.zeros(1, 3, 6, 8))
    with pytest.raises(ValueError, match="at least 7x7 LR pixels and got 6x8"):
        restored(built("dcls"), batch)


@KINDS
def test_an_image_does_not_depend_on_its_batch(kind: str) -> None:
    method, batch = built(kind), images(2, 3, 8, 9, 4)
    assert batch.lr is not None
    alone = replace(batch, metas=batch.metas[1:], lr=batch.lr[1:])
    torch.testing.assert_close(restored(method, batch)[1:], restored(method, alone), rtol=1e-4, atol=1e-4)


@KINDS
def test_the_last_stage_trains_every_parameter_that_can_be(kind: str) -> None:
    method, batch = built(kind).train(), images(2, 3, 12, 11, 4)
    losses = losses_of(method, batch, SeededNoise([(0, 0), (0, 1)]))
    losses.total.backward()
    assert losses.total.isfinite()
    torch.testing.assert_close(losses.total.detach(), torch.stack(list(losses.terms.values())).sum())
    idle = [name for name, parameter in method.named_parameters() if parameter.requires_grad and parameter.grad is None]
    assert idle == []


@pytest.mark.parametrize(("kind", "first"), [("drsr", "hr_contrast"), ("dasr", "contrast")])
def test_the_encoder_is_trained_alone_first(kind: str, first: str) -> None:
    method, batch = built(kind).train(), images(2, 3, 8, 8, 4)
    stages = method.stages()
    assert stages[0].name == first
    assert stages[-1].name == "joint"
    losses = losses_of(method, batch, SeededNoise([(0, 0), (0, 1)]), stage=stages[0])
    losses.total.backward()
    assert set(losses.terms) == {"contrast"}
    trained = {name.split(".")[0] for name, parameter in method.named_parameters() if parameter.grad is not None}
    assert trained == {"encoder"} if kind == "drsr" else trained == {"contrast"}


def test_drsr_contrasts_hr_views_before_lr_views() -> None:
    method, batch = built("drsr"), images(2, 3, 8, 8, 4)
    values = {}
    for stage in method.stages():
        values[stage.name] = float(losses_of(method, batch, SeededNoise([(0, 0), (0, 1)]), stage=stage).terms["contrast"])
    assert values["hr_contrast"] != values["lr_contrast"] == pytest.approx(values["joint"], rel=1e-4)


@pytest.mark.parametrize("kind", ["danv2", "dcls"])
def test_estimated_kernels_stand_beside_what_they_are_compared_with(kind: str) -> None:
    estimates = built(kind).eval().estimates(images(2, 3, 12, 13, 4))
    assert estimates["kernel"].shape == estimates["true_kernel"].shape == (2, 11, 11)
    for kernels in estimates.values():
        torch.testing.assert_close(kernels.sum((1, 2)), torch.ones(2), rtol=1e-4, atol=1e-4)


def test_a_smaller_image_has_an_estimate_and_no_truth_in_dcls() -> None:
    assert set(built("dcls").eval().estimates(images(1, 3, 8, 12, 4))) == {"kernel"}


def test_the_basis_is_made_once_and_survives_in_the_checkpoint() -> None:
    first = built("danv2")
    basis = first.state_dict()["network.basis"]
    torch.testing.assert_close(basis.T @ basis, torch.eye(10), rtol=0, atol=1e-5)
    second = CONFIGS["danv2"].build(Problem(scale=4, bands=3, lr_bands=3))
    assert not second.state_dict()["network.basis"].any()
    second.load_state_dict(first.state_dict() | {"network.basis": -basis})
    second.prepare_training()
    assert torch.equal(second.state_dict()["network.basis"], -basis)


def test_a_published_basis_is_read_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "pca_matrix.pth"
    torch.save(torch.ones(121, 10), path)
    config = KernelBasisConfig(file=str(path), kernel_size=11)
    assert config.build().shape == (121, 10)
    with pytest.raises(ValueError, match="set kernel_size and code_length"):
        replace(config, kernel_size=21).build()


@KINDS
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_file_of_a_data_parallel_wrapper_comes_back_whole(kind: str, scale: int) -> None:
    method = built(kind, scale=scale)
    config = replace(CONFIGS[kind], **({"hr_contrast_steps": 0, "lr_contrast_steps": 0} if kind == "drsr" else {}))
    published = {f"module.{key}": value for key, value in export_weights(kind, config, method.state_dict()).items()}
    detected, state = import_weights(kind, published)
    assert state.keys() == method.state_dict().keys()
    assert all(torch.equal(value, method.state_dict()[key]) for key, value in state.items())
    detected.build(Problem(scale=scale, bands=3, lr_bands=3))  # the sizes are read off the file


def test_a_released_dasr_file_lacks_its_keys_and_trains_on() -> None:
    method, config = built("dasr"), CONFIGS["dasr"]
    whole = export_weights("dasr", config, method.state_dict())
    partial = {key: value for key, value in whole.items() if not key.startswith(("E.encoder_k", "E.queue"))}
    _, state = import_weights("dasr", partial, config)
    assert torch.equal(state["contrast.key_encoder.trunk.0.weight"], state["contrast.query_encoder.trunk.0.weight"])
    torch.testing.assert_close(state["contrast.queue"].norm(dim=0), torch.ones(4))


@KINDS
def test_a_damaged_file_is_refused_in_a_sentence(kind: str) -> None:
    published = export_weights(kind, CONFIGS[kind], built(kind).state_dict())
    # The last entry of a network; constants and what released files leave out can be made anew.
    lost = [key for key in published if key.endswith("weight") and not key.startswith("E.encoder_k")][-1]
    with pytest.raises(ValueError, match=f"the file .*'{lost.split('.weight')[0]}|the file lacks"):
        import_weights(kind, {key: value for key, value in published.items() if key != lost})
    with pytest.raises(ValueError, match="the file holds"):
        import_weights(kind, published | {"further": torch.zeros(1)})


def test_a_basis_that_its_constants_contradict_is_refused() -> None:
    published = export_weights("danv2", CONFIGS["danv2"], built("danv2").state_dict())
    with pytest.raises(ValueError, match="does not follow from its 'encoder'"):
        import_weights("danv2", published | {"encoder": 2 * published["encoder"]})
    del published["init_kernel"], published["init_ker_map"]
    import_weights("danv2", published)


@KINDS
def test_what_cannot_be_enlarged_is_refused_before_training(kind: str) -> None:
    sentence = CONFIGS[kind].refuse(Problem(scale=2.5, bands=3, lr_bands=3))
    assert "set scale=2, 3 or 4" in sentence
    assert CONFIGS[kind].refuse(Problem(scale=4, bands=3, lr_bands=3)) is None


def test_kernels_of_another_size_are_refused_with_what_to_set() -> None:
    batch = images(1, 3, 12, 12, 4)
    method = replace(CONFIGS["danv2"], basis=KernelBasisConfig(kernel_size=9, count=50)).build(Problem(scale=4, bands=3, lr_bands=3))
    with pytest.raises(ValueError, match=r"degradation\.kernel_size=9 or model\.basis\.kernel_size=11"):
        losses_of(method, batch, SeededNoise([(0, 0)]))
    with pytest.raises(ValueError, match=r"enlarge trainer\.patch"):
        losses_of(built("dcls"), images(1, 3, 8, 8, 4), SeededNoise([(0, 0)]))
    with pytest.raises(ValueError, match="11, 21, 31"):
        DCLSConfig(kernel_size=13)
