"""What FID's Inception network needs: its file of weights, and the four ways images are prepared for it."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

Preset = Literal["pytorch_fid", "torch_fidelity", "torchmetrics", "clean"]

WEIGHT_FILES = ("pt_inception-2015-12-05-6726825d.pth", "weights-inception-2015-12-05-6726825d.pth")
"""The same state dict under pytorch-fid's and torch-fidelity's names."""
SIDE = 299


def prepare(images: Tensor, preset: Preset) -> Tensor:
    """Return 8-bit images (B, 3, H, W) in 0..255 as (B, 3, 299, 299) float32 in [-1, 1]. Four presets, four FIDs.

    pytorch_fid     bilinear without antialiasing, pixel centres at half integers; 2x - 1 (BlindSRSNF, DiffBSR, LDCSR)
    torch_fidelity  bilinear of TensorFlow 1: centres at integers; (x - 128) / 128 (EDM, torchmetrics with antialias=False)
    torchmetrics    antialiased bilinear; (x - 128) / 128
    clean           Pillow's bicubic on float channels, limited to 0..255; (x - 128) / 128 (clean-fid)
    """
    resized = resize_for_inception(images, preset)
    return 2 * resized / 255 - 1 if preset == "pytorch_fid" else (resized - 128) / 128


def resize_for_inception(images: Tensor, preset: Preset) -> Tensor:
    """Return images (B, 3, H, W) in 0..255 at 299x299, in 0..255."""
    images = images.float()
    match preset:
        case "pytorch_fid":
            return F.interpolate(images / 255, size=(SIDE, SIDE), mode="bilinear", align_corners=False) * 255
        case "torchmetrics":
            return F.interpolate(images, size=(SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True)
        case "torch_fidelity":
            return _lerp(_lerp(images, -2), -1)
        case "clean":
            planes = images.cpu().flatten(0, 1).numpy()
            shrunk = [np.asarray(Image.fromarray(plane).resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for plane in planes]
            return torch.from_numpy(np.stack(shrunk)).clamp(0, 255).view(len(images), 3, SIDE, SIDE).to(images.device)


def _lerp(images: Tensor, axis: int) -> Tensor:
    """Linear interpolation along one axis at positions i * length / 299, the last pixel repeated."""
    length = images.shape[axis]
    positions = torch.arange(SIDE, dtype=torch.float32, device=images.device) * (length / SIDE)
    low = positions.floor().long().clamp(max=length - 1)
    high = (low + 1).clamp(max=length - 1)
    share = (positions - low).view(-1, 1) if axis == -2 else positions - low
    first, second = images.index_select(axis, low), images.index_select(axis, high)
    return first + (second - first) * share
