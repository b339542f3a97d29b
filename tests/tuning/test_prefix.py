"""A prefix of keys and values: what peft computes, in every layout, at every probe."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from tests.engines.perturb.test_forward import PROBES, engine_for, examples, reference
from tests.engines.transformers.test_prefix_tree import shared_batch
from tests.tiny_models import ARCHITECTURES, MASKED, VOCABULARY, tiny
from tests.toys import byte_tokenizer

from mezo import noise
from mezo.config import MeZOConfig
from mezo.engines.transformers.engine import TransformersEngine
from mezo.errors import MezoError
from mezo.noise.where import Where
from mezo.scoring import Example, ScoringBatch, pose
from mezo.tuning import save, tune, with_adapter
from mezo.tuning.activations import activations
from mezo.tuning.peft_warnings import quiet_peft
from mezo.tuning.prefix_keys import PrefixKeys, prefix_of
from mezo.types import THETA, Direction, Probe, Update

CAUSAL = [name for name in ARCHITECTURES if name not in MASKED]
# float32 sums in another order: relative 1e-6 of logits of order 10, through two layers
ROUNDING = 2e-4
STRONG = [replace(probe, scale=30 * probe.scale) for probe in PROBES]  # 0.3: keys are of order 1


def prefixed(name: str, **settings: Any) -> tuple[Any, Any]:
    return tune(tiny(name), MeZOConfig.build(tuning="prefix", model="base", seed=3, **settings))


def by_peft(model: Any, name: str, folder: Path) -> Any:
    """The prefix as it is now, saved, and loaded by peft onto the plain base."""
    save(model, byte_tokenizer(), folder)
    with quiet_peft():
        return PeftModel.from_pretrained(tiny(name), str(folder)).eval()


def table(model: Any, batch: ScoringBatch) -> np.ndarray:
    """Every query's log-probability by the model's own forward, one unpadded row at a time."""
    with torch.no_grad():
        rows = [model(input_ids=torch.tensor([row])).logits[0].log_softmax(-1) for row in batch.rows]
    asked = zip(batch.query_row, batch.query_position, batch.query_token, strict=True)
    return np.array([float(rows[row][position, token]) for row, position, token in asked])


def move(weights: Any, probe: Probe) -> None:
    for t in weights.tunables:
        z = torch.empty(1, t.tensor.numel())
        noise.fill_(z, Where(t.tensor_id), probe.seed)
        t.tensor.data += probe.scale * z.view(t.tensor.shape)


# ---------------------------------------------------------------- the same numbers as peft's


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_probes_equal_peft_s_own_forward(name: str, tmp_path: Path) -> None:
    engine, weights = engine_for(name, "prefix")
    assert engine.form.stacked
    before = weights.checksum()
    batch = pose(examples(engine.kind))
    found = engine.logprobs(batch, STRONG)
    assert weights.checksum() == before
    for n, probe in enumerate(STRONG[:2]):
        model, there = prefixed(name)
        move(there, probe)
        peft = by_peft(model, name, tmp_path / str(n))
        np.testing.assert_allclose(found[n], table(peft, batch), atol=ROUNDING)
    assert np.abs(found[0] - found[1]).max() > 100 * ROUNDING, "the probes did differ"


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_saved_prefix_is_the_same_for_peft_and_for_us(name: str, tmp_path: Path) -> None:
    model, weights = prefixed(name, prefix_tokens=3)
    weights.update_([1], [0.1])
    peft = by_peft(model, name, tmp_path / "adapter")
    ours = with_adapter(tiny(name), tmp_path / "adapter")
    ids = torch.tensor([[40, 41, 42, 43, 44], [50, 51, 52, 0, 0]])
    mask = (ids != 0).long()
    with torch.no_grad():
        for inputs in ({"input_ids": ids}, {"input_ids": ids, "attention_mask": mask}):
            expected = peft(**inputs).logits
            # the same operations in the same order
            assert torch.equal(model(**inputs).logits, expected)
            assert torch.equal(ours(**inputs).logits, expected)
            assert not torch.equal(tiny(name)(**inputs).logits, expected)


@pytest.mark.parametrize("name", CAUSAL)
def test_generation_writes_what_peft_writes(name: str, tmp_path: Path) -> None:
    """Past the sliding window of 16, too."""
    model, weights = prefixed(name)
    weights.update_([1], [0.1])
    peft = by_peft(model, name, tmp_path / "adapter")
    ids = torch.tensor([[40, 41, 42, 43]])
    settings = dict(max_new_tokens=20, do_sample=False, use_cache=True, pad_token_id=0, eos_token_id=None)
    inputs = dict(input_ids=ids, attention_mask=torch.ones_like(ids))
    found = model.generate(**inputs, **settings)
    assert torch.equal(found, peft.generate(**inputs, **settings))
    assert found.shape == (1, 24)


def test_caches_hold_the_caller_s_tokens_alone() -> None:
    model, _ = prefixed("llama")
    ids = torch.tensor([[40, 41, 42, 43, 44, 45]])
    with torch.no_grad():
        whole = model(input_ids=ids).logits
        first = model(input_ids=ids[:, :4], use_cache=True)
        assert not isinstance(first.past_key_values, PrefixKeys)
        assert first.past_key_values.get_seq_length() == 4
        rest = model(input_ids=ids[:, 4:], past_key_values=first.past_key_values, use_cache=True)
    torch.testing.assert_close(rest.logits, whole[:, 4:], atol=ROUNDING, rtol=0)


# ---------------------------------------------------------------- every way of running it


@pytest.mark.parametrize("memory", ["materialize", "regenerate"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_layout_equals_writing_theta(name: str, memory: str) -> None:
    """Packed and shared rows, right after an update as well."""
    engine, _ = engine_for(name, "prefix", memory=memory)
    assert engine.form.packed == (name != "gemma2-softcap")
    engine.form = replace(engine.form, attention_share=0.0, key_share=0.0)  # share wherever it saves a token
    batches = [pose(examples(engine.kind))]
    if engine.kind == "causal":
        batches.append(shared_batch(3 if name == "mistral-window" else 9))
    for batch in batches:
        found = engine.logprobs(batch, STRONG)
        for probe, row in zip(STRONG, found, strict=True):
            np.testing.assert_allclose(row, reference(engine, batch, probe), atol=ROUNDING)
        engine.apply(Update(0, 0.1, (Direction(5, 1.0),), 1))
    shares = engine.form.shared and name != "mistral-window"
    assert (engine.counts.reused > 0) == shares


@pytest.mark.parametrize("width", [1, 5, 16])
def test_shared_rows_cut_anywhere(width: int) -> None:
    engine, _ = engine_for("qwen3", "prefix")
    engine.form = replace(engine.form, width=width)
    batch = shared_batch()
    expected = np.stack([reference(engine, batch, probe) for probe in STRONG])
    np.testing.assert_allclose(engine.logprobs(batch, STRONG), expected, atol=ROUNDING)


def test_windows_and_positions_make_room_for_the_prefix() -> None:
    engine, _ = engine_for("mistral-window", "prefix")
    assert engine.form.pack_limit == 16 - 5
    long = pose([Example(tuple(range(10, 40)), ((20,), (30,)), 0), *examples("causal")])
    np.testing.assert_allclose(engine.logprobs(long)[0], reference(engine, long, THETA), atol=ROUNDING)


def test_another_probe_s_prefix_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparisons above can fail, and the engine's own check sees it: probes are no longer stacked."""
    update = PrefixKeys.update

    def first_for_all(self: PrefixKeys, keys: torch.Tensor, values: torch.Tensor, *args: Any) -> Any:
        made = update(self, keys, values, *args)
        n = self.num_tokens
        return tuple(torch.cat([m[:1, :, :n].expand(len(m), -1, -1, -1), m[:, :, n:]], 2) for m in made)

    monkeypatch.setattr(PrefixKeys, "update", first_for_all)
    engine, _ = engine_for("llama", "prefix")
    assert not engine.form.stacked


