from __future__ import annotations

from pathlib import Path

import pytest

from llamarig.runtime.cgroups import service_of

FOUND = [
    ("0::/llama.slice/llama-chat.slice/docker-0123.scope", "chat"),
    ("0::/llama.slice/llama-code.slice/llama-code-2.slice/docker-0123.scope", "code-2"),
    ("12:memory:/llama-chat.slice/0123\n1:name=systemd:/llama-chat.slice/0123", "chat"),
    ("0::/llama.slice/llama-a.slice/docker-0123.scope/with:colon", "a"),
    ("0::/user.slice/user-1000.slice/session-1.scope", None),
    # Any user can name a slice of their own like that.
    ("0::/user.slice/user-1000.slice/user@1000.service/llama.slice/llama-chat.slice/it.scope", None),
    ("0::/system.slice/docker-0123.scope", None),
    ("0::/llama.slice", None),
    ("0::/", None),
    ("", None),
]


@pytest.mark.parametrize(("text", "service"), FOUND)
def test_a_process_belongs_to_the_innermost_slice(tmp_path: Path, text: str, service: str | None) -> None:
    path = tmp_path / "proc/41/cgroup"
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="ascii")
    assert service_of(41, tmp_path) == service


def test_a_process_that_is_gone_belongs_to_none(tmp_path: Path) -> None:
    assert service_of(41, tmp_path) is None
