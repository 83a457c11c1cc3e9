"""The training loop alone, on a model of one weight: what is saved, when, and what is never saved."""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from rsdiff.config import UserError
from rsdiff.data.sample import Batch, Sample, SampleMeta, collate
from rsdiff.degradations import Paired
from rsdiff.diffusion.noise import NoiseSource
from rsdiff.methods.base import Losses, Method, Stage
from rsdiff.training import checkpoints
from rsdiff.training.budget import joules
from rsdiff.training.config import EmaConfig, LearningRateConfig, OptimiserConfig, TrainerConfig
from rsdiff.training.starting import load_what_fits
from rsdiff.training.trainer import Trainer, TrainingError
from tests.faults.server import FileOperations


class OneWeight(Method):
    """Fits hr with a constant; `bad_at` makes the loss of that step (from 0) infinite, `bad_gradient_at` its gradient alone."""

    def __init__(self, bad_at: int = -1, bad_gradient_at: int = -1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))
        self.bad_at, self.bad_gradient_at = bad_at, bad_gradient_at

    def losses(self, batch: Batch, stage: Stage, noise: NoiseSource) -> Mapping[str, Losses]:
        loss = (batch.need("hr") - self.weight).square().mean()
        step = batch.metas[0].index
        if step == self.bad_at:
            loss = loss * float("inf")
        if step == self.bad_gradient_at:
            loss = loss + (self.weight - self.weight.detach()).sqrt()  # 0, with an infinite gradient
        return {"restorer": Losses(loss, {"l2": loss.detach()})}


class Log:
    def __init__(self) -> None:
        self.lines: list[tuple[int, dict[str, float]]] = []

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.lines.append((step, dict(values)))

    def advance(self, step: int, total: int, values: Mapping[str, float], images_per_second: float) -> None:
        pass


def batches(start: int) -> Iterator[Sequence[Batch]]:
    for step in range(start, 1000):
        image = torch.full((1, 2, 2), 0.1 * (step % 7))
        yield [collate([Sample(meta=SampleMeta(f"image{step}", step), hr=image, lr=image)])]


def options(**given: Any) -> TrainerConfig:
    usual: dict[str, Any] = {"steps": 10, "batch": 1, "save_every_steps": 2, "validate_every_steps": 5, "log_every_steps": 1}
    usual |= {"optimiser": OptimiserConfig(lr=0.1), "ema": EmaConfig(rule="constant", decays=(0.5,))}
    return TrainerConfig(**{**usual, **given})


def trainer_of(
    run: Path, config: TrainerConfig, method: Method | None = None, validate: Callable[[int], dict[str, float]] | None = None
) -> Trainer:
    return Trainer(
        config=config,
        method=method or OneWeight(),
        degradation=Paired(),
        loader=batches,
        validate=validate or (lambda step: {"psnr": float(step)}),
        journal=Log(),
        accelerator=Accelerator(cpu=True),
        store=run / "checkpoints",
        card={"config": {}, "problem": {}},
        seed=0,
    )


def steps_saved(run: Path) -> list[int]:
    return [checkpoints.step_of(folder) for folder in checkpoints.list_checkpoints(run / "checkpoints")]


def weights_at(run: Path, step: int) -> bytes:
    return (checkpoints.folder_of(run / "checkpoints", step) / "ema_0.safetensors").read_bytes()


def test_a_validation_that_fails_costs_no_step_and_is_repeated(tmp_path: Path) -> None:
    def broken(step: int) -> dict[str, float]:
        raise MemoryError

    with pytest.raises(MemoryError):
        trainer_of(tmp_path, options(), validate=broken).fit()
    assert steps_saved(tmp_path)[-1] == 5
    again = trainer_of(tmp_path, options())
    assert again.resume()
    again.fit()
    validated = [step for step, values in again.journal.lines if "validation/psnr" in values]  # type: ignore[attr-defined]
    assert validated == [5, 10]
    trainer_of(tmp_path / "whole", options()).fit()
    assert weights_at(tmp_path, 10) == weights_at(tmp_path / "whole", 10)


