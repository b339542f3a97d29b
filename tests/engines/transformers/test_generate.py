"""Generated text against transformers' own generate, one prompt at a time, at theta written out by hand."""

from typing import Any

import numpy as np
import pytest
import torch
from tests.tiers import mostly_slow
from tests.tiny_models import ARCHITECTURES, MASKED, tiny
from tests.toys import byte_tokenizer
from torch.utils._python_dispatch import TorchDispatchMode

from mezo import noise
from mezo.config import MeZOConfig
from mezo.engines.transformers.engine import TransformersEngine
from mezo.errors import MezoError
from mezo.noise.where import Where
from mezo.objectives import OBJECTIVES
from mezo.optimizers import SGD
from mezo.scoring import Example
from mezo.tuning import tune
from mezo.types import THETA, Probe, Scaling
from mezo.util.writing import Writing
from mezo.weights.weights import Weights

CAUSAL = [name for name in ARCHITECTURES if name not in MASKED]
PROBE = Probe(7, 2e-2)
NEVER = "\0 never written"


def examples() -> list[Example]:
    """Prompts of different lengths, one longer than the sliding windows."""
    drawn = np.random.RandomState(0)
    return [
        Example(tuple(int(t) for t in drawn.randint(4, 260, n)), ((20,),), 0) for n in (5, 11, 3, 8, 8, 40)
    ]


def engine_for(
    name: str, tuning: str = "full", dtype: torch.dtype = torch.float32, **options: Any
) -> tuple[TransformersEngine, Weights]:
    model, weights = tune(tiny(name).to(dtype), MeZOConfig.build(tuning=tuning, lora_rank=4, seed=3))
    if tuning == "lora":
        weights.update_([1], [0.1])  # B starts at zero: move it, or A's noise is never seen
    options = {"tokenizer": byte_tokenizer(), **options}
    kind = "masked" if name in MASKED else "causal"
    engine = TransformersEngine(
        model, weights, OBJECTIVES["answer-ce"], SGD(), kind=kind, pad_token_id=0, **options
    )
    return engine, weights


def one_by_one(engine: TransformersEngine, probe: Probe, max_new_tokens: int) -> list[str]:
    """transformers' greedy search on every unpadded prompt, at theta + scale z written into theta."""
    theta = [t.tensor.detach().clone() for t in engine.weights.tunables]
    for t in engine.weights.tunables:
        z = torch.empty(1, t.tensor.numel())
        noise.fill_(z, Where(t.tensor_id), probe.seed)
        t.tensor.data.add_(torch.tensor(probe.scale, dtype=torch.float32) * z.view(t.tensor.shape))
    texts = []
    for example in examples():
        ids = torch.tensor([example.prompt])
        whole = engine.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=max_new_tokens,
            pad_token_id=0,
            eos_token_id=2,
        )
        new = whole[0, len(example.prompt) :].tolist()
        new = new[: new.index(2)] if 2 in new else new
        texts.append(engine.tokenizer.decode(new, skip_special_tokens=True).strip())
    for t, data in zip(engine.weights.tunables, theta, strict=True):
        t.tensor.data.copy_(data)
    return texts


@pytest.mark.parametrize("probe", [THETA, PROBE], ids=["theta", "probe"])
@pytest.mark.parametrize("tuning", ["full", "lora", "prefix", "norms"])
@pytest.mark.parametrize("name", mostly_slow(CAUSAL, lambda name: name == "llama-tied"))
def test_batched_generation_is_one_by_one_generation(name: str, tuning: str, probe: Probe) -> None:
    engine, weights = engine_for(name, tuning)
    before = weights.checksum()
    found = engine.generate(examples(), probe, max_new_tokens=8, stop=NEVER)
    assert weights.checksum() == before
    assert found == one_by_one(engine, probe, 8)
    assert engine._writer is not None
    alone = tuning == "prefix" and bool(getattr(engine.model.config, "sliding_window", None))
    assert engine._writer.takes_padding() == (not alone)


