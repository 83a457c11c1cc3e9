"""task=export: a checkpoint's weights for use elsewhere, checked by reading them again.

pth, safetensors   under the published names, for the published code; read again by the importer of task=import
onnx, torchscript  a network that restores in one evaluation, as a program that runs without rsdiff: (B, c, h, w) in [0, 1] to
                   (B, C, h scale, w scale), not clamped; run again beside the network, on images of two sizes
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from rsdiff.config import ConfigError, UserError, config_from_mapping
from rsdiff.config.ours import typed
from rsdiff.methods import METHODS
from rsdiff.methods.base import Method, MethodConfig, Problem
from rsdiff.methods.restoring import Restoring
from rsdiff.methods.spandrel import Spandrel
from rsdiff.runs.result import TaskResult
from rsdiff.runs.run_folder import RunFolder
from rsdiff.runs.settings import RunSettings
from rsdiff.tasks.experiment import build_method, method_from
from rsdiff.tasks.options import ExportTask
from rsdiff.tracking import Tracker
from rsdiff.training.checkpoints import Checkpoint, read_checkpoint
from rsdiff.training.origin import origin_of, sha256
from rsdiff.weights import export_weights, import_weights
from rsdiff.weights.advice import differences

ENDINGS = {
    "safetensors": (".safetensors",),
    "pth": (".pth", ".pt", ".ckpt"),
    "onnx": (".onnx",),
    "torchscript": (".ts", ".torchscript", ".pt", ".pth"),
}
"""What the name of an exported file ends in, the usual ending first; of the first format that has it where none is chosen."""
TOLERANCE = 1e-4
"""Largest difference, in units of [0, 1], between a network and its exported program: another order of sums in float32."""


def run(settings: RunSettings, folder: RunFolder, tracker: Tracker) -> TaskResult:
    """Write `output`; raises UserError in one sentence where the weights mean nothing elsewhere or were not read back alike."""
    task, output = settings.task, settings.output
    assert isinstance(task, ExportTask)
    assert output is not None
    form = format_of(output, task.format)
    checkpoint = read_checkpoint(settings.checkpoint) if settings.checkpoint is not None else None
    output.parent.mkdir(parents=True, exist_ok=True)
    if form in ("pth", "safetensors"):
        if checkpoint is None:
            raise ConfigError(f"task=export to {output.name} needs the weights to export; add checkpoint=RUN_FOLDER.")
        messages = export_published(checkpoint, settings.scale, output, form)
    else:
        method, problem = method_to_export(settings, checkpoint)
        messages = export_program(method, problem, output, form, task.side)
        messages.append(f"weights  {origin_of(checkpoint, settings.model.files, method)}")
    return TaskResult([f"{output} (SHA-256 {sha256([output])})", *messages], {"bytes": output.stat().st_size}, output, [output])


def format_of(output: Path, wanted: str) -> str:
    """Return the format to write: the one `wanted`, for auto that of the name's ending; raises ConfigError where the two disagree."""
    ending = output.suffix.lower()
    if wanted == "auto":
        wanted = next((form for form, endings in ENDINGS.items() if ending in endings), "")
    if ending not in ENDINGS.get(wanted, ()):
        named = f"task.format={wanted} is written to names in {' or '.join(ENDINGS[wanted])}" if wanted else "that names no format"
        usual = output.with_suffix(ENDINGS[wanted or "safetensors"][0]).name
        others = "" if wanted else f" (or {', '.join(endings[0] for form, endings in ENDINGS.items() if form != 'safetensors')})"
        raise ConfigError(f"output={output} ends in '{ending}' and {named}; name it {usual}{others}.")
    return wanted


def export_published(checkpoint: Checkpoint, scale: float, output: Path, form: str) -> list[str]:
    """Write a checkpoint's weights under their published names, read them back, and return the lines to print."""
    model = dict(checkpoint.card["config"]["model"])
    kind = str(model.pop("kind"))
    config: MethodConfig = config_from_mapping(METHODS[kind], model, "model")
    weights, judges = checkpoint.best_weights, method_from(checkpoint, scale).method.training_only
    published = {name: value.detach().contiguous().clone() for name, value in export_weights(kind, config, weights).items()}
    if form == "safetensors":
        facts = {
            "format": "pt",
            "rsdiff_model": json.dumps({"kind": kind, **model}),
            "rsdiff_problem": json.dumps(checkpoint.card["problem"]),
        }
        save_file(published, output, metadata=facts)
    else:
        torch.save(published, output)
    needed = {name: value for name, value in weights.items() if not name.startswith(judges)}
    try:
        untold = read_back(kind, config, needed, output)
    except ValueError as error:
        output.unlink()
        raise UserError(f"the weights of kind {kind} were not read back from the file, which was removed: {error}") from error
    count = sum(value.numel() for value in published.values())
    numbers = f"{count:,}".replace(",", " ")
    told = [f"{len(published)} tensors of kind {kind} under their published names, {numbers} numbers; read back alike"]
    if untold:
        told.append(f"the file does not tell {' '.join(untold)}: type them with task=import")
    return told


