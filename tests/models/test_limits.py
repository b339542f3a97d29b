"""A token or a position that the model has no row for is named with its row in the data, before anything runs."""

from typing import Any

import pytest
import torch
from tests.tiers import mostly_slow
from tests.tiny_models import tiny
from tests.toys import byte_tokenizer
from tests.zoo.building import POSITIONS, SKIPPED, architectures, build

from mezo.errors import MezoError
from mezo.models.limits import Limits, positions_of, with_a_row
from mezo.models.load import LoadedModel
from mezo.scoring import Example

# Learned by token and column of a table (TAPAS, clamped), and padded twice (ProphetNet, refused by the engine)
_OTHERWISE = {"TapasForMaskedLM", "ProphetNetForCausalLM"}
_NAMES = [a.name for a in architectures() if a.name not in {*SKIPPED, *_OTHERWISE}]
_FAST = {"BertForMaskedLM", "CTRLLMHeadModel", "GPT2LMHeadModel", "LlamaForCausalLM", "OPTForCausalLM"}


def check(limits: Limits, example: Example, **taken: Any) -> None:
    limits.check([example], ["data.jsonl:7"], byte_tokenizer(), **taken)


def test_what_has_a_row_passes():
    check(Limits(300, 300, 8), Example((299,) * 7, ((299,), (298, 299)), 0))


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (Example((5, 300), ((6,),), 0), "token 300 .* has no row in the input embedding, which has 300"),
        (Example((5, 6), ((300, 7),), 0), "token 300 .* has no row in the input embedding"),
        (
            Example((5, 6), ((7, 290),), 0),
            "token 290 .* has no row in the language-model head, which has 280",
        ),
    ],
)
def test_a_token_without_a_row(example: Example, message: str):
    with pytest.raises(MezoError, match=f"^data.jsonl:7: {message}"):
        check(Limits(300, 280, None), example)


@pytest.mark.parametrize(
    ("example", "taken", "message"),
    [
        (
            Example((5,) * 8, ((6,), (6, 7)), 0),
            {},
            "9 tokens, and the model has 8 positions: set max_length .* 8 ",
        ),
        (Example((5,) * 9, ((6,),), 0, mask_position=2), {}, "9 tokens, and the model has 8 positions"),
        (
            Example((5,) * 5, ((6,),), 0),
            {"prefix_tokens": 4},
            "5 tokens, and the model has 4 .*prefix's 4: .* 4 ",
        ),
        (
            Example((5,) * 5, ((6,),), 0),
            {"new_tokens": 5},
            "5 tokens and max_new_tokens=5, .* 8 positions: .* 4 ",
        ),
    ],
)
def test_more_tokens_than_positions(example: Example, taken: dict[str, int], message: str):
    with pytest.raises(MezoError, match=f"^data.jsonl:7: .*{message}"):
        check(Limits(300, 300, 8), example, **taken)


@pytest.mark.parametrize("name", mostly_slow(_NAMES, lambda name: name in _FAST))
def test_positions_are_those_that_the_forward_takes(name: str):
    model = build(name)
    limit = positions_of(model)

    def takes(count: int) -> bool:
        try:
            with torch.no_grad():
                model(input_ids=torch.arange(count).remainder(200).add(5).unsqueeze(0))
        except (IndexError, RuntimeError, ValueError):
            return False
        return True

    assert takes(POSITIONS + 16 if limit is None else limit)
    assert limit is None or not takes(limit + 1)


def test_padding_is_a_token_that_the_model_has_a_row_for():
    model = tiny("llama")
    assert with_a_row((300, None, 2), model) == 2
    assert with_a_row((None, 301), model) == 0
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens([f"<{n}>" for n in range(60)])
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    assert LoadedModel(model, tokenizer, "causal", "x").pad_token_id == tokenizer.eos_token_id
