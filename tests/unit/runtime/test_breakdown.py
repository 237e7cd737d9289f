"""What is read from the engine's log: llama-server 0.7.0 with RPC devices, and lines as CUDA prints them.

The logs were recorded with ``--log-jsonl --verbosity 4``, from the first line to the last; what they say of the model's
metadata and of templates was taken out.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from llamarig.runtime import breakdown
from llamarig.runtime.breakdown import Breakdown, Part, read_log, start_log

LOGS = Path(__file__).parent / "engine_logs"
SUMMED_UP = ["experts_on_cpu", "hybrid", "sliding_window", "fit", "repack", "no_device", "vision_cpu"]


def recorded(name: str) -> list[str]:
    return (LOGS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()


def read(name: str) -> Breakdown:
    parts = read_log(recorded(name))
    assert parts is not None
    return parts


def said(*messages: str) -> list[str]:
    return [json.dumps({"type": "log", "time": 1, "level": "info", "msg": f"{text}\n"}) for text in messages]


def started() -> int:
    """Number of the line with which the recorded load of a hybrid model begins."""
    return next(number for number, line in enumerate(recorded("hybrid")) if "loading model '" in line)


def test_every_buffer_is_counted_on_its_device_and_the_rest_on_the_host() -> None:
    parts = read("experts_on_cpu")
    assert [part.name for part in parts.devices] == ["RPC0", "RPC1"]
    assert parts.devices[0] == Part("RPC0", weights=9.79, cache=8.0, compute=6.01)
    assert parts.devices[1] == Part("RPC1", weights=6.52, cache=4.0, compute=5.76)
    assert (parts.host.weights, parts.host.cache, parts.host.compute) == (3.12, 0.0, 5.53)
    assert parts.offloaded == "13/13"


@pytest.mark.parametrize("name", SUMMED_UP)
def test_it_is_what_the_engine_sums_up_itself_when_it_ends(name: str) -> None:
    parts = read(name)
    events = [json.loads(line) for line in recorded(name) if '"fit_memory_breakdown"' in line]
    rows: list[dict[str, Any]] = events[-1]["data"]["rows"]
    devices = [row for row in rows if row["kind"] == "device"]
    others = [row for row in rows if row["kind"] != "device"]
    assert [part.name for part in parts.devices] == [row["name"] for row in devices]
    projector = 0.16 if name == "vision_cpu" else 0  # of the projector it says nothing
    for part, own in [*zip(parts.devices, [[row] for row in devices], strict=True), (parts.host, others)]:
        assert part.weights - projector == pytest.approx(sum(row["model"] for row in own), abs=1.0 * len(own))
        assert part.cache == pytest.approx(sum(row["context"] for row in own), abs=1.0)
        assert part.compute == pytest.approx(sum(row["compute"] for row in own), abs=1.0)


def test_recurrent_state_and_both_caches_of_a_sliding_window_are_cache() -> None:
    assert [part.cache for part in read("hybrid").devices] == [0.41, 1.0]
    assert [part.cache for part in read("sliding_window").devices] == [0.59, 0.0]


def test_weights_that_the_cpu_rearranged_are_on_the_host() -> None:
    parts = read("repack")
    assert parts.devices == ()
    assert parts.host.weights == pytest.approx(5.61)


def test_a_draft_model_counts_with_its_weights_its_cache_and_its_context() -> None:
    first, second = read("draft").devices
    assert (first.weights, second.weights) == (1.69, 1.16)
    assert (first.cache, second.cache) == (6.0, 4.0)
    assert (first.compute, second.compute) == (40.6, 35.32)
    assert read("draft").offloaded == "17/17"


def test_a_vision_projector_counts_where_it_lies_and_its_buffer_apart() -> None:
    first, second = read("vision").devices
    assert first.weights == pytest.approx(1.06 + 0.16)
    assert (first.vision, second.vision) == (0.05, 0.0)
    assert first.total == pytest.approx(1.22 + 4.5 + 19.55)
    assert read("vision_cpu").host.vision == 0.05


def test_what_fit_only_intended_is_not_what_was_allocated() -> None:
    parts = read("fit")
    assert [part.weights for part in parts.devices] == [0.79, 3.23]
    assert parts.host.weights == pytest.approx(15.42)
    assert parts.offloaded == "10/13"


def test_an_engine_without_a_device_says_that_it_offloaded_all_layers_and_has_none() -> None:
    parts = read("no_device")
    assert parts.offloaded == "13/13"
    assert parts.devices == ()
    assert parts.host.weights == 19.44


def test_cuda_names_its_buffers_as_its_devices_and_those_of_the_host_otherwise() -> None:
    """Lines with the format of llama.cpp's own source, and the names that reports of users show."""
    parts = read_log(
        said(
            "srv    load_model: loading model '/models/a.gguf'",
            "llama_prepare_model_devices: using device CUDA0 (NVIDIA GeForce RTX 4090) (0000:01:00.0) - 23587 MiB free",
            "llama_prepare_model_devices: using device CUDA1 (NVIDIA GeForce RTX 4090) (0000:02:00.0) - 23587 MiB free",
            "load_tensors: offloaded 41/41 layers to GPU",
            "load_tensors:          CPU model buffer size =   688.88 MiB",
            "load_tensors:    CUDA_Host model buffer size = 15871.80 MiB",
            "load_tensors:        CUDA0 model buffer size =  5434.38 MiB",
            "load_tensors:        CUDA1 model buffer size = 13989.53 MiB",
            "load_tensors:          AMX model buffer size =   100.00 MiB",
            "llama_context: constructing llama_context",
            "llama_context:  CUDA_Host  output buffer size =     1.95 MiB",
            "llama_kv_cache:      CUDA0 KV buffer size =  1536.00 MiB",
            "llama_kv_cache:      CUDA1 KV buffer size =  3584.00 MiB",
            "sched_reserve:      CUDA0 compute buffer size =   672.01 MiB",
            "sched_reserve:      CUDA1 compute buffer size =   672.02 MiB",
            "sched_reserve:  CUDA_Host compute buffer size =    42.02 MiB",
            "clip_ctx: CLIP using CUDA1 backend",
            "load_hparams: model size:         851.39 MiB",
            "reserve_compute_meta:      CUDA1 compute buffer size =   248.10 MiB",
        )
    )
    assert parts is not None
    first, second = parts.devices
    assert first == Part("CUDA0", 5434.38, 1536.0, 672.01)
    assert second == Part("CUDA1", 14840.92, 3584.0, 672.02, vision=248.1)
    assert parts.host == Part("Host", 16660.68, 0.0, 42.02)


