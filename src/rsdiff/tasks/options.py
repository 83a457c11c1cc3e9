"""The tasks with their own options."""

from __future__ import annotations

from typing import ClassVar, Literal

from rsdiff.config import UserError, config
from rsdiff.config.reading import ABOVE_1, ReadWith, require_at_least
from rsdiff.downstream.options import DownstreamOptions
from rsdiff.inference.network_options import NetworkOptions
from rsdiff.inference.scene_options import SceneOptions
from rsdiff.inference.speed_options import SpeedOptions
from rsdiff.runs.options import TaskOptions


@config
class TrainTask(TaskOptions):
    """Train a model, evaluate its best checkpoint, write the report."""

    module: ClassVar[str] = "rsdiff.tasks.train"
    reads: ClassVar[tuple[Literal["train", "test"], ...]] = ("train", "test")
    uses: ClassVar[frozenset[str]] = frozenset({"model", "dataset", "degradation", "sampler", "trainer", "metrics"})
    takes: ClassVar[frozenset[str]] = frozenset({"scale", "seed", "checkpoint"})
    pairs_data: ClassVar[bool] = True
    starts: ClassVar[bool] = True


@config
class EvaluateTask(TaskOptions, NetworkOptions, SpeedOptions):
    """Evaluate a checkpoint on a data set and write the report."""

    module: ClassVar[str] = "rsdiff.tasks.evaluate"
    reads: ClassVar[tuple[Literal["train", "test"], ...]] = ("test",)
    tests_alone: ClassVar[bool] = True
    uses: ClassVar[frozenset[str]] = frozenset({"model", "dataset", "degradation", "sampler", "metrics"})
    takes: ClassVar[frozenset[str]] = frozenset({"scale", "seed", "checkpoint"})
    pairs_data: ClassVar[bool] = True
    continues: ClassVar[bool] = True
    is_calibrated: ClassVar[bool] = True
    located: ClassVar[frozenset[str]] = frozenset({"calibration"})
    located_lists: ClassVar[frozenset[str]] = frozenset({"ensemble"})
    result_neutral: ClassVar[frozenset[str]] = frozenset({"batch", "workers"})
    read_with: ClassVar[ReadWith] = {"calibration": ("samples", (ABOVE_1,))}

    batch: int = 1
    """Images of one size restored together; more than 1 helps on a GPU. Every image keeps its own noise."""
    tile: int = 0
    """Side in input pixels of the overlapping tiles that larger images are restored in, in the memory of a tile; 0 restores them whole."""
    workers: int = 0
    """Processes that read images ahead; with more than 0 a thread also scores and draws while the next images are restored, which helps on
    a GPU. 0 reads and scores each image when it is needed, so that nothing else takes the time of a restoration."""
    save_images: bool = False
    """Keep the restored images, in the type of the data and with their georeference, in the folder evaluation/images."""
    save_maps: bool = False
    """Keep, in evaluation/maps, where the detail of every image improves, is missing or was invented (bands 1, 2 and 3 of a GeoTIFF: shares
    that add up to 1, after opensr-test), and show it in the report."""
    ensemble: Literal["none", "mean", "median"] | tuple[str, ...] = "none"
    """Restore the eight flips and transposes of every input and take the mean or the (lower) median of the results; or [RUN_B,RUN_C]:
    checkpoints, trained with other seeds, whose restorations are samples beside those of `checkpoint`."""
    samples: int = 1
    """Restorations drawn of every image; from 2 on their spread is judged beside the first of them: CRPS, spread over skill, coverage of
    intervals. A model without noise restores so many of the eight flips and transposes; checkpoints of `ensemble` take turns."""
    calibration: str = ""
    """Run folder of task=calibrate that says how wide intervals are; empty takes the calibration stored with the checkpoint where there is
    one of these samples, scale and sampler; none takes none."""

    def __post_init__(self) -> None:
        require_at_least(self, batch=1, tile=0, workers=0)
        if self.samples < 1:
            raise UserError(f"samples={self.samples} was given; choose 1 or more.")
        self.require_sample_of_each(self.samples)
        if self.samples > 1 and self.ensemble in ("mean", "median"):
            raise UserError("ensemble and samples were both given; the mean of an ensemble has no spread: leave one of them out.")


