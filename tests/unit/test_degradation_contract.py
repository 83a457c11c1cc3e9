"""The degradation contract, what is recorded, and what is refused."""

import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from rsdiff.config import ConfigError, config_from_mapping, default_values
from rsdiff.data.sample import Batch, Sample, SampleMeta, collate
from rsdiff.data.seeding import keyed_generator
from rsdiff.degradations import (
    DEGRADATIONS,
    BicubicConfig,
    GaussianDegradationConfig,
    GridConfig,
    NamedCase,
    PairedConfig,
    degrade,
    named_cases,
)
from rsdiff.degradations.blur import blur
from rsdiff.degradations.pca import encode_kernels, kernel_basis, random_kernel_basis, read_basis
from rsdiff.degradations.resizing import resize, shift_pixels
from rsdiff.degradations.rounding import round_to_grey_levels

HR, LR = (3, 32, 40), (8, 10)


def batch_of(degradation: Any, count: int = 2, views: int = 1, lr: bool = False) -> Batch:
    samples = []
    for index in range(count):
        images = torch.rand(views, *HR, generator=keyed_generator("image", index))
        samples.append(
            Sample(
                meta=SampleMeta(name=f"image{index}", index=index),
                hr=images[0],
                hr_views=images[1:] if views > 1 else None,
                lr=torch.rand(3, *LR) if lr else None,
                lr_size=LR,
                decisions=degradation.draw(keyed_generator(index), HR, LR, views),
            )
        )
    return collate(samples)


def test_a_batch_gets_what_the_degradation_says_it_gives() -> None:
    for settings in (
        BicubicConfig(),
        GaussianDegradationConfig(kernel="anisotropic", noise=(1.0, 5.0)),
        GaussianDegradationConfig(kernel="none", noise=5.0),
    ):
        degradation = settings.build()
        made = degrade(batch_of(degradation), degradation)
        assert made.need("lr").shape == (2, 3, *LR)
        filled = {name for name in ("kernel", "noise_level", "lr_clean") if getattr(made, name) is not None}
        assert filled == degradation.gives
        assert made.scale == 4


def test_views_share_kernel_and_noise_level_and_become_lr_views() -> None:
    degradation = GaussianDegradationConfig(noise=(5.0, 10.0)).build()
    batch = batch_of(degradation, views=3)
    made = degrade(batch, degradation)
    assert made.need("lr_views").shape == (2, 2, 3, *LR)
    assert batch.hr_views is not None
    alone = degradation.apply(batch.hr_views[1], batch.decisions[1][1:])
    torch.testing.assert_close(made.need("lr_views")[1], alone.lr)


def test_paired_data_keep_their_lr_and_need_one() -> None:
    paired = PairedConfig().build()
    batch = batch_of(paired, lr=True)
    assert degrade(batch, paired).lr is batch.lr
    with pytest.raises(ValueError, match="needs 'lr'"):
        degrade(batch_of(paired), paired)
    assert paired.record(None) == {}


def test_decisions_are_recorded_in_the_words_and_units_of_the_options() -> None:
    anisotropic = GaussianDegradationConfig(kernel="anisotropic", width=1.5, second_width=3.0, angle=math.pi / 4, noise=15.0).build()
    (decisions,) = anisotropic.draw(keyed_generator(0), HR, LR)
    assert anisotropic.record(decisions) == {"width": 1.5, "second_width": 3.0, "angle": math.pi / 4, "noise": 15.0}
    isotropic = GaussianDegradationConfig(width=(1.0, 2.0)).build()
    (decisions,) = isotropic.draw(keyed_generator(0), HR, LR)
    record = isotropic.record(decisions)
    assert set(record) == {"width", "noise"}
    assert 1 <= record["width"] <= 2  # type: ignore[operator]
    none = GaussianDegradationConfig(kernel="none").build()
    assert none.record(none.draw(keyed_generator(0), HR, LR)[0]) == {"noise": 0.0}


def test_nothing_is_drawn_that_is_fixed() -> None:
    generator = keyed_generator(0)
    state = generator.get_state()
    GaussianDegradationConfig(kernel="anisotropic", width=1.0, second_width=2.0, angle=0.0).build().draw(generator, HR, LR)
    BicubicConfig().build().draw(generator, HR, LR)
    assert torch.equal(generator.get_state(), state)


