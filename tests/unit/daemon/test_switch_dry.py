from __future__ import annotations

import pytest

from llamarig.daemon.state import State
from llamarig.errors import NotFoundError, SwitchError
from tests.support import below
from tests.unit.daemon.fakes import Host


def test_dry_says_what_would_happen_and_changes_nothing(serving_alpha: Host) -> None:
    before = serving_alpha.files()
    outcome = serving_alpha.switcher.switch("beta", dry=True)
    assert (outcome.active, outcome.previous, outcome.changed) == ("beta", "alpha", True)
    assert outcome.message == "would switch to beta"
    assert (serving_alpha.units.changes, serving_alpha.files()) == ([], before)


def test_dry_says_that_the_active_service_would_stay(serving_alpha: Host) -> None:
    assert not serving_alpha.switcher.switch("alpha", dry=True).changed


def test_dry_refuses_what_a_switch_would_refuse_and_records_nothing(serving_alpha: Host) -> None:
    below(serving_alpha.root, "/srv/llamarig/models/beta.gguf").unlink()
    before = serving_alpha.files()
    with pytest.raises(SwitchError, match=r"beta\.gguf is missing; nothing was touched"):
        serving_alpha.switcher.switch("beta", dry=True)
    with pytest.raises(NotFoundError):
        serving_alpha.switcher.switch("gamma", dry=True)
    assert serving_alpha.files() == before


def test_dry_leaves_an_unfinished_switch_for_the_next_command_to_put_away(serving_alpha: Host) -> None:
    serving_alpha.state.write(State("alpha", "beta"))
    before = serving_alpha.files()
    serving_alpha.switcher.switch("beta", dry=True)
    assert serving_alpha.files() == before
