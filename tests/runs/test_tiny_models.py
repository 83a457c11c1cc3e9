"""`model=<name>_tiny` is the method of `model=<name>` in smaller sizes: same objective, same prediction, same published sampler."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
import yaml

from rsdiff.config import options_of_ours
from rsdiff.methods.base import Problem
from rsdiff.weights import export_weights, import_weights
from rsdiff.weights.keymaps import KEY_MAPS
from tests.runs.pairs import CONF, fresh, material_of, options, pairs, train_a_step

SIZES = frozenset(
    (
        "width",
        "blocks",
        "groups",
        "layers",
        "levels",
        "stages",
        "loops",
        "growth",
        "multiplier",
        "multipliers",
        "encoders",
        "decoders",
        "refinement",
        "refinements",
        "hidden",
        "depth",
        "depths",
        "channels",
        "mult",
        "heads",
        "window",
        "squeeze",
        "latent",
        "size",
        "count",
        "queries",
        "chunk",
    )
)
"""Last words of the names of sizes: of how many, how wide, how deep, how large a crop."""
PLACES = frozenset({"attention_levels", "taps"})
"""Where among the levels or blocks, of which there are fewer, something stands: it stands somewhere if it does as published."""
WITHOUT_SIZES = {"bicubic", "spandrel", "spectral_linear"}


def leaves(config: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{path}{field.name}.")
        else:
            yield f"{path}{field.name}", value


def is_size(value: Any) -> bool:
    """Whether a value is a whole number or a list of them."""
    return all(type(part) is int for part in (value if isinstance(value, tuple) else (value,)))


def is_only_smaller(name: str, published: Any, tiny: Any) -> bool:
    last = name.rpartition(".")[2]
    if last in PLACES:
        return bool(published) == bool(tiny)
    return last.rpartition("_")[2] in SIZES and is_size(published) and is_size(tiny)


def tiny_names() -> list[str]:
    return sorted(name.removesuffix("_tiny") for name in options().models if name.endswith("_tiny"))


def test_a_tiny_model_differs_from_the_published_one_in_sizes_only() -> None:
    other = {}
    for name in tiny_names():
        published, tiny = (dict(leaves(options().models[kind])) for kind in (name, f"{name}_tiny"))
        assert published.keys() == tiny.keys(), name
        differing = {option: (published[option], tiny[option]) for option in tiny if published[option] != tiny[option]}
        assert differing, f"{name}_tiny is {name} itself"
        other |= {f"{name}_tiny {option}": values for option, values in differing.items() if not is_only_smaller(option, *values)}
        assert options_of_ours(options().models[f"{name}_tiny"]) == options_of_ours(options().models[name]), name
    assert not other


@pytest.mark.parametrize(("option", "published", "tiny"), [
    ("base.ridge", 1e-4, 1e-2), ("dropout", 0.2, 0.0), ("decoder.initial", "kaiming", "enlarged"), ("attention_levels", (2,), ()),
    ("width", None, 32), ("contrast_steps", 0, 10), ("prediction", "noise", "clean"), ("kl_weight", 1e-6, 0.05), ("mask_codes", (), (1,)),
])  # fmt: skip
def test_what_the_former_tiny_models_changed_counts_as_no_size(option: str, published: object, tiny: object) -> None:
    assert not is_only_smaller(option, published, tiny)


def test_a_tiny_model_keeps_the_published_sampler() -> None:
    for name in tiny_names():
        chosen = yaml.safe_load((CONF / "model" / f"{name}_tiny.yaml").read_text())["defaults"]
        overridden = {key.removeprefix("override ").partition("@")[0] for entry in chosen if isinstance(entry, dict) for key in entry}
        assert {group for group in overridden if group.removeprefix("/") in ("sampler", "degradation", "dataset", "metrics")} == set(), name


def test_every_method_has_a_tiny_model() -> None:
    kinds = {options().kinds[name] for name in options().models}
    assert kinds - {options().kinds[f"{name}_tiny"] for name in tiny_names()} == WITHOUT_SIZES


PROBLEMS = (Problem(4, 3, 3), Problem(1, 31, 3), Problem(1, 31, 31), Problem(1, 8, 3))


ONLY_OURS = {"sadn": "temperature"}
"""What published files do not hold: SADN's are past the first epochs, after which it is 1."""


OWN_PARTS = {"datsr": {"extractors": "random"}}
"""Options with which a file holds all parts of a method: DATSR's lack the extractors, which two other files hold."""


def test_weights_of_every_method_are_exported_and_read_back_alike() -> None:
    """The published layout of each has a key map of its own, tried here in its smallest configuration without options of ours."""
    tried = {options().kinds[f"{name}_tiny"]: options().models[f"{name}_tiny"] for name in tiny_names()}
    wrong: dict[str, list[str]] = {kind: ["there is no small model of it"] for kind in KEY_MAPS.keys() - tried.keys()}
    for kind in KEY_MAPS.keys() & tried.keys():
        config = replace(tried[kind], **OWN_PARTS.get(kind, {}))
        problem = next(problem for problem in PROBLEMS if config.refuse(problem) is None)
        method = config.build(problem)
        state = {name: value for name, value in method.state_dict().items() if not name.startswith(method.training_only)}
        _, again = import_weights(kind, export_weights(kind, config, method.state_dict()), config)
        state.pop(ONLY_OURS.get(kind, ""), None)
        wrong[kind] = [name for name, value in state.items() if name not in again or not torch.equal(again[name].to(value), value)]
    assert not {kind: names[:3] for kind, names in wrong.items() if names}


def test_every_quick_model_is_its_tiny_one_and_something_of_ours() -> None:
    for path in sorted((CONF / "model").glob("*_quick.yaml")):
        chosen = yaml.safe_load(path.read_text())["defaults"]
        assert chosen[0] == path.stem.replace("_quick", "_tiny"), path.name


def test_every_tiny_model_that_has_a_quick_one_trains_a_step() -> None:
    """The others are tried with all kinds of data in test_matrix."""
    for name in tiny_names():
        if f"{name}_quick" not in options().models:
            continue
        pair = next(iter(pairs([f"{name}_tiny"])))
        given = material_of(pair, 64)
        assert given.batch is not None
        train_a_step(deepcopy(fresh(pair.model, given.problem)), given.batch)
