from __future__ import annotations

from collections.abc import Mapping

import pytest

from llamarig.config.records import ServerValue
from llamarig.planning.layers import Setting, merge

Layers = list[tuple[str, Mapping[str, ServerValue]]]

LAW: dict[str, tuple[Layers, dict[str, Setting]]] = {
    "nothing gives nothing": ([], {}),
    "one layer stands": ([("a", {"x": 1})], {"x": Setting(1, "a")}),
    "a later layer wins": ([("a", {"x": 1}), ("b", {"x": 2})], {"x": Setting(2, "b", (("a", 1),))}),
    "the same value again is the later layer's": (
        [("a", {"x": 1}), ("b", {"x": 1})],
        {"x": Setting(1, "b", (("a", 1),))},
    ),
    "what weaker layers said stands under it, the strongest first": (
        [("a", {"x": 1}), ("b", {"x": 2}), ("c", {"x": 3})],
        {"x": Setting(3, "c", (("b", 2), ("a", 1)))},
    ),
    "layers add up": ([("a", {"x": 1}), ("b", {"y": 2})], {"x": Setting(1, "a"), "y": Setting(2, "b")}),
    "null removes": ([("a", {"x": 1}), ("b", {"x": None})], {}),
    "null of what is not there is nothing": ([("a", {"x": None})], {}),
    "what was removed can come back, and who removed it is said": (
        [("a", {"x": 1}), ("b", {"x": None}), ("c", {"x": 3})],
        {"x": Setting(3, "c", (("b", None), ("a", 1)))},
    ),
    "null does not reach upwards": ([("a", {"x": None}), ("b", {"x": 1})], {"x": Setting(1, "b", (("a", None),))}),
    "false is a value": ([("a", {"x": True}), ("b", {"x": False})], {"x": Setting(False, "b", (("a", True),))}),
    "zero is a value": ([("a", {"x": 8}), ("b", {"x": 0})], {"x": Setting(0, "b", (("a", 8),))}),
    "the empty string is a value": ([("a", {"x": "y"}), ("b", {"x": ""})], {"x": Setting("", "b", (("a", "y"),))}),
    "a list replaces a list whole": (
        [("a", {"x": [1, 2]}), ("b", {"x": [3]})],
        {"x": Setting([3], "b", (("a", [1, 2]),))},
    ),
}


@pytest.mark.parametrize(("layers", "merged"), LAW.values(), ids=LAW.keys())
def test_merge_law(layers: Layers, merged: dict[str, Setting]) -> None:
    assert merge(layers) == merged


def test_settings_come_out_by_name_whatever_the_order_of_writing() -> None:
    assert list(merge([("a", {"z": 1, "a": 1}), ("b", {"m": 1})])) == ["a", "m", "z"]
