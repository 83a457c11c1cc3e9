"""Peak memory of BlindDiff's guided sampling at 10 and at 100 steps, each in a process of its own.

`pytest tests/benchmarks/test_guided_memory.py -s` prints both figures.
"""

import os
import subprocess
import sys

from tests.conftest import REPOSITORY

PROGRAM = """
import resource, sys, torch
from rsdiff.data.sample import Batch, SampleMeta
from rsdiff.diffusion import SamplerConfig, SeededNoise
from rsdiff.methods.base import Problem
from rsdiff.networks.mcformer import MCFormerConfig
from rsdiff.methods.blinddiff import BlindDiffConfig

network = MCFormerConfig(width=16, blocks=(1, 1, 2), refinement=1, heads=(1, 2, 4))  # model=blinddiff_tiny
method = BlindDiffConfig(network=network).build(Problem(4, 3, 3)).eval()
torch.nn.init.zeros_(method.network.out.weight)
batch = Batch(metas=[SampleMeta("scene")], size=(128, 128), lr_size=(32, 32), lr=torch.rand(1, 3, 32, 32))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
method.restore(batch, SamplerConfig(solver="native", steps=int(sys.argv[1]), spacing="linspace"), SeededNoise([(0,)]))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def peak_mebibytes(steps: int) -> float:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src"), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    ended = subprocess.run([sys.executable, "-c", PROGRAM, str(steps)], env=environment, capture_output=True, text=True, check=True)
    return float(ended.stdout)


def test_peak_memory_of_guided_sampling_does_not_depend_on_the_number_of_steps() -> None:
    few, many = peak_mebibytes(10), peak_mebibytes(100)
    print(f"10 steps: {few:.0f} MiB above the start, 100 steps: {many:.0f} MiB")
    assert many < 1.1 * few
