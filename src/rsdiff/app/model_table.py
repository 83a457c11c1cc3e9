"""The table of docs/models.md: every published model with its parameters, what one application of its networks costs, and its source.

Parameters are counted on PyTorch's meta device, so that nothing is drawn and no memory is taken: make model-table.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from rsdiff.app.matrix import Shipped, shipped, with_features
from rsdiff.app.method_pages import docstring_of
from rsdiff.app.schemas import register_schemas
from rsdiff.config import UserError
from rsdiff.methods.base import MethodConfig, Problem
from rsdiff.weights.keymaps import KEY_MAPS

BANDS = ((3, 3), (48, 12), (48, 3), (31, 3))
"""Bands of target and input that are tried, in this order; at x1, where bands are added to pixels that stay, from the end."""
SCALES = (4.0, 8.0, 2.0, 1.0)


def model_table(options: Shipped) -> str:
    """Return the table as Markdown: one line per published configuration."""
    lines = ["| `model=` | method | parameters | scale, bands | published code | imports its weights |", "|---|---|---|---|---|---|"]
    for name, config in sorted(options.models.items()):
        if name.endswith(("_tiny", "_quick")):
            continue
        kind = options.kinds[name]
        problem = problem_for(config)
        count = None if problem is None else parameters_of(config, problem)
        counted = "-" if count is None else millions(count)
        treated = "-" if problem is None else f"x{problem.scale:g}, {problem.lr_bands} to {problem.bands}"
        source = ", ".join(f"[{place}](https://github.com/{place})" for place in sources_of(kind)) or "-"
        imports = "yes" if kind in KEY_MAPS else "-"
        lines.append(f"| `{name}` | [{kind}](method/{kind}.md) | {counted} | {treated} | {source} | {imports} |")
    return "\n".join(lines) + "\n"


def problem_for(config: MethodConfig) -> Problem | None:
    """Return the first problem that a model can treat, RGB at x4 where it can."""
    for scale in SCALES:
        for bands, lr_bands in BANDS if scale > 1 else reversed(BANDS):
            problem = Problem(scale, bands, lr_bands)
            if config.refuse(problem) is None:
                return problem
    return None


def parameters_of(config: MethodConfig, problem: Problem) -> int | None:
    """Return how many weights a model has that restores: without discriminators and momentum encoders; None where a file decides."""
    method: Any
    try:
        with torch.device("meta"):
            method = config.build(problem)
    except UserError:
        return None
    except RuntimeError:  # a network that computes with its own buffers while it is built
        method = config.build(problem)
    return int(method.parameter_count())


def millions(count: int) -> str:
    return f"{count / 1e6:.3g} M" if count >= 10_000 else str(count)


def sources_of(kind: str) -> Iterator[str]:
    """Yield the repositories on GitHub that a method's docstring names as its sources."""
    for found in re.findall(r"[Ss]ources?: (.*)", docstring_of(kind)):
        names = re.findall(r"\b([\w-]+/[A-Za-z][\w.-]*[\w])\b(?!/)", found.partition("(")[0])
        yield from [name for name in names if not name.endswith(".py")][:2]


def main(repository: Path) -> None:
    """Write the table into docs/models.md."""
    register_schemas()
    path = repository / "docs" / "models.md"
    path.write_text(with_features(path.read_text(), model_table(shipped(repository / "conf"))))
    print(f"wrote the table of models into {path}")


if __name__ == "__main__":
    main(Path.cwd())
