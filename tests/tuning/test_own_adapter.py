"""A model that brings an adapter: that adapter is tuned, exactly, and saved as peft loads it."""

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from tests.tiny_models import same_files, tiny
from tests.toys import byte_tokenizer
from tests.zoo.judging import examples
from tests.zoo.reference import reference

from mezo import api
from mezo.config import MeZOConfig
from mezo.data import MeZODataset
from mezo.engines.transformers.engine import TransformersEngine
from mezo.errors import MezoError
from mezo.events import Observer
from mezo.objectives import OBJECTIVES
from mezo.optimizers import SGD
from mezo.resume.publishing import publish
from mezo.resume.replay import replay
from mezo.scoring import pose
from mezo.training.trainer import MeZOTrainer
from mezo.tuning import save, tune, tuned_modules
from mezo.tuning.peft_warnings import quiet_peft
from mezo.types import Probe

EPSILON = 1e-2
# Sums of the same products in another order: 5 units in the last place of a log-probability of order 1.
TOLERANCE = 5 * 2**-23
ROWS = [
    {"sentence": s, "label": int(s.startswith("g"))}
    for s in ("gab", "hat", "gig", "hub", "get", "him", "god", "hen")
]


def lora(**changes: Any) -> LoraConfig:
    return LoraConfig(**{**dict(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"]), **changes})


ADAPTERS = {
    "lora": lora(),
    "pissa": lora(init_lora_weights="pissa"),
    "olora": lora(init_lora_weights="olora"),
    "dora": lora(use_dora=True),
    "rslora": lora(use_rslora=True),
    "lora_bias": lora(lora_bias=True),
    "embedding": lora(target_modules=["embed_tokens", "q_proj"]),
    "all-linear": lora(target_modules="all-linear", rank_pattern={"down_proj": 2}),
    "saved-norm": lora(modules_to_save=["norm"]),
    "saved-head": lora(modules_to_save=["lm_head"]),
    "ia3": IA3Config(target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"]),
}


def adapted(settings: Any, name: str = "mine") -> Any:
    """A tiny model whose adapter is somewhere after its start."""
    torch.manual_seed(1)
    with quiet_peft():
        warnings.filterwarnings("ignore", "`lora_bias=True`")
        model = get_peft_model(tiny("llama"), copy.deepcopy(settings), adapter_name=name)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def config_for(**changes: Any) -> MeZOConfig:
    fixed: dict[str, Any] = dict(model="x", task="sst2", tuning="lora", batch_size=4, num_steps=3, seed=2)
    return MeZOConfig.build(**{**fixed, "learning_rate": 1e-2, "epsilon": EPSILON, **changes})


@torch.no_grad()
@pytest.mark.parametrize("kind", ADAPTERS)
def test_its_probes_are_theta_written_out_by_hand(kind: str) -> None:
    model = adapted(ADAPTERS[kind])
    plain, other = tune(copy.deepcopy(model), config_for())
    before = [name for name, _ in model.named_parameters()]
    tuned, weights = tune(model, config_for())
    assert tuned is model
    assert [name for name, _ in tuned.named_parameters()] == before  # no second adapter
    engine = TransformersEngine(
        tuned, weights, OBJECTIVES["candidate-ce"], SGD(), kind="causal", pad_token_id=0
    )
    batch, stored = pose(examples("causal")), tuple(t.tensor.dtype for t in other.tunables)
    probes = [Probe(seed, sign * EPSILON) for seed in (7, 9) for sign in (1, -1)]
    expected = np.stack([reference(plain, other.tunables, stored, batch, probe) for probe in probes])
    theta = weights.checksum()
    largest = np.abs(expected).max()
    assert np.abs(engine.logprobs(batch, probes) - expected).max() <= TOLERANCE * largest
    assert weights.checksum() == theta
    assert np.abs(expected[0] - expected[1]).max() > 1000 * TOLERANCE * largest


@pytest.mark.parametrize("kind", ADAPTERS)
def test_a_tuned_one_is_saved_as_peft_loads_it(kind: str, tmp_path: Path) -> None:
    before = adapted(ADAPTERS[kind])
    result = train(copy.deepcopy(before), tmp_path / "run")
    with quiet_peft():
        warnings.filterwarnings("ignore", "`lora_bias=True`")
        loaded = PeftModel.from_pretrained(tiny("llama"), tmp_path / "run" / "adapter").eval()
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        assert torch.equal(loaded(ids).logits, result.model(ids).logits)
        assert not torch.equal(before(ids).logits, result.model(ids).logits)


def train(model: Any, output: Path | None = None, **changes: Any) -> Any:
    tokenizer = byte_tokenizer(words=(" great", " terrible"))
    rows = MeZODataset(ROWS, task="sst2")
    options: dict[str, Any] = dict(train=rows, model=model, tokenizer=tokenizer, output=output)
    return MeZOTrainer(config_for(**changes), observer=Observer(), **options).train()


def test_only_the_active_one_is_tuned_and_only_what_patterns_name() -> None:
    model = adapted(lora())
    with quiet_peft():
        model.add_adapter("other", lora(r=2))
        model.set_adapter("other")
    _, weights = tune(model, config_for(train=("layers.1",)))
    assert {t.tensor.shape[0] if "lora_A" in t.name else t.tensor.shape[1] for t in weights.tunables} == {2}
    assert all("layers.1." in t.name and "other" in t.name for t in weights.tunables)


def test_what_is_tuned_is_said() -> None:
    assert tuned_modules(adapted(ADAPTERS["ia3"])) == "k_proj and v_proj and down_proj, 6 modules"
    assert tuned_modules(adapted(lora())) == "q_proj and v_proj, 4 modules"


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize("tuning", ["full", "prefix", "head", "norms"])
def test_another_mode_is_answered(tuning: str) -> None:
    with pytest.raises(MezoError, match=r"its own adapter 'mine' \(LORA, rank 4\): tuning='lora' tunes that"):
        tune(adapted(lora()), config_for(tuning=tuning))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (peft.LoHaConfig(r=2, target_modules=["q_proj"]), "peft_type LOHA, which is not tuned here"),
        (peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3), "peft_type PREFIX_TUNING"),
        (lora(bias="all"), "bias='all', under which the base's own biases move"),
        (lora(trainable_token_indices=[3]), "trainable_token_indices, which is not tuned here"),
    ],
)
def test_other_kinds_are_refused_by_name(settings: Any, words: str) -> None:
    with quiet_peft():
        model = get_peft_model(tiny("llama"), settings)
    with pytest.raises(MezoError, match=words) as error:
        tune(model, config_for())
    assert "\n" not in str(error.value)


def test_an_adapter_inside_a_model_of_transformers_is_refused() -> None:
    model = tiny("llama")
    with quiet_peft():
        model.add_adapter(lora())
    with pytest.raises(MezoError, match=r"adapters that transformers put into it: expected a PeftModel"):
        tune(model, config_for())


def test_merged_ones_and_several_at_once_are_refused() -> None:
    model = adapted(lora())
    model.merge_adapter()
    with pytest.raises(MezoError, match="is merged into its weights"):
        tune(model, config_for())
    model.unmerge_adapter()
    with quiet_peft():
        model.add_adapter("other", lora(r=2))
        model.base_model.set_adapter(["mine", "other"])
    with pytest.raises(MezoError, match="active adapters 'mine', 'other': expected one"):
        tune(model, config_for())


# ---------------------------------------------------------------- the folder of an adapter as --model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An adapter whose base is a folder beside it."""
    tiny("llama").save_pretrained(tmp_path / "base")
    byte_tokenizer(words=(" great", " terrible")).save_pretrained(tmp_path / "base")
    model = adapted(lora(), "default")
    model.peft_config["default"].base_model_name_or_path = str(tmp_path / "base")
    save(model, byte_tokenizer(), tmp_path / "first")
    return tmp_path / "first"


def test_an_adapters_folder_is_tuned_further(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    text = "".join(json.dumps(row) + "\n" for row in ROWS)
    for split in ("train", "validation"):
        (tmp_path / "data" / f"{split}.jsonl").write_text(text)
    config = config_for(model=str(folder), data=str(tmp_path / "data"), dtype="auto")
    start = api.evaluate(config)
    beside = api.evaluate(config.model_copy(update={"model": str(tmp_path / "base")}), adapter=folder)
    assert start["loss"] == beside["loss"]
    result = MeZOTrainer(config, output=tmp_path / "run").train()
    assert result.evals[0].loss == pytest.approx(start["loss"], rel=1e-6)
    replay(tmp_path / "run", output=tmp_path / "again")
    assert same_files(tmp_path / "run" / "adapter", tmp_path / "again" / "adapter")
    written = json.loads((tmp_path / "again" / "adapter" / "adapter_config.json").read_text())
    assert written["base_model_name_or_path"] == str(tmp_path / "base")
    further = MeZOTrainer(resume=tmp_path / "run", output=tmp_path / "run").train()
    assert further.losses == result.losses
    # What the run says of itself is the adapter's, its own commands work, and its card names the base.
    kept = MeZOConfig.load(tmp_path / "run" / "config.yaml")
    assert kept.lora_rank == lora().r
    assert {name.split(".")[-1] for name in kept.lora_targets or ()} == {"q_proj", "v_proj"}
    assert api.evaluate(kept, adapter=tmp_path / "run" / "adapter")["loss"] == pytest.approx(
        result.evals[-1].loss
    )
    assert str(folder) not in (tmp_path / "run" / "adapter" / "README.md").read_text()
    with pytest.raises(MezoError, match="starts from the adapter"):
        publish(tmp_path / "run", tmp_path / "published.mezo", base="me/base")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"peft_type": "PREFIX_TUNING"}, "peft_type PREFIX_TUNING, which is not tuned further"),
        ({"base_model_name_or_path": None}, "does not name its base model"),
        ({"base_model_name_or_path": "/nowhere/at/all"}, "no model folder '/nowhere/at/all'"),
    ],
)
def test_an_adapter_that_is_not_tuned_further(folder: Path, change: dict[str, Any], words: str) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    config = config_for(model=str(folder))
    with pytest.raises(MezoError, match=words):
        MeZOTrainer(config, train=MeZODataset(ROWS, task="sst2"))


def test_the_code_of_a_base_that_a_file_names_is_not_run(folder: Path) -> None:
    config = config_for(model=str(folder), trust_remote_code=True)
    with pytest.raises(MezoError, match="would run that model's code: give the base model with --model"):
        MeZOTrainer(config, train=MeZODataset(ROWS, task="sst2"))
