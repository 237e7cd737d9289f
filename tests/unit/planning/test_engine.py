from __future__ import annotations

from typing import Any

import pytest

from llamarig.config.engine import Engine
from llamarig.config.records import Gpu, Hardware
from llamarig.planning import engine as planner
from llamarig.planning.intent import plan_host
from tests.support import HOST, problems, variables

COMMIT = "0123456789abcdef0123456789abcdef01234567"
DIGEST = "sha256:" + "d" * 64
BASES = {
    "cpu": {"build": "docker.io/library/ubuntu:24.04", "runtime": "docker.io/library/ubuntu:24.04"},
    "cuda": {"build": "nvidia/cuda:13.0.3-devel-ubuntu24.04", "runtime": "nvidia/cuda:13.0.3-base-ubuntu24.04"},
}
SOURCE: dict[str, Any] = {"ref": "v0.7.0", "version": "0.7.0", "commit": COMMIT, "committed": 1700000000, "build": 7}
ARCHIVE = {"file": "vendor/llama.cpp-0123456789ab.tar.gz", "sha256": "e" * 64, "bytes": 1, "pruned": True}


def card(name: str, capability: str) -> Gpu:
    uuid = f"GPU-{int(float(capability) * 10):08d}-0000-4000-8000-000000000001"
    given = {"name": name, "uuid": uuid, "model": name, "memory_mib": 16303, "compute_capability": capability}
    return Gpu.model_validate(given)


ADA, BLACKWELL, HOPPER = card("rtx-4090", "8.9"), card("rtx-5080", "12.0"), card("h200", "9.0")


def engine(**changes: Any) -> Engine:
    return Engine.model_validate({"source": SOURCE, "bases": BASES, **changes})


def planned(*gpus: Gpu, files: str = "f", **changes: Any) -> dict[str, Any]:
    return planner.planned(engine(**changes), gpus, files)


def found(*gpus: Gpu, **changes: Any) -> list[str]:
    hardware = Hardware(memory_mib=65536, cpu_threads=16, gpus=list(gpus))
    return [str(problem) for problem in planner.problems("rig01", engine(**changes), hardware)]


def test_the_backend_follows_the_declared_cards() -> None:
    assert planned(ADA)["backend"] == "cuda"
    assert planned()["backend"] == "cpu"
    assert planned(ADA, backend="cpu")["backend"] == "cpu"
    assert planned(backend="cuda")["backend"] == "cuda"


def test_the_name_says_ref_and_backend_and_hashes_the_rest() -> None:
    name, _, tag = planned(ADA)["image"].partition(":")
    assert name == "llamarig/llama-cpp"
    assert tag.startswith("v0.7.0-cuda-")
    assert len(tag.removeprefix("v0.7.0-cuda-")) == 12


