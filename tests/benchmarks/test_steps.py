"""Where a training step's time goes: the networks' forward and backward passes, and everything else, which is ours to keep small."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import process_time
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.modules import module as hooks

from rsdiff.app.schemas import register_schemas
from rsdiff.diffusion.noise import SeededNoise
from rsdiff.inference.speed import tried
from rsdiff.training import trainer as loop
from rsdiff.training.ema import Ema
from rsdiff.training.optimisers import GroupOptimiser
from rsdiff.training.speed import Passes, measure
from tests.benchmarks.ratios import Table, one_thread
from tests.devices.published import Composed, Published
from tests.devices.stand import Accelerator

RECIPES = {
    "sr3_tiny": Published(("model=sr3_tiny", "trainer=quick", "degradation=diffbsr_aniso"), 8),
    "diffbsr": Published(("model=diffbsr", "trainer=quick", "degradation=diffbsr_iso"), 1),
}
NETWORKS = {
    "rrdb": Published(("model=rrdb", "trainer=quick", "degradation=bicubic"), 2),
    "liif": Published(("model=liif", "trainer=quick", "degradation=bicubic"), 2),
    "ldcsr": Published(("model=ldcsr", "trainer=quick", "degradation=bicubic"), 2),
    "danv2": Published(("model=danv2", "trainer=quick", "degradation=dan_setting1"), 2),
    **RECIPES,
}
"""Published sizes, and the quick default, in crops of 64 pixels."""
STEPS = 3
PARTS: dict[str, tuple[Any, str]] = {
    "backward": (Accelerator, "backward"),
    "noise": (SeededNoise, "normal"),
    "degradation": (loop, "degrade_on"),
    "optimiser": (GroupOptimiser, "update"),
    "gradient norm": (GroupOptimiser, "mend"),
    "averages": (Ema, "update"),
}
"""What is timed besides the networks: where it is called from, and its name there."""


@contextmanager
def timed(method: nn.Module, monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Yield processor seconds by part, each without the parts called within it."""
    spent: Counter[str] = Counter()
    open_parts: list[tuple[str, float]] = []
    known = set(method.modules())

    def enter(part: str) -> None:
        open_parts.append((part, process_time()))

    def leave() -> None:
        part, began = open_parts.pop()
        seconds = process_time() - began
        spent[part] += seconds
        if open_parts:
            spent[open_parts[-1][0]] -= seconds

    def around(part: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            enter(part)
            try:
                return work(*args, **kwargs)
            finally:
                leave()

        return run

    def before(module: nn.Module, _: Any) -> None:
        if module in known:
            enter("forward")

    def after(module: nn.Module, given: Any, returned: Any) -> None:
        if module in known:
            leave()

    handles = [hooks.register_module_forward_pre_hook(before), hooks.register_module_forward_hook(after, always_call=True)]
    with monkeypatch.context() as patched:
        for part, (owner, name) in PARTS.items():
            patched.setattr(owner, name, around(part, getattr(owner, name)))
        try:
            yield spent
        finally:
            for handle in handles:
                handle.remove()


@pytest.mark.parametrize("speed", ["exact", "fast"])
@pytest.mark.parametrize("model", RECIPES)
def test_shares_of_a_step(table: Table, model: str, speed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register_schemas()
    recipe = RECIPES[model]
    composed = Composed.of(recipe)
    method = composed.method()
    accelerator = Accelerator(on=torch.device("cpu"))
    trainer = composed.trainer_of(method, accelerator, tmp_path, batch=recipe.batch, speed=speed)
    stage, batch = trainer._enter_stage(None), composed.batch(recipe.batch)
    with one_thread(), timed(method, monkeypatch) as spent:
        for step in range(STEPS + 1):
            if step == 1:
                spent.clear()
                began = process_time()
            trainer._optimise(stage, [batch])
        whole = process_time() - began
    spent["rest"] = whole - sum(spent.values())
    networks = spent["forward"] + spent["backward"]
    assert 0 < networks < whole
    shares = ", ".join(f"{part} {100 * seconds / whole:.1f} %" for part, seconds in spent.most_common())
    name = f"step of {model}, batch {recipe.batch}, crops of {composed.trainer.patch}, speed={speed}"
    table.note(
        f"{name}, outside the networks", f"{100 * (1 - networks / whole):.1f} %", f"goal 10 %; {1000 * whole / STEPS:.0f} CPU ms: {shares}"
    )


@pytest.mark.parametrize("model", NETWORKS)
def test_what_speed_fast_takes(table: Table, model: str) -> None:
    """The ratio of forward and backward pass, and how far losses and gradients are from exact: what a run prints."""
    register_schemas()
    composed = Composed.of(NETWORKS[model])
    with one_thread():
        passes = Passes(composed.method(), composed.degradation.build(), torch.device("cpu"), 0, composed.batch(2))
        found = measure(passes)
    away = f"losses {found.loss:.0e}, gradients {found.gradients:.0e}"
    table.note(f"{model}, forward and backward pass, speed=fast", f"{found.ratio:.2f}", f"exact; {away}; {tried(found.ratios)}")
