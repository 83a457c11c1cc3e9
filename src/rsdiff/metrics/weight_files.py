"""Where metric weights are looked for. Nothing is downloaded: a missing file makes a metric unavailable, with a sentence that says so."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch

from rsdiff.config import UserError
from rsdiff.config.paths import typed_path

_TORCHVISION = "https://download.pytorch.org/models"
ADDRESSES = {
    "alexnet-owt-7be5be79.pth": f"{_TORCHVISION}/alexnet-owt-7be5be79.pth",
    "vgg16-397923af.pth": f"{_TORCHVISION}/vgg16-397923af.pth",
    "vgg19-dcbb9e9d.pth": f"{_TORCHVISION}/vgg19-dcbb9e9d.pth",
    "squeezenet1_1-b8a52dc0.pth": f"{_TORCHVISION}/squeezenet1_1-b8a52dc0.pth",
    "niqe_pris_params.npz": "https://github.com/XPixelGroup/BasicSR/raw/master/basicsr/metrics/niqe_pris_params.npz",
    "pt_inception-2015-12-05-6726825d.pth": "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
    "pt_inception-2015-12-05-6726825d.pth",
    "weights-inception-2015-12-05-6726825d.pth": "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth",
}
"""Where the authors of a file publish it: torchvision.models, FID_WEIGHTS_URL of pytorch-fid, release v0.2.0 of torch-fidelity, and
basicsr/metrics of BasicSR. docs/addresses.md has the commits. The content is checked when it is
read, not where it came from."""


def weight_folders(folders: Sequence[str]) -> list[Path]:
    """Return the folders searched, in order: those given, then the cache of torch.hub, where torchvision and others keep these files."""
    return [*(typed_path(folder) for folder in folders), Path(torch.hub.get_dir()) / "checkpoints"]


def find_weight_file(names: Sequence[str], folders: Sequence[str]) -> Path | None:
    """Return the first existing file of `names` in `weight_folders(folders)`, or None."""
    for folder in weight_folders(folders):
        for name in names:
            if (folder / name).is_file():
                return folder / name
    return None


def missing_sentence(names: Sequence[str], folders: Sequence[str]) -> str:
    """Return the sentence for a missing file: which names were looked for, where, and what to do."""
    return f"needs {' or '.join(names)}, which is not in {_places(folders)}; {_advice(names)}put it there or set metrics.weight_folders."


def missing_lines(titles: Sequence[str], files: Sequence[Sequence[str]], folders: Sequence[str]) -> list[str]:
    """Return what a command says of all metrics that lack weights: one line, and a line per file that can be downloaded.

    titles, files  of the metrics; each needs one of its files
    """
    if not titles:
        return []
    first = list(dict.fromkeys(names[0] for names in files))
    addresses = [ADDRESSES[name] for name in first if name in ADDRESSES]
    own = [name for name in first if name not in ADDRESSES]
    named = f" ({', '.join(own)})" if own else ""
    to_have = "download these files into one of them:" if addresses else "put the files into one of them."
    sentence = f"left out {', '.join(titles)}: their weights{named} are not in {_places(folders)}; {to_have}"
    return [sentence, *(f"         {address}" for address in addresses)]


def _places(folders: Sequence[str]) -> str:
    return ", ".join(str(folder).replace(str(Path.home()), "~") for folder in weight_folders(folders))


def _advice(names: Sequence[str]) -> str:
    address = next((ADDRESSES[name] for name in names if name in ADDRESSES), None)
    return f"download it from {address} and " if address else ""


def require_weight_file(name: str, folders: Sequence[str], folders_option: str, weight_option: str) -> Path:
    """Return the path of the weights that a loss cannot do without; raises UserError in one sentence when it is nowhere.

    folders_option, weight_option  options that say where the file is looked for and how much the loss counts, for the sentence
    """
    found = find_weight_file([name], folders)
    if found is None:
        raise UserError(
            f"the perceptual loss needs {name}, which is not in {_places(folders)}; {_advice([name])}put it there, set {folders_option}, "
            f"or train with {weight_option}=0."
        )
    return found


def file_hash(path: Path) -> str:
    """Return the first 8 hexadecimal digits of the SHA-256 of a file, as torchvision's file names carry them."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:8]
