"""Weights for use elsewhere: exported under the published names and as programs, read again, equal."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import rsdiff
from rsdiff.config import UserError
from rsdiff.methods.regression import RRDBMethodConfig
from rsdiff.networks.rrdb import RRDBNetConfig
from rsdiff.training.checkpoints import read_checkpoint
from rsdiff.weights import export_weights
from tests.conftest import Command
from tests.unit.test_rrdb import method_of

SMALL = ["model.network.width=8", "model.network.blocks=1", "model.network.growth=8"]


@pytest.fixture
def imported(run_command: Command, tmp_path: Path) -> Path:
    """A checkpoint of a released RRDBNet."""
    config = RRDBMethodConfig(network=RRDBNetConfig(width=8, blocks=1, growth=8))
    torch.save(export_weights("rrdb", config, method_of(config).state_dict()), tmp_path / "released.pth")
    ended = run_command("task=import", "model=rrdb", f"source={tmp_path / 'released.pth'}", f"output={tmp_path / 'imported'}", *SMALL)
    assert ended.code == 0, ended.err
    return tmp_path / "imported"


def test_weights_are_exported_under_their_published_names_and_come_back_equal(run_command: Command, tmp_path: Path, imported: Path) -> None:
    released = torch.load(tmp_path / "released.pth", weights_only=True)
    for form in ("safetensors", "pth"):
        output = tmp_path / f"again.{form}"
        ended = run_command("task=export", f"checkpoint={imported}", f"output={output}")
        assert ended.code == 0, ended.err
        assert "read back alike" in ended.out
        again = load_file(output) if form == "safetensors" else torch.load(output, weights_only=True)
        assert again.keys() == released.keys()
        assert all(torch.equal(value, released[name]) for name, value in again.items())


def test_a_network_of_one_evaluation_becomes_a_program_that_runs_without_rsdiff(
    run_command: Command, tmp_path: Path, imported: Path
) -> None:
    output = tmp_path / "program.pt"
    ended = run_command("task=export", f"checkpoint={imported}", f"output={output}", "task.format=torchscript", "task.side=16")
    assert ended.code == 0, ended.err
    method = method_of(RRDBMethodConfig(network=RRDBNetConfig(width=8, blocks=1, growth=8)))
    method.load_state_dict(read_checkpoint(imported).weights)
    image = torch.rand(1, 3, 20, 24)
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.load(str(output))(image), method.network(image), atol=1e-5, rtol=0)
        assert "images of two sizes" in rsdiff.load(imported).export(tmp_path / "again.ts", side=16)
        torch.testing.assert_close(torch.jit.load(str(tmp_path / "again.ts"))(image), method.network(image), atol=1e-5, rtol=0)
    with pytest.raises(UserError, match=r"name a program weights.onnx or .ts"):
        rsdiff.load(imported).export(tmp_path / "weights.pth")


def test_a_program_in_onnx_runs_elsewhere_and_a_missing_package_is_named(run_command: Command, tmp_path: Path, imported: Path) -> None:
    output = tmp_path / "program.onnx"
    ended = run_command("task=export", f"checkpoint={imported}", f"output={output}", "task.format=onnx", "task.side=16")
    try:
        import onnxruntime  # noqa: F401
    except ImportError:
        assert "pip install 'rsdiff[onnx]'" in ended.err
        assert not output.exists()
    else:
        assert ended.code == 0, ended.err
        assert "images of two sizes" in ended.out


def test_what_means_nothing_elsewhere_is_refused_in_one_sentence(run_command: Command, tmp_path: Path, imported: Path) -> None:
    ours = run_command("task=export", f"checkpoint={imported}", f"output={tmp_path / 'o.pth'}", "task.format=pth", "scale=2")
    assert ours.code != 0
    other = run_command("task=export", f"checkpoint={imported}", f"output={tmp_path / 'o.npz'}")
    assert "name it o.safetensors (or .pth, .onnx, .ts)" in other.err
    mixed = run_command("task=export", f"checkpoint={imported}", f"output={tmp_path / 'o.pth'}", "task.format=onnx")
    assert "name it o.onnx" in mixed.err
    none = run_command("task=export", "model=rrdb", f"output={tmp_path / 'o.pth'}")
    assert "add checkpoint=RUN_FOLDER" in none.err
    assert not (tmp_path / "o.pth").exists()
