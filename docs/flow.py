"""Pictures of the data's way: a block ```flow of a page becomes boxes and arrows (SVG) when the site is built; elsewhere it is text.

    reader | stored values
    normaliser | float32, [0, 1]

gives two boxes, each with a name and a line below it.
"""

from __future__ import annotations

import re
from html import escape

WIDTH, HEIGHT, GAP, PER_ROW = 178, 58, 34, 4
INK, LINE, FILL = "#1d2733", "#0b6fa4", "#eef6fb"


def with_pictures(markdown: str) -> str:
    """Return a page with every flow block as a picture."""
    return re.sub(r"```flow\n(.*?)```", lambda found: picture(found[1]), markdown, flags=re.DOTALL)


def picture(text: str) -> str:
    """Return the SVG of a flow: rows of boxes, each row read from left to right."""
    boxes = [[part.strip() for part in line.split("|")] for line in text.strip().splitlines()]
    width, height = PER_ROW * (WIDTH + GAP), -(-len(boxes) // PER_ROW) * (HEIGHT + GAP)
    parts = [arrow_head()]
    for number, (name, below) in enumerate(boxes):
        row, column = divmod(number, PER_ROW)
        x, y = column * (WIDTH + GAP) + 2, row * (HEIGHT + GAP) + 2
        middle = f'x="{x + WIDTH / 2}" text-anchor="middle" fill="{INK}"'
        parts.append(f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="8" fill="{FILL}" stroke="{LINE}"/>')
        parts.append(f'<text {middle} y="{y + 24}" font-weight="600">{escape(name)}</text>')
        parts.append(f'<text {middle} y="{y + 44}" font-size="11.5">{escape(below)}</text>')
        if number + 1 < len(boxes):
            parts.append(arrow(x, y, column))
    title = escape(" to ".join(name for name, _ in boxes))
    style = "max-width:100%;height:auto;font:14px system-ui,sans-serif"
    return f'<svg viewBox="0 0 {width} {height}" width="{width}" role="img" aria-label="{title}" style="{style}">{"".join(parts)}</svg>'


def arrow(x: float, y: float, column: int) -> str:
    """Return the arrow from a box at (x, y) to the next one: to the right, or from the end of a row to the start of the next."""
    if column + 1 < PER_ROW:
        points = f"{x + WIDTH},{y + HEIGHT / 2} {x + WIDTH + GAP - 4},{y + HEIGHT / 2}"
    else:
        below = y + HEIGHT + GAP / 2
        points = f"{x + WIDTH / 2},{y + HEIGHT} {x + WIDTH / 2},{below} {2 + WIDTH / 2},{below} {2 + WIDTH / 2},{y + HEIGHT + GAP - 4}"
    return f'<polyline points="{points}" fill="none" stroke="{LINE}" stroke-width="1.6" marker-end="url(#arrow)"/>'


def arrow_head() -> str:
    mark = 'id="arrow" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="7" markerHeight="7" orient="auto-start-reverse"'
    return f'<defs><marker {mark}><path d="M0 0L8 4L0 8z" fill="{LINE}"/></marker></defs>'
