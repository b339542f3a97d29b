"""Which modules get a LoRA adapter, and which take none."""

import pytest
from tests.tiny_models import tiny
from tests.zoo.building import build

from mezo.config import MeZOConfig
from mezo.errors import MezoError
from mezo.tuning import lora_targets, tune, tuned_modules


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("AlbertForMaskedLM", ["query", "value"]),
        ("CodeGenForCausalLM", ["qkv_proj"]),
        ("DeepseekV3ForCausalLM", ["q_b_proj", "kv_b_proj"]),
        ("GPT2LMHeadModel", ["c_attn"]),
        ("KimiLinearForCausalLM", ["q_proj", "q_b_proj", "kv_b_proj", "v_proj"]),
        ("LlamaForCausalLM", ["q_proj", "v_proj"]),
        ("MPNetForMaskedLM", ["q", "v"]),
        ("XLMWithLMHeadModel", ["q_lin", "v_lin"]),
    ],
)
def test_queries_and_values_by_default(name: str, expected: list[str]):
    assert lora_targets(build(name)) == expected


def test_a_model_without_queries_and_values_names_its_modules():
    with pytest.raises(
        MezoError, match=r"no module of this 'mamba' model .* some of: dt_proj, in_proj, out_proj"
    ):
        lora_targets(build("MambaForCausalLM"))


def test_what_has_an_adapter_is_said():
    config = MeZOConfig.build(tuning="lora", model="x", lora_targets=("o_proj", "q_proj"))
    model, _ = tune(tiny("llama"), config)
    assert tuned_modules(model) == "q_proj and o_proj, 4 modules"


@pytest.mark.parametrize(
    ("target", "what"), [("lm_head", "the language-model head"), ("embed_tokens", "an embedding")]
)
def test_the_head_and_the_embedding_take_no_adapter(target: str, what: str):
    config = MeZOConfig.build(tuning="lora", model="x", lora_targets=("q_proj", target))
    with pytest.raises(MezoError, match=f"{target} is {what}, which takes no LoRA"):
        tune(tiny("llama"), config)


def test_each_target_names_a_module():
    config = MeZOConfig.build(tuning="lora", model="x", lora_targets=("q_proj", "w_proj"))
    with pytest.raises(MezoError, match="named w_proj: set lora_targets to some of"):
        tune(tiny("llama"), config)