def test_noise_has_the_drawn_level_and_is_added_before_rounding() -> None:
    degradation = GaussianDegradationConfig(kernel="none", noise=25.0, clamp="never").build()
    decisions = degradation.draw(keyed_generator(0), HR, LR)
    made = degradation.apply(torch.full((1, *HR), 0.5), decisions)
    assert made.noise_level is not None
    assert made.noise_level.tolist() == pytest.approx([25 / 255])
    assert decisions[0].noise_field is not None
    torch.testing.assert_close(made.lr[0], round_to_grey_levels(0.5 + 25 / 255 * decisions[0].noise_field))


def test_clamping_with_noise_only_keeps_the_overshoot_of_noise_free_images() -> None:
    degradation = GaussianDegradationConfig(kernel="none", resize="matlab", noise=(0.0, 1e-3), clamp="with_noise", rounding=False).build()
    edge = torch.zeros(2, *HR)
    edge[..., 18:] = 1
    noisy = degradation.draw(keyed_generator(0), HR, LR)[0]
    clean = GaussianDegradationConfig(kernel="none").build().draw(keyed_generator(0), HR, LR)[0]
    made = degradation.apply(edge, [noisy, clean])
    assert made.lr[0].max() <= 1
    assert made.lr[1].max() > 1.01


def test_resizing_first_blurs_on_the_lr_grid() -> None:
    settings: dict[str, Any] = {"width": 2.0, "kernel_size": 5, "rounding": False}
    hr = torch.rand(1, *HR)
    made = [GaussianDegradationConfig(order=order, **settings).build() for order in ("blur_first", "resize_first")]
    first, second = (degradation.apply(hr, degradation.draw(keyed_generator(0), HR, LR)) for degradation in made)
    assert second.lr.std() < first.lr.std()
    assert second.kernel is not None
    torch.testing.assert_close(second.lr, blur(resize(hr, LR, "clamped"), second.kernel))


def test_opencv_and_pillow_resize_any_number_of_bands_as_they_do_rgb() -> None:
    image = round_to_grey_levels(torch.rand(1, 7, 24, 36))
    rows = image[0, :3].permute(1, 2, 0).numpy()
    by_opencv = cv2.resize(rows, (9, 6), interpolation=cv2.INTER_CUBIC)
    np.testing.assert_allclose(resize(image, (6, 9), "opencv")[0, :3].permute(1, 2, 0), by_opencv, atol=1e-6)
    by_pillow = np.asarray(Image.fromarray((rows * 255).round().astype(np.uint8)).resize((9, 6), Image.Resampling.BICUBIC))
    np.testing.assert_allclose(255 * resize(image, (6, 9), "pillow")[0, :3].permute(1, 2, 0), by_pillow, atol=1e-4)


def test_long_images_are_resized_block_by_block_without_seams() -> None:
    image = torch.rand(1, 1, 8, 1200)
    whole = resize(image, (2, 300), "matlab")
    part = resize(image[..., 400:800], (2, 100), "matlab")
    torch.testing.assert_close(whole[..., 102:198], part[..., 2:98], rtol=0, atol=2e-6)


def test_a_shift_by_whole_pixels_moves_them() -> None:
    image = torch.rand(2, 5, 6)
    assert torch.equal(shift_pixels(image, 1.0)[:, :4, :5], image[:, 1:, 1:])


def test_a_grid_is_iterated_case_by_case() -> None:
    grid = GridConfig(
        common=GaussianDegradationConfig(resize="matlab", kernel_size=11),
        cases=(NamedCase(name="sharp", width=0.0), NamedCase(name="turned", width=1.0, second_width=2.0, angle=0.5, noise=10.0)),
    ).build()
    cases = dict(named_cases(grid))
    assert list(cases) == ["sharp", "turned"]
    (decisions,) = cases["turned"].draw(keyed_generator(0), HR, LR)
    assert cases["turned"].record(decisions) == {"width": 1.0, "second_width": 2.0, "angle": 0.5, "noise": 10.0}
    assert grid.gives == {"kernel", "noise_level", "lr_clean"}
    plain = BicubicConfig().build()
    assert named_cases(plain) == [("", plain)]


def test_kernel_codes_rebuild_kernels_of_the_fitted_range() -> None:
    degradation = GaussianDegradationConfig(kernel_size=11, width=(1.0, 3.0)).build()
    basis = random_kernel_basis(degradation, 5, keyed_generator(0), count=200)
    assert basis.shape == (121, 5)
    torch.testing.assert_close(basis.T @ basis, torch.eye(5), rtol=0, atol=1e-5)
    kernels = degradation.kernels([degradation.parameters({"width": u}) for u in (0.1, 0.5, 0.9)])
    assert kernels is not None
    mean_free = kernels - kernels.mean(0)
    torch.testing.assert_close((encode_kernels(mean_free, basis) @ basis.T).view_as(kernels), mean_free, rtol=0, atol=1e-3)
    codes = encode_kernels(kernels, basis, noise_level=torch.tensor([0.0, 0.1, 0.2]))
    assert codes.shape == (3, 6)
    assert codes[:, 5].tolist() == pytest.approx([0, 1, 2])


