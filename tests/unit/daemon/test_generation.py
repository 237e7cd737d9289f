"""Generations and the way back, on a host whose units and engine are played and whose files are real."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llamarig.config import paths
from llamarig.config.spec import Spec
from llamarig.daemon import generation, state, switching
from llamarig.daemon.generation import MARK, Generation, GenerationStore, OwnFile
from llamarig.daemon.rollback import Back, Rollback, RollbackError
from llamarig.daemon.state import State
from llamarig.errors import BusyError, ExitCode, SwitchError
from llamarig.planning import host_files
from tests.support import MODEL, below, make_spec
from tests.unit.daemon.fakes import FakeUnits, Fault, Host, PowerCut

OLD, NEW, NEWEST = (f"llamarig/llama-cpp:{name}" for name in ("old", "new", "newest"))


class Box(Host):
    """A host that is provisioned as the role does it: units and slices too, and what is no longer planned goes."""

    def __init__(self, root: Path, image: str = OLD) -> None:
        self.images = {OLD, NEW, NEWEST}
        self.reloads = 0
        self.steps: Callable[[], None] = lambda: None
        super().__init__(root)
        self.units: Units = Units(root, self.faults)
        self.engine.units = self.units
        self.plan(image)

    def plan(self, image: str, *names: str, **changes: Any) -> None:
        """Write what a plan with an engine says; alpha and beta where no service is named."""
        specs = [
            make_spec(name, image=image, port=8080 + n, **changes) for n, name in enumerate(names or ("alpha", "beta"))
        ]
        for kept in (*below(self.root, paths.SPECS).glob("*.json"), *self._unit_files()):
            if not any(spec.service in kept.name for spec in specs):
                kept.unlink()
        self.provision(*specs, default=specs[0].service)
        for spec in specs:
            for kind in ("service", "slice"):
                self.write(f"{paths.UNITS}/llama-{spec.service}.{kind}", f"{MARK}\n# for {spec.image}\n")
        host = {"schema_version": 1, "default_service": specs[0].service, "engine": {"image": image}}
        self.write(paths.HOST_FILE, json.dumps(host))

    def write(self, path: str, text: str) -> None:
        below(self.root, path).parent.mkdir(parents=True, exist_ok=True)
        below(self.root, path).write_text(text, encoding="utf-8")

    def converge(self, image: str, *names: str, **changes: Any) -> None:
        """Do what site.yml does with an engine."""
        self.plan(image, *names, **changes)
        self.switcher.reconcile()

    def back(self, to: str | None = None, *, dry: bool = False) -> Back:
        def reload() -> None:
            self.steps()
            self.reloads += 1

        return Rollback(self.store, self.switcher, self.images.__contains__, reload).run(to, dry=dry)

    @property
    def store(self) -> GenerationStore:
        return GenerationStore(self.root)

    def images_now(self) -> dict[str, str]:
        """The engine that each service which serves really runs, by its container."""
        return {name: self.units.composed[name] for name in self.serving()}

    def whole(self) -> str:
        """The engine of every file of the host, which is one; the generation that is current is these files."""
        files = self.store.files()
        (image,) = self.store.images(files)
        current = self.store.current()
        assert current is not None
        assert (current.image, current.files) == (image, files)
        assert all(image in file.text for path, file in files.items() if path.startswith(paths.UNITS))
        assert json.loads(files[paths.HOST_FILE].text)["engine"]["image"] == image
        return image

    def _unit_files(self) -> list[Path]:
        return list(below(self.root, paths.UNITS).glob("llama-*"))


class Units(FakeUnits):
    """Also knows which compose file each container was made of."""

    def __init__(self, root: Path, faults: dict[str, Fault]) -> None:
        super().__init__(root, faults)
        self.composed: dict[str, str] = {}
        self.before_change: Callable[[], None] = lambda: None

    def start(self, service: str) -> None:
        super().start(service)
        said = below(self.root, f"{paths.COMPOSE}/{service}/compose.yaml").read_text(encoding="utf-8")
        made_of = [spec for spec in self._every() if spec.spec_sha256 in said]
        self.composed[service] = made_of[0].image if made_of else ""

    def _change(self, what: str) -> None:
        self.before_change()
        super()._change(what)

    @staticmethod
    def _every() -> Iterator[Spec]:
        for image, port in itertools.product((OLD, NEW, NEWEST), (8080, 8081)):
            for name in ("alpha", "beta", "gamma"):
                yield make_spec(name, image=image, port=port)


@pytest.fixture(autouse=True)
def _nothing_waits_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def box(tmp_path: Path) -> Box:
    """A host that was upgraded from the old to the new engine; alpha serves."""
    host = Box(tmp_path)
    host.converge(OLD)
    host.clock.seconds += 1
    host.converge(NEW)
    host.units.changes.clear()
    host.said.clear()
    return host


def test_the_mark_is_the_one_that_the_role_writes() -> None:
    assert host_files.MARK == MARK


def test_the_first_converge_keeps_everything_of_llamarigs_own_as_a_generation(tmp_path: Path) -> None:
    host = Box(tmp_path)
    host.write(f"{paths.UNITS}/llama-farm.service", "[Unit]\nDescription=somebody else's animals\n")
    host.write(f"{paths.KEYS}/alpha.key", "secret")
    assert host.store.current() is None
    host.converge(OLD)
    found = host.store.current()
    assert found is not None
    assert (found.image, found.active, found.time, found.services) == (OLD, "alpha", 1000, ["alpha", "beta"])
    assert sorted(found.files) == [
        "/etc/llamarig/compose/alpha/compose.yaml",
        "/etc/llamarig/compose/beta/compose.yaml",
        "/etc/llamarig/host.json",
        "/etc/llamarig/services.d/alpha.json",
        "/etc/llamarig/services.d/beta.json",
        "/etc/systemd/system/llama-alpha.service",
        "/etc/systemd/system/llama-alpha.slice",
        "/etc/systemd/system/llama-beta.service",
        "/etc/systemd/system/llama-beta.slice",
    ]
    assert host.store.before() is None
    assert Generation.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_the_same_engine_with_other_options_renews_the_generation_and_nothing_is_before(tmp_path: Path) -> None:
    host = Box(tmp_path)
    host.converge(OLD)
    host.clock.seconds += 5
    host.converge(OLD, memory_mib=2048)
    found = host.store.current()
    assert found is not None
    assert '"memory_mib": 2048' in found.files[f"{paths.SPECS}/alpha.json"].text
    assert found.time > 1000
    assert host.store.before() is None


def test_a_second_converge_that_changes_nothing_writes_nothing(box: Box) -> None:
    before = box.files()
    box.clock.seconds += 100
    box.switcher.reconcile()
    assert box.files() == before


def test_another_engine_makes_the_generation_the_one_before(box: Box) -> None:
    current, before = box.store.current(), box.store.before()
    assert current is not None
    assert before is not None
    assert (current.image, before.image) == (NEW, OLD)
    assert before.files[f"{paths.SPECS}/alpha.json"].text == json.dumps(make_spec("alpha", image=OLD).to_dict())


def test_an_engine_that_does_not_come_to_serve_is_no_generation(box: Box) -> None:
    box.plan(NEWEST)
    box.faults[make_spec("alpha", image=NEWEST).spec_sha256] = Fault.EXITS
    with pytest.raises(SwitchError):
        box.switcher.reconcile()
    current = box.store.current()
    assert current is not None
    assert current.image == NEW


def test_going_back_serves_with_the_engine_of_before(box: Box) -> None:
    done = box.back()
    assert done.changed
    assert done.message == f"went back from {NEW} to {OLD}: alpha serves"
    assert (box.serving(), box.images_now(), box.units.enabled()) == (["alpha"], {"alpha": OLD}, ["alpha"])
    assert box.whole() == OLD
    assert box.units.changes[:2] == ["stop alpha", "start alpha"]
    assert box.reloads == 1
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
    box.switcher.switch("beta")
    box.back()
    assert (box.serving(), box.images_now(), box.units.enabled()) == (["beta"], {"beta": OLD}, ["beta"])


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
    host.switcher.switch("beta")
    assert host.store.current() is None
    assert not host.back(OLD).changed
    assert (host.serving(), host.whole()) == (["beta"], OLD)


def test_a_service_that_did_not_exist_before_goes_with_its_generation(tmp_path: Path) -> None:
    host = Box(tmp_path)
    host.converge(OLD, "alpha")
    host.converge(NEW, "alpha", "gamma")
    host.switcher.switch("gamma")
    told = host.back(dry=True)
    assert told.message == (f"would go back from {NEW} to {OLD}: alpha serves; gamma did not exist then and goes")
    host.units.changes.clear()
    host.back()
    assert (host.serving(), host.units.enabled()) == (["alpha"], ["alpha"])
    assert host.whole() == OLD
    assert [path for path in host.files() if "gamma" in path and "models" not in path and "lib" not in path] == []
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
    assert not below(host.root, key).exists()
    with pytest.raises(RollbackError, match="keys are no part of a generation"):
        host.back()
    assert host.serving() == ["alpha"]


def test_going_back_is_refused_while_another_command_is_at_work(box: Box) -> None:
    with box.state.lock(), pytest.raises(BusyError):
        box.back()


@pytest.mark.parametrize("fault", [Fault.EXITS, Fault.GARBAGE, Fault.REFUSED, Fault.CTRL_C])
def test_a_way_back_that_fails_leaves_what_served_with_all_its_files(box: Box, fault: Fault) -> None:
    before = box.store.files()
    box.faults[make_spec("alpha", image=OLD).spec_sha256] = fault
    with pytest.raises(SwitchError, match=f"going back to {OLD} failed.*alpha serves again") as failed:
        box.back()
    assert failed.value.serving == "alpha"
    assert failed.value.exit_code == (ExitCode.INTERRUPTED if fault is Fault.CTRL_C else ExitCode.FAILED)
    assert box.store.files() == before
    assert (box.serving(), box.images_now(), box.whole()) == (["alpha"], {"alpha": NEW}, NEW)
    assert box.store.pending() is None
    events = [event for event in box.state.history() if event["kind"] == "rollback"]
    assert [event["outcome"] for event in events] == ["failed"]


def test_a_way_back_that_fails_with_another_service_leaves_the_one_that_served(tmp_path: Path) -> None:
    host = Box(tmp_path)
    host.converge(OLD, "alpha")
    host.converge(NEW, "gamma")
    host.faults[make_spec("alpha", image=OLD).spec_sha256] = Fault.EXITS
    before = host.store.files()
    with pytest.raises(SwitchError, match="gamma serves again"):
        host.back()
    assert host.store.files() == before
    assert (host.serving(), host.units.enabled()) == (["gamma"], ["gamma"])


class Steps:
    """Counts everything that a way back does to the host; the machine goes down before the one with this number."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, box: Box) -> None:
        self.done = 0
        self.cut_before: int | None = None
        box.steps = box.units.before_change = self.step
        for module in (generation, state, switching):
            monkeypatch.setattr(module, "replace_file", self.counted(state.replace_file))
        monkeypatch.setattr(GenerationStore, "remove", self.counted(GenerationStore.remove))
        monkeypatch.setattr(GenerationStore, "end", self.counted(GenerationStore.end))

    def step(self) -> None:
        if self.cut_before is not None and self.done >= self.cut_before:
            raise PowerCut
        self.done += 1

    def counted(self, work: Callable[..., None]) -> Callable[..., None]:
        def counted(*arguments: object) -> None:
            self.step()
            work(*arguments)

        return counted


