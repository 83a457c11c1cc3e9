"""rsdiff in Python: what the commands do, with arrays in and arrays out and nothing printed."""

from __future__ import annotations

import contextlib
import io
import math
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsdiff.app.command_line import check_run, composing
from rsdiff.app.composition import group_config
from rsdiff.app.main import CONF
from rsdiff.app.plugins import load_plugins, name_plugins
from rsdiff.app.words import for_hydra, words_of
from rsdiff.config import UserError, config_from_mapping
from rsdiff.config.paths import typed_path
from rsdiff.runs.settings import RunSettings

if TYPE_CHECKING:
    import pandas
    from torch import Tensor

    from rsdiff.data.normalisation import Normaliser
    from rsdiff.diffusion.sampler import SamplerConfig
    from rsdiff.inference.pictures import Layout
    from rsdiff.methods.base import Method, MethodConfig, Problem
    from rsdiff.metrics.calibration import Calibration


def compose(*settings: str) -> RunSettings:
    """Return the checked settings of a command, typed and frozen; raises ConfigError as the command does.

    >>> import rsdiff
    >>> run = rsdiff.compose("model=sr3_tiny", "degradation=iso", "scale=2")
    >>> run.scale, run.model.width
    (2.0, 16)
    """
    words = words_of(settings)
    name_plugins(words.plugins)
    with composing(CONF):
        return check_run(for_hydra(words))


def load(place: str | Path, device: str = "auto", outputs: str | Path = "outputs", plugins: Sequence[str] = ()) -> Model:
    """Return a trained model.

    place    a run's folder or its signature, a checkpoint's folder or weights file; or the name of a model without weights ('bicubic')
    device   'auto' takes a GPU where there is one
    outputs  folder of all run folders, in which a signature is looked up
    plugins  modules with methods and networks of your own, besides those installed, as plugins=[..] names them in a command

    >>> import rsdiff
    >>> rsdiff.load("bicubic").name
    'bicubic'
    """
    import torch

    from rsdiff.app.groups import GROUPS
    from rsdiff.data.normalisation import Normaliser
    from rsdiff.diffusion.sampler import SamplerConfig
    from rsdiff.methods.former import present_groups
    from rsdiff.runs.predecessor import locate
    from rsdiff.training.built import method_from
    from rsdiff.training.checkpoints import read_checkpoint

    name_plugins(plugins)
    load_plugins()
    chosen = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    if isinstance(place, str) and place in GROUPS["model"] and GROUPS["model"][place]().is_ready and not Path(place).exists():
        return Model(place, GROUPS["model"][place](), None, None, None, SamplerConfig(), chosen)
    checkpoint = read_checkpoint(locate(str(place), Path(outputs)))
    trained = method_from(checkpoint, checkpoint.card["problem"]["scale"])
    config = present_groups(checkpoint.card["config"])
    model, sampler = ({name: value for name, value in config[group].items() if name != "kind"} for group in ("model", "sampler"))
    return Model(
        checkpoint.card.get("choices", {}).get("model", config["model"]["kind"]),
        config_from_mapping(GROUPS["model"][config["model"]["kind"]], model, "model"),
        trained.method.to(chosen),
        trained.problem,
        Normaliser.from_json(checkpoint.card["normaliser"]),
        config_from_mapping(SamplerConfig, sampler, "sampler"),
        chosen,
        checkpoint.folder,
    )


