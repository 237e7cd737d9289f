"""The played libnvidia-ml.so.1, read with the binding that llamarig uses."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from llamarig.lab.silicon import drivers
from llamarig.lab.silicon.binaries import Driver
from llamarig.lab.silicon.cards import card_uuid
from tests.unit.lab.conftest import Box

MIB = 1 << 20
FIRST, SECOND = card_uuid("box", 0), card_uuid("box", 1)
FIRST_LIMIT = "code(nvmlDeviceSetPowerManagementLimit, card(0), {}), nvmlDeviceGetPowerManagementLimit(card(0))"


def test_two_cards_say_who_they_are(box: Box) -> None:
    assert box.ask(
        "str([[nvmlDeviceGetUUID(c), nvmlDeviceGetName(c), nvmlDeviceGetCudaComputeCapability(c),"
        " nvmlDeviceGetMinorNumber(c), nvmlDeviceGetPciInfo(c).busId, nvmlDeviceGetPciInfo(c).busIdLegacy,"
        " nvmlDeviceGetPciInfo(c).pciDeviceId,"
        " nvmlDeviceGetMaxPcieLinkGeneration(c), nvmlDeviceGetCurrPcieLinkWidth(c)] for c in map(card, range(2))])"
    ) == str(
        [
            [FIRST, "NVIDIA GeForce RTX 4090", (8, 9), 0, "00000000:01:00.0", "0000:01:00.0", 0x268410DE, 4, 16],
            [SECOND, "NVIDIA GeForce RTX 5070 Ti", (12, 0), 1, "00000000:02:00.0", "0000:02:00.0", 0x2C0510DE, 5, 16],
        ]
    )


def test_a_card_is_found_by_each_of_its_names(box: Box) -> None:
    assert box.ask(
        f"[nvmlDeviceGetIndex(nvmlDeviceGetHandleByUUID('{SECOND}')),"
        " nvmlDeviceGetIndex(nvmlDeviceGetHandleByPciBusId('0000:02:00.0')),"
        " nvmlDeviceGetIndex(nvmlDeviceGetHandleByPciBusId('00000000:02:00.0')),"
        " code(nvmlDeviceGetHandleByUUID, 'GPU-0'), code(nvmlDeviceGetHandleByIndex, 2)]"
    ) == [1, 1, 1, "error 6", "error 2"]


def test_there_are_eight_cards_at_most(box: Box) -> None:
    box.plug(*["rtx-4060-ti"] * 9)
    box.load(drivers.NEW.version, 9)
    assert box.ask("[nvmlDeviceGetCount(), nvmlDeviceGetUUID(card(7))]") == [8, card_uuid("box", 7)]


def test_only_cards_whose_node_opens_are_seen(box: Box) -> None:
    (box.root / "dev/nvidia0").unlink()
    assert box.ask("[nvmlDeviceGetCount(), nvmlDeviceGetUUID(card(0)), nvmlDeviceGetMinorNumber(card(0))]") == [
        1,
        SECOND,
        1,
    ]


def test_without_the_module_there_is_no_driver(box: Box) -> None:
    (box.root / "sys/module/nvidia/version").unlink()
    assert box.ask("1") == "NVMLError_DriverNotLoaded"


def test_the_played_kernel_goes_before_the_machines_own(box: Box) -> None:
    (box.root / "run/lab-silicon/sys/module").mkdir(parents=True)
    assert box.ask("1") == "NVMLError_DriverNotLoaded"
    box.write("run/lab-silicon/sys/module/nvidia/version", f"{drivers.NEW.version}\n")
    (box.root / "sys/module/nvidia/version").unlink()
    assert box.ask("nvmlSystemGetDriverVersion()") == drivers.NEW.version


def test_a_module_of_another_version_is_a_mismatch(box: Box) -> None:
    box.load(drivers.OLD.version, 2)
    assert box.ask("1") == "NVMLError_LibRmVersionMismatch"


@pytest.mark.parametrize("driver", [drivers.OLD, drivers.OTHER_BRANCH])
def test_other_versions_of_the_library_fit_their_module(box: Box, driver: Driver) -> None:
    box.install(driver)
    assert box.ask("1") == "NVMLError_LibRmVersionMismatch"
    box.load(driver.version, 2)
    versions = "[nvmlSystemGetDriverVersion(), nvmlSystemGetCudaDriverVersion(), nvmlDeviceGetCount()]"
    assert box.ask(versions) == [driver.version, driver.cuda, 2]


def test_a_control_node_that_is_not_there_is_no_driver(box: Box) -> None:
    (box.root / "dev/nvidiactl").unlink()
    assert box.ask("1") == "NVMLError_DriverNotLoaded"


def test_a_control_node_that_does_not_open_is_an_unknown_error(box: Box) -> None:
    (box.root / "dev/nvidiactl").unlink()
    (box.root / "dev/nvidiactl").mkdir()
    assert box.ask("1") == "NVMLError_Unknown"


def test_a_lost_card_is_lost_and_the_other_goes_on(box: Box) -> None:
    box.fault(f"lost={FIRST}")
    assert box.ask("[nvmlDeviceGetCount(), code(card, 0), nvmlDeviceGetUUID(card(1))]") == [2, "error 15", SECOND]


def test_a_handle_from_before_is_lost_too(box: Box) -> None:
    faults = box.root / "var/lib/lab-silicon/faults"
    lose = f"open({str(faults)!r}, 'w').write('lost={FIRST}')"
    assert box.ask(f"(lambda c: [nvmlDeviceGetUUID(c), {lose} and code(nvmlDeviceGetUUID, c)])(card(0))") == [
        FIRST,
        "error 15",
    ]


def test_a_function_fails_as_it_is_told_and_its_neighbours_do_not(box: Box) -> None:
    box.fault("na=nvmlDeviceGetPowerUsage", "fail=nvmlDeviceGetTemperature:999", "fail=nvmlDeviceGetName:16")
    assert box.ask(
        "[code(nvmlDeviceGetPowerUsage, card(0)), code(nvmlDeviceGetTemperature, card(0), 0),"
        " code(nvmlDeviceGetName, card(1)), code(nvmlDeviceGetEnforcedPowerLimit, card(0))]"
    ) == ["error 3", "error 999", "error 16", 450_000]


def test_the_start_itself_fails_as_it_is_told(box: Box) -> None:
    box.fault("fail=nvmlInitWithFlags:999")
    assert box.ask("1") == "NVMLError_Unknown"


def test_a_hanging_driver_hangs(box: Box) -> None:
    box.fault("hang=0.4")
    start = time.monotonic()
    assert box.ask("nvmlDeviceGetCount()") == 2
    assert time.monotonic() - start > 0.8


def test_an_xid_is_heard_once_by_who_listened_before(box: Box) -> None:
    box.fault(f"xid=31@{FIRST}")
    faults = box.root / "var/lib/lab-silicon/faults"
    append = f"open({str(faults)!r}, 'a').write('xid=48@{FIRST}\\nxid=79@{SECOND}\\n')"
    hear = "(lambda e: [e.eventData, e.eventType, nvmlDeviceGetUUID(e.device)])(nvmlEventSetWait_v2(s, 2000))"
    nothing = "code(nvmlEventSetWait_v2, s, 20)"
    assert box.ask(
        "(lambda s: [nvmlDeviceRegisterEvents(card(1), nvmlEventTypeXidCriticalError, s),"
        f" {nothing}, {append} and {hear}, {nothing}])(nvmlEventSetCreate())"
    ) == [None, "error 10", [79, 8, SECOND], "error 10"]


@pytest.mark.parametrize(("milliwatts", "outcome"), [(350_000, [None, 350_000]), (150_000, [None, 150_000])])
def test_a_power_limit_is_kept(box: Box, milliwatts: int, outcome: list[int | None]) -> None:
    assert box.ask(f"[{FIRST_LIMIT.format(milliwatts)}]") == outcome
    assert box.ask("[nvmlDeviceGetPowerManagementLimit(card(0)), nvmlDeviceGetEnforcedPowerLimit(card(1))]") == [
        milliwatts,
        300_000,
    ]


@pytest.mark.parametrize("milliwatts", [149_999, 600_001, 0])
def test_a_power_limit_outside_the_cards_is_refused(box: Box, milliwatts: int) -> None:
    assert box.ask(f"[{FIRST_LIMIT.format(milliwatts)}]") == ["error 2", 450_000]
    assert box.ask("nvmlDeviceGetPowerManagementLimitConstraints(card(0))") == [150_000, 600_000]
    assert box.ask("nvmlDeviceGetPowerManagementDefaultLimit(card(0))") == 450_000


def test_who_may_not_write_the_state_may_not_set_anything(box: Box) -> None:
    box.write("run/lab-silicon/state", "a file where the directory would be")
    assert box.ask(
        f"[{FIRST_LIMIT.format(350_000)}, code(nvmlDeviceSetPersistenceMode, card(0), 1),"
        " code(nvmlDeviceSetGpuLockedClocks, card(0), 210, 2520)]"
    ) == ["error 4", 450_000, "error 4", "error 4"]


def test_persistence_is_off_until_it_is_set(box: Box) -> None:
    assert box.ask(
        "[nvmlDeviceGetPersistenceMode(card(0)), nvmlDeviceSetPersistenceMode(card(0), 1),"
        " nvmlDeviceGetPersistenceMode(card(0)), nvmlDeviceGetPersistenceMode(card(1)),"
        " nvmlDeviceSetPersistenceMode(card(0), 0), nvmlDeviceGetPersistenceMode(card(0))]"
    ) == [0, None, 1, 0, None, 0]


def test_locked_clocks_hold_until_they_are_reset(box: Box) -> None:
    box.start(7, "llama-server", 1024, 0)
    clock = "nvmlDeviceGetClockInfo(card(0), NVML_CLOCK_GRAPHICS)"
    lock = "code(nvmlDeviceSetGpuLockedClocks, card(0), {}, {})"
    assert box.ask(
        f"[{clock}, {lock.format(210, 2520)}, {clock}, {lock.format(2520, 210)}, {lock.format(210, 9000)},"
        f" nvmlDeviceResetGpuLockedClocks(card(0)), {clock}, nvmlDeviceResetGpuLockedClocks(card(0))]"
    ) == [3105, None, 2520, "error 2", "error 2", None, 3105, None]


def test_a_servers_memory_is_on_the_cards_its_container_has(box: Box) -> None:
    box.start(7, "llama-server", 3 * 1024, 1)
    box.start(8, "llama-server", 5 * 1024, 0, 1)
    processes = "sorted([p.pid, p.usedGpuMemory] for p in nvmlDeviceGetComputeRunningProcesses(card({})))"
    assert box.ask(f"[{processes.format(0)}, {processes.format(1)}, nvmlSystemGetProcessName(7)]") == [
        [[8, 5 * MIB]],
        [[7, 3 * MIB], [8, 5 * MIB]],
        "llama-server",
    ]
    new = "(lambda m: [m.total, m.reserved, m.used, m.free])(nvmlDeviceGetMemoryInfo(card(1), version=nvmlMemory_v2))"
    old = "(lambda m: [m.total, m.used, m.free])(nvmlDeviceGetMemoryInfo(card(1)))"
    total = 16303 * MIB
    assert box.ask(f"[{new}, {old}]") == [
        [total, 400 * MIB, 8 * MIB, total - 408 * MIB],
        [total, 408 * MIB, total - 408 * MIB],
    ]


@pytest.mark.parametrize(
    ("comm", "namespace", "fault"),
    [("llama-bench", "container", ""), ("llama-server", "host", ""), ("llama-server", "container", "cpu_fallback")],
)
def test_others_are_not_on_the_card(box: Box, comm: str, namespace: str, fault: str) -> None:
    box.start(7, comm, 1024, 0, namespace=namespace)
    box.fault(fault)
    assert box.ask("[nvmlDeviceGetComputeRunningProcesses(card(0)), nvmlDeviceGetUtilizationRates(card(0)).gpu]") == [
        [],
        0,
    ]


@contextmanager
def kernel(box: Box, *answers: str) -> Iterator[list[int]]:
    """A played kernel that gives these answers, one to each who asks; yields how many asked."""
    place = box.root / "run/lab-silicon/processes.sock"
    place.parent.mkdir(parents=True, exist_ok=True)
    asked: list[int] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))
        listener.listen()

        def answer() -> None:
            for text in answers:
                client, _ = listener.accept()
                asked.append(1)
                with client:
                    client.sendall(text.encode("ascii"))

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield asked


def test_the_kernel_tells_everybody_who_is_on_a_card(box: Box) -> None:
    box.start(9, "llama-server", 1024, 0)
    with kernel(box, "7 1 3072\n8 0 5120\n8 1 5120\nend\n") as asked:
        processes = "[[p.pid, p.usedGpuMemory] for p in nvmlDeviceGetComputeRunningProcesses(card({}))]"
        assert box.ask(
            f"[{processes.format(0)}, {processes.format(1)}, nvmlDeviceGetUtilizationRates(card(0)).gpu]"
        ) == [
            [[8, 5 * MIB]],
            [[7, 3 * MIB], [8, 5 * MIB]],
            34,
        ]
    assert asked == [1]


@pytest.mark.parametrize("answer", ["", "8 1 51"])
def test_a_kernel_that_does_not_answer_to_the_end_has_said_nothing(box: Box, answer: str) -> None:
    box.start(9, "llama-server", 1024, 0)
    with kernel(box, answer):
        assert box.ask("[p.pid for p in nvmlDeviceGetComputeRunningProcesses(card(0))]") == [9]


def test_what_a_geforce_does_not_answer_is_not_supported(box: Box) -> None:
    assert box.ask(
        "[code(nvmlDeviceGetEccMode, card(0)), code(nvmlDeviceGetSerial, card(0)),"
        " [value.nvmlReturn for value in"
        "  nvmlDeviceGetFieldValues(card(0), [NVML_FI_DEV_MEMORY_TEMP, NVML_FI_DEV_POWER_INSTANT])]]"
    ) == ["error 3", "error 3", [3, 0]]


def test_calls_before_the_start_are_refused(box: Box) -> None:
    assert box.ask("[nvmlShutdown(), code(nvmlDeviceGetCount)]") == [None, "error 1"]


def test_cuda_sees_the_nodes_of_its_container(box: Box) -> None:
    assert box.cuda() == (0, 2, 13000)
    (box.root / "dev/nvidia0").unlink()
    assert box.cuda() == (0, 1, 13000)
    (box.root / "dev/nvidia1").unlink()
    assert box.cuda() == (100, -1, 13000)
    (box.root / "dev/nvidiactl").unlink()
    assert box.cuda() == (999, -1, 13000)


def test_cuda_fails_as_it_is_told_and_on_a_mismatch(box: Box) -> None:
    box.load(drivers.OLD.version, 2)
    assert box.cuda() == (803, -1, 13000)
    box.install(drivers.OTHER_BRANCH)
    box.fault("cuinit=804")
    assert box.cuda() == (804, -1, 12080)
