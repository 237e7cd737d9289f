"""The test of an engine that was built from llama.cpp's source through the role."""

from __future__ import annotations

import json

import pytest
from tests.acceptance.box import Box


@pytest.fixture(scope="session")
def furnace() -> Box:
    return Box("furnace")


@pytest.fixture(scope="session")
def image(furnace: Box) -> str:
    """The engine that the services run."""
    name: str = json.loads(furnace.run("cat /etc/llamarig/services.d/dense.json"))["image"]
    return name
