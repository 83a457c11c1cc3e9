"""The rasters that `input=` names, and the files that their restorations become."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rsdiff.config import ConfigError
from rsdiff.config.paths import typed_path
from rsdiff.data.file_options import FileOptions
from rsdiff.data.files import list_images
from rsdiff.data.opening import local_file
from rsdiff.inference.scene_output import RASTERS


def rasters_of(given: str | tuple[str, ...]) -> list[Path]:
    """Return the rasters that `input` names, each once: a file, a folder of images, a pattern, a .txt file of paths, or several.

    Raises ConfigError where one of them names none.
    """
    names = (given,) if isinstance(given, str) else given
    if not names:
        raise ConfigError("input=[] is empty; give rasters, folders of rasters or patterns.")
    return list(dict.fromkeys(path for name in names for path in _named(typed_path(name))))


def _named(given: Path) -> list[Path]:
    if given.is_dir():
        found = list_images(given, FileOptions().extensions)
        if not found:
            raise ConfigError(f"input={given} is a folder without images; give a raster, a folder of rasters or a pattern.")
        return found
    if given.suffix == ".txt" and given.is_file():
        found = [typed_path(line.strip()) for line in given.read_text().splitlines() if line.strip()]
        missing = next((path for path in found if not path.is_file()), None)
        if missing is not None or not found:
            raise ConfigError(f"input={given} lists {missing or 'nothing'}, which is no file; write one path of a raster per line.")
        return found
    if _is_pattern(given):
        root = Path(given.anchor) if given.is_absolute() else Path()
        found = sorted(path for path in root.glob(str(given.relative_to(given.anchor))) if path.is_file())
        if not found:
            raise ConfigError(f"input={given} matches no file; check the pattern.")
        return found
    if not local_file(given).exists():
        raise ConfigError(f"input={given} does not exist; give a raster, a folder of rasters or a pattern.")
    return [given]


def _is_pattern(given: Path) -> bool:
    return any(sign in str(given) for sign in "*?[") and not given.exists()


def outputs_of(inputs: Sequence[Path], given: str | tuple[str, ...], output: Path, scale: float, ending: str = RASTERS[0]) -> list[Path]:
    """Return the output of every input: `output` itself for one raster, files <name>_x<scale><ending> in that folder for more.

    given  what `input` says
    Raises ConfigError where two would be the same file, an output would replace its input, or the same command would take it for an input.
    """
    said = given if isinstance(given, str) else f"[{','.join(given)}]"
    searched = [path for path in map(Path, (given,) if isinstance(given, str) else given) if path.is_dir() or _is_pattern(typed_path(path))]
    single = len(inputs) == 1 and not searched and output.suffix and not output.is_dir()
    outputs = [output] if single else [output / f"{path.stem}_x{scale:g}{ending}" for path in inputs]
    if not single and output.suffix and not output.is_dir():
        raise ConfigError(f"input={said} is {len(inputs)} rasters and output={output} is one file; give a folder as output.")
    for number, target in enumerate(outputs):
        twin = inputs[outputs.index(target)]
        if twin != inputs[number]:
            raise ConfigError(
                f"the results of {twin} and {inputs[number]} would have the same name; restore them one after the other into different "
                f"folders, e.g. with input={twin.with_name('*' + twin.suffix)}."
            )
    for source, target in zip(inputs, outputs, strict=True):
        if target.exists() and target.samefile(local_file(source)):
            raise ConfigError(f"output={target} is the input; give another name.")
    if searched and not single and output.resolve() in {path.parent.resolve() for path in inputs}:
        raise ConfigError(
            f"output={output} holds the rasters of input={said}, among which the results would be next time; give another folder."
        )
    return outputs
