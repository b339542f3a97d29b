"""A beginning that is given: the model goes on behind it, and both are judged, at every engine call that writes."""

from dataclasses import replace
from typing import Any

import pytest
from tests.engines.transformers import test_generate, test_together
from tests.engines.transformers.test_generate import NEVER
from tests.engines.transformers.test_together import PROBES, SEEN, texts
from tests.toys import byte_tokenizer

from mezo.data.tokens import continuation
from mezo.engines.output_text import OutputText
from mezo.engines.serving.engine import ServedPoint, ServingEngine
from mezo.scoring import Example
from mezo.types import THETA
from mezo.util.writing import Writing

PREFILL = "so it "
BEGUN = tuple(continuation(byte_tokenizer(), PREFILL))


def begun(examples: list[Example]) -> list[Example]:
    return [replace(e, prefill=PREFILL, begun=BEGUN) for e in examples]


def moved(examples: list[Example]) -> list[Example]:
    """The beginning as the end of the prompt."""
    return [replace(e, prompt=(*e.prompt, *BEGUN)) for e in examples]


def test_an_evaluation_writes_behind_it() -> None:
    engine, _ = test_generate.engine_for("llama")
    own = test_generate.examples()
    found = engine.generate(begun(own), max_new_tokens=8, stop=NEVER)
    assert [text.removeprefix(PREFILL).strip() for text in found] == engine.generate(
        moved(own), max_new_tokens=8, stop=NEVER
    )
    assert all(text.startswith(PREFILL) for text in found)


@pytest.mark.parametrize("probes", [PROBES, PROBES[:2]], ids=["together", "in turn"])
def test_the_probes_of_a_step_write_behind_it(probes: Any) -> None:
    engine = test_together.engine_for()
    own = test_together.examples()
    found = texts(engine, probes, begun(own))
    assert all(text.startswith(PREFILL) for text in found)
    assert [text.removeprefix(PREFILL).strip() for text in found] == texts(engine, probes, moved(own))


def test_a_stop_string_in_it_ends_nothing() -> None:
    engine, _ = test_generate.engine_for("llama")
    own = begun(test_generate.examples())
    assert all(text.startswith(PREFILL) for text in engine.generate(own, max_new_tokens=8, stop="it"))


class Echo:
    """An engine that serves, and answers with spaces around the number of tokens that it was asked with."""

    def __init__(self) -> None:
        self.asks: list[Any] = []

    def write(self, asks: Any, writing: Any) -> list[list[int]]:
        self.asks += asks
        return [
            byte_tokenizer()(f" {len(ask.tokens)} ", add_special_tokens=False)["input_ids"] for ask in asks
        ]

    def visit(self, probes: Any) -> Any:
        yield [ServedPoint(None, fresh=False) for _ in probes]


def test_an_engine_that_serves_writes_behind_it() -> None:
    echo: Any = Echo()
    text = OutputText(byte_tokenizer())
    engine = ServingEngine(echo, echo, test_together.REWARD, text=text, writing=Writing(8))
    (example,) = begun([Example((5, 6), ((9,),), 0)])
    assert engine.generate([example]) == [f"{PREFILL} {2 + len(BEGUN)}"]
    assert echo.asks[0].tokens == (5, 6, *BEGUN)
    SEEN.clear()
    engine.losses([example], [THETA])
    assert [f"{PREFILL} {2 + len(BEGUN)}"] == SEEN
