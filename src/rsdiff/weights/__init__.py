"""Key maps that turn foreign checkpoints into ours and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rsdiff.config.kinds import on_demand

if TYPE_CHECKING:
    from rsdiff.weights.importer import export_weights, import_weights

__getattr__ = on_demand(__name__, {"export_weights": "importer", "import_weights": "importer"})

__all__ = ["export_weights", "import_weights"]