@pytest.mark.parametrize("memory", ["materialize", "regenerate"])
def test_a_probe_writes_other_text_and_leaves_theta(memory: str) -> None:
    engine, _ = engine_for("llama", memory=memory)
    tensors = list(engine.model.parameters())
    at_theta = engine.generate(examples(), max_new_tokens=8, stop=NEVER)
    at_probe = engine.generate(examples(), PROBE, max_new_tokens=8, stop=NEVER)
    assert at_probe != at_theta
    assert engine.generate(examples(), THETA, max_new_tokens=8, stop=NEVER) == at_theta
    assert all(a is b for a, b in zip(tensors, engine.model.parameters(), strict=True))


def test_both_ways_of_reaching_a_probe_agree() -> None:
    materialized, regenerated = (
        engine_for("opt", memory=memory)[0].generate(examples(), PROBE, max_new_tokens=8, stop=NEVER)
        for memory in ("materialize", "regenerate")
    )
    assert materialized == regenerated


def test_a_scaled_probe_moves_what_its_scaling_says() -> None:
    engine, weights = engine_for("llama")
    nothing = Scaling("nothing", (0.0,) * len(weights.tunables))
    twice = Scaling("twice", (2.0,) * len(weights.tunables))
    texts = {
        name: engine.generate(examples(), probe, max_new_tokens=8, stop=NEVER)
        for name, probe in {
            "theta": THETA,
            "nothing": Probe(7, 2e-2, nothing),
            "twice": Probe(7, 1e-2, twice),
            "probe": PROBE,
        }.items()
    }
    assert texts["nothing"] == texts["theta"] != texts["probe"] == texts["twice"]


def test_an_interrupt_leaves_the_model_as_it_was() -> None:
    engine, weights = engine_for("gpt2")
    tensors, before = list(engine.model.parameters()), weights.checksum()

    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    engine.model.transformer.h[1].attn.forward = interrupted
    with pytest.raises(KeyboardInterrupt):
        engine.generate(examples(), PROBE, max_new_tokens=2)
    assert weights.checksum() == before
    assert all(a is b for a, b in zip(tensors, engine.model.parameters(), strict=True))


def test_a_batch_is_cut_where_it_would_hold_too_many_tokens() -> None:
    engine, _ = engine_for("llama")
    expected = engine.generate(examples(), max_new_tokens=8, stop=NEVER)
    small, _ = engine_for("llama", max_tokens=30)
    assert small.generate(examples(), max_new_tokens=8, stop=NEVER) == expected


