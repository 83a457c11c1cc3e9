"""What a scene brings besides its pixels: references, change masks, a degradation code of the whole scene."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from rasterio.transform import from_origin
from torch import Tensor

from rsdiff.app.composition import group_config
from rsdiff.app.schemas import register_schemas
from rsdiff.data.sample import Batch, SampleMeta
from rsdiff.data.source import DataError
from rsdiff.diffusion.noise import NoiseSource, SeededNoise
from rsdiff.diffusion.sampler import SamplerConfig
from rsdiff.inference.scene_job import SceneJob
from rsdiff.methods.base import Method, Problem
from rsdiff.training.built import build_method
from tests.conftest import REPOSITORY
from tests.scene_methods import job, landscape, pixels, restored, write_raster


class Reference(Method):
    """Returns the reference where the mask is 1, which code 255 stands for as in training data, else the enlarged input."""

    @torch.no_grad()
    def restore(self, batch: Batch, sampler: SamplerConfig, noise: NoiseSource) -> Tensor:
        large = F.interpolate(batch.need("lr"), size=batch.size)
        return torch.where(batch.need("change_mask") == 1, batch.need("ref"), large)


class Coded(Method):
    """Returns the code as a grey value: without a common code every tile would have its own."""

    def degradation_code(self, batch: Batch) -> Tensor | None:
        return batch.need("lr").mean((1, 2, 3))[:, None]

    @torch.no_grad()
    def restore(self, batch: Batch, sampler: SamplerConfig, noise: NoiseSource) -> Tensor:
        code = self.degradation_code(batch) if batch.code is None else batch.code
        assert code is not None
        return code[:, :, None, None].expand(-1, 3, *batch.size)


def referenced(folder: Path, shift: int = 0) -> tuple[SceneJob, np.ndarray, np.ndarray, np.ndarray]:
    """A scene whose reference begins `shift` target pixels further north-west and is that much larger on every side."""
    values, mask = landscape(3, 40, 50), np.zeros((1, 160, 200), np.uint8)
    mask[:, 40:120, 30:150] = 255
    reference = landscape(3, 160 + 2 * shift, 200 + 2 * shift, seed=5)
    scene = write_raster(folder / "scene.tif", values)
    place = from_origin(500_000 - 2.5 * shift, 5_000_000 + 2.5 * shift, 2.5, 2.5)
    paths = {
        "reference": str(write_raster(folder / "ref.tif", reference, transform=place)),
        "change_mask": str(write_raster(folder / "mask.tif", mask, transform=from_origin(500_000, 5_000_000, 2.5, 2.5))),
    }
    work = replace(job(folder, scene, Reference(), **paths), needs=frozenset({"ref", "change_mask"}))
    return work, values, reference, mask


@pytest.mark.parametrize("shift", [0, 12])
def test_reference_and_change_mask_are_aligned_by_their_georeference(tmp_path: Path, shift: int) -> None:
    work, values, reference, mask = referenced(tmp_path, shift)
    restored(work)
    large = values.repeat(4, axis=1).repeat(4, axis=2)
    expected = np.where(mask == 255, reference[:, shift : shift + 160, shift : shift + 200], large)
    assert np.abs(pixels(work.output).astype(int) - expected).max() <= 1


def test_a_reference_that_cannot_be_aligned_is_refused(tmp_path: Path) -> None:
    work, *_ = referenced(tmp_path)
    lost = write_raster(tmp_path / "lost.tif", landscape(3, 100, 100), crs=None, transform=None)
    with pytest.raises(DataError, match="cannot be aligned without georeference"):
        restored(replace(work, options=replace(work.options, reference=str(lost))))
    with pytest.raises(ValueError, match=r"needs task\.reference"):
        restored(replace(work, options=replace(work.options, reference=None)))


def test_all_tiles_share_the_code_of_the_scene(tmp_path: Path) -> None:
    scene = write_raster(tmp_path / "scene.tif", np.sort(landscape(3, 80, 100), axis=2))
    shared = restored(job(tmp_path, scene, Coded()))
    assert len(np.unique(pixels(shared.outputs[0]))) == 1
    own = restored(job(tmp_path, scene, Coded(), name="own.tif", share_codes=False))
    assert len(np.unique(pixels(own.outputs[0]))) > 1


@pytest.mark.parametrize("name", ["danv2_tiny", "dasr_quick", "dcls_tiny", "drsr_quick", "diffbsr_quick", "blindsrsnf_quick"])
def test_a_method_given_its_own_code_restores_the_same_image(name: str) -> None:
    register_schemas()
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        composed = compose("config", [f"model={name}", "scale=4", "sampler.steps=2"])
    model, sampler = group_config(composed, "model"), group_config(composed, "sampler")
    method = build_method(model, Problem(4.0, 3, 3), seed=0).eval()
    generator = torch.Generator().manual_seed(1)
    for buffer_name, buffer in method.named_buffers():
        if buffer_name.endswith("basis"):  # made when training starts
            buffer.normal_(generator=generator)
    lr = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    batch = Batch([SampleMeta("a"), SampleMeta("b")], (64, 64), (16, 16), lr=lr)
    code = method.degradation_code(batch)
    assert code is not None
    own, given = (method.restore(b, sampler, SeededNoise([(0,), (1,)])) for b in (batch, replace(batch, code=code)))
    torch.testing.assert_close(given, own)
    swapped = method.restore(replace(batch, code=code.flip(0)), sampler, SeededNoise([(0,), (1,)]))
    assert not torch.equal(swapped, own)
