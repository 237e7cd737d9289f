from __future__ import annotations

import pytest

from llamarig.checks.result import Status
from llamarig.runtime.container_probe import ProbeError
from tests.unit.checks.conftest import Break, Examined
from tests.unit.hardware.recordings import ADA, BLACKWELL

REBOOT = "sudo systemctl reboot"
REFRESH = "sudo systemctl restart nvidia-cdi-refresh.service"
LOG = "journalctl --dmesg --grep NVRM"


def without_libraries(rig: Examined) -> None:
    for name in ("usr/bin/nvidia-smi", "usr/lib/x86_64-linux-gnu/libcuda.so.580.95.05"):
        (rig.root / name).unlink()


def json_cdi(rig: Examined) -> None:
    text = '{"containerEdits": {"mounts": [\n{"hostPath": "/usr/lib/gone.so",\n"containerPath": "/x"}]}}'
    rig.write("var/run/cdi/nvidia.yaml", text)


def refuse(message: str, remedy: str) -> Break:
    return lambda rig: setattr(rig.probe, "trouble", ProbeError(message, remedy))


def answer(**changes: object) -> Break:
    return lambda rig: rig.probe.changes.update(changes)


def computes(**codes: int) -> Break:
    names = {"ada": ADA, "blackwell": BLACKWELL}
    return lambda rig: rig.probe.codes.update({names[name]: code for name, code in codes.items()})


CASES: list[tuple[str, Status, Break, str, str]] = [
    (
        "cdi",
        Status.FAIL,
        lambda r: r.facts.update(cdi=None),
        "there is no CDI specification: no container can be given a card",
        f"{REFRESH}; where there is no such unit, run playbooks/site.yml",
    ),
    (
        "cdi",
        Status.FAIL,
        lambda r: r.facts["cdi"].update(devices=["0", ADA]),
        f"/var/run/cdi/nvidia.yaml does not name rtx5070ti ({BLACKWELL})",
        REFRESH,
    ),
    (
        "cdi",
        Status.FAIL,
        lambda r: r.facts["cdi"].update(driver="580.82.07"),
        "/var/run/cdi/nvidia.yaml is of driver 580.82.07, 580.95.05 is loaded",
        REFRESH,
    ),
    (
        "cdi",
        Status.FAIL,
        without_libraries,
        (
            "/var/run/cdi/nvidia.yaml mounts /usr/lib/x86_64-linux-gnu/libcuda.so.580.95.05 and 1 more, not there: no"
            " container starts"
        ),
        REFRESH,
    ),
    (
        "cdi",
        Status.FAIL,
        json_cdi,
        "/var/run/cdi/nvidia.yaml mounts /usr/lib/gone.so, not there: no container starts",
        REFRESH,
    ),
    ("compute", Status.FAIL, refuse("no container starts: why", "do that"), "no container starts: why", "do that"),
    (
        "compute",
        Status.FAIL,
        answer(library=None, code=None),
        "rtx4090, rtx5070ti: the container is given no libcuda.so",
        REFRESH,
    ),
    (
        "compute",
        Status.FAIL,
        answer(library="/usr/lib/libcuda.so.1", code=None, error="wrong ELF class"),
        "rtx4090, rtx5070ti: /usr/lib/libcuda.so.1 cannot be loaded in the container: wrong ELF class",
        REFRESH,
    ),
    (
        "compute",
        Status.FAIL,
        computes(ada=100, blackwell=100),
        "rtx4090, rtx5070ti: CUDA sees no card: the device nodes are not in the container (CUDA 100)",
        REFRESH,
    ),
    (
        "compute",
        Status.FAIL,
        computes(blackwell=101),
        "rtx5070ti: CUDA sees a card that it cannot use (CUDA 101)",
        f"{REFRESH}, then {REBOOT}",
    ),
    (
        "compute",
        Status.FAIL,
        computes(ada=803),
        "rtx4090: the container was given a user space of another version than the loaded module (CUDA 803)",
        f"{REFRESH}; where check driver says that versions differ, {REBOOT}",
    ),
    (
        "compute",
        Status.FAIL,
        computes(ada=804),
        "rtx4090: a cuda-compat library took the driver's place, and these cards take none (CUDA 804)",
        (
            "NVIDIA_CTK_CDI_GENERATE_DISABLED_HOOKS=enable-cuda-compat in"
            f" /etc/nvidia-container-toolkit/nvidia-cdi-refresh.env, then {REFRESH}"
        ),
    ),
    (
        "compute",
        Status.FAIL,
        computes(ada=999),
        (
            "rtx4090: CUDA itself does not know what is wrong, most often the module nvidia_uvm, which nvidia-smi"
            " does not need (CUDA 999)"
        ),
        "stop the service, sudo modprobe -r nvidia_uvm && sudo modprobe nvidia_uvm; where that fails, reboot",
    ),
    ("compute", Status.FAIL, computes(ada=46), "rtx4090: cuInit fails (CUDA 46)", f"{LOG} may say why"),
    (
        "compute",
        Status.FAIL,
        computes(ada=46, blackwell=100),
        (
            "rtx4090: cuInit fails (CUDA 46); rtx5070ti: CUDA sees no card: the device nodes are not in the container"
            " (CUDA 100)"
        ),
        f"{LOG} may say why; {REFRESH}",
    ),
    (
        "compute",
        Status.FAIL,
        answer(cards=3),
        "rtx4090, rtx5070ti: CUDA sees 3 cards, the container was given 1",
        REFRESH,
    ),
]


@pytest.mark.parametrize(("name", "status", "change", "message", "remedy"), CASES)
def test_a_check_says_what_it_finds_and_the_remedy(
    rig: Examined, name: str, status: Status, change: Break, message: str, remedy: str
) -> None:
    change(rig)
    assert rig.says(name) == (status, message, remedy)


def test_all_cards_are_asked_in_one_container_and_alone_only_where_that_fails(rig: Examined) -> None:
    rig.results()
    assert rig.probe.asked == [[ADA, BLACKWELL]]
    computes(ada=999)(rig)
    rig.results()
    assert rig.probe.asked[1:] == [[ADA, BLACKWELL], [ADA], [BLACKWELL]]


def test_cards_that_compute_alone_and_not_together_are_told_so(rig: Examined, monkeypatch: pytest.MonkeyPatch) -> None:
    compute = rig.probe.compute

    def together_not(uuids: list[str]) -> object:
        rig.probe.codes = {ADA: 46} if len(uuids) > 1 else {}
        return compute(uuids)

    monkeypatch.setattr(rig.probe, "compute", together_not)
    remedy = "journalctl --dmesg --grep NVRM may say why"
    assert rig.says("compute") == (Status.FAIL, "rtx4090, rtx5070ti: cuInit fails (CUDA 46)", remedy)


def test_only_root_can_ask_a_container(rig: Examined, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    asked = (Status.WARN, "not asked: only root may start a container", "sudo llamarig doctor")
    assert rig.says("compute") == asked
    assert rig.probe.asked == []


def test_a_specification_that_cannot_be_read_fails_its_check(rig: Examined) -> None:
    (rig.root / "var/run/cdi/nvidia.yaml").unlink()
    found = rig.says("cdi")
    assert found is not None
    assert found[0] is Status.FAIL
    assert "the check itself failed" in found[1]
