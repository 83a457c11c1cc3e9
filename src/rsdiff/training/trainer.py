"""The one training loop: stages and optimiser groups are declared by the method, everything random is keyed by (seed, step, sample).

Training 2N steps equals training N steps, being killed, and resuming: bit for bit on one CPU process, in data order anywhere.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from rsdiff.config import UserError
from rsdiff.data.sample import Batch
from rsdiff.data.seeding import derived_seed
from rsdiff.data.stop_signals import STOP_SIGNALS, answered
from rsdiff.degradations.base import Degradation, degrade
from rsdiff.diffusion.noise import SeededNoise
from rsdiff.inference.memory import PeakMemory
from rsdiff.methods.base import Method, Stage
from rsdiff.training import checkpoints
from rsdiff.training.config import TrainerConfig
from rsdiff.training.optimisers import GroupOptimiser, build_average, build_optimisers
from rsdiff.training.processes import any_process, average_gradients, broadcast_buffers, mean_over_processes, wait_for_all


class TrainingError(UserError):
    """Training cannot go on; one sentence that says why and what to do."""


class Interrupted(RuntimeError):  # noqa: N818 - it is no error
    """Training stopped in good order and can be continued by the same command; signal `signal` asked for it, or (None) the time limit."""

    def __init__(self, message: str, signal: int | None) -> None:
        super().__init__(message)
        self.signal = signal


class Journal(Protocol):
    """Where the loop reports to; the tracking room implements it."""

    def log(self, step: int, values: Mapping[str, float]) -> None: ...
    def advance(self, step: int, total: int, values: Mapping[str, float], images_per_second: float) -> None: ...


@dataclass
class Trainer:
    """Trains `method` on the micro-batches of `loader`.

    loader      called with the first step to make; yields, per optimiser step, `config.accumulate` micro-batches of this process
    validate    called with the method in evaluation mode (averaged weights loaded where there are any); returns mean metrics, the same on
                every process
    card        facts written into every checkpoint's card
    store       folder of the checkpoints
    """

    config: TrainerConfig
    method: Method
    degradation: Degradation
    loader: Callable[[int], Iterator[Sequence[Batch]]]
    validate: Callable[[int], dict[str, float]]
    journal: Journal
    accelerator: Accelerator
    store: Path
    card: Mapping[str, Any]
    seed: int
    optimisers: dict[str, GroupOptimiser] = field(init=False)
    step: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.method.to(self.accelerator.device)
        if self.config.channels_last:
            self.method.to(memory_format=torch.channels_last)
        if self.config.compile:
            for network in self.method.children():
                network.compile()
        self.optimisers = build_optimisers(self.config, self.method, self.accelerator)
        self.average = build_average(self.config.ema, self.method)
        self.stages = stage_ends(self.method.stages(), self.config.steps)
        self._stop_signal: int | None = None
        self._started = time.monotonic()

    def resume(self) -> bool:
        """Continue from the newest checkpoint of the store, if there is one; raises TrainingError where the data are others by now."""
        last = checkpoints.last_checkpoint(self.store)
        if last is None:
            return False
        found = checkpoints.read_checkpoint(last, with_training_state=True)
        if found.card.get("data", self.card.get("data")) != self.card.get("data"):
            raise TrainingError(
                f"the training images changed since step {found.card['step']} was saved in {self.store}; put the former files back, or "
                "delete the run's folder to begin anew."
            )
        load_weights(self.method, found.weights, found.folder)
        state = found.training_state
        for name, optimiser in self.optimisers.items():
            optimiser.load_state_dict(state["optimisers"][name])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        if self.accelerator.scaler is not None and state["scaler"]:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.step = int(state["step"])
        self._remember_best(last, found.card["validation"])  # the run may have been killed before it could
        return True

    def fit(self) -> dict[str, float]:
        """Train to the end and return the last validation's metrics.

        Raises Interrupted after a signal or the time limit, TrainingError when a loss is not finite; both leave a checkpoint to continue
        from (for a loss that is not finite: the last good state).
        """
        metrics: dict[str, float] = {}
        stage = self._enter_stage(None)
        clock, clock_step = time.monotonic(), self.step
        with self._signals():
            for micro_batches in self.loader(self.step):
                if self.step >= self.config.steps:
                    break
                stage = self._enter_stage(stage)
                values = self._optimise(stage, micro_batches)
                self.step += 1
                last = self.step == self.config.steps
                if self.step % self.config.log_every_steps == 0 or last:
                    numbers = mean_over_processes(self.accelerator, values)
                    numbers |= {f"lr/{name}": self.optimisers[name].lr for name in stage.groups}
                    now = time.monotonic()
                    speed = (self.step - clock_step) * self.config.batch / max(now - clock, 1e-9)
                    clock, clock_step = now, self.step
                    if self.accelerator.is_main_process:
                        self.journal.log(self.step, numbers)
                        self.journal.advance(self.step, self.config.steps, numbers, speed)
                due = self.config.validate_every_steps and self.step % self.config.validate_every_steps == 0
                if due or last or self.step % self.config.save_every_steps == 0:
                    metrics = self._validate() if due or last else {}
                    self._remember_best(self._save(metrics), metrics)
                    self._prune()
                if not last and self._must_stop():
                    self._save()
                    message = f"stopped after step {self.step} of {self.config.steps}; the same command continues from there."
                    raise Interrupted(message, self._stop_signal)
        return metrics

    @property
    def standing_bytes(self) -> int:
        """Bytes that the first step will add and keep: two moments per weight at most."""
        return 2 * sum(parameter.nbytes for optimiser in self.optimisers.values() for parameter in optimiser.parameters)

    def step_bytes(self, batch: Batch) -> int:
        """Return the bytes of the tensors that are alive at once in a step on `batch` as its only micro-batch; changes nothing."""
        stage = self._enter_stage(None)
        device = self.accelerator.device
        kept = [(buffer, buffer.clone()) for buffer in self.method.buffers()]
        peak = 0
        try:
            for part in self.method.passes(stage):
                with step_randomness(self.seed, 0, 0, device), PeakMemory() as memory:
                    made = degrade_on(batch, device, self.degradation, self.config.channels_last)
                    with self.accelerator.autocast():
                        found = self.method.losses(made, part, training_noise(self.seed, part, 0, made))
                    for losses in found.values():
                        losses.total.backward()
                peak = max(peak, memory.peak)
                del losses, found, made
                for parameter in self.method.parameters():
                    parameter.grad = None
        finally:
            with torch.no_grad():
                for buffer, value in kept:
                    buffer.copy_(value)
        return peak

    def _enter_stage(self, current: Stage | None) -> Stage:
        """Return the stage of this step, telling the method when it begins; a resumed run enters its stage anew."""
        stage = next((stage for end, stage in self.stages if self.step < end), self.stages[-1][1])
        if stage is not current:
            self.method.train()
            if current is None:
                self.method.prepare_training()
            self.method.start_stage(stage)
        return stage

    def _optimise(self, stage: Stage, micro_batches: Sequence[Batch]) -> dict[str, Tensor]:
        """Step every group of the stage once and return the losses' terms, averaged over the micro-batches."""
        device = self.accelerator.device
        batches = [degrade_on(batch, device, self.degradation, self.config.channels_last) for batch in micro_batches]
        images_seen = self.step * self.config.batch
        logged: dict[str, Tensor] = {}
        with step_randomness(self.seed, self.step, self.accelerator.process_index, device):
            for group in stage.groups:
                self.optimisers[group].prepare(self.step, images_seen)
            for part in self.method.passes(stage):
                for batch in batches:
                    with self.accelerator.autocast():
                        found = self.method.losses(batch, part, training_noise(self.seed, part, self.step, batch))
                    for group, losses in found.items():
                        self._require_finite(losses.total, losses.terms, group, batch)
                        self.accelerator.backward(losses.total / len(batches))
                        for name, value in {**losses.terms, "total": losses.total}.items():
                            key = f"{group}/{name}"
                            logged[key] = logged.get(key, torch.zeros((), device=device)) + value.detach().float() / len(batches)
                for group in part.groups:
                    average_gradients(self.accelerator, self.optimisers[group].parameters)
                    self.optimisers[group].step(self.config.clip_norm, self.config.replace_nan_gradients)
            self.method.after_step(stage, self.step)
        broadcast_buffers(self.accelerator, self.method)
        if self.average is not None and (self.step + 1) % self.config.ema.every_steps == 0:
            self.average.update(self.method, images_seen, images_seen + self.config.batch)
        return logged

    def _require_finite(self, total: Tensor, terms: Mapping[str, Tensor], group: str, batch: Batch) -> None:
        """Raise before the weights are touched, so that the state saved is the last good one."""
        if not any_process(self.accelerator, not bool(torch.isfinite(total))):
            return
        for parameter in self.method.parameters():
            parameter.grad = None
        self._save()
        bad = [name for name, value in terms.items() if not bool(torch.isfinite(value).all())] or ["total"]
        names = ", ".join(meta.name for meta in batch.metas[:4])
        raise TrainingError(
            f"the loss of group '{group}' is not finite at step {self.step + 1} (term {', '.join(bad)}; samples {names}); the state before "
            f"it is saved in {self.store}: lower trainer.optimiser.lr, set trainer.clip_norm or use trainer.precision=no."
        )

    def _save(self, validation: Mapping[str, float] = MappingProxyType({})) -> Path:
        """Write a checkpoint of the present state on the main process; the others wait for it."""
        folder = self.store / f"step_{self.step:08d}"
        if self.accelerator.is_main_process:
            scaler = self.accelerator.scaler
            state = {
                "step": self.step,
                "optimisers": {name: optimiser.state_dict() for name, optimiser in self.optimisers.items()},
                "average": self.average.state_dict() if self.average is not None else {},
                "scaler": scaler.state_dict() if scaler is not None else {},
            }
            averages = self.average.weights(self.method) if self.average is not None else []
            facts = {"images": self.step * self.config.batch, "validation": dict(validation)}
            folder = checkpoints.write_checkpoint(self.store, self.step, self.method.state_dict(), averages, {**self.card, **facts}, state)
        wait_for_all(self.accelerator)
        return folder

    def _validate(self) -> dict[str, float]:
        """Validate with the weights evaluation would use, and log the result."""
        self.method.eval()
        with self._averaged_weights():
            metrics = self.validate(self.step)
        self.method.train()
        if self.accelerator.is_main_process and metrics:
            self.journal.log(self.step, {f"validation/{name}": value for name, value in metrics.items()})
        return metrics

    def _remember_best(self, folder: Path, validation: Mapping[str, float]) -> None:
        """Mark a checkpoint as the best one if its validation says so."""
        name = self.config.best_metric
        if name is None or name not in validation or not self.accelerator.is_main_process:
            return
        if checkpoints.is_better(name, validation[name], checkpoints.best_value(self.store)):
            checkpoints.mark_best(self.store, folder, name, validation[name])

    @contextmanager
    def _averaged_weights(self) -> Iterator[None]:
        if self.average is None:
            yield
            return
        kept = {name: value.detach().clone() for name, value in self.method.state_dict().items()}
        self.method.load_state_dict(self.average.weights(self.method)[0])
        try:
            yield
        finally:
            self.method.load_state_dict(kept)

    def _prune(self) -> None:
        if self.accelerator.is_main_process:
            checkpoints.prune(self.store, self.config.keep_checkpoints)

    def _must_stop(self) -> bool:
        limit = self.config.time_limit_minutes
        late = limit is not None and time.monotonic() - self._started > 60 * limit
        return any_process(self.accelerator, late or self._stop_signal is not None)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Turn a stop signal into a stop at the next step boundary."""

        def remember(number: int, _frame: FrameType | None) -> None:
            self._stop_signal = number

        with answered((signal.SIGINT, *STOP_SIGNALS), remember):
            yield


def stage_ends(stages: Sequence[Stage], steps: int) -> list[tuple[int, Stage]]:
    """Return (first step after the stage, stage) pairs; the last stage lasts to the end whatever its length."""
    ends: list[tuple[int, Stage]] = []
    start = 0
    for stage in stages:
        start = steps if stage.steps is None else start + stage.steps
        ends.append((start, stage))
    return ends


def degrade_on(batch: Batch, device: torch.device, degradation: Degradation, channels_last: bool = False) -> Batch:
    """Move a batch to `device` and make its LR there, unless the data brought one."""
    batch = batch.to(device)
    if batch.lr is None:
        batch = degrade(batch, degradation)
    return batch.with_memory_format(torch.channels_last) if channels_last else batch


def training_noise(seed: int, stage: Stage, step: int, batch: Batch) -> SeededNoise:
    """Noise of one pass over a batch, from the stage's groups and: per image (seed, epoch, index), shared draws (seed, step)."""
    groups = "+".join(stage.groups)
    keys = [(seed, "train", groups, meta.epoch, meta.index) for meta in batch.metas]
    return SeededNoise(keys, shared=(seed, "step", groups, step))


@contextmanager
def step_randomness(seed: int, step: int, process: int, device: torch.device) -> Iterator[None]:
    """Key what PyTorch draws by itself (dropout) to the step, and leave the global generators as they were."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(derived_seed(seed, "dropout", step, process))
        yield


def load_weights(method: nn.Module, weights: Mapping[str, Tensor], where: Path) -> None:
    """Load weights strictly; raises CheckpointError in one sentence when they belong to another method or another size of it."""
    own = method.state_dict()
    missing, unknown = sorted(set(own) - set(weights)), sorted(set(weights) - set(own))
    shapes = sorted(name for name in set(own) & set(weights) if own[name].shape != weights[name].shape)
    if missing or unknown or shapes:
        example = (missing or unknown or shapes)[0]
        raise checkpoints.CheckpointError(
            f"{where} holds weights of another model: {len(missing)} of {len(own)} tensors are missing, {len(unknown)} are unknown and "
            f"{len(shapes)} have another shape (first: {example}); choose the model it was trained with."
        )
    method.load_state_dict(dict(weights))
