from __future__ import annotations

import random
from itertools import combinations

import pytest

from llamarig.config import budget
from llamarig.config.spec import DeviceMemory, HostMemory, Memory, Spec, SpecFile
from tests.support import make_spec

LIMIT = 10_000
CARD, KEPT, CONTEXT = 24_000, 600, 400


def spec(
    name: str, host: int = 100, *, limit: int = LIMIT, unknown: tuple[str, ...] = (), size: int = 1, **cards: int
) -> Spec:
    """A service that takes so many MiB of weights on each card, beside its context."""
    devices = [DeviceMemory(card, f"GPU-{card}", CARD, KEPT, CONTEXT, taken, 0, 0) for card, taken in cards.items()]
    memory = Memory(devices, HostMemory(limit, host, 0, 0, 0), "header", 0, 0, list(unknown))
    files = [SpecFile(f"/srv/{name}.gguf", size << 20, "a" * 64)]
    gpus = [device.uuid for device in devices]
    return make_spec(name, memory=memory, memory_mib=limit, gpus=gpus, files=files)


def unpredicted(name: str, *cards: str, limit: int = LIMIT) -> Spec:
    return make_spec(name, memory=None, memory_mib=limit, gpus=[f"GPU-{card}" for card in cards])


def left(wanted: Spec, *active: Spec, default: str | None = None) -> list[str]:
    return [spec.service for spec in budget.must_leave(wanted, active, default=default)]


