"""Cards: declared, given to services, laid under a model."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from llamarig.config.policy import Policy
from llamarig.planning.host_files import compose_project, compose_text, manifest
from llamarig.planning.intent import plan_host
from tests.support import ENGINE, HOST, after, make_spec, problems, render, variables

ADA = "GPU-8d1c5b4e-1111-2222-3333-444455556666"
BLACKWELL = "GPU-0a2b3c4d-7777-8888-9999-aaaabbbbcccc"
RTX4090 = {
    "name": "rtx4090",
    "uuid": ADA,
    "model": "NVIDIA GeForce RTX 4090",
    "memory_mib": 24564,
    "compute_capability": "8.9",
    "pci_address": "0000:01:00.0",
}
RTX5070TI = {
    "name": "rtx5070ti",
    "uuid": BLACKWELL,
    "model": "NVIDIA GeForce RTX 5070 Ti",
    "memory_mib": 16303,
    "compute_capability": "12.0",
}


def box(*gpus: dict[str, Any], **service: Any) -> dict[str, Any]:
    hardware = {"memory_mib": 4096, "cpu_threads": 4, "reserve_mib": 512, "gpus": list(gpus)}
    return variables(host_hardware=hardware, service={"strategy": "A", **service})


def spec_of(data: dict[str, Any]) -> dict[str, Any]:
    (spec,) = plan_host(HOST, data)["specs"]
    assert isinstance(spec, dict)
    return spec


def test_strategy_a_lays_everything_on_the_one_card_that_the_container_sees() -> None:
    spec = spec_of(box(RTX4090))
    argv = spec["argv"]
    assert (after(argv, "--split-mode"), after(argv, "--gpu-layers"), after(argv, "--fit")) == ("none", "all", "off")
    assert "--device" not in argv
    assert (spec["strategy"], spec["gpus"], spec["reason"]) == ("A", [ADA], "everything on rtx4090")


def test_a_service_on_a_card_takes_the_declared_threads_for_what_the_cpu_does() -> None:
    origins = spec_of(box(RTX4090))["origins"]
    assert origins["threads"] == {"value": 4, "layer": "strategy"}


def test_a_service_names_its_card_where_the_host_has_several() -> None:
    assert spec_of(box(RTX4090, RTX5070TI, gpus=["rtx5070ti"]))["gpus"] == [BLACKWELL]


def test_a_service_on_the_cpu_of_a_host_with_cards_is_given_none() -> None:
    spec = spec_of(box(RTX4090, strategy="cpu"))
    assert (spec["gpus"], after(spec["argv"], "--device")) == ([], "none")


def test_weights_on_a_card_need_not_fit_the_hosts_memory() -> None:
    data = box(RTX4090)
    data["llm_profiles_test"]["small"]["files"][0]["bytes"] = 8 << 30
    assert spec_of(data)["memory_mib"] == 3584
    data["llm_services"][0]["strategy"] = "cpu"
    (problem,) = problems(data)
    assert problem.key == "strategy cpu"
    assert f"{8192 + 1024 + 64} of 3584 MiB" in problem.message


def test_another_card_is_another_spec() -> None:
    hashes = {spec_of(box(RTX4090, RTX5070TI, gpus=[name]))["spec_sha256"] for name in ("rtx4090", "rtx5070ti")}
    assert len(hashes) == 2


@pytest.mark.parametrize(
    ("data", "message", "remedy"),
    [
        (box(RTX4090, RTX5070TI), ("one card", "may use 2"), ("rtx4090, rtx5070ti",)),
        (box(RTX4090, RTX5070TI, gpus=["rtx4090", "rtx5070ti"]), ("may use 2",), ("rtx4090, rtx5070ti",)),
        (box(), ("may use 0",), ("declare", "llamarig detect")),
        (box(RTX4090, gpus=["rtx5090"]), ("no card rtx5090",), ("host_hardware.gpus", "rtx4090")),
        (box(gpus=["rtx5090"]), ("no card rtx5090",), ("host_hardware.gpus", "none")),
        (box(RTX4090, strategy="cpu", gpus=["rtx4090"]), ("uses no card",), ("remove gpus",)),
    ],
)
def test_cards_that_a_strategy_cannot_use_are_refused(
    data: dict[str, Any], message: tuple[str, ...], remedy: tuple[str, ...]
) -> None:
    (problem,) = problems(data)
    strategy = data["llm_services"][0]["strategy"]
    assert (problem.host, problem.service, problem.key) == (HOST, "chat", f"strategy {strategy}")
    assert all(words in problem.message for words in message)
    assert all(words in problem.remedy for words in remedy)


def test_what_else_is_wrong_with_a_service_is_said_with_its_cards() -> None:
    keys = [problem.key for problem in problems(box(bind="192.0.2.1"))]
    assert keys == ["bind", "strategy A"]


@pytest.mark.parametrize(
    ("changes", "key", "words"),
    [
        ({"name": "RTX 4090"}, "host_hardware.gpus.0.name", ("lower-case",)),
        ({"uuid": "0"}, "host_hardware.gpus.0.uuid", ("GPU-", "'0'")),
        ({"uuid": "GPU-8D1C5B4E-1111-2222-3333-444455556666"}, "host_hardware.gpus.0.uuid", ("GPU-8D1C",)),
        ({"compute_capability": 8.9}, "host_hardware.gpus.0.compute_capability", ("8.9",)),
        ({"pci_address": "01:00.0"}, "host_hardware.gpus.0.pci_address", ("01:00.0",)),
        ({"pcie_generation": 8}, "host_hardware.gpus.0.pcie_generation", ("8",)),
        ({"memory_mib": 0}, "host_hardware.gpus.0.memory_mib", ("0",)),
        ({"reserve_mib": -1}, "host_hardware.gpus.0.reserve_mib", ("-1",)),
        ({"power_limit_watts": 0}, "host_hardware.gpus.0.power_limit_watts", ("0",)),
        ({"lock_clocks_mhz": [210]}, "host_hardware.gpus.0.lock_clocks_mhz", ("2",)),
        ({"vram": 24}, "host_hardware.gpus.0.vram", ("no key",)),
    ],
)
def test_a_card_that_is_declared_wrong_is_refused_by_its_place(
    changes: dict[str, Any], key: str, words: tuple[str, ...]
) -> None:
    (problem,) = problems(box(RTX4090 | changes, strategy="cpu"))
    assert (problem.host, problem.key) == (HOST, key)
    assert all(word in problem.message for word in words)
    assert problem.remedy


@pytest.mark.parametrize(("key", "value"), [("name", "rtx4090"), ("uuid", ADA)])
def test_two_cards_cannot_be_one(key: str, value: str) -> None:
    (problem,) = problems(box(RTX4090, RTX5070TI | {key: value}, strategy="cpu"))
    assert problem.key == "host_hardware"
    assert (key in problem.message, value in problem.message) == (True, True)


def test_the_plan_carries_the_cards_with_what_was_not_said_as_null() -> None:
    hardware = plan_host(HOST, box(RTX5070TI))["hardware"]
    said = RTX5070TI | {"reserve_mib": 0}
    (card,) = hardware["gpus"]
    assert {key: value for key, value in card.items() if value is not None} == said
    assert {key for key, value in card.items() if value is None} == {
        "pci_address",
        "pcie_generation",
        "pcie_width",
        "power_limit_watts",
        "lock_clocks_mhz",
    }


def test_a_container_is_given_its_cards_by_their_cdi_names() -> None:
    server = compose_project(make_spec(gpus=[ADA, BLACKWELL]))["services"]["server"]
    (device,) = server["deploy"]["resources"]["reservations"]["devices"]
    assert device == {
        "driver": "cdi",
        "capabilities": ["gpu"],
        "device_ids": [f"nvidia.com/gpu={ADA}", f"nvidia.com/gpu={BLACKWELL}"],
    }
    assert server["environment"]["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert (server["cap_drop"], server["read_only"], "runtime" in server) == (["ALL"], True, False)


def test_a_container_without_cards_is_asked_nothing_of_them() -> None:
    server = compose_project(make_spec())["services"]["server"]
    assert "deploy" not in server
    assert "CUDA_DEVICE_ORDER" not in server["environment"]


def test_the_cards_of_a_compose_file_survive_yaml() -> None:
    spec = make_spec(gpus=[ADA])
    assert yaml.safe_load(compose_text(spec)) == compose_project(spec)


def unit_of(**changes: Any) -> str:
    files = manifest([make_spec(**changes)], {}, Policy(default_service="chat"), ENGINE)["files"]
    (entry,) = (entry for entry in files if entry["template"] == "llama.service.j2")
    return render(entry)


def test_a_unit_waits_for_the_cards_that_it_needs() -> None:
    units = "nvidia-persistenced.service nvidia-cdi-refresh.service"
    unit = unit_of(gpus=[ADA]).splitlines()
    assert f"After={units}" in unit
    assert f"Wants={units}" in unit
    assert "nvidia" not in unit_of()
