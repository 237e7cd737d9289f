from __future__ import annotations

import threading

import pytest

from llamarig.daemon.feed import KEPT, WAITING, Feed


def test_every_listener_gets_every_event_in_its_order() -> None:
    feed = Feed(100)
    one, other = feed.subscribe(), feed.subscribe()
    for number in range(5):
        feed.publish("job", number)
    assert [(event.id, event.kind, event.data) for event in one.take()] == [(100 + n, "job", n) for n in range(5)]
    assert [event.data for event in other.take()] == list(range(5))
    assert one.take() == []
    assert feed.last == 104


def test_one_who_comes_back_gets_what_was_missed() -> None:
    feed = Feed(1)
    for number in range(1, 11):
        feed.publish("job", number)
    assert [event.data for event in feed.subscribe(after=7).take()] == [8, 9, 10]
    assert feed.subscribe(after=10).take() == []
    assert len(feed.subscribe(after=1000).take()) == 10
    assert feed.subscribe().take() == []


def test_one_who_was_away_for_long_gets_what_is_still_kept() -> None:
    feed = Feed(1)
    for number in range(1, KEPT + 11):
        feed.publish("job", number)
    events = feed.subscribe(after=0).take()
    assert len(events) == KEPT
    assert events[0].data == 11


def test_one_who_never_reads_is_dropped_and_the_others_are_told_on() -> None:
    feed = Feed()
    dead, alive = feed.subscribe(), feed.subscribe()
    for number in range(WAITING + 10):
        feed.publish("job", number)
        alive.take()
    assert dead.lost
    assert not alive.lost
    assert len(dead.take()) == WAITING
    assert dead.get(timeout=0) is None
    feed.publish("job", "last")
    assert dead.take() == []
    assert [event.data for event in alive.take()] == ["last"]


def test_one_who_closes_is_told_nothing_more() -> None:
    feed = Feed()
    listener = feed.subscribe()
    assert [feed.has_listeners] == [True]
    listener.close()
    listener.close()
    assert [feed.has_listeners] == [False]
    feed.publish("job", 1)
    assert listener.take() == []
    assert not listener.lost


def test_whoever_listens_is_woken_for_every_event() -> None:
    feed = Feed()
    calls: list[int] = []
    feed.subscribe(lambda: calls.append(1))
    feed.publish("job", 1)
    feed.publish("job", 2)
    assert len(calls) == 2


@pytest.mark.parametrize("error", [RuntimeError("Event loop is closed"), KeyError("odd"), OSError(9, "Bad file")])
def test_one_who_cannot_be_woken_is_dropped_and_no_job_fails_for_that(error: Exception) -> None:
    def closed() -> None:
        raise error

    feed = Feed()
    listener = feed.subscribe(closed)
    feed.publish("job", 1)
    assert listener.lost
    assert not feed.has_listeners


def test_waiting_for_an_event_ends_when_it_comes() -> None:
    feed = Feed()
    listener = feed.subscribe()
    threading.Thread(target=feed.publish, args=("job", "here")).start()
    event = listener.get(timeout=20)
    assert event is not None
    assert event.data == "here"
