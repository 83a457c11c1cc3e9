"""Whole scenes: the result depends on the scene and the seed, not on how the work was divided."""

from __future__ import annotations

import itertools
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch

from rsdiff.data.sample import Batch
from rsdiff.data.source import DataError
from rsdiff.diffusion.noise import NoiseSource
from rsdiff.diffusion.sampler import SamplerConfig
from rsdiff.inference.scene_job import Alone, SceneJob
from rsdiff.inference.scene_tiles import TileInput, TileRestorer
from rsdiff.inference.scenes import restore_scene
from rsdiff.methods.base import Method
from rsdiff.metrics.seams import SeamScore, seam_score
from tests.scene_methods import Convolutions, diffusion, job, landscape, pixels, regression, restored, write_raster


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    values = landscape(3, 40, 61)
    values[:, 12:30, 20:50] = 0
    return write_raster(tmp_path / "scene.tif", values, nodata=0)


METHODS = pytest.mark.parametrize("method", [regression(), diffusion()], ids=["regression", "diffusion"])


@METHODS
def test_the_bytes_do_not_depend_on_the_order_or_the_batch_of_tiles(tmp_path: Path, scene: Path, method: Method) -> None:
    restored(job(tmp_path, scene, method, name="plain.tif"))
    restored(job(tmp_path, scene, method, name="shuffled.tif"), lambda n: np.random.default_rng(3).permutation(n).tolist())
    restored(job(tmp_path, scene, method, name="batched.tif", batch=3))
    plain = (tmp_path / "plain.tif").read_bytes()
    assert (tmp_path / "shuffled.tif").read_bytes() == plain
    assert (tmp_path / "batched.tif").read_bytes() == plain


