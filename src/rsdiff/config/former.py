"""Names that options had, and what is written for them now, so that older command lines, files and checkpoints go on working."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Translation = Callable[[Any], Mapping[str, Any]]
"""Value of a former option -> values by the paths that stand for it now."""


def _on_enlarged(value: Any) -> Mapping[str, Any]:
    return {"base.kind": "enlarged"} if value is True or str(value).lower() == "true" else {}


def _begins_enlarged(path: str) -> Translation:
    return lambda value: {path: "enlarged"} if _on_enlarged(value) else {}


def _with_ridge(value: Any) -> Mapping[str, Any]:
    return {} if value in (None, "null") else {"base.kind": "regression", "base.ridge": value}


def _as_rrdb(value: Any) -> Mapping[str, Any]:
    return {"network": {"kind": "rrdb", **value}}


def _moved(path: str) -> Translation:
    return lambda value: {path: value}


def _predicted(value: Any) -> Mapping[str, Any]:
    added = {"base.kind": "enlarged"} if value == "addition" else {}
    return {"prediction": "noise" if value == "noise" else "clean"} | added


def _gone(value: Any) -> Mapping[str, Any]:
    return {}


FORMER: Sequence[tuple[str, Translation]] = (
    ("generator.starts_bicubic", _on_enlarged),
    ("generator", _as_rrdb),
    ("starts_bicubic", _on_enlarged),
    ("residual", _on_enlarged),
    ("residual_ridge", _with_ridge),
    ("pixel_weight", _moved("loss.l1")),
    ("relative_floor", _moved("loss.relative_floor")),
    ("angle_weight", _moved("loss.sam")),
    ("discriminator.network", _moved("discriminator.kind")),
    ("predicts", _predicted),
    ("first_stage.decoder.starts_bicubic", _begins_enlarged("first_stage.decoder.initial")),
    ("autoencoder.decoder.starts_bicubic", _begins_enlarged("autoencoder.decoder.initial")),
)
"""Former options of models, those inside others first."""
OF_SAMPLERS: Sequence[tuple[str, Translation]] = (("shift_deviation", _gone),)  # that of ResShift, which now says it itself
"""Former options of samplers."""


def present_values(values: Mapping[str, Any], known: Sequence[str], former: Sequence[tuple[str, Translation]] = FORMER) -> dict[str, Any]:
    """Return the plain values of a model, or of another group, with former options under their present names.

    known   names of its options: what is one of them still has its old meaning
    former  the former options of its group
    """
    present = _copied(values)
    for path, translate in former:
        *place, name = path.split(".")
        if (place or [name])[0] in known and not place:
            continue
        owner: Any = present
        for part in place:
            owner = owner.get(part) if isinstance(owner, dict) else None
        if not isinstance(owner, dict) or name not in owner or (path == "discriminator.network" and "kind" in owner):
            continue
        for target, value in translate(owner.pop(name)).items():
            if target.split(".")[0] not in known:
                continue  # EDiffSR's addition has its base in the process itself
            _put(present, target.split("."), value)
    return present


def present_words(word: str) -> list[str]:
    """Return what is typed for a setting so that it is accepted beside the present ones: `present_values` then gives it their names."""
    name = word.partition("=")[0].removeprefix("model.")
    former = word.startswith("model.") and any(name == path or name.startswith(f"{path}.") for path, _ in FORMER)
    return [f"++{word}"] if former else [word]


def _copied(value: Any) -> Any:
    return {key: _copied(item) for key, item in value.items()} if isinstance(value, Mapping) else value


def _put(owner: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for part in path[:-1]:
        owner = owner.setdefault(part, {})
    inner = owner.get(path[-1])
    owner[path[-1]] = {**inner, **value} if isinstance(inner, dict) and isinstance(value, Mapping) else value
