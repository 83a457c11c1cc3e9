"""Which parts of a method torch.compile takes, found by watching a step: those that are called, wherever they lie in it.

Compiling a method's children is not enough. A list of networks is never called itself, and an autoencoder whose encoder and decoder are
called is none either: nothing would be compiled, and nobody told. Here the modules that a step calls are found, with the share of its
floating-point operations that they do.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.utils._pytree as tree
from torch import Tensor, nn
from torch.nn.modules import module as hooks

from rsdiff.config import UserError
from rsdiff.inference.memory import count_operations

Compile = bool | Literal["blocks", "graphs"]
"""True: every part of the networks that is called, whole. blocks: the repeated blocks in them, whose code is compiled once for all of them
(seconds instead of minutes). graphs: whole parts, whose launches are recorded as CUDA graphs (restoration on a GPU)."""
BACKEND: Any = "inductor"
"""Of torch.compile."""
COMPILERS = ("torch._dynamo", "torch._inductor")
"""Packages whose exceptions say that something could not be compiled."""
COMPILERS_ERROR = re.compile(r"^.*?\b(fatal )?error: ")
"""How g++ and clang++ begin the line of an error."""
ENOUGH = 0.5
"""Share of a part's operations that its repeated blocks must do to be compiled instead of it."""


@dataclass
class Watch:
    """What a step called.

    operations  floating-point operations of every module that was called, its own modules included
    alone       of these, the operations of calls that no module of the method made, in the order of the first such call
    total       floating-point operations of the step, those outside every module included
    """

    operations: dict[nn.Module, int] = field(default_factory=dict)
    alone: dict[nn.Module, int] = field(default_factory=dict)
    total: int = 0

    def share(self, regions: Iterable[nn.Module]) -> float:
        """Return the share of the operations that `regions` do; of one within another only what it does by itself is added."""
        chosen = list(regions)
        within = {module for region in chosen for module in region.modules() if module is not region}
        done = sum(self.alone.get(region, 0) if region in within else self.operations[region] for region in chosen)
        return done / self.total if self.total else 1.0


@contextmanager
def watching(method: nn.Module) -> Iterator[Watch]:
    """Watch which modules of `method` the block calls, and what they do; those that are compiled run as they are written."""
    watch, known = Watch(), set(method.modules())
    open_calls: list[tuple[nn.Module, int]] = []
    with torch.compiler.set_stance("force_eager"), count_operations() as counter:

        def before(module: nn.Module, _: Any) -> None:
            if module in known:
                if not open_calls:
                    watch.alone.setdefault(module, 0)
                watch.operations.setdefault(module, 0)
                open_calls.append((module, counter.get_total_flops()))

        def after(module: nn.Module, given: Any, returned: Any) -> None:
            if module in known:
                done = counter.get_total_flops() - open_calls.pop()[1]
                if not open_calls:
                    watch.alone[module] += done
                if not any(module is outer for outer, _ in open_calls):  # a module within itself counts once
                    watch.operations[module] += done

        handles = [hooks.register_module_forward_pre_hook(before), hooks.register_module_forward_hook(after, always_call=True)]
        try:
            yield watch
        finally:
            for handle in handles:
                handle.remove()
            watch.total = counter.get_total_flops()


def regions_of(watch: Watch, kind: Compile) -> list[nn.Module]:
    """Return the modules to compile: the parts that are called by themselves and compute, or the repeated blocks of those that have some.

    A part may lie within another one, as does a module that a query network's `prepare` calls.
    """
    found: list[nn.Module] = []
    for part in (part for part, done in watch.alone.items() if done):
        blocks = repeated_blocks(part, watch) if kind == "blocks" else []
        found += blocks if sum(watch.operations[block] for block in blocks) >= ENOUGH * watch.operations[part] and blocks else [part]
    inner = {module for region in found for module in region.modules() if module is not region}
    return [region for region in dict.fromkeys(found) if region not in inner or watch.alone.get(region)]


def repeated_blocks(part: nn.Module, watch: Watch) -> list[nn.Module]:
    """Return the outermost modules of `part` that computed and whose class, none of PyTorch's, occurs more than once."""

    def computes(module: nn.Module) -> bool:
        return module is not part and watch.operations.get(module, 0) > 0 and not type(module).__module__.startswith("torch.")

    counts = Counter(type(module) for module in part.modules() if computes(module))
    found: list[nn.Module] = []

    def search(module: nn.Module) -> None:
        for child in module.children():
            if computes(child) and counts[type(child)] > 1:
                found.append(child)
            else:
                search(child)

    search(part)
    return found


