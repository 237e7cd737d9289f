"""The image's entrypoint, in the shells that images have, in front of a llama-server that says what it was given."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.contract.tree import ROOT

ENTRYPOINT = ROOT / "templates/llama_image/entrypoint.sh"
STAND_IN = """#!/bin/sh
printf '%s\\0' "$@"
printf 'ENVIRONMENT\\0'
env -0
"""
# What fetches a file with a token: it leaves behind what it was given, and fails on demand.
FETCHER = """#!/bin/sh
echo noise
printf '%s ' "$@" >fetched
printf '%s' "$HF_TOKEN $LLAMA_ARG_MODEL_URL" >>fetched
case $LLAMA_ARG_MODEL_URL in
  *missing*) echo "Download failed with status code: 404" >&2; exit 1 ;;
  *slow*) exec sleep 60 ;;
esac
"""


@dataclass(frozen=True)
class Said:
    code: int
    argv: list[str]
    environment: dict[str, str]
    error: str


Start = Callable[..., Said]


@pytest.fixture(params=["dash", "bash", "bash --posix"])
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Start:
    shell = str(request.param).split()
    if shutil.which(shell[0]) is None:
        pytest.skip(f"there is no {shell[0]} here")
    place = tmp_path / "bin"
    place.mkdir()
    for name, text in (("llama-server", STAND_IN), ("llama-tokenize", FETCHER)):
        (place / name).write_text(text, encoding="utf-8")
        (place / name).chmod(0o755)

    def run(*argv: str, stop_after: str = "", **environment: str) -> Said:
        stopped = ["timeout", "--foreground", "--preserve-status", stop_after] if stop_after else []
        done = subprocess.run(
            [*stopped, *shell, str(ENTRYPOINT), *argv],
            capture_output=True,
            check=False,
            cwd=tmp_path,
            env={"PATH": f"{place}:{os.environ['PATH']}", "HOME": "/home/nobody", **environment},
        )
        words, _, rest = done.stdout.decode().partition("ENVIRONMENT\0")
        pairs = [pair.partition("=") for pair in rest.split("\0") if pair]
        return Said(
            done.returncode,
            words.split("\0")[:-1],
            {name: value for name, _, value in pairs},
            done.stderr.decode(),
        )

    return run


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "a model.gguf"
    path.write_bytes(b"GGUF")
    return str(path)


LISTENING = ["--host", "0.0.0.0", "--port", "8080"]  # noqa: S104  inside a container


def test_arguments_without_a_model_are_handed_on_as_they_are(start: Start) -> None:
    words = ["--version", "--api-key", "k", "a b", "", "$HOME", "*", "'", '"', "\\", "-m", "é\n"]
    said = start(*words)
    assert (said.code, said.argv) == (0, words)


def test_extra_options_are_not_added_to_a_plans_command_line(start: Start) -> None:
    assert start("--version", LLAMA_SERVER_EXTRA_ARGS="--ctx-size 1", LLAMA_SERVER_PORT="1").argv == ["--version"]


def test_nothing_to_serve_is_an_error_that_names_what_to_set(start: Start) -> None:
    said = start(LLAMA_MODEL="", LLAMA_HF_REPO="")
    assert said.code == 64
    assert said.argv == []
    assert "neither LLAMA_MODEL nor LLAMA_HF_REPO is set" in said.error
    assert "remedy: set LLAMA_MODEL" in said.error


def test_a_model_file_is_served_on_every_address_of_the_container(start: Start, model: str) -> None:
    assert start(LLAMA_MODEL=model).argv == ["--model", model, *LISTENING]


def test_host_and_port_can_be_chosen(start: Start, model: str) -> None:
    said = start(LLAMA_MODEL=model, LLAMA_SERVER_HOST="::", LLAMA_SERVER_PORT="9000")
    assert said.argv == ["--model", model, "--host", "::", "--port", "9000"]


@pytest.mark.parametrize("port", ["http", "0", "65536", "123456", "-1", "80 80"])
def test_a_port_that_is_none_is_refused(start: Start, model: str, port: str) -> None:
    said = start(LLAMA_MODEL=model, LLAMA_SERVER_PORT=port)
    assert said.code == 64
    assert f"LLAMA_SERVER_PORT is '{port}'" in said.error


def test_a_model_that_is_not_there_is_refused_with_what_to_mount(start: Start, tmp_path: Path) -> None:
    for path in (str(tmp_path / "none.gguf"), str(tmp_path)):
        said = start(LLAMA_MODEL=path)
        assert said.code == 64
        assert f"LLAMA_MODEL is '{path}'" in said.error
        assert "mount" in said.error


def test_a_model_and_a_repository_exclude_each_other(start: Start, model: str) -> None:
    said = start(LLAMA_MODEL=model, LLAMA_HF_REPO="org/model")
    assert said.code == 64
    assert "are both set" in said.error


def test_a_repository_is_left_to_the_engine(start: Start) -> None:
    assert start(LLAMA_HF_REPO="org/model:Q8_0").argv == ["--hf-repo", "org/model:Q8_0", *LISTENING]


def test_a_file_of_a_repository_can_be_named(start: Start) -> None:
    said = start(LLAMA_HF_REPO="org/model", LLAMA_HF_FILE="a/b.gguf")
    assert said.argv == ["--hf-repo", "org/model", "--hf-file", "a/b.gguf", *LISTENING]


PINNED = {"LLAMA_HF_REPO": "org/model", "LLAMA_HF_FILE": "a/b.gguf", "LLAMA_HF_REVISION": "v1.0"}


def test_a_revision_is_pinned_by_the_address_of_the_file(start: Start) -> None:
    said = start(**PINNED, LLAMA_CACHE="/cache/")
    assert said.argv == ["--model", "/cache/revisions/org/model/v1.0/a/b.gguf", *LISTENING]
    assert said.environment["LLAMA_ARG_MODEL_URL"] == "https://huggingface.co/org/model/resolve/v1.0/a/b.gguf"


def test_two_revisions_of_a_file_have_two_places(start: Start) -> None:
    """The engine takes a file that it has where the hub does not answer: it must not be another revision's."""
    places = {start(**{**PINNED, "LLAMA_HF_REVISION": revision}).argv[1] for revision in ("a", "b")}
    assert places == {f"/home/nobody/.cache/llama.cpp/revisions/org/model/{name}/a/b.gguf" for name in ("a", "b")}