def cut_everywhere(tmp_path: Path, make: Callable[[Path], Box], *, reboots: bool) -> Iterator[Box]:
    """Yield a host for each step of its way back, cut off there, and perhaps started anew."""
    for number in range(200):
        box = make(tmp_path / f"{number}")
        with pytest.MonkeyPatch.context() as patch:
            steps = Steps(patch, box)
            steps.cut_before = number
            try:
                box.back()
            except PowerCut:
                box.steps = box.units.before_change = lambda: None
            else:
                assert number > 10
                return
        if reboots:
            box.units.reboot()
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
    host.switcher.switch("gamma")
    return host


@pytest.mark.parametrize("make", [upgraded, grown])
@pytest.mark.parametrize("reboots", [False, True], ids=["killed", "power cut"])
def test_a_way_back_that_is_cut_off_anywhere_and_repeated_ends_where_it_led(
    tmp_path: Path, make: Callable[[Path], Box], reboots: bool
) -> None:
    begun = 0
    for box in cut_everywhere(tmp_path, make, reboots=reboots):
        was_pending = box.store.pending() is not None
        begun += was_pending
        box.back()
        # Cut off before it was begun or after it had ended, the next one is another.
        assert was_pending or box.whole() in {OLD, NEW}
        if was_pending:
            assert box.whole() == OLD
        assert list(box.images_now().values()) == [box.whole()]
        assert box.units.enabled() == box.serving()
        assert box.store.pending() is None
    assert begun > 10