@pytest.mark.parametrize(
    "change",
    [
        {"files": "g"},
        {"architectures": ["89-real"]},
        {"fa_all_quants": True},
        {"apt_snapshot": "20260801T000000Z"},
        {"digests": {BASES["cuda"]["build"]: DIGEST}},
        {"bases": {"cuda": {"build": "mirror.example/cuda:devel", "runtime": "mirror.example/cuda:base"}}},
        {"source": SOURCE | {"commit": "f" * 40}},
        {"source": SOURCE | {"archive": ARCHIVE}},
        {"source": SOURCE | {"committed": 1700000001}},
        {"source": SOURCE | {"build": None}},
        {"backend": "cpu"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_input_is_in_the_name(change: dict[str, Any]) -> None:
    assert planned(ADA, **change)["image"] != planned(ADA)["image"]


@pytest.mark.parametrize(
    "change",
    [
        {"source": SOURCE | {"repository": "https://mirror.example/llama.cpp.git"}},
        {"digests": {"some/other:image": DIGEST}},
        {"package": {"suite": "sid", "version": "0.7.0", "packages": ["x"]}},
    ],
    ids=["repository", "digest of another image", "another recipe"],
)
def test_what_changes_no_byte_of_the_image_is_not_in_its_name(change: dict[str, Any]) -> None:
    assert planned(ADA, **change)["image"] == planned(ADA)["image"]


def test_the_cards_of_another_host_do_not_change_the_image_for_the_usual_architectures() -> None:
    assert planned(ADA)["image"] == planned(BLACKWELL)["image"]
    assert planned(ADA, architectures="declared")["image"] != planned(BLACKWELL, architectures="declared")["image"]


def test_declared_architectures_are_those_of_the_cards() -> None:
    assert planned(BLACKWELL, ADA, ADA, architectures="declared")["architectures"] == ["89-real", "120a-real"]
    assert planned(HOPPER, architectures="declared")["arguments"]["ARCHITECTURES"] == "90-real"


def test_arguments_are_what_the_dockerfile_is_given() -> None:
    arguments = planned(ADA, digests={BASES["cuda"]["build"]: DIGEST})["arguments"]
    assert arguments == {
        "BACKEND": "cuda",
        "BUILD_IMAGE": f"{BASES['cuda']['build']}@{DIGEST}",
        "RUNTIME_IMAGE": BASES["cuda"]["runtime"],
        "ARCHITECTURES": "89-real;120a-real",
        "FA_ALL_QUANTS": "OFF",
        "REF": "v0.7.0",
        "COMMIT": COMMIT,
        "VERSION": "0.7.0",
        "BUILD_NUMBER": "7",
        "IS_RELEASE": "ON",
        "SOURCE_DATE_EPOCH": "1700000000",
        "SOURCE_HASH": COMMIT,
        "APT_SNAPSHOT": "",
    }
    assert planned(source=SOURCE | {"ref": "master"})["arguments"]["IS_RELEASE"] == "OFF"
    assert planned(source=SOURCE | {"archive": ARCHIVE})["arguments"]["SOURCE_HASH"] == ARCHIVE["sha256"]


def test_an_engine_must_say_the_commit_it_was_built_from() -> None:
    assert planned()["says"] == COMMIT[:9]
    prebuilt = {"image": f"registry.example/llama.cpp@{DIGEST}", "version": "0.8.0"}
    assert planned(recipe="prebuilt", prebuilt=prebuilt)["says"] == " 0.8.0 "


def test_an_image_of_somebody_else_gets_a_name_here() -> None:
    prebuilt = {"image": f"registry.example/llama.cpp@{DIGEST}", "version": "0.8.0"}
    plan = planned(ADA, recipe="prebuilt", prebuilt=prebuilt)
    assert plan["image"].startswith("llamarig/llama-cpp:0.8.0-prebuilt-")
    assert (plan["source"], plan["package"], plan["prebuilt"]) == (None, None, prebuilt)
    other = prebuilt | {"image": f"registry.example/llama.cpp@sha256:{'e' * 64}"}
    assert planned(ADA, recipe="prebuilt", prebuilt=other)["image"] != plan["image"]


@pytest.mark.parametrize(
    ("architecture", "capability", "runs"),
    [
        ("89-real", "8.9", True),
        ("89-real", "12.0", False),
        ("86-real", "8.9", True),
        ("89-real", "8.6", False),
        ("120a-real", "12.0", True),
        ("120", "12.1", False),
        ("120a-real", "12.1", False),
        ("80-virtual", "9.0", True),
        ("80-real", "9.0", False),
        ("80", "12.0", True),
        ("90a-real", "9.0", True),
        ("90a", "10.0", False),
        ("nonsense", "8.9", False),
    ],
)
def test_code_runs_where_nvidia_says_it_does(architecture: str, capability: str, *, runs: bool) -> None:
    assert planner.runs_on(architecture, capability) is runs


def test_a_card_without_a_kernel_is_refused_with_what_to_add() -> None:
    (said,) = found(BLACKWELL, ADA, architectures=["89-real"])
    assert "rtx-5080" in said
    assert "89-real" in said
    assert "add 120a-real" in said
    assert found(BLACKWELL, ADA) == []
    assert found(BLACKWELL, architectures=["89-real"], backend="cpu") == []


def test_declared_architectures_without_cards_are_refused() -> None:
    (said,) = found(backend="cuda", architectures="declared")
    assert "declares none" in said


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"source": None}, "llama_image_source"),
        ({"recipe": "prebuilt"}, "llama_image_prebuilt"),
        ({"recipe": "debian-package"}, "llama_image_package"),
        ({"bases": {}}, "llama_image_bases.cpu"),
    ],
)
def test_a_recipe_without_its_record_is_refused(change: dict[str, Any], key: str) -> None:
    (said,) = found(**change)
    assert key in said


def test_an_engine_that_is_not_locked_can_be_planned_and_not_deployed() -> None:
    data = variables(llama_image_recipe="source", llama_image_source=SOURCE | {"commit": None}, llama_image_bases=BASES)
    (problem,) = problems(data)
    assert "playbooks/lock.yml" in problem.remedy
    plan = plan_host(HOST, data, only_plan=True)
    assert len(plan["incomplete"]) == 1
    assert plan["specs"]


def test_an_engine_whose_options_nobody_recorded_is_refused() -> None:
    package = {"suite": "sid", "version": "9.9.9", "packages": ["x"]}
    (problem,) = problems(variables(llama_image_package=package))
    assert "9.9.9" in problem.message
    assert "upgrade.yml" in problem.remedy


def test_a_wrong_value_is_said_under_the_variable_that_people_write() -> None:
    (problem,) = problems(variables(llama_image_backend="rocm"))
    assert problem.key == "llama_image_backend"
    (problem,) = problems(
        variables(llama_image_prebuilt={"image": "registry.example/llama.cpp:latest", "version": "1"})
    )
    assert problem.key == "llama_image_prebuilt.image"


def test_the_host_file_says_which_engine_is_planned() -> None:
    (entry,) = (e for e in plan_host(HOST, variables())["manifest"]["files"] if e["path"].endswith("host.json"))
    engine_of_host = entry["vars"]["host"]["engine"]
    assert engine_of_host["version"] == "0.7.0"
    assert engine_of_host["image"] == plan_host(HOST, variables())["image"]