def test_where_padding_is_not_for_a_model_lengths_go_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, _ = engine_for("llama")
    expected = engine.generate(examples(), max_new_tokens=8, stop=NEVER)
    assert engine._writer is not None
    engine._writer._pads = False
    widths = []
    padded = engine._writer.padded

    def watched(prompts: Any, shared: int) -> Any:
        widths.append({len(p) for p in prompts})
        return padded(prompts, shared)

    monkeypatch.setattr(engine._writer, "padded", watched)
    assert engine.generate(examples(), max_new_tokens=8, stop=NEVER) == expected
    assert widths == [{3}, {5}, {8}, {11}, {40}]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_model_that_heeds_padding_is_found_out(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    """A model that loses its attention mask sees the padding."""
    engine, _ = engine_for("llama", dtype=dtype)
    engine.generate(examples(), max_new_tokens=1)
    assert engine._writer is not None
    assert engine._writer._pads
    engine._writer._pads = None
    whole = engine.model.forward

    def blind(*args: Any, attention_mask: Any = None, **kwargs: Any) -> Any:
        return whole(*args, **kwargs)

    monkeypatch.setattr(engine.model, "forward", blind)
    found = engine.generate(examples(), max_new_tokens=4, stop=NEVER)
    assert engine._writer._pads is False
    if dtype == torch.float32:  # with 16 bits the order of sums decides between two tokens now and then
        assert found == one_by_one(engine, THETA, 4)


class Products(TorchDispatchMode):
    """The last dimensions of second factors of products of several matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.bmm.default and args[1].shape[0] > 1:
            self.sizes.add(args[1].shape[-1])
        return func(*args, **(kwargs or {}))


def test_the_heads_weight_is_not_copied_for_every_row() -> None:
    engine, _ = engine_for("llama", dtype=torch.bfloat16)
    with Products() as products:
        engine.generate(examples(), max_new_tokens=2, stop=NEVER)
    assert engine.model.config.vocab_size not in products.sizes


# ---------------------------------------------------------------- where an output ends


def writing(text: str, monkeypatch: pytest.MonkeyPatch, **options: Any) -> tuple[TransformersEngine, Any]:
    """An engine whose model writes `text` after any prompt of 3 tokens, and the number of its passes."""
    engine, _ = engine_for("llama", **options)
    tokens = [4 + b if b else 2 for b in text.encode()]  # a zero byte: </s>
    whole, passes = engine.model.forward, []

    def forward(*args: Any, **kwargs: Any) -> Any:
        out = whole(*args, **kwargs)
        places = kwargs["attention_mask"].sum(1) - 3
        out.logits[:, -1] = 0
        for row, place in enumerate(places.tolist()):
            out.logits[row, -1, tokens[place % len(tokens)]] = 1
        passes.append(len(places))
        return out

    engine.generate(examples()[2:3], max_new_tokens=1)  # the trial of padding is over
    monkeypatch.setattr(engine.model, "forward", forward)
    return engine, passes


@pytest.mark.parametrize(
    ("text", "stop", "expected", "passes"),
    [
        (" a dog\nand more", "\n", "a dog", 7),
        ("\n a dog", "\n", "", 1),
        ("a dog\0and more", "\n", "a dog", 6),
        ("a, b; c", ";", "a, b", 5),
        ("one END two", "END", "one", 7),
        ("no end", "\n", "no end" + "no", 8),
    ],
)
def test_an_output_ends(
    text: str, stop: str, expected: str, passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, seen = writing(text, monkeypatch, writing=Writing(8))
    assert engine.generate([Example((5, 6, 7), ((9,),), 0)], stop=stop) == [expected]
    assert len(seen) == passes


def test_a_row_that_is_over_waits_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, seen = writing("abc\ndef", monkeypatch)
    engine._writer._pads = True  # type: ignore[union-attr]
    prompts = [Example((5, 6, 7), ((9,),), 0), Example((5, 6, 7, 8, 9), ((9,),), 0)]
    assert engine.generate(prompts, max_new_tokens=6) == ["abc", "c"]
    assert len(seen) == 4


def test_the_models_own_sampling_and_penalties_are_left_out() -> None:
    engine, _ = engine_for("llama")
    expected = engine.generate(examples(), max_new_tokens=8, stop=NEVER)
    other, _ = engine_for("llama")
    own = other.model.generation_config
    own.do_sample, own.temperature, own.repetition_penalty, own.no_repeat_ngram_size = True, 9.0, 5.0, 1
    assert other.generate(examples(), max_new_tokens=8, stop=NEVER) == expected


# ---------------------------------------------------------------- what cannot be done


def test_a_masked_model_writes_nothing() -> None:
    engine, _ = engine_for("bert")
    with pytest.raises(MezoError, match="a masked language model cannot write text; choose a causal model"):
        engine.generate(examples())


def test_a_tokenizer_is_needed() -> None:
    engine, _ = engine_for("llama", tokenizer=None)
    with pytest.raises(MezoError, match="an engine needs a tokenizer to write text"):
        engine.generate(examples())


def test_undefined_logits_are_no_text() -> None:
    engine, weights = engine_for("llama")
    weights.tunables[-1].tensor.data.fill_(float("nan"))
    with pytest.raises(MezoError, match=r"the model's logits are undefined \(NaN\)"):
        engine.generate(examples()[:1], max_new_tokens=2)


def test_prompt_and_output_must_fit() -> None:
    engine, _ = engine_for("gpt2")
    with pytest.raises(
        MezoError, match="a prompt of 40 tokens and max_new_tokens=100 exceed the 128 positions"
    ):
        engine.generate(examples(), max_new_tokens=100)
