"""What all prompts of a batch begin with is computed once: the texts are those of whole prompts."""

from dataclasses import replace
from typing import Any

import pytest
from tests.engines.transformers import test_generate, test_together
from tests.engines.transformers.test_generate import CAUSAL, NEVER, PROBE
from tests.engines.transformers.test_together import PROBES, apart, texts
from tests.tiers import mostly_slow
from transformers import DynamicCache

from mezo.engines.transformers.beginnings import LEAST, in_common
from mezo.engines.transformers.engine import TransformersEngine
from mezo.scoring import Example
from mezo.types import Probe

START = tuple(10 + 3 * n % 50 for n in range(20))
FEW = mostly_slow(CAUSAL, lambda name: name in ("llama", "mistral-window", "gpt2"))
LIKE_LLAMA = ("llama", "llama-tied", "gpt2", "opt", "bloom", "qwen2")  # full attention, and a plain cache


def begun(start: tuple[int, ...] = START, **engine: Any) -> list[Example]:
    """Prompts of different lengths behind the same start."""
    return [replace(e, prompt=(*start, *e.prompt)) for e in test_together.examples(**engine)]


def one_probe(name: str, **options: Any) -> TransformersEngine:
    return test_generate.engine_for(name, **options)[0]


def written(engine: TransformersEngine, probe: Probe = PROBE, start: tuple[int, ...] = START) -> list[str]:
    return engine.generate(begun(start), probe, max_new_tokens=8, stop=NEVER)


@pytest.mark.parametrize("name", FEW)
def test_one_probe_writes_what_it_writes_after_whole_prompts(name: str) -> None:
    engine = one_probe(name)
    found = written(engine)
    if name in LIKE_LLAMA:
        assert engine.counts.reused == 3 * len(START)
    whole = one_probe(name, disable_shortcuts=("sharing",))
    assert found == written(whole)
    assert whole.counts.reused == 0
    assert engine.counts.asked == whole.counts.asked


@pytest.mark.parametrize("tuned", test_together.TUNED)
@pytest.mark.parametrize("name", FEW)
def test_a_population_writes_what_it_writes_after_whole_prompts(name: str, tuned: str) -> None:
    engine = test_together.engine_for(name, tuned)
    found = texts(engine, batch=begun())
    if name == "llama" or (name in LIKE_LLAMA and tuned == "lora"):
        assert engine.counts.reused == len(PROBES) * 3 * len(START)
    assert found == apart(
        test_together.engine_for(name, tuned, disable_shortcuts=("sharing",)), batch=begun()
    )
    assert len({*found}) > 1


@pytest.mark.parametrize("rows", [1, 3, 4, 8])
def test_batches_of_any_size_write_the_same(rows: int) -> None:
    engine = test_together.engine_for(rows_at_once=rows)
    assert texts(engine, batch=begun()) == apart(engine, batch=begun())


@pytest.mark.parametrize(
    ("prompts", "count"),
    [
        ([(*START, 1), (*START, 2)], len(START)),
        ([START, START], len(START) - 1),  # a token is left to each
        ([START, (*START, 7)], len(START) - 1),
        ([(*START, 1)], 0),
        ([(*START[: LEAST - 1], 1), (*START[: LEAST - 1], 2)], 0),
        ([(*START, 1), (*START, 2), (9, *START)], 0),
    ],
)
def test_what_prompts_have_in_common(prompts: list[tuple[int, ...]], count: int) -> None:
    assert in_common(prompts) == count


def test_it_is_not_done_where_it_does_not_pay_or_is_turned_off() -> None:
    for options in ({"share_prefixes": False}, {"disable_shortcuts": ("all",)}):
        engine = one_probe("llama", **options)
        written(engine)
        assert engine.counts.reused == 0
    engine = one_probe("llama")
    written(engine, start=START[: LEAST - 1])
    assert engine.counts.reused == 0


def test_a_window_that_padding_would_leave_is_not_padded_in_the_middle() -> None:
    """The window has 16 tokens here: behind the padding a row would see less of the beginning."""
    engine = one_probe("mistral-window")
    assert engine.model.config.sliding_window < len(START)
    written(engine)
    assert engine.counts.reused == 0
    engine.model.config.sliding_window = 64
    written(engine)
    assert engine.counts.reused


def _blind(engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that sees what is padded, unless nothing is before that."""
    whole = engine.model.forward

    def forward(*args: Any, attention_mask: Any = None, **kwargs: Any) -> Any:
        if attention_mask is not None:
            attention_mask = attention_mask | (attention_mask.cumsum(1) > 0)
        return whole(*args, attention_mask=attention_mask, **kwargs)

    monkeypatch.setattr(engine.model, "forward", forward)


def test_a_model_that_heeds_padding_in_the_middle_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = one_probe("llama")
    _blind(engine, monkeypatch)
    assert written(engine) == written(one_probe("llama", share_prefixes=False))
    assert engine.counts.reused == 0
    many = test_together.engine_for()
    _blind(many, monkeypatch)
    assert texts(many, batch=begun()) == texts(test_together.engine_for(share_prefixes=False), batch=begun())
    assert many._together is not None
    assert many._together._agrees
    assert many.counts.reused == 0


def test_a_cache_that_cannot_be_copied_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(*args: Any) -> None:
        raise AttributeError("no such thing")

    monkeypatch.setattr(DynamicCache, "batch_repeat_interleave", cannot)
    engine, many = one_probe("llama"), test_together.engine_for()
    assert written(engine) == written(one_probe("llama", share_prefixes=False))
    assert texts(many, batch=begun()) == texts(test_together.engine_for(share_prefixes=False), batch=begun())
    assert many._together is not None
    assert many._together._agrees
    assert engine.counts.reused == many.counts.reused == 0