@config
class CalibrateTask(TaskOptions):
    """Find how wide intervals must be to hold the share of HR pixels that they name, and store it with the checkpoint."""

    module: ClassVar[str] = "rsdiff.tasks.calibrate"
    reads: ClassVar[tuple[Literal["train", "test"], ...]] = ("test",)
    tests_alone: ClassVar[bool] = True
    uses: ClassVar[frozenset[str]] = frozenset({"model", "dataset", "degradation", "sampler"})
    needs: ClassVar[frozenset[str]] = frozenset({"checkpoint"})
    pairs_data: ClassVar[bool] = True
    continues: ClassVar[bool] = True
    located_lists: ClassVar[frozenset[str]] = frozenset({"ensemble"})

    samples: int = 8
    """Restorations drawn of every image, whose spread is calibrated; evaluations and restorations with as many use the calibration."""
    share: float = 0.5
    """Share of the test images that are fitted on; the intervals are tried on the others. At least 12 images are fitted on."""
    ensemble: tuple[str, ...] = ()
    """Checkpoints, trained with other seeds, whose restorations are samples beside those of `checkpoint`: [RUN_B,RUN_C]."""

    def __post_init__(self) -> None:
        if self.samples < 2:
            raise UserError(f"samples={self.samples} was given; a spread takes 2 or more.")
        if not 0 < self.share <= 1:
            raise UserError(f"share={self.share:g} was given; give a share above 0 and up to 1.")


@config
class DownstreamTask(TaskOptions, DownstreamOptions):
    """Ask whether restored images serve: objects found or scenes recognised in bicubic, SR and HR by a network trained on HR."""

    module: ClassVar[str] = "rsdiff.tasks.downstream"
    reads: ClassVar[tuple[Literal["train", "test"], ...]] = ("train", "test")
    uses: ClassVar[frozenset[str]] = frozenset({"model", "dataset", "degradation", "sampler"})
    takes: ClassVar[frozenset[str]] = frozenset({"scale", "seed", "checkpoint"})
    pairs_data: ClassVar[bool] = True
    continues: ClassVar[bool] = True


@config
class ScoreTask(TaskOptions):
    """Score images that any tool restored (sr=) against their references (hr=) under a protocol, and write the report."""

    module: ClassVar[str] = "rsdiff.tasks.score"
    uses: ClassVar[frozenset[str]] = frozenset({"metrics"})
    needs: ClassVar[frozenset[str]] = frozenset({"sr", "hr"})
    located: ClassVar[frozenset[str]] = frozenset({"lr_folder", "mask_folder"})

    lr_folder: str = ""
    """Folder of the LR images, named as the references: bicubic interpolation of them is scored beside the tool."""
    mask_folder: str = ""
    """Folder of masks, named as the references: pixels of value 0 do not count."""
    save_maps: bool = False
    """Keep, in evaluation/maps, where the detail of every image improves, is missing or was invented (bands 1, 2 and 3 of a GeoTIFF: shares
    that add up to 1, after opensr-test); takes `lr_folder`."""
    per_band: bool = False
    """Score every band by itself, too."""
    rgb: bool = False
    """Compare three bands: grey is repeated, alpha and further bands are dropped."""
    bands: tuple[int, ...] = ()
    """Bands to compare, counted from 1 and in this order; empty means all."""
    low: float | None = None
    """Stored value that is 0 of the metrics' range; None takes that of the files' type (0 of floats)."""
    high: float | None = None
    """Stored value that is the peak: 10000 for reflectances in 16 bits; None takes the type's largest (1 of floats)."""

    def __post_init__(self) -> None:
        if (self.low is None) != (self.high is None):
            raise UserError("low and high belong together; give both, or none for the range of the files' type.")
        if self.save_maps and not self.lr_folder:
            raise UserError("save_maps=true compares with what the images were restored from; add task.lr_folder=FOLDER.")


