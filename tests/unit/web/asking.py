"""A request through a guard, and what stands behind it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send


@dataclass
class Behind:
    """What stands behind a guard: says how it was asked."""

    scopes: list[Scope] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    later: list[str] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        message = await receive()
        self.bodies.append(message["body"])
        self.later.append((await receive())["type"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})


@dataclass(frozen=True)
class Said:
    """What came through a guard."""

    status: int
    headers: dict[str, str]
    data: Any


def ask(
    app: ASGIApp,
    headers: dict[str, str] | None = None,
    *,
    method: str = "GET",
    chunks: Iterable[bytes | None] = (b"",),
    client: tuple[str, int] | None = ("192.0.2.7", 40000),
    server: tuple[str, int] = ("127.0.0.1", 8081),
) -> Said:
    """Ask through a guard; a chunk of None never comes."""
    pairs = [(name.lower().encode(), value.encode("latin-1")) for name, value in (headers or {}).items()]
    scope: Scope = {"type": "http", "method": method, "headers": pairs, "client": client, "server": server, "path": "/"}
    parts = list(chunks)
    coming: Iterator[tuple[int, bytes | None]] = iter(enumerate(parts, 1))
    sent: list[Message] = []

    async def receive() -> Message:
        number, chunk = next(coming, (0, b""))
        if chunk is None:
            await asyncio.Event().wait()
        if not number:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": chunk, "more_body": number < len(parts)}

    async def send(message: Message) -> None:
        sent.append(message)

    async def answer() -> None:
        await app(scope, receive, send)

    asyncio.run(answer())
    found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return Said(sent[0]["status"], found, json.loads(sent[1]["body"]))
