"""What torch.compile takes of every method: at least 95 % of a step's operations, or the sentence that says what not."""

from __future__ import annotations

import inspect
import re
from copy import deepcopy
from typing import Any

import pytest
import torch
from functorch.compile import nop
from torch import Tensor, nn
from torch._dynamo.backends.common import aot_autograd
from torch._inductor import exc

from rsdiff.config import UserError
from rsdiff.inference import compilation
from rsdiff.inference.compilation import Watch, compile_region, compile_regions, compiling, regions_of, run_as_written, told, watching
from rsdiff.methods.base import Method
from rsdiff.training.step import degrade_on, training_noise
from tests.devices.stand import works_for
from tests.runs.pairs import MODELS, fresh, material, options

CHEAP = ("sr3_quick", "ldcsr_quick", "liif_tiny", "rrdb_quick")
TRAINED = [name for name in MODELS if not options().models[name].is_ready]
LEAST = 0.95
LESS = {"spectral_linear": 0.0}
"""Models of which less is compiled, with the share: one that is fitted in closed form calls no network."""


def watched(model: str) -> tuple[Method, Watch]:
    """Return a method and what the steps of its stages called."""
    for work in works_for(model):
        pair = work.pair
        given = material(pair.data, pair.degradation, pair.scale, work.views, work.side)
        method = deepcopy(fresh(pair.model, given.problem))
        try:
            made = degrade_on(work.batch(), torch.device("cpu"), given.degradation)
            method.train()
            method.prepare_training()
            with watching(method) as watch:
                for stage in method.stages():
                    method.start_stage(stage)
                    for part in method.passes(stage):
                        method.losses(made, part, training_noise(0, part, 0, made))
        except UserError:  # too small for the network
            continue
        return method, watch
    raise AssertionError(f"no size suits {model}")


@pytest.mark.parametrize("model", [name if name in CHEAP else pytest.param(name, marks=pytest.mark.slow) for name in TRAINED])
def test_what_is_compiled_is_nearly_everything_or_is_said(model: str) -> None:
    method, watch = watched(model)
    whole, blocks = regions_of(watch, True), regions_of(watch, "blocks")
    print(model, told(method, watch, whole), "| blocks:", told(method, watch, blocks))
    assert LESS.get(model, LEAST) <= watch.share(whole) <= 1
    assert watch.share(blocks) <= watch.share(whole) + 1e-9
    for regions in (whole, blocks):
        for region in regions:
            assert watch.alone.get(region) or not any(region in set(other.modules()) for other in regions if other is not region)
    if watch.share(blocks) < LEAST:
        assert "not compiled: " in told(method, watch, blocks)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x).relu()


