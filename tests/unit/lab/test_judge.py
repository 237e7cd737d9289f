from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llamarig.lab.judge import RefusedError
from llamarig.lab.judge_image import shim_source
from llamarig.lab.judge_log import Parts, read_arguments, read_breakdown, read_errors, read_log
from llamarig.lab.machine import LabError, compile_library

DEVICES = {"RPC0[127.0.0.1:50060]": "RPC0", "RPC0[127.0.0.1:50061]": "RPC1"}
# Lines of llama-server 0.7.0, as it logged them for a file of four blocks on two RPC servers.
LOADED = "llama_model_loader: loaded meta data with 37 key-value pairs and 96 tensors from /models/q.gguf"
WEIGHTS = [
    "load_tensors: layer   0 assigned to device RPC0, is_swa = 0",
    "load_tensors: layer   1 assigned to device RPC0, is_swa = 0",
    "load_tensors: layer   2 assigned to device RPC1, is_swa = 0",
    "load_tensors: layer   3 assigned to device CPU, is_swa = 0",
    "load_tensors: layer   4 assigned to device RPC1, is_swa = 0",
    "tensor blk.0.ffn_up_exps.weight (144 MiB q4_K) buffer type overridden to CPU",
    "tensor blk.1.ffn_up_exps.weight (144 MiB q4_K) buffer type overridden to RPC0[127.0.0.1:50061]",
    "load_tensors:   CPU_Mapped model buffer size =   272.81 MiB",
    "load_tensors:   CPU_REPACK model buffer size =   144.00 MiB",
    "load_tensors: RPC0[127.0.0.1:50060] model buffer size =  1450.44 MiB",
    "load_tensors: RPC0[127.0.0.1:50061] model buffer size =   397.86 MiB",
]
CONTEXT = [
    "llama_context: constructing llama_context",
    "llama_context:        CPU  output buffer size =     3.79 MiB",
    "llama_kv_cache: layer   3: dev = CPU",
    "llama_kv_cache: RPC0[127.0.0.1:50060] KV buffer size =    16.00 MiB",
    "llama_kv_cache: RPC0[127.0.0.1:50060] KV buffer size =    20.00 MiB",
    "llama_memory_recurrent, layer   0: dev = RPC0",
    "llama_memory_recurrent: RPC0[127.0.0.1:50060] RS buffer size =    25.12 MiB",
    "sched_reserve: RPC0[127.0.0.1:50060] compute buffer size =    92.00 MiB",
    "sched_reserve: RPC0[127.0.0.1:50061] compute buffer size =     3.82 MiB",
    "sched_reserve:        CPU compute buffer size =    72.52 MiB",
    "sched_reserve: graph: nodes = 420, splits = 3, input objects = 4, input tensors = 10",
]
DRAFT = [
    "llama_context: constructing llama_context",
    "llama_kv_cache: RPC0[127.0.0.1:50061] KV buffer size =    16.00 MiB",
    "sched_reserve: RPC0[127.0.0.1:50061] compute buffer size =   120.00 MiB",
    "sched_reserve: graph: nodes = 86, splits = 2, input objects = 4, input tensors = 7",
    "sched_reserve: RPC0[127.0.0.1:50061] compute buffer size =   129.06 MiB",
]


def log(*messages: str) -> list[str]:
    return [json.dumps({"type": "log", "time": 1, "level": "info", "msg": f"{message}\n"}) for message in messages]


def breakdown(model: int) -> str:
    rows = [
        {
            "kind": "device",
            "name": "RPC0",
            "total": 4096,
            "free": 4096,
            "self": 1,
            "model": model,
            "context": 3,
            "compute": 4,
        },
        {"kind": "host", "name": "Host", "self": 1, "model": 5, "context": 6, "compute": 7},
    ]
    return json.dumps({"type": "fit_memory_breakdown", "data": {"unit": "MiB", "rows": rows}})


