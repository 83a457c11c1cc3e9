"""What the documentation tells a user to type is accepted, and every way to install takes the locked versions."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version
from PIL import Image
from torchvision.models import AlexNet_Weights, SqueezeNet1_1_Weights, VGG16_Weights, VGG19_Weights

from rsdiff.app.command_line import check_command
from rsdiff.app.help import INTRODUCTION
from rsdiff.app.words import for_hydra, words_of
from rsdiff.metrics.weight_files import ADDRESSES
from rsdiff.training.checkpoints import CheckpointError
from rsdiff.weights.releases import BY_KIND, BY_OPTION
from tests.conftest import REPOSITORY, Command


def commands() -> Iterator[str]:
    """Yield the arguments of every `python run.py` in README, docs/ and help; '#' or two spaces begin their comments."""
    pages = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
    texts = [*(page.read_text() for page in pages), INTRODUCTION]
    for line in "\n".join(re.sub(r"\\\n\s*", "", text) for text in texts).splitlines():  # a backslash goes on in the next line
        found = re.match(r"\s*(?:python|accelerate launch) run\.py ?(.*)", line)
        if found and "plugins=[mine]" not in found[1]:  # test_extending.py makes that plugin and runs them
            yield re.split(r"  |#", found[1])[0].strip()


@pytest.mark.parametrize("command", sorted(set(commands())))
def test_every_documented_command_is_accepted(command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    words = words_of(shlex.split(command))
    try:
        check_command(REPOSITORY / "conf", for_hydra(words)[len(words.flags) :], words.is_multirun)
    except CheckpointError as error:
        assert "RUN_FOLDER does not exist" in str(error)  # noqa: PT017 - the user has one, the test has not


def test_the_first_steps_lead_where_the_page_says(run_command: Command, tmp_path: Path) -> None:
    """Its commands one after another and its Python lines; two training steps stand for 600, noise for the user's images."""
    page = (REPOSITORY / "docs/first_steps.md").read_text()
    images = np.random.default_rng(0).integers(0, 256, (12, 64, 64, 3), dtype=np.uint8)
    (tmp_path / "FOLDER").mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"FOLDER/{number}.png")
    Image.fromarray(images[0][:24, :32]).save(tmp_path / "photo.png")
    Image.fromarray(images[1][:16, :16]).save(tmp_path / "scene.tif")
    for command in re.findall(r"^python run.py (.*)$", page, re.MULTILINE):
        few = ["trainer.steps=2", "trainer.batch=1", "metrics.panels=1"] if "task=" not in command else []
        runs = [str(report.parent) for report in tmp_path.glob("outputs/train/rrdb_quick-folder/*/report.html")]
        ended = run_command(*shlex.split(command.replace("RUN_FOLDER", runs[0] if runs else "RUN_FOLDER")), *few)
        assert ended.code == 0, (command, ended.err)
    assert (tmp_path / "scene_x4.tif").exists()
    assert Image.open(tmp_path / "photo_x4.png").size == (128, 96)
    (lines,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, np.ndarray] = {"image": images[0][:16, :16]}
    exec(lines, names)
    assert names["image_x4"].shape == (64, 64, 3)


NO_PLACE = ("://127.0.0.1", "://example", "w3.org/", "purl.org/", "creativecommons.org/ns", "json-schema.org/", "apache.org/", "{place}")
"""Names of formats and namespaces, and servers that no one has."""


def named_addresses() -> Iterator[str]:
    """Yield every address in code, configurations and documents, apart from the page that lists them."""
    folders = [REPOSITORY / name for name in ("src", "conf", "docs", "zoo", "examples", "sweeps", "experiments")]
    files = [path for folder in folders for path in folder.rglob("*") if path.suffix in {".py", ".yaml", ".md", ".json", ".jinja", ".js"}]
    files += [path for path in REPOSITORY.iterdir() if path.suffix in {".md", ".cff", ".toml", ".yml"} or path.name == "Dockerfile"]
    releases = {*BY_KIND.values(), *BY_OPTION.values()}
    yield from (address for release in releases for address in (release.address, release.weights) if address)
    yield from ADDRESSES.values()
    for path in {path.resolve() for path in files} - {REPOSITORY / "docs/addresses.md"}:
        if path.name in ("weight_files.py", "releases.py"):  # their addresses are put together, and were read above
            continue
        for address in re.findall(r"https?://[^\s<>()\"'`|,]+[^\s<>()\"'`|,.;:]", path.read_text()):
            if not any(part in address for part in NO_PLACE):
                yield address.partition("{")[0]


