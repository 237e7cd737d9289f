from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llamarig.daemon.state import StateStore
from llamarig.errors import ConfigError
from llamarig.hardware.gpus import NvmlError, RecordedGpus, Setting, explained
from llamarig.hardware.nvml_process import NvmlProcess
from llamarig.hardware.tuning import Outcome, Tuner, this_start
from tests.unit.hardware.conftest import Silicon
from tests.unit.hardware.recordings import ADA, BLACKWELL, begin, declare, hardware, recorded

LIMIT = {"power_limit_watts": 350}
LOCK = {"lock_clocks_mhz": [210, 2520]}
HOST = "rig01"

REFUSED = [
    ({"power_limit_watts": 700}, {}, f"700 W, and {ADA} takes 150 to 600 W", "choose a value from 150 to 600"),
    ({"power_limit_watts": 100}, {}, f"100 W, and {ADA} takes 150 to 600 W", "choose a value from 150 to 600"),
    (LIMIT, {"power_limit_w": None}, f"350 W, and the power of {ADA} cannot be limited", "remove the option"),
    (LIMIT, {"power_max_w": None}, f"350 W, and the power of {ADA} cannot be limited", "remove the option"),
    (
        {"lock_clocks_mhz": [210, 4000]},
        {},
        f"210 to 4000 MHz, and {ADA} takes clocks up to 3105 MHz",
        "choose a lowest and a highest clock, neither above 3105",
    ),
    ({"lock_clocks_mhz": [2520, 210]}, {}, "2520 to 210 MHz", "choose a lowest and a highest clock"),
]


class Rig:
    """Recorded cards with a memory, tuned again and again as inventories change and the host starts anew."""

    def __init__(self, root: Path, data: dict[str, Any] | None = None) -> None:
        self.root = root
        self.gpus = RecordedGpus(data or recorded())
        self.memory = StateStore(root)
        self.start = "first"

    def tune(self, ada: dict[str, Any] | None = None, *, dry: bool = False, **rest: Any) -> Outcome:
        declared = declare(self.root, hardware(ada, **rest))
        return Tuner(declared, self.gpus, self.memory, self.start, HOST).run(dry=dry)

    def boot(self, data: dict[str, Any] | None = None) -> None:
        """Start the host anew: cards forget what they were set to."""
        self.gpus = RecordedGpus(data or recorded())
        self.start += " again"

    def applied(self) -> list[Setting]:
        found, self.gpus.applied = self.gpus.applied, []
        return found


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def test_cards_without_options_are_left_alone(rig: Rig) -> None:
    outcome = rig.tune()
    assert (outcome.changed, rig.applied()) == (False, [])
    assert not (rig.memory.directory.parent / "tuning.json").exists()


def test_options_are_set_once_and_a_second_run_changes_nothing(rig: Rig) -> None:
    first = rig.tune(LIMIT | LOCK)
    assert rig.applied() == [Setting(ADA, "power_limit_w", 350), Setting(ADA, "clock_lock_mhz", (210, 2520))]
    assert [str(change) for change in first.changes] == [
        "rtx4090: power limit 350 W, was 450 W",
        "rtx4090: clocks locked to 210 to 2520 MHz",
    ]
    stamp = (rig.memory.directory.parent / "tuning.json").stat().st_mtime_ns
    second = rig.tune(LIMIT | LOCK)
    assert (second.changed, rig.applied()) == (False, [])
    assert (rig.memory.directory.parent / "tuning.json").stat().st_mtime_ns == stamp


def test_a_changed_value_is_set(rig: Rig) -> None:
    rig.tune(LIMIT | LOCK)
    rig.applied()
    rig.tune({"power_limit_watts": 400, "lock_clocks_mhz": [210, 2000]})
    assert rig.applied() == [Setting(ADA, "power_limit_w", 400), Setting(ADA, "clock_lock_mhz", (210, 2000))]


def test_what_somebody_else_changed_is_set_back(rig: Rig) -> None:
    rig.tune(LIMIT)
    rig.gpus.apply(Setting(ADA, "power_limit_w", 600))
    rig.applied()
    rig.tune(LIMIT)
    assert rig.applied() == [Setting(ADA, "power_limit_w", 350)]


def test_a_limit_that_the_driver_rounded_is_not_set_for_ever(rig: Rig) -> None:
    rig.tune(LIMIT)
    rig.gpus.apply(Setting(ADA, "power_limit_w", 350.4))
    assert rig.tune(LIMIT).changed is False