@dataclass(eq=False, repr=False)
class Model:
    """A trained model; `rsdiff.load` returns one.

    name     option of the group `model`
    config   its settings
    problem  scale and bands it was trained for; None for a model without weights, which takes any
    sampler  how a diffusion is sampled, as it was trained
    """

    name: str
    config: MethodConfig
    _method: Method | None
    problem: Problem | None
    _trained: Normaliser | None
    sampler: SamplerConfig
    device: Any
    _place: Path | None = None

    def __repr__(self) -> str:
        about = f", x{self.problem.scale:g}, {self.problem.lr_bands} to {self.problem.bands} bands" if self.problem else ""
        return f"<rsdiff model {self.name}{about}>"

    def restore(
        self,
        image: Any,
        scale: float | None = None,
        seed: int = 0,
        samples: int = 1,
        level: float | None = None,
        calibration: str | Path = "",
        *,
        layout: Layout = "HWC",
        sampler: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        """Return the image enlarged, of the kind and type that was given; georeference, coordinates and missing pixels go along.

        image    NumPy (H, W) or (H, W, C), or (C, H, W) with layout='CHW'; a tensor (C, H, W); a Pillow image; an open rasterio data set;
                 an xarray DataArray. Masked values, NaN and what a data set says is missing stay missing. Floats are taken for values
                 in [0, 1], unless scaling='trained' says that they are stored values
        scale    target pixels per input pixel; None takes the scale the model was trained for (4 without weights)
        seed     the same image, seed and options give the same result
        samples  from 2 on, restorations drawn of every pixel: returns (mean, standard deviation)
        level    such as 0.9: returns (mean, standard deviation, half the width of the intervals in which this share of the HR values lie)
        calibration  run folder of task=calibrate that says how wide intervals are; '' takes the one stored with the checkpoint
        sampler  other options of the sampler, such as {'steps': 10}
        options  of task=restore: tile=256, scaling='percentile', nodata=0, ...

        >>> import numpy, rsdiff
        >>> rsdiff.load("bicubic").restore(numpy.zeros((24, 32, 3), numpy.uint8), scale=2).shape
        (48, 64, 3)
        """
        from rsdiff.inference.pictures import picture_of

        picture = picture_of(image, layout)
        wanted, plain = self._scale(scale), replace(self.sampler, **sampler or {})
        chosen = {"preview": False, "compress": "none", **options, "samples": samples, **({} if level is None else {"level": level})}
        if picture.values.dtype.kind == "f":
            chosen = {"scaling": "none", **chosen}
        with tempfile.TemporaryDirectory(prefix="rsdiff-") as folder:
            try:
                intervals = self._intervals(wanted, plain, samples, level, str(calibration))
                images = self._restored(picture, wanted, seed, chosen, plain, Path(folder), intervals)
            except UserError as error:
                raise UserError(_in_python(str(error), Path(folder) / "in.tif")) from error
        return images[0] if samples == 1 else tuple(images)

    def export(self, output: str | Path, side: int = 64) -> str:
        """Write the network as a program that runs without rsdiff (NAME.onnx, NAME.ts) and return what was written and how well it agrees.

        side  of the images in pixels that the program is made and compared with; see rsdiff.weights.programs
        """
        from rsdiff.weights.programs import export_program, format_of

        if self._method is None or self.problem is None:
            raise UserError(f"{self.name} has no network that could be exported; load one with weights.")
        form = format_of(Path(output), "auto")
        if form not in ("onnx", "torchscript"):
            raise UserError(f"{output} is a file of weights, which task=export writes; name a program {Path(output).stem}.onnx or .ts.")
        return export_program(self._method, self.problem, Path(output), form, side)[0]

    def _scale(self, scale: float | None) -> float:
        trained = self.problem.scale if self.problem else 4.0
        wanted = float(trained if scale is None else scale)
        if not 1 <= wanted < math.inf:
            raise UserError(f"scale={wanted:g} was given, target pixels per input pixel; give 1 or more.")
        if self.problem is not None and wanted != trained and not self.config.any_scale:
            raise UserError(f"{self.name} was trained at scale={trained:g} and has one scale; leave scale={wanted:g} out.")
        return wanted

    def _intervals(self, scale: float, sampler: SamplerConfig, samples: int, level: float | None, given: str) -> Calibration | None:
        """Return how wide intervals are, None without a level; raises UserError where a level has no effect or nothing says how wide."""
        from rsdiff.runs.calibrations import find

        if level is None and not given:
            return None
        if level is None or samples < 2:
            raise UserError("intervals have a level and take several samples; give level=0.9 and samples=8, for example.")
        stored = find(scale, sampler, self._place, given, samples)
        if stored is None:
            raise UserError(
                f"{self.name} has no calibration of {samples} samples at x{scale:g} with this sampler; make one with task=calibrate, "
                "or leave level out."
            )
        return stored.calibration

    def _restored(
        self,
        picture: Any,
        scale: float,
        seed: int,
        options: Mapping[str, Any],
        sampler: SamplerConfig,
        folder: Path,
        intervals: Calibration | None,
    ) -> list[Any]:
        """Return the restored image, and of several samples their spread, by the way of task=restore: a raster in `folder`."""
        import numpy as np

        from rsdiff.data.opening import without_warnings
        from rsdiff.inference.scene_input import SceneReader
        from rsdiff.inference.scene_job import Alone, SceneJob
        from rsdiff.inference.scene_options import SceneOptions
        from rsdiff.inference.scenes import restore_scene
        from rsdiff.methods.base import Problem
        from rsdiff.training.built import build_method

        dtype = picture.values.dtype
        if dtype.kind not in "uif":
            raise UserError(f"an image of {dtype} was given; give integers or floats.")
        written = replace(picture, values=picture.values.astype(np.float32)) if dtype == np.float16 else picture
        chosen = config_from_mapping(SceneOptions, options, "")
        with without_warnings():
            written.write(folder / "in.tif")
            problem, method = self.problem, self._method
            if problem is None or method is None:
                with SceneReader(folder / "in.tif", chosen.view()) as reader:
                    problem = Problem(scale, len(reader.bands), len(reader.bands))
                method = build_method(self.config, problem, seed).to(self.device).eval()
            job = SceneJob(
                input=folder / "in.tif",
                output=folder / "out.tif",
                scratch=folder / "scratch",
                method=method,
                problem=problem,
                scale=scale,
                sampler=sampler,
                options=chosen,
                trained=self._trained,
                needs=self.config.requires - {"hr", "lr"},
                seed=seed,
                device=self.device,
                identity=self.name,
                calibration=intervals,
            )
            result = restore_scene(job, Alone(), lambda done, total: None)
            form = dtype if chosen.dtype == "input" else None
            return [picture.read_back(path, form if path == job.output else None) for path in result.outputs]


def degrade(
    image: Any, degradation: str, scale: float = 4, seed: int = 0, *, layout: Layout = "HWC", peak: float | None = None, **options: Any
) -> tuple[Any, Any, Any]:
    """Return (lr, hr, decisions) of an image, of the kind that was given.

    degradation  an option of the group, such as 'iso' or 'bsrgan', or a kind, such as 'gaussian'
    options      of the degradation, instead of those in its file: rsdiff.degrade(image, 'iso', width=[1.0, 1.0])
    hr           the target that belongs to lr: cut to a multiple of the scale, or sharpened, where the degradation does so
    decisions    what was drawn
    peak         the value that stands for 1: 10000 for reflectances of 16 bits
    Types and ranges are those of `rsdiff.degradations.degrade_array`.

    >>> import numpy, rsdiff
    >>> lr, hr, _ = rsdiff.degrade(numpy.full((40, 48, 3), 100, numpy.uint8), "bicubic", scale=4)
    >>> lr.shape, hr.shape, lr.dtype, int(lr[5, 5, 0])
    ((10, 12, 3), (40, 48, 3), dtype('uint8'), 100)
    """
    import numpy as np

    from rsdiff.degradations import DEGRADATIONS
    from rsdiff.degradations.array import degraded, peak_of
    from rsdiff.inference.pictures import picture_of

    picture = picture_of(image, layout)
    with composing(CONF):
        given = [f"++degradation.{name}={_typed(value)}" for name, value in options.items()]
        if degradation in DEGRADATIONS and degradation not in _options("degradation"):
            config = config_from_mapping(DEGRADATIONS[degradation], options, degradation)
        else:
            composed = _composed([f"degradation={degradation}", f"scale={scale:g}", *given])
            config = group_config(composed, "degradation")
    made = degraded(config.build(), picture.values, picture.valid, scale, seed, peak_of(picture.values, peak, picture.valid))
    height, width = (np.array(made.lr.shape[1:]) * scale).round().astype(int)
    cut = replace(picture, values=picture.values[:, :height, :width])
    return cut.made(made.lr, made.lr_valid), cut.made(made.hr, made.hr_valid), made.decisions


def score(
    sr: Any, hr: Any, protocol: str = "standard", scale: float = 4, *, layout: Layout = "HWC", peak: float | None = None, **options: Any
) -> list[dict[str, Any]]:
    """Return one row of metric values per image that was restored elsewhere, under a protocol of the group `metrics`.

    sr, hr    an image, or a list of images of the same kinds, each of the size of its HR image; or two folders (or files), as paths, as
              task=score takes them
    peak      of images, the value that stands for 1: 255 for uint8, 1 for floats, 65535 for uint16 that fill that range; 10000 for
              reflectances of 16 bits. Only 8-bit images are rounded to 256 levels
    protocol  an option of the group: 'basicsr_y', 'standard', ...
    scale     of the restoration: some protocols leave out as many border pixels
    options   of the metrics, instead of those in its file: metrics=['psnr']

    >>> import numpy, rsdiff
    >>> hr = numpy.full((64, 64, 3), 100, numpy.uint8)
    >>> rows = rsdiff.score(hr + numpy.uint8(10), hr, "standard", metrics=["psnr"])
    >>> round(rows[0]["psnr"], 2)
    28.13
    """
    import torch

    from rsdiff.data.sample import Batch, SampleMeta
    from rsdiff.metrics import Evaluator

    if isinstance(sr, str | Path):
        return _scored_folders(Path(sr), Path(hr), protocol, scale, options)
    images, references = ([*x] if isinstance(x, Sequence) else [x] for x in (sr, hr))
    if len(images) != len(references) or not images:
        raise UserError(f"{len(images)} restored images and {len(references)} references were given; give as many of both.")
    config = _metrics(protocol, options)
    rows: list[dict[str, Any]] = []
    evaluator = None
    for number, (image, reference) in enumerate(zip(images, references, strict=True)):
        target, known, largest = _unit_range(reference, layout, peak)
        restored, made, _ = _unit_range(image, layout, peak, like=reference, largest=largest)
        if restored.shape != target.shape:
            raise UserError(
                f"image {number} has the shape {tuple(restored.shape)} and its reference {tuple(target.shape)}; give equal sizes."
            )
        size = (target.shape[1], target.shape[2])
        if evaluator is None:
            config = replace(config, protocol=config.protocol.for_values((0.0,), (255.0 if largest == 1 else largest,)))
            evaluator = Evaluator(config, len(target), True, None, torch.device("cpu"))
        small = (round(size[0] / scale), round(size[1] / scale))
        valid = None if bool((known & made).all()) else (known & made).float()[None]
        batch = Batch([SampleMeta(f"{number:05d}", number)], size, small, hr=target[None], valid=valid)
        rows += [dict(row) for row in evaluator.rows(batch, restored[None], 0.0)]
    return rows


def _scored_folders(sr: Path, hr: Path, protocol: str, scale: float, options: Mapping[str, Any]) -> list[dict[str, Any]]:
    from rsdiff.data.file_options import FileOptions
    from rsdiff.tasks.score import Images, score_images

    images = Images(typed_path(sr), typed_path(hr), {}, FileOptions(), scale)
    return [dict(row) for row in score_images(sr.name, images, _metrics(protocol, options)).rows]


def _metrics(protocol: str, options: Mapping[str, Any]) -> Any:
    """Return the settings of an option of the group `metrics`, changed by `options`."""
    with composing(CONF):
        given = [f"metrics.{name}={_typed(value)}" for name, value in options.items()]
        return group_config(_composed([f"metrics={protocol}", *given]), "metrics")


def evaluate(checkpoint: str | Path, *settings: str, outputs: str | Path = "outputs", verbose: bool = False) -> pandas.DataFrame:
    """Evaluate a checkpoint as task=evaluate does, and return one row per image.

    settings  as on the command line: rsdiff.evaluate(RUN, "dataset=whu", "metrics=basicsr_y"); what is not chosen comes from the checkpoint
    outputs   folder of all run folders: the evaluation's report is there, and a finished one is read from there
    verbose   print what the command prints

    >>> import rsdiff, tempfile
    >>> small = ("dataset=synthetic", "dataset.size=32", "dataset.test_images=2", "metrics.metrics=[psnr]")
    >>> rows = rsdiff.evaluate("zoo:any_scale", *small, outputs=tempfile.mkdtemp())
    >>> len(rows), bool((rows["psnr"] > 10).all())
    (2, True)
    """
    from rsdiff.reporting.records import read_records
    from rsdiff.runs.working import do_run

    run = compose("task=evaluate", f"checkpoint={checkpoint}", f"outputs={outputs}", *settings)
    silence = contextlib.nullcontext() if verbose else contextlib.redirect_stdout(io.StringIO())
    quiet = contextlib.nullcontext() if verbose else contextlib.redirect_stderr(io.StringIO())
    with silence, quiet:
        do_run(run)
    return read_records(run.run_path / "evaluation")


def _composed(settings: Sequence[str]) -> Any:
    from rsdiff.app.command_line import compose_command

    return compose_command(settings)


def _options(group: str) -> list[str]:
    from rsdiff.app.diagnosis import options_of_group

    return options_of_group(group)


def _in_python(message: str, file: Path) -> str:
    """Return a message of task=restore with its advice as arguments of `Model.restore`, and "the image" in place of its file."""

    def argument(found: re.Match[str]) -> str:
        value = found[2]
        return f"{found[1]}={value}" if re.fullmatch(r"[-\d.e]+|\[.*", value) else f"{found[1]}={value!r}"

    plain = re.sub(r"task\.(\w+)=(\[[^\]]*\]|[\w.+-]*\w)", argument, message.replace(str(file), "the image"))
    return re.sub(r"(\w+='\w+') (\w+=)", r"\1, \2", plain)


def _typed(value: Any) -> str:
    """Return a value as Hydra's grammar writes it."""
    if isinstance(value, str):
        return "'" + value.replace("'", "\\'") + "'"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_typed, value)) + "]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _unit_range(
    image: Any, layout: Layout, peak: float | None, like: Any = None, largest: float | None = None
) -> tuple[Tensor, Tensor, float]:
    """Return an image (C, H, W) with the value that stands for 1 divided out (0 where it is missing), what is valid, and that value.

    like, largest  an image of the same type and its value: what was restored is measured as its reference is, whatever it overshoots
    """
    import numpy as np
    import torch

    from rsdiff.degradations.array import peak_of
    from rsdiff.inference.pictures import picture_of

    picture = picture_of(image, layout)
    values, valid = picture.values, picture.valid
    if largest is None or picture_of(like, layout).values.dtype != values.dtype:
        largest = peak_of(values, peak, valid)
    known = np.where(valid, values, values.dtype.type(0))
    return torch.from_numpy(known.astype(np.float32) / np.float32(largest)), torch.from_numpy(valid), largest