def test_a_training_that_ends_before_any_of_its_file_operations_ends_with_the_same_files(tmp_path: Path) -> None:
    config = options(steps=4, validate_every_steps=2, keep_checkpoints=1, log_every_steps=2)

    def files(run: Path) -> dict[str, Any]:
        return {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file() and path.suffix != ".pt"}

    with refusing(tmp_path / "whole") as operations:
        trainer_of(tmp_path / "whole", config).fit()
    for moment in range(1, operations.count + 1):
        run = tmp_path / str(moment)
        with refusing(run, moment), suppress(OSError):
            trainer_of(run, config).fit()
        again = trainer_of(run, config)
        again.resume()
        again.fit()
        assert files(run) == files(tmp_path / "whole"), f"after operation {moment}"
    assert operations.count > 15


@contextmanager
def refusing(folder: Path, moment: int | None = None) -> Iterator[FileOperations]:
    """Context in which the file operations below `folder` are counted, and fail from one of them on as if the process were dead."""
    refusal = None if moment is None else {"errno": errno.EIO, "name": "", "at_operation": moment}
    operations = FileOperations(folder, None, refusal)
    if not ASKED:
        ASKED.append(None)
        sys.addaudithook(lambda event, arguments: ASKED[-1](event, arguments) if ASKED[-1] else None)
    ASKED.append(operations)
    try:
        yield operations
    finally:
        ASKED.append(None)


ASKED: list[FileOperations | None] = []
"""The last one is asked about every file operation: what watches cannot be taken away again."""


@pytest.mark.parametrize("fault", ["bad_at", "bad_gradient_at"])
def test_the_advice_for_numbers_that_are_not_finite_goes_on_from_the_last_good_checkpoint(tmp_path: Path, fault: str) -> None:
    run = tmp_path / "run"
    with pytest.raises(TrainingError, match="image6") as error:
        trainer_of(run, options(), OneWeight(**{fault: 6})).fit()
    assert steps_saved(run) == [2, 4] or steps_saved(run)[-1] == 5  # the state after step 6 gives that loss again, so it is set aside
    good = steps_saved(run)[-1]
    assert f"of step {good}" in str(error.value)
    assert "trainer.extend=run" in str(error.value)
    assert "trainer.optimiser.lr" in str(error.value)
    # what the sentence says: another learning rate, and the newest checkpoint of that run
    follower = trainer_of(tmp_path / "next", options(optimiser=OptimiserConfig(lr=0.01), extend="run"))
    follower.extend(checkpoints.last_checkpoint(run / "checkpoints"))  # type: ignore[arg-type]
    assert follower.step == good
    follower.fit()
    assert follower.optimisers["restorer"].lr == 0.01
    assert steps_saved(tmp_path / "next")[-1] == 10


