"""The tests of an engine that is built once and handed on, in the order of what they leave behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.acceptance.box import Box
from tests.acceptance.engine.engine import bring, forget_here, images, planned

ORDER = ("handed", "refused", "interrupted", "registry", "pruned", "upgrade", "rollback", "removed")
# By this name the builder keeps an engine that a test takes away from everybody.
KEPT = "kept:engine"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: ORDER.index(item.path.stem.removeprefix("test_")))


@pytest.fixture(scope="session")
def forge() -> Box:
    return Box("forge")


@pytest.fixture(scope="session")
def node() -> Box:
    return Box("node")


@pytest.fixture
def lost(forge: Box, node: Box) -> Iterator[str]:
    """The planned engine, which no host has by its name any more; in the end both have it again, without a build."""
    image = planned(node)
    forge.run(f"sudo docker tag {image} {KEPT} && sudo docker image rm {image}")
    node.run(f"sudo docker image rm --force {image}")
    forget_here()
    yield image
    if image not in images(forge):
        forge.run(f"sudo docker tag {KEPT} {image}")
    forge.run(f"sudo docker image rm {KEPT}")
    done = bring()
    assert done.returncode == 0, done.stdout
    assert images(forge) == images(node) == [image]
