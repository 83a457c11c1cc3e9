"""A trained model in Python: images of every kind in, the same kind out."""

from __future__ import annotations

import re
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsdiff.api.commands import checked_options
from rsdiff.app.groups import GROUPS
from rsdiff.app.plugins import load_plugins, name_plugins
from rsdiff.config import UserError, config_from_mapping, plain_values
from rsdiff.config.quiet import quietly
from rsdiff.config.reading import require_effect

if TYPE_CHECKING:
    from rsdiff.diffusion.sampler import SamplerConfig
    from rsdiff.inference.pictures import Layout
    from rsdiff.methods.base import MethodConfig, Problem
    from rsdiff.metrics.calibration import Calibration
    from rsdiff.training.built import Trained


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
    from rsdiff.diffusion.sampler import SamplerConfig
    from rsdiff.methods.former import present_groups
    from rsdiff.runs.predecessor import locate
    from rsdiff.training.built import method_from
    from rsdiff.training.checkpoints import read_checkpoint

    name_plugins(plugins)
    load_plugins()
    chosen = _device(device)
    if isinstance(place, str) and place in GROUPS["model"] and GROUPS["model"][place]().is_ready and not Path(place).exists():
        return Model(place, GROUPS["model"][place](), SamplerConfig(), chosen, None)
    if isinstance(place, str) and place in GROUPS["model"] and not Path(place).exists():
        raise UserError(f"{place} is a model with weights to learn; give the run folder or the checkpoint of a training, or zoo:NAME.")
    checkpoint = read_checkpoint(locate(str(place), Path(outputs)))
    trained = method_from(checkpoint, checkpoint.card["problem"]["scale"])
    trained.method.to(chosen)
    config = present_groups(checkpoint.card["config"])
    model, sampler = ({name: value for name, value in config[group].items() if name != "kind"} for group in ("model", "sampler"))
    return Model(
        checkpoint.card.get("choices", {}).get("model", config["model"]["kind"]),
        config_from_mapping(GROUPS["model"][config["model"]["kind"]], model, "model"),
        config_from_mapping(SamplerConfig, sampler, "sampler"),
        chosen,
        trained,
    )


def _device(name: Any) -> Any:
    """Return a device of PyTorch that can be used; raises UserError for another."""
    import torch

    try:
        chosen = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise UserError(f"device={name} cannot be used here ({str(error).splitlines()[0][:120]}); give 'cpu', 'cuda' or 'auto'.") from None
    return chosen


@dataclass(eq=False, repr=False)
class Model:
    """A trained model; `rsdiff.load` returns one.

    name     option of the group `model`
    config   its settings
    sampler  how a diffusion is sampled, as it was trained
    """

    name: str
    config: MethodConfig
    sampler: SamplerConfig
    device: Any
    _trained: Trained | None

    @property
    def problem(self) -> Problem | None:
        """Scale and bands it was trained for; None for a model without weights, which takes any."""
        return self._trained.problem if self._trained else None

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
        from rsdiff.diffusion.sampler import SamplerConfig
        from rsdiff.inference.pictures import picture_of

        picture = picture_of(image, layout)
        wanted, seed = self._scale(scale), checked_options(1.0, seed).seed
        self._caution(wanted)
        plain = config_from_mapping(SamplerConfig, {**plain_values(self.sampler), **(sampler or {})}, "sampler")
        require_effect({"model": self.config, "sampler": plain}, [f"sampler.{name}" for name in sampler or {}])
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

        if self._trained is None:
            raise UserError(f"{self.name} has no network that could be exported; load one with weights.")
        form = format_of(Path(output), "auto")
        if form not in ("onnx", "torchscript"):
            raise UserError(f"{output} is a file of weights, which task=export writes; name a program {Path(output).stem}.onnx or .ts.")
        return export_program(self._trained.method, self._trained.problem, Path(output), form, side)[0]

    def _caution(self, scale: float) -> None:
        """Warn where the model was not trained at a scale, once for each place in the caller's code as Python does."""
        from rsdiff.weights.trained_scales import beyond_training

        checkpoint = self._trained.checkpoint if self._trained else None
        for sentence in beyond_training(checkpoint.card, checkpoint.name, scale) if checkpoint else ():
            warnings.warn(sentence, stacklevel=3)

    def _scale(self, scale: float | None) -> float:
        trained = self.problem.scale if self.problem else 4.0
        wanted = checked_options(trained if scale is None else scale).scale
        if wanted < 1:
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
        stored = find(scale, sampler, self._trained.checkpoint.folder if self._trained else None, given, samples)
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
        from rsdiff.inference.scene_job import Alone, Restorer
        from rsdiff.inference.scene_options import SceneOptions
        from rsdiff.inference.scenes import restore_scene
        from rsdiff.methods.base import Problem
        from rsdiff.training.built import build_method

        dtype = picture.values.dtype
        if dtype.kind not in "uif":
            raise UserError(f"an image of {dtype} was given; give integers or floats.")
        written = replace(picture, values=picture.values.astype(np.float32)) if dtype == np.float16 else picture
        chosen = config_from_mapping(SceneOptions, options, "")
        require_effect({"restore": chosen}, [f"restore.{name}" for name in options])
        with without_warnings(), quietly():
            written.write(folder / "in.tif")
            if self._trained is not None:
                method, problem = self._trained.method, self._trained.problem
            else:
                with SceneReader(folder / "in.tif", chosen.view()) as reader:
                    problem = Problem(scale, len(reader.bands), len(reader.bands))
                method = build_method(self.config, problem, seed).to(self.device).eval()
            restorer = Restorer(
                method=method,
                problem=problem,
                scale=scale,
                sampler=sampler,
                trained=self._trained.normaliser if self._trained else None,
                needs=self.config.requires - {"hr", "lr"},
                seed=seed,
                device=self.device,
                identity=self.name,
                wavelengths=self._trained.wavelengths if self._trained else (),
                calibration=intervals,
            )
            job = restorer.job(folder / "in.tif", folder / "out.tif", folder / "scratch", chosen)
            result = restore_scene(job, Alone(), lambda done, total: None)
            form = dtype if chosen.dtype == "input" else None
            return [picture.read_back(path, form if path == job.output else None) for path in result.outputs]


def _in_python(message: str, file: Path) -> str:
    """Return a message of task=restore with its advice as arguments of `Model.restore`, and "the image" in place of its file."""

    def argument(found: re.Match[str]) -> str:
        value = found[2]
        return f"{found[1]}={value}" if re.fullmatch(r"[-\d.e]+|\[.*", value) else f"{found[1]}={value!r}"

    plain = re.sub(r"task\.(\w+)=(\[[^\]]*\]|[\w.+-]*\w)", argument, message.replace(str(file), "the image"))
    return re.sub(r"\btask\.(\w+)", r"\1", re.sub(r"(\w+='\w+') (\w+=)", r"\1, \2", plain))
