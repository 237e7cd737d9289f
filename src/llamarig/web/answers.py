"""How is answered: JSON for people and programs, and what went wrong with what helps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from starlette.responses import Response

from llamarig.errors import BusyError, LlamarigError, NotAllowedError, NotFoundError

_STATUS: Final = (
    (NotFoundError, HTTPStatus.NOT_FOUND),
    (BusyError, HTTPStatus.CONFLICT),
    (NotAllowedError, HTTPStatus.FORBIDDEN),
)


class Answer(Response):
    """An answer in JSON, laid out as the seeds did."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Return the JSON; half of a surrogate pair, which no text in UTF-8 may have, is written as an escape."""
        return written(content, indent=2) + b"\n"


def written(content: Any, indent: int | None = None) -> bytes:
    """Return JSON in UTF-8."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, indent=indent)
    return text.encode("utf-8", "backslashreplace")


def refusal(status: int, error: str, remedy: str, headers: Mapping[str, str] | None = None, **more: Any) -> Answer:
    """Return an answer that says what went wrong, and what helps."""
    return Answer({"error": error, "remedy": remedy, **more}, status, headers)


def refused(error: LlamarigError, **more: Any) -> Answer:
    """Return the answer for an error."""
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), HTTPStatus.INTERNAL_SERVER_ERROR)
    return refusal(status, error.message, error.remedy, **more)


def unforeseen(unit: str) -> Answer:
    """Return the answer for what nobody foresaw: it says nothing of the inside; the unit's log does."""
    what = f"{unit} failed in a way that nobody foresaw"
    return refusal(HTTPStatus.INTERNAL_SERVER_ERROR, what, f"journalctl --unit {unit}")


def raw(answer: Answer, headers: Mapping[str, str]) -> bytes:
    """Return an answer as it goes over a connection that ends with it."""
    answer.headers.update({**headers, "Connection": "close"})
    status = HTTPStatus(answer.status_code)
    head = b"".join(b"%b: %b\r\n" % pair for pair in answer.raw_headers)
    return b"HTTP/1.1 %d %b\r\n%b\r\n%b" % (status, status.phrase.encode(), head, bytes(answer.body))
