"""Metrics of engines: asked on a real socket, and made one text of whatever they say."""

from __future__ import annotations

import contextlib
import socketserver
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from llamarig.config import paths
from llamarig.config.spec import Spec
from llamarig.daemon import engine_metrics
from llamarig.daemon.engine_metrics import EngineMetrics, of_engines
from llamarig.runtime import engine
from llamarig.runtime.engine import EngineError, EngineSocket
from tests.support import below, make_spec

SECONDS = 20
# As version 0.7.0 writes it.
SAID = """\
# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed.
# TYPE llamacpp:prompt_tokens_total counter
llamacpp:prompt_tokens_total 1024
# HELP llamacpp:n_tokens_max Largest observed n_tokens.
# TYPE llamacpp:n_tokens_max counter
llamacpp:n_tokens_max 4096
# HELP llamacpp:requests_processing Number of requests processing.
# TYPE llamacpp:requests_processing gauge
llamacpp:requests_processing 1
"""
CHAT, EYES = make_spec("chat"), make_spec("eyes")


class Handler(BaseHTTPRequestHandler):
    server: Stage

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        status, raw, length = self.server.answer
        self.server.hold.wait(SECONDS)
        self.send_response(status)
        if length:
            self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(raw)

    def address_string(self) -> str:
        return "a socket"

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""


class Stage(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True

    def __init__(self, place: str) -> None:
        super().__init__(place, Handler)
        self.asked: list[str] = []
        self.answer: tuple[int, bytes, bool] = (200, SAID.encode(), True)
        self.hold = threading.Event()
        self.hold.set()


@pytest.fixture
def root() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="m") as directory:
        yield Path(directory)


@pytest.fixture
def stage(root: Path) -> Iterator[Stage]:
    place = below(root, paths.engine_socket("chat"))
    place.parent.mkdir(parents=True)
    with Stage(str(place)) as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield found
        found.hold.set()
        found.shutdown()
        thread.join()


def test_an_engine_is_asked_on_its_own_socket(root: Path, stage: Stage) -> None:
    assert EngineSocket(root).metrics(CHAT, SECONDS) == SAID
    assert stage.asked == ["/metrics"]


@pytest.mark.parametrize("with_length", [True, False])
def test_an_answer_without_end_is_not_read_to_it(root: Path, stage: Stage, *, with_length: bool) -> None:
    stage.answer = 200, b"x" * (engine._METRICS_BYTES + 1), with_length
    with pytest.raises(EngineError):
        EngineSocket(root).metrics(CHAT, SECONDS)
    stage.answer = 200, b"x" * engine._METRICS_BYTES, with_length
    assert len(EngineSocket(root).metrics(CHAT, SECONDS)) == engine._METRICS_BYTES


def test_what_is_no_good_answer_is_an_error(root: Path, stage: Stage) -> None:
    stage.answer = 501, b"{}", True
    with pytest.raises(EngineError, match="501"):
        EngineSocket(root).metrics(CHAT, SECONDS)
    with pytest.raises(EngineError):
        EngineSocket(root).metrics(EYES, SECONDS)


def test_an_engine_that_hangs_is_given_up(root: Path, stage: Stage) -> None:
    stage.hold.clear()
    with pytest.raises(EngineError, match="timed out"):
        EngineSocket(root).metrics(CHAT, 0.05)


# ---- many engines ----


