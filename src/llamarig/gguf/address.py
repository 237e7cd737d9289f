"""Names of files that are elsewhere: addresses, short forms of a hub, and the way there."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import SplitResult, quote, unquote, urlsplit

from llamarig.gguf.error import GgufError

HUGGING_FACE: Final = "https://huggingface.co"

_PORTS: Final = {"http": 80, "https": 443}
_SHORT: Final = re.compile(r"hf:([^/@]+)/([^/@]+)/([^@]+?)(?:@(.+))?")


@dataclass(frozen=True, slots=True)
class Hub:
    """Where ``hf:`` names lead.

    Attributes:
        endpoint: address of the hub or of a mirror.
        token: sent to the hub itself and to nobody else.

    """

    endpoint: str = HUGGING_FACE
    token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Refuse a token that is none.

        Raises:
            GgufError: it holds blanks, line breaks, or what is not ASCII.

        """
        if self.token is not None and not re.fullmatch(r"[!-~]+", self.token):
            raise GgufError("HF_TOKEN is no token: it holds blanks or is empty", "copy it anew, or unset it")


def is_remote(name: str) -> bool:
    """Say whether a name is an address."""
    return name.startswith(("http://", "https://", "hf:"))


def address(name: str, hub: Hub) -> str:
    """Turn ``hf:owner/repository/file[@revision]`` into the address of the file; an address stays what it is.

    Raises:
        GgufError: it is neither.

    """
    if not name.startswith("hf:"):
        return name
    found = _SHORT.fullmatch(name)
    if found is None or {"", ".", ".."} & set(found[3].split("/")):
        raise GgufError(
            f"{name!r} names no file of a hub", "write hf:owner/repository/file.gguf or …file.gguf@revision"
        )
    owner, repository, path, revision = found.groups()
    place = "/".join([quote(owner), quote(repository), "resolve", quote(revision or "main", safe=""), quote(path)])
    return f"{hub.endpoint.rstrip('/')}/{place}"


def split_address(url: str, name: str) -> SplitResult:
    """Take an address apart, with what is not allowed in one escaped.

    Raises:
        GgufError: it is none; ``name`` is what the message calls it.

    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        parts, host = None, None
    if parts is None or not host or parts.scheme not in _PORTS:
        raise GgufError(f"{name} is no address", "write https://host/path/file.gguf")
    if parts.username is not None:
        raise GgufError(f"the address of {host} holds a user name or a password", "name one that needs none")
    path = quote(parts.path or "/", safe="/%~!$&'()*+,;=:@")
    return parts._replace(path=path, query=quote(parts.query, safe="/%?~!$&'()*+,;=:@[]"), fragment="")


def origin(url: SplitResult) -> tuple[str, str, int]:
    """Return scheme, host and port: who is asked."""
    return url.scheme, (url.hostname or "").lower(), url.port or _PORTS[url.scheme]


@dataclass(frozen=True, slots=True)
class Proxy:
    """What stands between this machine and the server, as HTTP_PROXY and HTTPS_PROXY say it."""

    host: str
    port: int
    headers: dict[str, str]

    @classmethod
    def read(cls, said: str) -> Proxy:
        """Take apart what such a variable says.

        Raises:
            GgufError: it is no address.

        """
        try:
            parts = urlsplit(said if "//" in said else f"http://{said}")
            host, port = parts.hostname, parts.port or _PORTS.get(parts.scheme, 80)
        except ValueError:
            host, port = None, 0
        if not host:
            raise GgufError("the proxy named by HTTP_PROXY or HTTPS_PROXY is no address", "write http://host:port")
        headers = {}
        if parts.username is not None:
            words = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            headers["Proxy-Authorization"] = f"Basic {base64.b64encode(words.encode()).decode()}"
        return cls(host, port, headers)
