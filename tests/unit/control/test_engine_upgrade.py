from __future__ import annotations

from typing import Any

import pytest

from llamarig.control import engine_upgrade
from llamarig.control.engine_upgrade import Asked, adopted, back, canary, candidate, limited
from llamarig.errors import LlamarigError
from tests.support import ROOT

COMMIT, OTHER = "a" * 40, "b" * 40
SOURCE: dict[str, Any] = {
    "repository": "https://git.example/llama.cpp.git",
    "ref": "v0.7.0",
    "version": "0.7.0",
    "commit": COMMIT,
    "committed": 1,
    "build": None,
    "archive": None,
}
IMAGE = f"registry.example/llama.cpp@sha256:{'1' * 64}"
NEXT_IMAGE = f"registry.example/llama.cpp@sha256:{'2' * 64}"
LOCK: dict[str, Any] = {
    "llama_image_source": SOURCE,
    "llama_image_digests": {},
    "llama_image_prebuilt": {"image": IMAGE, "version": "0.7.0"},
}


def plan(*services: str) -> dict[str, Any]:
    return {"specs": [{"service": name} for name in services]}


def built(commit: str | None) -> dict[str, Any]:
    return {"commit": commit, "prebuilt": None}


def pulled(image: str) -> dict[str, Any]:
    return {"commit": None, "prebuilt": image}


def upgraded(recipe: str, **asked: str) -> dict[str, Any]:
    return candidate(ROOT, ROOT / "lock.yml", LOCK, recipe, Asked(**asked), lambda _: None)


def test_an_image_of_somebody_else_becomes_the_candidate_and_the_lock_remembers_the_one_before() -> None:
    lock = upgraded("prebuilt", image=NEXT_IMAGE, version="0.8.0")
    assert lock["llama_image_prebuilt"] == {"image": NEXT_IMAGE, "version": "0.8.0"}
    assert lock["llama_image_source"] == SOURCE
    assert lock["engine_before"] == {"llama_image_prebuilt": LOCK["llama_image_prebuilt"]}


@pytest.mark.parametrize(
    ("recipe", "asked", "remedy"),
    [
        ("source", {}, "llama_cpp_ref"),
        ("source", {"image": IMAGE, "version": "1"}, "llama_cpp_ref"),
        ("prebuilt", {"ref": "v0.8.0"}, "llama_cpp_image"),
        ("prebuilt", {"image": "registry.example/llama.cpp:latest", "version": "0.8.0"}, "sha256"),
        ("prebuilt", {"image": NEXT_IMAGE}, "llama_cpp_version"),
        ("debian-package", {"ref": "v0.8.0"}, "llama_image_package"),
    ],
)
def test_what_does_not_fit_the_recipe_is_refused_with_what_to_say(
    recipe: str, asked: dict[str, str], remedy: str
) -> None:
    with pytest.raises(LlamarigError) as caught:
        upgraded(recipe, **asked)
    assert remedy in caught.value.remedy


def test_the_canary_is_the_first_host_that_serves() -> None:
    plans = {"builder": plan(), "one": plan("chat"), "two": plan("chat")}
    assert canary(plans) == "one"
    assert canary(plans, "two") == "two"
    for asked, hosts in (("builder", plans), ("three", plans), ("", {"builder": plan()})):
        with pytest.raises(LlamarigError):
            canary(hosts, asked)


def test_after_a_whole_upgrade_every_host_and_the_lock_go_back() -> None:
    lock = upgraded("prebuilt", image=NEXT_IMAGE, version="0.8.0")
    found = back(lock, {"one": pulled(NEXT_IMAGE), "two": pulled(NEXT_IMAGE), "none": None})
    assert found.hosts == ["one", "two"]
    assert adopted(found.lock, LOCK)
    again = back(found.lock, {"one": pulled(IMAGE), "two": pulled(IMAGE)})
    assert adopted(again.lock, lock)


def test_after_half_an_upgrade_only_what_was_switched_goes_back_and_the_lock_stays() -> None:
    lock = LOCK | {"engine_before": {"llama_image_prebuilt": {"image": "x", "version": "0"}}}
    found = back(lock, {"one": pulled(NEXT_IMAGE), "two": pulled(IMAGE)})
    assert found.hosts == ["one"]
    assert found.lock == lock
    assert "one" in found.why


def test_an_engine_that_was_built_is_known_by_its_commit() -> None:
    lock = LOCK | {"engine_before": {"llama_image_source": SOURCE | {"commit": OTHER}}}
    assert back(lock, {"one": built(COMMIT), "two": built(OTHER)}).hosts == ["two"]
    found = back(lock, {"one": built(COMMIT)})
    assert found.lock["llama_image_source"]["commit"] == OTHER
    assert found.lock["engine_before"]["llama_image_source"]["commit"] == COMMIT


def test_a_fleet_that_was_never_upgraded_has_nowhere_to_go() -> None:
    with pytest.raises(LlamarigError, match="no engine of before"):
        back(LOCK, {"one": pulled(IMAGE)})


def test_the_lock_is_the_same_wherever_it_came_from() -> None:
    assert adopted(LOCK, LOCK | {"engine_before": {"llama_image_source": None}})
    assert not adopted(LOCK, upgraded("prebuilt", image=NEXT_IMAGE, version="0.8.0"))


def test_a_run_over_a_part_of_the_fleet_is_noticed() -> None:
    assert limited(["one"], ["one", "two"]) == ["two"]
    assert limited(["one", "two"], ["one", "two"]) == []


def test_the_name_of_a_recorded_help_goes_into_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_upgrade, "record_help", lambda _, version, __: (f"{version}+12345678", True))
    lock, changed = engine_upgrade.with_help(ROOT, LOCK, "prebuilt", "text")
    assert changed
    assert lock["llama_image_prebuilt"] == {"image": IMAGE, "version": "0.7.0+12345678"}
