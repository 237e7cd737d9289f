"""The digest of an image's name, asked as docker asks; the registry is on loopback."""

from __future__ import annotations

import base64
import json
import socket
import threading
from pathlib import Path

import pytest

from llamarig.control.registry import Name, RegistryError, digest_of, full_name
from tests.registry_server import Registry, serving


@pytest.fixture(autouse=True)
def no_logins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Docker's settings of this machine do not come in."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("image", "name", "address"),
    [
        ("ubuntu", Name("docker.io", "library/ubuntu", "latest"), "registry-1.docker.io"),
        ("docker.io/library/ubuntu:24.04", Name("docker.io", "library/ubuntu", "24.04"), "registry-1.docker.io"),
        ("docker.io/ubuntu:24.04", Name("docker.io", "library/ubuntu", "24.04"), "registry-1.docker.io"),
        ("nvidia/cuda:13.0.3-base", Name("docker.io", "nvidia/cuda", "13.0.3-base"), "registry-1.docker.io"),
        ("nvcr.io/nvidia/cuda:13.0.3", Name("nvcr.io", "nvidia/cuda", "13.0.3"), "nvcr.io"),
        ("localhost/a:1", Name("localhost", "a", "1"), "localhost"),
        ("mirror.example:5000/a/b/c:1", Name("mirror.example:5000", "a/b/c", "1"), "mirror.example:5000"),
        ("a.example/b@sha256:" + "0" * 64, Name("a.example", "b", "sha256:" + "0" * 64), "a.example"),
    ],
)
def test_a_name_is_read_as_docker_reads_it(image: str, name: Name, address: str) -> None:
    assert full_name(image) == name
    assert full_name(image).address == address


def test_the_digest_is_what_the_registry_says_and_no_manifest_is_fetched() -> None:
    with serving(Registry()) as registry:
        digest = registry.put("library/ubuntu", "24.04")
        assert digest_of(f"{registry.address}/library/ubuntu:24.04") == digest
    assert [method for method, _, _ in registry.asked] == ["HEAD"]


def test_a_token_is_fetched_where_the_registry_wants_one() -> None:
    """As the Hub does: refused first, then let in with a token for this repository alone."""
    with serving(Registry(wants_token=True)) as registry:
        digest = registry.put("nvidia/cuda", "13.0.3-devel")
        assert digest_of(f"{registry.address}/nvidia/cuda:13.0.3-devel") == digest
    methods = [(method, path.partition("?")[0]) for method, path, _ in registry.asked]
    manifest = "/v2/nvidia/cuda/manifests/13.0.3-devel"
    assert methods == [("HEAD", manifest), ("GET", "/token"), ("HEAD", manifest)]


def logged_in(folder: Path, registry: Registry) -> None:
    auth = base64.b64encode(registry.login.encode()).decode()
    (folder / "config.json").write_text(json.dumps({"auths": {registry.address: {"auth": auth}}}), encoding="utf-8")


@pytest.mark.parametrize("wants_token", [True, False])
def test_the_login_of_docker_is_used_where_one_is_wanted(no_logins: Path, wants_token: bool) -> None:
    with serving(Registry(login="me:secret", wants_token=wants_token, wants_basic=not wants_token)) as registry:
        digest = registry.put("site/base", "1")
        with pytest.raises(RegistryError, match="not given to everybody") as caught:
            digest_of(f"{registry.address}/site/base:1")
        assert "docker login" in caught.value.remedy
        logged_in(no_logins, registry)
        assert digest_of(f"{registry.address}/site/base:1") == digest
        assert digest_of(f"{registry.address}/site/base:1", [registry.address]) == digest


@pytest.mark.parametrize("content", ["", "{", "[]", '{"auths": {"127.0.0.1": 5}}', '{"credsStore": "pass"}'])
def test_settings_of_docker_that_help_not_do_not_hurt(no_logins: Path, content: str) -> None:
    (no_logins / "config.json").write_text(content, encoding="utf-8")
    with serving(Registry(wants_token=True)) as registry:
        digest = registry.put("a/b", "1")
        assert digest_of(f"{registry.address}/a/b:1") == digest


