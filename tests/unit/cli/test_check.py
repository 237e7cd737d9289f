"""``llamarig plan --check`` and what the playbooks ask before a start, on a host whose engine is played."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import pytest

from llamarig.cli import check
from llamarig.config.spec import DeviceMemory, HostMemory, Memory, Spec
from llamarig.daemon.judging import TooLargeError
from llamarig.daemon.memory import MemoryStore
from llamarig.errors import BusyError, ExitCode, NotFoundError
from llamarig.hardware.gpus import RecordedGpus
from llamarig.runtime.fit_params import Answer, JudgeError
from tests.support import below, make_spec
from tests.unit.cli.conftest import Shell
from tests.unit.daemon.fakes import Host
from tests.unit.daemon.judged import FakeJudge, parts
from tests.unit.hardware.recordings import ADA, BLACKWELL, declare, hardware, recorded
from tests.unit.runtime.test_breakdown import recorded as recorded_log

PLANNED = ((10, 8, 6), (7, 4, 6), (3, 0, 6))
FITS = parts((9, 8, 6), (6, 4, 5), (3, 0, 5))
TOO_LARGE = parts((9, 8, 6), (16000, 4, 5), (3, 0, 5))


def service(name: str = "chat", **changes: Any) -> Spec:
    cards = [
        DeviceMemory("rtx4090", ADA, 24564, 612, 400, *PLANNED[0]),
        DeviceMemory("rtx5070ti", BLACKWELL, 16303, 612, 400, *PLANNED[1]),
    ]
    memory = Memory(cards, HostMemory(60000, 3, 0, 6, 1088), "header", 32, changes.pop("logits", 0), [])
    return make_spec(name, **{"gpus": [ADA, BLACKWELL], "memory": memory, "memory_mib": 60000, **changes})


@dataclass
class Rig:
    """A host with two cards, an engine that answers what it was told to, and what was said meanwhile."""

    host: Host
    judge: FakeJudge
    nvml: dict[str, Any]
    log: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    @property
    def root(self) -> Path:
        return self.host.root

    def check(self, name: str | None = None) -> tuple[dict[str, Any], str, ExitCode]:
        data, lines, code = check.run(self.root, name, self.said.append)
        json.dumps(data)
        return data, click.unstyle("\n".join(lines)), code

    def ask_new(self, *, dry: bool = False) -> dict[str, Any]:
        return check.ask_new(self.root, self.said.append, dry=dry)

    def used(self, number: int, mib: int) -> None:
        self.nvml["cards"][number]["memory_used_mib"] = mib


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    result = Rig(Host(tmp_path, service(), default="chat"), FakeJudge(chat=FITS), recorded())
    declare(tmp_path, hardware())
    for number in (0, 1):
        result.used(number, 10)
    monkeypatch.setattr(check, "DockerJudge", lambda *_: result.judge)
    monkeypatch.setattr(check, "NvmlProcess", lambda: RecordedGpus(result.nvml))
    monkeypatch.setattr(check, "start_log", lambda _: result.log)
    return result


def test_a_plan_that_the_engine_confirms_is_well(rig: Rig) -> None:
    data, text, code = rig.check()
    assert code == ExitCode.OK
    rows = [line.split() for line in text.splitlines()]
    assert rows[1][:6] == ["SERVICE", "DEVICE", "PREDICTED", "ENGINE", "MEASURED", "DIFFERENCE"]
    assert rows[2] == ["chat", "rtx4090", "24", "23", "-", "-1", "23552", "ok"]
    assert rows[4] == ["host", "9", "8", "-", "-1", "58912", "ok"]
    assert rig.said == ["asking the engine about chat (1 of 1)"]
    (told,) = data["services"]
    assert (told["service"], told["asked"], told["why_not"]) == ("chat", True, "")
    assert told["devices"][0]["verdict"] == "ok"
    assert told["record"]["engine"]["answer"] == "estimated"


def test_it_is_remembered_and_what_is_gone_is_forgotten(rig: Rig) -> None:
    MemoryStore(rig.root).keep_measured(make_spec("old"), FITS, 1)
    rig.check()
    names = [path.name for path in below(rig.root, "/var/lib/llamarig/memory").iterdir()]
    assert names == ["chat.json"]


def test_both_figures_are_said_where_the_tool_counts_more_than_a_server_takes(rig: Rig) -> None:
    rig.host.provision(service(logits=4))
    _, text, code = rig.check()
    assert code == ExitCode.OK
    assert "chat: llama-fit-params itself says 15 MiB for rtx5070ti; 11 is that without the logits" in text


def test_what_runs_is_measured_and_to_remember_it_is_the_daemons(rig: Rig) -> None:
    rig.host.switch("chat")
    rig.log = recorded_log("experts_on_cpu")
    rig.host.root.joinpath("proc/41").mkdir(parents=True)
    rig.host.root.joinpath("proc/41/cgroup").write_text("0::/llama-chat.slice/docker-1.scope\n", encoding="ascii")
    rig.nvml["cards"][0]["processes"] = [{"pid": 41, "used_mib": 424}]
    data, text, code = rig.check("chat")
    assert code == ExitCode.OK
    assert "chat     rtx4090    24         23      24        +0" in text
    assert "chat: on rtx4090 the driver counts 424 MiB, 400 of them beside the buffers, and 400 are planned" in text
    assert data["services"][0]["process_mib"] == {ADA: 424}
    assert data["services"][0]["record"]["measured"] is not None
    record = MemoryStore(rig.root).read(service())
    assert (record.measured, record.engine is not None) == (None, True)


def test_a_difference_is_a_warning(rig: Rig) -> None:
    rig.judge.answers["chat"] = parts((900, 8, 6), (6, 4, 5), (3, 0, 5))
    _, text, code = rig.check()
    assert code == ExitCode.WARNINGS
    assert "chat: rtx4090: 914 MiB estimated by the engine, 24 predicted (+890)" in text


def test_what_does_not_fit_is_a_failure(rig: Rig) -> None:
    rig.judge.answers["chat"] = TOO_LARGE
    data, text, code = rig.check()
    assert code == ExitCode.UNHEALTHY
    assert "chat: rtx5070ti: the engine needs 16009 MiB, and the service may take 15291" in text
    assert [line["verdict"] for line in data["services"][0]["devices"]] == ["ok", "does not fit", "ok"]


@pytest.mark.parametrize(
    ("answer", "code", "text"),
    [
        ((Answer.REFUSED, "no such type"), ExitCode.UNHEALTHY, "no estimate (refused): no such type"),
        ((Answer.NO_LAYOUT, "failed to fit"), ExitCode.UNHEALTHY, "finds no layout that fits: failed to fit"),
        ((Answer.ENGINE_BUG, "GGML_ASSERT"), ExitCode.WARNINGS, "no estimate (engine bug): GGML_ASSERT"),
        (JudgeError("no container starts", "look"), ExitCode.WARNINGS, "was not asked: no container starts; look"),
        (parts((27, 12, 17)), ExitCode.UNHEALTHY, "rtx4090: the engine does not see it"),
    ],
)
def test_every_other_answer_is_told(rig: Rig, answer: Any, code: ExitCode, text: str) -> None:
    rig.judge.answers["chat"] = answer
    _, said, found = rig.check()
    assert found == code
    assert text in said


def test_a_missing_file_of_one_service_is_no_fault_of_another(rig: Rig) -> None:
    rig.judge.answers["code"] = FITS
    code = service("code", port=8090)
    rig.host.provision(code)
    below(rig.root, code.files[0].path).unlink()
    data, text, exit_code = rig.check()
    assert exit_code == ExitCode.WARNINGS
    assert rig.judge.asked == ["chat"]
    assert f"code: the engine was not asked: {code.files[0].path} is not there yet" in text
    assert [told["asked"] for told in data["services"]] == [True, False]


def test_one_service_alone_can_be_checked(rig: Rig) -> None:
    rig.host.provision(service("code", port=8090))
    data, _, _ = rig.check("chat")
    assert [told["service"] for told in data["services"]] == ["chat"]
    with pytest.raises(NotFoundError):
        rig.check("cat")


def test_a_host_without_services_says_so(rig: Rig) -> None:
    below(rig.root, "/etc/llamarig/services.d/chat.json").unlink()
    assert rig.check() == ({"services": []}, "this host runs no service", ExitCode.OK)


def test_nothing_is_asked_while_a_switch_is_under_way(rig: Rig) -> None:
    with rig.host.state.lock(), pytest.raises(BusyError):
        rig.check()
    assert rig.judge.asked == []


def test_cards_without_room_are_left_alone_and_what_is_remembered_stands(rig: Rig) -> None:
    rig.host.provision(service("code", port=8090))
    rig.judge.answers["code"] = FITS
    rig.check()
    rig.host.switch("code")
    rig.used(0, 23900)
    _, text, code = rig.check("chat")
    assert code == ExitCode.WARNINGS
    assert "chat: the engine was not asked: NVIDIA GeForce RTX 4090 has" in text
    assert "MiB free beside code, and asking needs 1012; the figures of" in text
    assert rig.judge.asked == ["chat", "code"]


def test_strategy_fit_is_asked_about_only_while_its_cards_are_free(rig: Rig) -> None:
    fitted = service("fitted", port=8090, memory=None, argv=["--model", "/models/a.gguf", "--fit", "on"])
    rig.host.provision(fitted)
    rig.judge.answers["fitted"] = FITS
    assert rig.check("fitted")[2] == ExitCode.OK
    assert rig.judge.asked == ["fitted"]
    rig.host.switch("chat")
    text = rig.check("fitted")[1]
    assert "strategy fit lays it out by what is free, and chat holds its cards" in text
    assert "fitted   rtx4090" in text


def test_cards_that_nobody_can_ask_are_no_reason_to_wait(rig: Rig) -> None:
    rig.nvml.clear()
    rig.nvml["error"] = {"code": 999}
    assert rig.check()[2] == ExitCode.OK


def test_the_playbook_asks_about_what_is_new_and_only_once(rig: Rig) -> None:
    assert rig.ask_new() == {"asked": ["chat"], "would_ask": [], "warnings": []}
    assert rig.ask_new() == {"asked": [], "would_ask": [], "warnings": []}
    assert rig.judge.asked == ["chat"]
    assert rig.said == ["asking the engine about chat"]


def test_whoever_holds_the_host_is_waited_for(rig: Rig) -> None:
    waited: list[float] = []
    with ExitStack() as held:
        held.enter_context(rig.host.state.lock())

        def sleep(seconds: float) -> None:
            waited.append(seconds)
            if len(waited) == 3:
                held.close()

        assert check.ask_new(rig.root, rig.said.append, dry=False, sleep=sleep)["asked"] == ["chat"]
    assert len(waited) == 3


def test_in_check_mode_it_says_what_it_would_ask(rig: Rig) -> None:
    assert rig.ask_new(dry=True) == {"asked": [], "would_ask": ["chat"], "warnings": []}
    assert rig.judge.asked == []
    assert not below(rig.root, "/var/lib/llamarig/memory").exists()


def test_what_has_served_need_not_be_asked_about(rig: Rig) -> None:
    MemoryStore(rig.root).keep_measured(service(), FITS, 1)
    assert rig.ask_new()["asked"] == []


def test_a_service_that_cannot_fit_is_refused_again_without_asking_again(rig: Rig) -> None:
    rig.judge.answers["chat"] = TOO_LARGE
    for _ in range(2):
        with pytest.raises(TooLargeError) as caught:
            rig.ask_new()
        assert "rig01, service 'chat': rtx5070ti: the engine needs 16009 MiB" in caught.value.message
        assert caught.value.remedy
    assert rig.judge.asked == ["chat"]
    assert rig.host.units.changes == []


def test_a_running_service_whose_new_layout_cannot_fit_goes_on_as_it_was(rig: Rig) -> None:
    rig.host.switch("chat")
    before = rig.host.versions()
    rig.host.units.changes.clear()
    rig.host.provision(service(argv=["--model", "/models/chat.gguf", "--ctx-size", "999999"]))
    rig.judge.answers["chat"] = TOO_LARGE
    with pytest.raises(TooLargeError, match="what serves goes on: chat"):
        rig.ask_new()
    assert (rig.host.units.changes, rig.host.versions(), rig.host.serving()) == ([], before, ["chat"])


def test_what_the_engine_cannot_say_is_a_warning_and_no_refusal(rig: Rig) -> None:
    rig.judge.answers["chat"] = (Answer.REFUSED, "no such type")
    assert rig.ask_new()["warnings"] == ["chat: the engine gave no estimate (refused): no such type"]
    assert rig.ask_new()["warnings"] == []


def test_only_root_may_ask_the_engine(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    result = shell("plan", "--check")
    assert result.exit_code == ExitCode.NOT_ALLOWED
    assert "remedy: sudo llamarig" in result.stderr


def test_the_verb_is_a_table_an_envelope_and_an_exit_code(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = FakeJudge(alpha=parts((1, 2, 3)), beta=(Answer.REFUSED, "no such type"), gamma=parts((1, 2, 3)))
    monkeypatch.setattr(check, "DockerJudge", lambda *_: judge)
    result = shell("plan", "--check")
    assert result.exit_code == ExitCode.UNHEALTHY
    assert "asking the engine about alpha (1 of 3)" in result.stderr
    assert "beta: the engine gave no estimate (refused): no such type" in result.stdout
    data = shell.json("plan", "alpha", "--check")["data"]
    assert [told["service"] for told in data["services"]] == ["alpha"]


def test_an_inventory_has_no_engine_to_ask(shell: Shell, tmp_path: Path) -> None:
    result = shell("plan", "--check", "--inventory", str(tmp_path))
    assert result.exit_code == ExitCode.FAILED
    assert "asks the engine on a host" in result.stderr


def test_the_playbooks_last_word_asks_first_and_refuses_before_anything_starts(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = FakeJudge(alpha=parts((1, 2, 3)), beta=parts((4000, 2, 3)), gamma=parts((1, 2, 3)))
    monkeypatch.setattr(check, "DockerJudge", lambda *_: judge)
    result = shell.json("reconcile")
    assert (
        "rig01, service 'beta': host: the engine needs 4005 MiB, and the service may take 1014"
        in (result["error"]["message"])
    )
    assert (shell.host.units.changes, shell.daemon.asked) == ([], [])
    judge.answers["beta"] = parts((1, 2, 3))
    shell.host.provision(make_spec("beta", memory_mib=1100))
    data = shell.json("reconcile")["data"]
    assert data["judge"] == {"asked": ["beta"], "would_ask": [], "warnings": []}
    assert data["active"] == ["alpha"]
    assert shell.json("reconcile", "--check")["data"]["judge"]["would_ask"] == []