@config
class RestoreTask(TaskOptions, SceneOptions, SpeedOptions):
    """Restore images or whole georeferenced scenes with a checkpoint."""

    module: ClassVar[str] = "rsdiff.tasks.restore"
    uses: ClassVar[frozenset[str]] = frozenset({"model", "sampler"})
    takes: ClassVar[frozenset[str]] = frozenset({"scale", "seed", "checkpoint"})
    needs: ClassVar[frozenset[str]] = frozenset({"input", "output"})
    continues: ClassVar[bool] = True
    is_calibrated: ClassVar[bool] = True
    located: ClassVar[frozenset[str]] = frozenset({"calibration"})
    located_lists: ClassVar[frozenset[str]] = frozenset({"ensemble"})
    read_with: ClassVar[ReadWith] = {"calibration": ("samples", (ABOVE_1,))}

    calibration: str = ""
    """Run folder of task=calibrate that says how wide intervals are; empty takes the calibration stored with the checkpoint where there is
    one of these samples, scale and sampler; none takes none."""
    ensemble: tuple[str, ...] = ()
    """Checkpoints, trained with other seeds, whose restorations are samples beside those of `checkpoint`: [RUN_B,RUN_C]."""

    def __post_init__(self) -> None:
        SceneOptions.__post_init__(self)
        self.require_sample_of_each(self.samples)


@config
class PrepareTask(TaskOptions):
    """Pack a raw download into one verified HDF5 file."""

    module: ClassVar[str] = "rsdiff.tasks.prepare"
    uses: ClassVar[frozenset[str]] = frozenset({"dataset"})
    takes: ClassVar[frozenset[str]] = frozenset({"scale", "seed", "output", "source"})

    on_error: Literal["stop", "skip"] = "stop"
    """The first image that cannot be used ends the preparation, or such images are left out and reported."""


@config
class CheckTask(TaskOptions):
    """Look at everything a training or an evaluation needs, decode every file once, and list all that is wrong with what to do."""

    module: ClassVar[str] = "rsdiff.tasks.check"
    uses: ClassVar[frozenset[str]] = frozenset({"model", "dataset", "degradation", "sampler", "trainer", "metrics"})
    takes: ClassVar[frozenset[str]] = frozenset({"scale", "seed", "checkpoint"})
    repeats: ClassVar[bool] = True

    speed: bool = False
    """Measure in seconds what task.speed=fast would bring to restoring with this model on this device."""


@config
class PreviewTask(TaskOptions):
    """Look at a degradation: a sheet of degraded images and a sheet of the drawn parameters."""

    module: ClassVar[str] = "rsdiff.tasks.preview"
    reads: ClassVar[tuple[Literal["train", "test"], ...]] = ("train",)
    uses: ClassVar[frozenset[str]] = frozenset({"dataset", "degradation"})

    images: int = 5
    """Images shown, one row each."""
    columns: int = 6
    """Times each of them is degraded."""
    draws: int = 500
    """Draws behind the histograms of parameters."""
    patch: int = 192
    """Side of the HR crops in pixels."""
    rgb_bands: tuple[int, int, int] = (0, 1, 2)
    """Bands shown as red, green and blue, counted from 0."""

    def __post_init__(self) -> None:
        for name in ("images", "columns", "draws", "patch"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)} was given; give at least 1.")


