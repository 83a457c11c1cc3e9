"""Names that a user types after `make`: those that exist, or the sentence that says which do."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence

from rsdiff.config.typed import nearest


def chosen(names: Sequence[str], options: Collection[str], what: str) -> list[str]:
    """Return `names`, or all `options` where none is typed; ends the program in one sentence where a name is no option.

    what  what a name stands for, in the singular: "recipe"
    """
    for name in names:
        if name not in options:
            sys.exit(f"{name} is no {what}{nearest(name, list(options))}; choose among {', '.join(options)}.")
    return list(names or options)