def test_without_a_checkpoint_the_advice_begins_anew(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no checkpoint was saved before"):
        trainer_of(tmp_path, options(), OneWeight(bad_at=1)).fit()
    assert steps_saved(tmp_path) == []


def test_weights_that_overflow_are_never_saved(tmp_path: Path) -> None:
    method = OneWeight()
    method.weight.data.fill_(1e10)  # loss and gradient are finite, the update is not
    config = options(optimiser=OptimiserConfig(algorithm="sgd", lr=1e30), save_every_steps=1)
    with pytest.raises(TrainingError, match="not saved"):
        trainer_of(tmp_path, config, method).fit()
    assert steps_saved(tmp_path) == []


@pytest.mark.parametrize("best", ["psnr", None])
def test_the_newest_checkpoint_stays_whatever_is_kept(tmp_path: Path, best: str | None) -> None:
    trainer_of(tmp_path, options(keep_checkpoints=0, best_metric=best), validate=lambda step: {"psnr": -float(step)}).fit()
    assert steps_saved(tmp_path) == ([5, 10] if best else [10])
    assert checkpoints.last_checkpoint(tmp_path / "checkpoints") == checkpoints.folder_of(tmp_path / "checkpoints", 10)


def test_a_first_validation_that_is_no_number_never_stays_the_best(tmp_path: Path) -> None:
    trainer_of(tmp_path, options(), validate=lambda step: {"psnr": float("nan") if step == 5 else 3.0}).fit()
    assert checkpoints.best_checkpoint(tmp_path / "checkpoints") == checkpoints.folder_of(tmp_path / "checkpoints", 10)


def test_an_extended_training_equals_one_of_that_length(tmp_path: Path) -> None:
    trainer_of(tmp_path / "ten", options()).fit()
    longer = options(steps=20, extend="ten")
    extended = trainer_of(tmp_path / "twenty", longer)
    extended.extend(checkpoints.last_checkpoint(tmp_path / "ten" / "checkpoints"))  # type: ignore[arg-type]
    extended.fit()
    trainer_of(tmp_path / "whole", options(steps=20)).fit()
    assert weights_at(tmp_path / "twenty", 20) == weights_at(tmp_path / "whole", 20)
    with pytest.raises(TrainingError, match=r"set trainer\.steps to more"):
        trainer_of(tmp_path / "short", options(extend="ten")).extend(checkpoints.last_checkpoint(tmp_path / "ten" / "checkpoints"))  # type: ignore[arg-type]


@pytest.mark.parametrize(("rule", "first"), [("continue", 0.05), ("restart", 0.1)])
def test_the_schedule_of_an_extension_continues_or_restarts_and_survives_a_kill(tmp_path: Path, rule: Any, first: float) -> None:
    cosine = LearningRateConfig(shape="cosine")
    trainer_of(tmp_path / "ten", options(learning_rate=cosine)).fit()
    longer = options(steps=20, extend="ten", extend_schedule=rule, learning_rate=cosine, keep_checkpoints=4)
    extended = trainer_of(tmp_path / "more", longer)
    extended.extend(checkpoints.last_checkpoint(tmp_path / "ten" / "checkpoints"))  # type: ignore[arg-type]
    extended.fit()
    rates = [values["lr/restorer"] for _, values in extended.journal.lines if "lr/restorer" in values]  # type: ignore[attr-defined]
    assert rates[0] == pytest.approx(first)
    whole = weights_at(tmp_path / "more", 20)
    for step in (18, 20):
        checkpoints.set_aside(tmp_path / "more" / "checkpoints", step)
    resumed = trainer_of(tmp_path / "more", longer)
    assert resumed.resume()
    assert resumed.step < 18
    resumed.fit()
    assert weights_at(tmp_path / "more", 20) == whole


def test_training_stops_early_when_validations_no_longer_improve(tmp_path: Path) -> None:
    scores = {2: 1.0, 4: 5.0, 6: 4.0, 8: 3.0, 10: 2.0}
    config = options(validate_every_steps=2, patience=2)
    trainer = trainer_of(tmp_path, config, validate=lambda step: {"psnr": scores[step]})
    trainer.fit()
    assert trainer.step == 8
    again = trainer_of(tmp_path, config, validate=lambda step: {"psnr": scores[step]})  # killed before its evaluation
    again.resume()
    again.fit()
    assert again.step == 8


def test_what_fits_is_taken_and_the_rest_is_named(tmp_path: Path) -> None:
    small, large = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5)), nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 6))
    fresh = large[1].weight.detach().clone()
    taken = load_what_fits(large, small.state_dict(), tmp_path)
    assert taken.taken == ("0.weight", "0.bias")
    assert taken.drawn == {"1.weight": "5x4 there, 6x4 here", "1.bias": "5 there, 6 here"}
    assert torch.equal(large[0].weight, small[0].weight)
    assert torch.equal(large[1].weight, fresh)
    with pytest.raises(checkpoints.CheckpointError, match="no weight that fits"):
        load_what_fits(nn.Linear(9, 9), small.state_dict(), tmp_path)


