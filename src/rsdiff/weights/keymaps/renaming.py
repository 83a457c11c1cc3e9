"""Names of parameters as they are published, from ours: rules applied in order, so that import and export share one table."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

Rule = tuple[str, str | Callable[[re.Match[str]], str]]
"""(regular expression in our name, what stands there in the published one)"""
Name = Callable[[str], str]
"""our name -> published name"""


def renamed(key: str, rules: Iterable[Rule]) -> str:
    """Return `key` after all rules."""
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key
