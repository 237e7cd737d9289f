from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from llamarig.exporter import worker as module
from llamarig.exporter.collection import Collection
from llamarig.exporter.worker import Worker
from llamarig.hardware.gpus import explained
from llamarig.hardware.measured import Measured, StaleLibraryError, Value, Xid
from llamarig.web.exposition import exposition
from tests.played_exporter import until
from tests.unit.exporter.world import FIRST, PlayedMeter, card, measured


class NobodyForesawError(Exception):
    pass


def worker(root: Path, meter: PlayedMeter, period: float = 0.01) -> tuple[Worker, threading.Event]:
    ended = threading.Event()
    made = Worker(meter, Collection(meter, root), ended.set, period=period)
    made.start()
    return made, ended


def own(made: Worker) -> dict[str, dict[tuple[str, ...], float]]:
    families = text_string_to_metric_families(exposition(made.samples()).decode())
    return {
        sample.name.removeprefix("llamarig_"): {tuple(other.labels.values()): other.value for other in family.samples}
        for family in families
        for sample in family.samples
    }


@pytest.fixture
def last(monkeypatch: pytest.MonkeyPatch) -> StaleLibraryError:
    """What ends a worker's thread, so that no test leaves one behind."""
    monkeypatch.setattr(module, "_LISTEN_SECONDS", 0.001)
    return StaleLibraryError("it is over")


def test_a_stale_library_ends_it_with_a_reason(tmp_path: Path, last: StaleLibraryError) -> None:
    made, ended = worker(tmp_path, PlayedMeter([measured(card()), last]))
    assert ended.wait(30)
    assert "a new process must load it" in made.failure
    assert b"llamarig_gpu_power_watts" in made.text()
    assert own(made)["collection_success"] == {(): 1}


def test_what_nobody_foresaw_is_a_collection_that_failed(
    tmp_path: Path, last: StaleLibraryError, caplog: pytest.LogCaptureFixture
) -> None:
    odd = card(values=(Value("power_watts", (), 1.0),), name="\ud800")
    answers: list[Measured | Exception] = [NobodyForesawError("oh"), NobodyForesawError("oh"), measured(odd), last]
    made, ended = worker(tmp_path, PlayedMeter(answers))
    assert ended.wait(30)
    assert "a new process must load it" in made.failure, "that alone ended it"
    assert own(made)["collection_success"] == {(): 0}
    assert made.text() == b""
    told = [record for record in caplog.records if record.exc_info and record.levelname == "ERROR"]
    assert len(told) == 2, "of each, the traceback is said once"


def test_what_fails_while_it_listens_ends_it(tmp_path: Path, last: StaleLibraryError) -> None:
    class Deaf(PlayedMeter):
        def wait(self, seconds: float) -> Xid | None:
            raise NobodyForesawError(f"after {seconds} s")

    made, ended = worker(tmp_path, Deaf([measured(card()), last], [Xid(FIRST, 79)]))
    assert ended.wait(30)
    assert made.failure.startswith("NobodyForesawError: after")


def test_cards_that_answer_late_are_listened_to_all_the_same(tmp_path: Path, last: StaleLibraryError) -> None:
    class Late(PlayedMeter):
        def read(self) -> Measured:
            time.sleep(0.02)
            return super().read()

        def wait(self, seconds: float) -> Xid | None:
            return super().wait(seconds) if self.xids else None

    made, ended = worker(tmp_path, Late([measured(card()), measured(card()), last], [Xid(FIRST, 79)]), period=0.001)
    assert ended.wait(30)
    assert own(made)["gpu_xid_errors_total"] == {(FIRST, "79"): 1}


def test_a_storm_is_counted_whole_and_holds_up_no_collection(
    tmp_path: Path, last: StaleLibraryError, caplog: pytest.LogCaptureFixture
) -> None:
    class Storm(PlayedMeter):
        heard = 0

        def wait(self, seconds: float) -> Xid | None:
            assert seconds > 0
            self.heard += 1
            return Xid(FIRST, 13)

    meter = Storm([measured(card()), measured(card()), measured(card()), last], [Xid(FIRST, 13)])
    made, ended = worker(tmp_path, meter, period=0.05)
    assert ended.wait(30)
    assert own(made)["gpu_xid_errors_total"] == {(FIRST, "13"): meter.heard}
    assert meter.heard > 100
    told = [record.message for record in caplog.records if record.message.startswith("Xid 13 of card")]
    assert len(told) == 1, "not a line for each"


def test_failures_are_counted_by_code_and_said_once(
    tmp_path: Path, last: StaleLibraryError, caplog: pytest.LogCaptureFixture
) -> None:
    answers: list[Measured | Exception] = [explained(999), explained(999), measured(card()), explained(4), last]
    made, ended = worker(tmp_path, PlayedMeter(answers))
    assert ended.wait(30)
    assert made.errors == {999: 2, 4: 1}
    assert own(made)["collection_errors_total"] == {("999",): 2, ("4",): 1}
    assert own(made)["collection_success"] == {(): 0}
    told = [record.message for record in caplog.records]
    assert len([line for line in told if "NVML 999" in line]) == 1
    assert "the cards answer again" in told


def test_xids_are_counted_with_when_they_were_seen(tmp_path: Path, last: StaleLibraryError) -> None:
    class Heard(PlayedMeter):
        def read(self) -> Measured:
            if not self.xids:
                raise last
            return super().read()

    start = time.time()
    xids = [Xid(FIRST, 79), Xid(FIRST, 31), Xid(FIRST, 79)]
    made, ended = worker(tmp_path, Heard([measured(card())], xids), period=0.05)
    assert ended.wait(30)
    assert own(made)["gpu_xid_errors_total"] == {(FIRST, "79"): 2, (FIRST, "31"): 1}
    assert all(start <= seen <= time.time() for seen in own(made)["gpu_xid_last_timestamp_seconds"].values())


def test_a_call_that_hangs_is_seen_from_outside(tmp_path: Path, last: StaleLibraryError) -> None:
    hang = threading.Event()
    made, ended = worker(tmp_path, PlayedMeter([measured(card()), last], hang=hang))
    until(lambda: made.stuck_seconds > 0.2)
    assert own(made).keys() == {"collection_success", "collection_stuck_seconds"}
    assert made.text() == b""
    hang.set()
    assert ended.wait(30)


def test_events_that_are_none_do_not_keep_a_cpu_busy(tmp_path: Path, last: StaleLibraryError) -> None:
    class Nothing(PlayedMeter):
        heard = 0

        def wait(self, seconds: float) -> Xid | None:
            assert seconds > 0
            self.heard += 1
            return None

    meter = Nothing([measured(card()), last], [Xid(FIRST, 13)])
    _, ended = worker(tmp_path, meter, period=0.5)
    assert ended.wait(30)
    # It asks again every 50 ms, or after a thousandth of a second, as _LISTEN_SECONDS is here.
    assert 0 < meter.heard <= 1000


def test_what_is_too_old_is_not_passed_off_as_now(
    tmp_path: Path, last: StaleLibraryError, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, ended = worker(tmp_path, PlayedMeter([measured(card()), last]))
    assert ended.wait(30)
    assert made.text()
    monkeypatch.setattr(module, "KEPT_SECONDS", 0.0)
    assert made.text() == b""
    assert own(made)["collection_timestamp_seconds"]
