"""The page, in a real browser in front of the real API."""

from __future__ import annotations

import base64
import hashlib
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llamarig.api import keys
from llamarig.api import page as the_page
from llamarig.api.page import PAGE, POLICY, SCRIPTS
from llamarig.control.release import Release
from tests.support import ROOT
from tests.unit.api.browser import CHROMIUM, Browser, browser
from tests.unit.api.scenes import active, card, history, play, samples, status
from tests.unit.api.world import World

TEXT = PAGE.decode()
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here")
THERE = "!document.getElementById('main').hidden"
GONE = "!document.getElementById('gone').hidden"
ASKS_KEY = "!document.getElementById('key').hidden"
JOB: dict[str, Any] = {
    "id": "ab12",
    "kind": "switch",
    "service": "chat",
    "origin": "cli",
    "reason": "",
    "state": "running",
    "phase": "load",
    "phases": {"prepare": 1.4, "stop": 1.1},
    "text": "chat is loading",
    "submitted": 1.0,
    "started": 1.0,
    "finished": None,
    "outcome": None,
    "error": None,
}


def hashed(tag: str) -> str:
    (part,) = re.findall(f"<{tag}>(.*?)</{tag}>", TEXT, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()}'"


def test_a_browser_does_only_what_stands_in_the_page(api: World) -> None:
    said = api.ask("GET", "/ui", where="port")
    assert said.data == TEXT
    assert said.headers["content-type"] == "text/html; charset=utf-8"
    assert said.headers["content-security-policy"] == POLICY
    rules = dict(rule.split(" ", 1) for rule in POLICY.split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == hashed("script")
    assert rules["style-src"] == hashed("style")
    assert rules["frame-ancestors"] == "'none'"
    assert "unsafe" not in POLICY
    assert api.ask("GET", "/status").headers["content-security-policy"].startswith("default-src 'none'; frame")


def test_every_part_is_in_the_page_and_in_a_release() -> None:
    parts = set(Path(the_page.__file__).with_name("page_files").iterdir())
    assert {part.name for part in parts} == {"page.html", "page.css", *SCRIPTS}
    assert parts <= set(Release(ROOT, python="3.12", machine="x86_64").sources)
    lines = {part.name: part.read_text(encoding="utf-8").splitlines() for part in parts if part.suffix == ".js"}
    assert {name: len(found) for name, found in lines.items() if len(found) > 300} == {}
    assert [line for found in lines.values() for line in found if len(line) > 120] == []


def test_the_page_needs_nothing_from_elsewhere() -> None:
    # Names of languages, which are no places.
    assert set(re.findall(r"\w+://[^\s'\"`)]+", TEXT)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"\s(?:src|href|action)=['\"]?(?!['\"]?data:)|@import|url\(", TEXT)
    assert not re.search(r"\son\w+=|\sstyle=|javascript:|innerHTML|insertAdjacentHTML|document\.write|eval\(", TEXT)


def test_the_page_says_nothing_of_the_host_to_whom_it_is_not_for(api: World) -> None:
    keys.add(api.root, "wall", "read")
    assert api.ask("GET", "/ui", where="port").status == 200
    for path in ("/samples", "/metrics", "/status", "/gpus", "/history"):
        assert api.ask("GET", path, where="port").status == 401


def test_samples_are_as_many_as_are_asked_for(api: World) -> None:
    assert api.ask("GET", "/samples?seconds=30").data == api.samples.said
    api.ask("GET", "/samples")
    assert api.samples.asked == [30, 3600]
    assert api.ask("GET", "/samples?seconds=3601").status == 400


def test_metrics_are_in_the_format_that_prometheus_reads(api: World) -> None:
    said = api.ask("GET", "/metrics", where="read")
    assert (said.status, said.data) == (200, api.metrics.said)
    assert said.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"


@pytest.fixture(scope="module")
def page() -> Iterator[Browser]:
    with browser() as found:
        yield found


@pytest.fixture
def address(api: World, page: Browser) -> str:
    play(api)
    page.look()
    return f"http://127.0.0.1:{api.server.port}/ui"


def fits(page: Browser, width: int) -> None:
    """Nothing of the page is beyond its right edge."""
    assert page.do("document.documentElement.scrollWidth") <= width
    outside = (
        "[...document.querySelectorAll('main *')].filter((part) => part.getBoundingClientRect().right > innerWidth + 1)"
        ".map((part) => part.className)"
    )
    assert page.do(outside) == []


@needs_chromium
def test_everything_is_shown_and_nothing_is_asked_of_others(page: Browser, address: str) -> None:
    page.go(address)
    page.until(THERE)
    services = page.text("#services")
    for said in ("code", "Qwen3 Coder 30B A3B", "3 in flight", "at rest", "pinned", "http://127.0.0.1:8090"):
        assert said in services
    assert "on rtx4090-0 16.8 GiB, rtx5070ti-1 12.7 GiB" in services
    cards = page.text("#gpus")
    for said in ("20.2 / 24.0 GiB", "97 %", "83 °C", "405 / 450 W", "slowed: power-cap", "eyes 3.0", "free 3.8"):
        assert said in cards
    widths = page.do("[...document.querySelector('#gpus .bar').children].map((part) => part.offsetWidth)")
    whole = page.do("document.querySelector('#gpus .bar').offsetWidth")
    assert [round(width / whole, 2) for width in widths] == [0.7, 0.12, 0.02]
    told = page.text("#history")
    for said in ("switch to vision", "failed", "the model is on the CPU", "load 25 s", "back 20 s", "chat is", "hung"):
        assert said in told
    assert page.do("document.title") == "llamarig gpu01: Qwen3 Coder 30B A3B"
    assert page.text("#host") == "gpu01"
    assert page.complaints() == []
    base = address.removesuffix("/ui")
    assert all(one.startswith(f"{base}/") for one in page.asked())


@needs_chromium
def test_the_last_hour_is_drawn_with_switches_and_without_what_nobody_measured(page: Browser, address: str) -> None:
    page.go(address)
    page.until("document.querySelectorAll('.cell').length === 6")
    first = "document.querySelector('.cell svg')"
    assert page.do(f"{first}.querySelectorAll('.stroke').length") == 2, "the cards did not answer for a while"
    assert page.do(f"{first}.querySelectorAll('.mark').length") == 4
    assert page.do(f"{first}.querySelectorAll('.mark.bad').length") == 1
    assert page.do(f"{first}.getAttribute('aria-label')").startswith("VRAM of rtx4090-0, now 20.2 GiB")
    # A minute ago the model had been loaded; in the middle of the gap nobody knows anything.
    values = []
    for share in (0.99, 1 - 2600 / 3600):
        page.do(
            "{ const plot = document.querySelector('.plot'), box = plot.getBoundingClientRect();"
            " plot.dispatchEvent(new PointerEvent('pointermove',"
            f" {{ bubbles: true, clientX: box.left + box.width * {share}, clientY: box.top + 5 }})); }}"
        )
        values.append(page.text(".cell .value"))
    assert values == ["20.2 GiB", "- GiB"]


@needs_chromium
def test_what_changes_is_seen(api: World, page: Browser, address: str) -> None:
    page.go(address)
    page.until(THERE)
    trouble: dict[str, Any] = {
        "given_up": {"vision": {"time": 1.0, "reason": "it fell 5 times"}},
        "warnings": ["no port is bound"],
    }
    play(api, job=JOB, queue=[{**JOB, "service": "code"}], state="starting", status="chat is loading", **trouble)
    page.until("document.getElementById('work').innerText.includes('switch to chat')")
    work = page.text("#work")
    for said in ("load", "prepare 1.4 s", "then: switch to code"):
        assert said in work
    services = page.text("#services")
    assert "vision was given up" in services
    assert "no port is bound" in services
    # What the job is about, and not the first service of those that stay.
    assert page.text("#state").split() == ["starting", "chat"]


@needs_chromium
def test_what_leaves_for_a_switch_is_no_trouble(api: World, page: Browser, address: str) -> None:
    one = active("code", time.time(), health="down")
    api.board.status = lambda: status(time.time(), one, job=JOB, state="starting")  # type: ignore[method-assign]
    page.go(address)
    page.until(THERE)
    assert page.do("document.querySelector('#state > span').className") == "warn"
    assert page.do("document.querySelector('#services .health:not(.head)').className") == "health warn"
    assert not page.do("document.title").startswith("!")
    api.board.status = lambda: status(time.time(), one)  # type: ignore[method-assign]
    page.until("document.title.startsWith('! ')")
    assert page.text("#sentence") == "code is down"


@needs_chromium
def test_only_what_is_new_is_asked_for_of_the_last_hour(api: World, page: Browser, address: str) -> None:
    page.go(address)
    page.until(THERE)
    before = page.do("known.samples.times.length")
    later = time.time()
    fresh = {**api.samples.said, "times": [int(later), int(later) + 10]}
    keys_of = ("used_mib", "utilisation", "power_w", "temperature_c")
    fresh["gpus"] = [{**one, **{key: [1.0, 2.0] for key in keys_of}} for one in fresh["gpus"]]
    api.samples.said = fresh
    page.do("hourAt = 0")
    page.until("known.samples.gpus[0].used_mib.at(-1) === 2")
    assert api.samples.asked[0] == 3600
    assert api.samples.asked[-1] < 120
    lengths = page.do(
        "known.samples.gpus.flatMap((card) => [card.used_mib.length, card.power_w.length, card.utilisation.length])"
    )
    assert set(lengths) == {page.do("known.samples.times.length")}
    assert before - 2 <= lengths[0] <= before + 2
    assert page.do("known.samples.times.every((time, place, all) => !place || time > all[place - 1])")


@needs_chromium
def test_what_an_older_look_asked_for_is_shown_by_the_newer_one(api: World, page: Browser, address: str) -> None:
    page.go(address)
    page.until(THERE)
    page.do("turn += 1; setTimeout = () => 0")
    api.board.events = [{**history(time.time())[-1], "service": "new"}]
    # While it asks for the history, somebody comes back to the page.
    page.do(
        "window.fetchAsIs = fetch; window.newer = null; hourAt = 0; fetch = (path, ...rest) => {"
        " if (path.startsWith('/history') && !newer) newer = look(); return fetchAsIs(path, ...rest); }"
    )
    page.do("(async () => { await look(); await newer; await look(); })()")
    assert page.do("newer !== null")
    assert "switch to new" in page.text("#history")


@needs_chromium
def test_a_daemon_that_is_gone_leaves_no_figures_and_is_seen_when_it_is_back(
    api: World, page: Browser, address: str
) -> None:
    page.go(address)
    page.until(THERE)
    page.do("fetchAsIs = fetch; fetch = () => Promise.reject(new TypeError('gone'))")
    page.until(GONE)
    text = page.text()
    assert "llamarigd does not answer" in text
    assert "systemctl status llamarigd" in text
    assert not re.search(r"GiB|°C|rtx|code|serves at", text)
    assert page.do("document.getElementById('hour').childElementCount") == 0
    page.do("fetch = fetchAsIs")
    page.until(THERE)
    assert "20.2 / 24.0 GiB" in page.text("#gpus")
    api.server.stop(20)
    page.until(GONE)


@needs_chromium
def test_a_daemon_that_cannot_say_is_shown_with_what_it_says_instead(api: World, page: Browser, address: str) -> None:
    def broken() -> dict[str, Any]:
        raise RuntimeError("boom")

    api.board.status = broken  # type: ignore[method-assign]
    page.go(address)
    page.until(GONE)
    assert "llamarigd cannot say what it does" in page.text()
    assert "nobody foresaw" in page.text()


@needs_chromium
def test_a_key_is_asked_for_and_kept_in_the_tab_alone(api: World, page: Browser, address: str) -> None:
    key = keys.add(api.root, "wall", "read")
    page.go(address)
    page.until(ASKS_KEY)
    assert "sudo llamarig keys add" in page.text()

    def send(text: str) -> None:
        page.do(f"document.getElementById('key-text').value = {text!r}; document.querySelector('form button').click()")

    send("llamarig_wrong")
    page.until("document.getElementById('key-why').innerText.includes('none')")
    assert page.do("sessionStorage.length") == 0
    send(key)
    page.until(THERE)
    assert page.do("Object.values(sessionStorage)") == [key]
    assert page.do("localStorage.length + document.cookie.length") == 0
    assert key not in page.do("document.documentElement.outerHTML")
    assert not [one for one in page.asked() if key in one]
    page.do("document.getElementById('forget').click()")
    page.until(ASKS_KEY)
    assert page.do("sessionStorage.length") == 0
    assert "GiB" not in page.text()
    assert page.complaints() == []


@needs_chromium
@pytest.mark.parametrize(
    ("cards", "error", "said"),
    [
        ([], None, "this host has no card"),
        ([], "libnvidia-ml.so.1 is not there", "libnvidia-ml.so.1 is not there"),
        (
            [card(0, temperature_c=None, utilisation=None, power_w=None, power_limit_w=None, throttle=None)],
            None,
            "- °C",
        ),
        ([card(0, services={"chat": None})], None, "chat -"),
    ],
)
def test_what_nobody_knows_is_no_zero(
    api: World, page: Browser, address: str, cards: list[dict[str, Any]], error: str | None, said: str
) -> None:
    play(api, 0)
    api.gauges.cards = {"gpus": cards, "age_seconds": 0.5, "error": error}
    page.go(address)
    page.until(THERE)
    assert said in page.text("main")
    assert page.do("document.getElementById('hour-section').hidden") is not bool(cards)
    assert ("no sample yet" in page.text("main")) is bool(cards)
    assert not re.search(r"NaN|undefined|null|Infinity", page.text())
    assert page.complaints() == []


@needs_chromium
def test_figures_of_a_driver_that_hangs_are_said_to_be_old(api: World, page: Browser, address: str) -> None:
    api.gauges.cards = {**api.gauges.cards, "age_seconds": 42.0, "error": "NVML has not answered for 41.2 s"}
    page.go(address)
    page.until(THERE)
    assert "these figures are 42 s old" in page.text("main")
    assert page.do("getComputedStyle(document.getElementById('gpus')).filter") == "grayscale(1)"
    assert "the cards cannot be read" in page.text("#sentence")


@needs_chromium
def test_names_are_text_and_nothing_else(api: World, page: Browser, address: str) -> None:
    evil = "<img src=x onerror=alert(1)><b>"
    now = time.time()
    one = active(evil, now, name=f"{evil}!", url="javascript:alert(1)", reason=evil, health="failing")
    job = {**JOB, "service": evil, "phase": evil, "phases": {f"{evil}?": 1.0}, "text": evil}
    changes = {
        "warnings": [evil],
        "given_up": {evil: {"time": now, "reason": evil}},
        "job": job,
        "queue": [job],
        "state": evil,
        "agent": {"version": evil, "release": evil, "host": evil},
    }
    api.board.status = lambda: status(now, one, **changes)  # type: ignore[method-assign]
    api.board.events = [{**history(now)[-1], "service": evil, "reason": evil, "origin": evil, "phases": {evil: 1.0}}]
    api.gauges.cards["gpus"][0] |= {"name": evil, "model": evil, "throttle": [evil], "services": {evil: 5}}
    api.gauges.cards["error"] = evil
    api.samples.said["gpus"][0] |= {"name": evil}
    page.go(address)
    page.until(THERE)
    assert page.text("body").count(evil) >= 20
    assert page.do("document.querySelectorAll('img, b').length") == 0
    assert page.do("document.querySelectorAll('a[href^=javascript]').length") == 0
    assert page.complaints() == []


@needs_chromium
def test_what_gets_into_the_page_all_the_same_can_do_nothing(page: Browser, address: str) -> None:
    page.go(address)
    page.until(THERE)
    other = address.replace("127.0.0.1", "localhost")
    page.do(
        f"""
        window.broken = new Set(); window.ran = [];
        addEventListener('securitypolicyviolation', (event) => broken.add(event.effectiveDirective));
        const tries = [
          () => {{ document.body.insertAdjacentHTML('beforeend', '<b>'); ran.push('markup'); }},
          () => {{ setTimeout(() => eval('ran.push(\\'eval\\')')); }},
          () => {{ const part = document.createElement('script'); part.text = 'ran.push(\\'script\\')'; document.body.append(part); }},
          () => {{ const part = document.createElement('style'); part.textContent = 'body {{ color: red }}'; document.body.append(part); }},
          () => {{ document.body.setAttribute('style', 'color: red'); }},
          () => {{ const part = document.createElement('iframe'); part.src = {other!r}; document.body.append(part); }},
          () => {{ const part = new Image(); part.src = {other!r}; }},
          () => {{ fetch({other!r}).catch(() => 0); }},
          () => {{ const part = document.createElement('base'); part.href = {other!r}; document.head.append(part); }},
          () => {{ const part = document.createElement('form'); part.action = {other!r}; document.body.append(part); part.submit(); }},
        ];
        for (const attempt of tries) {{ try {{ attempt(); }} catch {{ /* the better */ }} }}
        """  # noqa: E501
    )
    stopped = {"style-src-elem", "style-src-attr", "frame-src", "img-src", "connect-src", "base-uri", "form-action"}
    wanted = sorted({*stopped, "require-trusted-types-for"})
    page.until(f"{wanted}.every((rule) => broken.has(rule))")
    assert page.do("ran") == []
    assert page.do("getComputedStyle(document.body).color") != "rgb(255, 0, 0)"


@needs_chromium
@pytest.mark.parametrize("width", [360, 820, 1280])
def test_there_is_room_for_long_names_too(api: World, page: Browser, address: str, width: int) -> None:
    now, long = time.time(), "a-long-name-" * 6
    one = active(
        long,
        now,
        name="Many words " * 12,
        url=f"http://{long}.example:8080",
        health="hung",
        reason="x" * 300,
        restarts=3,
    )
    gone = {long: {"time": now, "reason": "y" * 300}}
    api.board.status = lambda: status(now, one, given_up=gone)  # type: ignore[method-assign]
    api.board.events[-1] |= {"service": long, "previous": f"{long}b", "reason": "z" * 300}
    api.gauges.cards["gpus"][0] |= {"name": long, "model": long * 2, "services": {long: 9000}}
    api.samples.said["gpus"][0] |= {"name": long}
    page.look(width=width)
    page.go(address)
    page.until(THERE)
    fits(page, width)
    narrow = "[...document.querySelectorAll('main .row > span')].filter((part) => part.offsetHeight > 600).length"
    assert page.do(narrow) == 0


@needs_chromium
def test_a_host_in_trouble_does_not_look_well(api: World, page: Browser, address: str) -> None:
    now = time.time()
    services = (active("code", now, name="Coder"), active("eyes", now, health="hung", reason="no token for 120 s"))
    gone = {"vision": {"time": now, "reason": "it fell 5 times"}}
    api.board.status = lambda: status(time.time(), *services, given_up=gone)  # type: ignore[method-assign]
    api.gauges.cards = {"gpus": [card(0)], "age_seconds": 0.5, "error": "card GPU-8d1c: it has fallen off the bus"}
    page.go(address)
    page.until(THERE)
    assert page.do("document.querySelector('#state > span').className") == "bad"
    assert page.text("#sentence") == "eyes is hung; vision was given up; not all cards can be read"
    assert page.do("document.title").startswith("! ")
    # A card that was there within the hour is missed by its name.
    assert page.text("#gpus .row:last-child").split() == ["rtx5070ti-1", "cannot", "be", "read", "now"]
    services[1].update(health="ok", reason="")
    gone.clear()
    api.gauges.cards["error"] = None
    page.do("cardsAt = 0")
    page.until("document.querySelector('#state > span').className === 'ok'")
    page.until("document.getElementById('sentence').innerText === ''")


@needs_chromium
def test_an_answer_that_cannot_be_shown_leaves_no_old_page(api: World, page: Browser, address: str) -> None:
    page.go(address)
    page.until(THERE)
    was = api.board.status
    api.board.status = lambda: {**was(), "active": None}  # type: ignore[method-assign]
    page.until(GONE)
    assert "This page cannot show what llamarigd says" in page.text()
    assert "GiB" not in page.text()
    api.board.status = was  # type: ignore[method-assign]
    page.until(THERE)


@needs_chromium
def test_the_page_of_another_daemon_is_loaded_anew(api: World, page: Browser, address: str) -> None:
    page.go(address)
    page.until(THERE)
    page.do("window.seen = true")
    was = api.board.status
    api.board.status = lambda: {**was(), "agent": {"version": "0.2.0", "release": None, "host": "gpu01"}}  # type: ignore[method-assign]
    page.loaded(2)
    page.until(THERE)
    assert page.do("window.seen") is None
    assert "llamarigd 0.2.0," in page.text("#agent")


@needs_chromium
def test_a_clock_that_was_set_back_does_not_empty_the_chart(api: World, page: Browser, address: str) -> None:
    page.go(address)
    page.until(THERE)
    before, was = time.time() - 7200, api.board.status
    cards = api.gauges.cards["gpus"]
    api.samples.said = samples(cards, before)
    api.board.status = lambda: {**was(), "time": before}  # type: ignore[method-assign]
    page.do("hourAt = 0")
    page.until(f"known.samples && known.samples.times.every((time) => time <= {before} + 60)")
    page.do("hourAt = 0")
    page.until("known.samples && known.samples.times.length === 360")
    assert api.samples.asked[-1] == 3600


@needs_chromium
def test_a_sample_alone_is_seen_and_an_old_one_is_not_now(api: World, page: Browser, address: str) -> None:
    said = api.samples.said
    columns = ("used_mib", "utilisation", "power_w", "temperature_c")

    def only(index: int) -> dict[str, Any]:
        cards = [{**one, **{key: [one[key][index]] for key in columns}} for one in said["gpus"]]
        return {**said, "times": [said["times"][index]], "gpus": cards}

    api.samples.said = only(-1)
    page.go(address)
    page.until("document.querySelectorAll('.cell').length === 6")
    assert page.do("[...document.querySelectorAll('.cell')].filter((one) => one.querySelector('.alone')).length") == 6
    assert page.do("getComputedStyle(document.querySelector('.alone')).strokeLinecap") == "round"
    assert page.text(".cell .value") == "20.2 GiB"
    # The daemon has taken none for a while.
    api.samples.said = only(-30)
    page.go(address)
    page.until("document.querySelectorAll('.cell').length === 6")
    assert page.text(".cell .value") == "- GiB"
    label = page.do("document.querySelector('.cell svg').getAttribute('aria-label')")
    assert label == "VRAM of rtx4090-0, now - GiB, highest 20.2 GiB"


@needs_chromium
def test_what_is_focused_or_selected_stays_so_while_figures_change(api: World, page: Browser, address: str) -> None:
    page.go(address)
    page.until(THERE)
    page.do(
        "window.link = document.querySelector('#services a'); link.focus();"
        "getSelection().selectAllChildren(document.querySelector('#history .note'))"
    )
    selected = page.do("getSelection().toString()")
    assert "load 25 s" in selected
    services = [active("code", time.time(), in_flight=7), active("eyes", time.time())]
    api.board.status = lambda: status(time.time(), *services)  # type: ignore[method-assign]
    page.do("hourAt = 0")
    page.until("document.getElementById('services').innerText.includes('7 in flight')")
    assert page.do("document.activeElement === link && link.isConnected") is True
    assert page.do("getSelection().toString()") == selected
    # Another order of services is another page, all of it.
    services.reverse()
    page.until("document.querySelector('#services .long').innerText.includes('eyes')")
    assert "7 in flight" not in page.text("#services .row:nth-child(2)")


@needs_chromium
def test_what_is_read_aloud_is_read_once(page: Browser, address: str) -> None:
    page.go(address)
    page.until(THERE)
    listen = (
        "window.said = []; for (const part of document.querySelectorAll('[role=alert], [role=status]'))"
        " new MutationObserver((all) => said.push(...all.map((one) => one.type)))"
        ".observe(part, { childList: true, characterData: true, subtree: true })"
    )
    page.do(listen)
    page.do("(async () => { await look(); await look(); })()")
    assert page.do("said") == []
    page.do("fetch = () => Promise.reject(new TypeError('gone'))")
    page.until(GONE)
    page.do("said.length = 0")
    page.do("(async () => { await look(); await look(); })()")
    assert page.do("said") == []


@needs_chromium
def test_tables_are_tables_to_those_who_hear_them(api: World, page: Browser, address: str) -> None:
    services = [active("code", time.time(), health="hung", reason="no token"), active("eyes", time.time())]
    api.board.status = lambda: status(time.time(), *services)  # type: ignore[method-assign]
    page.go(address)
    page.until(THERE)
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    by_id = {node["nodeId"]: node for node in nodes}

    def role(node: dict[str, Any]) -> str:
        return str(node["role"]["value"])

    def below(node: dict[str, Any], *wanted: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for number in node.get("childIds", []):
            child = by_id[number]
            found += [child] if role(child) in wanted else below(child, *wanted)
        return found

    tables = {node["name"]["value"]: node for node in nodes if role(node) == "table"}
    assert set(tables) == {"Services", "GPUs", "History"}
    for name, columns, rows in (("Services", 7, 3), ("GPUs", 6, 2), ("History", 6, 6)):
        head, *rest = below(tables[name], "row")
        assert len(below(head, "columnheader")) == columns
        assert len(rest) == rows
        assert {len(below(one, "cell", "gridcell")) for one in rest} <= {columns, 1}
    images = [node["name"]["value"] for node in nodes if role(node) in {"image", "img"} and not node["ignored"]]
    assert len([one for one in images if one.startswith(("VRAM of", "Utilisation of", "Power of"))]) == 6


@needs_chromium
def test_the_hour_can_be_gone_through_by_keys(page: Browser, address: str) -> None:
    page.go(address)
    page.until("document.querySelectorAll('.cell').length === 6")
    page.do("document.getElementById('hour').focus()")
    assert page.do("document.activeElement.id") == "hour"
    for _ in range(24):
        page.call("Input.dispatchKeyEvent", type="keyDown", key="ArrowLeft", code="ArrowLeft")
    assert re.match(r"\d\d:\d\d:\d\d: switch to code ok$", page.text("#hour-said"))
    page.do("document.getElementById('hour').blur()")
    assert page.text("#hour-said") == ""


@needs_chromium
def test_times_are_those_of_a_clock_whose_zone_is_named(page: Browser, address: str) -> None:
    page.call("Emulation.setTimezoneOverride", timezoneId="Asia/Kathmandu")
    try:
        page.go(address)
        page.until("document.querySelectorAll('.axis').length === 3")
        assert re.search(r"\(Asia/Kat", page.text("#agent"))
        *ticks, last = page.do("[...document.querySelector('.axis').children].map((part) => part.textContent)")
        assert last == "now"
        assert len(ticks) >= 3
        assert {tick[3:] for tick in ticks} <= {"00", "15", "30", "45"}
        hour = page.do("new Date().getHours()")
        assert {int(tick[:2]) for tick in ticks} <= {hour, (hour - 1) % 24, (hour + 1) % 24}
    finally:
        page.call("Emulation.setTimezoneOverride", timezoneId="")


@needs_chromium
def test_a_key_that_no_header_takes_is_none(api: World, page: Browser, address: str) -> None:
    keys.add(api.root, "wall", "read")
    page.go(address)
    page.until(ASKS_KEY)
    page.do("document.getElementById('key-text').value = 'ключ'; document.querySelector('form button').click()")
    page.until("document.getElementById('key-why').innerText.includes('other characters')")
    assert page.do(ASKS_KEY)
    assert page.do("sessionStorage.length") == 0


@needs_chromium
def test_a_browser_that_keeps_nothing_shows_the_page_all_the_same(api: World, page: Browser, address: str) -> None:
    key = keys.add(api.root, "wall", "read")
    refuse = (
        "Object.defineProperty(window, 'sessionStorage', { get() { throw new DOMException('no', 'SecurityError') } })"
    )
    number = page.call("Page.addScriptToEvaluateOnNewDocument", source=refuse)["identifier"]
    try:
        page.go(address)
        page.until(ASKS_KEY)
        page.do(f"document.getElementById('key-text').value = {key!r}; document.querySelector('form button').click()")
        page.until(THERE)
    finally:
        page.call("Page.removeScriptToEvaluateOnNewDocument", identifier=number)


@needs_chromium
def test_the_cards_are_asked_for_seldom_but_while_a_job_runs_and_never_while_nobody_looks(
    api: World, page: Browser, address: str
) -> None:
    page.go(address)
    page.until(THERE)
    # The clock stands still; what is planned is counted, and not done.
    page.do(
        "{ const still = Date.now(); window.later = 0; Date.now = () => still + later; }"
        "turn += 1; window.planned = 0; setTimeout = () => { planned += 1; }"
    )

    def asked(times: int) -> int:
        before = sum(one.endswith("/gpus") for one in page.asked())
        page.do(f"(async () => {{ for (let count = 0; count < {times}; count += 1) await look(); }})()")
        return sum(one.endswith("/gpus") for one in page.asked()) - before

    page.do("later = 60000")
    assert asked(4) == 1
    page.do("later += 4999")
    assert asked(1) == 0
    page.do("later += 1")
    assert asked(4) == 1
    play(api, job=JOB)
    assert asked(4) == 4
    assert page.do("planned") == 13
    page.do("Object.defineProperty(document, 'hidden', { get: () => true })")
    asked(1)
    assert page.do("planned") == 13


@needs_chromium
def test_a_page_that_is_open_for_days_does_not_grow(api: World, page: Browser, address: str) -> None:
    said, times, start = api.samples.said, iter(range(10_000)), time.time()
    clock = {"now": start}
    columns = ("used_mib", "utilisation", "power_w", "temperature_c")

    def later() -> dict[str, Any]:
        clock["now"] += 60
        number = next(times)
        job = {**JOB, "id": str(number)}
        api.gauges.cards["gpus"][0]["services"] = {f"service-{number}": 9000, "eyes": 3000}
        api.board.events.append({**api.board.events[-1], "time": clock["now"], "service": f"service-{number}"})
        one = active(
            f"service-{number}", clock["now"], reason=f"reason {number}", health="hung" if number % 3 else "ok"
        )
        return status(clock["now"], one, job=job)

    def recent(seconds: int) -> dict[str, Any]:
        moments = [int(clock["now"]) - before for before in range(min(seconds, 3600), 0, -30)]
        cards = [{**one, **{key: [1.0] * len(moments) for key in columns}} for one in said["gpus"]]
        return {"every_seconds": 30.0, "time": clock["now"], "times": moments, "gpus": cards}

    api.board.status = later  # type: ignore[method-assign]
    api.samples.recent = recent  # type: ignore[method-assign]
    page.go(address)
    page.until(THERE)
    page.do("turn += 1; setTimeout = () => 0")

    def size(looks: int) -> tuple[int, int, int]:
        page.do(f"(async () => {{ for (let count = 0; count < {looks}; count += 1) await look(); }})()")
        page.events.clear()
        # What the browser keeps of requests, so that one may look at them, is its own.
        page.call("Network.disable")
        page.call("Network.enable")
        # What one collection lets go of may have held what only the next one finds.
        before: tuple[int, int, int] | None = None
        for _ in range(20):
            page.call("HeapProfiler.collectGarbage")
            counted = page.call("Memory.getDOMCounters")
            heap = page.call("Runtime.getHeapUsage")["usedSize"]
            now = counted["nodes"], counted["jsEventListeners"], heap
            if before is not None and now[:2] == before[:2] and heap > before[2] * 0.99:
                break
            before = now
        return now

    size(60)
    nodes, listeners, heap = size(1)
    more_nodes, more_listeners, more_heap = size(80)
    assert more_listeners == listeners
    assert more_nodes <= nodes * 1.2
    assert more_heap <= heap * 1.2
    assert page.do("known.samples.times.length") <= 122
    assert page.do("colours.size") == 3
    assert page.complaints() == []


@needs_chromium
def test_services_on_a_card_have_colours_of_their_own_also_after_others_were_there(page: Browser, address: str) -> None:
    page.go(address)
    page.until(THERE)
    page.do("colours.clear()")
    steps = [{"a": 1}, {"a": 1, "b": 1}, *({"a": 1, f"c{number}": 1} for number in range(9)), {"a": 1, "b": 1, "d": 1}]
    seen = []
    for services in steps:
        page.do(f"colourServices([{{ services: {services} }}])")
        seen.append(dict(page.do("[...colours]")))
    assert all(len(set(one.values())) == len(one) for one in seen)
    assert {one["a"] for one in seen} == {0}


@needs_chromium
def test_links_lead_where_they_say(page: Browser, address: str) -> None:
    page.go(address)
    page.until(THERE)
    there = {
        url: page.do(f"linked({url!r}, 'rig.lan').href || ''") for url in ("http://127.0.0.1:1", "http://10.0.0.2:1")
    }
    # This host's own address is another's to who looks from elsewhere.
    assert there == {"http://127.0.0.1:1": "", "http://10.0.0.2:1": "http://10.0.0.2:1/"}
    assert page.do("linked('http://127.0.0.1:1', 'localhost').href") == "http://127.0.0.1:1/"
    assert page.do("linked('javascript:alert(1)', 'localhost').href") is None


@needs_chromium
@pytest.mark.parametrize("cards", [0, 1, 2, 8])
@pytest.mark.parametrize("width", [360, 820, 1280])
def test_there_is_room_for_everything(api: World, page: Browser, address: str, cards: int, width: int) -> None:
    play(api, cards, job=JOB)
    page.look(width=width)
    page.go(address)
    page.until(THERE)
    fits(page, width)
    assert page.do("document.querySelectorAll('#gpus .bar').length") == cards


@needs_chromium
@pytest.mark.parametrize("light", [False, True])
def test_text_can_be_read_in_the_dark_and_in_the_light(page: Browser, address: str, *, light: bool) -> None:
    page.look(light=light)
    page.go(address)
    page.until(THERE)
    # https://www.w3.org/TR/WCAG22/#contrast-minimum
    contrasts = page.do(
        """(() => {
          const light = (text) => {
            const [r, g, b] = text.match(/\\d+/g).map((one) => one / 255)
              .map((one) => (one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4));
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
          };
          const kinds = [['span', ''], ...['faint', 'ok', 'warn', 'bad'].map((one) => ['span', one]), ['a', '']];
          return ['main > section', 'body'].flatMap((where) => kinds.map(([tag, kind]) => {
            const ground = light(getComputedStyle(document.querySelector(where)).backgroundColor);
            const part = document.createElement(tag);
            part.className = kind;
            document.querySelector(where).append(part);
            const ink = light(getComputedStyle(part).color);
            part.remove();
            return (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05);
          }));
        })()"""
    )
    assert len(contrasts) == 12
    assert min(contrasts) >= 4.5
    dark = page.do("getComputedStyle(document.body).backgroundColor") == "rgb(20, 24, 31)"
    assert dark is not light
