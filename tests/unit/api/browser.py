"""A headless Chromium, driven over a pipe with its own protocol.

https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import selectors
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium")
SECONDS = 120
# The browser reads commands from descriptor 3, and writes to 4.
_SHELL = 'exec "$@" 3<&"$IN" 4>&"$OUT"'


class Browser:
    """One page. ``events`` are what the browser told of it."""

    def __init__(self, reading: int, writing: int) -> None:
        self.events: list[dict[str, Any]] = []
        self._reading, self._writing = reading, writing
        self._selector = selectors.DefaultSelector()
        self._selector.register(reading, selectors.EVENT_READ)
        self._rest = b""
        self._number = 0
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Have something done, and return what comes of it."""
        self._number += 1
        session = {"sessionId": self._session} if self._session else {}
        command = {"id": self._number, "method": method, "params": parameters, **session}
        os.write(self._writing, json.dumps(command).encode() + b"\0")
        end = time.monotonic() + SECONDS
        while True:
            message = self._read(end)
            if message.get("id") == self._number:
                assert "error" not in message, message
                found: dict[str, Any] = message["result"]
                return found
            self.events.append(message)

    def go(self, address: str) -> None:
        """Go to a page, and wait until it is there."""
        self.events.clear()
        self.call("Page.navigate", url=address)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def do(self, script: str) -> Any:
        """Return what a script comes to in the page."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, script: str) -> None:
        """Wait until a script comes to something true."""
        end = time.monotonic() + SECONDS
        while not self.do(script):
            assert time.monotonic() < end, f"never came to be: {script}\n{self.text()}"
            self._pause()

    def loaded(self, times: int) -> None:
        """Wait until the page has been loaded so many times; nothing can be asked of one that is being left."""
        end = time.monotonic() + SECONDS
        while sum(event.get("method") == "Page.loadEventFired" for event in self.events) < times:
            self.events.append(self._read(end))

    def text(self, place: str = "body") -> str:
        """Return what people read at a place."""
        return str(self.do(f"document.querySelector({json.dumps(place)}).innerText"))

    def look(self, *, width: int = 1280, height: int = 800, light: bool = False) -> None:
        """Choose how large the window is, and which colours the system has."""
        scheme = {"name": "prefers-color-scheme", "value": "light" if light else "dark"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    def picture(self, path: Path) -> None:
        """Write what is seen of the whole page."""
        found = self.call("Page.captureScreenshot", captureBeyondViewport=True, format="png")
        path.write_bytes(base64.b64decode(found["data"]))

    def asked(self) -> list[str]:
        """Return the addresses that the page asked for."""
        sent = [event for event in self.events if event.get("method") == "Network.requestWillBeSent"]
        return [event["params"]["request"]["url"] for event in sent]

    def complaints(self) -> list[str]:
        """Return what the browser complained about: policies that were broken, scripts that failed."""
        found = []
        for event in self.events:
            if event.get("method") == "Log.entryAdded" and event["params"]["entry"]["source"] != "network":
                found.append(event["params"]["entry"]["text"])
            if event.get("method") == "Runtime.exceptionThrown":
                found.append(json.dumps(event["params"]["exceptionDetails"]))
            if event.get("method") == "Runtime.consoleAPICalled":
                found.append(json.dumps(event["params"]["args"]))
        return found

    def _pause(self) -> None:
        """Let the page go on for a moment."""
        self.do("new Promise((done) => setTimeout(done, 20))")

    def _read(self, end: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            assert self._selector.select(max(0.0, end - time.monotonic())), "the browser says nothing"
            part = os.read(self._reading, 1 << 16)
            assert part, "the browser has ended"
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found


def _pipe() -> tuple[int, int]:
    """Return a pipe whose descriptors are none of those that the browser has for itself."""
    low = os.pipe()
    reading, writing = (fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in low)
    for end in low:
        os.close(end)
    return reading, writing


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """Run a browser with a profile of its own."""
    assert CHROMIUM is not None
    command_in, command_out = _pipe()
    answer_in, answer_out = _pipe()
    with tempfile.TemporaryDirectory(prefix="page", ignore_cleanup_errors=True) as home:
        options = ["--headless=new", "--remote-debugging-pipe", "--no-first-run", "--disable-gpu", "--hide-scrollbars"]
        # Where tests run as root, or without user namespaces, it has no sandbox of its own; it sees this page alone.
        options += ["--no-sandbox", "--disable-dev-shm-usage", "--disable-background-networking"]
        options += [f"--user-data-dir={home}"]
        process = subprocess.Popen(
            ["/bin/bash", "-c", _SHELL, "bash", CHROMIUM, *options],
            env={**os.environ, "HOME": home, "IN": str(command_in), "OUT": str(answer_out), "TZ": "UTC"},
            pass_fds=(command_in, answer_out),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(command_in)
        os.close(answer_out)
        try:
            yield Browser(answer_in, command_out)
        finally:
            os.close(command_out)
            os.close(answer_in)
            process.kill()
            process.wait(SECONDS)
