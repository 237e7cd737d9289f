from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from llamarig import __version__
from llamarig.config import metrics as declared
from llamarig.config import paths
from llamarig.config.spec import Spec
from llamarig.daemon.memory import MemoryStore
from llamarig.daemon.metrics import HEALTHS, Metrics
from llamarig.daemon.request import Kind, Request
from llamarig.daemon.state import GivenUp
from llamarig.daemon.supervisor import View
from llamarig.daemon.tally import Tally
from llamarig.runtime.engine import SLEEPS, EngineError
from llamarig.runtime.specs import SpecStore
from tests.support import below, make_spec
from tests.unit.daemon.acting import SECONDS
from tests.unit.daemon.judged import UUIDS, keep, parts, planned, record
from tests.unit.daemon.test_board import Played

Samples = dict[tuple[str, ...], float]
CHAT = planned("chat", bind="127.0.0.1")
EYES = make_spec("eyes", port=8090, image="llamarig/llama-cpp:other")
COMMIT = "c" * 40
ENGINE = "# TYPE llamacpp:requests_processing gauge\nllamacpp:requests_processing 1\n"


@dataclass
class Scraped:
    """A host, and what a scrape of it gives."""

    root: Path
    asked: list[str] = field(default_factory=list)
    engines: dict[str, str] = field(default_factory=dict)
    requests: dict[tuple[str, str], int] = field(default_factory=dict)
    time: float = 0.0
    hold: threading.Event | None = None

    def __post_init__(self) -> None:
        self.played = Played(self.root)
        self.tally = Tally()
        self.metrics = Metrics(
            board=self.played.board,
            views=self.played,
            specs=SpecStore(self.root),
            memory=MemoryStore(self.root),
            tally=self.tally,
            ask=self.ask,
            requests=lambda: self.requests,
            patience=2,
            now=lambda: 1234.5,
            clock=lambda: self.time,
        )

    def ask(self, spec: Spec) -> str:
        self.asked.append(spec.service)
        if self.hold is not None:
            assert self.hold.wait(SECONDS)
        if spec.service not in self.engines:
            raise EngineError("it does not say")
        return self.engines[spec.service]

    def text(self) -> str:
        """Scrape; what was kept of the scrape before is too old."""
        self.time += 10
        return self.metrics.text()

    def samples(self) -> dict[str, Samples]:
        """Return samples by metric, each by the values of its labels in their declared order."""
        found: dict[str, Samples] = {}
        for family in text_string_to_metric_families(self.text()):
            for sample in family.samples:
                metric = declared.BY_NAME.get(sample.name)
                names = metric.labels if metric else tuple(sample.labels)
                assert set(names) == set(sample.labels), sample
                found.setdefault(sample.name.removeprefix("llamarig_"), {})[
                    tuple(sample.labels[name] for name in names)
                ] = sample.value
        return found


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Scraped]:
    found = Scraped(tmp_path)
    found.played.plan(CHAT, EYES, services={"eyes": {"pinned": True}})
    place = below(tmp_path, paths.HOST_FILE)
    data = json.loads(place.read_text(encoding="utf-8"))
    place.write_text(json.dumps({**data, "engine": {"image": CHAT.image, "commit": COMMIT}}), encoding="utf-8")
    yield found
    if found.hold is not None:
        found.hold.set()
    found.played.acting.end()
    assert found.played.jobs.close(SECONDS)


def test_a_host_that_serves_nothing_says_so(host: Scraped) -> None:
    found = host.samples()
    assert found["service_active"] == {("chat",): 0, ("eyes",): 0}
    assert found["service_default"] == {("chat",): 1, ("eyes",): 0}
    assert found["service_pinned"] == {("chat",): 0, ("eyes",): 1}
    assert found["service_given_up"] == {("chat",): 0, ("eyes",): 0}
    assert (found["switching"], found["stopped"]) == ({(): 0}, {(): 0})
    assert found["daemon_info"] == {(__version__, ""): 1}
    assert found["daemon_start_time_seconds"] == {(): 1234.5}
    assert not {"service_health", "service_restarts", "engine_up", "switches_total"} & found.keys()
    assert host.asked == [], "nothing but what is active is asked"


def test_a_service_is_said_with_what_it_is(host: Scraped) -> None:
    info = host.samples()["service_info"]
    hashes = CHAT.spec_sha256, EYES.spec_sha256
    assert info == {
        ("chat", "small", "cpu", hashes[0], CHAT.image, COMMIT, "8080"): 1,
        ("eyes", "small", "cpu", hashes[1], EYES.image, "", "8090"): 1,
    }


