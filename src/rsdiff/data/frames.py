"""Tables as text, by pandas."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def markdown_of(columns: Sequence[str], rows: Sequence[Sequence[str]], numbers: Collection[str] = ()) -> str:
    """Return a table in Markdown, without a line break at its end.

    rows     cells under `columns`; a bar in a cell is escaped
    numbers  columns whose cells stand at the right
    """
    import pandas

    frame = pandas.DataFrame([[cell.replace("|", "\\|") for cell in row] for row in rows], columns=list(columns))
    sides = ["right" if column in numbers else "left" for column in columns]
    return str(frame.to_markdown(index=False, disable_numparse=True, colalign=sides if rows else None))
