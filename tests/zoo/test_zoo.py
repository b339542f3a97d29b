"""Every architecture that can be built gives theta + eps z's own numbers, or a refusal in one line."""

from typing import Any

import numpy as np
import pytest
from tests.tiers import mostly_slow
from tests.zoo.building import SKIPPED, architectures
from tests.zoo.judging import TUNINGS, Wrong, judge

from mezo.engines.transformers import TransformersEngine

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
# Wrong or a traceback today: mended with the engine's start-up check and its reach of weights.
PENDING: dict[str, tuple[str, ...]] = {
    "AXK1ForCausalLM": ("prefix",),
    "AXK2ForCausalLM": ("prefix",),
    "AfmoeForCausalLM": ("prefix",),
    "AriaTextForCausalLM": ("prefix",),
    "BailingHybridForCausalLM": (
        "full",
        "lora",
        "prefix",
    ),
    "BambaForCausalLM": (
        "full",
        "lora",
        "prefix",
    ),
    "BartForCausalLM": (
        "full",
        "lora",
        "prefix",
    ),
    "BeamForCausalLM": ("prefix",),
    "BigBirdPegasusForCausalLM": ("full",),
    "BlenderbotForCausalLM": (
        "full",
        "lora",
        "prefix",
    ),
    "BlenderbotSmallForCausalLM": (
        "full",
        "lora",
        "prefix",
    ),
    "Cohere2MoeForCausalLM": ("prefix",),
    "CpmAntForCausalLM": ("prefix",),
    "DbrxForCausalLM": ("prefix",),
    "DeepseekV2ForCausalLM": ("prefix",),
    "DeepseekV32ForCausalLM": ("prefix",),
    "DeepseekV3ForCausalLM": ("prefix",),
    "DeepseekV4ForCausalLM": ("prefix",),
    "Dots1ForCausalLM": ("prefix",),
    "Ernie4_5_MoeForCausalLM": ("prefix",),
    "EuroBertForMaskedLM": ("prefix",),
    "ExaoneMoeForCausalLM": ("prefix",),
    "FalconH1ForCausalLM": (
        "full",
        "lora",
        "prefix",
    ),
    "FalconMambaForCausalLM": ("prefix",),
    "FlexOlmoForCausalLM": ("prefix",),
    "FunnelForMaskedLM": ("full",),
    "Glm4MoeForCausalLM": ("prefix",),
    "Glm4MoeLiteForCausalLM": ("prefix",),
    "GlmMoeDsaForCausalLM": ("prefix",),
    "GptOssForCausalLM": ("prefix",),
    "GraniteMoeForCausalLM": ("prefix",),
    "GraniteMoeHybridForCausalLM": (
        "full",
        "lora",
        "prefix",
    ),
    "GraniteMoeSWAForCausalLM": ("prefix",),
    "GraniteMoeSharedForCausalLM": ("prefix",),
    "HYV3ForCausalLM": ("prefix",),
    "HYV4ForCausalLM": ("prefix",),
    "HunYuanMoEV1ForCausalLM": ("prefix",),
    "Inkling2ForCausalLM": (
        "full",
        "lora",
        "prefix",
    ),
    "InklingForCausalLM": ("prefix",),
    "JambaForCausalLM": (
        "full",
        "lora",
        "prefix",
    ),
    "KimiLinearForCausalLM": (
        "full",
        "lora",
        "prefix",
    ),
    "Kolibri1ForCausalLM": ("prefix",),
    "LagunaForCausalLM": ("prefix",),
    "Lfm2ForCausalLM": (
        "full",
        "lora",
        "prefix",
    ),
    "Lfm2MoeForCausalLM": (
        "full",
        "lora",
        "prefix",
    ),
    "Lfm3ForCausalLM": ("prefix",),
    "Llama4ForCausalLM": ("full",),
    "LongformerForMaskedLM": ("full",),
    "MBartForCausalLM": (
        "full",
        "lora",
        "prefix",
    ),
    "MPNetForMaskedLM": ("full",),
    "Mamba2ForCausalLM": (
        "full",
        "prefix",
    ),
    "MambaForCausalLM": ("prefix",),
    "MarianForCausalLM": (
        "full",
        "lora",
        "prefix",
    ),
    "MellumForCausalLM": ("prefix",),
    "MiMoV2FlashForCausalLM": ("prefix",),
    "MiniMaxForCausalLM": ("prefix",),
    "MiniMaxM2ForCausalLM": ("prefix",),
    "MiniMaxM3VLForCausalLM": ("prefix",),
    "MixtralForCausalLM": ("prefix",),
    "MoshiForCausalLM": ("lora",),
    "MraForMaskedLM": ("full",),
    "NemotronHForCausalLM": (
        "full",
        "prefix",
    ),
    "NeoMMEForMaskedLM": (
        "full",
        "lora",
    ),
    "OlmoHybridForCausalLM": (
        "full",
        "lora",
        "prefix",
    ),
    "OlmoeForCausalLM": ("prefix",),
    "PLBartForCausalLM": (
        "full",
        "lora",
        "prefix",
    ),
    "PegasusForCausalLM": (
        "full",
        "lora",
        "prefix",
    ),
    "PhimoeForCausalLM": ("prefix",),
    "ProphetNetForCausalLM": ("prefix",),
    "Qwen2MoeForCausalLM": ("prefix",),
    "Qwen3MoeForCausalLM": ("prefix",),
    "Qwen3NextForCausalLM": (
        "full",
        "lora",
        "prefix",
    ),
    "Qwen3_5ForCausalLM": (
        "full",
        "lora",
        "prefix",
    ),
    "Qwen3_5MoeForCausalLM": (
        "full",
        "lora",
        "prefix",
    ),
    "Qwen4ExpForCausalLM": (
        "full",
        "lora",
        "prefix",
    ),
    "RecurrentGemmaForCausalLM": ("prefix",),
    "RoFormerForCausalLM": ("full",),
    "RoFormerForMaskedLM": ("full",),
    "SolarOpenForCausalLM": ("prefix",),
    "SqueezeBertForMaskedLM": ("prefix",),
    "XGLMForCausalLM": ("prefix",),
    "XLMRobertaXLForCausalLM": (
        "full",
        "prefix",
    ),
    "XLMRobertaXLForMaskedLM": (
        "full",
        "prefix",
    ),
    "Zamba2ForCausalLM": (
        "full",
        "lora",
        "prefix",
    ),
    "ZambaForCausalLM": (
        "full",
        "lora",
        "prefix",
    ),
    "ZayaForCausalLM": ("prefix",),
    "xLSTMForCausalLM": ("full",),
}
_CASES = [(a.name, tuning) for a in architectures() if a.name not in SKIPPED for tuning in TUNINGS]


def test_at_least_150_architectures_are_built():
    assert len({name for name, _ in _CASES}) >= 150
    assert set(SKIPPED) <= {a.name for a in architectures()}


@pytest.mark.parametrize(("name", "tuning"), mostly_slow(_CASES, lambda name, _: name in _FAST))
def test_right_or_refused(name: str, tuning: str, request: pytest.FixtureRequest):
    if tuning in PENDING.get(name, ()):
        request.applymarker(pytest.mark.xfail(strict=False))
    judge(name, tuning)


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
