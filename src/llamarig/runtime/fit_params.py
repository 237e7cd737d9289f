"""The engine as judge: ``llama-fit-params`` in a service's own image says what each device would hold.

It builds the model without a byte of weights, so it takes seconds, and needs the cards only as a server would see them.
Three things it says otherwise than a server does, and what is made of them:

- It reserves logits for every row of a batch, a server for one row of each slot; ``corrected`` takes that off.
- Weights that the CPU would rearrange (buffers CPU_REPACK and AMX) are missing from its host, and multi-head latent
  attention on the CPU aborts it where they exist: ``--no-repack`` is always added.
- It knows no vision projector, which ``corrected`` adds, and no unified cache or draft model: ``unseen`` names those.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final, Protocol

from llamarig.config import paths
from llamarig.config.spec import Spec
from llamarig.errors import LlamarigError
from llamarig.runtime.breakdown import HOST, Breakdown, Part
from llamarig.runtime.confinement import Container, docker_said, engine_words

TOOL: Final = "llama-fit-params"
# A search for a layout (strategy fit) took 42 s on a busy CPU; an estimate takes up to 4.
LIMIT_SECONDS: Final = 120.0
# It holds 55 MB with the header of a model of 600 GB; a CUDA context of each card comes to that.
MEMORY_MIB: Final = 2048
_MIB: Final = 1 << 20
_DOCKER: Final = "/usr/bin/docker"
_AUTO_SLOTS: Final = "4"
_DOCKER_FAILED: Final = 125
_NO_TOOL: Final = (126, 127)
_ROW: Final = re.compile(r"^(\S+) (\d+) (\d+) (\d+)\s*$", re.MULTILINE)
_ERROR: Final = re.compile(r"^(?:\S+ E (?P<logged>.*)|(?P<printed>error\b.*))$")
_ASSERTION: Final = re.compile(r"\S*: ?GGML_ASSERT\(.*|.*GGML_ABORT.*")
_DRIVER: Final = re.compile(r".*(CUDA error|failed to initialize CUDA).*")

# Options that decide memory and that the tool knows as a server does, each with a value after it.
VALUED: Final = frozenset(
    {
        "--batch-size",
        "--cache-type-k",
        "--cache-type-v",
        "--control-vector",
        "--control-vector-scaled",
        "--ctx-size",
        "--device",
        "--fit",
        "--fit-ctx",
        "--fit-target",
        "--flash-attn",
        "--gpu-layers",
        "--lazy-mode",
        "--load-mode",
        "--lora",
        "--lora-scaled",
        "--main-gpu",
        "--model",
        "--moe-cache-mib",
        "--n-cpu-ffn",
        "--n-cpu-moe",
        "--override-kv",
        "--override-tensor",
        "--parallel",
        "--rpc",
        "--split-mode",
        "--tensor-split",
        "--ubatch-size",
    }
)
# The same without a value.
KEPT_SWITCHES: Final = frozenset(
    {
        "--cpu-moe",
        "--kv-offload",
        "--no-host",
        "--no-kv-offload",
        "--no-op-offload",
        "--op-offload",
        "--swa-full",
    }
)
# All other options of llama-server without a value; whatever is in none of these lists has one.
SWITCHES: Final = frozenset(
    {
        "--agent",
        "--backend-sampling",
        "--cache-idle-slots",
        "--cache-list",
        "--cache-prompt",
        "--check-tensors",
        "--completion-bash",
        "--cont-batching",
        "--context-shift",
        "--cors-credentials",
        "--embd-gemma-default",
        "--embedding",
        "--escape",
        "--fim-qwen-1.5b-default",
        "--fim-qwen-14b-spec",
        "--fim-qwen-30b-default",
        "--fim-qwen-3b-default",
        "--fim-qwen-7b-default",
        "--fim-qwen-7b-spec",
        "--gpt-oss-120b-default",
        "--gpt-oss-20b-default",
        "--help",
        "--ignore-eos",
        "--jinja",
        "--kv-unified",
        "--list-devices",
        "--log-disable",
        "--log-jsonl",
        "--log-prefix",
        "--log-timestamps",
        "--lora-init-without-apply",
        "--metrics",
        "--mmproj-auto",
        "--mmproj-offload",
        "--models-autoload",
        "--offline",
        "--perf",
        "--prefill-assistant",
        "--props",
        "--reasoning-preserve",
        "--repack",
        "--rerank",
        "--reuse-port",
        "--skip-chat-parsing",
        "--slots",
        "--spec-default",
        "--spec-draft-backend-sampling",
        "--spec-draft-cpu-moe",
        "--special",
        "--spm-infill",
        "--ui",
        "--ui-mcp-proxy",
        "--verbose",
        "--version",
        "--vision-gemma-12b-default",
        "--vision-gemma-4b-default",
        "--warmup",
    }
)
# What decides memory and the tool does not know; a vision projector is added by its size.
UNSEEN: Final = frozenset({"--kv-unified", "--kv-unified-per-slot", "--mmproj", "--spec-draft-model", "--spec-type"})
_FITTING: Final = frozenset({"--fit", "--fit-ctx", "--fit-target"})


class JudgeError(LlamarigError):
    """The engine could not be asked: Docker refuses, or it did not answer in time. Another time it may."""


class Answer(StrEnum):
    """How the engine answered; every answer but the first is its word on the spec, and stays."""

    ESTIMATED = "estimated"
    NO_LAYOUT = "no layout"
    REFUSED = "refused"
    ENGINE_BUG = "engine bug"


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: arguments as a server has them.

    Attributes:
        words: those that the tool knows and that decide memory.
        unseen: options that decide memory and that it does not know.

    """

    words: list[str]
    unseen: list[str] = field(default_factory=list)

    @property
    def fits_itself(self) -> bool:
        """Whether the engine chooses the layout itself, by what is free when it is asked."""
        return value_of(self.words, "--fit") == "on"


