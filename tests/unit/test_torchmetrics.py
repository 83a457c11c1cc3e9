"""Our metrics as torchmetrics classes: equal to our tables, to torchmetrics' own where the formula is one, alone and in two processes."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed
import torch.multiprocessing
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection
from torchmetrics.image import PeakSignalNoiseRatio
from torchmetrics.image.fid import FrechetInceptionDistance

import rsdiff
from rsdiff.config import UserError
from rsdiff.metrics.fid import frechet_distance, kernel_distance
from rsdiff.metrics.presets import preset
from rsdiff.metrics.torch import FrechetDistance, ImageMetric, KernelDistance, SetMetric, metric, metrics
from tests.conftest import REPOSITORY


class Pooling(nn.Module):
    """A network that has features of its own: means of the parts of an image."""

    num_features = 12

    def forward(self, images: Tensor) -> Tensor:
        assert images.dtype == torch.uint8
        return nn.functional.adaptive_avg_pool2d(images.double(), 2).flatten(1) / 255


def images(count: int = 8, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hr = torch.rand(count, 3, 40, 36, generator=generator)
    return (hr + 0.05 * torch.randn(hr.shape, generator=generator)).clamp(0, 1), hr


def all_metrics() -> MetricCollection:
    return MetricCollection(
        {
            "psnr": metric("psnr", "basicsr_y", scale=4),
            "ssim": metric("ssim", "basicsr_y", scale=4),
            "sam": metric("sam", "spectral", scale=4),
            "fid": FrechetDistance(Pooling()),
            "kid": KernelDistance(Pooling(), subsets=1, subset_size=8),
        },
        compute_groups=False,
    )


def values(found: dict[str, Tensor]) -> dict[str, float]:
    return {name: float(value[0] if isinstance(value, tuple) else value) for name, value in found.items()}


def test_values_are_those_of_our_tables_and_of_torchmetrics() -> None:
    sr, hr = images()
    collection = all_metrics()
    for start in (0, 5):
        part = slice(start, 5 if start == 0 else None)
        collection.update(sr[part], hr[part])
    found = values(collection.compute())
    arrays = [[image.permute(1, 2, 0).numpy() for image in batch] for batch in (sr, hr)]
    rows = rsdiff.score(*arrays, "basicsr_y", scale=4)
    for name in ("psnr", "ssim"):
        assert found[name] == pytest.approx(sum(row[name] for row in rows) / len(rows), abs=1e-4)
    features = [Pooling()((batch * 255).round().to(torch.uint8)) for batch in (sr, hr)]
    assert found["fid"] == pytest.approx(frechet_distance(*features), abs=1e-5)
    assert found["kid"] == pytest.approx(kernel_distance(*features), abs=1e-7)
    plain = FrechetInceptionDistance(feature=Pooling())
    for batch, real in ((hr, True), (sr, False)):
        plain.update((batch * 255).round().to(torch.uint8), real=real)
    assert found["fid"] == pytest.approx(float(plain.compute()), abs=1e-6)
    one = metric("psnr", "basicsr_rgb", scale=4)
    expected = [
        PeakSignalNoiseRatio(255.0)((a * 255).round()[:, 4:-4, 4:-4], (b * 255).round()[:, 4:-4, 4:-4]) for a, b in zip(sr, hr, strict=True)
    ]
    assert float(one(sr, hr)) == pytest.approx(float(torch.stack(expected).mean()), abs=1e-4)


def test_images_without_a_finite_value_count_apart_and_masks_are_followed() -> None:
    sr, hr = images(3)
    sr[1] = hr[1]
    psnr = ImageMetric("psnr", "standard", scale=2)
    psnr.update(sr, hr)
    assert psnr.counts.tolist() == [2, 1, 0]
    valid = torch.ones(3, 1, 40, 36)
    valid[:, :, :20] = 0
    spoilt = torch.where(valid > 0, sr, torch.rand(()))
    found = [ImageMetric("psnr", "standard", scale=2) for _ in range(2)]
    for one, given in zip(found, (sr, spoilt), strict=True):
        one.update(given, hr, valid=valid)
    assert float(found[0].compute()) == float(found[1].compute())
    psnr.reset()
    assert math.isnan(float(psnr.compute()))


def test_metrics_survive_a_pickle_with_what_they_have_seen() -> None:
    """As torchmetrics' own tester asks of every class, and other people's loops of what they checkpoint."""
    sr, hr = images(3)
    psnr = metric("psnr", "basicsr_y", scale=4)
    psnr.update(sr, hr)
    again = pickle.loads(pickle.dumps(psnr))
    assert float(again.compute()) == float(psnr.compute())
    for one in (psnr, again):
        one.update(hr * 0.9, hr)
    assert float(again.compute()) == float(psnr.compute())


def test_a_collection_shares_no_states_between_formulas_whatever_the_first_batch_is() -> None:
    """torchmetrics shares the states of metrics that look alike after one batch: here nothing counts in it, or all images are perfect."""
    sr, hr = images(4)
    nothing = torch.zeros(4, 1, 40, 36)
    for first in ({"valid": nothing}, {}):
        both = metrics("basicsr_y", scale=4), MetricCollection([metric("psnr", name, scale=4) for name in ("basicsr_y",)])
        both[1].add_metrics({"rgb": metric("psnr", "basicsr_rgb", scale=4), "border": metric("psnr", "basicsr_y", scale=8)})
        for collection in both:
            collection.update(hr, hr, **first)
            collection.update(sr, hr)
            found = collection.compute()
            for name, one in collection.items(keep_base=True, copy_state=False):
                alone = metric(one.metric.name, one.config, one.scale)
                alone.update(hr, hr, **first)
                alone.update(sr, hr)
                assert float(found[name]) == float(alone.compute()), name


@pytest.mark.parametrize("make", [lambda: metric("psnr", "basicsr_y", scale=4), lambda: FrechetDistance(Pooling())])
def test_a_metric_does_what_the_tester_of_torchmetrics_asks(make: Callable[[], Metric]) -> None:
    """Its tester is no part of the installed package; these are what its sources ask of a class, two processes apart (see below)."""
    sr, hr = images(6)
    one, whole = make(), make()
    for constant in ("is_differentiable", "higher_is_better"):
        with pytest.raises(RuntimeError, match="const"):
            setattr(one, constant, not getattr(one, constant))
    assert hash(one) != hash(whole)
    assert not one.state_dict()
    by_batch = [one(sr[part], hr[part]) for part in (slice(0, 2), slice(2, 6))]
    fresh = make()
    fresh.update(sr[2:], hr[2:])
    torch.testing.assert_close(by_batch[1], fresh.compute())  # forward: the value of its batch alone
    whole.update(sr, hr)
    torch.testing.assert_close(one.compute(), whole.compute())
    first, second = make(), make()
    for part, taker in ((slice(0, 4), first), (slice(4, 6), second)):
        taker.update(sr[part], hr[part])
    first.merge_state(second)
    torch.testing.assert_close(first.compute(), whole.compute())
    stored, taken = one.clone(), make()
    for keeper in (stored, taken):
        keeper.persistent(True)
    taken.load_state_dict(stored.state_dict())
    for keeper in (taken, one):
        keeper.update(sr[:2].flip(2), hr[:2])
    torch.testing.assert_close(taken.compute(), one.compute())
    one.reset()
    one.update(sr, hr)
    torch.testing.assert_close(one.compute(), whole.compute())
    for dtype in (torch.float16, torch.bfloat16):  # as exact as the images are
        halved, widened = make(), make()
        halved.update(sr.to(dtype), hr.to(dtype))
        widened.update(sr.to(dtype).float(), hr.to(dtype).float())
        assert float(halved.compute()) == float(widened.compute())


def test_every_protocol_is_what_the_command_line_composes() -> None:
    assert all(preset(path.stem).metrics for path in (REPOSITORY / "conf" / "metrics").glob("*.yaml"))
    for name in ("standard", "blinddiff", "r2hgan"):  # the last two have the defaults of others
        assert preset(name) == rsdiff.compose("task=score", "sr=.", "hr=.", f"metrics={name}").metrics, name
    assert "psnr" in metrics("standard")


def test_what_cannot_be_computed_is_refused_in_a_sentence() -> None:
    with pytest.raises(UserError, match="'psnrr' is not a metric"):
        metric("psnrr")
    with pytest.raises(UserError, match="'basicsr' is not a protocol"):
        metric("psnr", "basicsr")
    with pytest.raises(UserError, match="task=evaluate knows"):
        metric("lr_psnr")
    with pytest.raises(UserError, match=r"give \(B, C, H, W\) of equal sizes"):
        metric("psnr").update(torch.rand(1, 3, 8, 8), torch.rand(1, 3, 9, 8))
    with pytest.raises(UserError, match="use ImageMetric"):
        SetMetric("psnr")


def _in_process(rank: int, place: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{place}/meeting", rank=rank, world_size=2)
    sr, hr = images()
    collection = all_metrics()
    collection.update(sr[rank::2], hr[rank::2])
    torch.save(values(collection.compute()), f"{place}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_have_the_values_of_one(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_in_process, (str(tmp_path),), nprocs=2)
    collection = all_metrics()
    collection.update(*images())
    expected = values(collection.compute())
    for rank in range(2):
        assert torch.load(tmp_path / f"{rank}.pt") == pytest.approx(expected, abs=1e-6)