@pytest.mark.parametrize("name", ["HF_ENDPOINT", "MODEL_ENDPOINT"])
def test_a_revision_comes_from_the_hub_that_the_engine_would_ask(start: Start, name: str) -> None:
    said = start(**{**PINNED, "LLAMA_HF_REVISION": "refs/pr/1", name: "http://me:secret@hub.example:8080/"})
    address = "http://me:secret@hub.example:8080/org/model/resolve/refs%2Fpr%2F1/a/b.gguf"
    assert said.environment["LLAMA_ARG_MODEL_URL"] == address
    assert "secret" not in " ".join(said.argv)


def test_with_a_token_a_revision_is_fetched_before_it_is_served(start: Start, tmp_path: Path) -> None:
    """llama-server sends its token to the hub's pages alone, not to the address of a file."""
    said = start(**PINNED, LLAMA_HF_TOKEN="hf_secret", LLAMA_CACHE="/cache", LLAMA_SERVER_EXTRA_ARGS="--jinja")
    place = "/cache/revisions/org/model/v1.0/a/b.gguf"
    address = "https://huggingface.co/org/model/resolve/v1.0/a/b.gguf"
    assert (tmp_path / "fetched").read_text("utf-8") == f"--model {place} --prompt x hf_secret {address}"
    assert said.argv == ["--model", place, *LISTENING, "--jinja"]
    assert "LLAMA_ARG_MODEL_URL" not in said.environment


