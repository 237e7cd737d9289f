from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from llamarig.config.shape import Shape
from llamarig.errors import ExitCode
from llamarig.gguf.model import read_model
from llamarig.gguf.source import FileSource
from tests.unit.cli.conftest import Shell
from tests.unit.gguf.files import METADATA, TENSORS, Made, file, split
from tests.unit.gguf.server import serving

QWEN: dict[str, Any] = {
    "general.architecture": "qwen35moe",
    "general.name": "Qwen3.5 small",
    "general.file_type": 15,
    "qwen35moe.block_count": 9,
    "qwen35moe.nextn_predict_layers": 1,
    "qwen35moe.context_length": 262144,
    "qwen35moe.embedding_length": 512,
    "qwen35moe.attention.head_count": 8,
    "qwen35moe.attention.head_count_kv": 2,
    "qwen35moe.attention.key_length": 256,
    "qwen35moe.attention.value_length": 256,
    "qwen35moe.expert_count": 256,
    "qwen35moe.expert_used_count": 8,
    "qwen35moe.ssm.conv_kernel": 4,
    "qwen35moe.ssm.inner_size": 1024,
    "qwen35moe.ssm.state_size": 128,
    "qwen35moe.ssm.group_count": 2,
}
QWEN_TENSORS = [
    Made("token_embd.weight", "q4_k", (512, 1000)),
    Made("output.weight", "q6_k", (512, 1000)),
    *(Made(f"blk.{block}.attn_norm.weight", "f32", (512,)) for block in range(9)),
    Made("blk.0.ffn_up_shexp.weight", "q8_0", (512, 32)),
    Made("blk.8.nextn.eh_proj.weight", "q8_0", (1024, 512)),
]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "qwen.gguf"
    path.write_bytes(file(QWEN, QWEN_TENSORS))
    return path


