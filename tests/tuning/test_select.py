"""Freezing by pattern: what `train` names is tuned, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny_models import tiny

from mezo.config import MeZOConfig
from mezo.errors import MezoError
from mezo.tuning import tune
from mezo.tuning.select import chosen

NAMES = [f"model.layers.{n}.{part}.weight" for n in range(12) for part in ("q_proj", "v_proj", "norm")]


def names_of(name: str, **settings: object) -> list[str]:
    _, weights = tune(tiny(name), MeZOConfig.build(**settings))
    return [t.name for t in weights.tunables]


def test_without_patterns_all_are_chosen() -> None:
    assert chosen(NAMES, None) == NAMES


@given(st.sets(st.sampled_from(range(12)), min_size=1), st.sampled_from(["q_proj", "v_proj", "norm"]))
def test_patterns_choose_what_they_are_found_in(layers: set[int], part: str) -> None:
    patterns = [rf"layers\.{n}\.{part}" for n in layers]
    assert chosen(NAMES, patterns) == [f"model.layers.{n}.{part}.weight" for n in sorted(layers)]


def test_each_name_is_chosen_once_and_in_order() -> None:
    assert chosen(NAMES, ["norm", r"layers\.[01]\.", r"\.1\.norm"]) == [
        name for name in NAMES if "norm" in name or ".0." in name or ".1." in name
    ]


def test_full_tuning_of_one_layer() -> None:
    names = names_of("llama", train=(r"layers\.1\.",))
    assert len(names) == 9  # four projections of attention, three of the MLP, two norms
    assert all(name.startswith("model.layers.1.") for name in names)


def test_lora_goes_only_where_a_pattern_says() -> None:
    assert names_of("llama", tuning="lora", train=(r"1\.self_attn\.v_proj",)) == [
        "model.layers.1.self_attn.v_proj.lora_A.weight",
        "model.layers.1.self_attn.v_proj.lora_B.weight",
    ]
    assert len(names_of("gpt2", tuning="lora", train=(r"h\.0\.",))) == 2


def test_patterns_name_lora_targets_and_not_what_happens_to_end_alike() -> None:
    names = names_of("llama", tuning="lora", lora_targets=("o_proj", "q_proj"), train=("q_proj",))
    assert {name.split(".")[-3] for name in names} == {"q_proj"}


def test_a_prefix_is_tuned_in_the_named_layers_alone() -> None:
    assert names_of("gpt2", tuning="prefix", train=(r"h\.1\.",)) == [
        "transformer.h.1.attn.prefix.keys",
        "transformer.h.1.attn.prefix.values",
    ]


@pytest.mark.parametrize("tuning", ["full", "lora", "prefix", "head", "norms"])
def test_a_pattern_that_names_nothing_is_told_some_names(tuning: str) -> None:
    with pytest.raises(
        MezoError, match=r"train='layer\.9' is found in none of the \d+ .*names, such as .*\w\."
    ) as e:
        names_of("llama", tuning=tuning, train=("layer.9",))
    assert "\n" not in str(e.value)


def test_a_bad_expression_is_one_line() -> None:
    with pytest.raises(MezoError, match=r"train='layers\.\[': not a regular expression: unterminated"):
        names_of("llama", train=("layers.[",))


def test_another_name_of_a_tied_tensor_is_explained() -> None:
    with pytest.raises(MezoError, match=r"lm_head\.weight is the same tensor as model\.embed_tokens\.weight"):
        names_of("llama-tied", train=("lm_head",))
    assert names_of("llama-tied", train=("embed_tokens",)) == ["model.embed_tokens.weight"]
