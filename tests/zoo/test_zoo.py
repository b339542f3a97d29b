"""Every architecture that can be built gives theta + eps z's own numbers, or a refusal in one line."""

from typing import Any

import numpy as np
import pytest
import transformers
from tests.tiers import mostly_slow
from tests.zoo.building import SKIPPED, architectures
from tests.zoo.judging import TUNINGS, Wrong, judge
from tests.zoo.table import PAGE, cell, parse, render

from mezo.engines.transformers.engine import TransformersEngine

_FAST = {
    "BertForMaskedLM",
    "DebertaV2ForMaskedLM",
    "FalconForCausalLM",
    "GPT2LMHeadModel",
    "Gemma2ForCausalLM",
    "LlamaForCausalLM",
    "MPNetForMaskedLM",
    "MambaForCausalLM",
    "MixtralForCausalLM",
    "OPTForCausalLM",
    "Qwen3_5ForCausalLM",
    "RobertaForMaskedLM",
}
_CASES = [(a.name, tuning) for a in architectures() if a.name not in SKIPPED for tuning in TUNINGS]


def test_at_least_150_architectures_are_built():
    assert len({name for name, _ in _CASES}) >= 150
    assert set(SKIPPED) <= {a.name for a in architectures()}


def test_the_page_has_each_architecture():
    text = PAGE.read_text()
    version, rows = parse(text)
    assert render(rows.values(), version) == text
    if version == transformers.__version__:
        assert set(rows) == {name for name, _ in _CASES}


@pytest.mark.parametrize(("name", "tuning"), mostly_slow(_CASES, lambda name, _: name in _FAST))
def test_right_or_refused_as_the_page_says(name: str, tuning: str):
    version, rows = parse(PAGE.read_text())
    found = judge(name, tuning)
    if version == transformers.__version__:
        said = rows[name]
        assert cell(found) == said.cells[tuning], "write the page anew: python -m tests.zoo"
        if found.outcome == "works":
            assert found.packed or said.packed == "no"
            assert found.shared or said.shared == "no"


def _probes_in_another_order(found: np.ndarray) -> np.ndarray:
    return found[::-1]


def _a_thousandth_off_in_one_answer(found: np.ndarray) -> np.ndarray:
    found = found.copy()
    found[0, 3] += 1e-3
    return found


@pytest.mark.parametrize("spoil", [_probes_in_another_order, _a_thousandth_off_in_one_answer])
def test_a_wrong_number_is_seen(spoil: Any, monkeypatch: pytest.MonkeyPatch):
    right = TransformersEngine.logprobs
    started = TransformersEngine.__init__
    ready: list[Any] = []  # the engine's own check, while it starts, sees the right numbers

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        started(self, *args, **kwargs)
        ready.append(self)

    def logprobs(self: Any, *args: Any, **kwargs: Any) -> np.ndarray:
        found = right(self, *args, **kwargs)
        return spoil(found) if self in ready else found

    monkeypatch.setattr(TransformersEngine, "__init__", init)
    monkeypatch.setattr(TransformersEngine, "logprobs", logprobs)
    with pytest.raises(Wrong, match="probes apart"):
        judge("LlamaForCausalLM", "full")
