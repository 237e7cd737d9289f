from __future__ import annotations

import pytest

from llamarig.runtime.engine import EngineError
from llamarig.trial.answers import LONG_PROMPT, SHORT_PROMPT, Judged, judge, record
from llamarig.trial.text import LONG, SHORT
from tests.support import make_spec
from tests.unit.trial.played import Context, PlayedModel, refuses, says

SPEC = make_spec()


def judged(candidate: PlayedModel, check: str, context: int = 4096) -> Judged:
    return judge(candidate, SPEC, record(PlayedModel(), SPEC, context), check, lambda _: None)


def test_the_text_is_long_enough_for_every_tokenizer_of_today() -> None:
    assert len(LONG) / 3.9 > 768 + 32
    assert len(SHORT.split()) > 12


@pytest.mark.parametrize("check", [SHORT_PROMPT, LONG_PROMPT])
def test_the_same_engine_agrees_with_itself_to_the_last_digit(check: str) -> None:
    candidate = PlayedModel()
    found = judged(candidate, check)
    assert found.holds
    assert found.agreement is not None
    figures = found.agreement.figures()
    assert (figures["same"], figures["kl_largest"]) == (figures["places"], 0)
    assert {reuse for _, _, reuse in candidate.asked} == {False}


def test_long_prompts_are_of_three_lengths_and_one_is_more_than_a_batch() -> None:
    found = judged(PlayedModel(), LONG_PROMPT)
    assert found.lengths == (320, 512, 768)
    assert found.agreement is not None
    assert [len(answer) for answer in found.agreement.answers] == [32, 32, 32]


def test_a_model_of_a_short_context_gets_prompts_that_fit() -> None:
    assert judged(PlayedModel(), LONG_PROMPT, context=600).lengths == (320, 512, 568)
    assert judged(PlayedModel(), LONG_PROMPT, context=340).lengths == (308,)
    none = judged(PlayedModel(), LONG_PROMPT, context=256)
    assert (none.holds, none.trouble) == (False, "the model was not made for prompts of 300 tokens")


def test_an_engine_with_other_rounding_goes_other_ways_at_near_ties_and_still_agrees() -> None:
    candidate = PlayedModel(noise=0.02)
    found = judged(candidate, LONG_PROMPT)
    assert found.holds
    assert found.agreement is not None
    assert 0 < found.agreement.quartile < 0.01
    assert [len(answer) for answer in found.agreement.answers] == [32, 32, 32]
    assert {reuse for _, _, reuse in candidate.asked} == {False, True}


def test_an_engine_that_is_right_on_twenty_tokens_and_wrong_from_a_hundred_on_is_found() -> None:
    def hears(prompt: Context) -> Context:
        return prompt[:100] + tuple(token + 1 for token in prompt[100:])

    assert judged(PlayedModel(hears=hears), SHORT_PROMPT).holds
    found = judged(PlayedModel(hears=hears), LONG_PROMPT)
    assert not found.holds
    assert found.agreement is not None
    assert found.agreement.first > 1


def test_an_engine_that_is_wrong_where_a_second_batch_begins_is_found() -> None:
    def hears(prompt: Context) -> Context:
        return prompt[:512] + tuple(token + 1 for token in prompt[512:])

    found = judged(PlayedModel(hears=hears), LONG_PROMPT)
    assert found.agreement is not None
    assert [answer[0].nats > 1 for answer in found.agreement.answers] == [False, False, True]
    assert not found.holds


def test_one_token_over_and_over_is_told_where_the_old_engine_says_more() -> None:
    found = judged(PlayedModel(says=says(*[7] * 32)), SHORT_PROMPT)
    assert not found.holds
    assert found.trouble.startswith("one token over and over ('same') after a prompt of")


def test_no_token_at_all_is_told() -> None:
    assert judged(PlayedModel(says=says()), LONG_PROMPT).trouble == "no token after a prompt of 320"


def test_other_tokens_of_the_same_text_are_told() -> None:
    found = judged(PlayedModel(letters=1), SHORT_PROMPT)
    assert found.trouble == "it makes other tokens of the same text, from token 1 on"


def test_an_engine_that_refuses_is_an_error() -> None:
    with pytest.raises(EngineError, match="no slot"):
        judged(PlayedModel(says=refuses), SHORT_PROMPT)


def test_an_engine_that_always_goes_another_way_is_not_asked_for_ever() -> None:
    candidate = PlayedModel(noise=30.0)
    found = judged(candidate, SHORT_PROMPT)
    assert not found.holds
    assert len(candidate.asked) <= 13