def test_a_context_that_reserves_again_replaces_its_buffers() -> None:
    again = "sched_reserve: RPC0[127.0.0.1:52061] compute buffer size =   100.00 MiB"
    parts = read_log([*recorded("hybrid"), *said(again)])
    assert parts is not None
    assert parts.devices[0].compute == 100.0


def test_the_last_load_counts_whatever_was_before_and_between() -> None:
    noise = [" Container llama-chat  Created", "\x1b[K", "{ half a li", "[1, 2]", "Aborting on container exit..."]
    parts = read_log([*recorded("draft"), *noise, *recorded("hybrid")])
    assert parts == read("hybrid")


def test_a_load_under_way_or_one_that_failed_is_no_measurement() -> None:
    lines = recorded("hybrid")
    reserve = next(number for number, line in enumerate(lines) if "sched_reserve" in line)
    assert read_log(lines[:reserve]) is None
    assert read_log([*lines, *lines[started() : reserve]]) is None


def test_a_log_that_lost_its_start_has_what_the_engine_summed_up_at_its_end() -> None:
    """Whole MiB then, and nothing of what was not in its first context."""
    parts = read_log(recorded("hybrid")[-6:])
    assert parts == Breakdown((Part("RPC0", 14, 0, 13), Part("RPC1", 4, 1, 10)), Part("Host", 0, 0, 10))
    assert read_log(recorded("repack")[-4:]) == Breakdown((), Part("Host", 5, 12, 6))


def test_a_log_that_lost_its_start_in_the_middle_of_a_load_says_nothing() -> None:
    assert read_log(recorded("hybrid")[started() + 1 :]) is None


def test_a_log_without_a_word_of_memory_says_nothing() -> None:
    assert read_log([]) is None
    assert read_log(["plain words", *said("srv  llama_server: initializing ...")]) is None


def test_a_breakdown_is_the_same_after_a_trip_through_json() -> None:
    parts = read("vision")
    assert Breakdown.from_dict(json.loads(json.dumps(parts.to_dict()))) == parts


def test_the_log_of_a_start_is_asked_for_by_what_systemd_calls_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        return subprocess.CompletedProcess(command, 0, "0123abcd\n", "")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(breakdown, "journal", lambda service, words: [service, *words])
    assert start_log("chat") == ["chat", "_SYSTEMD_INVOCATION_ID=0123abcd", "--lines=+5000"]
    assert asked == [["/usr/bin/systemctl", "show", "--property=InvocationID", "--value", "llama-chat.service"]]


@pytest.mark.parametrize("trouble", [FileNotFoundError(), None], ids=["no systemd", "never started"])
def test_a_service_that_never_started_has_no_log(monkeypatch: pytest.MonkeyPatch, trouble: OSError | None) -> None:
    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        if trouble is not None:
            raise trouble
        return subprocess.CompletedProcess(command, 0, "\n", "")

    monkeypatch.setattr(subprocess, "run", run)
    assert start_log("chat") == []