def said(text: str) -> dict[str, list[str]]:
    """The summary as words and what follows them; a word can come more than once."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        word, _, rest = line.partition("  ")
        found.setdefault(word, []).append(rest.strip())
    return found


def test_the_summary_says_what_a_person_wants_to_know(shell: Shell, model: Path) -> None:
    result = shell("gguf", str(model))
    assert result.exit_code == ExitCode.OK
    summary = said(result.stdout)
    size = model.stat().st_size
    assert summary["name"] == ["Qwen3.5 small"]
    assert summary["file"][0].startswith(f"{model}, {size / 2**20:.2f} MiB, 13 tensors from byte ")
    assert summary["architecture"] == ["qwen35moe"]
    assert summary["parameters"] == ["1.57 M"]
    assert summary["quantisation"] == ["Q4_K - Medium; by bytes: 44.2 % q8_0, 32.3 % q6_k, 22.1 % q4_k, 1.4 % f32"]
    assert summary["blocks"] == ["9, of which 1 for MTP"]
    assert summary["embedding"] == ["512"]
    assert summary["heads"] == ["8"]
    assert summary["experts"] == ["256, of which 8 for each token, and 1 shared"]
    assert summary["context"] == ["262144 tokens in training"]
    assert summary["vocabulary"] == ["1000 tokens"]
    assert summary["embeddings"] == ["not tied"]
    state = 4 * (3 * (1024 + 2 * 2 * 128) + 128 * 1024)
    assert summary["layers"] == [
        f"0-2,4-6: recurrent state, state of {state} bytes for each sequence",
        "3,7: attends to every token, 2 KV heads, key 256 and value 256",
        "8: attends to every token, 2 KV heads, key 256 and value 256, MTP",
    ]
    assert "note" not in summary


def test_windows_mla_and_indexers_are_said_layer_by_layer(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    window = {"general.architecture": "gpt-oss", "gpt-oss.attention.sliding_window": 128, "gpt-oss.block_count": 4}
    window |= {"gpt-oss.embedding_length": 64, "gpt-oss.attention.head_count": 2}
    path.write_bytes(file(window, []))
    assert said(shell("gguf", str(path)).stdout)["layers"] == [
        "0,2: sliding window of 128 tokens, 2 KV heads, key 32 and value 32",
        "1,3: attends to every token, 2 KV heads, key 32 and value 32",
    ]
    mla = {"general.architecture": "deepseek32", "deepseek32.block_count": 2, "deepseek32.embedding_length": 64}
    mla |= {"deepseek32.attention.head_count": 2, "deepseek32.attention.head_count_kv": 1}
    mla |= {f"deepseek32.attention.{key}": 64 for key in ("key_length_mla", "value_length_mla", "indexer.key_length")}
    path.write_bytes(file({**mla, "deepseek32.attention.key_length": 576}, []))
    assert said(shell("gguf", str(path)).stdout)["layers"] == [
        "0-1: MLA, one compressed key, 1 KV heads, key 576, indexer key 64"
    ]


def test_an_architecture_that_is_not_known_is_said_to_be_unknown(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(file({"general.architecture": "qwen9", "qwen9.block_count": 4}, TENSORS))
    (layers,) = said(shell("gguf", str(path)).stdout)["layers"]
    assert layers.startswith("what a layer of architecture 'qwen9' keeps is not known")
    data = shell.json("gguf", str(path))["data"]
    assert data["layers"] == []
    assert data["layers_unknown"] == layers


def test_a_vision_projector_has_no_layers_to_speak_of(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "mmproj.gguf"
    path.write_bytes(file({"general.architecture": "clip", "general.type": "mmproj"}, TENSORS))
    summary = said(shell("gguf", str(path)).stdout)
    assert not {"blocks", "layers", "heads", "vocabulary"} & summary.keys()
    assert summary["tensors"] == ["5, 32.83 KiB"]


def test_every_part_is_listed_and_a_middle_one_is_remarked_on(shell: Shell, tmp_path: Path) -> None:
    paths = split(tmp_path)
    summary = said(shell("gguf", str(paths[1])).stdout)
    assert [summary[f"part {number}"][0].split(",")[0] for number in (1, 2, 3)] == [str(path) for path in paths]
    assert summary["note"] == [f"part 2 of 3 was named; llama.cpp loads the model by the first, {paths[0]}"]


def test_per_block_values_are_said_in_runs(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(file({**METADATA, "llama.attention.head_count": [4, 4]}))
    assert said(shell("gguf", str(path)).stdout)["heads"] == ["4 (2 times)"]


def test_tensors_are_listed_on_demand(shell: Shell, model: Path) -> None:
    lines = shell("gguf", str(model), "--tensors").stdout.splitlines()
    head = next(number for number, line in enumerate(lines) if line.startswith("TENSOR"))
    assert lines[head + 1].split() == ["token_embd.weight", "q4_k", "512", "x", "1000", "288000"]
    assert len(lines) - head - 1 == len(QWEN_TENSORS)


def test_the_shape_can_be_pasted_into_a_profile(shell: Shell, model: Path) -> None:
    text = shell("gguf", str(model), "--shape").stdout
    record = yaml.safe_load(text)
    assert list(record) == ["shape"]
    assert Shape.from_dict(record["shape"]).to_dict() == read_model(str(model), FileSource).shape.to_dict()
    assert '"blk.{0-8}.attn_norm.weight": f32 512' in text
    assert max(map(len, text.splitlines())) <= 100


def test_a_shape_of_many_alternating_blocks_keeps_to_the_width_of_a_line(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    tensors = [Made(f"blk.{block}.ffn_up.weight", ("f16", "q8_0")[block % 2], (64, 64)) for block in range(200)]
    many = {**METADATA, "llama.block_count": 200, "llama.attention.head_count_kv": [2, 7] * 100}
    path.write_bytes(file(many, tensors))
    text = shell("gguf", str(path), "--shape").stdout
    assert max(map(len, text.splitlines())) <= 100
    shape = Shape.from_dict(yaml.safe_load(text)["shape"])
    read = read_model(str(path), FileSource).shape
    assert (shape.by_name, shape.metadata) == (read.by_name, read.metadata)


def test_programs_get_the_same_in_an_envelope(shell: Shell, model: Path) -> None:
    data = shell.json("gguf", str(model))["data"]
    assert data["architecture"] == "qwen35moe"
    assert data["bytes"] == model.stat().st_size
    assert data["experts"] == {"count": 256, "used": 8, "shared": 1}
    assert [layer["kind"] for layer in data["layers"]] == [*["recurrent"] * 3, "full"] * 2 + ["full"]
    assert data["layers_unknown"] is None
    assert not {"tensors", "shape"} & data.keys()
    more = shell.json("gguf", str(model), "--tensors", "--shape")["data"]
    assert len(more["tensors"]) == len(QWEN_TENSORS)
    assert more["shape"] == read_model(str(model), FileSource).shape.to_dict()


@pytest.mark.parametrize(
    ("content", "message", "remedy"),
    [
        (None, "there is no file", "look at the name"),
        (b"<!DOCTYPE html>", "is a web page, no GGUF model", "download address"),
        (file()[:99], "the file ends at byte 99", "fetch the file again"),
        (file()[:-1], "is incomplete", "fetch the file again"),
    ],
)
def test_what_is_no_model_is_an_error_with_a_remedy(
    shell: Shell, tmp_path: Path, content: bytes | None, message: str, remedy: str
) -> None:
    path = tmp_path / "m.gguf"
    if content is not None:
        path.write_bytes(content)
    result = shell("gguf", str(path))
    assert result.exit_code == ExitCode.FAILED
    assert message in result.stderr
    assert remedy in result.stderr
    assert not result.stdout
    error = shell.json("gguf", str(path))["error"]
    assert error["code"] in {"gguf", "missingfile"}
    assert message in error["message"]


def test_a_name_that_would_steer_the_terminal_is_shown_as_it_is_written(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(file({**METADATA, "general.name": "evil\x1b[2Jname"}))
    assert said(shell("gguf", str(path)).stdout)["name"] == [r"evil\x1b[2Jname"]


def test_a_model_of_the_hub_is_read_without_being_fetched(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    commit, sha256 = "0a" * 20, "0b" * 32
    with serving() as site:
        monkeypatch.setenv("HF_ENDPOINT", site.address)
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        site.files["/cdn"] = file()
        said_by_hub = {"X-Repo-Commit": commit, "X-Linked-ETag": f'"{sha256}"'}
        site.redirect("/owner/repo/resolve/main/m.gguf", "/cdn", headers=said_by_hub)
        result = shell("gguf", "hf:owner/repo/m.gguf")
        assert result.exit_code == ExitCode.OK, result.stderr
        summary = said(result.stdout)
        assert (summary["revision"], summary["sha256"]) == ([commit], [sha256])
        assert {given for _, _, given in site.asked} == {"Bearer hf_secret"}
        monkeypatch.setenv("HF_TOKEN", "two words")
        assert "HF_TOKEN is no token" in shell("gguf", "hf:owner/repo/m.gguf").stderr


def test_a_remote_file_that_is_not_there_is_an_error_with_a_remedy(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving() as site:
        result = shell("gguf", f"{site.address}/m.gguf")
        assert result.exit_code == ExitCode.FAILED
        assert "127.0.0.1 answers 404 Not Found" in result.stderr