def test_an_estimate_is_read_by_device() -> None:
    text = "printing estimated memory in MiB\nRPC0 2199 3712 128\nRPC1 26369 2176 320 \nHost 22025 0 178\n"
    parts = read_breakdown(text)
    assert parts == {"RPC0": Parts(2199, 3712, 128), "RPC1": Parts(26369, 2176, 320), "Host": Parts(22025, 0, 178)}
    assert parts["RPC0"].total == 6039


def test_output_without_an_estimate_is_an_error_that_shows_it() -> None:
    with pytest.raises(LabError, match="printed no estimate: 'failed to load model'"):
        read_breakdown("failed to load model\n")


def test_proposed_arguments_lose_their_quotes_and_keep_their_patterns() -> None:
    text = 'fit\n-c 32768 -ngl 49 -ts 20,29 -ot "blk\\.19\\.ffn_(gate|up).*=RPC0[127.0.0.1:50062],blk\\.3.x=CPU"\n'
    assert read_arguments(text) == [
        "-c",
        "32768",
        "-ngl",
        "49",
        "-ts",
        "20,29",
        "-ot",
        r"blk\.19\.ffn_(gate|up).*=RPC0[127.0.0.1:50062],blk\.3.x=CPU",
    ]


@pytest.mark.parametrize("text", ["", "cannot fit\n"])
def test_no_proposal_is_an_error(text: str) -> None:
    with pytest.raises(LabError, match="proposed no arguments"):
        read_arguments(text)


def test_logged_buffers_add_up_by_device() -> None:
    served = read_log(log(LOADED, *WEIGHTS, *CONTEXT), DEVICES)
    assert served.model == {"Host": pytest.approx(416.81), "RPC0": 1450.44, "RPC1": 397.86}
    assert served.cache == {"RPC0": 36.0}
    assert served.state == {"RPC0": 25.12}
    assert served.compute == {"RPC0": 92.0, "RPC1": 3.82, "Host": 72.52}
    assert served.output == {"Host": 3.79}
    assert served.splits == 3
    assert served.total("RPC0") == pytest.approx(1450.44 + 36 + 25.12 + 92)
    assert served.total("RPC7") == 0


def test_places_are_those_of_layers_unless_a_rule_moved_the_tensor() -> None:
    served = read_log(log(LOADED, *WEIGHTS, *CONTEXT), DEVICES)
    assert served.layers == {0: "RPC0", 1: "RPC0", 2: "RPC1", 3: "Host", 4: "RPC1"}
    assert served.caches == {3: "Host", 0: "RPC0"}
    places = {
        "blk.0.attn_q.weight": "RPC0",
        "blk.0.ffn_up_exps.weight": "Host",
        "blk.1.ffn_up_exps.weight": "RPC1",
        "blk.3.attn_q.weight": "Host",
        "output.weight": "RPC1",
        "output_norm.weight": "RPC1",
        "token_embd.weight": "Host",
    }
    assert {tensor: served.place(tensor) for tensor in places} == places


@pytest.mark.parametrize("tensor", ["blk.9.attn_q.weight", "rope_freqs.weight"])
def test_a_place_that_the_log_does_not_tell_is_an_error(tensor: str) -> None:
    served = read_log(log(LOADED, *WEIGHTS), DEVICES)
    with pytest.raises(LabError, match="does not say where"):
        served.place(tensor)


def test_a_load_that_only_measures_does_not_count() -> None:
    measured = ["sched_reserve: RPC0[127.0.0.1:50061] compute buffer size =   115.54 MiB"]
    served = read_log([*log(LOADED, *measured), breakdown(617), *log(LOADED, *WEIGHTS, *CONTEXT)], DEVICES)
    assert served.compute["RPC1"] == 3.82
    assert served.breakdown == {}


