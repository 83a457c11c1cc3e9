"""The order of training samples, resumable and independent of processes and workers, and the loaders that follow it."""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from rsdiff.config import UserError
from rsdiff.data.sample import Batch, Sample, collate
from rsdiff.data.seeding import keyed_generator
from rsdiff.data.stop_signals import STOP_SIGNALS
from rsdiff.data.views import SampleKey, TestSamples, TrainingSamples

_Read = TypeVar("_Read", Batch, Sample)


class KeyBatches:
    """The keys of every micro-batch of one process, without end, from `start_step` on.

    batch       images per optimiser step, over all processes and micro-batches; a multiple of world * accumulate
    Position n = step * batch + i of the run is image permutation(seed, n // length)[n % length] of epoch n // length. So the images of a
    step depend neither on the number of processes or micro-batches nor on where a run was interrupted.
    """

    def __init__(self, length: int, batch: int, seed: int, start_step: int = 0, rank: int = 0, world: int = 1, accumulate: int = 1) -> None:
        if length < 1:
            raise UserError("there are no training samples; give a data set with images.")
        if batch % (world * accumulate):
            raise UserError(
                f"trainer.batch={batch} cannot be shared by {world} processes and trainer.accumulate={accumulate}; make it a multiple "
                f"of {world * accumulate}."
            )
        self._length, self._batch, self._seed, self._start = length, batch, seed, start_step
        self._rank, self._world, self._accumulate = rank, world, accumulate

    def __iter__(self) -> Iterator[list[SampleKey]]:
        share = self._batch // (self._world * self._accumulate)
        epoch, order = -1, []
        step = self._start
        while True:
            for micro in range(self._accumulate):
                first = step * self._batch + (micro * self._world + self._rank) * share
                keys = []
                for position in range(first, first + share):
                    if position // self._length != epoch:
                        epoch = position // self._length
                        order = epoch_order(self._length, self._seed, epoch)
                    keys.append(SampleKey(epoch, order[position % self._length], step))
                yield keys
            step += 1


def epoch_order(length: int, seed: int, epoch: int) -> list[int]:
    """Return the order of the images in an epoch, a permutation drawn from (seed, epoch)."""
    return torch.randperm(length, generator=keyed_generator(seed, "order", epoch)).tolist()


def make_loader(
    samples: TrainingSamples, batches: KeyBatches, workers: int, finish: Callable[[Batch], Batch] | None = None
) -> DataLoader[Any]:
    """Return an endless loader of micro-batches, read by `workers` processes (0: by this one).

    finish  what the workers do with every micro-batch, such as making its LR
    """
    return DataLoader(
        _Guarded(samples) if workers else samples,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=partial(_collate, finish),
        pin_memory=torch.cuda.is_available(),
        persistent_workers=workers > 0,
        worker_init_fn=_start_worker if workers else None,
        multiprocessing_context=_start_method() if workers else None,
        generator=torch.Generator(),  # its own: a loader must not advance the global generator
    )


def read_ahead(samples: TestSamples, indices: Sequence[int], workers: int) -> Iterator[Sample]:
    """Yield the samples of `indices` in order, read by `workers` processes before they are asked for (0: by this one, when they are)."""
    if not workers:
        yield from (samples[index] for index in indices)
        return
    loader = DataLoader(
        _Guarded(samples),
        sampler=indices,
        batch_size=None,
        num_workers=workers,
        collate_fn=_as_it_is,
        worker_init_fn=_start_worker,
        multiprocessing_context=_start_method(),
        generator=torch.Generator(),
    )
    for found in loader:
        yield _found(found)


def _as_it_is(sample: Any) -> Any:
    return sample


def steps_of(loader: DataLoader[Any], accumulate: int) -> Iterator[list[Batch]]:
    """Yield the `accumulate` micro-batches of every optimiser step."""
    stream = iter(loader)
    while True:
        yield [_found(next(stream)) for _ in range(accumulate)]


def _start_method() -> str | None:
    """Return how workers start: Python's own way (None), but 'fork' inside joblib's workers, whose way only starts joblib's processes."""
    return None if multiprocessing.get_start_method() in ("fork", "forkserver", "spawn") else "fork"


@dataclass(frozen=True)
class _Failure:
    """An error of a loader process, handed over whole: PyTorch would raise one whose message is a traceback."""

    error: Exception
    trace: str


class _Guarded(Dataset[Any]):
    """The samples as a loader process reads them: what cannot be read becomes a failure that the training process raises."""

    def __init__(self, samples: Any) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, key: Any) -> Sample | _Failure:
        try:
            return self._samples[key]
        except Exception as error:
            return _failure(error)


def _failure(error: Exception) -> _Failure:
    trace = "".join(traceback.format_exception(error))
    try:
        pickle.loads(pickle.dumps(error))  # some libraries' errors cannot be sent
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    return _Failure(error, trace)


def _collate(finish: Callable[[Batch], Batch] | None, samples: Sequence[Sample | _Failure]) -> Batch | _Failure:
    failed = next((sample for sample in samples if isinstance(sample, _Failure)), None)
    if failed is not None:
        return failed
    if torch.utils.data.get_worker_info() is None:
        return _finished(finish, samples)
    try:
        return _finished(finish, samples)
    except Exception as error:
        return _failure(error)


def _finished(finish: Callable[[Batch], Batch] | None, samples: Sequence[Any]) -> Batch:
    batch = collate(samples)
    return batch if finish is None else finish(batch)


def _found(found: _Read | _Failure) -> _Read:
    """Return what was read, or raise the error of the loader process with its traceback beside it."""
    if isinstance(found, _Failure):
        found.error.add_note(f"In a loader process:\n{found.trace}")
        raise found.error
    return found


def _start_worker(_worker: int) -> None:
    """Prepare a loader process.

    One thread each: many workers with many threads each are slower. Ctrl-C and a scheduler's signals reach the whole process group; the
    training process stops cleanly and then ends its workers, which would otherwise die first and take it down with an error.
    """
    for number in (signal.SIGINT, *STOP_SIGNALS):
        signal.signal(number, signal.SIG_IGN)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
