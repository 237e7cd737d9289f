"""The host that everything happens to, run by molecule's verify."""

from __future__ import annotations

import pytest
from tests.acceptance.box import Box
from tests.acceptance.switching.rig import Rig

ORDER = ("served", "faults", "streams", "daemon")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: ORDER.index(item.path.stem.removeprefix("test_")))


@pytest.fixture(scope="session")
def rig() -> Rig:
    rig = Rig(Box("rig"))
    rig.bring_tools()
    return rig
