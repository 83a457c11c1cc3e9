"""Networks that restore in one evaluation as programs that run without rsdiff, in ONNX or TorchScript.

A program maps (B, c, h, w) in [0, 1] to (B, C, h scale, w scale), not clamped. It is run again beside the network, on images of two sizes.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from rsdiff.config import ConfigError, UserError
from rsdiff.methods.base import Method, Problem
from rsdiff.methods.restoring import ImageNetwork
from rsdiff.methods.spandrel import Spandrel

ENDINGS = {
    "safetensors": (".safetensors",),
    "pth": (".pth", ".pt", ".ckpt"),
    "onnx": (".onnx",),
    "torchscript": (".ts", ".torchscript", ".pt", ".pth"),
}
"""What the name of an exported file ends in, the usual ending first; of the first format that has it where none is chosen."""
TOLERANCE = 1e-4
"""Largest difference, in units of [0, 1], between a network and its exported program: another order of sums in float32."""


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


class SinglePass(nn.Module):
    """A method that estimates the image in one evaluation, as a module."""

    def __init__(self, method: Method, images: ImageNetwork) -> None:
        super().__init__()
        self.method, self.images = method, images

    def forward(self, lr: Tensor) -> Tensor:
        """Map (B, c, h, w) to (B, C, h scale, w scale); sides are multiples of the network's."""
        return self.images.estimate(lr)


def export_program(method: Method, problem: Problem, output: Path, form: str, side: int) -> list[str]:
    """Write a method of one evaluation as a program, run it beside the network, and return the lines to print."""
    network: nn.Module
    images = getattr(method, "images", None)
    if isinstance(images, ImageNetwork):
        network = SinglePass(method, images)
    elif isinstance(method, Spandrel):
        network = method.network
    else:
        raise UserError(
            f"{method.architecture} restores in several evaluations or at coordinates, which no single program does; export its weights "
            "with task.format=safetensors or pth."
        )
    network = copy.deepcopy(network).eval().cpu().requires_grad_(False)  # the caller goes on with its own
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