class Clock:
    """Processor time in which making a batch takes a second."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr("rsdiff.training.budget.time.process_time", lambda: self.now)

    def batches(self, start: int, fails_at: int = -1) -> Iterator[Sequence[Batch]]:
        for step, made in enumerate(batches(start), start=start):
            if step == fails_at:
                raise KeyboardInterrupt
            self.now += 1.0
            yield made


def test_a_training_lasts_its_processor_time_over_all_its_processes_and_its_schedule_ends_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    schedule = LearningRateConfig(shape="cosine")
    config = options(steps=100, processor_minutes=8 / 60, workers=0, validate_every_steps=0, save_every_steps=1, learning_rate=schedule)

    def made(fails_at: int) -> Trainer:
        trainer = trainer_of(tmp_path, config)
        trainer.loader = lambda start: clock.batches(start, fails_at)
        return trainer

    broken = made(fails_at=5)
    with pytest.raises(KeyboardInterrupt):
        broken.fit()
    clock.now = 1000.0  # what passes between the processes does not count
    going_on = made(fails_at=-1)
    assert going_on.resume()
    going_on.fit()
    assert going_on.step == 8
    journal = going_on.journal
    assert isinstance(journal, Log)
    rates = {step: values["lr/restorer"] for step, values in journal.lines}
    assert rates[8] < 0.05 * 0.1, "the schedule has not reached its end"
    assert going_on.budget.seconds == pytest.approx(8.0)
    done = made(fails_at=0)
    assert done.resume()
    done.fit()
    assert done.step == 8, "a finished training went on"
    with pytest.raises(ValueError, match="set workers=0"):
        options(processor_minutes=1.0, workers=2)


def test_energy_is_told_where_the_machine_tells_it(tmp_path: Path) -> None:
    assert joules(tmp_path) is None
    for package, micro in ((0, 2_000_000), (1, 500_000)):
        (tmp_path / f"intel-rapl:{package}").mkdir()
        (tmp_path / f"intel-rapl:{package}" / "energy_uj").write_text(f"{micro}\n")
    assert joules(tmp_path) == 2.5


def not_accepted() -> list[dict[str, Any]]:
    negative = ["steps", "batch", "accumulate", "patch", "crop_step", "validate_every_steps", "validation_images", "save_every_steps"]
    negative += ["keep_checkpoints", "log_every_steps", "workers", "time_limit_minutes", "clip_norm", "patience", "processor_minutes"]
    return [
        *({name: -1} for name in negative),
        {"scale_range": (4, 1)},
        {"optimiser": {"lr": 0}},
        {"optimiser": {"lr": float("nan")}},
        {"optimiser": {"betas": (0.9, 1.5)}},
        {"optimiser": {"weight_decay": -1}},
        {"ema": {"rule": "constant", "decays": ()}},
        {"ema": {"rule": "constant", "decays": (1.5,)}},
        {"ema": {"rule": "constant", "every_steps": 0}},
        {"learning_rate": {"shape": "cosine_restarts"}},
        {"learning_rate": {"shape": "cosine_restarts", "periods": (2,)}},
        {"learning_rate": {"shape": "multistep"}},
        {"learning_rate": {"shape": "multistep", "milestones": (4, 2)}},
        {"steps": True},
        {"optimiser": {"lr": True}},
        {"patience": 2, "best_metric": None},
    ]


@pytest.mark.parametrize("given", not_accepted(), ids=json.dumps)
def test_settings_without_a_meaning_are_refused(given: dict[str, Any]) -> None:
    from rsdiff.config import config_from_mapping

    with pytest.raises(UserError, match="trainer"):
        config_from_mapping(TrainerConfig, given, "trainer")


def test_a_schedule_that_the_training_does_not_reach_is_told() -> None:
    config = options(learning_rate=LearningRateConfig(shape="multistep", milestones=(250000,), warmup_images=100000))
    assert len(config.cautions()) == 2
    assert options(learning_rate=LearningRateConfig(shape="multistep", milestones=(5,))).cautions() == []


def test_the_watch_reads_a_flag_late_and_the_oldest_first() -> None:
    from rsdiff.training.finite import Evidence, FiniteWatch

    watch = FiniteWatch(Accelerator(cpu=True))
    watch._is_late = True  # as on an accelerator
    values: list[Tensor] = [torch.tensor(float("nan")), torch.tensor(1.0), torch.tensor(float("inf"))]
    said = [watch.note(Evidence(step, "g", {}, []), [value]) for step, value in enumerate(values)]
    assert [evidence.step if evidence else None for evidence in said] == [None, None, 0]
    settled = watch.settle()
    assert settled is not None
    assert settled.step == 2
