"""A judge behind an endpoint, over real HTTP: scores, what is asked once, and what is no score."""

import json
from pathlib import Path

import pytest
from tests.ablation.chat_server import refused, said, serving

from mezo.errors import MezoError
from mezo.objectives import Reward, objective_named, told
from mezo.scoring import Example

pytest.importorskip("openai")


def judge(base_url: str, **settings: object) -> Reward:
    given = "".join(f", {name}={value!r}" for name, value in settings.items())
    found = objective_named(f"judge(model='toy', base_url={base_url!r}{given})")
    assert isinstance(found, Reward)
    return found


def example(**fields: object) -> Example:
    return Example((1,), ((2,),), 0, references=("a",), fields=fields)


def test_a_score_becomes_a_reward_and_equal_outputs_are_asked_for_once() -> None:
    with serving(said('Fine. {"score": 7}'), said('{"score": 2.5}')) as server:
        rewards = judge(server.base_url, at_once=1)
        rows = [example(id="q"), example(id="q"), example(id="q")]
        assert rewards.each(rows, ["yes", "no", "yes"]) == [0.7, 0.25, 0.7]
        assert rewards.each(rows[:1], ["no"]) == [0.25]
    assert len(server.requests) == 2
    asked = server.requests[0]["body"]["messages"][0]["content"]
    assert '"id": "q"' in asked
    assert "yes" in asked
    words = told(rewards)
    assert words is not None
    assert words.startswith("judge toy: 2 requests")
    assert "2 replies were known" in words


def test_a_prompt_of_ones_own_and_the_price(tmp_path: Path) -> None:
    path = tmp_path / "judge.txt"
    path.write_text('Is "{output}" polite to {product}? {{"score": 0 to {most}}}')
    with serving(said('{"score": 1}')) as server:
        rewards = judge(server.base_url, prompt=str(path), most=1, price=(1e6, 2e6))
        assert rewards.each([example(product="Web {shop}")], ["{x}"]) == [1.0]
    assert (
        server.requests[0]["body"]["messages"][0]["content"]
        == 'Is "{x}" polite to Web {shop}? {"score": 0 to 1}'
    )
    assert "dollars" in str(told(rewards))


def test_replies_are_kept_in_a_file_and_a_broken_line_is_asked_for_again(tmp_path: Path) -> None:
    cache = tmp_path / "replies.jsonl"
    for text, requests in (("", 1), ("", 0), ("torn", 1)):
        if text:
            cache.write_text('{"key": "x')
        with serving(said('{"score": 4}')) as server:
            # the address is a part of the key, and each server has another
            rewards = judge(
                "http://127.0.0.1:1/v1" if not requests else server.base_url, cache=str(cache), retries=0
            )
            if not requests:
                line = json.loads(cache.read_text())
                key = rewards.scorer._key(rewards.scorer._messages({"references": ["a"]}, "out"))  # type: ignore[attr-defined]
                cache.write_text(json.dumps({**line, "key": key}) + "\n")
                rewards = judge("http://127.0.0.1:1/v1", cache=str(cache), retries=0)
            assert rewards.each([example()], ["out"]) == [0.4]
        assert len(server.requests) == requests


def test_nonsense_is_asked_for_again_and_then_named() -> None:
    with serving(said("great!"), said('{"score": 3}')) as server:
        assert judge(server.base_url).each([example()], ["out"]) == [0.3]
    assert "no JSON object" in server.requests[1]["body"]["messages"][-1]["content"]
    for nonsense in ("great!", '{"score": 11}', '{"score": "7"}', '{"score": NaN}', '{"score": true}'):
        with (
            serving(said(nonsense), said(nonsense)) as server,
            pytest.raises(MezoError, match=r"reward judge, example .*'q-1'.*asked twice") as caught,
        ):
            judge(server.base_url)([example(id="q-1")], ["out"])
        assert "\n" not in str(caught.value)


def test_what_has_come_is_kept_when_another_fails() -> None:
    """It was paid for."""
    with serving(said('{"score": 5}'), refused(400, "too long"), said('{"score": 6}')) as server:
        rewards = judge(server.base_url, at_once=1)
        rows = [example(id=n) for n in range(2)]
        with pytest.raises(MezoError, match=r"reward judge, example {'id': 1.*answered status 400: too long"):
            rewards(rows, ["a", "b"])
        assert rewards.each(rows, ["a", "b"]) == [0.5, 0.6]
    assert len(server.requests) == 3


def test_no_server_and_a_slow_one_are_said_with_what_to_change() -> None:
    with pytest.raises(MezoError, match=r"cannot connect .*is base_url right"):
        judge("http://127.0.0.1:1/v1", retries=0)([example()], ["out"])
    with pytest.raises(MezoError, match="base_url: expected an address"):
        judge("here")([example()], ["out"])


def test_a_prompt_may_ask_for_fields_of_the_row_alone() -> None:
    with pytest.raises(MezoError, match=r"the prompt asks for \{team\}, which the row has not"):
        judge("http://127.0.0.1:1/v1", prompt="{output} {team}")([example()], ["out"])
