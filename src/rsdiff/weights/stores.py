"""Where published weights are found and put: the `zoo/` of this repository, Hugging Face's hub, or a folder in the hub's place.

`checkpoint=zoo:NAME` and `checkpoint=hf:OWNER/NAME` are accepted wherever a checkpoint is. Either becomes a local folder with
weights.safetensors and card.json; nothing of it is executed, and weights that are not those of the card are refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from rsdiff.config import UserError
from rsdiff.config.typed import nearest
from rsdiff.weights.about import CARD, PAGE, WEIGHTS, About, about_of

ZOO = Path(__file__).resolve().parents[1] / "zoo"
"""The folder `zoo` of the repository, by a link that installed packages carry as a copy."""
MOST_BYTES, ALL_BYTES = 4 * 2**20, 16 * 2**20
"""What an entry of the zoo and all of them may take."""
STORE = "RSDIFF_HUB"
"""Environment variable: a folder OWNER/NAME/.. that takes the place of Hugging Face's hub."""
FILES = (WEIGHTS, CARD, PAGE)


def published_folder(checkpoint: str) -> Path | None:
    """Return the local folder of 'zoo:NAME' or 'hf:OWNER/NAME', None for what is neither; raises UserError in one sentence."""
    kind, colon, name = checkpoint.partition(":")
    if not colon or kind not in ("zoo", "hf"):
        return None
    folder = _zoo_folder(name) if kind == "zoo" else _hub_folder(name)
    require_intact(folder)
    return folder


def zoo_entries() -> list[tuple[str, About, int]]:
    """Return (name, about, bytes of its files) of every entry of the zoo, by name."""
    folders = (
        sorted(folder for folder in ZOO.iterdir() if not folder.name.startswith(".") and (folder / CARD).is_file()) if ZOO.is_dir() else []
    )
    return [(folder.name, about_of(folder), sum(file.stat().st_size for file in folder.iterdir())) for folder in folders]


def typed_name(folder: Path) -> str:
    """Return what to type after checkpoint= for a checkpoint's folder: zoo:NAME for an entry of the zoo, else the path."""
    return f"zoo:{folder.name}" if is_zoo(folder) else str(folder)


def is_zoo(folder: Path) -> bool:
    """Whether a folder is an entry of the zoo, or would be one."""
    return folder.resolve().parent == ZOO.resolve()


def require_intact(folder: Path) -> None:
    """Raise UserError where the weights in a folder are not those that its card names."""
    try:
        stated = json.loads((folder / CARD).read_text())["weights_sha256"]
        with (folder / WEIGHTS).open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder} holds no weights of rsdiff ({type(error).__name__}); it needs {WEIGHTS} and {CARD}.") from None
    if stated != found:
        raise UserError(
            f"{folder / WEIGHTS} is not the file that its card names (SHA-256 {found[:12]}.., not {str(stated)[:12]}..); get it again."
        )


def publish(folder: Path, repository: str, private: bool) -> str:
    """Put a folder of published weights into the hub (or the folder in its place) as OWNER/NAME; return where it is."""
    _require_repository(repository)
    store = os.environ.get(STORE)
    if store:
        place = Path(store) / repository
        place.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            shutil.copyfile(folder / name, place / name)
        return str(place)
    hub = _hub()
    api = hub.HfApi()
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=str(folder), allow_patterns=list(FILES))
    except (OSError, ValueError, hub.errors.HfHubHTTPError) as error:
        said = " ".join(str(error).split())[:160]
        raise UserError(f"{repository} was not published ({said}); log in with `hf auth login`, or set {STORE}=FOLDER.") from None
    return f"https://huggingface.co/{repository}"


def _zoo_folder(name: str) -> Path:
    folder = ZOO / name
    if not re.fullmatch(r"[a-z0-9_]+", name) or not folder.is_dir():
        names = [entry for entry, _, _ in zoo_entries()]
        raise UserError(f"checkpoint=zoo:{name} is not in the zoo{nearest(name, names)}; it holds {', '.join(names) or 'nothing yet'}.")
    return folder


def _hub_folder(name: str) -> Path:
    _require_repository(name)
    store = os.environ.get(STORE)
    if store:
        folder = Path(store) / name
        if not folder.is_dir():
            raise UserError(f"checkpoint=hf:{name} is not in {STORE}={store}; publish it there, or unset {STORE} to ask the hub.")
        return folder
    hub = _hub()
    try:
        return Path(hub.snapshot_download(name, allow_patterns=list(FILES)))
    except (OSError, ValueError, hub.errors.HfHubHTTPError) as error:
        said = " ".join(str(error).split())[:160]
        raise UserError(f"checkpoint=hf:{name} was not downloaded ({said}); check the name, the network, and `hf auth login`.") from None


def _require_repository(name: str) -> None:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or ".." in name:
        raise UserError(f"'{name}' is no name of a repository; give OWNER/NAME.")


def _hub() -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError:
        raise UserError("hf: needs the package huggingface_hub; pip install 'rsdiff[hub]'.") from None
    return huggingface_hub
