"""trainer.accumulate=auto: the micro-batch follows the memory, the batch does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rsdiff.config import ConfigError, config_from_mapping
from rsdiff.config.sharing import CELLS_PER_GPU
from rsdiff.inference.memory import is_out_of_memory
from rsdiff.training.config import TrainerConfig
from rsdiff.training.micro_batches import NOTE, SHARE, fewest_micro_batches, free_for_this_process, images_at_once, recall, remember
from tests.conftest import Command
from tests.runs.test_training import SMALL


@given(fixed=st.integers(0, 10**9), each=st.integers(1, 10**9), standing=st.integers(0, 10**9), free=st.integers(10**6, 10**12))
def test_what_is_found_fits_and_one_image_more_does_not(fixed: int, each: int, standing: int, free: int) -> None:
    found = images_at_once(lambda images: fixed + each * images, standing, free)
    assert found == 1 or standing + fixed + each * found <= SHARE * free
    assert standing + fixed + each * (found + 1) > SHARE * free - each


@given(share=st.integers(1, 64), processes=st.sampled_from([1, 2, 4]), at_once=st.integers(1, 80))
def test_micro_batches_are_equal_in_size_fit_and_are_as_few_as_can_be(share: int, processes: int, at_once: int) -> None:
    count = fewest_micro_batches(share * processes, processes, at_once)
    assert share % count == 0
    assert share // count <= at_once
    assert all(share % fewer or share // fewer > at_once for fewer in range(1, count))


def test_a_batch_that_the_processes_cannot_share_is_refused() -> None:
    with pytest.raises(ValueError, match=r"trainer\.batch=6 cannot be shared by 4 processes; make it a multiple of 4\."):
        fewest_micro_batches(6, 4, 100)


def test_a_file_must_say_which_batch_is_kept() -> None:
    with pytest.raises(ConfigError, match=r"trainer\.batch: auto was given; give a number of images,.* trainer\.accumulate=auto"):
        config_from_mapping(TrainerConfig, {"batch": "auto"}, "trainer")


def test_a_run_goes_on_with_the_micro_batch_it_began_with(tmp_path: Path) -> None:
    assert recall(tmp_path) is None
    remember(tmp_path, 3)
    assert recall(tmp_path) == 3
    (tmp_path / NOTE).write_text("[")
    with pytest.raises(OSError, match=r"micro_batch\.json cannot be read; delete it"):
        recall(tmp_path)


def test_measuring_the_memory_changes_nothing_of_the_training(run_command: Command, tmp_path: Path) -> None:
    arguments = [*SMALL, "trainer.workers=0", "trainer.steps=2", f"outputs={tmp_path}"]
    assert run_command(*arguments).code == 0
    (plain,) = tmp_path.glob("train/*/*/checkpoints/step_00000002/weights.safetensors")
    ended = run_command(*arguments, "trainer.batch=auto")  # the same, in the words of other trainers
    assert "trainer.accumulate=auto: 1 micro-batches of 4 images" in ended.out
    (auto,) = set(tmp_path.glob("train/*/*/checkpoints/step_00000002/weights.safetensors")) - {plain}
    assert auto.read_bytes() == plain.read_bytes()
    assert json.loads((auto.parents[2] / NOTE).read_text())["images_at_once"] == 4


def test_too_little_memory_makes_more_micro_batches_of_the_same_batch(
    run_command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rsdiff.training import micro_batches

    monkeypatch.setattr(micro_batches, "free_memory", lambda device: 1)
    ended = run_command(*SMALL, "trainer.workers=0", "trainer.steps=1", "trainer.accumulate=auto", f"outputs={tmp_path}")
    assert ended.code == 0, ended.err
    assert "4 micro-batches of 1 images; 1 fit" in ended.out


def test_the_memory_of_a_gpu_counts_the_allocator_and_the_cells_that_share_it(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (50, 80))  # free, whole
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 20)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 5)
    assert free_for_this_process(gpu) == 50 + (20 - 5)
    monkeypatch.setenv(CELLS_PER_GPU, "2")
    assert free_for_this_process(gpu) == 40  # the other cell may not have taken its half yet
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10, 80))  # another program has the rest
    assert free_for_this_process(gpu) == 25


def test_libraries_that_cannot_have_their_workspace_are_out_of_memory() -> None:
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"))
    assert is_out_of_memory(RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"))
    assert not is_out_of_memory(RuntimeError("CUDA error: an illegal memory access was encountered"))
