from __future__ import annotations

import threading

import pytest

from llamarig.daemon.errand import Errand

SECONDS = 20


def test_a_call_is_made_at_once_and_its_result_can_be_had_later() -> None:
    errand = Errand(lambda: 7, 3.0)
    assert errand.wait(SECONDS)
    assert (errand.is_over, errand.result(), errand.began) == (True, 7, 3.0)


def test_one_that_hangs_is_waited_for_no_longer_than_one_wants() -> None:
    end = threading.Event()
    errand = Errand(lambda: end.wait(SECONDS))
    assert not errand.wait(-5.0)
    assert (errand.is_over, errand.result()) == (False, None)
    end.set()
    assert errand.wait(SECONDS)
    assert errand.result() is True


def test_what_the_call_raises_is_raised_where_its_result_is_asked_for() -> None:
    def fails() -> int:
        raise ValueError("no")

    errand = Errand(fails)
    errand.wait(SECONDS)
    with pytest.raises(ValueError, match="no"):
        errand.result()
