"""A GPU for an hour: everything that only a real one can show, on one page. `make gpu-proof`, or on a CPU in small: `make gpu-rehearsal`.

No network is needed. Each section is written as soon as it is known, and one that fails says so on the page and lets the others run: what
an hour that ends early has shown is kept.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from rsdiff.app.schemas import register_schemas
from rsdiff.data.precision import set_float32
from rsdiff.data.transfer import wait_for
from rsdiff.inference import compilation
from rsdiff.inference.compilation import compile_regions
from rsdiff.inference.images import restore_seeded
from rsdiff.inference.memory import count_operations, is_out_of_memory
from tests.conftest import REPOSITORY
from tests.devices.published import RECIPES, Composed, Published
from tests.devices.stand import Accelerator

SMALL = {
    "sr3": Published(("model=sr3_quick", "trainer=quick", "degradation=diffbsr_aniso", "trainer.patch=32"), 2),
    "ldcsr": Published(("model=ldcsr_quick", "trainer=quick", "degradation=bicubic", "trainer.patch=64"), 2),
}
"""What the rehearsal takes instead of the published sizes."""
GIB = 2**30
CARDS = (24, 40, 80)
"""GiB of the cards whose largest batches are told."""
USABLE = 0.92
"""Share of a card's memory that PyTorch can have: the rest are the CUDA context, workspaces and fragmentation."""


@dataclass(frozen=True)
class Way:
    """How a step is computed."""

    name: str
    trainer: dict[str, Any]
    tf32: bool = True

    def prepare(self) -> None:
        set_float32(self.tf32, cudnn_benchmark=self.tf32)


WAYS = (
    Way("float32, eager (the published code's way)", {"fused": False}, tf32=False),
    Way("TF32, fused optimiser (the default here)", {}),
    Way("bf16", {"precision": "bf16"}),
    Way("bf16, channels-last", {"precision": "bf16", "channels_last": True}),
    Way("bf16, compiled blocks", {"precision": "bf16", "compile": "blocks"}),
    Way("fp16", {"precision": "fp16"}),
)


class Page:
    """The page, written anew after every section."""

    def __init__(self, path: Path, limit_minutes: float) -> None:
        self.path, self.failed = path, 0
        self._lines: list[str] = []
        self._end = time.monotonic() + 60 * limit_minutes

    @property
    def minutes_left(self) -> float:
        return (self._end - time.monotonic()) / 60

    def section(self, title: str, content: Callable[[], Iterator[str]], minutes: float = 1.0) -> None:
        """Add what `content` yields, line by line; nothing where less than `minutes` are left."""
        self.write(f"\n## {title}\n")
        if self.minutes_left < minutes:
            self.write(f"Left out: {self.minutes_left:.0f} minutes were left.")
            return
        try:
            for line in content():
                self.write(line)
        except Exception as error:  # what it is, is for the page; the other sections can still be of use
            self.failed += 1
            where = traceback.extract_tb(error.__traceback__)[-1]
            self.write(f"\nFAILED: {type(error).__name__}: {str(error)[:400]} ({Path(where.filename).name}:{where.lineno})")
        finally:
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def write(self, line: str) -> None:
        print(line, flush=True)
        self._lines.append(line)
        self.path.write_text("\n".join(self._lines) + "\n", encoding="utf-8")


def seconds_of(work: Callable[[], object], device: torch.device, limit_s: float) -> float:
    """Return the seconds of one call after two others: the mean of as many as fit into `limit_s`, at least one."""
    for _ in range(2):
        work()
    wait_for(device)
    start, calls = time.perf_counter(), 0
    while not calls or (time.perf_counter() - start < limit_s and calls < 50):
        work()
        calls += 1
        if calls == 1:
            wait_for(device)
    wait_for(device)
    return (time.perf_counter() - start) / calls


def peak_gib(device: torch.device) -> float:
    """Return the most that PyTorch's allocator has had since it was last reset, 0 on a CPU."""
    return torch.cuda.max_memory_reserved(device) / GIB if device.type == "cuda" else 0.0


def start_afresh(device: torch.device) -> None:
    """Forget what was compiled and how much memory was in use."""
    torch.compiler.reset()  # what another recipe compiled counts towards the versions that PyTorch keeps of a layer's code
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


# Sections


def machine(device: torch.device) -> Iterator[str]:
    yield f"{platform.machine()}, Python {platform.python_version()}, PyTorch {torch.__version__}, CUDA {torch.version.cuda}"
    if device.type == "cuda":
        found = torch.cuda.get_device_properties(device)
        yield f"{found.name}, {found.total_memory / GIB:.0f} GiB, cuDNN {torch.backends.cudnn.version()}"
    else:
        yield "A rehearsal on the CPU, in small sizes: its figures mean nothing."


