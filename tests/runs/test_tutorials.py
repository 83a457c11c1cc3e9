"""The tutorials do what they say: their own text is typed, with fewer steps and generated images."""

from __future__ import annotations

import contextlib
import io
import re
import runpy
import shlex
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import from_origin

from rsdiff.data.synthetic import SyntheticDataset
from tests.conftest import REPOSITORY, Command

PAGES = REPOSITORY / "docs/tutorials"
TRAINED = ("trainer.batch=1", "trainer.validation_images=1", "metrics.panels=1", "metrics.metrics=[psnr]")
GENERATED = ("dataset.size=64", "dataset.train_images=3", "dataset.test_images=1")
LATER = ("accelerate launch", "hydra/launcher=slurm", "logger=wandb", "make ")
"""Commands that need what a test has not; they are composed and checked by test_documentation.py."""


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """What the pages call FOLDER (12 images) and scene.tif (4 bands of 12 bits, a corner missing), in the current folder."""
    source = SyntheticDataset(size=96, train_images=12).build("train", 4)
    images = [source.raw(index).arrays["hr"].transpose(1, 2, 0) for index in range(12)]
    (tmp_path / "FOLDER").mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"FOLDER/{number}.png")
    bands = np.moveaxis(images[0][:48, :64], -1, 0)[[2, 1, 0, 0]].copy()
    bands[:, :6, :6] = 0
    profile = {"driver": "GTiff", "width": 64, "height": 48, "count": 4, "dtype": "uint8", "nodata": 0, "photometric": "MINISBLACK"}
    with rasterio.open(tmp_path / "scene.tif", "w", crs="EPSG:32633", transform=from_origin(5e5, 5e6, 10, 10), **profile) as scene:
        scene.write(np.where(bands == 0, 0, np.maximum(bands, 1)))
        scene.write(np.zeros((4, 6, 6), np.uint8), window=rasterio.windows.Window(0, 0, 6, 6))
    return tmp_path


def commands_of(page: str) -> list[str]:
    """Return the commands of a page's shell blocks, without comments."""
    blocks = re.findall(r"```bash\n(.*?)```", (PAGES / page).read_text(), re.DOTALL)
    return [line.partition("  #")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


def newest(where: Path, pattern: str) -> str:
    return str(max(where.glob(pattern), key=lambda path: path.stat().st_mtime, default=where / "none"))


def type_page(page: str, run_command: Command, where: Path, as_written: bool = False) -> list[str]:
    """Type a page's commands one after another and return what each printed.

    as_written  with the launcher of a sweep that the page names; else its runs follow one another in this process
    """
    said = []
    for command in commands_of(page):
        if any(word in command for word in LATER):
            continue
        fewer = re.sub(
            r"trainer\.steps=([\d,]+)",
            lambda found: "trainer.steps=" + ",".join(str(max(1, int(n) // 200)) for n in found[1].split(",")),
            command,
        )
        words = shlex.split(fewer.removeprefix("python run.py"))
        words = [
            word.replace("RUN_FOLDER", newest(where, "outputs/train/*/*")).replace("EVALUATION", newest(where, "outputs/evaluate/*/*"))
            for word in words
        ]
        if not as_written:
            words = [word for word in words if not word.startswith(("hydra/launcher", "hydra.launcher"))]
        if not any(word.startswith(("task=", "sweeps=")) for word in words):
            words += TRAINED
            words += () if "FOLDER" in command else GENERATED
        if "task=preview" in command:
            words += ["task.images=1", "task.columns=2", "task.draws=20"]
        if "task.results" in command:  # the page says how that evaluation is made
            result = run_command("task=evaluate", f"checkpoint={newest(where, 'outputs/train/*/*')}", "metrics.metrics=[psnr]")
            assert result.code == 0, result.err
            words = [word.replace(str(where / "none"), newest(where, "outputs/evaluate/*/*")) for word in words]
        ended = run_command(*words)
        assert ended.code == 0, (command, ended.err)
        said.append(ended.out)
    return said


def test_train_on_a_folder(run_command: Command, inputs: Path) -> None:
    said = type_page("folder.md", run_command, inputs)
    assert "plan     train rrdb_quick" in said[2]
    assert re.search(r"extending .*: from its step 3 to 6", said[3])
    assert len(list(inputs.glob("outputs/train/*/*/report.html"))) == 2
    assert (inputs / "outputs/index.html").is_file()


def test_restore_a_geotiff(run_command: Command, inputs: Path) -> None:
    type_page("geotiff.md", run_command, inputs)
    assert (inputs / "scene_bicubic_preview.html").is_file()
    with rasterio.open(inputs / "scene.tif") as scene, rasterio.open(inputs / "scene_x4.tif") as restored:
        assert (restored.width, restored.height, restored.count, restored.dtypes[0]) == (256, 192, 3, "uint8")
        assert restored.bounds == scene.bounds
        assert restored.crs == scene.crs
        assert not restored.dataset_mask()[:20, :20].any()
    with rasterio.open(inputs / "part.tif") as part:
        assert (part.width, part.height, part.dtypes[0]) == (64, 64, "float32")
    (lines,) = re.findall(r"```python\n(.*?)```", (PAGES / "geotiff.md").read_text(), re.DOTALL)
    names: dict[str, np.ndarray] = {}
    exec(lines, names)
    assert names["restored"].shape == (3, 192, 256)


def test_the_notebook(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(inputs)
    page = (PAGES / "notebook.md").read_text()
    notebook = runpy.run_path(str(REPOSITORY / "docs/notebook.py"))["notebook_of"](page)
    assert (REPOSITORY / "examples/first_steps.ipynb").read_text() == notebook, "python docs/notebook.py makes it again"
    names: dict[str, np.ndarray] = {}
    with contextlib.redirect_stdout(io.StringIO()):
        for lines in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
            exec(lines, names)
    assert names["image_x4"].shape == (192, 256, 3)
    assert names["rows"][0]["psnr"] > 24


@pytest.mark.slow  # test_board.py has a sweep and its page in the default suite
def test_a_sweep_and_its_page(run_command: Command, inputs: Path) -> None:
    said = type_page("sweep.md", run_command, inputs)
    assert "4 of 4 runs finished" in said[0]
    assert "4 finished" in said[1]
    assert (inputs / "outputs/index.html").is_file()


def test_fine_tune_weights_of_the_zoo(run_command: Command, inputs: Path) -> None:
    said = type_page("fine_tune.md", run_command, inputs)
    assert "starting from" in said[2]
    with rasterio.open(inputs / "scene_x3.tif") as restored:
        assert (restored.width, restored.height) == (192, 144)
    assert "Fine-tuned" in (inputs / "published/README.md").read_text()


@pytest.mark.slow  # processes of their own import PyTorch
@pytest.mark.parametrize("page", ["sweep.md", "cluster.md"])
def test_sweeps_with_their_launchers(page: str, run_command: Command, inputs: Path) -> None:
    assert any("finished" in text for text in type_page(page, run_command, inputs, as_written=True))


@pytest.mark.slow  # trains every method of a table
def test_a_papers_table(run_command: Command, inputs: Path) -> None:
    type_page("table.md", run_command, inputs)
    assert {path.name for path in inputs.glob("outputs/tables/*/table.*")} == {"table.md", "table.tex", "table.csv", "table.html"}
