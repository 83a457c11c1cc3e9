"""What the methods after LIIF rest on: SwinIR's windows, LTE's frequencies, CMSR's levels, CiaoSR's parts, SADN's kernels, IDM's U-Net."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from hydra import compose

from rsdiff.app.command_line import CONFIG_NAME, composing
from rsdiff.app.composition import group_config
from rsdiff.app.schemas import register_schemas
from rsdiff.data.sample import Batch, SampleMeta
from rsdiff.diffusion.noise import SeededNoise
from rsdiff.diffusion.sampler import SamplerConfig
from rsdiff.methods.base import Problem
from rsdiff.methods.cmsr import CMSRConfig, build_row, levels_of
from rsdiff.methods.idm import IDMConfig, shrunk
from rsdiff.methods.implicit import CiaoSRConfig, LMFLIIFConfig, LMFLTEConfig, LTEConfig, tile_origins
from rsdiff.methods.sadn import SADNConfig, temperature_after
from rsdiff.networks.edsr import EDSRConfig
from rsdiff.networks.layers import mirror_to
from rsdiff.networks.lte import fourier
from rsdiff.networks.sadn import ScaleAwareConv
from rsdiff.networks.swinir import SwinIRConfig, relative_positions, shift_mask
from rsdiff.weights import export_weights, import_weights
from tests.conftest import REPOSITORY
from tests.method_losses import losses_of

PROBLEM = Problem(scale=4, bands=3, lr_bands=3)
EDSR = EDSRConfig(width=8, blocks=1)
SWINIR = SwinIRConfig(width=12, depths=(2,), heads=(2,), window=4, out_channels=8)
IDM = IDMConfig(width=8, multipliers=(1, 2), blocks=1, norm_groups=4, dropout=0.0, nominal_size=16, attention_sizes=(), encoder=EDSR)
SADN = SADNConfig(width=8, groups=2, layers=1, multiplier=2, levels=2, fuse_width=8)
TINY = ("lte", "lmf_lte", "lmf_liif", "lmf_ciaosr", "ciaosr", "sadn", "idm", "liif", "metasr")


def batch_of(lr: torch.Tensor, size: tuple[int, int], hr: torch.Tensor | None = None) -> Batch:
    metas = [SampleMeta(str(i), index=i) for i in range(len(lr))]
    return Batch(metas=metas, size=size, lr_size=(lr.shape[-2], lr.shape[-1]), lr=lr, hr=hr)


def noise(count: int) -> SeededNoise:
    return SeededNoise([(0, i) for i in range(count)])


def shipped(model: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    register_schemas()
    with composing(REPOSITORY / "conf"):
        return group_config(compose(CONFIG_NAME, [f"model={model}"]), "model")


@pytest.mark.parametrize("name", TINY)
def test_every_tiny_variant_trains_a_step_and_restores_at_any_enlargement(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    method = shipped(f"{name}_tiny", monkeypatch).build(PROBLEM)
    lr = torch.rand(1, 3, 10, 10)
    losses_of(method, batch_of(lr, (40, 40), torch.rand(1, 3, 40, 40)), noise(1)).total.backward()
    torch.optim.Adam(method.parameters(), lr=1e-4).step()
    method.eval()
    for size in ((17, 17), (40, 40)):
        image = method.restore(batch_of(lr, size), SamplerConfig(steps=2), noise(1))
        assert image.shape == (1, 3, *size)
        assert bool(torch.isfinite(image).all())


def test_cells_see_each_other_exactly_if_they_were_neighbours_before_the_shift() -> None:
    mask = shift_mask((8, 12), 4, 2)
    moved = torch.stack(torch.meshgrid(torch.arange(8), torch.arange(12), indexing="ij"), dim=-1).roll((-2, -2), dims=(0, 1))
    windows = moved.unflatten(1, (3, 4)).unflatten(0, (2, 4)).permute(0, 2, 1, 3, 4).reshape(6, 16, 2)
    apart = (windows[:, :, None] - windows[:, None]).abs().amax(-1)
    assert torch.equal(mask == 0, apart < 4)


def test_relative_positions_depend_on_the_difference_alone() -> None:
    positions = relative_positions(3)
    assert positions.unique().numel() == 25
    assert positions[0, 4] == positions[4, 8]
    assert bool((positions.diagonal() == positions[0, 0]).all())


def test_features_of_swinir_do_not_depend_on_what_the_window_adds() -> None:
    torch.manual_seed(0)
    encoder = SWINIR.build(3).eval()
    with torch.no_grad():
        assert encoder(torch.rand(1, 3, 9, 7)).shape == (1, 8, 9, 7)
        assert encoder.extended(torch.rand(1, 3, 9, 7)).shape == (1, 8, 12, 8)


def test_a_mirrored_border_repeats_the_last_pixel() -> None:
    assert mirror_to(torch.arange(3.0)[None], 1, 7).tolist() == [[0, 1, 2, 2, 1, 0, 0]]


def test_the_two_pairings_of_frequencies_are_permutations_of_each_other() -> None:
    frequencies, offset, phase = torch.rand(5, 8), torch.rand(5, 2), torch.rand(5, 4)
    halves = torch.cat([frequencies[:, ::2], frequencies[:, 1::2]], dim=-1)
    torch.testing.assert_close(fourier(frequencies, offset, phase), fourier(halves, offset, phase, "halves"))


def test_a_constant_image_added_to_no_answer_is_restored_as_it_is() -> None:
    method = LTEConfig(edsr=EDSR, width=8, hidden=(4,)).build(PROBLEM)
    for parameter in method.network.parameters():
        torch.nn.init.zeros_(parameter)
    image = method.restore(batch_of(torch.full((1, 3, 5, 6), 0.3), (11, 13)), SamplerConfig(), noise(1))
    torch.testing.assert_close(image, torch.full((1, 3, 11, 13), 0.3))


def test_beyond_the_largest_enlargement_the_network_is_told_that_one() -> None:
    method = LTEConfig(edsr=EDSR, width=8, hidden=(4,), largest_told=4.0).build(PROBLEM)
    told = []
    method.network.register_forward_hook(lambda module, given, made: told.append(given[2][0].tolist()))
    for size in ((10, 10), (40, 20)):
        method.predict(torch.zeros(1, 3, 5, 5), size)
    assert told == [pytest.approx([0.2, 0.2]), pytest.approx([0.1, 0.1])]


@pytest.mark.parametrize(
    ("row", "scale", "expected"),
    [
        ({1.0: 0.1, 2.0: 0.3, 4.0: 1.0}, 3.0, [(1.0, -torch.inf, 0.1), (2.0, 0.1, 0.3), (3.0, 0.3, torch.inf)]),
        ({1.0: 0.1, 2.0: 1.0}, 6.0, [(1.0, -torch.inf, 0.1), (2.0, 0.1, torch.inf)]),
        ({0.5: 0.1, 2.0: 1.0}, 6.0, [(2.0, 0.1, torch.inf)]),
    ],
)
def test_levels_cover_every_difficulty(row: dict[float, float], scale: float, expected: list[tuple[float, float, float]]) -> None:
    assert levels_of(row, scale) == expected


def cmsr_method(**options: Any) -> Any:
    torch.manual_seed(0)
    return LMFLTEConfig(edsr=EDSR, width=8, hidden=(16,), render_width=4, render_depth=2, cmsr=CMSRConfig(**options)).build(PROBLEM).eval()


@torch.no_grad()
def test_a_table_that_finds_nothing_easy_renders_everything() -> None:
    lr = 2 * torch.rand(2, 3, 5, 6) - 1
    whole = cmsr_method().restored(lr, (30, 36))
    torch.testing.assert_close(cmsr_method(table=((6.0, 6.0, 1.0),)).restored(lr, (30, 36)), whole, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_table_that_finds_all_easy_renders_at_the_smallest_scale() -> None:
    lr = 2 * torch.rand(1, 3, 5, 6) - 1
    method = cmsr_method(table=((6.0, 1.0, 1.0),))
    asked = []
    method.network.register_forward_hook(lambda module, given, made: asked.append(given[1].shape[1]))
    method.restored(lr, (30, 36))
    assert asked == [30]


def test_a_table_finds_more_easy_the_more_it_tolerates() -> None:
    lr = 2 * torch.rand(1, 3, 5, 6) - 1
    rows = [build_row(cmsr_method(), [lr], 6, tolerance, [1.0, 3.0, 6.0]) for tolerance in (0.0, 1e9)]
    assert [row[6.0] for row in rows] == [0.5, 0.5]
    assert rows[0][1.0] == 0 < rows[1][1.0]


@pytest.mark.parametrize(("length", "tile", "overlap"), [(13, 8, 3), (8, 8, 3), (40, 8, 0), (9, 8, 7)])
def test_parts_cover_an_image_and_stay_inside(length: int, tile: int, overlap: int) -> None:
    origins = tile_origins(length, tile, overlap)
    covered = {pixel for origin in origins for pixel in range(origin, origin + tile)}
    assert covered == set(range(length))


@torch.no_grad()
def test_an_image_of_one_part_is_restored_as_a_whole() -> None:
    method = CiaoSRConfig(edsr=EDSR, hidden=(8,), tile=9, tile_overlap=2).build(PROBLEM).eval()
    lr = torch.rand(1, 3, 9, 9)
    torch.testing.assert_close(method.restored(lr, (18, 18)), method.predict(lr, (18, 18)))


@torch.no_grad()
@pytest.mark.parametrize("scales", [(), (2,)])
def test_ciaosr_of_single_cells_answers_and_is_told_from_its_file(scales: tuple[Literal[2], ...]) -> None:
    config = CiaoSRConfig(edsr=EDSR, hidden=(8,), scales=scales, unfold=False)
    method = config.build(PROBLEM)
    assert method.eval().predict(torch.rand(1, 3, 6, 5), (15, 13)).shape == (1, 3, 15, 13)
    told, weights = import_weights("ciaosr", export_weights("ciaosr", config, method.state_dict()))
    assert (told.unfold, told.scales) == (False, scales)
    told.build(PROBLEM).load_state_dict(weights)


def test_the_mean_of_three_bands_refuses_other_images_in_a_sentence() -> None:
    sentence = CiaoSRConfig().refuse(Problem(scale=4, bands=4, lr_bands=4))
    assert sentence is not None
    assert "model.centre=half" in sentence
    assert LMFLIIFConfig().refuse(Problem(scale=4, bands=31, lr_bands=3)) is None
    assert LTEConfig().refuse(Problem(scale=4, bands=31, lr_bands=3)) is not None


def test_shares_of_kernels_are_a_mean_and_equal_at_a_high_temperature() -> None:
    torch.manual_seed(0)
    layer, x = ScaleAwareConv(4, 5, 3), torch.randn(2, 4, 6, 6)
    shares = layer.shares(x, 0.5, 1.0)
    torch.testing.assert_close(shares.sum(1), torch.ones(2))
    torch.testing.assert_close(layer.shares(x, 0.5, 1e6), torch.full((2, 3), 1 / 3), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(layer(x, 0.5, 1.0)[:1], layer(x[:1], 0.5, 1.0))


def test_the_temperature_falls_in_stairs_to_one() -> None:
    assert [temperature_after(step, 110) for step in (0, 9, 10, 100, 110, 10_000)] == [34, 34, 31, 4, 1, 1]
    assert temperature_after(0, 0) == 1


@torch.no_grad()
def test_the_self_ensemble_of_a_flipped_image_is_the_flipped_result() -> None:
    torch.manual_seed(0)
    method = replace(SADN, self_ensemble=True).build(PROBLEM).eval()
    lr = torch.rand(1, 3, 6, 6)
    image = method.restore(batch_of(lr, (13, 13)), SamplerConfig(), noise(1))
    flipped = method.restore(batch_of(lr.mT.flip(-1), (13, 13)), SamplerConfig(), noise(1))
    torch.testing.assert_close(flipped, image.mT.flip(-1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("body", ["sadn", "edsr", "rdn"])
def test_weights_of_sadn_survive_export_and_import(body: Any) -> None:
    config = replace(SADN, body=body, edsr=EDSR, mean_shift=body != "edsr", normalise=body != "rdn", anneal_steps=0)
    state = config.build(PROBLEM).state_dict()
    found, imported = import_weights("sadn", {"state_dict": {f"sr_net.{k}": v for k, v in export_weights("sadn", config, state).items()}})
    assert found.body == body
    assert (found.levels, found.mean_shift, found.normalise) == (config.levels, config.mean_shift, config.normalise)
    assert imported.keys() == state.keys()
    assert all(torch.equal(imported[key], state[key]) for key in state)


def test_weights_of_idm_survive_export_and_import() -> None:
    state = IDM.build(PROBLEM).state_dict()
    found, imported = import_weights("idm", export_weights("idm", IDM, state))
    assert (found.width, found.multipliers, found.blocks, found.encoder) == (IDM.width, IDM.multipliers, IDM.blocks, IDM.encoder)
    assert imported.keys() == state.keys()
    assert all(torch.equal(imported[key], state[key]) for key in state)


def test_a_foreign_parameter_is_refused_by_idm() -> None:
    content = export_weights("idm", IDM, IDM.build(PROBLEM).state_dict())
    with pytest.raises(ValueError, match="which this network does not have"):
        import_weights("idm", content | {"denoise_fn.further.weight": torch.zeros(1)}, IDM)


def test_idm_is_told_how_far_it_enlarges() -> None:
    method = IDM.build(PROBLEM)
    assert [float(method.scaler(scale, torch.zeros(1))) for scale in (1, 4.5, 8)] == [0, 0.5, 1]


def test_targets_shrink_between_the_size_of_the_input_and_their_own() -> None:
    hr = torch.rand(1, 3, 32, 48)
    assert [tuple(shrunk(hr, (8, 12), share).shape[-2:]) for share in (0.0, 0.37, 1.0)] == [(8, 12), (17, 25), (32, 48)]
    torch.testing.assert_close(shrunk(hr, (8, 12), 1.0), hr)


@pytest.mark.parametrize("init", ["orthogonal", "stylegan"])
@torch.no_grad()
def test_the_scale_matters_to_idm_only_once_its_weights_have_a_bias(init: Any) -> None:
    torch.manual_seed(0)
    network = replace(IDM, init=init).build_network(3).eval()
    x, condition, level = torch.randn(1, 3, 9, 7), torch.randn(1, 3, 9, 7), torch.tensor([0.5])
    first, second = (network(x, condition, torch.tensor([[scaler]]), level) for scaler in (0.4, 0.9))
    assert bool(torch.allclose(first, second, rtol=1e-4, atol=1e-5)) == (init == "orthogonal")
