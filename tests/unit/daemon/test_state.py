from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llamarig.config import paths
from llamarig.daemon import state as state_module
from llamarig.daemon.state import GivenUp, Serving, State, StateStore, Switching
from llamarig.errors import BusyError
from tests.support import below
from tests.unit.daemon.fakes import Cut

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
    below(tmp_path, paths.DAEMON_STATE).mkdir(parents=True)
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
    assert (store.read(), store.history(), store.tuned()) == (State(), [], {})


CHAT = State((Serving("chat", "a" * 64, 12.5),))
CODE = State((Serving("code", "b" * 64, 13.5), Serving("chat", "a" * 64, 12.5)))


@pytest.mark.parametrize(
    "state",
    [
        State(),
        CHAT,
        replace(CHAT, switching=Switching("code", "b" * 64, ("chat",), 13.0)),
        State(stopped=True, given_up={"chat": GivenUp(14.0, "it crashed 5 times")}),
    ],
)
def test_the_state_outlives_the_process(store: StateStore, tmp_path: Path, state: State) -> None:
    store.write(state)
    assert StateStore(tmp_path).read() == state


@pytest.mark.parametrize("content", ["", "{", '{"active": "ch', "[]", '{"active": "chat", "switching": null}'])
def test_a_torn_state_counts_as_none(store: StateStore, content: str) -> None:
    (store.directory / "state.json").write_text(content, encoding="utf-8")
    assert store.read() == State()


