"""Parts of a batch that each go along a direction of their own, in one pass: the losses of each part alone."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tests.engines.perturb.test_forward import examples
from tests.tiny_models import ARCHITECTURES, MASKED, tiny

from mezo.algorithm import draw_of, mezo_step
from mezo.config import MeZOConfig
from mezo.engines.base import Engine, PreparedBatch
from mezo.engines.transformers.audit import ShortcutFailed
from mezo.engines.transformers.dealt import DealtBatch, Slots
from mezo.engines.transformers.engine import TransformersEngine
from mezo.engines.transformers.plain_forward import SHARED_WIDTH
from mezo.estimators import build
from mezo.objectives import OBJECTIVES, OutputObjective
from mezo.optimizers import SGD
from mezo.scoring import Example
from mezo.tuning import tune
from mezo.types import THETA, Probe

# two float32 forward passes of two layers that sum in another order: relative 1e-6 of logits of order 10
CLOSE = 5e-5


def batch_of(kind: str, count: int = 6) -> list[Example]:
    """Rows of lengths from 3 to 11, some of which begin alike; three candidates of several tokens (causal)."""
    five = examples(kind)
    return [*five, five[1], *five, *five][:count]


def engine_for(name: str, tuning: str = "full", dtype: torch.dtype = torch.float32, **options: Any):
    noise = options.pop("noise", "rank-one")
    config = MeZOConfig.build(tuning=tuning, lora_rank=4, seed=3, noise=noise)
    model, weights = tune(tiny(name, dtype), config)
    if tuning == "lora":  # B starts at zero: move it, or A's noise is never seen
        weights.add_noise_(Probe(1, 0.1))
    objective = OBJECTIVES[options.pop("objective", "candidate-ce")]
    kind = "masked" if name in MASKED else "causal"
    return TransformersEngine(model, weights, objective, SGD(), kind=kind, pad_token_id=0, **options)


def probes_of(parts: int, *scales: float, scaling: Any = None) -> list[Probe]:
    return [Probe(50 + k, s, scaling, rows=(k, parts)) for k in range(parts) for s in scales]


def only_together(engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part alone is not to be asked for."""
    monkeypatch.setattr(engine, "losses", lambda *_: pytest.fail("parts went one after another"))


CASES = [*((name, "full") for name in ARCHITECTURES), ("llama", "lora"), ("gpt2", "lora"), ("opt", "head")]


