"""What the keys of a host's dashboard do beyond moving about: they ask its daemon, and the user before it matters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from textual.app import App
from textual.screen import Screen

from llamarig.dashboard.answers import Event, Offer, Plan
from llamarig.dashboard.client import Client
from llamarig.dashboard.picker import History, Picker, Stopping
from llamarig.dashboard.sheet import Question, Reading
from llamarig.dashboard.text import Line, counted
from llamarig.dashboard.view_cards import every_card
from llamarig.dashboard.view_sheets import busy_words, help_lines, plan_lines, sentences
from llamarig.dashboard.watch import Watch

_HISTORY_LINES = 200


class Stage(Protocol):
    """The screen whose keys these are."""

    few: bool
    fleet: bool

    @property
    def host(self) -> Watch:
        """The host that it shows."""

    @property
    def app(self) -> App[Any]:
        """Where sheets are laid."""

    @property
    def on_top(self) -> bool:
        """Whether nothing lies over it."""

    def notice(self, text: str, style: str = "warn") -> None:
        """Say something for a while."""


class Controls:
    """Keys that ask a daemon for something. Its answers are waited for in other threads; the screen goes on."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    @property
    def _host(self) -> Watch:
        return self._stage.host

    def press(self, key: str) -> None:
        """Do what a key is for; one without a meaning does nothing."""
        changing = {"m": self._switch, "s": self._stop, "c": self._cancel}
        looking = {"p": self._plans, "h": self._history, "g": self._cards, "?": self._help}
        if key in changing:
            if self._host.read_only:
                self._stage.notice(f"{key}: read only, {self._host.read_only}")
            else:
                changing[key]()
        elif key in looking:
            looking[key]()

    def _ask(self, what: str, question: Callable[[Client], Any], then: Callable[[Any], None]) -> None:
        """Ask the daemon, unless it is lost; what it answers counts only while nothing else was begun."""
        if self._host.lost:
            self._stage.notice(f"not now: {self._host.lost}", "bad")
            return
        self._stage.notice(f"asking for {what}", "faint")
        self._host.ask(question, then, self._refused)

    def _open(self, sheet: Screen[None]) -> None:
        if self._stage.on_top:
            self._stage.notice("")
            self._stage.app.push_screen(sheet)

    def _read(self, title: str, lines: Callable[[int], list[Line]]) -> None:
        """Lay text over whatever is on top."""
        self._stage.app.push_screen(Reading(title, lines, few=self._stage.few))

    def _refused(self, message: str, remedy: str) -> None:
        self._stage.notice("")
        texts = [(message, "bad"), (f"Remedy: {remedy}" if remedy else "", "plain")]
        self._read("It was refused", lambda cells: sentences(texts, cells))

    def _switch(self) -> None:
        self._ask("the services", lambda client: client.get("/services"), self._pick)

    def _pick(self, answer: Any) -> None:
        self._open(Picker(self._host, Offer.read_all(answer), self._chosen, self._plan_of, few=self._stage.few))

    def _chosen(self, offer: Offer) -> None:
        status, job = self._host.status, self._host.job
        if job is None and offer.service in (status.in_flight if status else {}):
            self._stage.notice(f"{offer.service} serves already", "ok")
            return
        busy = busy_words(offer.leaves, status.in_flight if status else {})
        texts = []
        if job is not None:
            texts.append((f"{job.title} is under way. This one waits until that is over.", "plain"))
        if busy:
            texts.append((f"{busy}.", "warn"))
            texts.append(("What is under way may end first; new requests are told to come again.", "plain"))
        self._sure(f"Switch to {offer.service}?", texts, lambda: self._submit(offer.service, queue=job is not None))

    def _sure(self, title: str, texts: list[tuple[str, str]], act: Callable[[], None]) -> None:
        """Ask the user where there is something to think about."""
        if texts:
            self._open(Question(title, lambda cells: sentences(texts, cells), act, few=self._stage.few))
        else:
            act()

    def _submit(self, service: str, *, queue: bool) -> None:
        body: dict[str, Any] = {"model": service, **({"queue": True} if queue else {})}
        self._ask(f"{service}", lambda client: client.submit("/switch", body), self._accepted)

    def _accepted(self, _answer: Any) -> None:
        self._stage.notice("")

    def _plans(self) -> None:
        self._ask("the services", lambda client: client.get("/services"), self._pick_plan)

    def _pick_plan(self, answer: Any) -> None:
        self._open(Picker(self._host, Offer.read_all(answer), self._plan_of, None, few=self._stage.few))

    def _plan_of(self, offer: Offer) -> None:
        def show(answer: Any) -> None:
            plan = Plan.read(answer)
            self._stage.notice("")
            self._read(f"Plan of {offer.service}", lambda cells: plan_lines(plan, cells))

        self._ask(f"the plan of {offer.service}", lambda client: client.get(f"/plan/{offer.service}"), show)

    def _stop(self) -> None:
        names = [serving.service for serving in self._host.status.active] if self._host.status else []
        if not names:
            self._stage.notice("nothing serves")
        elif len(names) == 1:
            self._ask_to_stop(names[0])
        else:
            self._open(Stopping(names, self._ask_to_stop, few=self._stage.few))

    def _ask_to_stop(self, service: str) -> None:
        flights = self._host.status.in_flight if self._host.status else {}
        names = [service] if service else [*flights]
        busy = busy_words(names, flights)
        texts = [
            (f"{busy}. What is under way may end first." if busy else "", "warn"),
            ("It stays stopped until somebody switches to a service.", "plain"),
        ]
        body = {"model": service} if service else {}
        title = f"Stop {service}?" if service else f"Stop {counted(len(names), 'service')}?"
        self._sure(
            title,
            texts,
            lambda: self._ask("a stop", lambda client: client.submit("/stop", body), self._accepted),
        )

    def _cancel(self) -> None:
        job = self._host.job
        if job is None or not job.identity:
            self._stage.notice("no job runs")
            return
        texts = [("What served before serves again, and requests that wait stay in the queue.", "plain")]
        path = f"/jobs/{job.identity}"
        self._sure(
            f"Cancel the {job.title}?",
            texts,
            lambda: self._ask("an end", lambda client: client.delete(path), self._accepted),
        )

    def _history(self) -> None:
        def show(answer: Any) -> None:
            self._open(History(Event.read_all(answer), few=self._stage.few))

        self._ask("the history", lambda client: client.get("/history", lines=_HISTORY_LINES), show)

    def _cards(self) -> None:
        self._open(Reading("GPUs", lambda cells: every_card(self._host.gpus, cells), few=self._stage.few))

    def _help(self) -> None:
        status = self._host.status

        def lines(cells: int) -> list[Line]:
            version = status.version if status else ""
            return help_lines(cells, read_only=self._host.read_only, fleet=self._stage.fleet, version=version)

        self._open(Reading("Keys", lines, few=self._stage.few))
