"""What networks that halve an image ask of the sizes they are trained on; in restoration, images are extended and cropped."""

from __future__ import annotations

from rsdiff.config import UserError
from rsdiff.data.sample import Batch


def require_multiple(batch: Batch, multiple: int) -> None:
    """Raise ValueError unless the targets' height and width are multiples of `multiple`."""
    if batch.size[0] % multiple or batch.size[1] % multiple:
        raise UserError(
            f"training images of {batch.size[0]}x{batch.size[1]} pixels were given to a network that halves them; "
            f"choose trainer.patch as a multiple of {multiple}."
        )
