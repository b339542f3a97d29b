"""Outputs of many probes in one loop are those of one probe after another, and what falls back does."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tests.engines.transformers.test_generate import CAUSAL, NEVER
from tests.tiers import mostly_slow
from tests.tiny_models import tiny
from tests.toys import byte_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from mezo.config import MeZOConfig
from mezo.engines.transformers import together as module
from mezo.engines.transformers.engine import TransformersEngine
from mezo.noise.seeds import sampling_key
from mezo.objectives import OutputObjective, reward_of
from mezo.optimizers import SGD
from mezo.scoring import Example
from mezo.tuning import tune
from mezo.types import THETA, Probe
from mezo.util.writing import Writing

SEEN: list[str] = []


def probes_at(scale: float) -> list[Probe]:
    return [Probe(seed, sign * scale) for seed in (7, 8, 9) for sign in (+1, -1)]


PROBES = probes_at(3e-2)
FAR = {"lora": 0.5, "norms": 0.5}  # of what moves little
DRAWN = Writing(9, (NEVER,), temperature=1.0, samples=2)


def _seen(row: dict[str, Any], output: str) -> float:
    SEEN.append(output)
    return len(output)


REWARD: OutputObjective = reward_of(_seen, "seen")
TUNED: dict[str, dict[str, Any]] = {
    "lora": {"tuning": "lora", "lora_rank": 4},
    "rank-one": {"noise": "rank-one"},
    "low-rank": {"noise": "low-rank", "noise_rank": 3},
    "norms": {"tuning": "norms"},
}


def examples(lengths: tuple[int, ...] = (5, 11, 3, 8)) -> list[Example]:
    drawn = np.random.RandomState(0)
    return [
        Example(tuple(int(t) for t in drawn.randint(4, 260, n)), ((20,),), 0, key=sampling_key(0, 0, row))
        for row, n in enumerate(lengths)
    ]


def wide() -> Any:
    """A Llama whose every matrix is large enough for low-rank noise."""
    torch.manual_seed(0)
    sizes: Any = dict(hidden_size=32, intermediate_size=64, vocab_size=264, num_hidden_layers=2)
    heads: Any = dict(num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=128)
    return LlamaForCausalLM(LlamaConfig(**sizes, **heads)).eval()


def engine_for(name: str = "llama", tuned: str = "lora", **options: Any) -> TransformersEngine:
    config = MeZOConfig.build(seed=3, **TUNED[tuned])
    model, weights = tune(wide() if tuned == "low-rank" and name == "llama" else tiny(name), config)
    if tuned == "lora":
        weights.update_([1], [0.1])  # B starts at zero: move it, or A's noise is never seen
    options = {"writing": Writing(9, (NEVER,)), **options}
    return TransformersEngine(
        model, weights, REWARD, SGD(), kind="causal", pad_token_id=0, tokenizer=byte_tokenizer(), **options
    )


def texts(engine: TransformersEngine, probes: Any = PROBES, batch: Any = None) -> list[str]:
    SEEN.clear()
    engine.losses(examples() if batch is None else batch, probes)
    return list(SEEN)


def apart(engine: TransformersEngine, probes: Any = PROBES, batch: Any = None) -> list[str]:
    engine.disabled = frozenset({"together"})
    try:
        return texts(engine, probes, batch)
    finally:
        engine.disabled = frozenset()


# ---------------------------------------------------------------- the same texts


@pytest.mark.parametrize("drawn", [False, True], ids=["greedy", "drawn"])
@pytest.mark.parametrize("tuned", TUNED)
@pytest.mark.parametrize("name", mostly_slow(CAUSAL, lambda name: name in ("llama", "llama-tied", "gpt2")))
def test_together_is_one_after_another(name: str, tuned: str, drawn: bool) -> None:
    engine = engine_for(name, tuned, **({"writing": DRAWN} if drawn else {}))
    before, probes = engine.weights.checksum(), probes_at(FAR.get(tuned, 3e-2))
    found = texts(engine, probes)
    assert found == apart(engine, probes)
    assert engine.weights.checksum() == before
    assert len({*found}) > (len(examples()) if drawn else 1), "the probes write different texts"
    assert engine._together is not None
    if name == "llama" or (name in ("llama-tied", "gpt2") and tuned != "low-rank"):
        assert engine._together._agrees


def test_a_probe_at_theta_is_among_them() -> None:
    engine = engine_for(tuned="rank-one")
    probes = [THETA, *PROBES]
    found = texts(engine, probes)
    assert found[: len(examples())] == engine.generate(examples())
    assert found == apart(engine, probes)


def test_each_probe_has_its_own_rows() -> None:
    engine = engine_for(tuned="rank-one")
    probes = [replace(probe, rows=(k // 2, 2)) for k, probe in enumerate(PROBES[:4])]
    SEEN.clear()
    losses = engine.dealt_losses(examples(), probes)
    found = list(SEEN)
    engine.disabled = frozenset({"together"})
    SEEN.clear()
    assert engine.dealt_losses(examples(), probes) == losses
    assert list(SEEN) == found
    assert len(found) == 4 * 2


@pytest.mark.parametrize("rows", [1, 3, 5, 8, 100])
def test_batches_of_any_size_write_the_same(rows: int) -> None:
    engine = engine_for(rows_at_once=rows)
    assert texts(engine) == apart(engine)


def test_rows_leave_as_they_finish(monkeypatch: pytest.MonkeyPatch) -> None:
    """An output ends with its first "e": outputs of a drawing model are over at different places."""
    engine = engine_for(tuned="rank-one", writing=Writing(40, ("e", "a", "1"), temperature=2.0))
    together = texts(engine)
    sizes: list[int] = []
    whole = engine.model.forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        sizes.append(len(kwargs["input_ids"]))
        return whole(*args, **kwargs)

    monkeypatch.setattr(engine.model, "forward", counted)
    assert texts(engine) == together
    assert sizes[0] == 24
    assert sizes[-1] < 24
    assert sorted(sizes, reverse=True) == sizes
    monkeypatch.undo()
    assert together == apart(engine)


def test_an_interrupt_leaves_the_model_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_for(tuned="rank-one")
    texts(engine)
    before = engine.weights.checksum()
    forwards = [dict(m.__dict__) for m in engine.model.modules()]

    def interrupted(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module.Chooser, "choose", interrupted)
        with pytest.raises(KeyboardInterrupt):
            texts(engine)
    assert engine.weights.checksum() == before
    assert ["forward" in m.__dict__ for m in engine.model.modules()] == ["forward" in d for d in forwards]


# ---------------------------------------------------------------- where it does not apply


def uses(engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch, probes: Any = PROBES) -> bool:
    """Whether the probes are written for together."""
    calls: list[int] = []
    whole = module.Together.__call__

    def called(self: Any, parts: Any, writing: Any) -> Any:
        calls.append(len(parts))
        return whole(self, parts, writing)

    monkeypatch.setattr(module.Together, "__call__", called)
    texts(engine, probes)
    return bool(calls)


def test_when_probes_write_together(monkeypatch: pytest.MonkeyPatch) -> None:
    assert uses(engine_for(), monkeypatch)
    assert not uses(engine_for(), monkeypatch, PROBES[:2]), "a pair goes as it always has"
    assert not uses(engine_for(memory="regenerate"), monkeypatch)
    assert not uses(engine_for(disable_shortcuts=("together",)), monkeypatch)
    assert not uses(engine_for(disable_shortcuts=("all",)), monkeypatch)


def test_whole_noise_of_matrices_has_no_thin_term(monkeypatch: pytest.MonkeyPatch) -> None:
    model, weights = tune(tiny("llama"), MeZOConfig.build())
    engine = TransformersEngine(
        model, weights, REWARD, SGD(), kind="causal", pad_token_id=0, tokenizer=byte_tokenizer()
    )
    assert not uses(engine, monkeypatch)
    assert engine._together is not None
    assert "in a way of its own" in str(engine._together.population.why)


def test_a_model_that_mixes_rows_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever makes the logits of many probes others than those of one: the slow way is taken."""
    engine = engine_for(tuned="rank-one")
    whole = engine.model.forward

    def mixed(*args: Any, **kwargs: Any) -> Any:
        out = whole(*args, **kwargs)
        if len(out.logits) > 2:  # the trial has three probes of two rows
            out.logits += 0.5 * out.logits.mean(0)
        return out

    monkeypatch.setattr(engine.model, "forward", mixed)
    assert not uses(engine, monkeypatch)


def test_a_cache_that_cannot_drop_rows_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import DynamicCache

    def cannot(*args: Any) -> None:
        raise AttributeError("no such thing")

    monkeypatch.setattr(DynamicCache, "batch_select_indices", cannot)
    engine = engine_for()
    assert not uses(engine, monkeypatch)
    assert texts(engine) == apart(engine)


def test_a_trial_is_not_counted() -> None:
    engine = engine_for()
    texts(engine)
    first = engine.counts.computed
    texts(engine)
    assert engine.counts.computed == 2 * first


def test_undefined_logits_are_no_text() -> None:
    from mezo.errors import MezoError

    engine = engine_for(tuned="rank-one")
    texts(engine)
    norm = next(m for m in engine.model.modules() if "RMSNorm" in type(m).__name__)
    with torch.no_grad():
        next(iter(norm.parameters())).fill_(float("nan"))
    with pytest.raises(MezoError, match=r"the model's logits are undefined \(NaN\)"):
        texts(engine)
