"""EDM's snapshots: pickles that carry the source code of their classes, of which only data are read.

`torch_utils.persistence` writes every object as a call with one dictionary: class name, source text of the module, attributes. The
published loader executes the text; here the call is an inert record (see `unpickler`), the text is dropped, and the attributes give the
state dict and the constructor arguments. Classes that are not persistent (Ref-Diff's blocks, torch's layers) are records with attributes.

`network-snapshot-*.pkl`   dict(ema, loss_fn, augment_pipe, dataset_kwargs), a plain pickle
`training-state-*.pt`      EDM: dict(net, optimizer_state); Ref-Diff and RelayDiffusion: dict(ema, net, optimizer_state, step); torch files
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from rsdiff.foreign.inert import Record, UnsafeFileError

PERSISTENT = "torch_utils.persistence._reconstruct_persistent_obj"
VERSION = 6
MAX_MODULES = 100_000
MAX_DEPTH = 50
"""Bounds on what is walked: a crafted file may hold itself, or one module under very many names."""


@dataclass(frozen=True)
class PublishedDenoiser:
    """A preconditioned network of a snapshot, as data.

    class_name  of the preconditioner: EDMPrecond, VPPrecond, VEPrecond, iDDPMPrecond
    arguments   what it was constructed with: resolution, channels, kind and options of the network
    state       its state dict under the published keys
    images      training images seen, where the file says so
    """

    class_name: str
    arguments: Mapping[str, Any]
    state: Mapping[str, Tensor]
    images: int | None


@dataclass(frozen=True)
class _Object:
    class_name: str
    attributes: Mapping[str, Any]


def denoiser_in(content: Mapping[str, Any], which: Literal["ema", "net"] = "ema") -> PublishedDenoiser:
    """Return the averaged (`ema`) or the trained (`net`) network of a snapshot or training state, as `read_checkpoint` returned it.

    Raises UnsafeFileError in one sentence when it holds no such network.
    """
    if not isinstance(content.get(which), Record):
        held = [key for key in ("ema", "net") if isinstance(content.get(key), Record)]
        instead = f"it holds '{held[0]}': choose that" if held else "it is no EDM snapshot or training state"
        raise UnsafeFileError(f"the file holds no network '{which}'; {instead}.")
    network = _object(content[which])
    arguments = network.attributes.get("_init_kwargs")
    if not isinstance(arguments, Mapping) or network.attributes.get("_init_args"):
        raise UnsafeFileError(f"the file does not say by name what its {network.class_name} was constructed with.")
    images = content.get("step")
    return PublishedDenoiser(
        class_name=network.class_name,
        arguments={str(key): value for key, value in arguments.items()},
        state=module_state(content[which]),
        images=images if isinstance(images, int) else None,
    )


def module_state(module: Record) -> dict[str, Tensor]:
    """Return what state_dict() of a pickled torch module would: parameters and persistent buffers by dotted name.

    Raises UnsafeFileError for what is no module, and for modules so many or so deep that only a crafted file has them.
    """
    state: dict[str, Tensor] = {}
    waiting: list[tuple[str, int, Any]] = [("", 0, module)]
    for _ in range(MAX_MODULES):
        if not waiting:
            return state
        prefix, depth, record = waiting.pop()
        attributes = _object(record).attributes
        state.update(_own_tensors(attributes, prefix))
        children = [(f"{prefix}{name}.", depth + 1, child) for name, child in _entries(attributes, "_modules") if child is not None]
        if depth == MAX_DEPTH and children:
            break
        waiting += reversed(children)
    raise UnsafeFileError(
        f"the file holds more than {MAX_MODULES} modules or nests them more than {MAX_DEPTH} deep, which no network does."
    )


def _own_tensors(attributes: Mapping[str, Any], prefix: str) -> dict[str, Tensor]:
    transient = attributes.get("_non_persistent_buffers_set", ())
    tensors: dict[str, Tensor] = {}
    for kind in ("_parameters", "_buffers"):
        for name, value in _entries(attributes, kind):
            if value is None or (kind == "_buffers" and name in transient):
                continue
            if not isinstance(value, Tensor):
                raise UnsafeFileError(f"{prefix}{name} of the file is a {type(value).__name__} where a tensor is expected.")
            tensors[prefix + name] = value
    return tensors


def _entries(attributes: Mapping[str, Any], kind: str) -> list[tuple[str, Any]]:
    entries = attributes.get(kind, {})
    if not isinstance(entries, Mapping):
        raise UnsafeFileError(f"a module of the file has a {type(entries).__name__} for its {kind}.")
    return [(str(name), value) for name, value in entries.items()]


def _object(record: Any) -> _Object:
    """Return class name and attributes of a record, persistent or plain."""
    if not isinstance(record, Record):
        raise UnsafeFileError(f"the file holds a {type(record).__name__} where a module is expected.")
    if record.name != PERSISTENT:
        return _Object(record.name.rsplit(".", 1)[-1], record.attributes())
    meta = record.args[0] if len(record.args) == 1 else None
    meta = meta.items if isinstance(meta, Record) else meta
    if not isinstance(meta, Mapping) or meta.get("type") != "class" or meta.get("version") != VERSION:
        raise UnsafeFileError(f"an object of the file was not written by version {VERSION} of EDM's persistence.")
    state = meta.get("state")
    state = state.items if isinstance(state, Record) else state
    if not isinstance(state, Mapping):
        raise UnsafeFileError(f"the file's {meta.get('class_name')} has no attributes.")
    return _Object(str(meta.get("class_name")), {str(key): value for key, value in state.items()})