@pytest.mark.parametrize(("name", "tuning"), CASES)
def test_all_parts_in_one_pass_have_the_losses_of_each(
    name: str, tuning: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_for(name, tuning)
    before, batch, probes = engine.weights.checksum(), batch_of(engine.kind), probes_of(3, 1e-2, -1e-2)
    expected = Engine.dealt_losses(engine, batch, probes)
    only_together(engine, monkeypatch)
    engine.audit_next()
    found = engine.dealt_losses(batch, probes)
    assert engine.weights.checksum() == before
    np.testing.assert_allclose(found, expected, rtol=0, atol=CLOSE)
    slopes = np.diff(np.reshape(found, (3, 2)))
    assert np.median(np.abs(slopes)) > 20 * CLOSE, "the probes did differ"


@pytest.mark.parametrize("parts", [2, 6])
@pytest.mark.parametrize("objective", ["candidate-ce", "answer-ce", "accuracy"])
def test_parts_of_any_size_and_objectives(
    parts: int, objective: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_for(
        "llama-tied", objective=objective, max_tokens=64
    )  # so that a batch takes several passes
    batch, probes = batch_of("causal"), probes_of(parts, 1e-2, -1e-2)
    expected = Engine.dealt_losses(engine, batch, probes)
    only_together(engine, monkeypatch)
    made = engine.dealt_losses(batch, probes)
    np.testing.assert_allclose(made, expected, rtol=0, atol=CLOSE)
    monkeypatch.setattr(
        "mezo.engines.perturb.dealt._DRAWN", 1
    )  # a table's factors one direction after another
    np.testing.assert_allclose(engine.dealt_losses(batch, probes), made, rtol=0, atol=CLOSE)


def test_low_rank_noise_goes_the_same_way(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_for("gpt2", noise="low-rank")
    batch, probes = batch_of("causal"), probes_of(3, 1e-2, -1e-2)
    assert all(t.low_rank or t.tensor.dim() == 1 for t in engine.weights.tunables)
    expected = Engine.dealt_losses(engine, batch, probes)
    only_together(engine, monkeypatch)
    np.testing.assert_allclose(engine.dealt_losses(batch, probes), expected, rtol=0, atol=CLOSE)


@pytest.mark.parametrize("name", ["llama-tied", "gpt2", "bert"])
def test_single_layers_and_one_sided_probes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_for(name)
    batch, layers = batch_of(engine.kind), list(engine.weights.layers().values())
    probes = [
        probe
        for k in range(3)
        for probe in (
            Probe(0, 0.0, rows=(k, 3)),
            Probe(50 + k, 1e-2, layers[1], rows=(k, 3)),
            Probe(50 + k, 2e-2, layers[-1], rows=(k, 3)),
        )
    ]
    expected = Engine.dealt_losses(engine, batch, probes)
    only_together(engine, monkeypatch)
    np.testing.assert_allclose(engine.dealt_losses(batch, probes), expected, rtol=0, atol=CLOSE)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bit_parts_are_those_of_the_float32_model(dtype: torch.dtype) -> None:
    engine, wide = engine_for("llama", dtype=dtype), engine_for("llama")
    for t, w in zip(engine.weights.tunables, wide.weights.tunables, strict=True):
        w.tensor.data.copy_(t.tensor)
    batch, probes = batch_of("causal", 12), probes_of(12, 1e-2, -1e-2)
    found, expected = (np.reshape(e.dealt_losses(batch, probes), (12, 2)) for e in (engine, wide))
    # activations are rounded to 2^-8 and 2^-11 of themselves, which reach logits of order 10
    np.testing.assert_allclose(found, expected, atol=0.5 if dtype == torch.bfloat16 else 0.1)
    slopes, true = (v[:, 0] - v[:, 1] for v in (found, expected))
    assert np.corrcoef(slopes, true)[0, 1] > 0.9


def test_no_layout_shares_tokens_between_parts() -> None:
    """Equal rows go along different directions; those of one part, as the candidates of a row, share what they can."""
    engine = engine_for("llama")
    batch, probes = [examples("causal")[1]] * 4, probes_of(2, 1e-2)
    expected = Engine.dealt_losses(engine, batch, probes)
    assert abs(expected[0] - expected[1]) > 20 * CLOSE
    assert engine.form.shared
    engine.form = replace(engine.form, width=SHARED_WIDTH)  # laid out as a tree of rows
    before = engine.counts.reused
    np.testing.assert_allclose(engine.dealt_losses(batch, probes), expected, rtol=0, atol=CLOSE)
    assert engine.counts.reused > before


def test_a_batch_is_prepared_ahead_for_the_parts_that_are_usual() -> None:
    engine = engine_for("llama")
    batch, probes = batch_of("causal"), probes_of(3, 1e-2, -1e-2)
    expected = engine.dealt_losses(batch, probes)
    prepared = engine.prepare(batch)
    assert isinstance(prepared, PreparedBatch)
    assert isinstance(prepared.made, DealtBatch)
    assert engine.dealt_losses(prepared, probes) == expected
    plain = engine.losses(prepared, [THETA])  # prepared for something else: made anew
    assert plain == engine.losses(batch, [THETA])
    assert engine.dealt_losses(engine.prepare(batch), probes) == expected


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (dict(memory="regenerate"), "theta itself walks"),
        (dict(noise="gaussian"), "a matrix of noise has no factors"),
        (dict(tuning="prefix"), "a prefix has one form for all rows"),
        (dict(disable_shortcuts=("stacking",)), "it was asked not to"),
    ],
)
def test_where_it_cannot_be_parts_go_one_after_another(options: dict[str, Any], why: str) -> None:
    engine = engine_for("llama", **options)
    batch, probes = batch_of("causal"), probes_of(3, 1e-2, -1e-2)
    counted = engine.counts.asked
    found = engine.dealt_losses(batch, probes)
    expected = Engine.dealt_losses(engine, batch, probes)
    np.testing.assert_allclose(found, expected, rtol=0, atol=CLOSE if "memory" in options else 0, err_msg=why)
    assert engine.counts.asked > counted


def test_outputs_are_written_part_after_part(monkeypatch: pytest.MonkeyPatch) -> None:
    class Length(OutputObjective):
        def __call__(self, examples: Sequence[Example], outputs: Sequence[str]) -> float:
            return float(sum(map(len, outputs)) / len(examples))

    engine = engine_for("llama", disable_shortcuts=("together",))
    engine.objective = Length("length", False, "length")
    asked: list[tuple[int, int]] = []

    def written(prompts: Sequence[tuple[int, ...]], probe: Probe, *_: Any) -> list[str]:
        asked.append((probe.seed, len(prompts)))
        return ["a" * len(prompt) for prompt in prompts]

    monkeypatch.setattr(engine, "_written", written)
    batch = batch_of("causal")
    found = engine.dealt_losses(engine.prepare(batch), probes_of(3, 1e-2))
    assert found == [sum(len(e.prompt) for e in batch[2 * k : 2 * k + 2]) / 2 for k in range(3)]
    assert asked == [(50, 2), (51, 2), (52, 2)]


def test_probes_that_differ_between_parts_go_one_after_another() -> None:
    assert Slots.of([Probe(1, 0.1)]) is None
    assert (
        Slots.of([Probe(1, 0.1, rows=(0, 2)), Probe(1, 0.1, rows=(0, 2)), Probe(2, 0.1, rows=(1, 2))]) is None
    )
    assert Slots.of([Probe(1, 0.1, rows=(0, 2)), Probe(1, 0.1, rows=(0, 3))]) is None
    assert Slots.of([Probe(1, 0.1, drift=0.5, rows=(0, 2)), Probe(2, 0.1, drift=0.5, rows=(1, 2))]) is None
    assert Slots.of([Probe(s, 0.1, rows=(k, 2)) for k in range(2) for s in (k, k + 1)]) is None
    found = Slots.of(probes_of(2, 0.1, -0.1))
    assert found is not None
    assert found.places == ((0, 2), (1, 3))


def test_the_audit_notices_a_wrong_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_for("llama")
    batch, probes = batch_of("causal"), probes_of(3, 2e-2, -2e-2)
    monkeypatch.setattr("mezo.engines.perturb.deal.Deal.seeds", property(lambda self: [1, 2, 3]))
    engine.dealt_losses(batch, probes)
    engine.audit_next()
    with pytest.raises(ShortcutFailed) as error:
        engine.dealt_losses(batch, probes)
    assert error.value.shortcut == "stacking"


@pytest.mark.parametrize("estimator", ["two-point", "one-sided", "one-point", "sign"])
def test_steps_repeat_to_the_bit(estimator: str) -> None:
    config = MeZOConfig.build(
        estimator=estimator, row_directions=3, batch_size=6, noise="rank-one", epsilon=1e-2
    )
    found = set()
    for prepared in (True, False):
        engine, state = engine_for("llama-tied", dtype=torch.bfloat16), None
        for step in range(3):
            batch = batch_of("causal")
            batches = [engine.prepare(batch) if prepared else batch] * 2
            draw = draw_of(9, step, 3)
            _, _, state = mezo_step(engine, build(config, engine.weights), batches, draw, 1e-3, state)
        found.add(engine.weights.checksum())
    assert len(found) == 1
