"""The way back to the engine of before, on a host whose units and engine are played and whose files are real."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from llamarig.config import paths
from llamarig.config.spec import HostMemory, Memory
from llamarig.daemon import generation, state
from llamarig.daemon.generation import Generation, GenerationStore, OwnFile
from llamarig.daemon.request import Kind, Origin, Outcome
from llamarig.daemon.rollback import Rollback, RollbackError, Way
from llamarig.errors import BusyError, DaemonGoneError, ExitCode, SwitchError
from tests.support import MODEL, below, make_spec
from tests.unit.daemon.fakes import Cut, Fault
from tests.unit.daemon.upgraded import NEW, NEWEST, OLD, Box, interrupted

SMALL = Memory([], HostMemory(1024, 100, 10, 10, 10), "header", 0, 0, [])


pytestmark = pytest.mark.usefixtures("quick_disk")


def test_going_back_serves_with_the_engine_of_before(box: Box) -> None:
    done = box.back()
    assert done.changed
    assert done.message == f"went back from {NEW} to {OLD}: alpha serves"
    assert (box.serving(), box.images_now()) == (["alpha"], {"alpha": OLD})
    assert box.whole() == OLD
    assert box.units.changes == ["stop alpha", "start alpha"]
    assert (box.reloads, box.doubles) == (1, 0)
    before = box.store.before()
    assert before is not None
    assert before.image == NEW
    event = box.state.history()[-1]
    assert (event["kind"], event["outcome"], event["reason"]) == ("rollback", "ok", f"{NEW} -> {OLD}")


def test_going_back_twice_goes_forward_again(box: Box) -> None:
    box.back()
    box.back()
    assert (box.whole(), box.images_now()) == (NEW, {"alpha": NEW})
    box.back()
    assert (box.whole(), box.images_now()) == (OLD, {"alpha": OLD})


def test_going_back_leaves_the_choice_of_the_service(box: Box) -> None:
    box.switch("beta")
    box.back()
    assert (box.serving(), box.images_now()) == (["beta"], {"beta": OLD})


def test_all_that_serve_go_back_together(tmp_path: Path) -> None:
    host = Box(tmp_path)
    host.converge(OLD, memory=SMALL)
    host.switch("beta")
    host.converge(NEW, memory=SMALL)
    assert host.images_now() == {"alpha": NEW, "beta": NEW}
    host.back()
    assert host.images_now() == {"alpha": OLD, "beta": OLD}
    assert host.whole() == OLD


def test_a_host_that_was_stopped_serves_again(box: Box) -> None:
    box.perform(Kind.STOP, origin=Origin.CLI)
    assert box.back().message == f"went back from {NEW} to {OLD}: alpha serves"
    assert (box.serving(), box.images_now()) == (["alpha"], {"alpha": OLD})


def test_an_upgrade_that_did_not_come_to_its_end_goes_back_to_what_served(box: Box) -> None:
    box.plan(NEWEST)
    done = box.back()
    assert done.way.target.image == NEW
    assert (box.whole(), box.images_now()) == (NEW, {"alpha": NEW})
    before = box.store.before()
    assert before is not None
    assert before.image == OLD


def test_a_named_engine_is_gone_back_to_whatever_is_planned(box: Box) -> None:
    assert not box.back(NEW).changed
    box.plan(NEWEST)
    assert box.back(NEW).changed
    assert box.whole() == NEW
    assert box.back(OLD).changed
    assert (box.whole(), box.images_now()) == (OLD, {"alpha": OLD})
    with pytest.raises(RollbackError, match=f"no generation of {NEWEST} is kept here"):
        box.back(NEWEST)


def test_a_named_engine_that_is_planned_already_is_there_though_nothing_was_kept(tmp_path: Path) -> None:
    host = Box(tmp_path)
    host.switch("beta")
    assert host.store.current() is None
    assert not host.back(OLD).changed
    assert (host.serving(), host.whole()) == (["beta"], OLD)


def test_a_service_that_did_not_exist_before_goes_with_its_generation(tmp_path: Path) -> None:
    host = Box(tmp_path)
    host.converge(OLD, "alpha")
    host.converge(NEW, "alpha", "gamma")
    host.switch("gamma")
    told = host.back(dry=True)
    assert told.message == (f"would go back from {NEW} to {OLD}: alpha serves; gamma did not exist then and goes")
    host.units.changes.clear()
    host.back()
    assert (host.serving(), host.units.running()) == (["alpha"], ["alpha"])
    assert host.whole() == OLD
    assert [path for path in host.files() if "gamma" in path and "/etc/" in path] == []
    assert not below(host.root, f"{paths.COMPOSE}/gamma").exists()
    host.back()
    assert (host.whole(), host.store.files().keys() >= {f"{paths.SPECS}/gamma.json"}) == (NEW, True)


def test_check_says_what_would_happen_and_touches_nothing(box: Box) -> None:
    before = box.files()
    told = box.back(dry=True)
    assert told.changed
    assert told.message == f"would go back from {NEW} to {OLD}: alpha serves"
    assert set(told.way.written) >= {f"{paths.SPECS}/alpha.json", f"{paths.COMPOSE}/beta/compose.yaml", paths.HOST_FILE}
    assert (box.files(), box.units.changes) == (before, [])


def test_nothing_before_is_refused_with_what_to_do(tmp_path: Path) -> None:
    host = Box(tmp_path)
    with pytest.raises(RollbackError, match="no generation to go back to") as none:
        host.back()
    assert "site.yml" in none.value.remedy
    host.converge(OLD)
    with pytest.raises(RollbackError, match=f"nothing before {OLD}") as first:
        host.back()
    assert "upgrade.yml" in first.value.remedy


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda box: box.images.discard(OLD), f"no more on this host: {OLD}"),
        (lambda box: below(box.root, "/srv/llamarig/models/alpha.gguf").unlink(), "is not the file"),
        (
            lambda box: below(box.root, "/srv/llamarig/models/alpha.gguf").write_bytes(MODEL + b"more"),
            "is not the file",
        ),
    ],
    ids=["image", "model gone", "model changed"],
)
def test_what_the_engine_of_before_needs_and_is_gone_is_refused(
    box: Box, harm: Callable[[Box], None], said: str
) -> None:
    harm(box)
    before = box.files()
    with pytest.raises(RollbackError, match=said) as refused:
        box.back()
    assert refused.value.remedy
    assert (box.files(), box.units.changes, box.serving()) == (before, [], ["alpha"])


def test_a_key_that_is_gone_is_refused_because_keys_are_no_part_of_a_generation(tmp_path: Path) -> None:
    host = Box(tmp_path)
    key = f"{paths.KEYS}/alpha.key"
    host.write(key, "secret")
    host.converge(OLD, "alpha", api_key_file=key)
    host.converge(NEW, "alpha")
    assert below(host.root, key).exists(), "the version of before names it"
    below(host.root, key).unlink()
    with pytest.raises(RollbackError, match="keys are no part of a generation"):
        host.back()
    assert host.serving() == ["alpha"]


def test_going_back_is_refused_while_another_command_is_at_work(box: Box) -> None:
    with box.state.lock(), pytest.raises(BusyError):
        box.back()


@pytest.mark.parametrize("fault", [Fault.EXITS, Fault.GARBAGE, Fault.REFUSED])
def test_a_way_back_that_fails_leaves_what_served_with_all_its_files(box: Box, fault: Fault) -> None:
    before = box.store.files()
    box.faults[make_spec("alpha", image=OLD).spec_sha256] = fault
    with pytest.raises(SwitchError, match=f"going back to {OLD} failed.*alpha serves again") as failed:
        box.back()
    assert failed.value.serving == "alpha"
    assert failed.value.exit_code == ExitCode.FAILED
    assert box.store.files() == before
    assert (box.serving(), box.images_now(), box.whole()) == (["alpha"], {"alpha": NEW}, NEW)
    assert box.store.pending() is None
    events = [event for event in box.state.history() if event["kind"] == "rollback"]
    assert [event["outcome"] for event in events] == ["failed"]


def test_ctrl_c_puts_back_what_was_there(box: Box) -> None:
    before = box.store.files()
    with interrupted(box), pytest.raises(SwitchError, match="KeyboardInterrupt; alpha serves again") as failed:
        box.back()
    assert failed.value.exit_code == ExitCode.INTERRUPTED
    assert (box.store.files(), box.images_now(), box.whole()) == (before, {"alpha": NEW}, NEW)
    assert box.store.pending() is None


def held_for(box: Box, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let the daemon be at work for so long after the first thing that it is asked for was interrupted."""
    perform = box.perform
    held = ExitStack()

    def tick() -> None:
        if box.clock.seconds >= until:
            held.close()

    def interrupted_later(*_: object, **__: object) -> Outcome:
        monkeypatch.setattr(box, "perform", perform)
        held.enter_context(box.state.lock())
        raise KeyboardInterrupt

    until = box.clock.seconds + seconds
    box.clock.on_sleep = tick
    monkeypatch.setattr(box, "perform", interrupted_later)


