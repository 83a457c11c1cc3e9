"""Settings of runs that last seconds, as a user types them."""

from __future__ import annotations


def scenes(size: int, test_images: int = 2) -> list[str]:
    """Return the settings of four generated scenes to train on, and some to test on."""
    return [
        "dataset=synthetic",
        f"dataset.size={size}",
        "dataset.train_images=4",
        f"dataset.test_images={test_images}",
        "dataset.second_date=false",
    ]


SHORT = [
    *("trainer.steps=2", "trainer.batch=2", "trainer.workers=0"),
    *("trainer.validate_every_steps=1", "trainer.save_every_steps=1", "trainer.validation_images=1", "metrics.panels=1"),
]
"""Two steps, each followed by a validation of one image."""