def test_how_an_active_service_is(host: Scraped) -> None:
    host.played.serve("chat", "eyes", since=1.0, given_up={"eyes": GivenUp(1.0, "it fell")}, stopped=True)
    host.played.views = {"chat": View("failing", "it is on the CPU", 3, 2, 7.5, "cpu-fallback")}
    found = host.samples()
    assert found["service_active"] == {("chat",): 1, ("eyes",): 1}
    health = {labels: value for labels, value in found["service_health"].items() if labels[0] == "chat"}
    assert {labels[1] for labels in health} == set(HEALTHS), "each is there, so that what ends is seen to end"
    assert [labels for labels, value in health.items() if value] == [("chat", "cpu-fallback")]
    assert found["service_restarts"] == {("chat",): 3}, "of one that nobody has looked at yet nobody knows"
    assert found["service_in_flight_requests"] == {("chat",): 2}
    assert found["service_idle_seconds"] == {("chat",): 7.5}
    assert found["service_planned"] == {("chat",): 1, ("eyes",): 1}
    assert found["service_given_up"] == {("chat",): 0, ("eyes",): 1}
    assert found["stopped"] == {(): 1}


def test_what_was_found_is_counted_from_0_on_and_stays_when_it_is_over(host: Scraped) -> None:
    host.played.serve("chat")
    faults = host.samples()["service_faults_total"]
    assert faults == {("chat", health): 0 for health in set(HEALTHS) - {"ok", "loading", "unknown"}}
    host.tally.found("chat", "hung")
    host.tally.found("eyes", "garbage")
    found = host.samples()["service_faults_total"]
    assert {labels: count for labels, count in found.items() if count} == {("chat", "hung"): 1, ("eyes", "garbage"): 1}


def test_what_a_look_found_before_a_job_is_not_how_it_is_now(host: Scraped) -> None:
    host.played.serve("chat")
    host.played.views = {"chat": View("failing", "", finding="garbage")}
    host.played.door.close(CHAT.port)
    host.played.run(Request(Kind.RECONCILE, "chat"))
    found = host.samples()
    assert [labels for labels, value in found["service_health"].items() if value] == [("chat", "loading")]
    assert found["switching"] == {(): 1}


def test_a_service_that_serves_with_a_spec_of_before_is_said_with_that(host: Scraped) -> None:
    host.played.serve("eyes")
    before = below(host.root, f"{paths.VERSIONS}/eyes/{EYES.spec_sha256}/spec.json")
    before.parent.mkdir(parents=True)
    before.write_text(json.dumps(EYES.to_dict()), encoding="utf-8")
    host.played.plan(make_spec("eyes", port=8090, memory_mib=2048, strategy="fit"))
    found = host.samples()
    assert [labels[2:4] for labels in found["service_info"] if labels[0] == "eyes"] == [("cpu", EYES.spec_sha256)]
    assert found["service_planned"] == {("eyes",): 0}


def test_a_service_that_the_host_runs_no_more_is_still_active(host: Scraped) -> None:
    host.played.serve("eyes")
    below(host.root, f"{paths.SPECS}/eyes.json").unlink()
    found = host.samples()
    assert found["service_active"] == {("chat",): 0, ("eyes",): 1}


def test_memory_is_said_by_device_and_by_whom(host: Scraped) -> None:
    engine = parts((18100, 1000, 210), (9000, 800, 100), (420, 0, 64))
    measured = parts((18050, 1000, 205), (9000, 800, 100), (410, 0, 64), vision=300)
    keep(host.root, CHAT, record(CHAT, engine, measured))
    found = {labels: value / (1 << 20) for labels, value in host.samples()["service_memory_bytes"].items()}
    assert found == {
        ("chat", UUIDS[0], "predicted"): 19200,
        ("chat", UUIDS[1], "predicted"): 9900,
        ("chat", "host", "predicted"): 464,
        ("chat", UUIDS[0], "engine"): 19310,
        ("chat", UUIDS[1], "engine"): 9900,
        ("chat", "host", "engine"): 484,
        ("chat", UUIDS[0], "measured"): 19255,
        ("chat", UUIDS[1], "measured"): 9900,
        ("chat", "host", "measured"): 474,
    }


def test_an_engine_that_does_not_see_the_cards_says_nothing_of_memory(host: Scraped) -> None:
    keep(host.root, CHAT, record(CHAT, parts((1.0, 1.0, 1.0))))
    assert {by for _, _, by in host.samples()["service_memory_bytes"]} == {"predicted"}


