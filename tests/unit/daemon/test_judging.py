from __future__ import annotations

import os
from pathlib import Path

import pytest

from llamarig.config.spec import Spec, SpecFile
from llamarig.daemon.judging import Judging, too_large
from llamarig.daemon.memory import MemoryStore
from llamarig.runtime.fit_params import Answer, JudgeError
from llamarig.runtime.specs import SpecStore
from tests.support import below, make_spec, provision
from tests.unit.daemon.judged import PLANNED, FakeJudge, parts, planned, record

FITS = parts(*PLANNED)
TOO_LARGE = parts(PLANNED[0], (15000, 800, 100), PLANNED[2])
CHAT = planned()


def judging(root: Path, judge: FakeJudge, *specs: Spec, busy: str = "") -> Judging:
    provision(root, *specs)
    return Judging(SpecStore(root), MemoryStore(root), judge, lambda _: busy, lambda: 10.0)


def test_what_the_engine_says_is_remembered_and_asked_once(tmp_path: Path) -> None:
    judge = FakeJudge(chat=FITS)
    asking = judging(tmp_path, judge, CHAT)
    first, second = asking.ask(CHAT), asking.ask(CHAT)
    assert (first.asked, second.asked) == (True, False)
    assert first.record == second.record == record(CHAT, FITS)
    assert judge.asked == ["chat"]
    assert asking.is_known(CHAT)


def test_asked_anew_it_is_asked_again(tmp_path: Path) -> None:
    judge = FakeJudge(chat=FITS)
    asking = judging(tmp_path, judge, CHAT)
    asking.ask(CHAT)
    judge.answers["chat"] = TOO_LARGE
    assert asking.ask(CHAT, anew=True).shortfalls
    assert judge.asked == ["chat", "chat"]


@pytest.mark.parametrize("changed", [planned(argv=["--ctx-size", "1"]), planned(image="llamarig/llama-cpp:newer")])
def test_a_changed_spec_or_engine_is_asked_about_again(tmp_path: Path, changed: Spec) -> None:
    judge = FakeJudge(chat=FITS)
    asking = judging(tmp_path, judge, CHAT)
    asking.ask(CHAT)
    assert not asking.is_known(changed)
    assert asking.ask(changed).asked


def test_a_refusal_of_the_engine_is_remembered_too(tmp_path: Path) -> None:
    judge = FakeJudge(chat=(Answer.REFUSED, "Unsupported cache type: bogus"))
    asking = judging(tmp_path, judge, CHAT)
    outcome = asking.ask(CHAT)
    assert outcome.warning == "chat: the engine gave no estimate (refused): Unsupported cache type: bogus"
    assert outcome.shortfalls == []
    assert asking.ask(CHAT).asked is False


def test_trouble_with_docker_is_told_and_not_remembered(tmp_path: Path) -> None:
    judge = FakeJudge(chat=JudgeError("chat: no container starts: no reason", "sudo docker info"))
    asking = judging(tmp_path, judge, CHAT)
    outcome = asking.ask(CHAT)
    assert outcome.why_not == "chat: no container starts: no reason; sudo docker info"
    assert outcome.warning == f"chat: the engine was not asked: {outcome.why_not}"
    assert not asking.is_known(CHAT)


def test_an_answer_without_the_cards_is_told_and_not_the_last(tmp_path: Path) -> None:
    judge = FakeJudge(chat=parts((90000, 1800, 364)))
    asking = judging(tmp_path, judge, CHAT)
    outcome = asking.ask(CHAT)
    assert outcome.warning == "chat: the engine sees 0 of the service's 2 cards"
    assert outcome.shortfalls == []
    assert not asking.is_known(CHAT)


@pytest.mark.parametrize(
    ("content", "why_not"),
    [(None, "is not there yet"), (b"GG", "has 2 of 15 bytes")],
    ids=["absent", "incomplete"],
)
def test_a_model_file_that_is_not_there_is_said_and_the_engine_not_asked(
    tmp_path: Path, content: bytes | None, why_not: str
) -> None:
    judge = FakeJudge(chat=FITS)
    asking = judging(tmp_path, judge, CHAT)
    path = below(tmp_path, CHAT.files[0].path)
    path.unlink() if content is None else path.write_bytes(content)
    outcome = asking.ask(CHAT)
    assert outcome.why_not == f"{CHAT.files[0].path} {why_not}"
    assert judge.asked == []


def test_a_sparse_model_file_is_judged_and_said(tmp_path: Path) -> None:
    spec = planned(files=[SpecFile("/srv/llamarig/models/hole.gguf", 64 << 20, "a")])
    judge = FakeJudge(chat=FITS)
    asking = judging(tmp_path, judge, spec)
    os.truncate(below(tmp_path, "/srv/llamarig/models/hole.gguf"), 64 << 20)
    outcome = asking.ask(spec)
    assert outcome.asked
    assert outcome.note == "/srv/llamarig/models/hole.gguf is sparse: 0 of 64 MiB are on disk"
    assert outcome.warning == ""


def test_cards_that_are_held_are_left_alone(tmp_path: Path) -> None:
    judge = FakeJudge(chat=FITS)
    outcome = judging(tmp_path, judge, CHAT, busy="rtx4090 has 100 MiB free").ask(CHAT)
    assert outcome.why_not == "rtx4090 has 100 MiB free"
    assert judge.asked == []


def test_what_cannot_fit_is_said_with_host_service_device_numbers_and_remedy(tmp_path: Path) -> None:
    outcome = judging(tmp_path, FakeJudge(chat=TOO_LARGE), CHAT).ask(CHAT)
    error = too_large([(CHAT, outcome.shortfalls)])
    assert "rig01, service 'chat': rtx5070ti: the engine needs 15900 MiB, and the service may take 15291" in str(error)
    assert "ctx_size" in error.remedy


def test_what_fits_is_not_refused(tmp_path: Path) -> None:
    small = make_spec("small")
    asking = judging(tmp_path, FakeJudge(small=parts((10, 10, 10))), small)
    assert (asking.ask(small).warning, asking.ask(small).shortfalls) == ("", [])
