"""The engine is exactly the locked source, on exactly the locked bases, and serves."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from tests.acceptance.box import SCENARIO, Box

LOG = "/var/log/llamarig/engine-build.log"
TOOLS = (
    "llama-server",
    "llama-bench",
    "llama-fit-params",
    "llama-perplexity",
    "llama-quantize",
    "llama-gguf-split",
    "ggml-rpc-server",
    "test-backend-ops",
)


@pytest.fixture(scope="module")
def lock() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(
        (SCENARIO / "inventory/group_vars/all/engine.yml").read_text(encoding="utf-8")
    )
    return found


def test_the_image_says_what_it_was_built_from(furnace: Box, image: str, lock: dict[str, Any]) -> None:
    source = lock["llama_image_source"]
    said = json.loads(furnace.run(f"sudo docker run --rm --entrypoint cat {image} /version.json"))
    assert (said["commit"], said["ref"], said["version"]) == (source["commit"], "v0.5.0", "0.5.0")
    # Of a checkout that had vendored another engine, nothing was vendored for this one.
    assert said["source"] == (source["archive"] or {"sha256": source["commit"]})["sha256"]
    digests = lock["llama_image_digests"]
    assert sorted(said["bases"].values()) == sorted(f"{name}@{digest}" for name, digest in digests.items())
    labels = json.loads(furnace.run(f"sudo docker image inspect {image}"))[0]["Config"]["Labels"]
    assert labels["org.opencontainers.image.revision"] == source["commit"]
    assert labels["llamarig.engine"] == "source"
    assert source["commit"][:9] in furnace.run(f"sudo docker run --rm {image} --version 2>&1")


def test_nothing_was_fetched_for_it_but_the_bases(furnace: Box) -> None:
    """The hosts of such a site reach no archive of packages, and no git."""
    log = furnace.run(f"sudo cat {LOG}")
    assert "Linking CXX executable bin/llama-server" in log
    assert [line for line in log.splitlines() if "Get:1 " in line] == []
    assert furnace.attempt("command -v git g++ cmake").returncode != 0
    assert furnace.run("sudo ls /var/cache/llamarig/engine") == ""


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_is_there_for_anybody_and_runs(furnace: Box, image: str, tool: str) -> None:
    """As in service: read-only, without capabilities, as the engine's own account."""
    contained = "--read-only --cap-drop ALL --network none --security-opt no-new-privileges"
    done = furnace.attempt(f"sudo docker run --rm {contained} --entrypoint {tool} {image} --help")
    assert "sage" in done.stdout + done.stderr, done.stderr
    assert furnace.run(f"sudo docker run --rm {contained} --entrypoint id {image} -u") == "788"


def test_both_models_are_served(furnace: Box) -> None:
    assert len(set(furnace.answers(8080))) > 1
    furnace.run("sudo llamarig switch moe")
    assert len(set(furnace.answers(8090))) > 1
    furnace.run("sudo llamarig switch dense")
    assert furnace.is_healthy()