def test_what_was_counted_is_said(host: Scraped) -> None:
    host.tally.switched("chat", "ok", {"stop": 1.0, "load": 20.0})
    host.requests = {("/status", "200"): 7, ("other", "404"): 1}
    found = host.samples()
    assert found["switches_total"] == {("chat", "ok"): 1}
    assert found["switch_phase_seconds_total"] == {("chat", "stop"): 1, ("chat", "load"): 20}
    assert (found["switch_last_seconds"], found["service_load_seconds"]) == ({("chat",): 21}, {("chat",): 20})
    assert found["api_requests_total"] == {("/status", "200"): 7, ("other", "404"): 1}


def test_every_metric_that_is_declared_is_there_and_no_other(host: Scraped) -> None:
    host.played.serve("chat")
    host.played.views = {"chat": View("ok", "", 0, 0, 1.0, "ok")}
    host.tally.switched("chat", "ok", {"load": 1.0})
    host.requests = {("/status", "200"): 1}
    found = {f"llamarig_{name}" for name in host.samples()}
    assert found == {metric.name for metric in declared.METRICS if metric.source == "daemon"}


def test_each_is_said_with_its_kind_and_what_it_means_once(host: Scraped) -> None:
    host.tally.switched("chat", "ok", {"load": 1.0})
    text = host.text()
    for metric in declared.METRICS:
        if f"\n{metric.name}" in text:
            assert text.count(f"# HELP {metric.name} {metric.help}\n") == 1
            assert text.count(f"# TYPE {metric.name} {metric.kind}\n") == 1


# ---- engines ----


def test_metrics_of_active_engines_are_told_with_their_service(host: Scraped) -> None:
    host.played.serve("chat", "eyes")
    host.engines = {"chat": ENGINE}
    found = host.samples()
    assert found["llamacpp:requests_processing"] == {("chat",): 1}
    assert found["engine_up"] == {("chat",): 1, ("eyes",): 0}
    host.engines = {}
    found = host.samples()
    assert found["engine_up"] == {("chat",): 0, ("eyes",): 0}
    assert "llamacpp:requests_processing" not in found, "what it said before is not so now"


def test_an_engine_that_hangs_costs_no_other_metric(host: Scraped) -> None:
    host.played.serve("chat")
    host.engines, host.hold = {"chat": ENGINE}, threading.Event()
    found = host.samples()
    assert found["engine_up"] == {("chat",): 0}
    assert found["service_active"][("chat",)] == 1


def test_an_engine_that_sleeps_is_neither_woken_nor_kept_awake(host: Scraped) -> None:
    sleeper = make_spec("sleeper", port=8095, argv=["--model", "/m", SLEEPS, "60"])
    host.played.plan(CHAT, EYES, sleeper)
    host.played.serve("sleeper")
    host.engines = {"sleeper": ENGINE}
    for in_flight in (None, 0):
        host.played.views = {"sleeper": View("ok", "", 0, in_flight, 1.0)}
        assert "engine_up" not in host.samples()
    assert host.asked == []
    host.played.views = {"sleeper": View("ok", "", 0, 1, 0.0)}
    assert host.samples()["engine_up"] == {("sleeper",): 1}


def test_a_scrape_is_no_request(host: Scraped) -> None:
    """It asks neither the door, by which idleness is measured, nor anything that takes a slot."""
    host.played.serve("chat")
    host.engines = {"chat": ENGINE}
    before = sorted(str(path) for path in below(host.root, paths.RUN).rglob("*"))
    host.text()
    assert sorted(str(path) for path in below(host.root, paths.RUN).rglob("*")) == before
    assert host.asked == ["chat"]


def test_many_who_ask_at_once_have_engines_asked_once(host: Scraped) -> None:
    host.played.serve("chat")
    host.engines = {"chat": ENGINE}
    texts: list[str] = []
    threads = [threading.Thread(target=lambda: texts.append(host.metrics.text())) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert len(texts) == 20
    assert host.asked == ["chat"]
    host.time += 1.0
    host.metrics.text()
    assert host.asked == ["chat"] * 2


@pytest.mark.parametrize("content", ["[]", "{", '{"engine": 5}'])
def test_a_host_file_that_cannot_be_read_costs_the_commit_alone(host: Scraped, content: str) -> None:
    below(host.root, paths.HOST_FILE).write_text(content, encoding="utf-8")
    assert {labels[5] for labels in host.samples()["service_info"]} == {""}
    below(host.root, paths.HOST_FILE).unlink()
    assert {labels[5] for labels in host.samples()["service_info"]} == {""}