@pytest.mark.parametrize("name", ["llama", "gpt2", "opt", "bert"])
def test_layers_below_the_lowest_tuned_one_run_once(name: str) -> None:
    settings = MeZOConfig.build(tuning="prefix", seed=3, train=(r"(layers?|h)\.1\.",))
    plain, _ = engine_for(name, "prefix")
    model, weights = tune(tiny(name), settings)
    engine = TransformersEngine(
        model,
        weights,
        plain.objective,
        plain.optimizer,
        kind="masked" if name in MASKED else "causal",
        pad_token_id=0,
        activation_cache_bytes=1 << 20,
    )
    assert engine.below is not None
    assert engine.below.first == 1
    batch = pose(examples(engine.kind))
    for _ in range(2):  # the second time from what was kept
        found = engine.logprobs(batch, STRONG)
        for probe, row in zip(STRONG, found, strict=True):
            np.testing.assert_allclose(row, reference(engine, batch, probe), atol=ROUNDING)
        engine.apply(Update(0, 0.1, (Direction(5, 1.0),), 1))
    assert engine.below.kept


# ---------------------------------------------------------------- how it begins


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["llama", "gemma3", "opt", "gpt2", "roberta"])
def test_the_start_is_the_activations_of_tokens_in_float64(name: str, dtype: torch.dtype) -> None:
    """So that every device finds the same start: equal to a model that is float64 altogether."""
    model = tiny(name, dtype)
    tokens = [noise.derive_seed(3, 2**64 - 1, n) % VOCABULARY for n in range(5)]
    expected = activations(copy.deepcopy(model).double(), tokens, exact=False)
    tuned, _ = tune(model, MeZOConfig.build(tuning="prefix", seed=3))
    prefix = prefix_of(tuned)
    assert prefix is not None
    for layer, made in zip(prefix.layers, expected, strict=True):
        for found, states in ((layer.keys, made.keys), (layer.values, made.values)):
            assert found.dtype == torch.float32
            assert torch.equal(found, states.transpose(0, 1).flatten(1).bfloat16().float())