def test_persistence_is_switched_on_where_nobody_has(tmp_path: Path) -> None:
    rig = Rig(tmp_path, recorded({"persistence": False}, {"persistence": None}))
    outcome = rig.tune()
    assert rig.applied() == [Setting(ADA, "persistence", True)]
    assert [str(change) for change in outcome.changes] == ["rtx4090: persistence on"]
    assert rig.tune().changed is False


def test_an_option_that_is_removed_goes_back_to_the_default(rig: Rig) -> None:
    rig.tune(LIMIT | LOCK)
    rig.applied()
    outcome = rig.tune()
    assert rig.applied() == [Setting(ADA, "power_limit_w", 450.0), Setting(ADA, "clock_lock_mhz", None)]
    assert [str(change) for change in outcome.changes] == [
        "rtx4090: power limit 450 W, was 350 W",
        "rtx4090: clocks no longer locked",
    ]
    assert rig.tune().changed is False
    assert rig.memory.tuned() == {}


def test_a_card_that_is_no_longer_declared_goes_back_to_its_default(rig: Rig) -> None:
    rig.tune(LIMIT | LOCK)
    rig.applied()
    rig.tune(gpus=[])
    assert rig.applied() == [Setting(ADA, "power_limit_w", 450.0), Setting(ADA, "clock_lock_mhz", None)]
    assert rig.memory.tuned() == {}


def test_an_option_that_happened_to_be_so_goes_back_too_when_it_is_removed(tmp_path: Path) -> None:
    rig = Rig(tmp_path, recorded({"power_limit_w": 350.0}))
    assert rig.tune(LIMIT).changed is False
    rig.tune()
    assert rig.applied() == [Setting(ADA, "power_limit_w", 450.0)]


def test_a_limit_that_was_never_ours_is_left_alone(tmp_path: Path) -> None:
    rig = Rig(tmp_path, recorded({"power_limit_w": 350.0}))
    assert (rig.tune().changed, rig.applied()) == (False, [])


def test_after_a_start_of_the_host_everything_is_set_again(rig: Rig) -> None:
    rig.tune(LIMIT | LOCK)
    rig.boot()
    rig.tune(LIMIT | LOCK)
    assert rig.applied() == [Setting(ADA, "power_limit_w", 350), Setting(ADA, "clock_lock_mhz", (210, 2520))]


def test_after_another_driver_was_loaded_the_lock_is_set_again(rig: Rig) -> None:
    rig.tune(LOCK)
    rig.gpus = RecordedGpus(recorded(driver_version="580.126.09"))
    rig.tune(LOCK)
    assert rig.applied() == [Setting(ADA, "clock_lock_mhz", (210, 2520))]


def test_after_a_start_nothing_is_taken_back_that_no_longer_holds(rig: Rig) -> None:
    rig.tune(LIMIT | LOCK)
    rig.boot()
    assert (rig.tune().changed, rig.applied()) == (False, [])


@pytest.mark.parametrize(("option", "card", "message", "remedy"), REFUSED)
def test_a_value_that_the_card_does_not_take_is_refused_before_any_card_is_touched(
    tmp_path: Path, option: dict[str, Any], card: dict[str, Any], message: str, remedy: str
) -> None:
    rig = Rig(tmp_path, recorded(card, {"persistence": False}))
    with pytest.raises(ConfigError) as caught:
        rig.tune(option, blackwell={"power_limit_watts": 320})
    (problem,) = caught.value.problems
    assert (problem.host, problem.key) == (HOST, f"host_hardware.gpus[rtx4090].{next(iter(option))}")
    assert message in problem.message
    assert remedy in problem.remedy
    assert rig.applied() == []
    assert "nothing was touched" in caught.value.message


def test_every_refused_value_is_told_at_once(rig: Rig) -> None:
    with pytest.raises(ConfigError) as caught:
        rig.tune({"power_limit_watts": 9, "lock_clocks_mhz": [0, 9999]}, blackwell={"power_limit_watts": 9})
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize(
    ("option", "card"),
    [({"power_limit_watts": 600}, {}), ({"power_limit_watts": 150}, {}), (LOCK, {"clock_max_mhz": None})],
)
def test_a_value_at_the_edge_or_one_that_nobody_can_judge_is_taken(
    tmp_path: Path, option: dict[str, Any], card: dict[str, Any]
) -> None:
    assert Rig(tmp_path, recorded(card)).tune(option).changed is True


def test_check_says_what_would_change_and_touches_nothing(rig: Rig) -> None:
    outcome = rig.tune(LIMIT | LOCK, dry=True)
    assert [change.to_dict() for change in outcome.changes] == [
        {"card": "rtx4090", "uuid": ADA, "setting": "power_limit_w", "from": 450.0, "to": 350},
        {"card": "rtx4090", "uuid": ADA, "setting": "clock_lock_mhz", "from": None, "to": (210, 2520)},
    ]
    assert (rig.applied(), rig.memory.tuned()) == ([], {})


