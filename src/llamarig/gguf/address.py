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
# What a browser shows is …/blob/…, and what it downloads from …/resolve/….
_LONG: Final = re.compile(r"/([^/]+)/([^/]+)/(?:resolve|blob)/((?:refs/[^/]+/)?[^/]+)/(.+)")


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


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a hub's repository.

    Attributes:
        owner: whose repository it is.
        repository: its name without the owner.
        path: of the file in it.
        revision: a branch, a tag or a commit; None for the main branch.

    """

    owner: str
    repository: str
    path: str
    revision: str | None

    def address(self, hub: Hub, revision: str | None = None) -> str:
        """Return where it is, at ``revision`` or at its own."""
        at = quote(revision or self.revision or "main", safe="")
        place = "/".join([quote(self.owner), quote(self.repository), "resolve", at, quote(self.path)])
        return f"{hub.endpoint.rstrip('/')}/{place}"


def hub_file(name: str, hub: Hub) -> HubFile | None:
    """Read ``hf:owner/repository/file[@revision]``, or the address of a file or of its page on the hub itself.

    Returns None for every other address.

    Raises:
        GgufError: it begins with ``hf:`` and names no file.

    """
    if name.startswith("hf:"):
        found = _SHORT.fullmatch(name)
        if found is None or _leaves(found[3]):
            raise GgufError(
                f"{name!r} names no file of a hub", "write hf:owner/repository/file.gguf or …file.gguf@revision"
            )
        return HubFile(*found.groups())
    url, home = split_address(name, name), split_address(hub.endpoint, "the hub")
    prefix = home.path.rstrip("/")
    found = _LONG.fullmatch(url.path.removeprefix(prefix)) if origin(url) == origin(home) else None
    if found is None or not url.path.startswith(f"{prefix}/") or _leaves(unquote(found[4])):
        return None
    owner, repository, revision, path = map(unquote, found.groups())
    return HubFile(owner, repository, path, revision)


def _leaves(path: str) -> bool:
    return bool({"", ".", ".."} & set(path.split("/")))


def address(name: str, hub: Hub) -> str:
    """Turn the name of a file on the hub into the address it is fetched from; another address stays what it is.

    Raises:
        GgufError: it is neither.

    """
    found = hub_file(name, hub)
    return found.address(hub) if found else name


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
