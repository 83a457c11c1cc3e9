"""What a notebook does with the installed package, in an empty folder with one run in it: called by .ci/wheel."""

import sys
from pathlib import Path

import numpy
from PIL import Image

import rsdiff

assert "torch" not in sys.modules, "import rsdiff imports PyTorch"
(run,) = Path("outputs/train").glob("*/*")
picture = (numpy.random.default_rng(0).random((20, 24, 3)) * 255).astype("uint8")
Image.fromarray(picture).save("picture.png")
model = rsdiff.load(run)
restored = model.restore(picture, seed=0)
assert restored.shape == (80, 96, 3), restored.shape
lr, hr, decisions = rsdiff.degrade(restored, "bsrgan", scale=4, seed=0)
rows = rsdiff.score(restored, hr, protocol="basicsr_y", metrics=["psnr"])
assert lr.shape == (20, 24, 3), lr.shape
assert rows[0]["psnr"] > 0, rows
