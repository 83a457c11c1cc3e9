"""Makes examples/first_steps.ipynb of docs/tutorials/notebook.md: python docs/notebook.py."""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE, NOTEBOOK = ROOT / "docs/tutorials/notebook.md", ROOT / "examples/first_steps.ipynb"


def notebook_of(page: str) -> str:
    """Return a page as a notebook without outputs: a cell per Python block, and the text between them."""
    cells = []
    for number, part in enumerate(re.split(r"```python\n(.*?)```", page, flags=re.DOTALL)):
        source = part.strip().splitlines(keepends=True)
        if not source:
            continue
        cell = {"cell_type": "code" if number % 2 else "markdown", "id": f"cell-{number}", "metadata": {}, "source": source}
        cells.append(cell | ({"execution_count": None, "outputs": []} if number % 2 else {}))
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return json.dumps({"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}, indent=1) + "\n"


if __name__ == "__main__":
    NOTEBOOK.write_text(notebook_of(PAGE.read_text()))
