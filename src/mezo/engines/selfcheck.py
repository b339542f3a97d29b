"""Find out, by comparing numbers on a few tokens, which shortcuts a model's structure allows.

The reference is the model's own forward on one unpadded row at a time. A shortcut is used only if
its log-probabilities agree with the reference; so an architecture nobody foresaw is slower here,
never wrong.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mezo.engines.watch import Watch
from mezo.errors import MezoError
from mezo.scoring import ScoringBatch
from mezo.tuning.prefix_keys import prefix_of
from mezo.types import Probe

if TYPE_CHECKING:
    from mezo.engines.transformers import TransformersEngine

# A shortcut that is wrong in structure is off by tenths; one that is right differs by rounding,
# which over tens of layers stays below these bounds (log-probabilities are of order 10).
_TOLERANCE = {torch.float32: 2e-3, torch.bfloat16: 0.5, torch.float16: 0.1}
_LENGTHS = (7, 4, 9)
_PROBE_SCALE = 3e-3


@dataclass(frozen=True, slots=True)
class Form:
    """How a model is run."""

    packed: bool = False  # several rows in one rectangle row, by 4-D mask and explicit positions
    position_offset: int = 0  # RoBERTa counts positions from padding_idx + 1
    pack_limit: int = 1 << 30  # longest rectangle row: positions and attention windows
    attention_share: float = 0.0  # cost of a query-key pair over that of a token elsewhere
    key_share: float = 0.0  # cost of handing a token's keys and values to a row, likewise
    whole_head: bool = False  # logits go through the model's own last steps
    stacked: bool = True  # all probes in one pass
    shared: bool = False  # leading tokens that rows share are computed once
    width: int | None = None  # of the rectangle where tokens are shared; None: what costs least


def find_form(engine: "TransformersEngine", *, probes: bool) -> Form:
    """The fastest form that agrees with the reference; a MezoError if none does.

    `probes`: also find out how to evaluate probes; not needed by who only evaluates theta.
    """
    batch = _probe_batch(engine)
    expected = _reference(engine, batch)
    config = engine.model.config.get_text_config()
    limit = min(
        getattr(config, "max_position_embeddings", None) or 1 << 30,
        getattr(config, "sliding_window", None) or 1 << 30,
        getattr(config, "attention_chunk_size", None) or 1 << 30,
        (getattr(config, "local_attention", None) or 1 << 31) // 2,  # to both sides (ModernBERT)
    )
    prefix = prefix_of(engine.model)
    if prefix is not None:  # takes up the first of a row's positions
        limit -= prefix.num_tokens
    share, key_share = _shares(engine.model, config)
    pad = getattr(config, "pad_token_id", None) or 0
    whole = not _head_is_last(engine)
    forms = [
        Form(True, offset, limit - offset, share, key_share, whole, stacked=False)
        for offset in dict.fromkeys((0, pad + 1))
        if getattr(config, "_attn_implementation", "") == "sdpa"  # others may not take a mask of booleans
    ] + [Form(pack_limit=limit, whole_head=whole, stacked=False)]
    theta = [Probe(0, 0.0)]
    form = next((f for f in forms if _agrees(engine, f, batch, theta, expected)), None)
    if form is None:
        raise MezoError(
            f"{type(engine.model).__name__}: log-probabilities computed here do not agree with the model's own "
            f"logits; this architecture is not supported"
        )
    # a narrow rectangle, so that rows are cut and keys are handed on in every way there is
    narrow = replace(form, shared=True, width=5)
    if form.packed and engine.kind == "causal" and _agrees(engine, narrow, batch, theta, expected):
        form = replace(form, shared=True)
    if not probes:
        return form
    # what a layer adds in front of its keys is of order 1, and moves log-probabilities less than weights do
    scale = _PROBE_SCALE if prefix is None else 1.0
    pair = [Probe(1, scale), Probe(1, -scale)]
    with Watch(engine.weights) as watch:
        _values(engine, form, batch, pair[:1])
    engine.probing.swap_whole(watch.read_raw)
    apart = np.concatenate([_values(engine, form, batch, [p]) for p in pair])
    stacked = replace(form, stacked=True)
    if watch.read_raw or not _agrees(engine, stacked, batch, pair, apart):
        return form
    engine.form = stacked
    engine.find_below()
    if engine.below is not None and not _below_agrees(engine, batch, pair):
        engine.below = None
    return stacked


def _below_agrees(engine: "TransformersEngine", batch: ScoringBatch, pair: list[Probe]) -> bool:
    """Whether computing lower layers once changes nothing: below all that is tuned, below its upper half."""
    assert engine.below is not None
    half = engine.below.cuts.above(len(engine.below.layers) // 2, len(engine.weights.tunables))
    for probes in (pair, [replace(p, scaling=half) for p in pair]):
        apart = np.concatenate([_values(engine, engine.form, batch, [p]) for p in probes])
        if not _agrees(engine, engine.form, batch, probes, apart):
            return False
    return True


@torch.no_grad()
def _head_is_last(engine: "TransformersEngine") -> bool:
    """Whether the model returns what its output embedding makes, untouched: no soft cap, no scale."""
    module = engine.head_module
    made: list[torch.Tensor] = []

    def ramp(hidden: torch.Tensor) -> torch.Tensor:
        values = torch.linspace(-100, 100, module.weight.shape[0], device=hidden.device, dtype=hidden.dtype)
        made.append(values.expand(*hidden.shape[:-1], -1))
        return made[0]

    with engine.probing.at([Probe(0, 0.0)], overrides={module: ramp}):
        logits = engine.model(input_ids=torch.tensor([[5, 6, 7]], device=engine.model.device)).logits
    return len(made) == 1 and logits.shape == made[0].shape and torch.equal(logits.float(), made[0].float())


def _probe_batch(engine: "TransformersEngine") -> ScoringBatch:
    vocabulary = engine.head_module.weight.shape[0]
    rows = tuple(
        tuple((17 * (r + 1) * (i + 3) + 11 * i) % max(1, vocabulary - 10) + 5 for i in range(n))
        for r, n in enumerate(_LENGTHS)
    )
    rows = tuple(rows[0][:3] + row[3:] for row in rows)  # they begin alike
    rows = tuple(tuple(t if t != engine.pad else t + 1 for t in row) for row in rows)
    row, position = zip(*((r, i) for r, n in enumerate(_LENGTHS) for i in range(n)), strict=True)
    count = len(row)
    return ScoringBatch(
        rows=rows,
        query_row=np.array(row),
        query_position=np.array(position),
        query_token=(np.arange(count) * 31 + 7) % vocabulary,
        query_candidate=np.arange(count),
        candidate_example=np.arange(count),
        candidate_is_answer=np.ones(count, dtype=bool),
        num_examples=count,
    )


@torch.no_grad()
def _reference(engine: "TransformersEngine", batch: ScoringBatch) -> np.ndarray:
    out = []
    for r, row in enumerate(batch.rows):
        logits = engine.model(input_ids=torch.tensor([row], device=engine.model.device)).logits[0]
        table = logits.float().log_softmax(-1)
        mine = batch.query_row == r
        out.append(table[batch.query_position[mine], batch.query_token[mine]].double().cpu().numpy())
    return np.concatenate(out)[None]


def _values(engine: "TransformersEngine", form: Form, batch: ScoringBatch, probes: list[Probe]) -> np.ndarray:
    engine.form = form
    return engine.logprobs(batch, probes)


def _agrees(
    engine: "TransformersEngine", form: Form, batch: ScoringBatch, probes: Any, expected: np.ndarray
) -> bool:
    try:
        found = _values(engine, form, batch, probes)
    except (TypeError, ValueError, RuntimeError, IndexError, AttributeError):
        return False  # the model does not take its inputs in this form
    tolerance = _TOLERANCE[next(engine.model.parameters()).dtype]
    return bool(np.all(np.abs(found - expected) <= tolerance))


def _shares(model: Any, config: Any) -> tuple[float, float]:
    """What a query-key pair costs, and a key and value handed to a row, over a token in the linear layers."""
    linear = 2 * sum(p.numel() for n, p in model.named_parameters() if p.dim() == 2 and "embed" not in n)
    layers, hidden = getattr(config, "num_hidden_layers", 1), getattr(config, "hidden_size", 1)
    # On a CPU masked attention runs at about a quarter of a matrix product's speed, and an element is
    # written and read again, by the cache and by the heads that share it, in the time of 640 operations.
    return 4 * 4 * layers * hidden / max(1, linear), 640 * 2 * layers * hidden / max(1, linear)
