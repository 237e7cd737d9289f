"""The digest of an image's name, asked of its registry: the OCI distribution API, as docker speaks it before a pull.

https://github.com/opencontainers/distribution-spec/blob/main/spec.md, and for the token
https://distribution.github.io/distribution/spec/auth/token/. Nothing but a manifest's head is fetched.
"""

from __future__ import annotations

import hashlib
import http.client
import ipaddress
import json
import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from email.message import Message
from http import HTTPStatus
from pathlib import Path
from typing import IO, Final
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode, urlsplit
from urllib.request import BaseHandler, HTTPRedirectHandler, ProxyHandler, Request, build_opener

from llamarig import __version__
from llamarig.errors import LlamarigError

# An index of several machines' images first: its digest is what a name has for all of them.
_MANIFESTS: Final = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_PARAMETER: Final = re.compile(r'([a-z]+)="([^"]*)"')
_HUB: Final = "docker.io"
_HUB_ADDRESS: Final = "registry-1.docker.io"
# Under which docker login keeps the Hub's.
_HUB_LOGIN: Final = "https://index.docker.io/v1/"
_LARGEST: Final = 4 << 20
_TIMEOUT_SECONDS: Final = 30


class RegistryError(LlamarigError):
    """A registry does not say what a name's digest is."""


@dataclass(frozen=True, slots=True)
class Name:
    """An image's name in full: registry as people write it, repository, and tag or digest."""

    registry: str
    repository: str
    reference: str

    @property
    def address(self) -> str:
        """Where the registry answers."""
        return _HUB_ADDRESS if self.registry == _HUB else self.registry


def full_name(image: str) -> Name:
    """Read an image's name as docker does.

    >>> full_name("ubuntu:24.04")
    Name(registry='docker.io', repository='library/ubuntu', reference='24.04')
    """
    rest, _, digest = image.partition("@")
    first, slash, behind = rest.partition("/")
    has_registry = bool(slash) and ("." in first or ":" in first or first == "localhost")
    registry, path = (first, behind) if has_registry else (_HUB, rest)
    repository, _, tag = path.partition(":")
    if registry == _HUB and "/" not in repository:
        repository = f"library/{repository}"
    return Name(registry, repository, digest or tag or "latest")


def digest_of(image: str, insecure: Collection[str] = ()) -> str:
    """Return the digest that a registry has for a name now, as ``sha256:…``.

    ``insecure`` are registries, as ``host:port``, that may be asked without TLS, as those of this machine may.

    Raises:
        RegistryError: it cannot be reached, does not have the name, or wants a login that nobody gave.

    """
    name = full_name(image)
    plain = name.registry in insecure or _is_here(name.address)
    faults = []
    for scheme in ("http", "https") if plain else ("https",):
        try:
            return _asked(name, scheme, insecure)
        except _UnreachableError as error:
            faults.append(error)
    raise RegistryError("; ".join(fault.message for fault in faults), faults[0].remedy) from faults[-1]


class _UnreachableError(LlamarigError):
    """Nobody answers there, or not in this protocol."""


class _NoRedirect(HTTPRedirectHandler):
    """Manifests are where they are asked for; whoever sends us elsewhere could send us anywhere."""

    def redirect_request(self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str) -> None:
        """Follow nothing."""


def _asked(name: Name, scheme: str, insecure: Collection[str]) -> str:
    url = f"{scheme}://{name.address}/v2/{name.repository}/manifests/{name.reference}"
    authorization = ""
    for method in ("HEAD", "GET"):
        status, headers, body = _send(method, url, authorization)
        if status == HTTPStatus.UNAUTHORIZED and not authorization:
            authorization = _authorization(name, headers.get("WWW-Authenticate") or "", insecure)
            status, headers, body = _send(method, url, authorization)
        if status == HTTPStatus.OK:
            said = headers.get("Docker-Content-Digest") or ""
            found = f"sha256:{hashlib.sha256(body).hexdigest()}" if method == "GET" else said
            if method == "GET" and said and said != found:
                msg = f"{name.registry} says that {name.repository}:{name.reference} is {said}, and sends {found}"
                raise RegistryError(msg, "ask again; if it stays so, something between here and there is broken")
            if _DIGEST.fullmatch(found):
                return found
        elif status == HTTPStatus.BAD_REQUEST and scheme == "http":
            msg = f"{name.address} does not want to be asked over http"
            raise _UnreachableError(msg, "check its address")
        elif status != HTTPStatus.METHOD_NOT_ALLOWED:
            break
    raise _refused(name, status)