def shown(command: Sequence[str], minutes: float, environment: Mapping[str, str] | None = None) -> Iterator[str]:
    """Run a command and yield the end of what it says, also where it fails or needs more than `minutes`."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
        given: dict[str, Any] = {"cwd": REPOSITORY, "env": environment, "stdout": said, "stderr": subprocess.STDOUT}
        try:
            code = subprocess.run(command, timeout=60 * minutes, check=False, **given).returncode
        except subprocess.TimeoutExpired:
            code = None
        said.seek(0)
        yield "```\n" + "\n".join(said.read().splitlines()[-40:]) + "\n```"
    if code not in (0, 75):  # 75: the time was over, the same command continues
        raise RuntimeError(f"it was ended after {minutes:.0f} minutes" if code is None else f"it ended with code {code}")


def real_tests(device: torch.device, minutes: float) -> Iterator[str]:
    """Run the tests marked `cuda`: equality with the CPU, no waits, mixed precision, compiled parts and graphs."""
    command = [sys.executable, "-m", "pytest", "-v", "-m", "cuda", "tests/unit/test_on_a_gpu.py", "--tb=line"]
    return shown(command, minutes, {**os.environ, "RSDIFF_TEST_DEVICE": device.type})


def roofline(device: torch.device, side: int) -> dict[str, float]:
    """Return what this device reaches: operations per second of products by type, and bytes per second of a copy."""
    found = {}
    for name, dtype, tf32 in (("float32", torch.float32, False), ("TF32", torch.float32, True), ("bf16", torch.bfloat16, False)):
        set_float32(tf32, cudnn_benchmark=True)
        matrix = torch.randn(side, side, device=device, dtype=dtype)
        found[name] = 2 * side**3 / seconds_of(lambda matrix=matrix: matrix @ matrix, device, 1.0)  # type: ignore[misc]
    values = torch.empty(side * side, device=device)
    found["bytes"] = 2 * values.nbytes / seconds_of(values.clone, device, 1.0)
    return found


def reached(device: torch.device, side: int) -> Iterator[str]:
    found = roofline(device, side)
    yield "| products in float32 | TF32 | bf16 | copies |\n|---|---|---|---|"
    speeds = " | ".join(f"{found[name] / 1e12:.1f} TFLOP/s" for name in ("float32", "TF32", "bf16"))
    yield f"| {speeds} | {found['bytes'] / 1e12:.2f} TB/s |"


@dataclass
class Training:
    """A recipe that takes steps."""

    composed: Composed
    device: torch.device
    way: Way

    def run(self, count: int, limit_s: float) -> tuple[float, float, int]:
        """Return seconds of a step of `count` images, its peak in GiB, and its floating-point operations."""
        self.way.prepare()
        start_afresh(self.device)
        precision = self.way.trainer.get("precision", "no")
        changed = {"batch": count, **self.way.trainer}
        with tempfile.TemporaryDirectory() as store:
            accelerator = Accelerator(precision, self.device)
            trainer = self.composed.trainer_of(self.composed.method(), accelerator, Path(store), **changed)
            trainer.say = lambda lines: None
            stage = trainer._enter_stage(None)
            batch = self.composed.batch(count)
            if self.device.type == "cuda":
                batch = batch.pin_memory()
            with count_operations() as operations:
                trainer._optimise(stage, [batch])
            seconds = seconds_of(lambda: trainer._optimise(stage, [batch]), self.device, limit_s)
        return seconds, peak_gib(self.device), operations.get_total_flops()


def training(recipes: dict[str, Published], device: torch.device, limit_s: float) -> Iterator[str]:
    yield "| recipe | way | ms per step | images/s | times the first | TFLOP/s | peak GiB |\n|---|---|---|---|---|---|---|"
    for name, recipe in recipes.items():
        composed, first, count, operations = Composed.of(recipe), 0.0, recipe.batch, 0
        for way in WAYS:
            while True:
                try:
                    seconds, peak, counted = Training(composed, device, way).run(count, limit_s)
                    break
                except Exception as error:
                    if not is_out_of_memory(error) or count == 1:
                        yield f"| {name} | {way.name} | {type(error).__name__}: {str(error)[:120]} | | | | |"
                        seconds = 0.0
                        break
                    count //= 2
            if not seconds:
                continue
            operations = operations or counted  # those of the eager step: a compiled one hides some
            first = first or seconds / count
            speed = f"{1e3 * seconds:.1f} | {count / seconds:.1f} | {first / (seconds / count):.2f} | {operations / seconds / 1e12:.1f}"
            yield f"| {name}, {count} x {composed.trainer.patch}^2 | {way.name} | {speed} | {peak:.1f} |"


def sampling(recipes: dict[str, Published], device: torch.device, limit_s: float) -> Iterator[str]:
    yield "| recipe | way | ms per level, one image |\n|---|---|---|"
    kinds: list[tuple[str, Any, Any]] = [("float32", "no", False), ("bf16", "bf16", False), ("bf16, compiled", "bf16", True)]
    if device.type == "cuda":
        kinds.append(("bf16, CUDA graphs", "bf16", "graphs"))
    for name, recipe in recipes.items():
        composed = Composed.of(recipe)
        for way, precision, kind in kinds:
            set_float32(tf32=False, cudnn_benchmark=False)
            start_afresh(device)
            method = composed.method().to(device).eval()
            one = composed.tested(device)

            def restore(steps: int, method: Any = method, one: Any = one, precision: Any = precision, composed: Any = composed) -> None:
                with torch.no_grad():
                    restore_seeded(method, one, replace(composed.sampler, steps=steps), 0, precision=precision)

            try:
                if kind:
                    compile_regions(method, kind, partial(restore, 2), device)
                most = min(10, composed.sampler.steps)  # of few, where the model's table has no more levels
                few, many = (seconds_of(partial(restore, steps), device, limit_s) for steps in (2, most))
                yield f"| {name} | {way} | {1e3 * (many - few) / (most - 2):.2f} |"
            except Exception as error:
                yield f"| {name} | {way} | {type(error).__name__}: {str(error)[:120]} |"


def batches(recipes: dict[str, Published], device: torch.device) -> Iterator[str]:
    if device.type != "cuda":
        yield "The allocator of a CPU does not tell its peak."
        return
    yield "| recipe | " + " | ".join(f"{size} GiB" for size in CARDS) + " |\n|---|" + "---|" * len(CARDS)
    way = next(way for way in WAYS if way.name == "bf16")
    for name, recipe in recipes.items():
        composed = Composed.of(recipe)
        one, three = (Training(composed, device, way).run(count, 0.0)[1] for count in (1, 3))
        per_image = max((three - one) / 2, 1e-3)
        fits = [max(0, int((USABLE * size - (one - per_image)) / per_image)) for size in CARDS]
        yield f"| {name}, bf16, {composed.trainer.patch}^2 | " + " | ".join(map(str, fits)) + " |"


def training_words(minutes: float, is_small: bool, data: str | None) -> list[str]:
    """Return a training as a user types it, of real images where `data` is their folder, else of generated ones."""
    words = ["experiments=edm_sr/small", f"dataset.root={data}"]
    if not data:
        sizes = ["trainer.steps=6000", "trainer.batch=16", "trainer.patch=64", "dataset.size=256"]
        words = ["model=edm_sr_tiny", "dataset=synthetic", "degradation=bicubic", "metrics.metrics=[psnr,ssim]", *sizes]
    words += ["trainer.precision=bf16", f"trainer.time_limit_minutes={minutes:.1f}"]
    rehearsed = ["trainer.steps=2", "trainer.batch=2", "trainer.patch=32", "sampler.steps=2", "metrics.metrics=[psnr]"]
    return [*words, *rehearsed, "dataset.test_limit=2" if data else "dataset.size=64"] if is_small else words


def real_training(minutes: float, is_small: bool, data: str | None, outputs: Path) -> Iterator[str]:
    """Train for at most the minutes that are left, as a user does; where the steps end before, the evaluation is shown."""
    command = ["run.py", *training_words(minutes, is_small, data), f"outputs={outputs}"]
    yield f"`{' '.join(command)}`\n"
    yield from shown([sys.executable, *command], minutes + 15)


def main() -> int:
    """Write the page; return how many sections failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--output", type=Path, default=Path("gpu-proof.md"))
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--data", help="folder of real images for the training at the end; without it scenes are generated")
    chosen = parser.parse_args()
    if chosen.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device is there; `make gpu-rehearsal` tries everything in small on a CPU.", file=sys.stderr)
        return 1
    register_schemas()
    device, is_small = torch.device(chosen.device), chosen.device == "cpu"
    recipes, limit_s = (SMALL, 0.0) if is_small else (RECIPES, 5.0)
    if is_small:
        compilation.BACKEND = "eager"  # a CPU's compiler would take minutes
    page = Page(chosen.output, chosen.minutes)
    page.write(f"# What a GPU shows\n\n{time.strftime('%Y-%m-%d %H:%M')}")
    page.section("Machine", lambda: machine(device))
    page.section("Tests on the device", lambda: real_tests(device, min(15.0, chosen.minutes / 3)))
    page.section("What products and copies reach", lambda: reached(device, 256 if is_small else 8192))
    page.section("Training at the published sizes", lambda: training(recipes, device, limit_s), 5)
    page.section("Sampling at the published sizes", lambda: sampling(recipes, device, limit_s), 3)
    page.section("Batches that fit", lambda: batches(recipes, device), 3)
    minutes = max(1.0, page.minutes_left - 3)
    with tempfile.TemporaryDirectory() as outputs:
        page.section("A training", lambda: real_training(minutes, is_small, chosen.data, Path(outputs)), 4)
    print(f"{chosen.output}: {page.failed} sections failed")
    return page.failed


if __name__ == "__main__":
    sys.exit(main())