def test_after_ctrl_c_a_daemon_that_is_still_at_work_is_waited_for(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    before = box.store.files()
    held_for(box, monkeypatch, 600)
    with pytest.raises(SwitchError, match="KeyboardInterrupt; alpha serves again") as failed:
        box.back()
    assert failed.value.exit_code == ExitCode.INTERRUPTED
    assert (box.store.files(), box.images_now(), box.whole()) == (before, {"alpha": NEW}, NEW)
    assert box.store.pending() is None


def test_where_the_daemon_does_not_let_go_of_the_host_it_is_said_what_puts_the_files_back(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    held_for(box, monkeypatch, 5000)
    with pytest.raises(SwitchError, match="could not be put back: another command is at work") as failed:
        box.back()
    assert failed.value.exit_code == ExitCode.INTERRUPTED
    assert failed.value.remedy.endswith(f"llamarig engine rollback --to {NEW}")
    assert box.store.pending() is not None
    box.clock.seconds += 5000
    box.clock.on_sleep()
    box.clock.on_sleep = box.pass_time
    box.back(NEW)
    assert (box.serving(), box.images_now(), box.whole()) == (["alpha"], {"alpha": NEW}, NEW)
    assert box.store.pending() is None


def test_ctrl_c_typed_again_while_files_come_back_says_what_is_left(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    def typed_again(_: float) -> None:
        raise KeyboardInterrupt

    held_for(box, monkeypatch, 5000)
    monkeypatch.setattr(box.clock, "sleep", typed_again)
    with pytest.raises(SwitchError, match="could not be put back: KeyboardInterrupt") as failed:
        box.back()
    assert failed.value.exit_code == ExitCode.INTERRUPTED
    assert "rollback --to" in failed.value.remedy
    assert box.serving() == ["alpha"]


def test_a_full_disk_on_the_way_back_says_what_is_left(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    box.faults[make_spec("alpha", image=OLD).spec_sha256] = Fault.EXITS
    puts = []

    def full(self: GenerationStore, files: dict[str, OwnFile]) -> list[str]:
        puts.append(files)
        if len(puts) == 2:
            raise OSError(28, "No space left on device")
        return put(self, files)

    put = GenerationStore.put
    monkeypatch.setattr(GenerationStore, "put", full)
    with pytest.raises(SwitchError, match=r"could not be put back: .*No space left") as failed:
        box.back()
    assert failed.value.remedy.endswith(f"--to {NEW}")
    assert (box.serving(), box.images_now()) == (["alpha"], {"alpha": NEW}), "the daemon has brought it back by itself"


def test_where_no_generation_has_the_files_the_playbook_writes_them(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    box.plan(NEWEST)
    held_for(box, monkeypatch, 5000)
    with pytest.raises(SwitchError) as failed:
        box.back()
    assert "playbooks/site.yml" in failed.value.remedy


def test_one_that_serves_and_cannot_be_written_down_says_so(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    held = ExitStack()
    serve = Rollback._serve

    def serves(self: Rollback, way: Way) -> bool:
        changed = serve(self, way)
        held.enter_context(box.state.lock())
        return changed

    monkeypatch.setattr(Rollback, "_serve", serves)
    with pytest.raises(BusyError, match="alpha serves, but it is not written down") as busy:
        box.back()
    assert busy.value.remedy == "run the same again"
    held.close()
    monkeypatch.undo()
    box.back()
    assert (box.whole(), box.images_now()) == (OLD, {"alpha": OLD})


def test_a_daemon_that_goes_leaves_the_files_that_were_there(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object, **__: object) -> Outcome:
        raise DaemonGoneError("llamarigd does not answer", "systemctl status llamarigd")

    before = box.store.files()
    monkeypatch.setattr(box, "perform", gone)
    with pytest.raises(SwitchError, match="could not be brought back either: llamarigd does not answer") as failed:
        box.back()
    assert failed.value.exit_code == ExitCode.DAEMON_GONE
    assert (box.store.files(), box.images_now()) == (before, {"alpha": NEW})
    assert box.store.pending() is None


def test_a_way_back_that_fails_with_another_service_leaves_the_one_that_served(tmp_path: Path) -> None:
    host = Box(tmp_path)
    host.converge(OLD, "alpha")
    host.converge(NEW, "gamma")
    host.faults[make_spec("alpha", image=OLD).spec_sha256] = Fault.EXITS
    before = host.store.files()
    with pytest.raises(SwitchError, match="gamma serves again"):
        host.back()
    assert host.store.files() == before
    assert (host.serving(), host.images_now()) == (["gamma"], {"gamma": NEW})


class Steps:
    """Counts everything that a way back does to the host; the machine goes down before the one with this number."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, box: Box) -> None:
        self.done = 0
        self.cut_before: int | None = None
        box.before_effect = self.step
        for module in (generation, state):
            monkeypatch.setattr(module, "replace_file", self.counted(state.replace_file))
        for name in ("remove", "end"):
            monkeypatch.setattr(GenerationStore, name, self.counted(getattr(GenerationStore, name)))

    def step(self) -> None:
        if self.cut_before is not None and self.done >= self.cut_before:
            raise Cut
        self.done += 1

    def counted(self, work: Callable[..., None]) -> Callable[..., None]:
        def counted(*arguments: object) -> None:
            self.step()
            work(*arguments)

        return counted


def cut_everywhere(tmp_path: Path, make: Callable[[Path], Box], *, reboots: bool) -> Iterator[Box]:
    """Yield a host for each step of its way back, cut off there; the daemon was started anew, perhaps with the host."""
    for number in range(300):
        box = make(tmp_path / f"{number}")
        with pytest.MonkeyPatch.context() as patch:
            steps = Steps(patch, box)
            steps.cut_before = number
            try:
                box.back()
            except Cut:
                box.before_effect = lambda: None
            else:
                assert number > 10
                return
        if reboots:
            box.reboot()
        box.perform(Kind.RECONCILE, origin=Origin.START)
        yield box
    pytest.fail("a way back has no end")


def upgraded(root: Path) -> Box:
    host = Box(root)
    host.converge(OLD)
    host.converge(NEW)
    return host


def grown(root: Path) -> Box:
    """The new generation has a service that the old one had not, and it is the active one."""
    host = Box(root)
    host.converge(OLD, "alpha")
    host.converge(NEW, "alpha", "gamma")
    host.switch("gamma")
    return host


def both(root: Path) -> Box:
    """Two services serve side by side."""
    host = Box(root)
    host.converge(OLD, memory=SMALL)
    host.switch("beta")
    host.converge(NEW, memory=SMALL)
    return host


MAKES = [upgraded, grown, both]


@pytest.mark.parametrize("make", MAKES)
@pytest.mark.parametrize("reboots", [False, True], ids=["killed", "power cut"])
def test_a_way_back_that_is_cut_off_anywhere_and_repeated_ends_where_it_led(
    tmp_path: Path, make: Callable[[Path], Box], reboots: bool
) -> None:
    begun = 0
    for box in cut_everywhere(tmp_path, make, reboots=reboots):
        assert box.serving(), box.effects
        was_pending = box.store.pending() is not None
        begun += was_pending
        box.back()
        # Cut off before it was begun or after it had ended, the next one is another.
        assert was_pending or box.whole() in {OLD, NEW}
        if was_pending:
            assert box.whole() == OLD
        assert set(box.images_now().values()) == {box.whole()}
        assert box.store.pending() is None
        assert box.doubles == 0
    assert begun > 10


@pytest.mark.parametrize("make", MAKES)
def test_a_way_back_that_was_cut_off_is_no_obstacle_for_the_next_converge(
    tmp_path: Path, make: Callable[[Path], Box]
) -> None:
    for box in cut_everywhere(tmp_path, make, reboots=False):
        box.converge(NEW, *(["alpha", "gamma"] if make is grown else []), **({"memory": SMALL} if make is both else {}))
        assert box.whole() == NEW
        assert set(box.images_now().values()) == {NEW}
        assert box.store.pending() is None


def test_a_spec_that_an_older_agent_wrote_and_this_one_does_not_read_is_refused(box: Box) -> None:
    before = box.store.before()
    assert before is not None
    path = f"{paths.SPECS}/alpha.json"
    older = before.files[path].text.replace('"schema_version": 1', '"schema_version": 0')
    files = {**before.files, path: OwnFile(0o644, older)}
    text = json.dumps(Generation(OLD, 1, "alpha", files).to_dict())
    box.write(f"{generation.DIRECTORY}/before.json", text)
    with pytest.raises(RollbackError, match="no spec of alpha that this agent reads: spec schema 0"):
        box.back()
    assert box.serving() == ["alpha"]
