from __future__ import annotations

import pytest

from llamarig.checks.result import Status
from llamarig.hardware.gpus import RecordedGpus, Setting
from llamarig.hardware.tuning import Tuner
from tests.unit.checks.conftest import Break, Examined
from tests.unit.hardware.recordings import ADA, BLACKWELL, declare, hardware, recorded

LOG = "journalctl --dmesg --grep NVRM"
DECLARE = "correct host_hardware.gpus in host_vars and run playbooks/site.yml"
PERSIST = "sudo llamarig tune; systemctl status nvidia-persistenced"
RESEAT = "reseat the card or its riser; where the slot has no more, declare pcie_width and pcie_generation"


def lose(number: int, **identity: object) -> Break:
    def change(rig: Examined) -> None:
        rig.recorded["cards"].pop(number)
        rig.recorded["faults"].append({"index": number, "code": 15, **identity})

    return change


def take_out(rig: Examined) -> None:
    rig.recorded["cards"].pop(0)
    rig.facts["cards"].pop(0)


def unbind(rig: Examined) -> None:
    rig.recorded["cards"].pop(0)
    rig.facts["cards"][0]["driver"] = None


def fail_whole(code: int) -> Break:
    return lambda rig: setattr(rig, "recorded", {"error": {"code": code}})


def elsewhere(cgroup: str) -> Break:
    return lambda rig: rig.process(42, cgroup)


def declared_narrow(rig: Examined) -> None:
    """A slot with eight lanes, as the inventory says."""
    rig.card(0, link_width=8, link_width_max=8)
    rig.declare({"pcie_width": 8})


CASES: list[tuple[str, Status, Break, str, str]] = [
    (
        "gpus",
        Status.FAIL,
        lambda r: r.card(0, name="NVIDIA GeForce RTX 4090 D"),
        f"rtx4090 ({ADA}) is a NVIDIA GeForce RTX 4090 D, declared is NVIDIA GeForce RTX 4090",
        DECLARE,
    ),
    (
        "gpus",
        Status.FAIL,
        lambda r: r.card(0, memory_mib=24000),
        f"rtx4090 ({ADA}) has 24000 MiB, declared are 24564 MiB",
        DECLARE,
    ),
    (
        "gpus",
        Status.FAIL,
        lambda r: r.card(1, compute_capability="8.9"),
        f"rtx5070ti ({BLACKWELL}) has compute capability 8.9, declared is 12.0",
        DECLARE,
    ),
    (
        "gpus",
        Status.FAIL,
        lose(0),
        f"rtx4090 ({ADA}): the card is lost: it fell off the PCI bus (NVML 15)",
        f"{LOG} shows the Xid; power the host off and on, and if it comes again reseat the card and its cables",
    ),
    (
        "gpus",
        Status.FAIL,
        lose(1, uuid=BLACKWELL),
        f"rtx5070ti ({BLACKWELL}): the card is lost: it fell off the PCI bus (NVML 15)",
        f"{LOG} shows the Xid; power the host off and on, and if it comes again reseat the card and its cables",
    ),
    (
        "gpus",
        Status.FAIL,
        lambda r: r.recorded["faults"].append({"index": 2, "code": 16}),
        "card 2: the card must be reset before it works again (NVML 16)",
        "reboot the host",
    ),
    (
        "gpus",
        Status.FAIL,
        take_out,
        f"rtx4090 ({ADA}): not there",
        "look whether it is seated and powered; if it left the host, remove it from host_vars",
    ),
    (
        "gpus",
        Status.FAIL,
        unbind,
        f"rtx4090 ({ADA}): not there; the driver leaves NVIDIA GeForce RTX 4090 at 0000:01:00.0 alone",
        f"{LOG} says why",
    ),
    (
        "gpus",
        Status.FAIL,
        fail_whole(18),
        "the driver's user space and the loaded kernel module have different versions (NVML 18)",
        "reboot the host; where they differ still, run playbooks/site.yml for it",
    ),
    (
        "tuning",
        Status.FAIL,
        lambda r: r.declare({"power_limit_watts": 350, "lock_clocks_mhz": [210, 2520]}),
        "not as declared; missing: rtx4090: power limit 350 W, was 450 W; rtx4090: clocks locked to 210 to 2520 MHz",
        "sudo llamarig tune",
    ),
    (
        "tuning",
        Status.FAIL,
        lambda r: r.declare({"power_limit_watts": 700}),
        f"host_hardware.gpus[rtx4090].power_limit_watts: 700 W, and {ADA} takes 150 to 600 W",
        "choose a value from 150 to 600 in host_vars, run playbooks/site.yml",
    ),
    (
        "gpu-in-use",
        Status.FAIL,
        lambda r: r.card(1, processes=[]),
        "chat holds no memory of rtx5070ti: the model is silently on the CPU",
        "see check compute, then sudo llamarig switch chat",
    ),
    (
        "gpu-in-use",
        Status.FAIL,
        lambda r: r.card(1, processes=[{"pid": 42, "used_mib": 0}]),
        "chat holds no memory of rtx5070ti: the model is silently on the CPU",
        "see check compute, then sudo llamarig switch chat",
    ),
    (
        "gpu-in-use",
        Status.FAIL,
        elsewhere("0::/llama.slice/llama-chat.slice/llama-chat-2.slice/docker-1.scope"),
        "chat holds no memory of rtx5070ti: the model is silently on the CPU",
        "see check compute, then sudo llamarig switch chat",
    ),
    (
        "gpu-in-use",
        Status.FAIL,
        elsewhere("0::/user.slice/user-1000.slice/session-1.scope"),
        "chat holds no memory of rtx5070ti: the model is silently on the CPU",
        "see check compute, then sudo llamarig switch chat",
    ),
    (
        "gpu-in-use",
        Status.FAIL,
        lambda r: r.host.units.stop("chat"),
        "chat was not looked for: its unit does not run",
        "llamarig logs chat",
    ),
    ("gpu-in-use", Status.FAIL, take_out, f"chat was given {ADA}, not there", "see check gpus"),
    (
        "gpus",
        Status.WARN,
        lambda r: r.declare(gpus=hardware()["gpus"][:1]),
        f"not declared: NVIDIA GeForce RTX 5070 Ti ({BLACKWELL})",
        DECLARE,
    ),
    (
        "gpus",
        Status.WARN,
        lambda r: r.declare(gpus=[]),
        (
            "no GPU is declared, and the host has NVIDIA GeForce RTX 4090 at 0000:01:00.0, NVIDIA GeForce RTX 5070 Ti"
            " at 0000:04:00.0"
        ),
        "llamarig detect on the control node writes what to declare",
    ),
    ("pcie", Status.WARN, lambda r: r.card(0, link_width=4), "rtx4090 runs on 4 of 16 lanes", RESEAT),
    ("pcie", Status.WARN, lambda r: r.card(0, link_width=8, link_width_max=8), "rtx4090 runs on 8 of 16 lanes", RESEAT),
    (
        "pcie",
        Status.WARN,
        lambda r: r.declare({"pcie_generation": 5}),
        "rtx4090 can do PCIe generation 4, declared is 5",
        RESEAT,
    ),
    ("persistence", Status.WARN, lambda r: r.card(1, persistence=False), "off: rtx5070ti", PERSIST),
    ("gpus", Status.OK, lambda r: r.card(0, memory_mib=24400), "2 as declared: rtx4090, rtx5070ti", ""),
    ("gpus", Status.OK, lambda r: r.card(0, compute_capability=None), "2 as declared: rtx4090, rtx5070ti", ""),
    ("pcie", Status.OK, lambda r: r.card(0, link_width=None), "rtx4090 x?, rtx5070ti x16", ""),
    ("persistence", Status.OK, lambda r: r.card(0, persistence=None), "not known to rtx4090", ""),
    (
        "gpu-in-use",
        Status.OK,
        lambda r: r.card(1, processes=None),
        "rtx4090 9000 MiB, rtx5070ti does not say what runs on it",
        "",
    ),
    (
        "gpu-in-use",
        Status.OK,
        lambda r: r.card(1, processes=[{"pid": 42, "used_mib": None}]),
        "rtx4090 9000 MiB, rtx5070ti in use",
        "",
    ),
    ("pcie", Status.OK, declared_narrow, "rtx4090 x8, rtx5070ti x16", ""),
]


