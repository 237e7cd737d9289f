from __future__ import annotations

from dataclasses import replace

from llamarig.checks.memory import check_memory_plan
from llamarig.checks.result import CheckResult, Status
from llamarig.config.spec import DeviceMemory, HostMemory, Memory, Spec
from tests.support import make_spec
from tests.unit.checks.conftest import Examined
from tests.unit.daemon.judged import keep, parts, record
from tests.unit.hardware.recordings import ADA, BLACKWELL
from tests.unit.runtime.test_breakdown import recorded

# As experts_on_cpu.jsonl has them, but the first card's, which it has 24 MiB of.
PREDICTED = ((10, 8, 6), (7, 4, 6), (3, 0, 6))
LOG = recorded("experts_on_cpu")
NO_CARD = recorded("no_device")


def service(name: str = "chat", first: tuple[int, int, int] = PREDICTED[0], **changes: object) -> Spec:
    cards = [
        DeviceMemory("rtx4090", ADA, 24564, 612, 400, *first),
        DeviceMemory("rtx5070ti", BLACKWELL, 16303, 612, 400, *PREDICTED[1]),
    ]
    memory = Memory(cards, HostMemory(60000, 3, 0, 6, 1088), "header", 32, 0, [])
    values: dict[str, object] = {"gpus": [ADA, BLACKWELL], "memory": memory, "memory_mib": 60000, **changes}
    return make_spec(name, **values)


def serving(rig: Examined, *specs: Spec) -> Examined:
    """The same host, on which the first of these services serves."""
    rig.host.provision(*specs, default=specs[0].service)
    rig.host.switch(specs[0].service)
    return rig


def says(rig: Examined, log: list[str]) -> CheckResult:
    found = check_memory_plan(rig.box, lambda _: log)
    assert found is not None
    assert found.name == "memory-plan"
    return found


def test_what_runs_as_predicted_is_told_with_its_figures(rig: Examined) -> None:
    found = says(serving(rig, service(), service("code", port=8090)), LOG)
    assert found.status is Status.OK
    assert found.message == (
        "chat rtx4090 24 MiB (24 predicted), rtx5070ti 16 MiB (17 predicted), host 9 MiB (9 predicted); "
        "never measured: code"
    )


def test_a_prediction_that_is_wrong_is_a_warning(rig: Examined) -> None:
    found = says(serving(rig, service(first=(900, 8, 6))), LOG)
    assert (found.status, found.message) == (
        Status.WARN,
        "chat on rtx4090: 24 MiB measured, 914 predicted (-890)",
    )
    assert "llamarig plan --check" in found.remedy


def test_what_runs_now_counts_and_not_what_ran_before(rig: Examined) -> None:
    spec = service()
    serving(rig, spec)
    keep(rig.root, spec, record(spec, measured=parts((9000, 8, 6), (7, 4, 6), (3, 0, 6))))
    assert says(rig, LOG).status is Status.OK
    assert says(rig, []).status is Status.WARN


def test_a_model_that_is_silently_on_the_cpu_fails(rig: Examined) -> None:
    serving(rig, service())
    for number in (0, 1):
        rig.card(number, processes=[])
    found = says(rig, NO_CARD)
    assert found.status is Status.FAIL
    assert "chat on rtx4090: the running engine does not use it: the model is on the CPU" in found.message
    assert "chat on rtx5070ti" in found.message
    assert "see checks gpus and compute" in found.remedy


def test_a_card_that_cannot_be_asked_is_no_excuse(rig: Examined) -> None:
    serving(rig, service())
    rig.recorded = {"error": {"code": 999}}
    assert says(rig, NO_CARD).status is Status.FAIL


def test_where_the_driver_counts_memory_of_it_the_log_alone_is_a_warning(rig: Examined) -> None:
    """NVML of the recorded host says that processes of chat hold memory on both cards."""
    assert says(serving(rig, service()), NO_CARD).status is Status.WARN


def test_the_cards_of_a_service_that_does_not_run_are_a_warning(rig: Examined) -> None:
    code = service("code", port=8090)
    serving(rig, service(), code)
    keep(rig.root, code, record(code, measured=parts((20, 12, 6))))
    found = says(rig, LOG)
    assert found.status is Status.WARN
    assert "code on rtx4090: the running engine does not use it" in found.message


def test_another_spec_than_the_one_that_runs_is_not_measured_by_it(rig: Examined) -> None:
    serving(rig, service())
    rig.host.provision(service(memory_mib=50000))
    assert says(rig, LOG).message == "never measured: chat"


def test_an_estimate_beyond_the_card_is_a_warning(rig: Examined) -> None:
    code = service("code", port=8090)
    serving(rig, service(), code)
    keep(rig.root, code, record(code, parts((24000, 8, 6), (7, 4, 6), (3, 0, 6))))
    found = says(rig, LOG)
    assert found.status is Status.WARN
    assert "code on rtx4090: the engine needs 24014 MiB, and the service may take 23552" in found.message


def test_without_a_prediction_the_engines_word_is_what_counts(rig: Examined) -> None:
    spec = replace(service(), memory=None).hashed()
    serving(rig, spec)
    keep(rig.root, spec, record(spec, parts(*PREDICTED)))
    found = says(rig, LOG)
    assert found.status is Status.OK
    assert "rtx4090 24 MiB (24 estimated)" in found.message


def test_it_is_left_out_of_a_doctor_that_knows_no_figures_or_no_specs(rig: Examined) -> None:
    assert rig.says("memory-plan") is None
    (rig.root / "etc/llamarig/services.d/chat.json").write_text("{", encoding="utf-8")
    assert rig.says("memory-plan") is None


def test_the_doctor_asks_it_after_the_cards(rig: Examined) -> None:
    serving(rig, service())
    names = [result.name for result in rig.results()]
    assert names.index("memory-plan") == names.index("gpu-in-use") + 1
