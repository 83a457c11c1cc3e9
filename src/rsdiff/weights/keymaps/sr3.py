"""Published names of SR3's and its DDPM twin's parameters, and the settings their shapes tell.

The published lists `downs` and `ups` are flat: blocks and resizing convolutions of all levels are numbered through.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
