from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llamarig.dashboard.log import LINES, LogBuffer
from llamarig.dashboard.text import words

HEIGHT = 10


def log(count: int = 100, service: str = "chat") -> LogBuffer:
    buffer = LogBuffer()
    buffer.begin(service)
    for number in range(1, count + 1):
        buffer.add(f"line {number}")
    return buffer


def shown(buffer: LogBuffer, height: int = HEIGHT, cells: int = 40) -> list[str]:
    return [words(text) for text in buffer.lines(cells, height)]


def test_the_newest_lines_are_shown_and_followed() -> None:
    buffer = log()
    assert shown(buffer)[-1] == "line 100"
    assert len(shown(buffer)) == HEIGHT
    buffer.add("line 101")
    assert shown(buffer)[-1] == "line 101"


def test_only_the_last_lines_are_kept() -> None:
    buffer = log(LINES + 500)
    assert len(buffer) == LINES
    buffer.top(HEIGHT)
    assert shown(buffer)[0] == "line 501"


def test_what_is_looked_at_stays_while_lines_come() -> None:
    buffer = log()
    buffer.scroll(-20, HEIGHT)
    assert buffer.span(HEIGHT) == (71, 80)
    buffer.add("another")
    assert not buffer.following
    assert shown(buffer)[-1] == "line 80"


def test_what_is_looked_at_stays_also_when_the_oldest_lines_go() -> None:
    buffer = log(LINES)
    buffer.scroll(-20, HEIGHT)
    before = shown(buffer)
    buffer.add("another")
    assert shown(buffer) == before


def test_scrolling_stops_at_the_first_line_and_follows_again_at_the_last() -> None:
    buffer = log()
    buffer.scroll(-10_000, HEIGHT)
    assert buffer.span(HEIGHT) == (1, HEIGHT)
    buffer.scroll(10_000, HEIGHT)
    assert buffer.following
    buffer.top(HEIGHT)
    buffer.follow()
    assert buffer.following


def test_a_log_shorter_than_the_panel_is_shown_whole() -> None:
    buffer = log(3)
    buffer.scroll(-1, HEIGHT)
    assert buffer.following
    assert shown(buffer) == ["line 1", "line 2", "line 3"]
    assert LogBuffer().span(HEIGHT) == (0, 0)


def test_another_service_is_announced_and_the_lines_before_stay() -> None:
    buffer = log(3)
    buffer.begin("code")
    buffer.add("hello")
    assert shown(buffer) == ["line 1", "line 2", "line 3", "code".center(40, "─").replace("─code─", " code "), "hello"]


def test_lines_that_a_follower_repeats_are_shown_once() -> None:
    buffer = log(100)
    buffer.begin("chat")
    for number in range(51, 106):
        buffer.add(f"line {number}")
    assert shown(buffer, 200) == [f"line {number}" for number in range(1, 106)]


def test_lines_that_were_missed_while_the_daemon_was_away_are_shown() -> None:
    buffer = log(100)
    buffer.begin("chat")
    for number in range(301, 306):
        buffer.add(f"line {number}")
    assert shown(buffer)[-6:] == ["line 100", *(f"line {number}" for number in range(301, 306))]


def test_a_service_that_comes_back_repeats_nothing_either() -> None:
    buffer = log(3)
    buffer.begin("code")
    buffer.add("of code")
    buffer.begin("chat")
    for text in ("line 2", "line 3", "line 4"):
        buffer.add(text)
    assert shown(buffer)[-1] == "line 4"
    assert shown(buffer)[-2].strip("─") == " chat "
    assert sum(text == "line 3" for text in shown(buffer)) == 1


@given(st.lists(st.sampled_from("abc"), max_size=30), st.lists(st.sampled_from("abc"), max_size=10))
def test_whatever_a_follower_repeats_each_line_is_shown_once(before: list[str], after: list[str]) -> None:
    buffer = LogBuffer()
    for repeated in ([], before):
        buffer.begin("chat")
        for text in [*repeated, *(after if repeated else before)]:
            buffer.add(text)
    if not before:
        return
    buffer.add("the end")
    assert shown(buffer, 200) == [*before, *after, "the end"]


@given(st.lists(st.sampled_from("abc"), max_size=30), st.lists(st.sampled_from("abc"), max_size=10))
def test_what_was_shown_stays_whatever_comes(before: list[str], after: list[str]) -> None:
    buffer = LogBuffer()
    for lines in (before, after):
        buffer.begin("chat")
        for text in lines:
            buffer.add(text)
    buffer.add("the end")
    assert shown(buffer, 200)[: len(before)] == before
    assert shown(buffer, 200)[-1] == "the end"


def test_search_begins_with_the_newest_and_goes_round() -> None:
    buffer = log()
    buffer.search("9", HEIGHT)
    assert buffer.found == "19 of 19"
    buffer.older(HEIGHT)
    assert buffer.found == "18 of 19"
    buffer.newer(HEIGHT)
    buffer.newer(HEIGHT)
    assert buffer.found == "1 of 19"
    assert "line 9" in shown(buffer)
    buffer.older(HEIGHT)
    assert buffer.found == "19 of 19"


def test_search_minds_capitals_only_where_it_has_some() -> None:
    buffer = LogBuffer()
    buffer.begin("chat")
    for text in ("Error: one", "error: two"):
        buffer.add(text)
    buffer.search("error", HEIGHT)
    assert buffer.found == "2 of 2"
    buffer.search("Error", HEIGHT)
    assert buffer.found == "1 of 1"
    buffer.search("[", HEIGHT)
    assert buffer.found == "no match"
    buffer.older(HEIGHT)


def test_matches_are_marked_each_in_its_line_and_the_present_one_apart() -> None:
    buffer = log(2)
    buffer.search("line", HEIGHT)
    assert [text[1] for text in buffer.lines(40, HEIGHT)] == [("line", "match"), ("line", "found")]


def test_a_match_that_goes_is_forgotten() -> None:
    buffer = log(LINES)
    buffer.search("line 1", HEIGHT)
    while buffer.found.split()[0] != "1":
        buffer.older(HEIGHT)
    buffer.add("another")
    assert " of " not in buffer.found


def test_long_lines_can_be_moved() -> None:
    buffer = log(1)
    buffer.search("line", HEIGHT)
    buffer.left = 3
    assert shown(buffer) == ["e 1"]
    buffer.left = 300
    assert shown(buffer) == [""]


def test_terminal_codes_and_compose_s_prefix_are_left_out() -> None:
    buffer = LogBuffer()
    buffer.begin("chat")
    buffer.add("llama-chat-1  | \x1b[32mready\x1b[0m\x07")
    buffer.add("a\tb\ud800\n")
    assert shown(buffer) == ["ready", "a   b?"]


def test_trouble_is_coloured() -> None:
    buffer = LogBuffer()
    buffer.begin("chat")
    for text in ("error: CUDA out of memory", "warn: little room", "all is well"):
        buffer.add(text)
    assert [text[0][1] for text in buffer.lines(40, HEIGHT)] == ["bad", "warn", "plain"]