def _send(method: str, url: str, authorization: str) -> tuple[int, Message, bytes]:
    """Return status, headers and the body of an answer."""
    address = urlsplit(url)
    # The scheme is ours or checked, no file is opened.
    request = Request(url, method=method)  # noqa: S310
    request.add_header("Accept", ", ".join(_MANIFESTS))
    request.add_header("User-Agent", f"llamarig/{__version__}")
    if authorization:
        request.add_unredirected_header("Authorization", authorization)
    handlers: list[BaseHandler] = [_NoRedirect()]
    if _is_here(address.netloc):
        handlers.append(ProxyHandler({}))
    try:
        with build_opener(*handlers).open(request, timeout=_TIMEOUT_SECONDS) as answer:
            return answer.status, answer.headers, answer.read(_LARGEST)
    except HTTPError as error:
        with error:
            return error.code, error.headers, b""
    except (URLError, OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        msg = f"{address.netloc} cannot be asked over {address.scheme}: {reason}"
        raise _UnreachableError(msg, "check this control node's way to it; behind a proxy, set https_proxy") from error


def _authorization(name: Name, challenge: str, insecure: Collection[str]) -> str:
    """Return the header that answers a challenge: a token fetched with, or the login itself of, docker's settings."""
    scheme, _, rest = challenge.partition(" ")
    login = _login(name.registry)
    if scheme.lower() == "basic" and login:
        return f"Basic {login}"
    if scheme.lower() != "bearer":
        raise _refused(name, HTTPStatus.UNAUTHORIZED)
    said = dict(_PARAMETER.findall(rest))
    realm = urlsplit(said.get("realm", ""))
    trusted = realm.scheme == "https" or (
        realm.scheme == "http" and (_is_here(realm.netloc) or realm.netloc in insecure)
    )
    if not trusted:
        msg = f"{name.registry} wants a token from {realm.geturl() or 'nowhere'}, which is no https address"
        raise RegistryError(msg, "name it among insecure_registries if that is meant")
    asked = {key: said[key] for key in ("service", "scope") if key in said}
    asked.setdefault("scope", f"repository:{name.repository}:pull")
    url = f"{realm.geturl()}{'&' if realm.query else '?'}{urlencode(asked)}"
    status, _, body = _send("GET", url, f"Basic {login}" if login else "")
    token = _token(body) if status == HTTPStatus.OK else ""
    if not token:
        raise _refused(name, status)
    return f"Bearer {token}"


def _token(body: bytes) -> str:
    try:
        said = json.loads(body)
    except ValueError:
        return ""
    found = (said.get("token") or said.get("access_token")) if isinstance(said, dict) else ""
    return found if isinstance(found, str) and found.isprintable() else ""


def _login(registry: str) -> str:
    """Return what docker login left for a registry in plain; programs that keep logins are not asked."""
    folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    try:
        logins = json.loads((folder / "config.json").read_text(encoding="utf-8"))["auths"]
        found = logins.get(_HUB_LOGIN if registry == _HUB else registry, {}).get("auth", "")
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return ""
    return found if isinstance(found, str) and re.fullmatch(r"[A-Za-z0-9+/=]+", found) else ""


def _is_here(address: str) -> bool:
    """Tell whether an address is of this machine alone."""
    host = urlsplit(f"//{address}").hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _refused(name: Name, status: int) -> RegistryError:
    where = f"{name.registry}/{name.repository}:{name.reference}"
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        return RegistryError(f"{where} is not given to everybody, or is not there", "docker login, or check the name")
    if status == HTTPStatus.NOT_FOUND:
        return RegistryError(f"there is no {where}", "check the name in llama_image_bases")
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return RegistryError(f"{name.registry} answers no more for now (429)", "docker login, or ask again later")
    return RegistryError(f"{where}: the registry answers with {status}", "check the name, or ask again later")
