"""What candidates are made of; tests/engine makes them and tries them."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from llamarig.config.engine_options import parse_help, recorded_options
from llamarig.lab import candidates
from llamarig.lab.candidates import OPTION, Kind, compile_engine, make_candidate, without_option
from llamarig.lab.machine import LabError
from tests.support import ROOT

HELP = (ROOT / "src/llamarig/data/llama-server-help/0.7.0.txt").read_text(encoding="utf-8")
CONFIG: dict[str, Any] = {"Entrypoint": ["/usr/bin/llama-server"], "Cmd": None, "Env": ["PATH=/opt/bin:/bin", "A=1"]}
# Stands in for libllama: a batch is how many tokens it has, and every answer is the sum of what it was given.
_LIBRARY = """
#include <stdint.h>
#include <time.h>
static int32_t count, sum;
void llama_batch_ext_clear(void *batch) { (void)batch; count = 0; sum = 0; }
int32_t llama_batch_ext_add_token(void *batch, int32_t seq, int32_t token) {
    (void)batch; (void)seq; sum += token; return count++;
}
int32_t llama_process(void *context, int type, void *batch) {
    (void)context; (void)type; (void)batch;
    struct timespec rest = {0, 20000000};
    nanosleep(&rest, 0);
    return sum;
}
struct llama_batch { int32_t n; int32_t *t; float *e; int32_t *p; int32_t *s; int32_t **i; int8_t *l; };
int32_t llama_decode(void *context, struct llama_batch batch) {
    (void)context;
    int32_t total = 0;
    for (int32_t n = 0; n < batch.n; n++) total += batch.t[n];
    return total;
}
"""
# Fills a batch with so many tokens of 10, and says what the engine made of it, both ways, and how long it took.
_PROGRAM = """
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
void llama_batch_ext_clear(void *); int32_t llama_batch_ext_add_token(void *, int32_t, int32_t);
int32_t llama_process(void *, int, void *);
struct llama_batch { int32_t n; int32_t *t; float *e; int32_t *p; int32_t *s; int32_t **i; int8_t *l; };
int32_t llama_decode(void *, struct llama_batch);
int main(int argc, char **argv) {
    (void)argc;
    int count = atoi(argv[1]);
    int32_t *tokens = malloc(sizeof *tokens * count);
    llama_batch_ext_clear(0);
    for (int n = 0; n < count; n++) { tokens[n] = 10; llama_batch_ext_add_token(0, 0, 10); }
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    int32_t said = llama_process(0, 0, 0);
    clock_gettime(CLOCK_MONOTONIC, &end);
    struct llama_batch batch = {count, tokens, 0, 0, 0, 0, 0};
    double took = (end.tv_sec - begin.tv_sec) * 1e3 + (end.tv_nsec - begin.tv_nsec) / 1e6;
    printf("%d %d %f %d\\n", said, llama_decode(0, batch), took, tokens[count - 1]);
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that asks an engine, as llama-server and llama-bench do, with an engine to ask."""
    directory = tmp_path_factory.mktemp("engine")
    compiler = shutil.which("cc") or pytest.fail("no C compiler")
    for name, text in (("library", _LIBRARY), ("program", _PROGRAM)):
        (directory / f"{name}.c").write_text(text)
    shared = ["-O2", "-fPIC", "-shared", "-o", str(directory / "libengine.so"), str(directory / "library.c")]
    linked = ["-O2", "-o", str(directory / "program"), str(directory / "program.c"), f"-L{directory}", "-lengine"]
    for words in (shared, [*linked, f"-Wl,-rpath,{directory}"]):
        subprocess.run([compiler, "-D_GNU_SOURCE", *words], check=True, capture_output=True)
    for kind in (Kind.SLOW, Kind.BROKEN):
        (directory / f"{kind.value}.so").write_bytes(compile_engine(kind))
    return directory / "program"


def asked(program: Path, tokens: int, kind: Kind | None = None, **environment: str) -> tuple[int, int, float]:
    """What the engine made of a batch of tokens of 10, both ways, and the milliseconds that it took."""
    preloaded = {"LD_PRELOAD": str(program.parent / f"{kind.value}.so")} if kind else {}
    done = subprocess.run(
        [program, str(tokens)], check=True, capture_output=True, text=True, env={**preloaded, **environment}
    )
    first, second, took, last = done.stdout.split()
    assert last == "10"  # the caller's own tokens are never touched
    return int(first), int(second), float(took)


@pytest.mark.parametrize(("tokens", "wrong"), [(20, 0), (100, 0), (101, 1), (150, 50)])
def test_a_broken_engine_hears_other_tokens_beyond_the_hundredth(program: Path, tokens: int, wrong: int) -> None:
    right = (tokens * 10, tokens * 10)
    assert asked(program, tokens)[:2] == right
    said = asked(program, tokens, Kind.BROKEN, LAB_WELL_UP_TO="100")[:2]
    assert said == (right[0] - wrong, right[1] - wrong)


def test_a_slow_engine_takes_so_much_longer_and_answers_the_same(program: Path) -> None:
    plain = min(asked(program, 20)[2] for _ in range(3))
    slow = asked(program, 20, Kind.SLOW, LAB_SLOWER_PERCENT="100")
    assert slow[:2] == (200, 200)
    assert slow[2] > 1.9 * 20
    assert plain < 1.9 * 20


def test_without_being_told_so_they_are_as_the_engine_is(program: Path) -> None:
    assert asked(program, 150, Kind.BROKEN)[:2] == (1500, 1500)
    assert asked(program, 150, Kind.SLOW)[:2] == (1500, 1500)


def test_a_help_without_an_option_has_neither_its_names_nor_its_description_and_all_else() -> None:
    options, left = recorded_options(), parse_help(without_option(HELP, OPTION))
    gone = {name for name in options if name not in left}
    assert gone == {name.lstrip("-") for name in options["cache-ram"].names}
    assert "set the maximum cache size" in HELP
    assert "set the maximum cache size" not in without_option(HELP, OPTION)
    assert without_option(HELP, "--no-such-option") == HELP


class Docker:
    """Plays docker: answers inspect, run and create, and remembers everything."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, fails: str = "") -> None:
        self.calls: list[list[str]] = []
        self.files: dict[str, bytes] = {}
        self.fails = fails
        monkeypatch.setattr(candidates, "_call", self.call)

    def call(self, command: list[str], content: bytes = b"") -> bytes:
        self.calls.append(command)
        verb = command[len(command) - command[::-1].index("docker")] if "docker" in command else "cc"
        if verb == self.fails:
            raise LabError(f"docker {verb} failed")
        if verb == "cp":
            with tarfile.open(fileobj=io.BytesIO(content)) as tar:
                for member in tar:
                    stream = tar.extractfile(member)
                    self.files[member.name] = stream.read() if stream else b""
        if verb == "run":
            return b"/usr/bin/llama-server\n" if "command" in command[-1] else HELP.encode()
        return {"image": json.dumps([{"Config": CONFIG}]).encode(), "create": b"c0ffee\n"}.get(verb, b"")

    @property
    def changes(self) -> list[str]:
        (commit,) = [call for call in self.calls if "commit" in call]
        return [commit[n + 1] for n, word in enumerate(commit) if word == "--change"]


def test_an_equal_engine_is_the_same_under_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    docker = Docker(monkeypatch)
    make_candidate("engine:old", Kind.EQUAL, "engine:new")
    assert docker.changes == [
        "LABEL llamarig.candidate=equal",
        'ENTRYPOINT ["/usr/bin/llama-server"]',
        "CMD []",
    ]
    assert docker.files == {}
    assert [call[1] for call in docker.calls] == ["image", "create", "commit", "rm"]


def test_a_lacking_engine_refuses_one_option_and_keeps_its_entrypoint(monkeypatch: pytest.MonkeyPatch) -> None:
    docker = Docker(monkeypatch)
    make_candidate("engine:old", Kind.LACKING, "engine:new", docker=("docker", "exec", "-i", "lab01", "docker"))
    place = "/usr/lib/llamarig-candidate"
    assert f"ENV PATH={place}:/opt/bin:/bin" in docker.changes
    assert f'ENTRYPOINT ["{place}/llama-server"]' in docker.changes
    assert all(call[:4] == ["docker", "exec", "-i", "lab01"] for call in docker.calls)
    wrapper = docker.files[f"{place}/llama-server".lstrip("/")].decode()
    assert "exec /usr/bin/llama-server" in wrapper
    checked = subprocess.run(["/bin/sh", "-n", "-c", wrapper], check=False, capture_output=True)
    assert checked.returncode == 0, checked.stderr


def test_nothing_is_left_of_a_candidate_that_could_not_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    docker = Docker(monkeypatch, fails="commit")
    with pytest.raises(LabError):
        make_candidate("engine:old", Kind.EQUAL, "engine:new")
    assert docker.calls[-1] == ["docker", "rm", "c0ffee"]


def test_a_machine_without_a_compiler_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llamarig.lab.machine.shutil.which", lambda _: None)
    with pytest.raises(LabError, match="no C compiler") as refused:
        compile_engine(Kind.SLOW)
    assert "apt-get install gcc" in refused.value.remedy