class Threads:
    """A team whose processes are threads."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.barrier = threading.Barrier(count, timeout=60)
        self.said: list[Any] = [None] * count

    def member(self, rank: int) -> Member:
        return Member(self, rank)


class Member:
    def __init__(self, team: Threads, rank: int) -> None:
        self.team, self.rank, self.count = team, rank, team.count

    def _all(self, mine: Any) -> list[Any]:
        self.team.said[self.rank] = mine
        self.team.barrier.wait()
        said = list(self.team.said)
        self.team.barrier.wait()
        return said

    def any(self, mine: bool) -> bool:
        return any(self._all(mine))

    def smallest(self, mine: int) -> int:
        return min(self._all(mine))


def test_several_processes_write_the_same_bytes_as_one(tmp_path: Path, scene: Path) -> None:
    method = diffusion()
    restored(job(tmp_path, scene, method, name="alone.tif"))
    team, work = Threads(3), job(tmp_path, scene, method, name="together.tif")
    errors: list[BaseException] = []

    def take_part(rank: int) -> None:
        try:
            restore_scene(work, team.member(rank), lambda done, total: None)
        except BaseException as error:
            errors.append(error)
            team.barrier.abort()

    threads = [threading.Thread(target=take_part, args=(rank,)) for rank in range(team.count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert (tmp_path / "together.tif").read_bytes() == (tmp_path / "alone.tif").read_bytes()


class Killed(BaseException):
    """Stands for a signal that ends the process."""


@pytest.mark.parametrize("survived", [1, 6, 11])
def test_a_killed_and_resumed_run_writes_the_bytes_of_an_uninterrupted_one(tmp_path: Path, scene: Path, survived: int) -> None:
    method = regression()
    restored(job(tmp_path, scene, method, name="whole.tif"))
    tiles, method.restored = method.restored, 0
    work = job(tmp_path, scene, method, name="resumed.tif")
    calls = []

    def stop(done: int, total: int) -> None:
        calls.append(done)
        if len(calls) == survived:
            raise Killed

    with pytest.raises(Killed):
        restore_scene(work, Alone(), stop)
    assert not work.output.exists()
    restored(work)
    assert method.restored <= tiles
    assert work.output.read_bytes() == (tmp_path / "whole.tif").read_bytes()
    assert not work.scratch.exists()


def test_files_are_read_and_written_by_one_thread_while_the_network_computes(
    tmp_path: Path, scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, read, threads = regression(), TileRestorer.read, set()
    work = job(tmp_path, scene, method, name="beside.tif")
    restored(job(tmp_path, scene, regression(), name="expected.tif"))
    is_read, shown, broken = [threading.Event() for _ in range(15)], itertools.count(), 5

    def noted(tiles: TileRestorer, tile: int) -> TileInput | None:
        if tile == broken:
            raise DataError("scene.tif is damaged.")
        threads.add(threading.current_thread())
        is_read[tile].set()
        return read(tiles, tile)

    def needs_the_next(batch: Batch, sampler: SamplerConfig, noise: NoiseSource) -> torch.Tensor:
        following = next(shown) + 1
        if following != broken:
            assert is_read[following].wait(60), "the next tile is not read while this one is restored"
        return Convolutions.restore(method, batch, sampler, noise)

    with monkeypatch.context() as patch:
        patch.setattr(TileRestorer, "read", noted)
        patch.setattr(method, "restore", needs_the_next)
        with pytest.raises(DataError, match="is damaged"):
            restored(work)
    assert len(threads) == 1
    assert threading.main_thread() not in threads
    stored = [int(path.name) for path in (work.scratch / "tiles").iterdir()]
    assert 4 in stored, "what was restored before the error is kept"
    assert 5 not in stored
    restored(work)
    assert work.output.read_bytes() == (tmp_path / "expected.tif").read_bytes()


def test_a_tile_that_is_too_large_is_halved(tmp_path: Path, scene: Path) -> None:
    result = restored(job(tmp_path, scene, regression(limit=20 * 20), tile=64))
    assert result.tile == 16
    with pytest.raises(ValueError, match="too small for tiles of 16 pixels"):
        restored(job(tmp_path, scene, regression(limit=10), name="never.tif"))


def test_an_automatic_tile_is_found(tmp_path: Path, scene: Path) -> None:
    assert restored(job(tmp_path, scene, regression(), tile=0)).tile >= 16


def as_one_tile(work: SceneJob) -> SceneJob:
    return replace(work, options=replace(work.options, tile=128), output=work.output.with_name("untiled.tif"))


@METHODS
def test_tiles_show_no_more_than_in_the_untiled_result(tmp_path: Path, method: Method) -> None:
    source = write_raster(tmp_path / "scene.tif", landscape(3, 60, 70))
    work = job(tmp_path, source, method)
    tiled = restored(work)
    untiled = as_one_tile(work)
    restored(untiled)
    stride = 4 * (20 - 8)
    scores = [seam_score(pixels(path), stride, 4) for path in (work.output, untiled.output)]
    assert abs(scores[0] - scores[1]) < 0.05
    assert tiled.seam_score < 1.1


def test_the_seam_score_sees_tiles_that_do_not_meet() -> None:
    image = np.random.default_rng(0).normal(0, 1, (3, 96, 96))
    assert seam_score(image, 32, 4) == pytest.approx(1, abs=0.1)
    image[:, :, 32:64] += 5
    assert seam_score(image, 32, 4) > 3


def test_the_seam_score_of_pieces_is_that_of_the_whole_image() -> None:
    image = np.random.default_rng(0).normal(0, 1, (2, 50, 70))
    whole, pieces = (SeamScore((20, 32), (16, 40), 2) for _ in range(2))
    whole.add(image)
    for top in range(0, 50, 16):
        for left in range(0, 70, 16):
            pieces.add(image[:, top : top + 16, left : left + 16], top, left)
    assert pieces.value() == pytest.approx(whole.value())


def test_fused_tiles_show_no_more_than_tiles_restored_alone(tmp_path: Path) -> None:
    source = write_raster(tmp_path / "scene.tif", landscape(3, 44, 44))
    results = [restored(job(tmp_path, source, diffusion(), fuse=side, name=f"{side}.tif")) for side in (1, 2, 3)]
    assert [result.tiles for result in results] == [9, 4, 1]
    stride = 4 * (20 - 8)
    scores = [seam_score(pixels(result.outputs[0]), stride, 4) for result in results]
    assert max(scores) < scores[0] + 0.05


def test_missing_pixels_stay_missing_and_spread_nowhere(tmp_path: Path) -> None:
    values = landscape(2, 60, 50, "float32")
    values[0, 10:14, 20:25] = np.nan
    values[:, 30:, :10] = np.nan
    result = restored(job(tmp_path, write_raster(tmp_path / "scene.tif", values), regression(2), 2))
    expected = np.isnan(values).repeat(4, axis=1).repeat(4, axis=2)
    np.testing.assert_array_equal(np.isnan(pixels(result.outputs[0])), expected)


def test_valid_pixels_never_take_the_value_that_marks_missing_ones(tmp_path: Path, scene: Path) -> None:
    result = restored(job(tmp_path, scene, regression()))
    missing = (pixels(scene) == 0).all(axis=0).repeat(4, axis=0).repeat(4, axis=1)
    np.testing.assert_array_equal((pixels(result.outputs[0]) == 0).any(axis=0), missing)


def test_what_fills_a_hole_does_not_depend_on_the_window(scene: Path) -> None:
    from rsdiff.data.normalisation import Normaliser
    from rsdiff.inference.scene_input import NormalisedScene, SceneReader

    with SceneReader(scene) as reader:
        image = NormalisedScene(reader, Normaliser((0.0,), (255.0,)))
        whole, _ = image.window(0, 0, 40, 61)
        part, _ = image.window(11, 16, 25, 40)
    np.testing.assert_array_equal(part, whole[:, 11:36, 16:56])


def test_samples_differ_and_their_mean_and_spread_are_written(tmp_path: Path, scene: Path) -> None:
    result = restored(job(tmp_path, scene, diffusion(), samples=2))
    again = restored(job(tmp_path, scene, diffusion(), samples=2, name="again.tif"))
    spread = pixels(result.outputs[1])
    missing = (pixels(scene) == 0).all(axis=0).repeat(4, axis=0).repeat(4, axis=1)
    np.testing.assert_array_equal(np.isnan(spread).all(axis=0), missing)
    assert np.nanmean(spread) > 1
    assert again.outputs[1].read_bytes() == result.outputs[1].read_bytes()
    with rasterio.open(result.outputs[1]) as file:
        assert file.tags()["RSDIFF_CONTENT"] == "spread"
