"""Outputs that are drawn: by which numbers, from which tokens, the same again and again; and where outputs end."""

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tests.engines.transformers.test_generate import NEVER, PROBE, engine_for, examples
from tests.toys import byte_tokenizer

from mezo.config import MeZOConfig
from mezo.data.encoded import EncodedDataset
from mezo.engines.sampling import Chooser
from mezo.engines.transformers.engine import TransformersEngine
from mezo.errors import MezoError
from mezo.noise.seeds import philox, request_seed, sampling_key
from mezo.noise.uniform import uniforms
from mezo.objectives import reward_of
from mezo.types import THETA, Probe
from mezo.util.writing import Seeded, Writing, outputs_of

CPU = torch.device("cpu")
DRAWN = Writing(6, (NEVER,), temperature=1.5)


def test_a_number_is_a_word_of_the_generator() -> None:
    """Position 6 of sample 2 is word 2 of counter 1."""
    key = sampling_key(7, 3, 11)
    word = philox((1, 0, 2, 4), (key & 0xFFFFFFFF, key >> 32))[2]
    assert uniforms(key, 2, 7)[6] == (word + 0.5) / 2**32
    assert np.array_equal(uniforms(key, 2, 7), uniforms(key, 2, 100)[:7])
    assert 0 < uniforms(key, 2, 5000).min() < 0.001 < 0.999 < uniforms(key, 2, 5000).max() < 1


def test_keys_differ_by_all_that_they_are_of() -> None:
    keys = {sampling_key(seed, step, row) for seed in (0, 1, 2**63) for step in (0, 1) for row in (0, 1, 200)}
    assert len(keys) == 18
    assert len({request_seed(key, sample) for key in keys for sample in (0, 1)}) == 36
    assert all(0 <= request_seed(key, 0) < 2**31 for key in keys)


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    """4,000 draws of (0.6, 0.3, 0.1): a share strays by less than 4 standard errors, 0.031 for 0.6."""
    logits = torch.tensor([0.6, 0.3, 0.1]).log().repeat(4000, 1)
    chooser = Chooser(Writing(1, temperature=1.0), [Seeded(5, n) for n in range(4000)], CPU)
    found = Counter(chooser.choose(logits, 0).tolist())
    for token, share in enumerate((0.6, 0.3, 0.1)):
        assert abs(found[token] / 4000 - share) < 4 * (share * (1 - share) / 4000) ** 0.5


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"temperature": 1.0, "top_k": 2}, {0, 1}),
        ({"temperature": 1.0, "top_p": 0.5}, {0}),
        ({"temperature": 1.0, "top_p": 0.7}, {0, 1}),
        ({"temperature": 0.01}, {0}),
        ({"temperature": 0.0}, {0}),
    ],
)
def test_what_is_drawn_from(settings: dict[str, Any], expected: set[int]) -> None:
    logits = torch.tensor([0.6, 0.3, 0.1]).log().repeat(300, 1)
    chooser = Chooser(Writing(1, **settings), [Seeded(5, n) for n in range(300)], CPU)
    assert set(chooser.choose(logits, 0).tolist()) == expected


def keyed(engine: TransformersEngine, probe: Probe, writing: Writing = DRAWN, step: int = 0) -> list[str]:
    """What is written in a step of a run after the examples."""
    drawn = [replace(e, key=sampling_key(0, step, n)) for n, e in enumerate(examples())]
    asked, seeded = outputs_of(drawn, writing.samples)
    return engine._written([e.prompt for e in asked], probe, writing, seeded)


def test_a_run_repeats_its_outputs_whatever_shares_a_batch() -> None:
    engine, _ = engine_for("llama")
    texts = keyed(engine, THETA)
    assert texts == keyed(engine, THETA) != keyed(engine, THETA, step=1)
    assert texts != engine.generate(examples(), max_new_tokens=6, stop=NEVER)
    small, _ = engine_for("llama", max_tokens=30)
    assert keyed(small, THETA) == texts


def test_both_signs_of_a_direction_draw_by_the_same_numbers() -> None:
    """At a vanishing distance from theta they write the same, and far from it they do not."""
    engine, _ = engine_for("llama")
    near = [keyed(engine, Probe(7, scale)) for scale in (1e-7, -1e-7)]
    assert near[0] == near[1]
    assert keyed(engine, PROBE) != keyed(engine, Probe(7, -PROBE.scale))


