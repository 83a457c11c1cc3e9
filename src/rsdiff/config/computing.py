"""Types of options that say how a device computes. No PyTorch: commands that only look at settings start without it."""

from __future__ import annotations

from typing import Literal

Precision = Literal["no", "bf16", "fp16"]
"""Of products and convolutions: float32, or mixed with one of the types of 16 bits."""
