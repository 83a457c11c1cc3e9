"""Several processes train as one: every method, by gradients that are averaged in buckets while the backward pass runs."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
import torch.multiprocessing
from accelerate import DistributedType
from torch import Tensor, nn

from rsdiff.config import UserError
from rsdiff.tasks import experiment
from rsdiff.training.config import OptimiserConfig, TrainerConfig
from rsdiff.training.reduction import broadcast_buffers, buckets
from rsdiff.training.trainer import Trainer
from tests.devices.stand import Silent, Work, works_for
from tests.runs.pairs import MODELS, fresh, material, options

CHEAP = ("sr3_quick", "scdm_quick")
TRAINED = [name for name in MODELS if not options().models[name].is_ready]
IMAGES, STEPS = 4, 2
FOUND = dict[str, tuple[list[float], dict[str, Tensor]] | str]
"""Losses of every step and the weights, or why a model cannot be shared out."""


@dataclass
class Process:
    """What the trainer uses of Accelerate's, in one of several processes of a CPU."""

    process_index: int
    num_processes: int
    scaler: None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def is_main_process(self) -> bool:
        return self.process_index == 0

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def wait_for_everyone(self) -> None:
        if self.num_processes > 1:
            torch.distributed.barrier()


def trained(model: str, process: Process, store: Path) -> tuple[list[float], dict[str, Tensor]] | str:
    for work in works_for(model):
        try:
            return steps_of(work, process, store)
        except UserError as reason:
            if "how a batch is shared out" in str(reason):
                return str(reason)[:30]
    raise AssertionError(f"no size suits {model}")


def steps_of(work: Work, process: Process, store: Path) -> tuple[list[float], dict[str, Tensor]]:
    """Take the first steps of every stage on this process's share of the images."""
    pair, accelerator = work.pair, process
    given = material(pair.data, pair.degradation, pair.scale, work.views, work.side)
    method = deepcopy(fresh(pair.model, given.problem))
    # Adam would turn the last bit of a gradient near 0 into a step of full length.
    config = TrainerConfig(steps=9, batch=IMAGES, optimiser=OptimiserConfig(algorithm="sgd", lr=1e-3, betas=(0.0, 0.0)))
    made: Any = Trainer(config, method, given.degradation, None, None, Silent(), accelerator, store, {}, 0)  # type: ignore[arg-type]
    share = IMAGES // process.num_processes
    batch = work.batch(range(process.process_index * share, (process.process_index + 1) * share))
    losses = []
    without_dropout(made.method)
    made.method.train()
    made.method.prepare_training()
    for optimiser in made.optimisers.values():
        optimiser.buckets._bucket_bytes = 4096  # several buckets, however small the network is
    for _, stage in made.stages:
        made.method.start_stage(stage)
        for _ in range(STEPS):
            logged = made._optimise(stage, [batch])
            total = torch.stack([value for name, value in sorted(logged.items()) if name.endswith("/total")])
            if process.num_processes > 1:
                torch.distributed.all_reduce(total)
            losses += (total / process.num_processes).tolist()
            made.step += 1
    return losses, {name: value.detach().clone() for name, value in method.state_dict().items()}


def without_dropout(method: nn.Module) -> None:
    """Let no layer drop anything: every process draws what it drops anew."""
    for module in method.modules():
        for name in ("p", "drop_prob", "drop_path"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


def work_of(rank: int, world: int, models: list[str], store: str) -> None:
    """Train `models` as process `rank` of `world`; the first one writes what was found."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}/meeting{world}", rank=rank, world_size=world)
    found: FOUND = {model: trained(model, Process(rank, world), Path(store)) for model in models}
    if rank == 0:
        torch.save(found, Path(store) / f"found{world}.pt")
    torch.distributed.destroy_process_group()


def start(work: Any, arguments: tuple[Any, ...], processes: int) -> None:
    """Run `work` (rank, *arguments) in processes that have what this one has imported and composed, where that is safe."""
    method = "spawn" if torch.cuda.is_available() else "fork"  # autograd has threads for a GPU, which a fork would lack
    torch.multiprocessing.start_processes(work, arguments, processes, start_method=method)  # type: ignore[no-untyped-call]


def same(models: list[str], worlds: list[int], store: Path) -> list[str]:
    """Hold what several processes give to what one gives; return the models that refused to be shared out."""
    alone: FOUND = {model: trained(model, Process(0, 1), store) for model in models}
    refused = []
    for world in worlds:
        start(work_of, (world, models, str(store)), world)
        found: FOUND = torch.load(store / f"found{world}.pt")
        for model in models:
            one, several = alone[model], found[model]
            if isinstance(several, str):
                refused.append(model)
                continue
            assert not isinstance(one, str)
            assert several[0] == pytest.approx(one[0], rel=1e-4, abs=1e-6), model
            moved = max(1.0, *(float(value.abs().max()) for value in one[1].values()))  # a summed loss moves weights by hundreds
            for name, value in one[1].items():
                torch.testing.assert_close(
                    several[1][name], value, rtol=1e-3, atol=1e-5 * moved, msg=lambda text, name=name: f"{name}: {text}"
                )
    return refused


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    assert not same(list(CHEAP), [2], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("model", TRAINED)
def test_two_and_four_processes_train_every_method_as_one(model: str, tmp_path: Path) -> None:
    refused = same([model], [2, 4], tmp_path)
    assert bool(refused) == bool(coupling_of(model)), refused


def coupling_of(model: str) -> str:
    for work in works_for(model):
        pair = work.pair
        given = material(pair.data, pair.degradation, pair.scale, work.views, work.side)
        return fresh(pair.model, given.problem).coupling
    raise AssertionError(model)


def test_buckets_are_full_but_not_overfull() -> None:
    parameters = [nn.Parameter(torch.zeros(count)) for count in (10, 20, 30, 1000, 5, 5)]
    found = buckets(parameters, 4 * 40)
    assert [[len(parameter) for parameter in bucket] for bucket in found] == [[10, 20], [30], [1000], [5, 5]]
    mixed = [nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(3, dtype=torch.float64))]
    assert len(buckets(mixed, 1000)) == 2


def test_buffers_of_the_main_process_are_everywhere(tmp_path: Path) -> None:
    start(buffers_of, (str(tmp_path),), 2)


def buffers_of(rank: int, store: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}/buffers", rank=rank, world_size=2)
    module = nn.BatchNorm2d(3)
    module.register_buffer("mask", torch.tensor([rank == 0, True]))
    module.running_mean += rank + 1
    broadcast_buffers(Process(rank, 2), module)  # type: ignore[arg-type]
    assert module.running_mean.tolist() == [1.0, 1.0, 1.0]  # type: ignore[union-attr]
    assert module.mask.tolist() == [True, True]  # type: ignore[operator, union-attr]
    torch.distributed.destroy_process_group()


def test_a_launcher_that_would_split_the_model_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Split:
        def __init__(self, **_: Any) -> None:
            self.distributed_type = DistributedType.FSDP

    monkeypatch.setattr(experiment, "Accelerator", Split)
    with pytest.raises(UserError, match=r"configured for FSDP, which splits a model over GPUs.*accelerate launch --multi_gpu"):
        experiment.make_accelerator()