@pytest.mark.parametrize("code", [9, 12, 18])
def test_check_before_the_driver_is_there_says_that_it_waits(tmp_path: Path, code: int) -> None:
    rig = Rig(tmp_path, {"error": {"code": code}})
    outcome = rig.tune(LIMIT, dry=True)
    assert (outcome.changed, outcome.waits) == (True, explained(code).message)
    with pytest.raises(NvmlError):
        rig.tune(LIMIT)


def test_a_host_that_lost_its_cards_and_its_driver_has_nothing_to_tune(rig: Rig) -> None:
    rig.tune(LIMIT)
    rig.boot({"error": {"code": 12}})
    assert rig.tune(gpus=[]).changed is False


def test_a_host_without_cards_never_asks_nvml(tmp_path: Path) -> None:
    assert Rig(tmp_path, {"error": {"code": 999}}).tune(gpus=[]) == Outcome([])


def test_a_lost_card_is_missing_and_the_other_is_tuned(tmp_path: Path) -> None:
    data = recorded()
    data["cards"].pop(0)
    rig = Rig(tmp_path, data | {"faults": [{"index": 0, "code": 15}]})
    outcome = rig.tune(LIMIT, blackwell={"power_limit_watts": 280})
    assert outcome.missing == [f"rtx4090 ({ADA})"]
    assert rig.applied() == [Setting(BLACKWELL, "power_limit_w", 280)]


def test_what_a_failure_kept_from_being_set_is_set_by_the_next_run(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    apply = rig.gpus.apply

    def refuse_clocks(setting: Setting) -> None:
        if setting.key == "clock_lock_mhz":
            raise explained(999)
        apply(setting)

    monkeypatch.setattr(rig.gpus, "apply", refuse_clocks)
    with pytest.raises(NvmlError, match=f"{HOST}: rtx4090: clocks locked to 210 to 2520 MHz: NVML itself does not"):
        rig.tune(LIMIT | LOCK)
    monkeypatch.undo()
    assert rig.applied() == [Setting(ADA, "power_limit_w", 350)]
    rig.tune(LIMIT | LOCK)
    assert rig.applied() == [Setting(ADA, "clock_lock_mhz", (210, 2520))]


def test_a_lock_that_could_not_be_taken_off_is_tried_again(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.tune(LOCK)
    rig.applied()

    def refuse(_: Setting) -> None:
        raise explained(999)

    monkeypatch.setattr(rig.gpus, "apply", refuse)
    with pytest.raises(NvmlError):
        rig.tune()
    monkeypatch.undo()
    rig.tune()
    assert rig.applied() == [Setting(ADA, "clock_lock_mhz", None)]


def test_a_damaged_memory_counts_as_none(rig: Rig) -> None:
    rig.tune(LOCK)
    rig.applied()
    (rig.memory.directory.parent / "tuning.json").write_text("{", encoding="utf-8")
    rig.tune(LOCK)
    assert rig.applied() == [Setting(ADA, "clock_lock_mhz", (210, 2520))]


def test_a_start_differs_by_boot_and_by_the_first_process(tmp_path: Path) -> None:
    starts = {begin(tmp_path, *kind) for kind in (("boot1", 5), ("boot2", 5), ("boot1", 9), ("boot1", 5))}
    assert starts == {"boot1 5", "boot2 5", "boot1 9"}


def test_this_machine_has_a_start() -> None:
    assert this_start() == this_start()


def test_cards_behind_nvml_are_tuned_and_go_back(silicon: Silicon, tmp_path: Path) -> None:
    declared = declare(tmp_path, hardware(LIMIT | LOCK))
    memory = StateStore(tmp_path)
    Tuner(declared, NvmlProcess(), memory, "first", HOST).run()
    assert silicon.setting(ADA, "power_limit_mw") == "350000 0"
    assert silicon.setting(ADA, "locked_clocks_mhz") == "210 2520"
    assert silicon.setting(BLACKWELL, "persistence") == "1 0"
    assert Tuner(declared, NvmlProcess(), memory, "first", HOST).run().changed is False
    bare = declare(tmp_path, hardware())
    Tuner(bare, NvmlProcess(), memory, "first", HOST).run()
    assert silicon.setting(ADA, "power_limit_mw") == "450000 0"
    assert silicon.setting(ADA, "locked_clocks_mhz") is None
    assert json.loads((memory.directory.parent / "tuning.json").read_text(encoding="utf-8")) == {}