@config
class StatusTask(TaskOptions):
    """Show the state of every run of a sweep, and run those again that failed."""

    module: ClassVar[str] = "rsdiff.tasks.status"
    uses: ClassVar[frozenset[str]] = frozenset()
    takes: ClassVar[frozenset[str]] = frozenset()
    only_looks: ClassVar[bool] = True

    sweep: str | None = None
    """The sweep's signature or folder; None means the one that was started last."""
    retry_failed: bool = False
    """Run again what failed or was killed, with the sweep's own launcher."""


@config
class BoardTask(TaskOptions):
    """Write the page index.html of the outputs folder: all runs, sweeps and tables, to sort, filter and compare."""

    module: ClassVar[str] = "rsdiff.tasks.board"
    uses: ClassVar[frozenset[str]] = frozenset()
    takes: ClassVar[frozenset[str]] = frozenset()
    only_looks: ClassVar[bool] = True


@config
class ImportTask(TaskOptions):
    """Convert released weights into a checkpoint of rsdiff, without running any code it contains."""

    module: ClassVar[str] = "rsdiff.tasks.import_weights"
    uses: ClassVar[frozenset[str]] = frozenset({"model", "dataset", "degradation", "sampler"})
    takes: ClassVar[frozenset[str]] = frozenset({"scale", "seed", "output"})
    needs: ClassVar[frozenset[str]] = frozenset({"source"})

    bands: int = 3
    """Bands of the images the weights were trained for."""
    lr_bands: int | None = None
    """Bands of the input, where they are not those of the target."""
    low: tuple[float, ...] = (0.0,)
    """Stored pixel value that becomes 0 for the model, common or per band."""
    high: tuple[float, ...] = (255.0,)
    """Stored pixel value that becomes 1 for the model, common or per band; 255 for weights trained on 8-bit images."""


@config
class ExportTask(TaskOptions):
    """Write a checkpoint's weights for use elsewhere: for the published code, or as a program that runs without rsdiff."""

    module: ClassVar[str] = "rsdiff.tasks.export"
    uses: ClassVar[frozenset[str]] = frozenset({"model"})
    takes: ClassVar[frozenset[str]] = frozenset({"scale", "seed", "checkpoint"})
    needs: ClassVar[frozenset[str]] = frozenset({"output"})
    continues: ClassVar[bool] = True

    format: Literal["auto", "safetensors", "pth", "onnx", "torchscript"] = "auto"
    """auto: as output= ends: .safetensors, .pth, .onnx, or .ts. safetensors and pth: weights under the names of published code; onnx and
    torchscript: the program of a network that restores in one evaluation. Each is read again and compared."""
    side: int = 64
    """Side in pixels of the images a program is made and compared with; rounded up to what the network needs."""

    def __post_init__(self) -> None:
        if self.side < 1:
            raise UserError(f"side={self.side} was given; give at least 1 pixel.")


@config
class ZooTask(TaskOptions):
    """List the weights that come with rsdiff, with figures, data and licences."""

    module: ClassVar[str] = "rsdiff.tasks.zoo"
    uses: ClassVar[frozenset[str]] = frozenset()
    takes: ClassVar[frozenset[str]] = frozenset()
    only_looks: ClassVar[bool] = True


@config
class PublishTask(TaskOptions):
    """Publish the weights of a checkpoint with a card: in a folder, in the zoo, or on Hugging Face's hub."""

    module: ClassVar[str] = "rsdiff.tasks.publish"
    uses: ClassVar[frozenset[str]] = frozenset({"model"})
    takes: ClassVar[frozenset[str]] = frozenset({"scale", "seed", "checkpoint", "output"})
    continues: ClassVar[bool] = True

    title: str
    """A line that names the weights."""
    does: str
    """For which images at which scale, and what not to expect."""
    data: tuple[str, ...]
    """What they were trained on, each with its licence: ['AID, train (research use)']."""
    licence: str
    """Licence of the weights."""
    recipe: str = ""
    """The command that trained them; empty takes that of the run."""
    results: tuple[str, ...] = ()
    """Runs of task=evaluate whose figures the card shows, on images the training did not see."""
    half: bool = False
    """Store the weights with 16 bits."""
    repository: str = ""
    """OWNER/NAME on Hugging Face's hub; empty publishes nowhere but in output=FOLDER."""
    private: bool = False
    """Make the repository private."""

    def __post_init__(self) -> None:
        lacking = [name for name in ("title", "does", "data", "licence") if not getattr(self, name)]
        if lacking:
            raise UserError(f"a card needs {', '.join(lacking)}; add {' '.join(f'task.{name}=..' for name in lacking)}.")


