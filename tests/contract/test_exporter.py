"""The exporter as a process, on played NVML: what it says, and everything that must not end it."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import math
import os
import shutil
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from llamarig.config import paths
from llamarig.config.metrics import BY_NAME
from llamarig.exporter.daemon import ANSWER_SECONDS
from llamarig.lab.silicon import drivers
from tests.contract.promtool import needs, said
from tests.played_exporter import Box, Exporter, Labels, until
from tests.support import below, render

# What a card answers, and the metrics that are absent without it.
ANSWERS = {
    "nvmlDeviceGetMemoryInfo_v2": ["memory_total_bytes", "memory_used_bytes", "memory_free_bytes"],
    "nvmlDeviceGetUtilizationRates": ["utilization_ratio", "memory_utilization_ratio"],
    "nvmlDeviceGetEncoderUtilization": ["encoder_utilization_ratio"],
    "nvmlDeviceGetPowerUsage": ["power_watts"],
    "nvmlDeviceGetPowerManagementLimit": ["power_limit_watts"],
    "nvmlDeviceGetEnforcedPowerLimit": ["power_enforced_limit_watts"],
    "nvmlDeviceGetTotalEnergyConsumption": ["energy_joules_total"],
    "nvmlDeviceGetTemperatureThreshold": ["temperature_threshold_celsius"],
    "nvmlDeviceGetMarginTemperature": ["temperature_margin_celsius"],
    "nvmlDeviceGetClockInfo": ["clock_hertz"],
    "nvmlDeviceGetMaxClockInfo": ["clock_max_hertz"],
    "nvmlDeviceGetNumFans": ["fan_speed_ratio"],
    "nvmlDeviceGetFanSpeed_v2": ["fan_speed_ratio"],
    "nvmlDeviceGetPerformanceState": ["performance_state"],
    "nvmlDeviceGetPersistenceMode": ["persistence_mode"],
    "nvmlDeviceGetCurrentClocksEventReasons": ["throttle"],
    "nvmlDeviceGetCurrPcieLinkWidth": ["pcie_width"],
    "nvmlDeviceGetPcieReplayCounter": ["pcie_replays_total"],
    "nvmlDeviceGetFieldValues": [
        *("power_instant_watts", "recovery_action", "throttle_seconds_total", "pcie_bytes_total"),
        "temperature_margin_threshold_celsius",
    ],
    "nvmlDeviceGetComputeRunningProcesses_v3": ["service_memory_bytes", "service_processes"],
}


@pytest.fixture
def box(tmp_path: Path) -> Box:
    """A machine with two cards; chat computes on both, and somebody else on the first."""
    box = Box(tmp_path)
    box.run_engine(7, "chat", 3 * 1024, 0, 1)
    box.run_engine(8, "", 5 * 1024, 0)
    return box


@pytest.fixture
def exporter(box: Box) -> Iterator[Exporter]:
    with box.exporter() as exporter:
        exporter.collected()
        yield exporter


def of_card(uuid: str, samples: dict[str, dict[Labels, float]], metric: str) -> dict[tuple[str, ...], float]:
    """What a metric says of a card, by its other labels."""
    found = samples.get(f"llamarig_gpu_{metric}", {})
    return {
        tuple(value for name, value in labels if name != "gpu"): number
        for labels, number in found.items()
        if ("gpu", uuid) in labels
    }


def test_what_is_said_is_declared_with_its_labels(box: Box) -> None:
    box.settings["pcie_throughput"] = True
    box.fault(f"field=82:71@{box.uuid(0)}")
    with box.exporter() as exporter:
        exporter.collected()
        text = exporter.get().text
    families = list(text_string_to_metric_families(text))
    assert len({family.name for family in families}) == len(families)
    for family in families:
        for sample in family.samples:
            declared = BY_NAME[sample.name]
            assert sample.labels.keys() == set(declared.labels), sample.name
            assert (family.type, family.documentation) == (declared.kind, declared.help)
            assert math.isfinite(sample.value)
    said = {sample.name for family in families for sample in family.samples}
    silent = {name for name, metric in BY_NAME.items() if metric.source == "exporter"} - said
    # No Xid, no failure, no declared cards, and no models are here.
    assert silent == {
        *("llamarig_gpu_xid_errors_total", "llamarig_gpu_xid_last_timestamp_seconds"),
        *("llamarig_collection_errors_total", "llamarig_gpus_declared"),
        *("llamarig_models_size_bytes", "llamarig_models_free_bytes"),
    }


def test_values_are_in_base_units(box: Box, exporter: Exporter) -> None:
    samples, first, second = exporter.samples(), box.uuid(0), box.uuid(1)
    mib = 1 << 20
    wanted: dict[str, dict[tuple[str, ...], float]] = {
        "up": {(): 1},
        "memory_total_bytes": {(): 24564 * mib},
        "memory_used_bytes": {(): 8 * mib},
        "memory_reserved_bytes": {(): 400 * mib},
        "memory_free_bytes": {(): (24564 - 408) * mib},
        "utilization_ratio": {(): 0.34},
        "power_watts": {(): 270},
        "power_instant_watts": {(): 270},
        "power_default_limit_watts": {(): 450},
        "temperature_celsius": {(): 56},
        "temperature_margin_celsius": {(): 34},
        "temperature_threshold_celsius": {("shutdown",): 96, ("slowdown",): 93, ("gpu",): 90},
        "temperature_margin_threshold_celsius": {("shutdown",): -5, ("slowdown",): -2, ("gpu",): 0},
        "fan_speed_ratio": {("0",): 0.38, ("1",): 0.38},
        "performance_state": {(): 2},
        "pcie_generation": {(): 4},
        "pcie_width_max": {(): 16},
        "recovery_action": {(): 0},
        "xid_watched": {(): 1},
        "service_memory_bytes": {("chat",): 3 * mib, ("",): 5 * mib},
        "service_processes": {("chat",): 1, ("",): 1},
    }
    assert {metric: of_card(first, samples, metric) for metric in wanted} == wanted
    assert of_card(first, samples, "clock_hertz")[("memory",)] == 10_501e6
    assert of_card(second, samples, "service_memory_bytes") == {("chat",): 3 * mib}
    assert of_card(second, samples, "memory_temperature_celsius") == {}
    assert of_card(first, samples, "info") == {
        ("8.9", "0", "NVIDIA GeForce RTX 4090", "", "0000:01:00.0"): 1,
    }
    assert samples["llamarig_driver_info"] == {
        (
            ("cuda_version", "13.0"),
            ("driver_version", "580.95.05"),
            ("module_version", "580.95.05"),
            ("nvml_version", "13.580.95.05"),
        ): 1
    }


def test_what_a_card_does_not_know_is_absent_and_never_zero(box: Box, exporter: Exporter) -> None:
    whole = exporter.samples()
    for call, metrics in ANSWERS.items():
        box.fault(f"na={call}")
        exporter.collected()
        samples = exporter.samples()
        gone = {f"llamarig_gpu_{metric}" for metric in metrics}
        assert gone <= whole.keys() - samples.keys(), call
        assert not any(math.isnan(number) for values in samples.values() for number in values.values())
        assert "llamarig_collection_errors_total" not in samples, call
    box.fault()
    exporter.collected()
    assert exporter.samples().keys() == whole.keys()


def test_what_a_card_fails_to_answer_is_counted_and_the_rest_is_there(box: Box, exporter: Exporter) -> None:
    box.fault("fail=nvmlDeviceGetPowerUsage:999", "fail=nvmlDeviceGetTemperatureV:13")
    exporter.collected()
    samples = exporter.samples()
    assert "llamarig_gpu_power_watts" not in samples
    assert samples["llamarig_collection_errors_total"][(("code", "999"),)] >= 2
    assert of_card(box.uuid(0), samples, "up") == {(): 1}
    # An older driver knows the former question for the temperature.
    assert of_card(box.uuid(0), samples, "temperature_celsius") == {(): 56}
    assert samples["llamarig_collection_success"] == {(): 1}


def test_what_holds_clocks_down_and_what_a_card_needs(box: Box, exporter: Exporter) -> None:
    box.fault(f"throttle=0x44@{box.uuid(1)}", f"field=74:2500000000@{box.uuid(1)}", f"field=230:2@{box.uuid(1)}")
    exporter.collected()
    samples = exporter.samples()
    reasons = of_card(box.uuid(1), samples, "throttle")
    assert {reason for (reason,), number in reasons.items() if number} == {"power-cap", "hardware-thermal"}
    assert of_card(box.uuid(1), samples, "throttle_seconds_total")[("power-cap",)] == 2.5
    assert of_card(box.uuid(1), samples, "recovery_action") == {(): 2}
    assert of_card(box.uuid(0), samples, "recovery_action") == {(): 0}


def test_an_xid_is_counted_from_its_first_sight_on(box: Box, exporter: Exporter) -> None:
    assert "llamarig_gpu_xid_errors_total" not in exporter.samples()
    labels = {"gpu": box.uuid(1), "xid": "79"}
    start = time.time()
    for count in (1, 2):
        box.fault(*[f"xid=79@{box.uuid(1)}"] * count)
        until(lambda count=count: exporter.value("llamarig_gpu_xid_errors_total", **labels) == count)  # type: ignore[misc]
    seen = exporter.value("llamarig_gpu_xid_last_timestamp_seconds", **labels)
    assert seen is not None
    assert start <= seen <= time.time()


def test_a_card_that_falls_off_the_bus_tells_its_xid_and_hides_no_other(box: Box, exporter: Exporter) -> None:
    first, second = box.uuid(0), box.uuid(1)
    box.fault(f"lost={first}", f"xid=79@{first}")
    until(lambda: exporter.value("llamarig_gpu_up", gpu=first) == 0)
    until(lambda: exporter.value("llamarig_gpu_xid_errors_total", gpu=first, xid="79") == 1)
    samples = exporter.samples()
    assert of_card(first, samples, "memory_total_bytes") == {}
    assert of_card(second, samples, "up") == {(): 1}
    assert of_card(second, samples, "power_watts") == {(): 180}
    assert samples["llamarig_collection_errors_total"][(("code", "15"),)] >= 1
    box.fault()
    until(lambda: exporter.value("llamarig_gpu_up", gpu=first) == 1)
    assert exporter.process.poll() is None


def test_a_declared_card_that_is_not_there_is_down_and_one_that_is_has_its_name(box: Box) -> None:
    card = '{{"name": "{}", "model": "x", "memory_mib": 1, "compute_capability": "8.9", "uuid": "{}"}}'
    cards = ", ".join([card.format("left", box.uuid(0)), card.format("right", "GPU-gone")])
    box.write("etc/llamarig/hardware.json", f'{{"schema_version": 1, "gpus": [{cards}]}}')
    with box.exporter() as exporter:
        exporter.collected()
        samples = exporter.samples()
    assert samples["llamarig_gpus_declared"] == {(): 2}
    up = {dict(labels)["gpu"]: number for labels, number in samples["llamarig_gpu_up"].items()}
    assert up == {box.uuid(0): 1, box.uuid(1): 1, "GPU-gone": 0}
    names = {dict(labels)["gpu"]: dict(labels)["name"] for labels in samples["llamarig_gpu_info"]}
    assert names == {box.uuid(0): "left", box.uuid(1): ""}


def test_a_driver_that_is_upgraded_under_it_has_it_start_anew(box: Box) -> None:
    with box.exporter() as exporter:
        exporter.collected()
        box.install(drivers.OTHER_BRANCH)
        exporter.collected()
        assert exporter.value("llamarig_driver_mismatch") == 0, "the library that is loaded fits the module that is"
        box.load(drivers.OTHER_BRANCH)
        assert exporter.ended() == 1
        assert "a new process must load it" in exporter.said()
    with box.exporter() as exporter:
        exporter.collected()
        ((labels, _),) = exporter.samples()["llamarig_driver_info"].items()
        assert dict(labels)["driver_version"] == drivers.OTHER_BRANCH.version
        # Fields that other drivers number differently are not asked.
        reasons = of_card(box.uuid(0), exporter.samples(), "throttle_seconds_total")
        assert reasons.keys() == {("power-cap",), ("sync-boost",)}


def test_a_library_that_fails_after_it_was_replaced_has_it_start_anew(box: Box, exporter: Exporter) -> None:
    box.fault("fail=nvmlDeviceGetCount_v2:999")
    until(lambda: exporter.value("llamarig_collection_success") == 0)
    assert exporter.process.poll() is None, "the library is still the one that is installed"
    box.install(drivers.OTHER_BRANCH)
    assert exporter.ended() == 1
    assert "a new process must load it" in exporter.said()


def test_versions_that_differ_are_said_and_nothing_goes_round_in_circles(box: Box) -> None:
    box.load(drivers.OLD)
    with box.exporter() as exporter:
        exporter.collected()
        exporter.collected()
        samples = exporter.samples()
        assert samples["llamarig_driver_mismatch"] == {(): 1}
        assert samples["llamarig_collection_success"] == {(): 0}
        assert "have different versions" in exporter.said()
        assert exporter.process.poll() is None
        # What the reboot brings, or a module that was loaded again.
        box.load(drivers.NEW)
        assert exporter.ended() == 1
    with box.exporter() as exporter:
        exporter.collected()
        assert exporter.value("llamarig_driver_mismatch") == 0


@pytest.mark.parametrize("without", ["module", "library"])
def test_without_a_driver_there_is_an_exporter_all_the_same(box: Box, without: str) -> None:
    if without == "module":
        box.load(None)
        environment = {}
    else:
        environment = {"LD_LIBRARY_PATH": str(box.directory)}
    with box.exporter(**environment) as exporter:
        exporter.collected()
        samples = exporter.samples()
        assert samples["llamarig_collection_success"] == {(): 1}, "no card is declared, so none is missed"
        assert not samples.keys() & {"llamarig_driver_info", "llamarig_driver_mismatch", "llamarig_gpu_up"}
        box.write("etc/llamarig/hardware.json", '{"schema_version": 1, "gpus": []}')
        exporter.collected()
        assert exporter.value("llamarig_gpus_declared") == 0
        if without == "module":
            box.load(drivers.NEW)
            assert exporter.ended() == 1, "a driver came, and with it devices that systemd must allow"


def test_a_driver_that_is_missed_is_a_failure(box: Box) -> None:
    box.load(None)
    card = '{"name": "left", "model": "x", "memory_mib": 1, "compute_capability": "8.9", "uuid": "GPU-left"}'
    box.write("etc/llamarig/hardware.json", f'{{"schema_version": 1, "gpus": [{card}]}}')
    with box.exporter() as exporter:
        exporter.collected()
        samples = exporter.samples()
    assert samples["llamarig_collection_success"] == {(): 0}
    assert samples["llamarig_gpu_up"] == {(("gpu", "GPU-left"),): 0}
    assert samples["llamarig_collection_errors_total"][(("code", "9"),)] >= 1


def test_a_driver_without_cards_is_well(box: Box) -> None:
    box.plug()
    with box.exporter() as exporter:
        exporter.collected()
        samples = exporter.samples()
    assert samples["llamarig_collection_success"] == {(): 1}
    assert "llamarig_driver_info" in samples
    assert not [name for name in samples if name.startswith("llamarig_gpu_")]


def test_a_driver_that_hangs_is_seen_and_holds_up_no_scrape(box: Box, exporter: Exporter) -> None:
    box.fault("hang=60")
    until(lambda: (exporter.value("llamarig_collection_stuck_seconds") or 0) > 1)
    before = exporter.value("llamarig_collection_timestamp_seconds")
    for _ in range(20):
        samples = exporter.samples()
        assert samples["llamarig_gpu_power_watts"], "what was collected last is still there, with its age"
    assert (exporter.value("llamarig_collection_stuck_seconds") or 0) > 1, "not one of them waited for the driver"
    assert exporter.value("llamarig_collection_timestamp_seconds") == before
    assert exporter.get("/healthz").status == 200
    assert exporter.terminate() == 0, "a thread that waits for the driver does not keep it from ending"


def test_a_driver_that_hung_for_a_while_is_asked_again(box: Box, exporter: Exporter) -> None:
    box.fault("hang=1.5")
    until(lambda: (exporter.value("llamarig_collection_stuck_seconds") or 0) > 0.5)
    box.fault()
    exporter.collected()
    assert exporter.value("llamarig_collection_success") == 1
    assert exporter.process.poll() is None


def test_eight_cards(tmp_path: Path) -> None:
    box = Box(tmp_path, cards=("rtx-4090", "rtx-5070-ti", "rtx-5080", "rtx-4060-ti") * 2)
    with box.exporter() as exporter:
        exporter.collected()
        samples = exporter.samples()
    cards = {box.uuid(slot) for slot in range(8)}
    for name, values in samples.items():
        if name.startswith("llamarig_gpu_") and "service" not in name:
            assert {dict(labels)["gpu"] for labels in values} == cards, name


def test_fifty_scrapers_at_once(exporter: Exporter) -> None:
    barrier = threading.Barrier(50)

    def scrape(_: int) -> int:
        barrier.wait()
        return len(exporter.get().samples)

    with ThreadPoolExecutor(50) as pool:
        counts = list(pool.map(scrape, range(50)))
    assert min(counts) == max(counts) > 40


def test_scrapers_that_never_read_and_clients_that_say_nothing_hold_nobody_up(exporter: Exporter) -> None:
    before = exporter.resident_kib()
    with contextlib.ExitStack() as clients:
        for number in range(100):
            client = clients.enter_context(exporter.connect(1024))
            if number % 2:
                client.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        for _ in range(10):
            assert len(exporter.samples()) > 40
        assert exporter.resident_kib() - before < 16 * 1024


def test_more_connections_than_there_is_room_for_are_told_so_and_forgotten(exporter: Exporter) -> None:
    before = exporter.resident_kib()
    with contextlib.ExitStack() as clients:
        for _ in range(400):
            clients.enter_context(exporter.connect(1024))
        until(lambda: exporter.descriptors() < 200, "connections are not bounded")
        with contextlib.suppress(OSError, http.client.HTTPException):
            assert exporter.get().status == 503
        assert exporter.resident_kib() - before < 16 * 1024
    until(lambda: exporter.descriptors() < 20, "connections that are over are not forgotten")
    assert len(exporter.samples()) > 40


def test_a_thousand_scrapes_leave_nothing_behind(box: Box) -> None:
    # Scrapes alone: a slow machine collects more often meanwhile.
    box.settings["period_seconds"] = 60
    with box.exporter() as exporter:
        until(lambda: "llamarig_gpu_up" in exporter.samples(), "it does not collect")
        for _ in range(100):
            exporter.get()
        before = exporter.resident_kib()
        for _ in range(1000):
            assert exporter.get().status == 200
        after = exporter.resident_kib()
    assert after * 1024 < 45_000_000
    assert after - before < 1024


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"DELETE /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (b"POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}", 415),
        (b"HEAD /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
        (b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}", 415),
        (b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 200),
        (b"GET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421),
        (b"GET /metrics HTTP/1.1\r\nHost: 10.9.8.7\r\n\r\n", 421),
        (b"GET /metrics HTTP/1.1\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n", 400),
        (b"GET /secret HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"nonsense\r\n\r\n", 400),
        (b"\xff\xfe\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 20000, 400),
        (b"GET /metrics?collect=all HTTP/1.1\r\nHost: LOCALHOST:9836\r\n\r\n", 200),
        (b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\n\r\n", 403),
        (b"GET /metrics HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n", 200),
        (b"GET /metrics HTTP/1.1\r\nHost: rig.example:80\r\n\r\n", 200),
    ],
)
def test_it_reads_gets_under_its_own_names_and_nothing_else(box: Box, request_: bytes, status: int) -> None:
    box.settings["hosts"] = ["rig.example"]
    with box.exporter() as exporter, exporter.connect() as client:
        client.sendall(request_)
        response = http.client.HTTPResponse(client, method=request_.partition(b" ")[0].decode("latin-1"))
        response.begin()
        body = response.read()
    assert response.status == status
    allowed = set((response.headers["Allow"] or "").split(", "))
    assert (allowed == {"GET", "HEAD"}) == (status == 405)
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert bool(body) == (not request_.startswith(b"HEAD"))


class PlayedDaemon(socketserver.ThreadingUnixStreamServer):
    """Answers GET as it is told, on the socket that everybody may use."""

    daemon_threads = True

    def __init__(self, box: Box, status: int, text: str) -> None:
        self.status = status
        self.text = text
        place = below(box.root, paths.READ_SOCKET)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        super().__init__(str(place), PlayedHandler)

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield
        finally:
            self.shutdown()
            thread.join()
            self.server_close()


class PlayedHandler(http.server.BaseHTTPRequestHandler):
    server: PlayedDaemon

    def do_GET(self) -> None:
        body = self.server.text.encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "socket"

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""


def test_the_daemons_own_metrics_are_passed_on(box: Box, exporter: Exporter) -> None:
    text = "# HELP llamarig_switching x\n# TYPE llamarig_switching gauge\nllamarig_switching 0.0\n"
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(exporter.get, "/services")
        # It comes while it is waited for, as one that is being started anew.
        assert not wait([waiting], timeout=0.5).done
        with PlayedDaemon(box, 200, text).serving():
            answer = waiting.result()
            assert (answer.status, answer.text) == (200, text)
            assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
            until(lambda: exporter.value("llamarig_daemon_up") == 1)
    until(lambda: exporter.value("llamarig_daemon_up") == 0)


def test_a_daemon_that_stays_away_is_503_and_holds_up_no_scrape(exporter: Exporter) -> None:
    with ThreadPoolExecutor(20) as pool:
        waiting = [pool.submit(exporter.get, "/services") for _ in range(20)]
        assert exporter.get().status == 200
        assert not all(item.done() for item in waiting)
        answers = [item.result() for item in waiting]
    assert {answer.status for answer in answers} == {503}
    assert "llamarigd is away" in answers[0].text
    assert exporter.value("llamarig_daemon_up") == 0


def test_a_daemon_that_answers_something_else_is_503(box: Box, exporter: Exporter) -> None:
    with PlayedDaemon(box, 500, "oh").serving():
        answer = exporter.get("/services")
    assert (answer.status, "answered 500" in answer.text) == (503, True)


def test_a_daemon_that_hangs_does_not_keep_it_from_ending(box: Box, exporter: Exporter) -> None:
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as daemon:
        place = below(box.root, paths.READ_SOCKET)
        place.parent.mkdir(parents=True, exist_ok=True)
        daemon.bind(str(place))
        daemon.listen(64)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(exporter.get, "/services")
            assert len(exporter.samples()) > 40
            start = time.monotonic()
            assert exporter.terminate() == 0
            assert time.monotonic() - start < ANSWER_SECONDS - 2, "it waited for what nobody waits for any more"
            wait([waiting])


def test_name_servers_that_are_away_do_not_keep_it_from_serving(box: Box) -> None:
    # What Python runs first: every question for a name hangs.
    away = "import socket, time\nfor name in ('gethostbyaddr', 'getfqdn', 'getaddrinfo', 'gethostbyname'):\n"
    box.write("away/sitecustomize.py", f"{away}    setattr(socket, name, lambda *_, **__: time.sleep(600))\n")
    with box.exporter(PYTHONPATH=os.pathsep.join([str(box.root / "away"), *sys.path])) as exporter:
        exporter.collected()
        assert exporter.get(Host=socket.gethostname()).status == 200


def test_a_name_that_is_no_text_hides_nothing(tmp_path: Path) -> None:
    box = Box(tmp_path)
    cards = box.root / "var/lib/lab-silicon/cards"
    cards.write_bytes(cards.read_bytes().replace(b"RTX_4090", b'RTX\xff"4090\\n'))
    with box.exporter() as exporter:
        exporter.collected()
        samples = exporter.samples()
        models = {dict(labels)["model"] for labels in samples["llamarig_gpu_info"]}
    assert models == {'NVIDIA GeForce RTX\ufffd"4090\\n', "NVIDIA GeForce RTX 5070 Ti"}
    assert set(samples["llamarig_gpu_up"].values()) == {1}


def test_systemd_is_told_that_it_is_ready_and_that_it_goes_on(box: Box) -> None:
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as systemd:
        systemd.bind(str(box.directory / "notify"))
        systemd.settimeout(30)
        with box.exporter(NOTIFY_SOCKET=str(box.directory / "notify"), WATCHDOG_USEC="300000") as exporter:
            assert systemd.recv(200).startswith(b"READY=1")
            assert [systemd.recv(200) for _ in range(3)] == [b"WATCHDOG=1"] * 3
            assert exporter.terminate() == 0
            said = b""
            while not said.startswith(b"STOPPING=1"):
                said = systemd.recv(200)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_the_unit_is_confined(tmp_path: Path) -> None:
    unit = tmp_path / "llamarig-exporter.service"
    given = {"release": "0123456789ab", "root": "/opt/llamarig", "cards": [0, 1]}
    unit.write_text(render({"template": "llamarig-exporter.service.j2", "vars": given}, "exporter"), encoding="utf-8")
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=25", "--no-pager", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout.splitlines()[-1:] + done.stderr.splitlines()


@needs("promtool")
def test_prometheus_own_judge_has_nothing_to_say(box: Box) -> None:
    box.settings["pcie_throughput"] = True
    with box.exporter() as exporter:
        exporter.collected()
        box.fault(f"xid=48@{box.uuid(0)}", "fail=nvmlDeviceGetPowerUsage:999")
        until(lambda: exporter.value("llamarig_gpu_xid_errors_total", gpu=box.uuid(0), xid="48") == 1)
        exporter.collected()
        text = exporter.get().text
    assert said("promtool", "check", "metrics", input=text) == (0, "")
