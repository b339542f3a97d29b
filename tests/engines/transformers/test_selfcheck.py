"""Shortcuts that a model's structure does not allow are not taken; and what is taken computes the right numbers."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from tests.engines.perturb.test_forward import PROBES, examples, reference

from mezo.config import MeZOConfig
from mezo.engines.perturb.layer_forwards import CannotStack
from mezo.engines.transformers import plain_forward as check_rows
from mezo.engines.transformers import selfcheck
from mezo.engines.transformers.engine import TransformersEngine
from mezo.engines.transformers.form import Form
from mezo.errors import MezoError
from mezo.objectives import OBJECTIVES
from mezo.optimizers import SGD
from mezo.scoring import pose
from mezo.tuning import tune

V = 300
_SIZES: dict[str, Any] = dict(
    vocab_size=V, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48
)
_BART: dict[str, Any] = dict(
    decoder_layers=2,
    decoder_attention_heads=4,
    decoder_ffn_dim=48,
    encoder_layers=1,
    encoder_attention_heads=4,
)

# kind, how it is made, whether rows may be packed, whether probes may be stacked with all of it tuned
TRAPS: dict[str, tuple[Any, Callable[[], Any], bool, bool]] = {
    # a convolution runs over a rectangle row from one packed row into the next; its weight is read from outside
    "lfm2": (
        "causal",
        lambda: hf.Lfm2ForCausalLM(
            hf.Lfm2Config(**_SIZES, num_key_value_heads=2, layer_types=["conv", "full_attention"], pad_token_id=0)
        ),
        False,
        False,
    ),
    # takes no positions, and counts them along the rectangle
    "bart": (
        "causal",
        lambda: hf.BartForCausalLM(
            hf.BartConfig(vocab_size=V, d_model=32, **_BART, max_position_embeddings=64, is_decoder=True, is_encoder_decoder=False)
        ),
        False,
        True,
    ),
    # a table looked up by pairs of positions, which are no rows
    "mpnet": ("masked", lambda: hf.MPNetForMaskedLM(hf.MPNetConfig(**_SIZES, pad_token_id=1)), False, False),
    # positions are counted from padding_idx + 1
    "roberta": (
        "masked",
        lambda: hf.RobertaForMaskedLM(hf.RobertaConfig(**_SIZES, max_position_embeddings=64, pad_token_id=1)),
        True,
        True,
    ),
    # mixes over all tokens, padding included
    "fnet": ("masked", lambda: hf.FNetForMaskedLM(hf.FNetConfig(**_SIZES, max_position_embeddings=64)), False, True),
    # its head is never called: the weights are read instead
    "mobilebert": (
        "masked",
        lambda: hf.MobileBertForMaskedLM(
            hf.MobileBertConfig(**{**_SIZES, "intermediate_size": 32}, embedding_size=16, intra_bottleneck_size=16)
        ),
        False,
        False,
    ),
    # time first
    "xlnet": ("causal", lambda: hf.XLNetLMHeadModel(hf.XLNetConfig(vocab_size=V, d_model=32, n_layer=2, n_head=4, d_inner=48)), False, False),
}  # fmt: skip


def engine_for(
    name: str, tuning: str = "full", dtype: torch.dtype = torch.float32, large: float = 4.0, **options: Any
):
    kind, make, _, _ = TRAPS[name]
    torch.manual_seed(0)
    model = make().eval().requires_grad_(False)
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:
                p.mul_(large)
    model.tie_weights()
    model.config.use_cache = False
    config = MeZOConfig.build(tuning=tuning, lora_rank=4, seed=3)
    tuned, weights = tune(model.to(dtype), config)
    engine = TransformersEngine(
        tuned, weights, OBJECTIVES["candidate-ce"], SGD(), kind=kind, pad_token_id=1, **options
    )
    return engine, weights


@pytest.mark.parametrize("name", TRAPS)
def test_what_a_structure_does_not_allow_is_not_done(name: str) -> None:
    engine, weights = engine_for(name)
    _, _, packed, stacked = TRAPS[name]
    assert (engine.form.packed, engine.form.stacked) == (packed, stacked)
    before = weights.checksum()
    batch = pose(examples(engine.kind))
    found = engine.logprobs(batch, PROBES)
    assert weights.checksum() == before
    # two float32 forward passes of two layers that sum in another order: relative 1e-6 of logits of order 10
    for probe, row in zip(PROBES, found, strict=True):
        np.testing.assert_allclose(row, reference(engine, batch, probe), atol=2e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("large", [1.0, 4.0])
def test_sixteen_bits_hide_no_wrong_position(dtype: torch.dtype, large: float) -> None:
    """At RoBERTa's usual initial scale, positions off by two move log-probabilities by hundredths."""
    engine, _ = engine_for("roberta", dtype=dtype, large=large)
    assert engine.form.position_offset == (2 if engine.form.packed else 0)
    assert engine.form.packed


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_state_that_leaks_between_rows_is_seen_in_either_type(dtype: torch.dtype) -> None:
    engine, _ = engine_for("lfm2", "lora", dtype)
    assert not engine.form.packed
    assert engine.form.padded
    assert engine.form.stacked  # the convolution is not tuned