def test_a_file_that_cannot_be_fetched_is_not_served(start: Start) -> None:
    said = start(**{**PINNED, "LLAMA_HF_FILE": "missing.gguf"}, LLAMA_HF_TOKEN="hf_secret")
    assert (said.code, said.argv) == (64, [])
    assert "status code: 404" in said.error
    assert "missing.gguf of org/model at v1.0 cannot be fetched" in said.error


def test_a_fetch_ends_when_the_container_is_stopped(start: Start) -> None:
    began = time.monotonic()
    said = start(**{**PINNED, "LLAMA_HF_FILE": "slow.gguf"}, LLAMA_HF_TOKEN="hf_secret", stop_after="0.5")
    assert (said.code, said.argv) == (143, [])
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"LLAMA_HF_REPO": "o/m", "LLAMA_HF_REVISION": "v1"}, "LLAMA_HF_REVISION is set, and LLAMA_HF_FILE is not"),
        ({"LLAMA_HF_REVISION": "v1"}, "LLAMA_HF_REPO is not"),
        ({"LLAMA_HF_FILE": "f.gguf"}, "LLAMA_HF_REPO is not"),
        ({"LLAMA_HF_REPO": "o/m:Q4", "LLAMA_HF_FILE": "f", "LLAMA_HF_REVISION": "v1"}, "take off :Q4"),
        ({"LLAMA_HF_REPO": "o/m", "LLAMA_HF_FILE": "../f", "LLAMA_HF_REVISION": "v1"}, "LLAMA_HF_FILE is '../f'"),
        ({"LLAMA_HF_REPO": "o/m", "LLAMA_HF_FILE": "f", "LLAMA_HF_REVISION": "a/../b"}, "LLAMA_HF_REVISION is"),
        ({"LLAMA_HF_REPO": "o/m", "LLAMA_HF_FILE": "f", "LLAMA_HF_REVISION": "a?b"}, "LLAMA_HF_REVISION is"),
        ({"LLAMA_HF_REPO": "/o/m", "LLAMA_HF_FILE": "f", "LLAMA_HF_REVISION": "v1"}, "LLAMA_HF_REPO is"),
    ],
)
def test_what_cannot_be_pinned_is_refused(start: Start, given: dict[str, str], says: str) -> None:
    said = start("--ctx-size", "1", **given)
    assert said.code == 64
    assert says in said.error
    assert "remedy: " in said.error


def test_a_token_reaches_the_engine_by_the_environment_alone(start: Start) -> None:
    for given in ({"LLAMA_HF_REPO": "o/m"}, PINNED):
        said = start(LLAMA_HF_TOKEN="hf_secret", **given)
        assert "hf_secret" not in " ".join(said.argv)
        assert said.environment["HF_TOKEN"] == "hf_secret"
        assert "LLAMA_HF_TOKEN" not in said.environment


def test_a_token_that_is_there_already_is_kept(start: Start) -> None:
    assert start(LLAMA_HF_REPO="o/m", LLAMA_HF_TOKEN="", HF_TOKEN="mine").environment["HF_TOKEN"] == "mine"


