"""Importing EDM-style snapshots: nothing in the file is executed, nothing unknown is accepted, and the way back is exact."""

import pickle
import sys
import types
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rsdiff.diffusion.edm import EdmDenoiser
from rsdiff.diffusion.noise import SeededNoise
from rsdiff.foreign import UnsafeFileError, read_checkpoint
from rsdiff.foreign.inert import Record
from rsdiff.methods.base import Problem
from rsdiff.methods.refdiff import RefDiffConfig
from rsdiff.weights.edm_pickle import denoiser_in, module_state
from rsdiff.weights.importer import export_weights, import_weights
from rsdiff.weights.keymaps.edm import build_network, network_options, network_state, preconditioning_of

CASES = Path(__file__).parents[1] / "goldens/cases"
SNAPSHOTS = [CASES / "refdiff/tiny-network-snapshot.pkl", CASES / "refdiff/tiny-training-state.pt", CASES / "edm/tiny-network-snapshot.pkl"]
PERSISTENT = "torch_utils.persistence"


@pytest.mark.parametrize("path", SNAPSHOTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_published_snapshots_are_read_as_data(path):
    published = denoiser_in(read_checkpoint(path))
    assert published.class_name == "EDMPrecond"
    assert published.arguments["img_channels"] == 3
    assert all(isinstance(tensor, torch.Tensor) for tensor in published.state.values())
    assert PERSISTENT not in sys.modules
    assert not any(name.startswith("training.") for name in sys.modules)


def test_training_states_tell_the_images_seen_and_hold_both_networks():
    content = read_checkpoint(SNAPSHOTS[1])
    averaged, trained = denoiser_in(content, "ema"), denoiser_in(content, "net")
    assert averaged.images == trained.images == 24
    assert averaged.state.keys() == trained.state.keys()
    assert any(not torch.equal(averaged.state[key], trained.state[key]) for key in averaged.state)


def snapshot_with(source: str, class_name: str = "EDMPrecond", version: int = 6) -> bytes:
    """A snapshot as EDM's persistence writes it, whose embedded module source is `source`."""
    module = types.ModuleType(PERSISTENT)

    def _reconstruct_persistent_obj(meta):
        raise AssertionError("the importer called the file's function")

    _reconstruct_persistent_obj.__module__ = PERSISTENT
    _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    module._reconstruct_persistent_obj = _reconstruct_persistent_obj

    class Stand:
        def __reduce__(self):
            state = {"_init_args": (), "_init_kwargs": {}, "_parameters": {"w": torch.ones(2)}, "_buffers": {}, "_modules": {}}
            meta = {"type": "class", "version": version, "module_src": source, "class_name": class_name, "state": state}
            return _reconstruct_persistent_obj, (meta,)

    sys.modules["torch_utils"], sys.modules[PERSISTENT] = types.ModuleType("torch_utils"), module
    try:
        return pickle.dumps({"ema": Stand(), "loss_fn": None})
    finally:
        del sys.modules["torch_utils"], sys.modules[PERSISTENT]


def test_embedded_source_is_never_executed(tmp_path):
    trap = tmp_path / "executed"
    path = tmp_path / "network-snapshot-000001.pkl"
    path.write_bytes(snapshot_with(f"open({str(trap)!r}, 'w').close()\nclass EDMPrecond: pass\n"))
    published = denoiser_in(read_checkpoint(path))
    assert published.state.keys() == {"w"}
    assert not trap.exists()


def test_hostile_calls_are_inert(tmp_path):
    trap = tmp_path / "executed"

    class Hostile:
        def __reduce__(self):
            return open, (str(trap), "w")

    path = tmp_path / "network-snapshot-000002.pkl"
    path.write_bytes(pickle.dumps({"ema": Hostile(), "augment_pipe": Hostile()}))
    with pytest.raises(UnsafeFileError):
        denoiser_in(read_checkpoint(path))
    assert not trap.exists()


def test_unknown_versions_and_files_without_network_are_refused(tmp_path):
    path = tmp_path / "snapshot.pkl"
    path.write_bytes(snapshot_with("", version=7))
    with pytest.raises(UnsafeFileError, match="version 6"):
        denoiser_in(read_checkpoint(path))
    with pytest.raises(UnsafeFileError, match="no network 'net'; it holds 'ema'"):
        denoiser_in(read_checkpoint(SNAPSHOTS[0]), "net")
    with pytest.raises(UnsafeFileError, match="no EDM snapshot"):
        denoiser_in({"state_dict": {}})


def test_modules_that_hold_themselves_are_refused():
    module = Record("training.Net")
    module.state = {"_parameters": {}, "_buffers": {}, "_modules": {"again": module}}
    with pytest.raises(UnsafeFileError, match="modules"):
        module_state(module)


def test_modules_under_very_many_names_are_refused():
    module = Record("training.Leaf", state={"_parameters": {}, "_buffers": {}, "_modules": {}})
    for _ in range(40):
        module = Record("training.Net", state={"_parameters": {}, "_buffers": {}, "_modules": {"a": module, "b": module}})
    with pytest.raises(UnsafeFileError, match="modules"):
        module_state(module)


@pytest.mark.parametrize("path", SNAPSHOTS[:2], ids=lambda path: path.name)
def test_refdiff_is_rebuilt_from_the_file_and_exported_as_it_was(path):
    config, weights = import_weights("refdiff", path)
    method = config.build(Problem(scale=8, bands=3, lr_bands=3))
    method.load_state_dict(weights)
    published = denoiser_in(read_checkpoint(path))
    exported = export_weights("refdiff", config, weights)
    side = published.arguments["img_resolution"]
    at_file_size = {key.replace("256x256", f"{side}x{side}").replace("128x128", "8x8"): tensor for key, tensor in exported.items()}
    assert at_file_size.keys() == published.state.keys()
    assert all(torch.equal(tensor, at_file_size[key]) for key, tensor in published.state.items())


def test_a_given_config_must_be_that_of_the_file():
    config, _ = import_weights("refdiff", SNAPSHOTS[0])
    again, _ = import_weights("refdiff", SNAPSHOTS[0], config)
    assert again == config
    with pytest.raises(ValueError, match=r"add model\.network\.trunk\.model_channels=4 model\.network\.trunk\.channel_mult=\[1,2\] "):
        import_weights("refdiff", SNAPSHOTS[0], RefDiffConfig())
    calmer = replace(config, network=replace(config.network, trunk=replace(config.network.trunk, dropout=0.0)))
    assert import_weights("refdiff", SNAPSHOTS[0], calmer)[0] == calmer
    with pytest.raises(ValueError, match="not Ref-Diff's"):
        import_weights("refdiff", SNAPSHOTS[2])


def test_imported_edm_networks_ignore_the_lr_until_they_are_trained():
    config, weights = import_weights("edm_sr", SNAPSHOTS[2])
    assert config.song.class_labels == config.song.augment_labels == 0
    method = config.build(Problem(scale=4, bands=3, lr_bands=3))
    method.load_state_dict(weights)
    published = denoiser_in(read_checkpoint(SNAPSHOTS[2]))
    unconditional = build_network(published.class_name, published.arguments, published.state)
    x, lr = SeededNoise([(0,), (1,)]).normal((2, 3, 8, 8)), torch.rand(2, 3, 8, 8)
    sigma = torch.tensor(0.7, dtype=torch.float64)
    with torch.no_grad():
        ours = method.eval().denoiser(lr)(x, sigma)
        theirs = EdmDenoiser(unconditional, preconditioning_of(published.class_name, published.arguments))(x, sigma)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_files_with_missing_or_unknown_tensors_are_refused():
    published = denoiser_in(read_checkpoint(SNAPSHOTS[2]))
    network = build_network(published.class_name, published.arguments, published.state)
    state = dict(published.state)
    removed = state.pop("model.map_layer0.weight")
    with pytest.raises(ValueError, match=r"map_layer0\.weight"):
        network_state(network, state)
    with pytest.raises(ValueError, match="extra"):
        network_state(network, {**state, "model.map_layer0.weight": removed, "model.extra": removed})


def test_constructor_arguments_that_are_not_known_are_refused():
    arguments = {"img_resolution": 16, "img_channels": 3, "model_type": "SongUNet"}
    assert network_options(arguments).attention_levels == (0,)
    with pytest.raises(ValueError, match="new_option"):
        network_options({**arguments, "new_option": 1})
    with pytest.raises(ValueError, match="encoder_type=other"):
        network_options({**arguments, "encoder_type": "other"})
    with pytest.raises(ValueError, match="'Other'"):
        network_options({**arguments, "model_type": "Other"})
