"""Tokens that rows share are computed once, and nothing but rounding changes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.engines.perturb.test_forward import PROBES, engine_for, reference
from tests.tiny_models import ARCHITECTURES, MASKED, VOCABULARY

from mezo.engines.transformers.form import Form
from mezo.engines.transformers.packing import grow, lay_out
from mezo.scoring import Example, ScoringBatch, pose
from mezo.types import Direction, Probe, Update

CAUSAL = [name for name in ARCHITECTURES if name not in MASKED and name != "gemma2-softcap"]
ROWS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=7).map(tuple), min_size=1, max_size=9)


def shared_batch(length: int = 9) -> ScoringBatch:
    """Demonstrations before everything, a passage behind some, candidates behind each."""
    drawn = np.random.RandomState(0)

    def text(n: int) -> tuple[int, ...]:
        return tuple(int(t) for t in drawn.randint(4, VOCABULARY, n))

    demonstrations, passages = text(length), [text(4), text(3)]
    return pose(
        [
            Example(demonstrations + passages[n % 2] + text(2 + n % 3), ((20, 21, 22), (20, 23), (24,)), 1)
            for n in range(6)
        ]
    )


@given(ROWS)
def test_the_tree_holds_every_row_and_every_beginning_once(rows: list[tuple[int, ...]]) -> None:
    tree = grow(rows)
    for row, path in zip(rows, tree.paths, strict=True):
        assert tuple(tree.tokens[path]) == row
        assert tree.depth[path].tolist() == list(range(len(row)))
        assert np.all(np.diff(path) > 0), "what a token attends to stands before it"
    assert len(tree.tokens) == len({row[:n] for row in rows for n in range(1, len(row) + 1)})


@given(ROWS, st.integers(1, 9), st.booleans(), st.booleans())
def test_each_token_sees_its_own_row_up_to_itself(
    rows: list[tuple[int, ...]], width: int, shared: bool, packed: bool
) -> None:
    wide = width if shared and packed else None
    form = Form(packed=packed, shared=shared, attention_share=0.01, key_share=0.01, width=wide)
    layout = lay_out(rows, form, pad=9, causal=True)
    ids, positions = layout.input_ids.flatten(), layout.position_ids.flatten()
    num_rows, size = layout.input_ids.shape
    keys = layout.keys
    if keys is None:
        keys = torch.arange(num_rows * size).view(num_rows, size)
    mask = layout.mask
    if mask is None:
        mask = torch.ones(size, size, dtype=torch.bool).tril().expand(num_rows, 1, size, size)
    assert bool(mask.any(-1).all()), "no softmax over nothing"
    place = iter(layout.place.tolist())
    for row in rows:
        for depth, token in enumerate(row):
            at = next(place)
            assert (ids[at], positions[at]) == (token, depth)
            seen = keys[at // size][mask[at // size, 0, at % size]]
            assert ids[seen].tolist() == list(row[: depth + 1])
            assert positions[seen].tolist() == list(range(depth + 1))


@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("name", CAUSAL)
def test_sharing_equals_writing_theta(name: str, tuning: str) -> None:
    """Also right after an update: no key or value outlives the probe it was computed at."""
    engine, weights = engine_for(name, tuning)
    engine.form = replace(engine.form, attention_share=0.0, key_share=0.0)  # share wherever it saves a token
    plain, others = engine_for(name, tuning, share_prefixes=False)
    batch = shared_batch(3 if name == "mistral-window" else 9)
    update = Update(0, 0.1, (Direction(5, 1.0),), 1)
    for _ in range(2):
        found, unshared = engine.logprobs(batch, PROBES), plain.logprobs(batch, PROBES)
        # float32 sums in another order: relative 1e-6 of logits of order 10, through two layers
        np.testing.assert_allclose(found, unshared, atol=5e-5)
        for probe, row in zip(PROBES, found, strict=True):
            np.testing.assert_allclose(row, reference(engine, batch, probe), atol=2e-4)
        engine.apply(update)
        plain.apply(update)
    assert weights.checksum() == others.checksum()
    assert plain.counts.reused == 0
    assert plain.counts.seconds_saved == 0
    assert engine.counts.asked == plain.counts.asked
    assert engine.counts.reused > engine.counts.asked / 3
    assert engine.counts.computed < plain.counts.computed
    assert engine.counts.seconds_saved > 0


@pytest.mark.parametrize("width", [1, 3, 8, 64])
def test_any_width_gives_the_same_losses(width: int) -> None:
    """Rows cut in the middle, shared tokens in other rows and in the own one."""
    engine, _ = engine_for("qwen3")
    batch = shared_batch()
    expected = np.stack([reference(engine, batch, probe) for probe in PROBES])
    engine.form = replace(engine.form, width=width)
    np.testing.assert_allclose(engine.logprobs(batch, PROBES), expected, atol=2e-4)


def test_keys_of_another_probe_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison above can fail: every probe is given the keys of the first."""
    from mezo.engines.transformers.prefix_cache import SharedKeys

    engine, _ = engine_for("llama")
    engine.form = replace(engine.form, width=16)
    batch = shared_batch()
    right = engine.logprobs(batch, PROBES)
    gather = SharedKeys._gather

    def stale(self: SharedKeys, states: torch.Tensor) -> torch.Tensor:
        read = gather(self, states)
        first = read[: len(self._keys)]
        extra = read.shape[2] - states.shape[2]
        fresh = read.clone()
        fresh[:, :, :extra] = first.repeat(len(read) // len(first), 1, 1, 1)[:, :, :extra]
        return fresh

    monkeypatch.setattr(SharedKeys, "_gather", stale)
    wrong = engine.logprobs(batch, PROBES)
    np.testing.assert_allclose(wrong[0], right[0], atol=5e-5)
    assert np.abs(wrong[1:] - right[1:]).max() > 1e-3


def test_equal_rows_are_computed_once() -> None:
    engine, _ = engine_for("llama")
    example = Example(tuple(range(10, 30)), ((40,), (41,)), 0)
    engine.logprobs(pose([example] * 8), [Probe(1, 1e-3)])
    assert engine.counts.asked == 8 * 20
    assert engine.counts.reused == 7 * 20


def test_long_batches_are_cut_where_they_share_most() -> None:
    """A batch over the limit of one pass is halved; each half computes its shared tokens itself."""
    engine, _ = engine_for("llama")
    batch = shared_batch()
    expected = engine.logprobs(batch, PROBES)
    engine.max_tokens = 90
    np.testing.assert_allclose(engine.logprobs(batch, PROBES), expected, atol=5e-5)