def read_back(kind: str, config: MethodConfig, weights: Mapping[str, Tensor], output: Path) -> list[str]:
    """Read an exported file as task=import does and return what it does not tell of the model; raises ValueError where weights differ."""
    _, again = import_weights(kind, output, config)
    different = [name for name, value in weights.items() if name not in again or not torch.equal(again[name].to(value), value)]
    if different:
        raise UserError(f"{len(different)} tensors differ or are missing, such as '{different[0]}'.")
    try:
        made, _ = import_weights(kind, output)
    except (ValueError, KeyError):
        return []
    return [f"model.{'.'.join(path)}={typed(value)}" for path, value in differences(made, config).items()]


class SinglePass(nn.Module):
    """A method that estimates the image in one evaluation, as a module."""

    def __init__(self, method: Restoring) -> None:
        super().__init__()
        self.method = method

    def forward(self, lr: Tensor) -> Tensor:
        """Map (B, c, h, w) to (B, C, h scale, w scale); sides are multiples of the network's."""
        return self.method.estimate(lr)


def method_to_export(settings: RunSettings, checkpoint: Checkpoint | None) -> tuple[Method, Problem]:
    """Return the method with its weights: of a checkpoint, or of a file that it reads itself."""
    if checkpoint is not None:
        trained = method_from(checkpoint, settings.scale, settings.model)
        return trained.method, trained.problem
    if not settings.model.is_ready:
        raise ConfigError(f"model={settings.choices['model']} has weights to learn, so task=export needs checkpoint=RUN_FOLDER.")
    problem = Problem(settings.scale, 3, 3)
    return build_method(settings.model, problem, settings.seed).eval(), problem


def export_program(method: Method, problem: Problem, output: Path, form: str, side: int) -> list[str]:
    """Write a method of one evaluation as a program, run it beside the network, and return the lines to print."""
    network: nn.Module
    if isinstance(method, Restoring):
        network = SinglePass(method)
    elif isinstance(method, Spandrel):
        network = method.network
    else:
        raise UserError(
            f"{method.architecture} restores in several evaluations or at coordinates, which no single program does; export its weights "
            "with task.format=safetensors or pth."
        )
    network = network.eval().cpu().requires_grad_(False)
    multiple = method.pixel_multiple()
    sides = [-(-side // multiple) * multiple, (-(-side // multiple) + 1) * multiple]
    generator = torch.Generator().manual_seed(0)
    images = [
        torch.rand(count, problem.lr_bands, height, sides[0], generator=generator) for count, height in ((1, sides[0]), (2, sides[1]))
    ]
    with torch.no_grad():
        program = (to_onnx if form == "onnx" else to_torchscript)(network, images[0], output)
        worst = max(float((program(image) - network(image)).abs().max()) for image in images)
    if not worst <= TOLERANCE:
        output.unlink()
        raise UserError(
            f"the {form} program of {method.architecture} differs from the network by {worst:.2g} of [0, 1] on images of other sizes and "
            "was removed; this network depends on the image's size in a way that form does not keep."
        )
    return [
        f"a program of {method.architecture} in {form}: (B, {problem.lr_bands}, h, w) in [0, 1] to (B, {problem.bands}, {problem.scale:g} "
        f"h, {problem.scale:g} w), sides multiples of {multiple}; differs from the network by at most {worst:.1g} on images of two sizes"
    ]


def to_torchscript(network: nn.Module, image: Tensor, output: Path) -> Callable[[Tensor], Tensor]:
    """Write a traced program and return it as read back."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's advice to use its newer form; tracing says where a size becomes a constant
        torch.jit.trace(network, image, check_trace=False).save(str(output))
        read: Callable[[Tensor], Tensor] = torch.jit.load(str(output))
    return read


def to_onnx(network: nn.Module, image: Tensor, output: Path) -> Callable[[Tensor], Tensor]:
    """Write an ONNX program with free batch, height and width, and return it as ONNX Runtime runs it."""
    try:
        import onnxruntime
    except ImportError:
        raise ConfigError("task.format=onnx needs the packages onnx, onnxscript and onnxruntime; pip install 'rsdiff[onnx]'.") from None
    axes = {0: "batch", 2: "height", 3: "width"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network, (image,), str(output), input_names=["lr"], output_names=["sr"], dynamic_axes={"lr": axes, "sr": axes}, dynamo=False
        )
    session = onnxruntime.InferenceSession(str(output), providers=["CPUExecutionProvider"])
    return lambda given: torch.from_numpy(np.asarray(session.run(["sr"], {"lr": given.numpy()})[0]))
