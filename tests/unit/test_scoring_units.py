"""task=score compares what is stored alike: other units and a folder with itself are refused, bad images are not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rsdiff.config import UserError
from rsdiff.data.file_options import FileOptions
from rsdiff.metrics.scoring import Images, require_one_unit

HR = torch.rand(3, 24, 24, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("factor", [1 / 255, 255 / 10000, 39.0])
def test_other_units_are_refused(factor: float) -> None:
    with pytest.raises(UserError, match=r"stored in different units; write the restored images in the units of the references\."):
        require_one_unit(HR * factor, HR, "a")


@pytest.mark.parametrize("made", [HR.flip(2), HR * 0.1, HR * 0 + 0.4, HR * 0, HR.clone().index_fill_(1, torch.arange(4), torch.nan)])
def test_bad_images_are_scored(made: torch.Tensor) -> None:
    require_one_unit(made, HR, "a")


def test_a_folder_is_not_compared_with_itself(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="are the same; give the restored images and what they are compared with"):
        Images(tmp_path, tmp_path / ".." / tmp_path.name, {}, FileOptions(), 4.0)
