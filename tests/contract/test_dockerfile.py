"""The engine's Dockerfile and those who give it arguments, read its options, or run its image agree."""

from __future__ import annotations

import re
from typing import Final

import pytest

from llamarig.config import paths
from llamarig.config.engine import Bases, BasesOfBackends, Engine, Source
from llamarig.lab.engine_image import (
    BINARIES,
    BUILD_PACKAGES,
    RUNTIME_PACKAGES,
    TEMPLATES,
    cmake_options,
    cpu_arguments,
)
from llamarig.lab.machine import LabError
from llamarig.planning.engine import planned

TEXT: Final = (TEMPLATES / "Dockerfile").read_text(encoding="utf-8")
CODE: Final = "\n".join(line for line in TEXT.splitlines() if not line.lstrip().startswith("#"))
TOOLS: Final = {
    "llama-server",
    "llama-bench",
    "llama-fit-params",
    "llama-perplexity",
    "llama-quantize",
    "llama-gguf-split",
    "llama-tokenize",
    "ggml-rpc-server",
    "test-backend-ops",
}
VARIABLES: Final = {
    "cuda": "ON",
    "FA_ALL_QUANTS": "OFF",
    "ARCHITECTURES": "89-real;120a-real",
    "development": "OFF",
    "BUILD_NUMBER": "7",
    "short": "012345678",
}
# Not part of the image's name: the same bytes come out.
WITHOUT_A_TRACE: Final = {"JOBS", "CCACHE"}


def declared() -> set[str]:
    return set(re.findall(r"^ARG (\w+)", CODE, re.MULTILINE))


def test_the_plan_gives_every_argument_and_no_other() -> None:
    engine = Engine(
        source=Source(ref="v1.2.3", version="1.2.3", commit="0" * 40, committed=1),
        bases=BasesOfBackends(cpu=Bases(build="build:1", runtime="runtime:1")),
    )
    given = planned(engine, [], "0" * 64)["arguments"]
    assert set(given) == declared() - WITHOUT_A_TRACE
    assert set(cpu_arguments("1.2.3", "0" * 40, 1, ("build:1", "runtime:1"))) == set(given)


def test_bases_have_no_default_here_so_that_their_pins_stand_once() -> None:
    assert set(re.findall(r"^ARG (\w+)=", CODE, re.MULTILINE)) == WITHOUT_A_TRACE | {"APT_SNAPSHOT"}
    assert re.findall(r"^FROM (\S+)", CODE, re.MULTILINE) == ["${BUILD_IMAGE}", "${RUNTIME_IMAGE}"]


def test_it_needs_no_frontend_and_no_buildkit_later_than_dockers_20_10() -> None:
    assert not re.search(r"^#\s*syntax\s*=", TEXT, re.MULTILINE)
    for later in ("<<", "--link", "--checksum", "--parents", "--exclude", "type=secret,env"):
        assert not re.search(rf"^(COPY|ADD|RUN).*{re.escape(later)}", CODE, re.MULTILINE), later


def test_compose_and_systemd_watch_over_the_engine_and_the_image_does_not() -> None:
    assert "HEALTHCHECK" not in CODE
    assert "VOLUME" not in CODE


def test_the_image_runs_as_the_engines_user() -> None:
    uid = paths.ENGINE_UID
    assert f"USER {uid}:{uid}" in CODE
    assert f"llama-engine:x:{uid}:{uid}:" in CODE
    assert f"chown {uid}:{uid} /var/cache/llama.cpp" in CODE


def test_every_tool_that_the_host_uses_is_built_and_on_the_path() -> None:
    named = re.findall(r"""tools=['"](?:\$tools )?([^'"]+)['"]""", CODE)
    assert set(" ".join(named).split()) == TOOLS
    assert f"ENV PATH={BINARIES}:$PATH" in CODE


def test_cmake_gets_what_makes_an_engine_portable_and_small() -> None:
    options = cmake_options(TEXT, VARIABLES)
    assert len({option.partition("=")[0] for option in options}) == len(options)
    assert {
        "-DGGML_NATIVE=OFF",
        "-DBUILD_SHARED_LIBS=ON",
        "-DGGML_BACKEND_DL=ON",
        "-DGGML_CPU_ALL_VARIANTS=ON",
        "-DGGML_RPC=ON",
        "-DGGML_CUDA=ON",
        "-DGGML_CUDA_NCCL=OFF",
        "-DGGML_CUDA_FA_ALL_QUANTS=OFF",
        "-DCMAKE_CUDA_ARCHITECTURES=89-real;120a-real",
        "-DCMAKE_INSTALL_RPATH=$ORIGIN",
        "-DLLAMA_USE_PREBUILT_UI=OFF",
        "-DLLAMA_BUILD_NUMBER=7",
        "-DLLAMA_BUILD_COMMIT=012345678",
    } <= set(options)


def test_a_variable_that_nobody_gives_is_not_taken_for_an_empty_one() -> None:
    with pytest.raises(LabError, match=r"\$short"):
        cmake_options(TEXT, {name: value for name, value in VARIABLES.items() if name != "short"})
    with pytest.raises(LabError, match="no `set -- -D"):
        cmake_options("FROM scratch\n", VARIABLES)


def test_the_network_is_used_for_packages_that_a_base_lacks_and_for_nothing_else() -> None:
    assert not re.search(r"\b(curl|wget|git clone|pip|npm)\b", CODE)
    for install in re.finditer(r"apt-get [^;]*install ([^;]*);", CODE):
        assert install[1].split()[0].strip("\\") == "$missing"
    assert CODE.count("apt-get") == 4
    # A base that is made here is prepared: it has what the build would install.
    checked = re.search(r"for pair in ([^;]*);", CODE)
    assert checked
    assert {*(pair.split(":")[1] for pair in checked[1].split()), "libssl-dev", "ccache"} == set(BUILD_PACKAGES)
    assert "ca-certificates" in RUNTIME_PACKAGES


def test_nothing_depends_on_the_clock_or_on_a_place() -> None:
    assert "LLAMA_BUILD_NUMBER" in CODE
    assert not re.search(r"\bdate\b(?! *=)", CODE.replace("--date=", ""))
    assert 'touch --no-dereference --date="@$SOURCE_DATE_EPOCH"' in CODE


def test_the_image_says_what_it_is() -> None:
    for label in (
        'llamarig.engine="source"',
        'llamarig.ref="${REF}"',
        'org.opencontainers.image.revision="${COMMIT}"',
        'llamarig.backend="${BACKEND}"',
        'llamarig.architectures="${ARCHITECTURES}"',
        'llamarig.source="${SOURCE_HASH}"',
    ):
        assert label in CODE
    assert "/version.json" in CODE


def test_the_role_sees_the_files_of_this_folder() -> None:
    link = TEMPLATES.parents[1] / "roles/llama_image/templates"
    assert link.is_symlink()
    assert link.resolve() == TEMPLATES
    assert {path.name for path in TEMPLATES.iterdir()} == {"Dockerfile", "entrypoint.sh"}
