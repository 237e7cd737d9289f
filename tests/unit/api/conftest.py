from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.api.world import World, world


@pytest.fixture
def api() -> Iterator[World]:
    with world() as found:
        yield found