@config
class FitCmsrTask(TaskOptions):
    """Measure model.cmsr.table for a trained method of LMF: up to which difficulty a smaller scale will do."""

    module: ClassVar[str] = "rsdiff.tasks.fit_cmsr"
    reads: ClassVar[tuple[Literal["train", "test"], ...]] = ("train",)
    uses: ClassVar[frozenset[str]] = frozenset({"model", "dataset", "degradation"})
    needs: ClassVar[frozenset[str]] = frozenset({"checkpoint"})
    pairs_data: ClassVar[bool] = True
    continues: ClassVar[bool] = True

    images: int = 100
    """Training images that are measured, at most."""
    tolerance: float = 2e-5
    """Mean squared difference that is allowed to the full rendering, of values in [-1, 1]."""
    decode_scales: tuple[float, ...] = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0)
    """Scales to render at; those below `scale` count."""

    def __post_init__(self) -> None:
        require_at_least(self, images=1, tolerance=0, decode_scales=1)
        if not self.decode_scales or any(a >= b for a, b in zip(self.decode_scales, self.decode_scales[1:], strict=False)):
            raise UserError(f"decode_scales={list(self.decode_scales)} must ascend; give for example [1,2,4].")


@config
class FitLevelsTask(TaskOptions):
    """Find the noise levels with which a checkpoint's sampler comes nearest to its fine solution in `sampler.steps` steps."""

    module: ClassVar[str] = "rsdiff.tasks.fit_levels"
    reads: ClassVar[tuple[Literal["train", "test"], ...]] = ("train",)
    uses: ClassVar[frozenset[str]] = frozenset({"model", "dataset", "degradation", "sampler", "trainer"})
    needs: ClassVar[frozenset[str]] = frozenset({"checkpoint"})
    pairs_data: ClassVar[bool] = True
    continues: ClassVar[bool] = True

    images: int = 8
    """Images held out of the training data, as for validation: one half to fit on, the other to tell the error on."""
    fine_steps: int = 100
    """Steps of the reference solution, by the same solver, which the few steps are to approximate."""
    rounds: int = 3
    """Rounds in which every level is adjusted, each by half as much as the round before."""

    def __post_init__(self) -> None:
        require_at_least(self, images=2, fine_steps=2, rounds=0)


@config
class FitNiqeTask(TaskOptions):
    """Fit a NIQE model on the HR training images of a data set, for the metric niqe_rs."""

    module: ClassVar[str] = "rsdiff.tasks.fit_niqe"
    reads: ClassVar[tuple[Literal["train", "test"], ...]] = ("train",)
    uses: ClassVar[frozenset[str]] = frozenset({"dataset"})
    takes: ClassVar[frozenset[str]] = frozenset({"scale", "seed", "output"})

    block: int = 96
    """Side of the blocks in pixels; scores of models with other blocks cannot be compared."""
    sharpness: float = 0.75
    """A block counts if its sharpness exceeds this share of the sharpest block of its own image."""
    rgb_bands: tuple[int, int, int] = (0, 1, 2)
    """Bands shown as red, green and blue, counted from 0."""

    def __post_init__(self) -> None:
        if self.block < 16 or self.block % 2:
            raise UserError(f"block={self.block} was given; give an even number of at least 16 pixels.")
        if not 0 <= self.sharpness < 1:
            raise UserError(f"sharpness={self.sharpness} was given; give a share from 0 to below 1.")
