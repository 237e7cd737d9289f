from __future__ import annotations

from pathlib import Path

from llamarig.daemon.speeds import Figure, SpeedStore

FIRST, SECOND = Figure(50.5, 1000, "a" * 64), Figure(40.0, 2000, "b" * 64)


def test_figures_are_kept_by_engine_and_service(tmp_path: Path) -> None:
    store = SpeedStore(tmp_path)
    assert store.read() == {}
    store.keep("engine:old", "chat", FIRST)
    store.keep("engine:old", "code", SECOND)
    store.keep("engine:new", "chat", SECOND)
    store.keep("engine:new", "chat", FIRST)
    assert SpeedStore(tmp_path).read() == {
        "engine:old": {"chat": FIRST, "code": SECOND},
        "engine:new": {"chat": FIRST},
    }


def test_engines_that_are_gone_are_forgotten(tmp_path: Path) -> None:
    store = SpeedStore(tmp_path)
    store.keep("engine:old", "chat", FIRST)
    store.keep("engine:new", "chat", FIRST)
    store.forget(["engine:old", "engine:unknown"])
    assert store.read() == {"engine:new": {"chat": FIRST}}


def test_a_torn_file_is_as_none_and_is_written_anew(tmp_path: Path) -> None:
    store = SpeedStore(tmp_path)
    store.keep("engine:old", "chat", FIRST)
    for text in ("{", "[]", '{"images": {"x": {"chat": 3}}}', '{"images": {"x": {"chat": {"speed": 3}}}}'):
        store.path.write_text(text)
        assert store.read() == {}
    store.keep("engine:new", "chat", SECOND)
    assert store.read() == {"engine:new": {"chat": SECOND}}
