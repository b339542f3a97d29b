"""Log-probabilities and counts that no server can mean end the step."""

from typing import Any

import pytest

from mezo.engines.serving.backend import Ask
from mezo.engines.sglang.rows import answer_of, logprob_of


@pytest.mark.parametrize("value", [0.5, 1, 1e9, True, False, "-1.0", None, [], {}])
def test_a_log_probability_that_cannot_be(value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="a log-probability"):
        logprob_of(value)


@pytest.mark.parametrize("value", [-1.5, 0, 0.0, -1, 1e-5, float("-inf")])
def test_one_that_can(value: Any) -> None:
    assert logprob_of(value) == value


@pytest.mark.parametrize("name", ["prompt_tokens", "cached_tokens"])
@pytest.mark.parametrize("value", [-1, True, "3", 2.5, None, 1 << 50])
def test_a_count_that_cannot_be(name: str, value: Any) -> None:
    ask = Ask((1, 2), 1, None)
    found = {
        "input_token_logprobs": [[None, 1, None], [-0.5, 2, None]],
        "prompt_tokens": 2,
        "cached_tokens": 0,
    }
    assert answer_of(ask, found).logprobs == (-0.5,)
    with pytest.raises(TypeError, match="number of tokens"):
        answer_of(ask, {**found, name: value})
