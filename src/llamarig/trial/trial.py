"""A trial: every check of a candidate, in the order of what they cost, and what they come to."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from llamarig.config.engine_options import Option, parse_help
from llamarig.config.spec import Spec
from llamarig.daemon.memory import Judged
from llamarig.errors import LlamarigError
from llamarig.runtime.completions import Completions
from llamarig.runtime.confinement import Container
from llamarig.runtime.engine import EngineError
from llamarig.runtime.fit_params import Judge
from llamarig.runtime.images import NO_PROGRAM, Docker, Done
from llamarig.runtime.trials import LABEL, NAME
from llamarig.trial import answers, operations, options, speed
from llamarig.trial.answers import LONG_PROMPT, SHORT_PROMPT, Recording
from llamarig.trial.memory import Need, need
from llamarig.trial.placement import Placement, place, shares_weights
from llamarig.trial.report import Check, Report, Status
from llamarig.trial.server import serving
from llamarig.trial.subjects import Subject, subjects

SERVER: Final = "llama-server"
_SHORT_SECONDS: Final = 60.0
_BENCH_SECONDS: Final = 1800.0
_TOOL_MIB: Final = 2048
_COMMIT_DIGITS: Final = 9
_MOST_NAMED: Final = 5
_REMEDY: Final = "keep the engine that serves; try another ref"

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A candidate, the engine it is held against, and the host.

    Attributes:
        candidate: image to try.
        against: image that serves.
        specs: the services it is tried for.
        running: what runs now.
        slower_percent: by how much the candidate may be slower.
        docker: runs containers.
        judge: asks llama-fit-params.
        old: returns what the engine that serves says of a spec's memory.
        busy: says why a service's cards cannot be asked about now; empty where they can.
        place: returns where a path of a spec is on this machine.
        available: returns the MiB of the host's memory that programs could take now.
        say: hears what is being done.

    """

    candidate: str
    against: str
    specs: Sequence[Spec]
    running: Sequence[Spec]
    slower_percent: float
    docker: Docker
    judge: Judge
    old: Callable[[Spec], Judged | None]
    busy: Callable[[Spec], str]
    place: Callable[[str], Path]
    available: Callable[[], int]
    say: Say
    server: Completions = field(default_factory=Completions)

    def run(self) -> Report:
        """Try everything; a candidate that does not start is not tried further.

        Raises:
            DockerError: Docker is not there or refuses.

        """
        checks = [self._timed("version", self._version)]
        if checks[0].status is not Status.FAIL:
            checks.append(self._timed("options", self._options))
            checks.append(self._timed("ops", self._operations))
            checks.append(self._timed("memory", self._memory))
            found, troubles = subjects(self.specs, self.place)
            checks += [_fail(SHORT_PROMPT, text, remedy="run playbooks/site.yml again") for text in troubles]
            for subject in found:
                checks += self._subject(subject)
        return Report(self.candidate, self.against, self.slower_percent, checks)

    def _timed(self, name: str, work: Callable[[], Check]) -> Check:
        self.say(f"{name}: {self.candidate}")
        start = time.monotonic()
        return _after(work(), start)

    # -------------------------------------------------------------------------------------- version, options, ops

    def _version(self) -> Check:
        done = self._tool(self.candidate, SERVER, ["--version"])
        lines = [line for line in f"{done.out}\n{done.err}".splitlines() if line.startswith("version")]
        if done.code != 0 or not lines:
            said = options.parser_said(done.err or done.out)
            return _fail("version", f"it does not start (exit {done.code}): {said}")
        labels = dict((self._image() or {}).items())
        inside = self._version_file()
        figures = {"says": lines[0], "labels": labels, "version_json": inside}
        commit = str(inside.get("commit") or labels.get("org.opencontainers.image.revision") or "")
        if commit and commit[:_COMMIT_DIGITS] not in lines[0]:
            message = f"the image says that it is commit {commit}, and its engine says {lines[0]!r}"
            return _fail("version", message, figures=figures, remedy="build the image anew")
        ref = f", ref {inside['ref']}" if inside.get("ref") else ""
        return Check("version", Status.OK, f"{lines[0].removeprefix('version: ')}{ref}", figures=figures)

    def _image(self) -> Mapping[str, str] | None:
        image = self.docker.image(self.candidate)
        return image.labels if image else None

    def _version_file(self) -> dict[str, Any]:
        """Return the image's /version.json, empty where it has none."""
        done = self._tool(self.candidate, "cat", ["/version.json"])
        try:
            found = json.loads(done.out)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def _options(self) -> Check:
        old, new = (self._help(image) for image in (self.against, self.candidate))
        found = []
        for spec in self.specs:
            unknown = options.unknown_options(spec, old, new)
            found += unknown or self._parsed(spec, old)
        if found:
            remedy = "change the services' server settings for it, or keep the engine that serves"
            return _fail("options", "; ".join(found), remedy=remedy, figures={"troubles": found})
        names = ", ".join(spec.service for spec in self.specs)
        return Check("options", Status.OK, f"it takes every option of {names}")

    def _help(self, image: str) -> dict[str, Option]:
        done = self._tool(image, SERVER, ["--help"])
        found = parse_help(done.out)
        if done.code != 0 or not found:
            remedy = "look at it: docker run --rm --entrypoint llama-server " + image + " --help"
            raise LlamarigError(f"{image} does not say its options (exit {done.code})", remedy)
        return found

    def _parsed(self, spec: Spec, old: Mapping[str, Option]) -> list[str]:
        """Let the candidate itself read a service's arguments, values and all."""
        words = options.parse_words(spec, old)
        done = self._tool(self.candidate, SERVER, words, gpus=spec.gpus, models_dir=spec.models_dir)
        return [] if done.code == 0 else [f"{spec.service}: {options.parser_said(done.err)}"]

    def _operations(self) -> Check:
        cards = list(dict.fromkeys(uuid for spec in self.specs for uuid in spec.gpus))
        if not cards:
            return Check("ops", Status.SKIPPED, "no service uses a card, and the CPU is what cards are compared with")
        total, ended, seen = operations.Ran(), [], []
        for card in cards:
            for group in operations.GROUPS:
                self.say(f"ops: {' '.join(group[:3])}{' …' if group[3:] else ''} on {card}")
                done = self._tool(
                    self.candidate,
                    operations.PROGRAM,
                    operations.words(group),
                    gpus=[card],
                    limit=operations.GROUP_SECONDS,
                    memory_mib=operations.MEMORY_MIB,
                )
                if done.code in NO_PROGRAM:
                    return Check("ops", Status.SKIPPED, f"the image has no {operations.PROGRAM}")
                ran = operations.read(done.out, done.err)
                if not ran.devices:
                    return _fail(
                        "ops", f"the candidate sees no device but {', '.join(ran.backends) or 'none'} on {card}"
                    )
                total += ran
                seen += ran.devices
                if done.code is None:
                    ended.append(f"{group[0]} was ended after {operations.GROUP_SECONDS:g} s")
                elif done.code not in {0, 1} and not ran.no_room:
                    return _fail("ops", f"{operations.PROGRAM} crashed on {card} (exit {done.code}): {_last(done.err)}")
        return _operations_check(total, len(cards), ended)

    # ----------------------------------------------------------------------------------------------------- memory

    def _memory(self) -> Check:
        needs = [self._need(spec) for spec in self.specs]
        figures = {each.service: each.figures for each in needs if each.figures}
        troubles = [f"{each.service}: {each.trouble}" for each in needs if each.trouble]
        if troubles:
            remedy = "a smaller ctx_size or cache type for the service, or keep the engine that serves"
            return _fail("memory", "; ".join(troubles), remedy=remedy, figures=figures)
        unasked = [f"{each.service} not asked: {each.unasked}" for each in needs if each.unasked]
        notes = [f"{each.service}: {each.note}" for each in needs if each.note]
        if len(unasked) == len(needs):
            return Check("memory", Status.SKIPPED, "; ".join(unasked))
        fitting = ", ".join(each.service for each in needs if not each.unasked)
        said = "; ".join([f"the engine finds room for {fitting}", *notes, *unasked])
        return Check("memory", Status.OK, said, figures=figures)

    def _need(self, spec: Spec) -> Need:
        self.say(f"memory: {spec.service}")
        return need(spec, self.candidate, self.judge, self.old, self.busy(spec))

    # ------------------------------------------------------------------------------------------- with each model

    def _subject(self, subject: Subject) -> list[Check]:
        """Try the candidate with one model: short prompt, long prompts, speed."""
        self.say(f"{subject.architecture}: {subject.spec.service}, {subject.mib} MiB; where is room for it")
        start = time.monotonic()
        try:
            placement = place(
                subject,
                self.against,
                self.judge,
                self.available(),
                shared=shares_weights(subject.spec, self.running),
            )
        except LlamarigError as error:
            return [_of(subject, _after(_fail(SHORT_PROMPT, error.message, remedy=error.remedy), start))]
        self.say(f"{subject.architecture}: {placement.text}")
        checks = [_of(subject, check) for check in self._answers(subject, placement)]
        return [*checks, _of(subject, self._timed("speed", partial(self._speed, subject, placement)))]

    def _answers(self, subject: Subject, placement: Placement) -> Iterator[Check]:
        start = time.monotonic()
        try:
            with self._serving(self.against, subject, placement) as where:
                self.say(f"{subject.architecture}: the engine that serves answers")
                recording = answers.record(self.server, where, subject.context)
        except EngineError as error:
            message = f"the engine that serves cannot be compared with: {error}"
            yield _after(_fail(SHORT_PROMPT, message, remedy="sudo llamarig doctor"), start)
            return
        start = time.monotonic()
        try:
            with self._serving(self.candidate, subject, placement) as where:
                for name in (SHORT_PROMPT, LONG_PROMPT):
                    yield self._answer(name, where, recording, subject, placement, start)
                    start = time.monotonic()
        except EngineError as error:
            yield _after(_fail(SHORT_PROMPT, f"the candidate does not serve: {error}"), start)

    def _answer(
        self, name: str, where: Spec, recording: Recording, subject: Subject, placement: Placement, start: float
    ) -> Check:
        say = partial(self._say_of, f"{subject.architecture}: the candidate answers")
        try:
            judged = answers.judge(self.server, where, recording, name, say)
        except EngineError as error:
            return _after(_fail(name, f"the candidate gives no answer: {error}"), start)
        lengths = ", ".join(str(length) for length in judged.lengths)
        figures: dict[str, Any] = {"service": subject.spec.service, "prompt_tokens": list(judged.lengths)}
        if judged.agreement is None:
            return _after(_fail(name, f"the candidate answers wrongly: {judged.trouble}", figures=figures), start)
        figures |= judged.agreement.figures()
        message = f"{judged.agreement}; after {lengths} tokens, {placement.text}"
        if judged.holds:
            return _after(Check(name, Status.OK, message, figures=figures), start)
        return _after(_fail(name, f"the candidate answers otherwise: {message}", figures=figures), start)

    def _say_of(self, where: str, what: str) -> None:
        self.say(f"{where} {what}")

    def _speed(self, subject: Subject, placement: Placement) -> Check:
        try:
            result = speed.race(
                partial(self._bench, self.against, subject, placement),
                partial(self._bench, self.candidate, subject, placement),
                self.slower_percent,
            )
        except speed.BenchError as error:
            return _fail("speed", f"{speed.PROGRAM} gives no figures: {error}")
        figures = {"service": subject.spec.service, "placement": placement.text, **result.figures()}
        message = f"{result}; {placement.text}"
        slow = result.too_slow(self.slower_percent)
        if slow:
            slower = result.slower_percent()
            by = " and ".join(f"{slower[name]:.1f} % in {name}" for name in slow)
            message = f"slower by {by}, {self.slower_percent:g} % is the most: {message}"
            return _fail("speed", message, figures=figures)
        return Check("speed", Status.OK, message, figures=figures)

    def _bench(self, image: str, subject: Subject, placement: Placement, samples: int, sleeping: bool) -> speed.Rates:
        busy = ", on a busy machine" if sleeping else ""
        self.say(f"{subject.architecture}: {speed.PROGRAM} of {image}, {samples} samples{busy}")
        done = self._tool(
            image,
            speed.PROGRAM,
            speed.words(placement.bench_words(), samples),
            gpus=placement.gpus,
            models_dir=subject.spec.models_dir,
            limit=_BENCH_SECONDS,
            memory_mib=placement.memory_mib,
            environment=speed.SLEEPING if sleeping else {},
        )
        if done.code is None:
            raise speed.BenchError(f"{image} took more than {_BENCH_SECONDS:g} s")
        return speed.read(done.out, done.err)

    # -------------------------------------------------------------------------------------------------- containers

    @cached_property
    def _mark(self) -> str:
        return str(os.getpid())

    def _container(
        self, image: str, program: str, words: Sequence[str], gpus: Sequence[str], models_dir: str | None, memory: int
    ) -> Container:
        return Container(
            name=f"{NAME}-{self._mark}",
            image=image,
            program=program,
            words=words,
            gpus=gpus,
            models_dir=str(self.place(models_dir)) if models_dir else None,
            memory_mib=memory,
            labels={LABEL: self._mark},
        )

    def _tool(
        self,
        image: str,
        program: str,
        words: Sequence[str],
        *,
        gpus: Sequence[str] = (),
        models_dir: str | None = None,
        limit: float = _SHORT_SECONDS,
        memory_mib: int = _TOOL_MIB,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> Done:
        container = self._container(image, program, words, gpus, models_dir, memory_mib)
        return self.docker.run(replace(container, environment=environment), limit)

    def _serving(self, image: str, subject: Subject, placement: Placement) -> AbstractContextManager[Spec]:
        words = [*placement.words, "--host", "0.0.0.0", "--port", "8080"]  # noqa: S104  in the container
        models = subject.spec.models_dir
        container = self._container(image, SERVER, words, placement.gpus, models, placement.memory_mib)
        return serving(self.docker, container, subject.spec, self.server)


def _operations_check(total: operations.Ran, cards: int, ended: Sequence[str]) -> Check:
    figures = {"passed": total.passed, "unsupported": total.unsupported, "failed": list(total.failed)}
    where = f"{cards} card{'s'[: cards > 1]}"
    if total.failed:
        named = "; ".join(total.failed[:_MOST_NAMED])
        message = f"{len(total.failed)} of {total.passed + len(total.failed)} cases are wrong on {where}: {named}"
        return _fail("ops", message, figures=figures)
    notes = [f"{total.passed} cases come out on {where} as on the CPU", *ended]
    if total.no_room:
        notes.append("the rest was not tried: the cards have no memory free beside what serves")
    return Check("ops", Status.OK if total.passed else Status.SKIPPED, "; ".join(notes), figures=figures)


def _fail(name: str, message: str, *, figures: Mapping[str, Any] | None = None, remedy: str = _REMEDY) -> Check:
    return Check(name, Status.FAIL, message, remedy=remedy, figures=figures or {})


def _of(subject: Subject, check: Check) -> Check:
    message = f"{subject.architecture}: {check.message}"
    return replace(check, architecture=subject.architecture, message=message)


def _after(check: Check, start: float) -> Check:
    return replace(check, seconds=time.monotonic() - start)


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it says nothing"