class Engines:
    """Engines that answer, or do not until they are let go."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.hanging: dict[str, threading.Event] = {}
        self.said: dict[str, str | Exception] = {}
        self.answered = threading.Event()

    def ask(self, spec: Spec) -> str:
        self.asked.append(spec.service)
        if spec.service in self.hanging:
            assert self.hanging[spec.service].wait(SECONDS)
        said = self.said.get(spec.service, "1")
        self.answered.set()
        if isinstance(said, Exception):
            raise said
        return said


def test_what_each_says_is_told_and_one_that_fails_fails_alone() -> None:
    engines = Engines()
    engines.said = {"chat": "a", "eyes": EngineError("no")}
    assert EngineMetrics(engines.ask).read([CHAT, EYES]) == {"chat": "a", "eyes": None}
    engines.said = {"chat": OSError("boom")}
    assert EngineMetrics(engines.ask).read([CHAT, EYES]) == {"chat": None, "eyes": "1"}


def test_one_that_hangs_takes_nothing_from_others_and_is_not_asked_again_meanwhile() -> None:
    engines = Engines()
    engines.hanging = {"chat": threading.Event()}
    metrics = EngineMetrics(engines.ask, patience=2)
    assert metrics.read([CHAT, EYES]) == {"chat": None, "eyes": "1"}
    assert metrics.read([CHAT, EYES]) == {"chat": None, "eyes": "1"}
    assert sorted(engines.asked) == ["chat", "eyes", "eyes"]
    engines.hanging["chat"].set()


def test_what_comes_late_is_not_told_as_what_is_so_now() -> None:
    engines = Engines()
    engines.hanging = {"chat": threading.Event()}
    engines.said = {"chat": "old"}
    metrics = EngineMetrics(engines.ask, patience=0.05)
    assert metrics.read([CHAT]) == {"chat": None}
    engines.hanging.pop("chat").set()
    assert metrics._asked["chat"].wait(SECONDS)
    engines.said = {"chat": "new"}
    metrics._patience = SECONDS
    assert metrics.read([CHAT]) == {"chat": "new"}


def test_one_that_is_active_no_more_is_not_asked() -> None:
    engines = Engines()
    metrics = EngineMetrics(engines.ask)
    metrics.read([CHAT, EYES])
    assert metrics.read([EYES]) == {"eyes": "1"}
    assert sorted(engines.asked) == ["chat", "eyes", "eyes"]


# ---- one text ----


def lines(texts: dict[str, str]) -> list[str]:
    return of_engines(texts).splitlines()


def test_each_metric_is_said_once_with_the_samples_of_all() -> None:
    found = lines({"chat": SAID, "eyes": SAID.replace("1024", "7")})
    assert found[:4] == [
        "# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed.",
        "# TYPE llamacpp:prompt_tokens_total counter",
        'llamacpp:prompt_tokens_total{service="chat"} 1024',
        'llamacpp:prompt_tokens_total{service="eyes"} 7',
    ]
    assert "# TYPE llamacpp:n_tokens_max counter" in found, "names and kinds are the engine's own"
    assert len(found) == 12


@pytest.mark.parametrize(
    "line",
    [
        'llamarig_service_active{service="chat"} 1',
        "up 1",
        "llamacpp:x",
        "llamacpp:x one",
        "llamacpp:x 1e",
        'llamacpp:x{service="other"} 1',
        'llamacpp:x{a="1",service="other"} 1',
        'llamacpp:x{a="1",a="2"} 1',
        'llamacpp:x{a="1} 1',
        'llamacpp:x{a="\\q"} 1',
        "# TYPE llamacpp:x nothing",
        "# HELP llamacpp:x only a help",
        "llamacpp:x 1 1700000000000",
        'llamacpp:x{__name__="up"} 1',
        'llamacpp:x{a="1",__address__="2"} 1',
        "llamacpp:x 1e999",
        "llamacpp:x -1e999",
        "",
    ],
)
def test_what_is_no_metric_of_an_engine_is_left_out(line: str) -> None:
    assert lines({"chat": line}) == []


def test_what_would_cost_prometheus_all_of_it_is_left_out() -> None:
    text = "# HELP llamacpp:x bad \\q escape\nllamacpp:x 1\nllamacpp:x 2\nllamacpp:x 3\n"
    assert lines({"chat": text}) == ["# HELP llamacpp:x ", "# TYPE llamacpp:x untyped", 'llamacpp:x{service="chat"} 1']


def test_labels_and_histograms_of_engines_to_come_are_kept() -> None:
    text = """\
# TYPE llamacpp:ttft_seconds histogram
llamacpp:ttft_seconds_bucket{le="0.1",} 2
llamacpp:ttft_seconds_bucket{le="+Inf"} 3
llamacpp:ttft_seconds_sum 0.5
llamacpp:ttft_seconds_count 3
"""
    found = lines({"chat": text})
    assert found[1] == "# TYPE llamacpp:ttft_seconds histogram"
    assert found[2] == 'llamacpp:ttft_seconds_bucket{service="chat",le="0.1"} 2'
    assert [line for line in found if line.startswith("#")] == found[:2]


def test_numbers_that_prometheus_knows_are_kept() -> None:
    numbers = ["NaN", "+Inf", "-Inf", "Inf", "1e308", "-0.5", "1E-400"]
    text = "".join(f"llamacpp:x{place} {number}\n" for place, number in enumerate(numbers))
    assert [line.split(" ")[1] for line in lines({"chat": text}) if not line.startswith("#")] == numbers


def test_no_engine_fills_the_answer() -> None:
    text = "".join(f"llamacpp:metric_{number} 1\n" for number in range(100_000))
    assert len(lines({"chat": text})) == 3 * engine_metrics.MOST_SAMPLES


TOKENS = st.sampled_from(
    ["# HELP ", "# TYPE ", "counter", "llamacpp:x", "llamacpp:y_bucket", *'{}",\\ \n', 'a="', "1", "NaN"]
)


@given(st.lists(TOKENS | st.text(max_size=3), max_size=40).map("".join))
def test_whatever_an_engine_says_what_is_told_can_be_read(said: str) -> None:
    found = of_engines({"chat": said + "\n" + SAID, "eyes": said})
    for family in text_string_to_metric_families(found):
        for sample in family.samples:
            assert sample.name.startswith("llamacpp:")
            assert sample.labels["service"] in {"chat", "eyes"}
    heads = [line.split(" ")[2] for line in found.split("\n") if line.startswith("# TYPE ")]
    assert len(heads) == len(set(heads))