def test_two_services_fit_where_a_card_has_room_for_both_and_what_is_kept_on_it() -> None:
    room = CARD - KEPT - 2 * CONTEXT
    assert budget.fits([spec("a", one=room // 2), spec("b", one=room - room // 2)])
    assert not budget.fits([spec("a", one=room // 2), spec("b", one=room - room // 2 + 1)])


def test_services_on_cards_of_their_own_do_not_stand_in_each_others_way() -> None:
    assert budget.fits([spec("a", one=20_000), spec("b", two=20_000)])
    assert not budget.fits([spec("a", one=20_000, two=1000), spec("b", two=22_000)])


def test_a_shortage_says_where_who_and_how_much() -> None:
    (shortage,) = budget.shortages([spec("a", one=20_000), spec("b", one=10_000)])
    assert shortage == budget.Shortage("one", ("a", "b"), 30_800, 23_400)
    assert shortage.named({}) == "one has 22.85 GiB for services, and they take 30.08"


def test_the_host_is_a_budget_of_its_own() -> None:
    services = [spec("a", host=6000, one=1000), spec("b", host=5000, two=1000)]
    (shortage,) = budget.shortages(services)
    assert (shortage.where, shortage.needed, shortage.available) == ("host", 11_000, LIMIT)
    assert budget.fits(services, host_mib=11_000)


def test_the_host_offers_what_the_largest_limit_of_its_services_says_where_nobody_else_does() -> None:
    assert budget.fits([spec("a", host=3000, limit=4000), spec("b", host=6000)])
    assert not budget.fits([spec("a", host=3000, limit=4000), spec("b", host=3000, limit=4000)])


@pytest.mark.parametrize("other", [unpredicted("b", "one"), spec("b", one=1, unknown=("its cache",))])
def test_what_is_not_predicted_has_its_cards_for_itself(other: Spec) -> None:
    (card, *_) = budget.shortages([spec("a", host=0, one=1), other], host_mib=10 * LIMIT)
    assert (card.services, card.needed) == (("a", "b"), None)
    assert "not all of them are predicted" in card.named({})
    assert budget.fits([spec("a", two=1), other], host_mib=10 * LIMIT)
    assert budget.fits([other])


def test_a_card_that_only_a_uuid_is_known_of_is_said_by_the_name_that_others_know() -> None:
    (shortage,) = budget.shortages([unpredicted("a", "one"), unpredicted("b", "one")], host_mib=10 * LIMIT)
    assert "share GPU-one, " in shortage.named({})
    assert "share rtx-4090, " in shortage.named({"GPU-one": "rtx-4090"})


def test_what_is_not_predicted_counts_with_the_limit_of_its_container() -> None:
    small = unpredicted("small", limit=1000)
    assert budget.fits([spec("a", host=9000, one=1), small])
    assert not budget.fits([spec("a", host=9001, one=1), small])


def test_no_service_counts_with_more_than_its_container_can_take() -> None:
    assert budget.host_need(spec("a", host=9000, limit=4000)) == 4000


def test_pairs_are_those_that_fit() -> None:
    services = [spec("a", one=15_000), spec("b", one=15_000), spec("c", one=5000), spec("d", two=1)]
    assert budget.pairs(services) == [("a", "c"), ("a", "d"), ("b", "c"), ("b", "d"), ("c", "d")]


def test_together_are_the_sets_that_leave_room_for_no_other() -> None:
    services = [spec("a", one=15_000), spec("b", one=15_000), spec("c", one=5000), spec("d", two=1)]
    assert list(budget.together(services)) == [("a", "c", "d"), ("b", "c", "d")]


def test_nothing_is_together_where_each_takes_all() -> None:
    assert list(budget.together([spec("a", one=20_000), spec("b", one=20_000), spec("c", one=20_000)])) == []
    assert list(budget.together([])) == []


def test_many_services_that_all_fit_are_one_set_at_once() -> None:
    services = [spec(f"s{number}", host=1, one=1) for number in range(40)]
    assert list(budget.together(services, host_mib=40)) == [tuple(item.service for item in services)]


def test_a_service_that_fits_not_even_alone_is_in_no_set() -> None:
    assert list(budget.together([spec("a", one=30_000), spec("b", one=1), spec("c", one=1)])) == [("b", "c")]


def test_sets_are_what_trying_every_set_finds() -> None:
    choose = random.Random(4)  # noqa: S311  the same numbers every time
    for _ in range(50):
        services = [
            spec(f"s{n}", host=choose.randint(0, 6000), one=choose.randint(0, 20_000), two=choose.randint(0, 20_000))
            for n in range(5)
        ]
        services += [unpredicted("s5", "one", limit=500), spec("s6", unknown=("its cache",), limit=300, two=30_000)]
        fitting = [set(some) for count in range(8) for some in combinations(range(7), count) if fit(services, some)]
        largest = [some for some in fitting if len(some) > 1 and not any(some < other for other in fitting)]
        found = [{int(name[1:]) for name in names} for names in budget.together(services)]
        assert sorted(map(sorted, found)) == sorted(map(sorted, largest))
        beside = [(one, other) for one, other in combinations(range(7), 2) if fit(services, (one, other))]
        assert budget.pairs(services) == [(f"s{one}", f"s{other}") for one, other in beside]


def fit(services: list[Spec], numbers: tuple[int, ...]) -> bool:
    return budget.fits([services[number] for number in numbers], LIMIT)


def test_nothing_leaves_where_there_is_room() -> None:
    assert left(spec("new", one=1000), spec("a", one=1000), spec("b", two=1000)) == []


def test_only_who_stands_in_the_way_leaves() -> None:
    assert left(spec("new", one=20_000), spec("a", one=10_000), spec("b", two=10_000)) == ["a"]


def test_as_few_leave_as_possible() -> None:
    wanted = spec("new", one=12_000)
    assert left(wanted, spec("a", one=2500), spec("b", one=2500), spec("c", one=9000, size=9)) == ["c"]


def test_of_equals_the_one_that_is_quicker_to_load_again_leaves() -> None:
    wanted = spec("new", one=10_000)
    assert left(wanted, spec("a", one=7000, size=3), spec("b", one=7000, size=2), spec("c", two=1)) == ["b"]


def test_the_default_service_stays_where_another_can_leave() -> None:
    wanted = spec("new", one=10_000)
    services = (spec("a", one=7000, size=3), spec("b", one=7000, size=2))
    assert left(wanted, *services, default="b") == ["a"]
    assert left(spec("new", one=20_000), *services, default="b") == ["a", "b"]


def test_a_service_takes_its_own_place() -> None:
    assert left(spec("a", one=20_000), spec("a", one=20_000)) == []


def test_everything_leaves_for_what_is_not_predicted_on_the_same_card() -> None:
    wanted = unpredicted("new", "one", limit=1000)
    assert left(wanted, spec("a", one=1), spec("b", two=1), spec("c", one=1, two=1)) == ["a", "c"]


def test_a_model_whose_size_nobody_said_counts_with_its_weights() -> None:
    wanted = spec("new", one=10_000)
    assert left(wanted, spec("a", one=7000, size=0), spec("b", one=6800, size=0)) == ["b"]


def test_the_set_that_leaves_is_no_larger_than_any_that_would_do() -> None:
    choose = random.Random(5)  # noqa: S311  the same numbers every time
    for _ in range(50):
        active = [spec(f"s{n}", host=choose.randint(0, 4000), one=choose.randint(0, 9000)) for n in range(6)]
        wanted = spec("new", one=choose.randint(0, 22_000))
        out = {item.service for item in budget.must_leave(wanted, active)}
        assert budget.fits([wanted, *(item for item in active if item.service not in out)])
        for count in range(len(out)):
            for some in combinations(active, count):
                assert not budget.fits([wanted, *(item for item in active if item not in some)])


def test_of_very_many_none_leaves_that_could_stay() -> None:
    active = [spec(f"s{number}", host=1, one=1000 + 100 * number, size=number) for number in range(15)]
    wanted = spec("new", one=1000)
    out = budget.must_leave(wanted, active)
    staying = [item for item in active if item not in out]
    assert out
    assert budget.fits([wanted, *staying])
    assert all(not budget.fits([wanted, *staying, item]) for item in out)
