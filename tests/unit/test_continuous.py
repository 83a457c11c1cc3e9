"""LIIF, MetaSR and the coordinates they are asked at."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rsdiff.data.sample import Batch, SampleMeta
from rsdiff.diffusion.noise import SeededNoise
from rsdiff.diffusion.sampler import SamplerConfig
from rsdiff.methods import METHODS
from rsdiff.methods.base import MethodConfig, Problem
from rsdiff.methods.continuous import query
from rsdiff.methods.implicit import CiaoSRConfig, LIIFConfig, LMFCiaoSRConfig, LMFLIIFConfig, LMFLTEConfig, LTEConfig, MetaSRConfig
from rsdiff.networks.continuous_upsampling import nearest, pixel_centres
from rsdiff.networks.edsr import EDSRBlock, EDSRConfig
from rsdiff.networks.rdn import RDNConfig
from rsdiff.networks.swinir import SwinIRConfig
from rsdiff.weights import export_weights, import_weights
from rsdiff.weights.keymaps import KEY_MAPS
from tests.method_losses import losses_of

PROBLEM = Problem(scale=4, bands=3, lr_bands=3)
SWINIR = SwinIRConfig(width=12, depths=(2,), heads=(2,), window=4, out_channels=8)
EDSR, RDN = EDSRConfig(width=8, blocks=1), RDNConfig(width=8, blocks=2, layers=2, growth=4)
CONFIGS: dict[str, MethodConfig] = {
    "liif": LIIFConfig(edsr=EDSR, hidden=(16,), queries=20),
    "liif_rdn": LIIFConfig(encoder="rdn", rdn=RDN, hidden=(16, 16), cell=False, queries=20),
    "liif_swinir": LIIFConfig(encoder="swinir", swinir=SWINIR, hidden=(16,), queries=20),
    "metasr": MetaSRConfig(edsr=EDSR, hidden=(16,), queries=20),
    "metasr_swinir": MetaSRConfig(encoder="swinir", swinir=SWINIR, hidden=(16,), queries=20),
    "lte": LTEConfig(edsr=EDSR, width=8, hidden=(16,), queries=20),
    "lte_plus": LTEConfig(edsr=EDSR, width=8, hidden=(16,), pairing="halves", queries=20),
    "lte_swinir": LTEConfig(encoder="swinir", swinir=SWINIR, width=8, hidden=(16,), queries=20),
    "lmf_lte": LMFLTEConfig(edsr=EDSR, width=8, hidden=(16,), render_width=4, render_depth=2, queries=20),
    "lmf_lte_raw": LMFLTEConfig(edsr=EDSR, width=8, hidden=(16,), render_width=4, render_depth=2, compress=False, queries=20),
    "lmf_liif": LMFLIIFConfig(encoder="rdn", rdn=RDN, hidden=(16,), render_width=4, render_depth=2, queries=20),
    "lmf_ciaosr": LMFCiaoSRConfig(
        edsr=EDSR, query_hidden=(8,), attention_hidden=(8,), hidden=(16,), render_width=4, render_depth=2, scales=(2, 3), queries=20
    ),
    "ciaosr": CiaoSRConfig(edsr=EDSR, hidden=(16,), queries=20),
    "ciaosr_rdn": CiaoSRConfig(encoder="rdn", rdn=RDN, hidden=(16,), scales=(), neighbourhood=3, queries=20),
    "ciaosr_swinir": CiaoSRConfig(encoder="swinir", swinir=replace(SWINIR, out_channels=0, mirror=False), hidden=(16,), queries=20),
    "ciaosr_lmf": CiaoSRConfig(edsr=EDSR, hidden=(16,), centre="half", attention_tile=48, tile=0, queries=20),
}
NO_MODEL_NAME = ("ciaosr", "ciaosr_rdn", "ciaosr_swinir")
"""Configs whose published files hold a state dict alone."""
SIZES = [(7, 6), (12, 10), (18, 16), (28, 24), (51, 30), (80, 61)]


def batch_of(lr: torch.Tensor, size: tuple[int, int], hr: torch.Tensor | None = None) -> Batch:
    metas = [SampleMeta(str(i), index=i) for i in range(len(lr))]
    return Batch(metas=metas, size=size, lr_size=(lr.shape[-2], lr.shape[-1]), lr=lr, hr=hr)


def noise(count: int) -> SeededNoise:
    return SeededNoise([(0, i) for i in range(count)])


@pytest.mark.parametrize("name", CONFIGS)
def test_one_set_of_weights_restores_at_any_size(name: str) -> None:
    torch.manual_seed(0)
    method = CONFIGS[name].build(PROBLEM).eval()
    lr = torch.rand(2, 3, 7, 6)
    for size in SIZES:
        image = method.restore(batch_of(lr, size), SamplerConfig(), noise(2))
        assert image.shape == (2, 3, *size)
        assert bool(torch.isfinite(image).all())


@pytest.mark.parametrize("name", CONFIGS)
def test_pixels_do_not_depend_on_the_chunk_or_on_the_batch_they_are_asked_in(name: str) -> None:
    torch.manual_seed(0)
    method = CONFIGS[name].build(PROBLEM).eval()
    lr = 2 * torch.rand(2, 3, 7, 6) - 1
    with torch.no_grad():
        whole = method.predict(lr, (18, 16))
        method.options = replace(method.options, chunk=37)
        torch.testing.assert_close(method.predict(lr, (18, 16)), whole)
        torch.testing.assert_close(method.predict(lr[1:], (18, 16)), whole[1:], rtol=1e-4, atol=1e-5)


def test_an_image_asked_at_its_own_pixel_centres_is_itself() -> None:
    image = torch.rand(1, 3, 5, 7)
    asked = pixel_centres((5, 7)).flatten(0, 1)[None]
    assert torch.equal(nearest(image, asked).mT.unflatten(2, (5, 7)), image)


def test_coordinates_are_symmetric_and_rows_come_first() -> None:
    centres = pixel_centres((3, 8))
    torch.testing.assert_close(centres.flip(0, 1), -centres)
    assert centres[0, 0, 0] == centres[0, 7, 0]
    assert centres[0, 0, 1] < centres[0, 7, 1]


def test_training_asks_for_different_pixels_of_each_image_without_repeating_any() -> None:
    hr = torch.arange(60.0).view(1, 6, 10)
    coordinates, colours = query(hr, (6, 10), torch.rand(60), 60)
    assert sorted(colours[:, 0].tolist()) == list(range(60))
    torch.testing.assert_close(nearest(hr[None], coordinates[None])[0], colours)


def test_pixels_beyond_the_true_size_are_never_asked_for() -> None:
    hr = torch.zeros(3, 8, 8)
    hr[:, 4:] = 1
    _, colours = query(hr, (4, 5), torch.rand(64), 20)
    assert float(colours.abs().max()) == 0


def test_too_few_pixels_for_the_queries_is_one_sentence() -> None:
    with pytest.raises(ValueError, match="lower queries"):
        query(torch.zeros(3, 4, 4), (4, 4), torch.rand(16), 17)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_training_step_over_images_of_different_scale_reaches_every_weight(name: str) -> None:
    torch.manual_seed(0)
    method = CONFIGS[name].build(PROBLEM)
    lr, hr = torch.rand(2, 3, 6, 6), torch.rand(2, 3, 24, 24)
    batch = replace(batch_of(lr, (24, 24), hr), sizes=[(24, 24), (9, 9)])
    losses_of(method, batch, noise(2)).total.backward()
    assert all(parameter.grad is not None for parameter in method.parameters())


@pytest.mark.parametrize("name", CONFIGS)
def test_exported_weights_are_imported_again_with_their_config(name: str) -> None:
    config = CONFIGS[name]
    state = config.build(PROBLEM).state_dict()
    kind = next(kind for kind, cls in METHODS.items() if cls is type(config))
    exported = export_weights(kind, config, state)
    model = {"lte_plus": "lte-fast", "lmf_lte_raw": "lmlte"}.get(name, KEY_MAPS[kind].names[0])
    content = {"state_dict": exported} if name in NO_MODEL_NAME else {"model": {"name": model, "args": {"local_size": 2}, "sd": exported}}
    if name == "ciaosr_rdn":  # its neighbourhood leaves no trace in the weights
        content, config = {"state_dict": exported}, replace(config, neighbourhood=2)
    found, imported = import_weights(kind, content)
    assert replace(found, queries=20) == config
    assert imported.keys() == state.keys()
    assert all(torch.equal(imported[key], state[key]) for key in state)


def test_a_file_of_the_other_model_is_refused() -> None:
    with pytest.raises(ValueError, match="choose the other"):
        import_weights("liif", {"model": {"name": "metasr", "args": {}, "sd": {}}})


@pytest.mark.parametrize("kind", ["liif", "metasr", "lte"])
def test_what_a_file_stores_of_its_network_is_neither_dropped_nor_contradicted(kind: str) -> None:
    """No shape tells the factor of EDSR's residual blocks, nor whether four answers are averaged."""
    config = next(config for config in CONFIGS.values() if type(config) is METHODS[kind] and config.encoder == "edsr")
    scaled = replace(config, edsr=replace(config.edsr, residual_scale=0.1))
    exported = export_weights(kind, scaled, scaled.build(PROBLEM).state_dict())
    spec = {"name": "edsr-baseline", "args": {"no_upsampling": True, "res_scale": 0.1}}
    args = {"encoder_spec": spec} | ({"local_ensemble": True} if hasattr(config, "ensemble") else {})
    content = {"model": {"name": KEY_MAPS[kind].names[0], "args": args, "sd": exported}}
    found, _ = import_weights(kind, content)
    assert found.edsr.residual_scale == 0.1
    assert import_weights(kind, content, scaled)[0] == scaled
    for other in [config, *([replace(scaled, ensemble=False)] if hasattr(config, "ensemble") else [])]:
        with pytest.raises(ValueError, match="for this file add model"):
            import_weights(kind, content, other)
    image = torch.rand(1, config.edsr.width, 5, 5)
    full, tenth = EDSRBlock(config.edsr.width, 1.0), EDSRBlock(config.edsr.width, 0.1)
    tenth.load_state_dict(full.state_dict())
    torch.testing.assert_close(tenth(image) - image, 0.1 * (full(image) - image))
