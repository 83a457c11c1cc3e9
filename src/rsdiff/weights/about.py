"""What is said of published weights: a card that a person reads, and the same as data in `card.json` under 'about'."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsdiff.config import UserError
from rsdiff.data.frames import markdown_of
from rsdiff.weights.trained_scales import told_scales, trained_scales

CARD, WEIGHTS, PAGE = "card.json", "weights.safetensors", "README.md"
FIELDS = ("title", "does", "data", "licence", "recipe", "figures")


@dataclass(frozen=True)
class About:
    """Weights that others are to use.

    title    a line
    does     for which images at which scale, and what not to expect
    data     what they were trained on, each with its licence: 'AID, train (licence: research use)'
    licence  of the weights
    recipe   the command that trained them
    figures  rows of {'images': .., 'metric': .., 'value': .., 'bicubic': .., 'command': ..}, of images that the training did not see;
             the command is the one that measured them
    """

    title: str
    does: str
    data: tuple[str, ...]
    licence: str
    recipe: str
    figures: tuple[Mapping[str, Any], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {"title": self.title, "does": self.does, "data": list(self.data), "licence": self.licence, "recipe": self.recipe,
                "figures": [dict(row) for row in self.figures]}  # fmt: skip


def about_of(folder: Path) -> About:
    """Return what the card in a checkpoint's folder says; raises UserError in one sentence where it lacks something."""
    try:
        said = json.loads((folder / CARD).read_text())["about"]
        missing = [name for name in FIELDS if not said.get(name)]
        if missing:
            raise UserError(f"{folder / CARD} says nothing of {', '.join(missing)}; add it under 'about'.")
        figures = tuple(dict(row) for row in said["figures"])
        return About(said["title"], said["does"], tuple(map(str, said["data"])), said["licence"], said["recipe"], figures)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{folder} is no folder of published weights ({type(error).__name__} in its {CARD}); make it with task=publish."
        ) from None


def page_of(about: About, card: Mapping[str, Any], name: str, sha256: str) -> str:
    """Return the page that a person reads, as Markdown with the header that Hugging Face understands.

    name  what its command gives as checkpoint=: zoo:NAME, hf:OWNER/NAME, or the name of the folder, which others keep elsewhere
    """
    problem, model = card["problem"], card["config"]["model"]["kind"]
    scales = told_scales(*(trained_scales(card) or [problem["scale"]] * 2))
    columns = ("images", "metric", "value", "bicubic")
    rows = [[*(str(row.get(name, "")) for name in columns[:2]), *(_number(row.get(name)) for name in columns[2:])] for row in about.figures]
    commands = list(dict.fromkeys(str(row["command"]) for row in about.figures if row.get("command")))
    return "\n".join(
        [
            "---",
            "library_name: rsdiff",
            f"license: {_short(about.licence)}",
            "pipeline_tag: image-to-image",
            "tags: [super-resolution, remote-sensing]",
            "---",
            f"# {about.title}",
            "",
            about.does,
            "",
            *([] if ":" in name else [f"In the folder that holds `{name}`:", ""]),
            "```bash",
            f"python run.py task=restore checkpoint={name} input=scene.tif output=restored.tif",
            "```",
            "",
            f"Model kind `{model}`, {scales}, {problem['lr_bands']} to {problem['bands']} bands, "
            f"{card.get('parameters', 0):,} parameters; weights SHA-256 `{sha256}`.",
            "",
            "## Figures",
            "",
            markdown_of(columns, rows),
            "",
            *(["Measured by", "", "```bash", *commands, "```", ""] if commands else []),
            "## Data",
            "",
            *(f"- {entry}" for entry in about.data),
            "",
            f"Licence of the weights: {about.licence}",
            "",
            "## Recipe",
            "",
            "```bash",
            about.recipe,
            "```",
            "",
        ]
    )


def listing(entries: Sequence[tuple[str, About, int]]) -> list[str]:
    """Return lines that list published weights: (name, about, bytes)."""
    lines = []
    for name, about, size in entries:
        lines += [f"{name}  ({size / 2**20:.1f} MiB)  {about.title}", f"    {about.does}"]
        for row in about.figures:
            lines.append(f"    {row.get('images')}: {row.get('metric')} {_number(row.get('value'))}, bicubic {_number(row.get('bicubic'))}")
        lines.append(f"    data: {'; '.join(about.data)}; licence: {about.licence}")
    return lines


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "-" if value is None else str(value)


def _short(licence: str) -> str:
    known = {"MIT": "mit", "Apache-2.0": "apache-2.0", "CC-BY-4.0": "cc-by-4.0", "CC-BY-NC-4.0": "cc-by-nc-4.0"}
    return next((tag for name, tag in known.items() if name.lower() in licence.lower()), "other")