@dataclass(frozen=True, slots=True)
class Estimate:
    """What the engine said.

    Attributes:
        answer: how it answered.
        parts: what each device would hold in whole MiB, rounded down, exactly as the tool says it; None without one.
        text: the engine's own words where it gave no estimate.
        words: the arguments it was asked with; of strategy fit, those that it chose itself.
        unseen: options that decide memory and that it does not know.
        seconds: how long it took.

    """

    answer: Answer
    parts: Breakdown | None
    text: str
    words: list[str]
    unseen: list[str]
    seconds: float


class Judge(Protocol):
    """Asks the engine."""

    def estimate(self, spec: Spec) -> Estimate:
        """Ask what each device would hold of a service.

        Raises:
            JudgeError: it could not be asked.

        """


def question(spec: Spec) -> Question:
    """Return what to ask for exactly the memory that a spec's server would take."""
    options = list(split_options(spec.argv))
    words = [word for option in options if option[0] in VALUED | KEPT_SWITCHES for word in option]
    slots = value_of(words, "--parallel")
    automatic = slots is None or slots.startswith("-")
    if automatic:
        # A server then has four slots over one cache (llama-server --help, --parallel); the tool would have one.
        words = [*_without(words, {"--parallel"}), "--parallel", _AUTO_SLOTS]
    unseen = sorted({option[0] for option in options if option[0] in UNSEEN and option[1:] != ["none"]})
    if slots == "1":
        unseen = [name for name in unseen if not name.startswith("--kv-unified")]
    elif automatic:
        unseen = sorted({*unseen, "--kv-unified"})
    return Question([*words, "--no-repack"], unseen)


def split_options(argv: Sequence[str]) -> Iterator[list[str]]:
    """Yield each option of a server's arguments with its value."""
    words = iter(argv)
    for word in words:
        is_switch = word in KEPT_SWITCHES or word in SWITCHES or word.startswith("--no-")
        yield [word] if is_switch else [word, *([value] if (value := next(words, None)) is not None else [])]


def value_of(words: Sequence[str], option: str) -> str | None:
    """Return an option's last value, which is the one that counts."""
    values = [option_words[1] for option_words in split_options(words) if option_words[0] == option]
    return values[-1] if values else None


def _without(words: Sequence[str], left_out: frozenset[str] | set[str]) -> list[str]:
    return [word for option in split_options(words) if option[0] not in left_out for word in option]


class DockerJudge:
    """The judge over the Docker command: a container for each question, with nothing that a service lacks."""

    def __init__(self, limit_seconds: float = LIMIT_SECONDS) -> None:
        self.limit_seconds = limit_seconds

    def estimate(self, spec: Spec) -> Estimate:
        """Ask what each device would hold of a service; of strategy fit, first which layout it would choose."""
        asked, start = question(spec), time.monotonic()
        words = asked.words
        if asked.fits_itself:
            done = self._run(spec, words)
            chosen = [line for line in done.stdout.splitlines() if line.startswith("-")]
            if done.returncode != 0 or not chosen:
                answer, text = _fault(done)
                answer = Answer.NO_LAYOUT if "failed to fit" in done.stderr else answer
                return Estimate(answer, None, text, words, asked.unseen, _since(start))
            words = [*_without(words, _FITTING), *shlex.split(chosen[-1]), "--fit", "off"]
        done = self._run(spec, [*words, "--fit-print", "on"])
        parts = read_estimate(done.stdout) if done.returncode == 0 else None
        if parts is not None:
            return Estimate(Answer.ESTIMATED, parts, "", words, asked.unseen, _since(start))
        answer, text = _fault(done)
        return Estimate(answer, None, text, words, asked.unseen, _since(start))

    def _run(self, spec: Spec, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
        command = run_command(spec, words)
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                timeout=self.limit_seconds,
            )
        except FileNotFoundError as error:
            raise JudgeError(f"{_DOCKER} is not there", "run playbooks/site.yml for this host") from error
        except subprocess.TimeoutExpired as error:
            with contextlib.suppress(subprocess.TimeoutExpired):
                subprocess.run([_DOCKER, "rm", "--force", _name()], capture_output=True, check=False, timeout=30)
            msg = f"{spec.service}: {TOOL} did not answer within {self.limit_seconds:g} s"
            raise JudgeError(msg, "ask again when the host is less busy: sudo llamarig plan --check") from error
        if done.returncode in _NO_TOOL and TOOL in done.stderr:
            raise JudgeError(f"{spec.image} has no {TOOL}", "build the engine's image with it: playbooks/site.yml")
        if done.returncode == _DOCKER_FAILED:
            remedy = "sudo llamarig doctor: see checks compute and cdi" if spec.gpus else "sudo docker info"
            raise JudgeError(f"{spec.service}: no container starts: {docker_said(done.stderr)}", remedy)
        if spec.gpus and (trouble := _DRIVER.search(done.stderr)):
            msg = f"{spec.service}: {TOOL} cannot use the cards: {trouble[0].strip()}"
            raise JudgeError(msg, "sudo llamarig doctor: see check compute; or stop what fills the cards")
        return done


