"""Restoring several scenes of one command: each once, whatever an earlier process of it did, and all that can be although some cannot."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rsdiff.config import PlaceError, UserError
from rsdiff.data.durable import write_json
from rsdiff.data.opening import without_warnings
from rsdiff.data.source import DataError
from rsdiff.inference.scene_input import SceneReader
from rsdiff.inference.scene_job import Restorer, SceneJob, SceneResult, Team
from rsdiff.inference.scene_options import SceneOptions
from rsdiff.inference.scene_output import is_ours, output_form
from rsdiff.inference.scenes import restore_scene

Show = Callable[[SceneJob, SceneResult, bool], None]
"""Called by the first process with every scene, and whether it was restored only now, not by an earlier process."""


def readable_inputs(inputs: Sequence[Path], options: SceneOptions) -> tuple[list[Path], dict[Path, str]]:
    """Return the rasters that can be opened, and why the others cannot; raises DataError where none can."""
    readable, failures = [], {}
    for path in inputs:
        try:
            with without_warnings(), SceneReader(path, options.view()):
                readable.append(path)
        except DataError as error:
            failures[path] = str(error)
    if not readable:
        raise DataError(next(iter(failures.values())))
    return readable, failures


def require_ours(outputs: Sequence[Path]) -> None:
    """Raise UserError where an output exists that rsdiff did not write."""
    foreign = [path for path in outputs if path.exists() and not is_ours(path)]
    if foreign:
        more = f" (and {len(foreign) - 1} more)" if len(foreign) > 1 else ""
        raise UserError(
            f"{foreign[0]}{more} exists and was not written by rsdiff; choose another output, or replace it with task.overwrite=true."
        )


def _size(count: int) -> str:
    """Return a number of bytes as a person reads it."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**29 else f"{count / 2**20:.1f} MiB"


def require_space(places: Mapping[Path, Path], scale: float, options: SceneOptions, bands: int) -> int:
    """Raise PlaceError where the disk of the outputs is too small; return the bytes that a scene's scratch files take.

    places  output of every input
    bands   of the results
    The finished blocks are stored uncompressed until the raster is written, beside two rows of tiles.
    """
    written, largest = 0, 0
    for path, output in places.items():
        with without_warnings(), SceneReader(path, options.view()) as reader:
            form = output_form(reader, options, bands, output)
            pixels = round(reader.height * scale) * round(reader.width * scale)
            size = pixels * (form.stored_bands * form.dtype.itemsize + (8 * bands if options.samples > 1 else 0))
            rows = 2 * 1024 * round(reader.width * scale) * bands * 4 * options.samples
        written += size
        largest = max(largest, size + min(rows, 4 * pixels * bands * options.samples))
    first = next(iter(places.values()))
    free = shutil.disk_usage(next(parent for parent in first.resolve().parents if parent.exists())).free
    needed = written if options.compress == "none" else written // 2
    if free < needed:
        raise PlaceError(
            f"the disk of output={first} has {_size(free)} left and the result may need {_size(needed)}; "
            "free some or choose another folder."
        )
    return largest


def restore_scenes(
    restorer: Restorer,
    places: Mapping[Path, Path],
    failures: Mapping[Path, str],
    options: SceneOptions,
    scratch: Path,
    team: Team,
    progress: Callable[[str, int, int], None],
    show: Show,
) -> tuple[dict[Path, SceneResult], dict[Path, str]]:
    """Return what became of every scene, and why the others failed; every process of the team calls it.

    places    output of every input
    failures  inputs that are left out, with the reason
    scratch   folder for what must survive a kill
    progress  called by the first process with a word on the scene, the percent done, and 100
    Raises the error of the only scene there is; and of any scene in a team of several, whose processes wait for each other within it.
    """
    results, failed = {}, dict(failures)
    for number, (source, target) in enumerate(places.items()):
        if source in failed:
            continue
        job = restorer.job(source, target, scratch / f"{number:04d}", options)
        word = f"restoring {source.name}" + (f" ({number + 1} of {len(places)})" if len(places) > 1 else "")
        try:
            results[source] = _restored_once(job, team, word, progress, show)
        except UserError as error:
            if len(places) == 1 or team.count > 1 or isinstance(error, OSError):
                raise
            failed[source] = str(error)
    if not results:
        raise UserError(next(iter(failed.values())))
    return results, failed


def _restored_once(job: SceneJob, team: Team, word: str, progress: Callable[[str, int, int], None], show: Show) -> SceneResult:
    """Restore a scene, or return what an earlier process wrote of it."""
    note = job.scratch.with_suffix(".json")
    result = SceneResult.from_json(note)
    if team.any(result is None or not all(path.exists() for path in result.outputs)):

        def percent(done: int, total: int) -> None:
            if team.rank == 0:
                progress(f"{word}, percent", 100 * done // max(total, 1), 100)

        result = restore_scene(job, team, percent)
        if team.rank == 0:
            show(job, result, True)
            write_json(note, result.to_json())
        team.any(False)
    elif team.rank == 0:
        assert result is not None
        show(job, result, False)
    assert result is not None
    return result
