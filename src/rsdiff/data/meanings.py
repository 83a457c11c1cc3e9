"""What files say of their bands beside their values (order, scale and offset, opacity), compared over the files of a data set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rsdiff.data.raster_files import RasterInfo

Named = Sequence[tuple[str, Mapping[str, RasterInfo]]]
"""(name of a sample, headers by role)."""


def disagreements(samples: Named) -> Iterator[str]:
    """Yield a sentence for bands in another order, and for another scale or offset, between the files of a sample and between samples."""
    for role in dict.fromkeys(role for _, infos in samples for role in infos):
        yield from _between_samples(role, [(name, infos[role]) for name, infos in samples if role in infos])
    for what in (_order, _meaning):
        apart = [(name, why) for name, infos in samples if (why := _between_roles(infos, what))]
        if apart:
            yield f"{len(apart)} of {len(samples)} samples have files {apart[0][1]}, e.g. {apart[0][0]}; convert one of them"


def _between_samples(role: str, files: Sequence[tuple[str, RasterInfo]]) -> Iterator[str]:
    for what in (_order, _meaning):
        usual = Counter(what(info) for _, info in files).most_common(1)[0][0]
        odd = [(name, why) for name, info in files if (why := _differ(usual, what(info), what))]
        if odd:
            yield f"{len(odd)} of {len(files)} {role} images have {odd[0][1]} of most others, e.g. {odd[0][0]}; convert them"


def _between_roles(infos: Mapping[str, RasterInfo], what: Any) -> str:
    main = infos.get("hr") or next(iter(infos.values()))
    others = [(role, info) for role, info in infos.items() if info is not main and role != "change_mask" and info.dtype == main.dtype]
    found = ((role, _differ(what(main), what(info), what)) for role, info in others)
    return next((f"whose {role} has {why} of hr" for role, why in found if why), "")


def _order(info: RasterInfo) -> tuple[Any, ...]:
    return info.names


def _meaning(info: RasterInfo) -> tuple[Any, ...]:
    return info.scaling or ((1.0, 0.0),) * info.bands


def _differ(usual: tuple[Any, ...], own: tuple[Any, ...], what: Any) -> str:
    """Return how two files differ, or nothing: names of bands only where they are the same ones in another order."""
    if own == usual or len(own) != len(usual):
        return ""
    if what is _order:
        return f"the bands {', '.join(own)} in another order than those" if sorted(own) == sorted(usual) else ""
    (scale, offset), (others, other) = next((a, b) for a, b in zip(own, usual, strict=True) if a != b)
    return f"the scale {scale:g} and offset {offset:g}, not the {others:g} and {other:g}"