def compile_regions(method: nn.Module, kind: Compile, run: Callable[[], object], device: torch.device) -> str:
    """Compile what `run` calls of `method`, and return a sentence of what that is; `run` is called once, before.

    Raises UserError where `kind` cannot work.
    """
    if kind == "graphs" and device.type != "cuda":
        raise UserError(f"compile=graphs records CUDA graphs and the device is {device.type}; use compile=true.")
    with watching(method) as watch:
        run()
    regions = regions_of(watch, kind)
    # PyTorch keeps 8 versions of a class's code and runs it as written beyond them; blocks of one class differ in width and in their input.
    alike = max(Counter(type(region) for region in regions).values(), default=0)
    config: Any = torch.compiler.config
    config.recompile_limit = max(config.recompile_limit, 2 * alike)
    for region in regions:
        compile_region(region, kind)
    return told(method, watch, regions)


def compile_region(region: nn.Module, kind: Compile) -> None:
    """Compile one module in place; its name in a state dict stays what it is."""
    if kind != "graphs":
        region.compile(backend=BACKEND)
        return
    compiled = torch.compile(region.forward, mode="reduce-overhead")

    def forward(*args: Any, **kwargs: Any) -> Any:
        # A graph writes its next results where the last ones are, which a solver of several steps still reads.
        return tree.tree_map_only(Tensor, torch.clone, compiled(*args, **kwargs))

    region.forward = forward


def run_as_written(method: nn.Module) -> None:
    """Let every module of `method` that was compiled in place run as it is written from now on."""
    for module in method.modules():
        if module._compiled_call_impl is not None:
            module._compiled_call_impl = None


@contextmanager
def compiling() -> Iterator[None]:
    """Raise UserError where torch.compile cannot compile: in a first pass, its backward pass, or for another size later on."""
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith(COMPILERS):
            raise
        raise UserError(
            f"torch.compile could not compile here: {compilers_words(error)}; leave the option compile out{remedy(error)}."
        ) from error


def compilers_words(error: BaseException) -> str:
    """Return what a compiler said, in a line: its first error, or the first line of the exception."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and not line.startswith("backend=")]
    first = next((line for line in lines if COMPILERS_ERROR.search(line)), lines[0] if lines else type(error).__name__)
    return COMPILERS_ERROR.sub("the compiler said: ", first).rstrip(".")[:200]


def remedy(error: BaseException) -> str:
    """Return what else would help, '' where nothing is known to."""
    text = f"{type(error).__name__}: {error}"
    if "C++ compile" in text or "CxxCompiler" in text:
        return ", or install g++ 13 or newer, or clang++ and set CXX=clang++"
    return ", or install the triton of this version of PyTorch" if "triton" in text.lower() else ""


def told(method: nn.Module, watch: Watch, regions: list[nn.Module]) -> str:
    """Return '98 % of the operations of a step are compiled, in 12 regions; not compiled: unet.conv_in (2 %)'."""
    names = {module: name for name, module in method.named_modules()}
    within = {module for region in regions for module in region.modules()}
    left: list[tuple[int, str]] = []
    if not watch.total:
        return "nothing of a step is compiled: its networks do no products or convolutions"

    def search(module: nn.Module) -> None:
        """Note the modules outside every region that compute without one inside."""
        if module in within or not watch.operations.get(module, 0):
            return
        called = [child for child in module.modules() if child is not module and watch.operations.get(child, 0)]
        if not called or not any(child in within for child in called):
            left.append((watch.operations[module], names[module]))
            return
        for child in module.children():
            search_any(child)

    def search_any(module: nn.Module) -> None:
        if watch.operations.get(module, 0):
            search(module)
        else:
            for child in module.children():
                search_any(child)

    for part in watch.alone:
        search(part)
    outside = watch.total - sum(watch.operations[region] for region in regions) - sum(operations for operations, _ in left)
    left = sorted([*left, (outside, "what lies between modules")], reverse=True)
    shown = [f"{name} ({100 * operations / watch.total:.0f} %)" for operations, name in left[:3] if operations >= 0.005 * watch.total]
    rest = f"; not compiled: {', '.join(shown)}" if shown else ""
    count = f"{len(regions)} region{'s' * (len(regions) != 1)}"
    return f"{100 * watch.share(regions):.0f} % of the floating-point operations of a step are compiled, in {count}{rest}"