def run_command(spec: Spec, words: Sequence[str]) -> list[str]:
    """Return the ``docker run`` that asks: the service's image, models and cards, confined as the service is."""
    container = Container(
        name=_name(),
        image=spec.image,
        program=TOOL,
        words=words,
        models_dir=spec.models_dir,
        gpus=spec.gpus,
        memory_mib=MEMORY_MIB,
    )
    return [_DOCKER, "run", "--rm", *engine_words(container)]


def read_estimate(text: str) -> Breakdown | None:
    """Read lines of ``DEVICE model context compute`` in MiB; None where the host's is missing, which comes last."""
    rows = [Part(name, int(model), int(context), int(compute)) for name, model, context, compute in _ROW.findall(text)]
    if not rows or rows[-1].name != HOST:
        return None
    return Breakdown(tuple(rows[:-1]), rows[-1])


def corrected(spec: Spec, parts: Breakdown, words: Sequence[str]) -> Breakdown:
    """Return an estimate as a server would have it.

    Where the output is, on a device or with all layers on the host, it is less by the logits that a server does not
    reserve (``spec.memory.logits``), never below 0; on the first device it is more by the vision projector's file.
    """
    devices, host = list(parts.devices), parts.host
    logits = spec.memory.logits if spec.memory is not None else 0
    if devices:
        output = _output_device(words, len(devices))
        devices[output] = replace(devices[output], compute=max(devices[output].compute - logits, 0))
    else:
        host = replace(host, compute=max(host.compute - logits, 0))
    projector = projector_mib(spec)
    on_device = bool(devices) and "--no-mmproj-offload" not in spec.argv
    if projector and on_device:
        devices[0] = replace(devices[0], weights=devices[0].weights + projector)
    elif projector:
        host = replace(host, weights=host.weights + projector)
    return replace(parts, devices=tuple(devices), host=host)


def projector_mib(spec: Spec) -> int:
    """Return the MiB of a spec's vision projector, 0 where it has none."""
    name = value_of(spec.argv, "--mmproj") or ""
    inside = name.removeprefix(f"{paths.CONTAINER_MODELS}/")
    return round(sum(item.bytes for item in spec.files if item.path == f"{spec.models_dir}/{inside}") / _MIB)


def _output_device(words: Sequence[str], devices: int) -> int:
    """Return the device of the output: the last that the split gives a layer to."""
    if value_of(words, "--split-mode") == "none":
        return 0
    split = value_of(words, "--tensor-split") or value_of(words, "-ts") or ""
    given = [number for number, share in enumerate(split.split(",")) if share.strip(" 0.")]
    return min(given[-1] if given else devices - 1, devices - 1)


def _fault(done: subprocess.CompletedProcess[str]) -> tuple[Answer, str]:
    """Return why there is no estimate: an assertion is the engine's own fault, all else the spec's or its files'."""
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    assertions = [line for line in lines if _ASSERTION.match(line)]
    if assertions:
        return Answer.ENGINE_BUG, assertions[0]
    errors = [found for line in lines if (found := _ERROR.match(line))]
    # The logger is a thread of its own: its lines may come before those that are printed, or after.
    said = [found[key].strip() for key in ("printed", "logged") for found in errors if found[key]]
    said = said or lines[-1:] or [f"{TOOL} says nothing"]
    return Answer.REFUSED, f"{said[0]} (exit {done.returncode})"


def _since(start: float) -> float:
    return round(time.monotonic() - start, 1)


def _name() -> str:
    return f"llamarig-judge-{os.getpid()}"