@pytest.mark.parametrize("make", [upgraded, grown])
def test_after_a_power_cut_anywhere_in_a_way_back_something_serves(tmp_path: Path, make: Callable[[Path], Box]) -> None:
    for box in cut_everywhere(tmp_path, make, reboots=True):
        assert len(box.serving()) == 1, box.units.changes


@pytest.mark.parametrize("make", [upgraded, grown])
def test_a_way_back_that_was_cut_off_is_no_obstacle_for_the_next_converge(
    tmp_path: Path, make: Callable[[Path], Box]
) -> None:
    for box in cut_everywhere(tmp_path, make, reboots=False):
        box.converge(NEW, *(["alpha", "gamma"] if make is grown else []))
        assert box.whole() == NEW
        assert list(box.images_now().values()) == [NEW]
        assert box.store.pending() is None


def test_a_torn_or_foreign_generation_is_as_none(tmp_path: Path) -> None:
    host = Box(tmp_path)
    host.converge(OLD)
    store = host.store
    for text in ("{", "[]", '{"schema_version": 2}', '{"schema_version": 1, "image": "x"}'):
        host.write(f"{generation.DIRECTORY}/current.json", text)
        host.write(f"{generation.DIRECTORY}/rollback.json", text)
        assert store.current() is None
        assert store.pending() is None
    assert host.state.read() == State("alpha")


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