def test_a_mask_that_forgets_other_rows_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packing is proven on rows that stand beside one another: without the block mask it must fail."""
    from mezo.engines.transformers import packing

    stand = packing._stand

    def careless(*args: Any, **kwargs: Any) -> Any:
        found = stand(*args, **kwargs)
        if found.mask is None:
            return found
        return type(found)(found.input_ids, found.position_ids, torch.ones_like(found.mask), found.keys, found.lengths, found.place, found.distinct)  # fmt: skip

    assert engine_for("roberta")[0].form.packed
    monkeypatch.setattr(packing, "_stand", careless)
    assert not engine_for("roberta")[0].form.packed


def test_the_check_has_unequal_rows_beside_one_another() -> None:
    from mezo.engines.transformers.packing import lay_out

    engine, _ = engine_for("roberta")
    rows = check_rows.check_batch(engine).rows
    laid = lay_out(rows, Form(packed=True, pack_limit=99, width=check_rows.PACKED_WIDTH), pad=0, causal=True)
    assert laid.input_ids.shape == (2, check_rows.PACKED_WIDTH)
    assert sorted(map(len, rows))[0] < sorted(map(len, rows))[1]


def test_no_dimension_of_the_check_can_be_taken_for_its_rows() -> None:
    """The widths of the check, against the numbers of rows that 1, 2 and 4 probes come to."""
    longest = max(check_rows.LENGTHS)
    for width, rows in ((20, 3), (longest, 3), (check_rows.PACKED_WIDTH, 2), (check_rows.SHARED_WIDTH, 4)):
        for count in (2, 4):
            assert width % (rows * count)
        assert width % rows


def test_a_lookup_by_pairs_is_no_batch() -> None:
    engine, _ = engine_for("mpnet")
    engine.form = Form(padded=True, stacked=True)
    with pytest.raises(CannotStack, match=r"is given \(20, 20, 1\)"):
        engine.in_form(check_rows.check_batch(engine), PROBES[:2])


def test_a_batch_that_cannot_be_stacked_goes_probe_by_probe() -> None:
    engine, _ = engine_for("mpnet")
    engine.form = Form(padded=True, stacked=True)
    batch = pose(examples("masked"))
    found = engine.logprobs(batch, PROBES[:2])
    for probe, row in zip(PROBES, found, strict=False):
        np.testing.assert_allclose(row, reference(engine, batch, probe), atol=2e-4)


def test_a_model_whose_own_forward_fails_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: Any, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError("shape '[-1, 4]' is\ninvalid")

    monkeypatch.setattr(hf.models.roberta.modeling_roberta.RobertaModel, "forward", fails)
    with pytest.raises(
        MezoError, match=r"^RobertaForMaskedLM: its own forward pass fails on a row of 7 tokens .*is invalid"
    ):
        engine_for("roberta")


def test_weights_that_are_not_finite_are_one_line() -> None:
    kind, make, _, _ = TRAPS["bart"]
    model = make().eval().requires_grad_(False)
    model.get_output_embeddings().weight.data[3] = torch.nan
    tuned, weights = tune(model, MeZOConfig.build(tuning="full"))
    with pytest.raises(MezoError, match="its own logits are not finite"):
        TransformersEngine(tuned, weights, OBJECTIVES["candidate-ce"], SGD(), kind=kind, pad_token_id=1)


@pytest.mark.parametrize("name", ["roberta", "bart", "lfm2"])
def test_shortcuts_can_be_turned_off(name: str) -> None:
    batch = pose(examples(TRAPS[name][0]))
    usual, _ = engine_for(name)
    for off in ("packing", "sharing", "stacking", "lower-layers", "head", "products", "all"):
        engine, _ = engine_for(name, disable_shortcuts=(off,))
        assert not (off in ("packing", "all") and engine.form.packed)
        assert not (off in ("stacking", "all") and engine.form.stacked)
        assert not (off in ("sharing", "packing", "all") and engine.form.shared)
        assert not (off in ("lower-layers", "all") and engine.below)
        assert engine.form.plain == (off == "all")
        np.testing.assert_allclose(engine.logprobs(batch, PROBES), usual.logprobs(batch, PROBES), atol=2e-4)


def test_a_read_that_begins_in_a_later_batch_is_followed() -> None:
    """A branch of the model that runs for the first time after the start, and reads a weight past its module."""
    from tests.engines.perturb.test_forward import engine_for as probing_engine

    engine, weights = probing_engine("llama")
    assert engine.form.stacked
    part, late = engine.model.model.layers[0].mlp, []

    def forward(x: torch.Tensor) -> torch.Tensor:
        out = type(part).forward(part, x)
        return out @ part.up_proj.weight[: out.shape[-1]] if late else out

    part.forward = forward
    batch, before = pose(examples("causal")), weights.checksum()
    for begun in (False, True, True):
        late += [1] * begun
        for probe, row in zip(PROBES, engine.logprobs(batch, PROBES), strict=True):
            np.testing.assert_allclose(row, reference(engine, batch, probe), atol=2e-4)
        assert bool(engine.probing.whole) == begun
    assert engine.probing.whole == {"model.layers.0.mlp.up_proj.weight"}
    assert weights.checksum() == before


@pytest.mark.parametrize("large", [True, False])
def test_a_large_model_gives_freed_memory_back_between_passes(
    large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else blocks of many layouts stay with the process, more than any step needs."""
    given: list[None] = []
    monkeypatch.setattr(selfcheck, "give_back_freed", lambda: given.append(None))
    if large:
        monkeypatch.setattr(selfcheck, "_LARGE", 0)
    engine_for("bart")
    assert (len(given) > 10) == large
