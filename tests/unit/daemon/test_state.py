from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from llamarig.config import paths
from llamarig.daemon.state import State, StateStore
from llamarig.errors import BusyError
from tests.support import below

_HOLD = """
import sys
from pathlib import Path
from llamarig.daemon.state import StateStore
with StateStore(Path(sys.argv[1])).lock():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def store(tmp_path: Path) -> StateStore:
    below(tmp_path, paths.STATE).mkdir(parents=True)
    return StateStore(tmp_path)


@contextmanager
def held_elsewhere(root: Path) -> Iterator[subprocess.Popen[str]]:
    """Hold the lock from another process until told otherwise."""
    command = [sys.executable, "-c", _HOLD, str(root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_host_that_never_served_has_an_empty_state_and_history(tmp_path: Path) -> None:
    store = StateStore(tmp_path)
    assert (store.read(), store.history(), store.kept("chat")) == (State(), [], {})


@pytest.mark.parametrize("state", [State(), State("chat"), State("chat", "code"), State(None, "code")])
def test_the_state_outlives_the_process(store: StateStore, tmp_path: Path, state: State) -> None:
    store.write(state)
    assert StateStore(tmp_path).read() == state


@pytest.mark.parametrize("content", ["", "{", '{"active": "ch'])
def test_a_torn_state_counts_as_none(store: StateStore, content: str) -> None:
    (store.directory / "state.json").write_text(content, encoding="utf-8")
    assert store.read() == State()


def test_a_write_that_is_cut_off_leaves_the_state_before(store: StateStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write(State("chat"))

    def cut(_: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", cut)
    with pytest.raises(OSError, match="no space left"):
        store.write(State("code"))
    assert store.read() == State("chat")


def test_a_write_is_on_disk_before_it_replaces_what_was_there(
    store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noting_fsync(number: int) -> None:
        steps.append("fsync directory" if Path(f"/proc/self/fd/{number}").resolve().is_dir() else "fsync file")
        fsync(number)

    def noting_replace(self: Path, target: Path) -> Path:
        steps.append("replace")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", noting_fsync)
    monkeypatch.setattr(Path, "replace", noting_replace)
    store.write(State("chat"))
    assert steps == ["fsync file", "replace", "fsync directory"]


def test_history_is_kept_in_order(store: StateStore) -> None:
    for number in range(3):
        store.record({"number": number, "reason": "ä\nb"})
    assert [event["number"] for event in store.history()] == [0, 1, 2]
    assert store.history()[0]["reason"] == "ä\nb"


def test_a_torn_line_of_history_is_left_out(store: StateStore) -> None:
    store.record({"number": 1})
    with (store.directory / "history.jsonl").open("a", encoding="utf-8") as stream:
        stream.write('{"number": 2, "rea')
    assert store.history() == [{"number": 1}]


def test_an_event_after_a_torn_line_is_not_lost_with_it(store: StateStore) -> None:
    (store.directory / "history.jsonl").write_text('{"number": 1, "rea', encoding="utf-8")
    store.record({"number": 2})
    assert store.history() == [{"number": 2}]


def test_the_lock_is_refused_while_another_process_holds_it(store: StateStore, tmp_path: Path) -> None:
    with held_elsewhere(tmp_path), pytest.raises(BusyError, match="another llamarig command is at work"), store.lock():
        pytest.fail("two processes hold the lock")


def test_a_refused_lock_says_which_switch_is_under_way(store: StateStore, tmp_path: Path) -> None:
    store.write(State("chat", "code"))
    with held_elsewhere(tmp_path), pytest.raises(BusyError, match="a switch to 'code' is under way"), store.lock():
        pytest.fail("two processes hold the lock")


def test_the_lock_ends_with_the_process_that_held_it(store: StateStore, tmp_path: Path) -> None:
    with held_elsewhere(tmp_path) as process:
        process.kill()
        process.wait()
        with store.lock():
            pass


def test_the_lock_is_free_again_after_use(store: StateStore) -> None:
    for _ in range(2):
        with store.lock():
            pass


def test_kept_files_are_per_service_and_the_last_ones_win(store: StateStore, tmp_path: Path) -> None:
    store.keep("chat", {"spec.json": b"{}", "compose.yaml": "größe".encode()})
    store.keep("code", {"spec.json": b"[]"})
    store.keep("chat", {"spec.json": b"{1}", "compose.yaml": "länge".encode()})
    assert StateStore(tmp_path).kept("chat") == {"spec.json": b"{1}", "compose.yaml": "länge".encode()}
    assert StateStore(tmp_path).kept("code") == {"spec.json": b"[]"}