def test_a_prefix_of_one_s_own_tokens_changes_nothing() -> None:
    """Keys and values of real tokens are what the model would have seen had they stood in front."""
    model = tiny("llama")
    tokens = [noise.derive_seed(3, 2**64 - 1, n) % VOCABULARY for n in range(5)]
    ids = [40, 41, 42]
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([tokens + ids])).logits[:, 5:]
        found = tune(model, MeZOConfig.build(tuning="prefix", seed=3))[0](
            input_ids=torch.tensor([ids])
        ).logits
    # keys and values are rounded to 8 bits: 2^-9 of order 1 each, summed at random over layers and features
    torch.testing.assert_close(found, expected, atol=0.1, rtol=0)


def test_seeds_and_kinds_of_start_differ() -> None:
    starts = {
        prefixed("llama")[1].checksum(),
        prefixed("llama", prefix_init="random")[1].checksum(),
        tune(tiny("llama"), MeZOConfig.build(tuning="prefix", seed=4))[1].checksum(),
    }
    assert len(starts) == 3
    assert prefixed("llama", prefix_init="random")[1].checksum() in starts


def test_a_random_start_is_standard_normal() -> None:
    _, weights = prefixed("llama", prefix_init="random", prefix_tokens=200)
    values = torch.cat([t.tensor.flatten() for t in weights.tunables])
    count = len(values)  # 4 standard errors of a mean and of a variance
    assert abs(float(values.mean())) < 4 / count**0.5
    assert abs(float(values.var()) - 1) < 4 * (2 / count) ** 0.5


# ---------------------------------------------------------------- mistakes


def test_a_model_whose_attention_reads_no_cache_is_refused() -> None:
    from transformers import DistilBertConfig, DistilBertForMaskedLM

    model = DistilBertForMaskedLM(
        DistilBertConfig(vocab_size=300, dim=32, n_layers=2, n_heads=4, hidden_dim=48)
    )
    with pytest.raises(MezoError, match=r"DistilBertForMaskedLM takes no prefix.*use tuning=lora"):
        tune(model.eval(), MeZOConfig.build(tuning="prefix"))


def test_a_row_that_leaves_no_positions_for_the_prefix_says_so() -> None:
    model, _ = prefixed("gpt2")  # 128 positions
    model(input_ids=torch.full((1, 123), 7))
    with pytest.raises(
        MezoError, match=r"124 tokens and a prefix of 5 .* 128 positions .* max_length to 123"
    ):
        model(input_ids=torch.full((1, 124), 7))


def test_two_prefixes_are_refused() -> None:
    model, _ = prefixed("llama")
    with pytest.raises(MezoError, match="has a prefix already"):
        tune(model, MeZOConfig.build(tuning="prefix"))


def test_a_prefix_for_another_model_is_refused(tmp_path: Path) -> None:
    save(prefixed("llama")[0], byte_tokenizer(), tmp_path / "adapter")
    with pytest.raises(MezoError, match=r"adapter: a prefix of shape \(5, 64\) does not fit the model"):
        with_adapter(tiny("bert"), tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(b"no")
    with pytest.raises(MezoError, match="not a readable safetensors file"):
        with_adapter(tiny("llama"), tmp_path / "adapter")