@pytest.mark.parametrize(("name", "status", "change", "message", "remedy"), CASES)
def test_a_check_says_what_it_finds_and_the_remedy(
    rig: Examined, name: str, status: Status, change: Break, message: str, remedy: str
) -> None:
    change(rig)
    assert rig.says(name) == (status, message, remedy)


@pytest.mark.parametrize("code", [9, 10, 12, 18, 999])
def test_where_nvml_says_nothing_one_check_tells_and_the_others_are_left_out(rig: Examined, code: int) -> None:
    fail_whole(code)(rig)
    results = {result.name: result.status for result in rig.results()}
    assert results["gpus"] is Status.FAIL
    assert {"pcie", "persistence", "tuning", "cdi", "compute", "gpu-in-use"}.isdisjoint(results)
    assert rig.probe.asked == []


def test_nvml_is_asked_once_for_all_checks(rig: Examined, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def read(gpus: RecordedGpus) -> object:
        asked.append(gpus)
        return original(gpus)

    original = RecordedGpus.read
    monkeypatch.setattr(RecordedGpus, "read", read)
    rig.results()
    assert len(asked) == 1


def test_a_lost_card_leaves_the_checks_of_the_other_alone(rig: Examined) -> None:
    lose(0)(rig)
    found = {result.name: result.message for result in rig.results()}
    assert found["pcie"] == "rtx5070ti x16"
    assert found["compute"] == "a container computes on rtx5070ti"


def test_two_faults_that_name_no_card_are_not_pinned_on_any(rig: Examined) -> None:
    lose(0)(rig)
    rig.recorded["cards"] = []
    rig.recorded["faults"].append({"index": 1, "code": 16})
    found = rig.says("gpus")
    assert found is not None
    assert "card 0: the card is lost" in found[1]
    assert "card 1: the card must be reset" in found[1]
    assert f"rtx4090 ({ADA}), rtx5070ti ({BLACKWELL}): not there" in found[1]


def test_cards_that_llamarig_tuned_are_as_declared(rig: Examined) -> None:
    declared = declare(rig.root, hardware({"power_limit_watts": 350, "lock_clocks_mhz": [210, 2520]}))
    gpus = RecordedGpus(recorded())
    Tuner(declared, gpus, rig.host.state, "boot1 5", "rig01").run()
    assert Setting(ADA, "power_limit_w", 350) in gpus.applied
    rig.card(0, power_limit_w=350.0)
    assert rig.says("tuning") == (Status.OK, "as declared: rtx4090", "")