def test_the_engines_own_sum_is_the_last_one() -> None:
    served = read_log([*log(LOADED, *CONTEXT), breakdown(617), breakdown(618)], DEVICES)
    assert served.breakdown == {"RPC0": Parts(618, 3, 4), "Host": Parts(5, 6, 7)}


def test_contexts_add_up_and_one_that_is_reserved_again_replaces_its_own() -> None:
    served = read_log(log(LOADED, *WEIGHTS, *CONTEXT, *DRAFT), DEVICES)
    assert served.compute["RPC1"] == pytest.approx(3.82 + 129.06)
    assert served.cache == {"RPC0": 36.0, "RPC1": 16.0}
    assert served.splits == 3


def test_lines_that_are_no_json_or_cut_short_are_passed_over() -> None:
    lines = [*log(LOADED, *WEIGHTS), "GGML_ASSERT(x) failed", log(*CONTEXT)[0][:40], "", *log(*CONTEXT)]
    assert read_log(lines, DEVICES).splits == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "0.00.279.704 E llama_model_load: error loading model: x\n0.1 I fine\n",
            "llama_model_load: error loading model: x",
        ),
        ("error: invalid argument: --nope\n", "error: invalid argument: --nope"),
        ("/b/ggml-backend.cpp:1442: GGML_ASSERT(*id != -1) failed\nframe 1\n", "ggml-backend.cpp:1442: GGML_ASSERT"),
        ("  what():  failed to load model\n", "what():  failed to load model"),
        ('{"type":"log","level":"error","msg":"cannot\\n"}\n{"type":"log","level":"info","msg":"fine"}\n', "cannot"),
        ("nothing that looks like an error\n", "nothing that looks like an error"),
    ],
)
def test_a_refusal_says_what_the_engine_said(text: str, said: str) -> None:
    assert said in read_errors(text)
    error = RefusedError("llama-server -m x", 134, text)
    assert error.code == 134
    assert "llama-server -m x ended with 134" in error.message
    assert said in error.message


def test_the_same_error_is_said_once() -> None:
    line = json.dumps({"type": "log", "level": "error", "msg": "cannot load"})
    assert read_errors(f"{line}\n{line}\n") == "cannot load"


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiled = compile_library(tmp_path_factory.mktemp("shim"), "device_memory", shim_source())
    assert compiled is not None, "apt-get install gcc libc6-dev"
    return compiled


PROBE = """\
import ctypes, os
libc = ctypes.CDLL(None)
def seen():
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
def buffer(mib):
    address = ctypes.c_void_p()
    code = libc.posix_memalign(ctypes.byref(address), ctypes.c_size_t(64), ctypes.c_size_t(mib << 20))
    return code, address
"""


def ask(shim: Path, code: str, **environment: str) -> list[str]:
    """Run Python with the shim loaded, and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE + code],
        env={**os.environ, "LD_PRELOAD": str(shim), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def test_a_device_seems_to_have_the_memory_it_was_given(shim: Path) -> None:
    assert ask(shim, "print(seen(), buffer(200)[0], seen())", LAB_DEVICE_MEMORY_MIB="100") == ["100", "0", "100"]


def test_without_a_size_the_machine_is_seen_as_it_is(shim: Path) -> None:
    real = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    assert ask(shim, "print(seen())") == [str(real)]


def test_an_enforced_device_refuses_what_does_not_fit_and_gets_back_what_is_freed(shim: Path) -> None:
    code = """
first, held = buffer(60)
print(first, seen(), buffer(60)[0])
libc.free(held)
print(seen(), buffer(60)[0], seen())
"""
    said = ask(shim, code, LAB_DEVICE_MEMORY_MIB="100", LAB_DEVICE_MEMORY_ENFORCED="1")
    out_of_memory = "12"
    assert said == ["0", "40", out_of_memory, "100", "0", "40"]


def test_without_a_compiler_the_image_must_bring_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert compile_library(tmp_path, "device_memory", shim_source()) is None
    assert not any(tmp_path.iterdir())
