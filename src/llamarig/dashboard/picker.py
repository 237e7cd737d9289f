"""The sheets that lists are chosen from: services, what to stop, the history."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from llamarig.dashboard.answers import Event, Offer
from llamarig.dashboard.sheet import Choosing
from llamarig.dashboard.text import Line, line
from llamarig.dashboard.view_sheets import effect, event_details, event_line, name_width, offer_line
from llamarig.dashboard.watch import Watch

_KEYS: Final = line(("Enter", "key"), " or ", ("1-9", "key"))


class Picker(Choosing):
    """Services to switch to, or to see the plan of; those for benchmarks are on a page of their own.

    Args:
        offers: what there is to choose from.
        choose: called with the one that was chosen.
        plan: called with the one whose plan is to be seen; where there is none, choosing is for that.

    """

    def __init__(
        self,
        host: Watch,
        offers: Sequence[Offer],
        choose: Callable[[Offer], None],
        plan: Callable[[Offer], None] | None,
        *,
        few: bool,
    ) -> None:
        super().__init__("Switch to which service?" if plan else "The plan of which service?", few=few)
        self._host, self._offers = host, offers
        self._choose, self._plan = choose, plan
        self._bench = bool(offers) and all(offer.is_bench for offer in offers)
        self._begin()

    def _begin(self) -> None:
        active = (number for number, offer in enumerate(self.items()) if offer.active)
        self.index, self.top = next(active, 0), 0
        self.move(0)
        kinds = {offer.is_bench for offer in self._offers}
        other = [("b", " bench profiles  "), ("r", " back  ")][self._bench] if len(kinds) > 1 else None
        page = line((other[0], "key"), other[1]) if other else ()
        plan = line(("p", "key"), " plan  ") if self._plan else ()
        self.keys = line(*_KEYS, " switch  " if self._plan else " show  ", *plan, *page, ("Esc", "key"), " cancel")

    def items(self) -> Sequence[Offer]:
        """Return the services of this page."""
        return [offer for offer in self._offers if offer.is_bench is self._bench]

    def row(self, item: Offer, number: int, cells: int) -> Line:
        """Return one service."""
        return offer_line(item, number, name_width(self.items()), cells)

    def content(self, cells: int) -> list[Line]:
        """Return the services, or that there is none."""
        return super().content(cells) or [line(("this host has no service", "faint"))]

    def below(self, cells: int) -> list[Line]:
        """Say what the marked one would make leave."""
        status = self._host.status
        return effect(self.chosen, status.in_flight if status else {}, cells) if self.chosen is not None else []

    def choose(self, item: Offer) -> None:
        """Go away, and hand it over."""
        self.close()
        self._choose(item)

    def press(self, key: str) -> None:
        """Turn to the other page, or show a plan."""
        if key in {"b", "r"} and (key == "b") is not self._bench and len({o.is_bench for o in self._offers}) > 1:
            self._bench = key == "b"
            self._begin()
            self.repaint()
        elif key == "p" and self._plan is not None and self.chosen is not None:
            self._plan(self.chosen)
        else:
            super().press(key)


class Stopping(Choosing):
    """Which of several services to stop."""

    keys = line(*_KEYS, " stop  ", ("Esc", "key"), " cancel")

    def __init__(self, services: Sequence[str], choose: Callable[[str], None], *, few: bool) -> None:
        super().__init__("Stop which service?", few=few)
        self._services = services
        self._choose = choose

    def items(self) -> Sequence[str]:
        """Return the services, and all of them as an empty name."""
        return [*self._services, ""]

    def row(self, item: str, number: int, _cells: int) -> Line:
        """Return one of them."""
        return line((f"{number}  " if number <= 9 else "   ", "key"), (item or "all of them", "title"))  # noqa: PLR2004

    def choose(self, item: str) -> None:
        """Go away, and hand it over."""
        self.close()
        self._choose(item)


class History(Choosing):
    """What happened, the newest first, and all that is known of the marked one."""

    keys = line(("Up Down", "key"), " look at another  ", ("Esc", "key"), " back")

    def __init__(self, events: Sequence[Event], *, few: bool) -> None:
        super().__init__("History", few=few)
        self._events = events

    def items(self) -> Sequence[Event]:
        """Return what happened."""
        return self._events

    def row(self, item: Event, _number: int, cells: int) -> Line:
        """Return one of it."""
        return event_line(item, cells)

    def content(self, cells: int) -> list[Line]:
        """Return what happened, or that nothing did."""
        return super().content(cells) or [line(("nothing has happened yet", "faint"))]

    def below(self, cells: int) -> list[Line]:
        """Return all that is known of the marked one."""
        return event_details(self.chosen, cells) if self.chosen is not None else []
