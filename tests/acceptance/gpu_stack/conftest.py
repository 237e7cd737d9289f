"""The tests of the GPU stack, on boxes with played cards, in the order of what they leave behind."""

from __future__ import annotations

import pytest
from tests.acceptance.box import Box

ORDER = (
    "states",
    "silent",
    "devices",
    "tuning",
    "faults",
    "measured",
    "switched",
    "refusals",
    "repairs",
    "maintained",
    "interrupted",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: ORDER.index(item.path.stem.removeprefix("test_")))


@pytest.fixture(scope="session")
def fresh() -> Box:
    return Box("fresh")


@pytest.fixture(scope="session")
def used() -> Box:
    return Box("used")


@pytest.fixture(scope="session")
def half() -> Box:
    return Box("half")


@pytest.fixture(scope="session")
def kernel() -> Box:
    return Box("kernel")
