"""The contract of a key map."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor


class KeyMap(Protocol):
    """Translates published checkpoints of one method kind to ours and back. Configs are those of the method kind."""

    def to_ours(self, content: Mapping[str, Any], config: Any | None) -> tuple[Any, dict[str, Tensor]]:
        """Return (config, state dict of the method) of a checkpoint's content, as `read_checkpoint` returns it.

        config  what the file must fit, or None to take it from the file: its stored settings, else its keys and shapes
        Strict: raises ValueError in one sentence if a tensor is unknown (beyond an explicit list of dead ones), missing or of another
        shape, or if stored constants differ from those computed from the config.
        """
        ...

    def to_published(self, config: Any, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return a method's state dict under the published names, constants included: what the published code loads strictly."""
        ...