def test_every_address_is_listed_with_where_it_was_read() -> None:
    page = (REPOSITORY / "docs/addresses.md").read_text()
    listed = dict(re.findall(r"^\| (https?://\S+) \| (.+) \|$", page, re.MULTILINE))
    assert all(listed.values())
    assert set(named_addresses()) == set(listed)
    for weights in (AlexNet_Weights, SqueezeNet1_1_Weights, VGG16_Weights, VGG19_Weights):
        assert weights.IMAGENET1K_V1.url in ADDRESSES.values()


def locked_versions() -> dict[str, Version]:
    lines = (REPOSITORY / "requirements.lock").read_text().split()
    return {canonicalize_name(name): Version(version) for name, _, version in (line.partition("==") for line in lines)}


def requirements() -> list[Requirement]:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    return [Requirement(text) for text in [*project["dependencies"], *project["optional-dependencies"]["dev"]]]


@pytest.mark.parametrize("requirement", requirements(), ids=str)
def test_the_lock_holds_a_supported_version_of_every_requirement(requirement: Requirement) -> None:
    assert locked_versions()[canonicalize_name(requirement.name)] in requirement.specifier, "`make lock` renews the lock"


def test_the_lock_serves_every_index_and_every_build_of_torch() -> None:
    text = (REPOSITORY / "requirements.lock").read_text()
    assert not re.search(r"--hash|\+|@|^(nvidia-|cuda-|triton)", text, re.MULTILINE)


def test_conda_docker_ci_and_make_install_the_same() -> None:
    """All of them take the versions of the lock, which are those that pyproject.toml supports, with one Python."""
    conda = yaml.safe_load((REPOSITORY / "environment.yml").read_text())["dependencies"]
    (pip,) = [entry["pip"] for entry in conda if isinstance(entry, dict)]
    assert f"install --quiet {' '.join(pip)}".replace('"', "") in (REPOSITORY / "Makefile").read_text().replace('"', "")
    docker = (REPOSITORY / "Dockerfile").read_text()
    (constraint,) = re.findall(r"--constraint (\S+) /rsdiff$", docker.replace(" \\", ""), re.MULTILINE)
    assert (REPOSITORY / constraint.removeprefix("/rsdiff/")).samefile(REPOSITORY / "requirements.lock")
    assert "requirements.lock" not in (REPOSITORY / ".dockerignore").read_text()
    ci = (REPOSITORY / ".github/workflows/ci.yml").read_text()
    pythons = {entry.partition("=")[2] for entry in conda if str(entry).startswith("python=")}
    pythons |= set(re.findall(r"^FROM python:([\d.]+)", docker, re.MULTILINE)) | set(re.findall(r'python-version: "([\d.]+)"', ci))
    (python,) = pythons
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert Version(f"{python}.9") in SpecifierSet(project["requires-python"])
    assert f"Programming Language :: Python :: {python}" in project["classifiers"]


def sentences_of_faq() -> list[str]:
    return re.findall(r"^## `(.*)`$", (REPOSITORY / "docs/faq.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize("sentence", sentences_of_faq())
def test_messages_of_the_questions_are_those_of_the_code(sentence: str) -> None:
    """Their fixed parts stand in one file of the code, in this order; what differs from case to case is '...' or a name in the code."""
    written = [re.sub(r'"\s*\n\s*f?"|\{[^{}]*\}', "", path.read_text()) for path in (REPOSITORY / "src/rsdiff").rglob("*.py")]
    parts = [part.strip(" ;,()?") for part in re.split(r"\(did you mean \.\.\.\?\)|\.\.\.|LPIPS \(alex\), DISTS", sentence)]
    assert any(all(part in text for part in parts) for text in written), parts
