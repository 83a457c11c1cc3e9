"""How many images are computed at once: the batch of a step is a setting, the micro-batches that it is shared out in may follow the memory.

What a step takes is counted, not tried: the tensors alive at once for one image and for two give those for any number.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import torch

from rsdiff.config import PlaceError, UserError
from rsdiff.config.sharing import CELLS_PER_GPU
from rsdiff.data.durable import write_json
from rsdiff.inference.memory import free_memory

SHARE = 0.7
"""Share of the free memory that a step may take: workspaces of convolutions and fragmentation are not counted."""
NOTE = "micro_batch.json"


def images_at_once(step_bytes: Callable[[int], int], standing_bytes: int, free: int) -> int:
    """Return how many images fit into the allowed share of `free` bytes, at least 1.

    step_bytes      bytes of the tensors that are alive at once in a step of so many images
    standing_bytes  what the optimiser will add and keep
    """
    one, two = step_bytes(1), step_bytes(2)
    per_image = max(1, two - one)
    return max(1, int(SHARE * free - standing_bytes - (one - per_image)) // per_image)


def fewest_micro_batches(batch: int, processes: int, at_once: int) -> int:
    """Return the smallest number of micro-batches per process, of equal size, that hold at most `at_once` images each.

    Raises UserError where the processes cannot share the batch evenly.
    """
    if batch % processes:
        raise UserError(f"trainer.batch={batch} cannot be shared by {processes} processes; make it a multiple of {processes}.")
    share = batch // processes
    return next(count for count in range(1, share + 1) if share % count == 0 and share // count <= at_once)


def free_for_this_process(device: torch.device) -> int:
    """Return the bytes that this process may take on `device`.

    The processes of a host share its memory, and the cells of a sweep under gpus_per_cell=0.5 the memory of a GPU: the others of them may
    not have taken theirs yet. What processes of another kind have of a GPU is not free.
    """
    free = free_memory(device)
    if device.type == "cuda":
        return min(free, int(torch.cuda.mem_get_info(device)[1]) // int(os.environ.get(CELLS_PER_GPU, "1")))
    return free // (int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if device.type == "cpu" else 1)


def recall(folder: Path) -> int | None:
    """Return the images at once that were found when the run in `folder` began, or None: a run goes on as it began."""
    try:
        return max(1, int(json.loads((folder / NOTE).read_text())["images_at_once"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        raise PlaceError(f"{folder / NOTE} cannot be read; delete it to let the micro-batch be found anew.") from None


def remember(folder: Path, at_once: int) -> None:
    """Note the images at once for when the run goes on."""
    write_json(folder / NOTE, {"images_at_once": at_once})
