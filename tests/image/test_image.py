"""The engine's Dockerfile, really built by docker, from a source that is small enough for every run.

Bases are made once (about 2 minutes); everything after that takes about half a minute and no network. The real source
is built by scripts/reproduce-engine, and through the role by the molecule scenario `engine`.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from llamarig.config import paths
from llamarig.lab.engine_image import BINARIES, build, cpu_arguments, ensure_bases
from llamarig.lab.machine import LabError, run
from tests.image.toy import COMMIT, EPOCH, MAIN, VERSION, write_source

IMAGE: Final = "llamarig-test-image:built"
# As compose runs a service, planning/host_files.py.
LOCKED: Final = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--network", "none")


def inside(command: str, image: str = IMAGE) -> str:
    return run(["docker", "run", "--rm", *LOCKED, "--entrypoint", "/bin/sh", image, "-c", command])


def inspected() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run(["docker", "image", "inspect", IMAGE]))[0]
    return found


@pytest.fixture(scope="module")
def bases() -> tuple[str, str]:
    try:
        return ensure_bases(print)
    except LabError as error:
        pytest.skip(f"there is no docker, or nothing to make a base image with: {error.message}")


@pytest.fixture(scope="module")
def arguments(bases: tuple[str, str]) -> dict[str, str]:
    return cpu_arguments(VERSION, COMMIT, EPOCH, bases)


@pytest.fixture(scope="module", autouse=True)
def built(arguments: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    tree = write_source(tmp_path_factory.mktemp("source"))
    build(tree, IMAGE, arguments)
    yield tree
    run(["docker", "image", "rm", "--force", IMAGE], check=False)


def test_the_engine_runs_locked_in_as_nobody_that_the_host_knows() -> None:
    said = run(["docker", "run", "--rm", *LOCKED, IMAGE, "--version"])
    assert said.startswith("version: 1.2.3 (commit 012345678) OpenSSL")
    assert inside("id -u; id -g; id -un").split() == [str(paths.ENGINE_UID)] * 2 + ["llama-engine"]


def test_nothing_to_serve_is_said_by_the_image_as_such() -> None:
    command = ["docker", "run", "--rm", *LOCKED, IMAGE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 64
    assert "neither LLAMA_MODEL nor LLAMA_HF_REPO is set" in done.stderr


def test_the_image_says_what_it_is_in_labels_and_in_a_file(arguments: dict[str, str]) -> None:
    labels = inspected()["Config"]["Labels"]
    version = json.loads(inside("cat /version.json"))
    assert (labels["llamarig.engine"], labels["llamarig.ref"]) == ("source", "v1.2.3")
    assert labels["org.opencontainers.image.revision"] == version["commit"] == COMMIT
    assert labels["llamarig.backend"] == version["backend"] == "cpu"
    assert (version["schema_version"], version["ref"], version["version"], version["build"]) == (
        1,
        "v1.2.3",
        "1.2.3",
        0,
    )
    assert (version["committed"], version["source"]) == (EPOCH, COMMIT)
    assert (version["cuda"], version["architectures"]) == (None, [])
    assert "-DGGML_NATIVE=OFF" in version["options"]
    assert version["bases"] == {"build": arguments["BUILD_IMAGE"], "runtime": arguments["RUNTIME_IMAGE"]}


def test_every_tool_is_on_the_path_and_every_file_is_as_old_as_the_commit() -> None:
    for tool in ("llama-bench", "llama-fit-params", "ggml-rpc-server", "test-backend-ops"):
        assert inside(f"command -v {tool}") == f"{BINARIES}/{tool}"
    assert set(inside(f"stat --format %Y {BINARIES}/* /version.json").split()) == {str(EPOCH)}


def test_what_built_it_is_not_in_it() -> None:
    assert inside("command -v c++ cmake ninja gcc || true") == ""
    assert inside("ls -d /build /src /ccache 2>/dev/null || true") == ""


def test_the_same_inputs_are_the_same_image(built: Path, arguments: dict[str, str]) -> None:
    before = inspected()["Id"]
    build(built, IMAGE, arguments)
    assert inspected()["Id"] == before


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"VERSION": "1.2.4"}, "the source says that it is 1.2.3, and the lock says 1.2.4"),
        ({"VERSION": "1.2.30"}, "the source says that it is 1.2.3"),
        ({"BACKEND": "cuda", "ARCHITECTURES": "89-real"}, "has no nvcc"),
        ({"BACKEND": "vulkan"}, "BACKEND is 'vulkan'"),
        ({"REF": 'v1"2'}, "a character that no such value has"),
    ],
)
def test_inputs_that_do_not_agree_give_no_image(
    built: Path, arguments: dict[str, str], change: dict[str, str], says: str
) -> None:
    with pytest.raises(LabError, match=says):
        build(built, f"{IMAGE}-refused", {**arguments, **change})
    assert run(["docker", "image", "ls", "--quiet", f"{IMAGE}-refused"]) == ""


def test_an_engine_that_does_not_say_its_commit_is_refused(arguments: dict[str, str], tmp_path: Path) -> None:
    tree = write_source(tmp_path, MAIN.replace("%s) %s", "unknown) %s").replace("COMMIT, ", ""))
    with pytest.raises(LabError, match="and not commit 012345678"):
        build(tree, f"{IMAGE}-refused", arguments)


def test_a_development_version_is_of_its_number(built: Path, arguments: dict[str, str]) -> None:
    image = f"{IMAGE}-development"
    build(built, image, {**arguments, "VERSION": "1.2.3-dev-012345678", "REF": "master", "IS_RELEASE": "OFF"})
    assert json.loads(inside("cat /version.json", image))["version"] == "1.2.3-dev-012345678"
    run(["docker", "image", "rm", image])
