"""Whose a file of weights is, for a user who named the wrong model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rsdiff.methods.spandrel import known_network
from rsdiff.weights.keymaps import KEY_MAPS


def whose(content: Mapping[str, Any], but: str) -> str:
    """Return a clause that says which model a checkpoint's content belongs to and what to type, or '' where nobody knows.

    but  the kind that was tried
    """
    kinds = [kind for kind in sorted(KEY_MAPS) if kind != but and _reads(kind, content)]
    network = known_network(content)
    ways = []
    if kinds:
        ways.append(f"it holds weights of the kind {' or '.join(kinds)}: choose such a model")
    if network is not None:
        ways.append(f"spandrel knows it as {network.architecture.name}: model=spandrel checkpoint=FILE runs it as it is")
    return "; ".join(ways)


def _reads(kind: str, content: Mapping[str, Any]) -> bool:
    try:
        KEY_MAPS[kind].to_ours(content, None)
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError, StopIteration):
        return False  # a file of another kind fails in any way: its shapes are read as if they were of this one
    return True
