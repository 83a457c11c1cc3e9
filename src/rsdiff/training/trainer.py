"""The one training loop: stages and optimiser groups are declared by the method, everything random is keyed by (seed, step, sample).

Training 2N steps equals training N steps, being killed, and resuming: bit for bit on one CPU process, in data order anywhere.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor

from rsdiff.config import UserError
from rsdiff.config.errors import Interrupted, during
from rsdiff.config.pace import Pace, roughly
from rsdiff.data.precision import mixed
from rsdiff.data.sample import Batch
from rsdiff.data.stop_signals import STOP_SIGNALS, answered
from rsdiff.data.transfer import has_queue
from rsdiff.degradations.base import Degradation
from rsdiff.inference.compilation import compile_regions, compiling
from rsdiff.inference.memory import PeakMemory
from rsdiff.methods.base import Losses, Method, Stage
from rsdiff.training import checkpoints
from rsdiff.training.budget import Budget
from rsdiff.training.config import TrainerConfig
from rsdiff.training.finite import Evidence, FiniteWatch, not_finite
from rsdiff.training.optimisers import GroupOptimiser, build_average, build_optimisers, update_loss_scale
from rsdiff.training.processes import any_process, mean_over_processes, wait_for_all
from rsdiff.training.reduction import broadcast_buffers
from rsdiff.training.starting import load_weights
from rsdiff.training.step import degrade_on, stage_ends, step_randomness, training_noise, without_traces


class TrainingError(UserError):
    """Training cannot go on; one sentence that says why and what to do."""


class Journal(Protocol):
    """Where the loop reports to; the package `tracking` implements it."""

    def log(self, step: int, values: Mapping[str, float]) -> None: ...
    def advance(self, step: int, total: int, values: Mapping[str, float], images_per_second: float) -> None: ...


@dataclass
class Trainer:
    """Trains `method` on the micro-batches of `loader`.

    loader      called with the first step to make; yields, per optimiser step, `config.accumulate` micro-batches of this process
    validate    called with the method in evaluation mode (averaged weights loaded where there are any); returns mean metrics, the same on
                every process
    card        facts written into every checkpoint's card
    store       folder of the checkpoints, <run>/checkpoints

    A checkpoint is saved before it is validated, so that a validation that fails costs no step; and it is marked as the best one after
    that, so that a kill in between only repeats the validation.
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
    say: Callable[[Sequence[str]], None] = print
    """Gives the user a few sentences."""
    optimisers: dict[str, GroupOptimiser] = field(init=False)
    step: int = field(init=False, default=0)
    schedule_start: int = field(init=False, default=0)
    """Step from which the learning-rate schedule is counted: 0, or where an extension restarted it."""

    def __post_init__(self) -> None:
        self.method.to(self.accelerator.device)
        if self.config.channels_last:
            self.method.to(memory_format=torch.channels_last)
        self.optimisers = build_optimisers(self.config, self.method, self.accelerator)
        self.average = build_average(self.config.ema, self.method)
        self.stages = stage_ends(self.method.stages(), self.config.steps)
        self._watch = FiniteWatch(self.accelerator)
        self._compiled: set[tuple[str, ...]] = set()
        self._never_finite = frozenset(not_finite(self.method.state_dict()))  # masks of minus infinity, which networks keep as buffers
        self._validated: Mapping[str, float] = MappingProxyType({})
        self._stop_signal: int | None = None
        self._started = time.monotonic()
        self.budget = Budget(self.config, self.accelerator.num_processes)

    def resume(self) -> bool:
        """Continue from the newest checkpoint of the store, if there is one."""
        if (last := checkpoints.last_checkpoint(self.store)) is None:
            return False
        found = checkpoints.read_checkpoint(last, with_training_state=True)
        self._take(found)
        self.schedule_start = int(found.training_state.get("schedule_start", 0))
        self.budget.take(found.training_state)
        self._validated = found.card.get("validation") or {}
        self._remember_best(last, self._validated)  # the run may have been killed before it could
        return True

    def extend(self, folder: Path) -> None:
        """Continue another run's training from its checkpoint in `folder`: with its weights, moments, averages and step.

        The learning rate follows this run's own schedule, from the step reached on (`extend_schedule=continue`) or begun anew
        (`restart`). Raises TrainingError where the run is longer already, CheckpointError where it is one of another model.
        """
        found = checkpoints.read_checkpoint(folder, with_training_state=True)
        reached = int(found.training_state["step"])
        if reached >= self.config.steps:
            raise TrainingError(
                f"{folder} has {reached} steps and trainer.steps={self.config.steps}; set trainer.steps to more than that to extend it."
            )
        self._take(found)
        restarts = self.config.extend_schedule == "restart"
        self.schedule_start = reached if restarts else int(found.training_state.get("schedule_start", 0))

    def _take(self, found: checkpoints.Checkpoint) -> None:
        """Take weights, moments, averages and step of a checkpoint."""
        load_weights(self.method, found.weights, found.folder)
        state = found.training_state
        for name, optimiser in self.optimisers.items():
            if name not in state["optimisers"]:
                raise TrainingError(f"{found.folder} has no moments of group '{name}'; start from its weights alone with checkpoint=.")
            optimiser.load_state_dict(state["optimisers"][name])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        if self.accelerator.scaler is not None and state["scaler"]:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.step = int(state["step"])

    def fit(self) -> dict[str, float]:
        """Train to the end and return the last validation's metrics.

        Raises Interrupted after a signal or the time limit, with a checkpoint to continue from; TrainingError when a loss, a gradient or
        a weight is not finite: then the checkpoints are those whose next step was good.
        """
        metrics: dict[str, float] = {}
        stage = self._enter_stage(None)
        clock, clock_step = time.monotonic(), self.step
        pace, waits = Pace(self.config.steps), not has_queue(self.accelerator.device)
        with self._signals():
            reached = checkpoints.folder_of(self.store, self.step)
            if self._validates(self.budget.is_spent(self.step)) and not self._validated and checkpoints.is_complete(reached):
                metrics = self._validate(reached)  # it was killed between saving and validating, or before what follows that
            self._prune()
            if self.budget.is_spent(self.step) or self._stops_early():
                return metrics
            for micro_batches in self.loader(self.step):
                stage = self._enter_stage(stage)
                with compiling():
                    values = self._optimise(stage, micro_batches)
                self.step += 1
                last = self.budget.is_spent(self.step)
                logs = self.step % self.config.log_every_steps == 0 or last
                if logs:
                    numbers = mean_over_processes(self.accelerator, values)
                    numbers |= {f"lr/{name}": self.optimisers[name].lr for name in stage.groups}
                    if self.accelerator.scaler is not None:
                        numbers["loss_scale"] = self.accelerator.scaler.get_scale()
                    now = time.monotonic()
                    speed = (self.step - clock_step) * self.config.batch / max(now - clock, 1e-9)
                    clock, clock_step = now, self.step
                    if self.accelerator.is_main_process:
                        self.journal.log(self.step, numbers)
                        self.journal.advance(self.step, self.step if last else self.budget.total(self.step), numbers, speed)
                if (logs or waits) and self.budget.seconds_allowed is None and (estimate := pace.after(self.step)):
                    self.say([f"time     about {roughly(estimate.left)} of training ({estimate.each:.2g} s a step), and validations"])
                if self._validates(last) or last or self.step % self.config.save_every_steps == 0:
                    folder = self._save()
                    if self._validates(last):
                        metrics = self._validate(folder)
                    self._prune()
                    if last or self._stops_early():
                        break
                if self._must_stop():
                    self._save()
                    message = f"stopped after step {self.step} of {self.budget.total(self.step)}; the same command continues from there."
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
        peak = 0
        with without_traces(self.method, self.seed, device):
            for part in self.method.passes(stage):
                with PeakMemory() as memory:
                    made = degrade_on(batch, device, self.degradation, self.config.channels_last)
                    found = self._losses(part, made)
                    for losses in found.values():
                        losses.total.backward()
                peak = max(peak, memory.peak)
                del losses, found, made
                for parameter in self.method.parameters():
                    parameter.grad = None
        return peak

    def _losses(self, part: Stage, batch: Batch) -> Mapping[str, Losses]:
        with mixed(self.config.precision, self.accelerator.device):
            return self.method.losses(batch, part, training_noise(self.seed, part, self.step, batch))

    def _compile(self, stage: Stage, batch: Batch) -> None:
        """Compile what a step of `stage` calls, and say what that is; changes nothing else."""
        self._compiled.add(tuple(stage.groups))

        def run() -> None:
            for part in self.method.passes(stage):
                self._losses(part, batch)

        device = self.accelerator.device
        with without_traces(self.method, self.seed, device):
            found = compile_regions(self.method, self.config.compile, run, device)
        self.say([f"trainer.compile={str(self.config.compile).lower()}: {found}"])

    def _enter_stage(self, current: Stage | None) -> Stage:
        """Return the stage of this step, telling the method when it begins; a resumed run enters its stage anew."""
        position = self.budget.position(self.step)
        stage = next((stage for end, stage in self.stages if position < end), self.stages[-1][1])
        if stage is not current:
            self.method.train()
            if current is None:
                self.method.prepare_training()
            self.method.start_stage(stage)
        return stage

    def _optimise(self, stage: Stage, micro_batches: Sequence[Batch]) -> dict[str, Tensor]:
        """Step every group of the stage once and return the losses' terms, averaged over the micro-batches."""
        device = self.accelerator.device
        self.require_whole_batches(len(micro_batches))
        batches = [degrade_on(batch, device, self.degradation, self.config.channels_last) for batch in micro_batches]
        batches = [replace(batch, step_images=self.config.batch) for batch in batches]
        if self.config.compile and tuple(stage.groups) not in self._compiled:
            self._compile(stage, batches[0])
        images_seen = self.step * self.config.batch
        begin = self.schedule_start
        scheduled = self.budget.position(self.step) - begin, images_seen - begin * self.config.batch, self.config.steps - begin
        logged: dict[str, Tensor] = {}
        with step_randomness(self.seed, self.step, self.accelerator.process_index, device):
            for group in stage.groups:
                self.optimisers[group].prepare(*scheduled)
            for part in self.method.passes(replace(stage, step=self.step)):
                totals: dict[str, list[Tensor]] = {group: [] for group in part.groups}
                terms: dict[str, dict[str, Tensor]] = {group: {} for group in part.groups}
                for number, batch in enumerate(batches, start=1):
                    if number == len(batches):
                        for group in part.groups:
                            self.optimisers[group].buckets.arm()
                    for group, losses in self._losses(part, batch).items():
                        self.accelerator.backward(losses.total / len(batches))
                        if number == len(batches):
                            self.optimisers[group].buckets.send()
                        totals[group].append(losses.total)
                        for name, value in {**losses.terms, "total": losses.total}.items():
                            so_far = terms[group].get(name, torch.zeros((), device=device))
                            terms[group][name] = so_far + value.detach().float() / len(batches)
                for group in part.groups:
                    self.optimisers[group].buckets.finish()
                    norm = self.optimisers[group].mend(self.config.clip_norm, self.config.replace_nan_gradients)
                    # A gradient scaler leaves out steps whose gradients overflow, and expects some.
                    looked_at = totals[group] if self.accelerator.scaler is not None else [*totals[group], norm]
                    names = [meta.name for batch in batches for meta in batch.metas]
                    evidence = Evidence(self.step, group, terms[group], names)
                    self._require_finite(self._watch.note(evidence, looked_at, self._wants_stop()))
                    logged |= {f"{group}/{name}": value for name, value in terms[group].items()}
                for group in part.groups:
                    self.optimisers[group].update()
            update_loss_scale(self.accelerator)
            self.method.after_step(stage, self.step)
        broadcast_buffers(self.accelerator, self.method)
        if self.average is not None and (self.step + 1) % self.config.ema.every_steps == 0:
            self.average.update(self.method, images_seen, images_seen + self.config.batch)
        return logged

    def require_whole_batches(self, accumulate: int) -> None:
        """Raise UserError where a batch is shared out whose images the objective compares with each other."""
        processes = self.accelerator.num_processes
        coupled = self.method.coupling
        if not coupled or self.config.split_coupled or accumulate * processes == 1:
            return
        share = "trainer.accumulate=1 (and trainer.batch lower, where the memory is too small)" if accumulate > 1 else "one process"
        raise UserError(
            f"the results of this model depend on how a batch is shared out, for {coupled}, and here {processes} processes of {accumulate} "
            f"micro-batches share trainer.batch={self.config.batch}; use {share}, or set trainer.split_coupled=true to accept that."
        )

    def _require_finite(self, evidence: Evidence | None) -> None:
        """Raise TrainingError where a step was not finite; a checkpoint of the state that gave it is no good one and is set aside."""
        if evidence is None:
            return
        for parameter in self.method.parameters():
            parameter.grad = None
        if self.accelerator.is_main_process:
            checkpoints.set_aside(self.store, evidence.step)
        wait_for_all(self.accelerator)
        raise TrainingError(f"{evidence.words()} is not finite at step {evidence.step + 1}; {self._way_on()}")

    def _way_on(self) -> str:
        """Return what to do after numbers that are not finite, by what is there to continue from."""
        change = "lower trainer.optimiser.lr, set trainer.clip_norm or use trainer.precision=no"
        good = checkpoints.last_checkpoint(self.store)
        if good is None:
            return f"no checkpoint was saved before: {change}, which begins anew."
        return (
            f"the last good checkpoint is of step {checkpoints.step_of(good)}: add trainer.extend={self.store.parent.name} to continue "
            f"from it, and {change}."
        )

    def _save(self) -> Path:
        """Write a checkpoint of the present state on the main process; the others wait for it.

        Raises TrainingError, and writes nothing, where any number of it is not finite.
        """
        self._require_finite(self._watch.settle())
        folder = checkpoints.folder_of(self.store, self.step)
        scaler = self.accelerator.scaler
        averages = self.average.weights(self.method) if self.average is not None else []
        states = {name: optimiser.state_dict() for name, optimiser in self.optimisers.items()}
        numbers = {**checkpoints.tensors_in(states, "moments"), **checkpoints.tensors_in(averages, "average"), **self.method.state_dict()}
        bad = [name for name in not_finite(numbers) if name.rpartition("/")[2] not in self._never_finite]
        if any_process(self.accelerator, bool(bad)):
            first = bad[0] if bad else "one of another process"
            raise TrainingError(
                f"{len(bad)} tensors (first: {first}) are not finite after step {self.step}, which is not saved; {self._way_on()}"
            )
        if self.accelerator.is_main_process:
            state = {
                "step": self.step,
                "schedule_start": self.schedule_start,
                "optimisers": states,
                "average": self.average.state_dict() if self.average is not None else {},
                "scaler": scaler.state_dict() if scaler is not None else {},
                **self.budget.state(),
            }
            facts = {"images": self.step * self.config.batch, "validation": {}}
            checkpoints.write_checkpoint(self.store, self.step, self.method.state_dict(), averages, {**self.card, **facts}, state)
        self._validated = MappingProxyType({})
        wait_for_all(self.accelerator)
        return folder

    def _validates(self, last: bool) -> bool:
        """Whether the checkpoint of this step, perhaps the last one, is validated."""
        return self.config.validates and (last or self.step % self.config.validate_every_steps == 0)

    def _validate(self, folder: Path) -> dict[str, float]:
        """Validate with the weights evaluation would use, record the result in the checkpoint of this step, and log it."""
        self.method.eval()
        with during("validation"), self._averaged_weights():
            metrics = self.validate(self.step)
        self.method.train()
        self._validated = metrics
        if self.accelerator.is_main_process and metrics:
            self.journal.log(self.step, {f"validation/{name}": value for name, value in metrics.items()})
            checkpoints.record_validation(folder, metrics)
            self._remember_best(folder, metrics)
        wait_for_all(self.accelerator)
        return metrics

    def _stops_early(self) -> bool:
        """Whether the validations since the best one are more than the patience; the same on every process, which see the same files."""
        patience, best = self.config.patience, checkpoints.best_checkpoint(self.store)
        if patience is None or best is None or not self._validates(self.budget.is_spent(self.step)):
            return False
        waited = (self.step - checkpoints.step_of(best)) // self.config.validate_every_steps
        return any_process(self.accelerator, self.accelerator.is_main_process and waited >= patience)

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
        """Whether all processes stop here; several know it from the flags of a step, see FiniteWatch."""
        return self._wants_stop() if self.accelerator.num_processes == 1 else self._watch.is_stopped

    def _wants_stop(self) -> bool:
        limit = self.config.time_limit_minutes
        late = limit is not None and time.monotonic() - self._started > 60 * limit
        return late or self._stop_signal is not None

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Turn a stop signal into a stop at the next step boundary."""

        def remember(number: int, _frame: FrameType | None) -> None:
            self._stop_signal = number

        with answered((signal.SIGINT, *STOP_SIGNALS), remember):
            yield
