"""The pretended accelerator is registered with PyTorch for the whole process, which then differs: it gets a process of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.devices.pretended import device

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    own = [item for item in items if HERE in item.path.parents]
    if len(own) < len(items):
        alone = pytest.mark.skip(reason="the pretended accelerator needs a process of its own: `make test-devices`")
        for item in own:
            item.add_marker(alone)
    elif own:
        device()  # before the first backward pass, when autograd counts the devices
