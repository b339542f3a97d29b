"""What a run leaves loads in other libraries, and says what it belongs to."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from tests.outputs import finished, tiny_chat
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

from mezo.models.load import load
from mezo.tuning import save
from mezo.tuning.saving import with_adapter

IDS = torch.tensor([[70, 71, 72]])


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished(tmp_path_factory.mktemp("lora"), tuning="lora")


def test_an_adapter_folder_is_complete(lora: Path) -> None:
    folder, base = lora / "adapter", lora.parent / "base"
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == str(base)
    card = (folder / "README.md").read_text()
    assert "library_name: peft" in card
    assert "More Information Needed" not in card
    assert str(base) not in card
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder)
    ours = with_adapter(load(str(base)).model, folder)
    assert torch.equal(theirs(IDS).logits, ours(IDS).logits)
    assert AutoTokenizer.from_pretrained(folder)("gab")["input_ids"] == [1, 107, 101, 102]


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_a_pipeline_loads_it(tuning: str, tmp_path: Path) -> None:
    run = finished(tmp_path, tuning=tuning)
    folder = run / ("adapter" if tuning == "lora" else "model")
    write = pipeline("text-generation", model=str(folder), device="cpu")
    (found,) = write("gab", max_new_tokens=4, do_sample=False)
    assert found["generated_text"].startswith("gab")


@pytest.mark.parametrize("model", ["smollm2-135m", "facebook/opt-125m"])
@pytest.mark.parametrize("tuning", ["lora", "prefix", "norms"])
def test_the_base_is_named_as_others_find_it(model: str, tuning: str, tmp_path: Path) -> None:
    from tests.resumed import base, config_for

    from mezo.tuning import tune

    loaded = load(str(base(tmp_path / "base")))
    config = config_for(tmp_path / "base", tuning=tuning, model=model)
    tuned, _ = tune(loaded.model, config)
    save(tuned, loaded.tokenizer, tmp_path / "adapter")
    found = json.loads((tmp_path / "adapter/adapter_config.json").read_text())["base_model_name_or_path"]
    assert found == {"smollm2-135m": "HuggingFaceTB/SmolLM2-135M-Instruct"}.get(model, model)
    assert not (tmp_path / "adapter/README.md").exists()


def test_a_model_keeps_its_cache_its_generation_config_and_its_template(tmp_path: Path) -> None:
    base = tiny_chat(tmp_path / "base")
    settings = json.loads((base / "generation_config.json").read_text()) | {"eos_token_id": [2, 3]}
    settings.pop("_from_model_config", None)
    (base / "generation_config.json").write_text(json.dumps(settings))
    loaded = load(str(base))
    save(loaded.model, loaded.tokenizer, tmp_path / "model", "the card")
    assert json.loads((tmp_path / "model/config.json").read_text())["use_cache"] is True
    assert loaded.model.config.use_cache is False
    saved = json.loads((tmp_path / "model/generation_config.json").read_text())
    assert saved["eos_token_id"] == [2, 3]
    assert (tmp_path / "model/chat_template.jinja").read_text() == loaded.tokenizer.chat_template
    assert (tmp_path / "model/README.md").read_text() == "the card"