@pytest.mark.parametrize("words", ["--api-key k", "--api-key=k", "-hft k", "--hf-token k", "--hf-token=k"])
def test_a_secret_among_the_options_is_refused(start: Start, model: str, words: str) -> None:
    for said in (start(LLAMA_MODEL=model, LLAMA_SERVER_EXTRA_ARGS=words), start(*words.split(), LLAMA_MODEL=model)):
        assert said.code == 64
        assert said.argv == []
        assert "can be read by everybody" in said.error


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("--ctx-size 4096 --jinja", ["--ctx-size", "4096", "--jinja"]),
        ("  a\t b\nc  ", ["a", "b", "c"]),
        ("", []),
        ("'a b' \"c d\" e\\ f", ["a b", "c d", "e f"]),
        ("''  \"\" x", ["", "", "x"]),
        ("a'b'\"c\"d", ["abcd"]),
        ("'\"' \"'\"", ['"', "'"]),
        (r'"a\"b" "c\\d" "e\f"', ['a"b', r"c\d", r"e\f"]),
        (r"'a\b'", [r"a\b"]),
        ("$HOME `id` $(id) * ? ~ # ; & | > x", ["$HOME", "`id`", "$(id)", "*", "?", "~", "#", ";", "&", "|", ">", "x"]),
        (
            """--chat-template-kwargs '{"enable_thinking": false}'""",
            ["--chat-template-kwargs", '{"enable_thinking": false}'],
        ),
        ("naïve 'ü ber' 模型", ["naïve", "ü ber", "模型"]),
        ("-n -e --", ["-n", "-e", "--"]),
    ],
)
def test_extra_options_are_split_as_a_shell_does_and_never_run(
    start: Start, model: str, text: str, words: list[str]
) -> None:
    said = start(LLAMA_MODEL=model, LLAMA_SERVER_EXTRA_ARGS=text)
    assert said.code == 0, said.error
    assert said.argv == ["--model", model, *LISTENING, *words]


@pytest.mark.parametrize(
    ("text", "says"), [("a 'b", "has a ' without its end"), ('a "b', 'has a "'), ("a\\", "backslash")]
)
def test_extra_options_without_an_end_are_refused(start: Start, model: str, text: str, says: str) -> None:
    said = start(LLAMA_MODEL=model, LLAMA_SERVER_EXTRA_ARGS=text)
    assert said.code == 64
    assert says in said.error


def test_arguments_of_the_container_come_last(start: Start, model: str) -> None:
    said = start("--port", "1 2", "", LLAMA_MODEL=model, LLAMA_SERVER_EXTRA_ARGS="--ctx-size 1")
    assert said.argv == ["--model", model, *LISTENING, "--ctx-size", "1", "--port", "1 2", ""]


def test_the_engine_takes_the_shells_place(start: Start, model: str) -> None:
    """Signals must reach it: every way out is an exec."""
    assert start(LLAMA_MODEL=model).code == 0
    lines = ENTRYPOINT.read_text(encoding="utf-8").splitlines()
    calls = [line.strip() for line in lines if re.match(r"\s*(exec )?llama-server\b", line)]
    assert calls == ['exec llama-server "$@"'] * 2


def test_no_value_is_ever_code() -> None:
    text = ENTRYPOINT.read_text(encoding="utf-8")
    code = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    assert not [line for line in code if re.search(r"\beval\b|\bxargs\b", line)]


def variables() -> set[str]:
    """What the entrypoint's own head says that it reads."""
    return set(re.findall(r"^#   (LLAMA_\w+) ", ENTRYPOINT.read_text(encoding="utf-8"), re.MULTILINE))


def test_the_example_of_compose_and_its_page_know_every_variable() -> None:
    project = yaml.safe_load((ROOT / "docs/examples/compose.yaml").read_text(encoding="utf-8"))
    service = project["services"]["llama-server"]
    page = (ROOT / "docs/how-to/serve-without-ansible.md").read_text(encoding="utf-8")
    assert len(variables()) == 8
    assert set(service["environment"]) == variables() | {"LLAMA_API_KEY"}
    assert {name for name in variables() if f"| `{name}` |" not in page} == set()


def test_the_example_of_compose_is_locked_in_as_a_service_of_a_plan_is() -> None:
    project = yaml.safe_load((ROOT / "docs/examples/compose.yaml").read_text(encoding="utf-8"))
    service = project["services"]["llama-server"]
    assert service["profiles"] == ["llama"]
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    cards = yaml.safe_load((ROOT / "docs/examples/compose.cuda.yaml").read_text(encoding="utf-8"))
    assert list(cards["services"]) == list(project["services"])