def test_a_kernel_basis_is_fitted_to_disturbed_kernels_too() -> None:
    degradation = GaussianDegradationConfig(kernel="anisotropic", kernel_size=5, disturbance=0.25).build()
    assert random_kernel_basis(degradation, 3, keyed_generator(0), count=50).shape == (25, 3)


def test_a_published_basis_is_read_without_executing_anything(tmp_path: Path) -> None:
    torch.save(torch.rand(121, 10), tmp_path / "pca_matrix.pth")
    assert read_basis(tmp_path / "pca_matrix.pth").shape == (121, 10)
    torch.save(torch.rand(120, 10), tmp_path / "wrong.pth")
    with pytest.raises(ValueError, match=r"\(120, 10\)"):
        read_basis(tmp_path / "wrong.pth")
    torch.save({"path": Path("x")}, tmp_path / "code.pth")
    with pytest.raises(ValueError, match="not loaded"):
        read_basis(tmp_path / "code.pth")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"noise": [25, 0]}, r"noise=\[25.0, 0.0\] is an empty range"),
        ({"width": -1}, "width=-1.0 is negative"),
        ({"kernel_size": 0}, "kernel_size=0 is not a size"),
        ({"disturbance": -0.1}, "disturbance=-0.1 is negative"),
        ({"kernel": "isotropik"}, r"did you mean isotropic\?"),
        ({"resize": "cubic"}, "is not one of matlab"),
    ],
)
def test_options_that_cannot_work_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config_from_mapping(GaussianDegradationConfig, values, "degradation")


def test_grids_without_names_of_their_own_are_refused() -> None:
    case = NamedCase(name="same", width=1.0)
    for cases in ((), (case, case)):
        with pytest.raises(ValueError, match="at least one case, each with a name of its own"):
            GridConfig(cases=cases)
    with pytest.raises(ValueError, match="give second_width"):
        NamedCase(name="turned", width=1.0, angle=0.5)
    with pytest.raises(ValueError, match="width=-1"):
        GridConfig(cases=(NamedCase(name="negative", width=-1.0),))


def test_images_that_do_not_suit_the_operation_are_refused() -> None:
    with pytest.raises(ValueError, match="needs images larger than 10 pixels per side, this one is 10x40"):
        blur(torch.rand(1, 3, 10, 40), torch.rand(21, 21))
    with pytest.raises(ValueError, match=r"give \(2, k, k\) or \(k, k\)"):
        blur(torch.rand(2, 3, 30, 40), torch.rand(3, 21, 21))
    with pytest.raises(ValueError, match="30x41 is no multiple of 15x20"):
        resize(torch.rand(1, 3, 30, 41), (15, 20), "direct")
    with pytest.raises(ValueError, match="has no gradient"):
        resize(torch.rand(1, 3, 8, 8, requires_grad=True), (4, 4), "pillow")
    with pytest.raises(ValueError, match="choose a smaller scale"):
        resize(torch.rand(1, 3, 8, 8), (0, 4), "matlab")
    degradation = GaussianDegradationConfig().build()
    with pytest.raises(ValueError, match="2 images need as many decisions"):
        degradation.apply(torch.rand(2, *HR), degradation.draw(keyed_generator(0), HR, LR))
    with pytest.raises(ValueError, match="makes no LR"):
        PairedConfig().build().apply(torch.rand(1, *HR), [None])


def test_codes_and_bases_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="set kernel_size=11"):
        encode_kernels(torch.rand(1, 21, 21), torch.rand(121, 10))
    with pytest.raises(ValueError, match="choose 1 to 4"):
        kernel_basis(torch.rand(4, 5, 5), 10)
    with pytest.raises(ValueError, match="choose isotropic or anisotropic"):
        random_kernel_basis(GaussianDegradationConfig(kernel="none").build(), 3, keyed_generator(0), count=5)


def test_every_kind_builds_from_its_plain_defaults() -> None:
    for kind, cls in DEGRADATIONS.items():
        defaults = default_values(cls)
        if "???" in defaults.values():
            defaults["cases"] = [{"name": "one", "width": 1.0}]
        settings = config_from_mapping(cls, defaults, "degradation")
        assert settings.build().gives <= {"kernel", "noise_level", "lr_clean", "looks"}
        if kind not in ("bands", "srf"):  # those are about which bands there are
            assert settings.lr_bands(5) == 5
