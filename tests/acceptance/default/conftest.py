"""The tests that need lab hosts, run by molecule's verify in the order of a host's life."""

from __future__ import annotations

from typing import Any

import pytest
import testinfra
from tests.acceptance.box import LAB, Box

# What a host goes through; each part leaves it as the next expects it.
ORDER = (
    "served",
    "watched",
    "silent",
    "models",
    "switching",
    "memory",
    "unbroken",
    "faults",
    "firewall",
    "reboot",
    "interrupted",
    "removed_service",
    "removed",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: ORDER.index(item.path.stem.removeprefix("test_")))


@pytest.fixture(scope="session")
def alpha() -> Box:
    return Box("alpha")


@pytest.fixture(scope="session")
def beta() -> Box:
    return Box("beta")


@pytest.fixture(scope="session")
def alpha_host() -> Any:
    return testinfra.get_host("ssh://alpha", ssh_config=str(LAB / "ssh_config"), sudo=True)