def test_samples_of_a_prompt_are_outputs_of_their_own() -> None:
    engine, _ = engine_for("llama")
    several = keyed(engine, THETA, replace(DRAWN, samples=3))
    assert len(several) == 3 * len(examples())
    assert several[::3] == keyed(engine, THETA), "the first of each is what one alone is"
    assert all(len(set(several[n : n + 3])) > 1 for n in range(0, len(several), 3))


def test_a_reward_is_of_all_samples() -> None:
    seen: list[str] = []

    def length(row: dict[str, Any], output: str) -> float:
        seen.append(output)
        return len(output)

    engine, _ = engine_for("llama", writing=replace(DRAWN, samples=2))
    engine.objective = reward_of(length, "length")
    losses = engine.losses(examples(), [THETA, PROBE])
    count = 2 * len(examples())
    assert len(seen) == 2 * count
    assert losses == [-sum(map(len, seen[a : a + count])) / count for a in (0, count)]


def test_the_rows_of_a_step_have_keys() -> None:
    data = EncodedDataset(examples())
    first, second = (data.microbatches(step, 2, 2, 9) for step in (0, 1))
    assert [[e.key for e in part] for part in first] == [
        [sampling_key(9, 0, 0), sampling_key(9, 0, 1)],
        [sampling_key(9, 0, 2), sampling_key(9, 0, 3)],
    ]
    assert second[0][0].key == sampling_key(9, 1, 0)


# ---------------------------------------------------------------- where an output ends


def writing_text(text: str, monkeypatch: pytest.MonkeyPatch, stop: tuple[str, ...]) -> tuple[list[str], int]:
    """What an engine makes of a model that writes `text`, a byte a token, and in how many passes."""
    engine, _ = engine_for("llama", writing=Writing(20, stop))
    tokens = [4 + b if b else 2 for b in text.encode()]
    engine.generate(examples()[2:3], max_new_tokens=1)
    whole, passes = engine.model.forward, []

    def forward(*args: Any, **kwargs: Any) -> Any:
        out = whole(*args, **kwargs)
        place = int(kwargs["attention_mask"].sum(1)[0]) - 3
        out.logits[:, -1] = 0
        out.logits[:, -1, tokens[place % len(tokens)]] = 1
        passes.append(place)
        return out

    monkeypatch.setattr(engine.model, "forward", forward)
    return engine.generate(examples()[2:3]), len(passes)


@pytest.mark.parametrize(
    ("text", "stop", "expected", "passes"),
    [
        ("one </a> two", ("</a>",), "one", 8),
        ("one; two\nthree", ("\n", ";"), "one", 4),
        ("one\ntwo; three", ("\n", ";"), "one", 4),
        ("one\ntwo\0three", (), "one\ntwo", 8),
        ("caf\u00e9 au lait", ("\u00e9",), "caf", 5),
        ("a b c", (" c",), "a b", 5),
    ],
)
def test_the_first_stop_string_ends_an_output(
    text: str, stop: tuple[str, ...], expected: str, passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert writing_text(text, monkeypatch, stop) == ([expected], passes)


def test_a_control_token_may_be_a_stop_string(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is in no text, so it ends an output as a token."""
    pad = str(byte_tokenizer().pad_token)
    engine, _ = engine_for("llama", writing=Writing(4, (pad,)))
    engine.generate(examples()[2:3], max_new_tokens=1)
    assert engine._writer is not None
    assert engine._writer.ends_of(engine.writing) == sorted(
        {*engine._writer.ends, engine.tokenizer.pad_token_id}
    )


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stop": ("a", "")}, "stop.*an empty string is everywhere"),
        ({"top_p": 0.0}, "top_p=0.0: .*greater than 0"),
        ({"top_p": 1.5}, "top_p=1.5: .*less than or equal to 1"),
        ({"temperature": -1.0}, "temperature=-1.0: .*greater than or equal to 0"),
        ({"samples": 0}, "samples=0: .*greater than or equal to 1"),
        ({"max_new_tokens": 0}, "max_new_tokens=0: .*greater than or equal to 1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(MezoError, match=message) as told:
        MeZOConfig.build(**settings)
    assert "\n" not in str(told.value)


def test_eos_is_no_stop_string() -> None:
    assert MeZOConfig.build(stop=("eos",)).writing.stop == ()
