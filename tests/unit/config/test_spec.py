from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from llamarig.config.spec import Spec, SpecFile
from tests.support import make_spec

SPEC = make_spec(api_key_file="/etc/llamarig/keys/chat.key", api_key_sha256="c" * 64)
FILE = SPEC.files[0]


def test_a_spec_survives_json() -> None:
    assert Spec.from_dict(json.loads(json.dumps(SPEC.to_dict()))) == SPEC


@pytest.mark.parametrize(
    "change",
    [
        {"service": "code"},
        {"image": "llamarig/llama-cpp:other"},
        {"models_dir": "/models"},
        {"files": [SpecFile(FILE.path, FILE.bytes, "0" * 64)]},
        {"files": [SpecFile(FILE.path, FILE.bytes + 1, FILE.sha256)]},
        {"files": [FILE, FILE]},
        {"argv": [*SPEC.argv, "--jinja"]},
        {"memory_mib": 2048},
        {"api_key_file": None},
        {"api_key_sha256": "d" * 64},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_the_container_depends_on_changes_the_hash(change: dict[str, Any]) -> None:
    assert replace(SPEC, **change).hashed().spec_sha256 != SPEC.spec_sha256


@pytest.mark.parametrize(
    "change",
    [
        {"description": "another"},
        {"title": "another"},
        {"speed": "~9 t/s"},
        {"bench": True},
        {"reason": "another"},
        {"origins": {}},
        {"load_timeout_seconds": 1},
        {"drain_seconds": 6},
        {"bind": "127.0.0.2"},
        {"port": 8090},
        {"spec_sha256": "0" * 64},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_only_people_the_daemon_or_the_door_read_does_not_change_the_hash(change: dict[str, Any]) -> None:
    assert replace(SPEC, **change).hashed().spec_sha256 == SPEC.spec_sha256


def test_the_order_of_arguments_changes_the_hash() -> None:
    assert make_spec(argv=["--a", "--b"]).spec_sha256 != make_spec(argv=["--b", "--a"]).spec_sha256


def test_keys_of_a_newer_minor_version_are_ignored() -> None:
    assert Spec.from_dict({**SPEC.to_dict(), "colour": "blue"}) == SPEC


@pytest.mark.parametrize("version", [2, 0, None, "1"])
def test_another_schema_version_is_refused(version: object) -> None:
    with pytest.raises(ValueError, match="this agent reads 1"):
        Spec.from_dict({**SPEC.to_dict(), "schema_version": version})


@pytest.mark.parametrize("key", ["argv", "files", "port", "spec_sha256"])
def test_a_spec_without_a_key_is_refused_unless_the_key_has_a_default(key: str) -> None:
    data = {name: value for name, value in SPEC.to_dict().items() if name != key}
    if key == "spec_sha256":
        assert Spec.from_dict(data).hashed() == SPEC
    else:
        with pytest.raises(ValueError, match=f"incomplete spec: .*{key}"):
            Spec.from_dict(data)


@pytest.mark.parametrize("files", [None, [1], [{"path": "/x"}], [{"colour": "blue"}]], ids=repr)
def test_a_spec_with_misshapen_files_is_refused(files: object) -> None:
    with pytest.raises(ValueError, match="incomplete spec"):
        Spec.from_dict({**SPEC.to_dict(), "files": files})


@pytest.mark.parametrize(
    ("bind", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8080"),
        ("0.0.0.0", "http://127.0.0.1:8080"),  # noqa: S104  compared, not bound
        ("10.0.0.5", "http://10.0.0.5:8080"),
        ("::", "http://[::1]:8080"),
        ("fd00::5", "http://[fd00::5]:8080"),
    ],
)
def test_the_url_is_where_the_host_itself_reaches_the_service(bind: str, url: str) -> None:
    assert make_spec(bind=bind).url == url