@pytest.mark.parametrize("changes", [{"knows_head": False}, {"says_digest": False}])
def test_a_registry_that_says_little_is_asked_for_the_manifest_itself(changes: dict[str, bool]) -> None:
    with serving(Registry(wants_token=True, **changes)) as registry:  # type: ignore[arg-type]
        digest = registry.put("a/b", "1", "x" * 3000)
        assert digest_of(f"{registry.address}/a/b:1") == digest


def test_a_registry_that_sends_something_else_than_it_says_is_not_believed() -> None:
    with serving(Registry(knows_head=False, lies=True)) as registry:
        registry.put("a/b", "1")
        with pytest.raises(RegistryError, match="and sends sha256"):
            digest_of(f"{registry.address}/a/b:1")


@pytest.mark.parametrize(
    ("status", "says"),
    [(403, "not given to everybody"), (404, "there is no"), (429, "answers no more"), (500, "answers with 500")],
)
def test_a_refusal_is_an_error_that_names_the_image(status: int, says: str) -> None:
    with serving(Registry(status=status)) as registry, pytest.raises(RegistryError, match=says) as caught:
        digest_of(f"{registry.address}/a/b:1")
    assert registry.address in caught.value.message
    assert caught.value.remedy


def test_nobody_is_sent_elsewhere() -> None:
    with serving(Registry(status=307)) as registry, pytest.raises(RegistryError, match="answers with 307"):
        digest_of(f"{registry.address}/a/b:1")
    assert {path for _, path, _ in registry.asked} == {"/v2/a/b/manifests/1"}


def test_a_token_is_not_fetched_over_plain_http_from_elsewhere() -> None:
    with serving(Registry(wants_token=True, realm="http://auth.example/token")) as registry:
        with pytest.raises(RegistryError, match=r"http://auth\.example/token, which is no https address"):
            digest_of(f"{registry.address}/a/b:1")
        registry.realm = ""


def test_another_machine_is_never_asked_without_tls_unless_that_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name is of another machine; that it leads to this one is only for the test."""
    real = socket.getaddrinfo
    monkeypatch.setattr(
        "socket.getaddrinfo",
        lambda host, *rest, **more: real("127.0.0.1" if host == "registry.example" else host, *rest, **more),
    )
    with serving(Registry()) as registry:
        digest = registry.put("a/b", "1")
        name = f"registry.example:{registry.address.split(':')[1]}"
        # This stand-in would wait for a line that TLS never sends.
        with silent() as other, pytest.raises(RegistryError, match="over https"):
            digest_of(f"registry.example:{other}/a/b:1")
        assert registry.asked == []
        assert digest_of(f"{name}/a/b:1", [name]) == digest


class silent:  # noqa: N801  reads as what it is
    """A port where somebody listens, hears no HTTP, and hangs up."""

    def __enter__(self) -> int:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.heard: list[bytes] = []
        self._thread = threading.Thread(target=self._hear)
        self._thread.start()
        port: int = self._socket.getsockname()[1]
        return port

    def _hear(self) -> None:
        connection, _ = self._socket.accept()
        with connection:
            self.heard.append(connection.recv(3))

    def __exit__(self, *_error: object) -> None:
        self._thread.join()
        self._socket.close()
        # The first bytes of a TLS handshake, and not of a request.
        assert self.heard[0][:1] == b"\x16"


def test_a_registry_that_cannot_be_reached_is_an_error_with_a_remedy() -> None:
    with pytest.raises(RegistryError, match=r"127\.0\.0\.1:9 cannot be asked over http: .*refused") as caught:
        digest_of("127.0.0.1:9/a/b:1")
    assert "https_proxy" in caught.value.remedy
    with pytest.raises(RegistryError, match=r"nowhere\.invalid cannot be asked over https"):
        digest_of("nowhere.invalid/a/b:1")
