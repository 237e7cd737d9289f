"""The tests of an engine that is built once and handed on, in the order of what they leave behind."""

from __future__ import annotations

import pytest
from tests.acceptance.box import Box

ORDER = ("handed", "refused", "interrupted", "registry", "upgrade", "rollback", "pruned", "removed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: ORDER.index(item.path.stem.removeprefix("test_")))


@pytest.fixture(scope="session")
def forge() -> Box:
    return Box("forge")


@pytest.fixture(scope="session")
def node() -> Box:
    return Box("node")
