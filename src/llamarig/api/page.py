"""The page: one document that shows a host in a browser, and asks nobody but the daemon that it comes from.

Its parts lie beside this module; browsers do only what stands in them, by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Final

_PARTS: Final = Path(__file__).with_name("page_files")


def _part(name: str) -> str:
    return (_PARTS / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """Return what a policy says of a part (https://www.w3.org/TR/CSP3/#grammardef-hash-source)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


# One script in the document, of these in this order; only the last one does something before it is asked to.
SCRIPTS: Final = (
    "elements.js",  # parts of the page, tables, figures as people read them
    "asking.js",  # what is known of the host, how often it is asked for, the key
    "showing.js",  # the head, services, the work under way, and what is shown instead of all this
    "cards.js",
    "hour.js",
    "history.js",
    "starting.js",  # what people do, and the first look
)

_STYLE: Final = _part("page.css")
_SCRIPT: Final = "\n".join(_part(name) for name in SCRIPTS)
PAGE: Final = _part("page.html").replace("/* style */", _STYLE).replace("/* script */", _SCRIPT).encode()
POLICY: Final = "; ".join(
    [
        "default-src 'none'",
        f"style-src {_hash(_STYLE)}",
        f"script-src {_hash(_SCRIPT)}",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    ]
)
