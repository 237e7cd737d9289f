"""What a scrape of the exporter takes, and what the exporter holds in memory, with two and with eight played cards.

The exporter runs as a process of its own on the lab's played NVML, and collects every 5 s, as it does on a host. It is
scraped over loopback, one connection a scrape. Beside it, in the same run and in the same way, a server that answers
the same bytes and does nothing else: the ratio between the two is what the exporter's own work costs.
"""

from __future__ import annotations

import argparse
import http.server
import socket
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.common import conditions, describe, parser, positive, say, table, workplace, write_json
from tests.played_exporter import Box

_CARDS: Final = {2: ("rtx-4090", "rtx-5070-ti"), 8: ("rtx-4090", "rtx-5070-ti", "rtx-5080", "rtx-4060-ti") * 2}
_HEAD: Final = ("cards", "bytes", "scrape, median", "p99", "worst", "p99 / bare", "resident before", "after")
_REQUEST: Final = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def scrape(port: int) -> tuple[float, int]:
    """Return the seconds of one scrape, and how many bytes came."""
    start = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(_REQUEST)
        size = 0
        while piece := client.recv(1 << 16):
            size += len(piece)
    return time.perf_counter() - start, size


def scrapes(port: int, count: int, pause: float) -> list[float]:
    found = []
    for _ in range(count):
        found.append(scrape(port)[0])
        time.sleep(pause)
    return found


class _Bare(http.server.BaseHTTPRequestHandler):
    body: bytes = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""


def bare(body: bytes, measure: Callable[[int], list[float]]) -> list[float]:
    """Measure a server that answers these bytes."""
    handler = type("Bare", (_Bare,), {"body": body})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            return measure(server.server_port)
        finally:
            server.shutdown()


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def measured(directory: Path, cards: int, options: argparse.Namespace) -> dict[str, Any]:
    box = Box(directory, cards=_CARDS[cards], settings={"period_seconds": 5.0})
    box.run_engine(7, "chat", 3 * 1024, *range(cards))
    with box.exporter() as exporter:
        exporter.collected()
        body = exporter.get().body
        scrapes(exporter.port, 50, 0)
        before = exporter.resident_kib()
        seconds = scrapes(exporter.port, options.scrapes, options.pause)
        after = exporter.resident_kib()
    beside = bare(body, lambda port: scrapes(port, options.scrapes, options.pause))
    return {
        "cards": cards,
        "bytes": len(body),
        "seconds": seconds,
        "bare_seconds": beside,
        "resident_kib_before": before,
        "resident_kib_after": after,
    }


def row(found: dict[str, Any]) -> list[str]:
    seconds = found["seconds"]
    p99 = percentile(seconds, 0.99)
    return [
        str(found["cards"]),
        str(found["bytes"]),
        f"{statistics.median(seconds) * 1000:.2f} ms",
        f"{p99 * 1000:.2f} ms",
        f"{max(seconds) * 1000:.2f} ms",
        f"{p99 / percentile(found['bare_seconds'], 0.99):.2f}",
        f"{found['resident_kib_before'] / 1024:.1f} MiB",
        f"{found['resident_kib_after'] / 1024:.1f} MiB",
    ]


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--scrapes", type=positive, default=1000, help="scrapes of each (1000)")
    options.add_argument(
        "--pause", type=float, default=0.02, help="seconds between two, so that collections fall in (0.02)"
    )
    given = options.parse_args()
    facts = conditions()
    results = []
    with workplace("exporter") as directory:
        for cards in _CARDS:
            say(f"{cards} cards")
            results.append(measured(directory / str(cards), cards, given))
    print(table(_HEAD, [row(found) for found in results]))
    print(describe(facts))
    write_json(given.json, {"conditions": facts, "results": results})


if __name__ == "__main__":
    main()
