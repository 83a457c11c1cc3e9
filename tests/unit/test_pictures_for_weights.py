"""An image where weights are wanted is called an image."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from rsdiff.foreign.reader import UnsafeFileError, read_pickle
from rsdiff.training.checkpoints import CheckpointError, find_checkpoint


@pytest.mark.parametrize("kind", ["png", "jpg", "gif", "tif", "bmp", "webp", "jp2"])
def test_an_image_in_place_of_weights_is_called_an_image(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"photo.{kind}"
    Image.new("RGB", (8, 8)).save(path)
    with pytest.raises(UnsafeFileError, match=f"photo.{kind} was not read: it is an image, not a file of weights"):
        read_pickle(path)
    with pytest.raises(CheckpointError, match=r"is an image; type input="):
        find_checkpoint(path)