def test_a_write_that_is_cut_off_leaves_the_state_before(store: StateStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write(CHAT)

    def cut(_: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", cut)
    with pytest.raises(OSError, match="no space left"):
        store.write(CODE)
    assert store.read() == CHAT


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
    store.write(CHAT)
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


@pytest.mark.parametrize("line", ["3", "null", '"x"', "[" * 100_000, "\0" * 50])
def test_a_line_that_is_no_event_is_left_out(store: StateStore, line: str) -> None:
    store.record({"number": 1})
    with (store.directory / "history.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(f"{line}\n")
    store.record({"number": 2})
    assert store.history() == [{"number": 1}, {"number": 2}]


def test_the_last_events_can_be_asked_for(store: StateStore) -> None:
    for number in range(5):
        store.record({"number": number})
    assert store.history(2) == [{"number": 3}, {"number": 4}]
    assert store.history(0) == []
    assert len(store.history(9)) == 5


class Disk:
    """Every effect on the disk, of which ``before`` is told; the machine may be gone before any of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.effects: list[str] = []
        self.before: Callable[[], None] = lambda: None
        for owner, name in ((os, "open"), (os, "fsync"), (Path, "replace"), (Path, "unlink")):
            monkeypatch.setattr(owner, name, self._counted(name, getattr(owner, name)))

    def _counted(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            if name != "open" or arguments[1] & (os.O_WRONLY | os.O_RDWR):
                self.effects.append(name)
                self.before()
            return work(*arguments, **options)

        return counted


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Histories are shortened to 1000 bytes when they have more than 1200."""
    monkeypatch.setattr(state_module, "KEPT_BYTES", 1000)
    monkeypatch.setattr(state_module, "_LONGEST_BYTES", 1200)


def numbers(store: StateStore) -> list[int]:
    """The numbers of the events, which follow one another without a gap."""
    found = [event["number"] for event in store.history()]
    assert found == list(range(found[0], found[0] + len(found)))
    return found


def fill(store: StateStore) -> int:
    """Record until the next event makes the history too long; returns the number of that."""
    for number in range(1000):
        if (store.directory / "history.jsonl").exists() and numbers(store)[0] == 0 and size(store) > 1200 - 60:
            return number
        store.record({"number": number, "reason": "x" * 40})
    raise AssertionError


def size(store: StateStore) -> int:
    return (store.directory / "history.jsonl").stat().st_size


@pytest.mark.usefixtures("short")
def test_of_a_long_history_the_last_part_is_kept(store: StateStore) -> None:
    last = fill(store)
    store.record({"number": last, "reason": "x" * 40})
    assert 900 < size(store) <= 1000
    found = numbers(store)
    assert (found[0] > 0, found[-1]) == (True, last)
    for number in range(last + 1, last + 300):
        store.record({"number": number, "reason": "x" * 40})
        assert size(store) <= 1200
        assert numbers(store)[-1] == number
    assert sorted(path.name for path in store.directory.iterdir()) == ["history.jsonl"]


@pytest.mark.usefixtures("short")
def test_who_reads_a_history_while_it_is_shortened_sees_all_or_the_last_part(
    store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = fill(store)
    disk = Disk(monkeypatch)
    seen: list[int] = []
    disk.before = lambda: seen.append(len(numbers(StateStore(store.root))))
    store.record({"number": last, "reason": "x" * 40})
    assert disk.effects == ["open", "fsync", "unlink", "open", "fsync", "replace", "fsync"]
    assert {last, last + 1, seen[-1]} == set(seen)
    assert seen[-1] == len(numbers(store)) < last


@pytest.mark.usefixtures("short")
def test_a_history_that_is_cut_off_while_it_is_shortened_is_the_old_one_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    for cut in itertools.count(1):
        store = StateStore(tmp_path / str(cut))
        store.directory.mkdir(parents=True)
        last = fill(store)
        disk.effects.clear()

        def gone(cut: int = cut) -> None:
            if len(disk.effects) == cut:
                raise Cut

        disk.before = gone
        with contextlib.suppress(Cut):
            store.record({"number": last, "reason": "x" * 40})
        disk.before = lambda: None
        after = StateStore(store.root)
        found = numbers(after)
        assert found[-1] in {last - 1, last}
        assert found[0] == 0 or size(after) <= 1000
        for number in range(found[-1] + 1, last + 5):
            after.record({"number": number, "reason": "x" * 40})
        assert numbers(after)[-1] == last + 4
        assert sorted(path.name for path in after.directory.iterdir()) == ["history.jsonl"]
        if len(disk.effects) < cut:
            break
    assert cut > 7


@pytest.mark.usefixtures("short")
def test_what_root_appends_while_it_is_shortened_is_not_lost(
    store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for before in range(1, 8):
        (store.directory / "history.jsonl").unlink(missing_ok=True)
        last = fill(store)
        with monkeypatch.context() as patch:
            disk = Disk(patch)

            def append(before: int = before, disk: Disk = disk) -> None:
                if len(disk.effects) == before:
                    disk.before = lambda: None
                    StateStore(store.root)._append(b'{"kind": "rollback"}\n')

            disk.before = append
            store.record({"number": last, "reason": "x" * 40})
        assert [event for event in store.history() if event.get("kind") == "rollback"], before


@pytest.mark.usefixtures("short")
def test_one_that_appends_to_a_history_that_is_gone_meanwhile_appends_again(
    store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = fill(store)
    fstat = os.fstat

    def opened(number: int) -> os.stat_result:
        """It is open, and nothing is written yet: the daemon shortens it now."""
        monkeypatch.setattr(os, "fstat", fstat)
        store.record({"number": last, "reason": "x" * 40})
        return fstat(number)

    monkeypatch.setattr(os, "fstat", opened)
    StateStore(store.root)._append(b'{"kind": "rollback"}\n')
    assert size(store) < 1100
    assert store.history()[-1] == {"kind": "rollback"}


@pytest.mark.usefixtures("short")
def test_a_disk_without_room_for_it_keeps_the_whole_history_and_no_half_file(
    store: StateStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    last = fill(store)
    fsync, calls = os.fsync, itertools.count()

    def full(number: int) -> None:
        if next(calls) == 1:
            raise OSError(28, "No space left on device")
        fsync(number)

    monkeypatch.setattr(os, "fsync", full)
    store.record({"number": last, "reason": "x" * 40})
    assert numbers(store) == list(range(last + 1))
    assert "could not be shortened" in caplog.text
    assert sorted(path.name for path in store.directory.iterdir()) == ["history.jsonl"]


@pytest.mark.usefixtures("short")
def test_an_event_that_is_too_long_by_itself_is_kept(store: StateStore) -> None:
    store.record({"number": 0})
    store.record({"number": 1, "log_lines": ["x" * 3000]})
    assert numbers(store) == [0, 1]


def test_the_lock_is_refused_while_another_process_holds_it(store: StateStore, tmp_path: Path) -> None:
    with held_elsewhere(tmp_path), pytest.raises(BusyError, match="another command is at work"), store.lock():
        pytest.fail("two processes hold the lock")


def test_a_refused_lock_says_which_switch_is_under_way(store: StateStore, tmp_path: Path) -> None:
    store.write(replace(CHAT, switching=Switching("code", "b" * 64)))
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


def test_services_are_named_the_last_asked_for_first() -> None:
    assert (CODE.names, CODE.first, State().first) == (("code", "chat"), "code", None)
    assert CODE.serving("chat") == Serving("chat", "a" * 64, 12.5)
    assert CODE.serving("other") is None