def test_every_block_is_compiled_where_their_widths_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch keeps 8 versions of a class's code and then runs it as it is written."""
    compiled: list[object] = []

    def backend(graph: Any, _: Any) -> Any:
        compiled.append(graph)
        return graph.forward

    class Wide(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.conv = nn.Conv2d(width, width + 1, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x).relu()

    monkeypatch.setattr(compilation, "BACKEND", backend)
    net = nn.Sequential(*[Wide(width) for width in range(1, 13)])
    compile_regions(net, "blocks", lambda: net(torch.ones(1, 1, 8, 8)), torch.device("cpu"))
    net(torch.ones(1, 1, 8, 8))
    assert len(compiled) == 12


class Autoencoder(nn.Module):
    """Never called itself, but by its parts, one of them in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(4, 4, 1), Block(), Block(), Block())
        self.steps = nn.ModuleList([Block(), Block()])
        self.unused = Block()

    def both(self, x: Tensor) -> Tensor:
        x = self.encoder(x)
        for step in self.steps:
            x = step(x)
        return x @ torch.eye(8)


IMAGE = torch.rand(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))


def test_parts_are_found_wherever_they_are_called() -> None:
    network = Autoencoder()
    with watching(network) as watch:
        network.both(IMAGE)
    assert list(watch.alone) == [network.encoder, *network.steps]
    assert regions_of(watch, True) == [network.encoder, *network.steps]
    assert regions_of(watch, "blocks") == [*list(network.encoder)[1:], *network.steps]
    operations = 2 * 64 * 4 * (4 + 5 * 9 * 4 + 8)
    assert watch.total == operations
    assert told(network, watch, regions_of(watch, True)) == (
        "96 % of the floating-point operations of a step are compiled, in 3 regions; not compiled: what lies between modules (4 %)"
    )
    assert "encoder.0 (2 %)" in told(network, watch, regions_of(watch, "blocks"))


@pytest.mark.parametrize("kind", [True, "blocks"])
def test_what_is_compiled_gives_the_same_and_is_watched_again(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    torch._dynamo.reset()
    network = Autoencoder()
    expected = network.both(IMAGE)
    names = list(network.state_dict())
    with watching(network) as first:
        network.both(IMAGE)
    captured: list[object] = []

    def backend(graph: Any, _: Any) -> Any:
        captured.append(graph)
        return graph

    monkeypatch.setattr(compilation, "BACKEND", backend)
    for region in regions_of(first, kind):
        compile_region(region, kind)
    assert torch.equal(network.both(IMAGE), expected)
    assert captured
    assert list(network.state_dict()) == names
    with watching(network) as again:
        network.both(IMAGE)
    assert (again.alone, again.total) == (first.alone, first.total)
    torch._dynamo.reset()


def test_graphs_are_refused_where_there_are_none() -> None:
    with pytest.raises(UserError, match=r"compile=graphs records CUDA graphs and the device is cpu; use compile=true\."):
        compile_regions(nn.Identity(), "graphs", lambda: None, torch.device("cpu"))


CPP_ERROR = """/tmp/a.cpp: In function 'void kernel(float*)':
/tmp/a.cpp:12:34: error: 'struct Vectorized<float>' has no member named 'tan'
   12 |     x.tan()"""


NO_COMPILER = exc.InvalidCxxCompiler(*["nocc"] * len(inspect.signature(exc.InvalidCxxCompiler).parameters))  # torch 2.11 takes no name
OTHER = r"leave the option compile out, or install g\+\+ 13 or newer, or clang\+\+ and set CXX=clang\+\+\.$"


@pytest.mark.parametrize(
    ("fault", "sentence", "is_backward"),
    [
        (
            exc.CppCompileError(["g++"], CPP_ERROR),
            f"the compiler said: 'struct Vectorized<float>' has no member named 'tan'; {OTHER}",
            False,
        ),
        (
            exc.CppCompileError(["g++"], CPP_ERROR),
            f"the compiler said: 'struct Vectorized<float>' has no member named 'tan'; {OTHER}",
            True,
        ),
        (NO_COMPILER, f"InvalidCxxCompiler: .+; {OTHER}", False),
        (NO_COMPILER, f"{re.escape(str(NO_COMPILER).rstrip('.'))}; {OTHER}", True),
        (RuntimeError("no such operation"), r"RuntimeError: no such operation; leave the option compile out\.$", False),
    ],
)
def test_what_cannot_be_compiled_is_said_in_a_sentence(
    fault: Exception, sentence: str, is_backward: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch._dynamo.reset()
    network = Autoencoder()
    expected = network.both(IMAGE)

    def fails(graph: Any, given: Any) -> Any:
        raise fault

    monkeypatch.setattr(compilation, "BACKEND", aot_autograd(fw_compiler=nop if is_backward else fails, bw_compiler=fails))
    compile_regions(network, True, lambda: network.both(IMAGE), torch.device("cpu"))
    with pytest.raises(UserError, match=rf"^torch\.compile could not compile here: {sentence}"), compiling():
        network.both(IMAGE).sum().backward()
    run_as_written(network)
    assert torch.equal(network.both(IMAGE), expected)
    torch._dynamo.reset()
