"""Find out, by comparing numbers on a few tokens, which shortcuts a model's structure allows.

The reference is the model's own forward on one unpadded row at a time (`engines.transformers.plain_forward`). A
shortcut is used only if its log-probabilities agree to what rounding explains on this machine and dtype; so an
unknown architecture is slower, never wrong. The rows are laid out as in the worst real batches: unequal rows in one
rectangle row, rows that begin alike, one probe and several. `engines.transformers.audit` repeats the comparison on
real data.

In 16 bits rounding hides much, so layouts (packed, padded, shared) are checked again with every operation widened to
float32, where a row that leaks into another is visible.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from mezo.engines.perturb.raw_reads import Dispatched, RawReads
from mezo.engines.transformers.checked import Checked
from mezo.engines.transformers.form import Form
from mezo.engines.transformers.plain_forward import (
    NOT_TAKEN,
    PACKED_WIDTH,
    SHARED_WIDTH,
    Check,
    PlainAnswers,
    apart,
    check_batch,
    plain_answers,
    rounding,
    row_distances,
)
from mezo.errors import MezoError
from mezo.models.offloaded import device_of
from mezo.models.widened import widened
from mezo.scoring import ScoringBatch
from mezo.tuning.prefix_keys import prefix_of
from mezo.types import THETA, Probe
from mezo.util.memory import give_back_freed

_LAYOUTS = _NATURAL, _PACKED, _SHARED = ("what costs least", "side by side", "cut")
_PROBE_SCALE, _LARGEST_SCALE = 3e-3, 2e-2
_CLEARLY_NEARER = 0.25
_LARGE = 1 << 28  # bytes


def find_form(engine: Checked, *, probes: bool) -> Form:
    """The fastest form that agrees with the reference.

    `probes`: also find out how to evaluate probes. Raises MezoError if the model's own forward fails or is not
    finite.
    """
    batch, structure = check_batch(engine), _Structure.of(engine)
    theta = Check(batch, (THETA,), (_reference(engine, batch),), _bound(engine, batch, THETA))

    def error(form: Form, *layouts: str) -> float:
        """Over the bound, the larger of both: in the model's type, and in structure."""
        found = _error(engine, form, theta, *layouts) / theta.bound
        return found if structure is None or found > 1 else max(found, structure.error(form, *layouts))

    if not engine.allows("all"):
        return _with_probes(engine, Form(plain=True), theta) if probes else Form(plain=True)
    limit, forms = _candidates(engine)
    form = _nearest({form: error(form) for form in forms})
    padded = Form(pack_limit=limit, padded=True, whole_head=forms[-1].whole_head)
    pads = error(padded) <= 1
    if form is None:
        form = replace(padded, padded=pads)
        if not pads and error(form) > 1:
            form = Form(plain=True)
    form = replace(form, padded=pads and not form.plain)
    if form.packed and engine.kind == "causal" and engine.allows("sharing"):
        shared = replace(form, shared=True)
        form = replace(form, shared=error(shared, _SHARED) <= 1)
    return _with_probes(engine, form, theta) if probes else form


def _with_probes(engine: Checked, form: Form, theta: Check) -> Form:
    """The form in which probes may be evaluated, from the one for theta."""
    moved = _at_probes(engine, theta)
    if engine.allows("stacking") and not (form.plain or engine.probing.whole):
        stacked = replace(form, stacked=True)
        pair = _error(engine, stacked, moved.first(2), *_LAYOUTS)
        if max(pair, _error(engine, stacked, moved, _NATURAL)) <= moved.bound:
            _find_below(engine, stacked, moved)
            return stacked
    if any(_error(engine, form, moved.only(i), _NATURAL) > moved.bound for i in (0, 1)):
        return Form(plain=True)  # a handler of ours does not compute what the module does
    return form


def _candidates(engine: Checked) -> tuple[int, list[Form]]:
    """The longest packed row, and the packed forms to try; the last of the list names how the head is run."""
    config = engine.model.config.get_text_config()
    windows = ("max_position_embeddings", "sliding_window", "attention_chunk_size")
    limits = [n for name in windows for n in in_any_layer(config, name)]
    # to both sides (ModernBERT)
    limits += [n // 2 for n in in_any_layer(config, "local_attention") if isinstance(n, int)]
    limit = min((n for n in limits if isinstance(n, int) and n > 0), default=1 << 30)
    prefix = prefix_of(engine.model)
    if prefix is not None:  # takes up the first of a row's positions
        limit -= prefix.num_tokens
    share, key_share = _shares(engine.model, config)
    pad = getattr(config, "pad_token_id", None) or 0
    whole = not engine.allows("head") or not head_is_last(engine)
    sdpa = getattr(config, "_attn_implementation", "") == "sdpa"  # others may not take a mask of booleans
    offsets = dict.fromkeys((0, pad + 1)) if sdpa and engine.allows("packing") else ()
    packed = [Form(True, offset, limit - offset, share, key_share, whole_head=whole) for offset in offsets]
    return limit, [*packed, Form(pack_limit=limit, padded=True, whole_head=whole)]


def in_any_layer(config: Any, name: str) -> list[Any]:
    """A setting of the config, or of each layer where they differ: transformers then refuses to name one."""
    try:
        return [getattr(config, name, None)]
    except Exception:
        layers = config.per_layer_config
        return [getattr(layers[n], name, None) for n in range(len(layers))]


def _nearest(measured: dict[Form, float]) -> Form | None:
    """Of the packed forms within the bound, the first, unless a later one is far nearer; None if none is."""
    best: tuple[Form, float] | None = None
    for form, error in measured.items():
        if form.packed and error <= 1 and (best is None or error < _CLEARLY_NEARER * best[1]):
            best = form, error
    return None if best is None else best[0]


# ------------------------------------------------------------------ what is expected


def _bound(engine: Checked, batch: ScoringBatch, probe: Probe, rows: Sequence[int] | None = None) -> float:
    alone = plain_answers_in_full(engine, batch, probe, rows)
    others = [plain_answers_in_full(engine, batch, probe, rows, jitter=True)]
    if not probe.scale:
        others.append(plain_answers_in_full(engine, batch, probe, rows, company=3))
    return rounding(alone, others, engine.model)


def _reference(engine: Checked, batch: ScoringBatch) -> PlainAnswers:
    whole = plain_answers_in_full(engine, batch, THETA)
    if not np.all(np.isfinite(whole.logprobs)):
        raise MezoError(
            f"{type(engine.model).__name__}: its own logits are not finite on a few plain tokens; these weights "
            "cannot be tuned or evaluated (in 16 bits, try --dtype float32)"
        )
    return whole


def plain_answers_in_full(
    engine: Checked,
    batch: ScoringBatch,
    probe: Probe,
    rows: Sequence[int] | None = None,
    **how: Any,
) -> PlainAnswers:
    """From logits in full: the head may be asked at some positions alone once it is known how it is called."""
    before, engine.form = engine.form, Form(plain=True)
    try:
        return plain_answers(engine, batch, probe, rows, **how)
    finally:
        engine.form = before
        _give_back(engine)


def _at_probes(engine: Checked, theta: Check) -> Check:
    """Three probes along two directions, at a scale where they differ by far more than rounding.

    Finds tensors that are read outside their owning modules; they hold the probe themselves from then on.
    """
    # what a layer adds in front of its keys is of order 1, and moves log-probabilities less than weights do
    scale = _PROBE_SCALE if prefix_of(engine.model) is None else 1.0
    for _ in range(3):  # a tensor that is served otherwise may bring another one to light
        python = RawReads(engine.weights, ignoring=engine.probing.whole)
        torchs = Dispatched(engine.weights)
        with python, torchs:
            plain_answers_in_full(engine, theta.batch, Probe(1, scale), [0])
        found = (python.read | torchs.read) - engine.probing.whole
        if not found:
            break
        engine.probing.write_whole(found)
    while scale < _LARGEST_SCALE / 4:
        plus, minus = (plain_answers_in_full(engine, theta.batch, Probe(1, s), [0]) for s in (scale, -scale))
        effect = apart(plus.logprobs, minus)
        if not np.isfinite(effect) or effect >= 20 * theta.bound:
            break
        scale *= 4
    probes = (Probe(1, scale), Probe(1, -scale), Probe(2, -scale))
    expected = tuple(plain_answers_in_full(engine, theta.batch, p) for p in probes)
    return Check(
        theta.batch, probes, expected, max(theta.bound, _bound(engine, theta.batch, probes[2], [0, 1]))
    )


# ------------------------------------------------------------------ what a form makes of it


def _error(engine: Checked, form: Form, check: Check, *layouts: str) -> float:
    """How far a form is from the expected answers, in the worst layout and at the worst probe; inf if it fails."""

    def distance() -> float:
        found = engine.in_form(check.batch, check.probes)
        pairs = zip(found, check.expected, strict=True)
        return max(apart(row[expected.queries], expected) for row, expected in pairs)

    return _worst(engine, form, layouts, distance)


def _worst(engine: Checked, form: Form, layouts: Sequence[str], distance: Callable[[], float]) -> float:
    before = engine.form
    try:
        worst = 0.0
        for layout in layouts or (_NATURAL, _PACKED):
            if (layout == _PACKED and not form.packed) or (layout == _SHARED and not form.shared):
                continue
            width = {_NATURAL: None, _PACKED: PACKED_WIDTH, _SHARED: SHARED_WIDTH}[layout]
            engine.form = replace(form, shared=layout == _SHARED, width=width)
            worst = max(worst, distance())
        return worst
    except NOT_TAKEN:
        return np.inf  # the model does not take its inputs in this form
    finally:
        engine.form = before
        _give_back(engine)


def _give_back(engine: Checked) -> None:
    """After each pass of a large model: passes of many layouts leave more freed blocks behind than a step ever needs."""
    if sum(p.nbytes for p in engine.model.parameters()) >= _LARGE:
        give_back_freed()


@dataclass(frozen=True)
class _Structure:
    """The rows of the check in float32, whatever the model's type: logits of the model's own, and no probes."""

    engine: Checked
    batch: ScoringBatch
    expected: PlainAnswers
    bound: float

    @classmethod
    def of(cls, engine: Checked) -> "_Structure | None":
        """None for a model that is float32 already, and for one whose operations cannot be widened."""
        kinds = {p.dtype for p in engine.model.parameters() if p.dtype.is_floating_point}
        if kinds <= {torch.float32}:
            return None
        batch = check_batch(engine)
        try:
            with widened(torch.float32):
                expected = plain_answers_in_full(engine, batch, THETA)
                moved = plain_answers_in_full(engine, batch, THETA, jitter=True)
        except MezoError:
            return None
        return cls(engine, batch, expected, rounding(expected, [moved], None))

    def error(self, form: Form, *layouts: str) -> float:
        """`_error`, of which the head is no part, over the bound."""
        return _worst(self.engine, form, layouts, self._layout_error) / self.bound

    @torch.no_grad()
    def _layout_error(self) -> float:
        worst = 0.0
        with widened(torch.float32):
            for share in self.engine.laid_out(self.batch).shares:
                logits = self.engine.model(**self.engine.inputs(share, 1)).logits.float()
                q, mine = share.queries, share.mine
                table = logits.flatten(0, 1)[q.positions].log_softmax(-1)
                found = table[q.inverse, q.tokens].double().cpu().numpy()
                rows = self.expected.row[mine]
                worst = max(worst, *row_distances(found, self.expected.logprobs[mine], rows))
        return worst


def _find_below(engine: Checked, form: Form, moved: Check) -> None:
    """Compute lower layers once for all probes if that changes nothing: below all that is tuned, and below its upper
    half.
    """
    if not engine.allows("lower-layers"):
        return
    engine.find_below()
    if engine.below is None:
        return
    half = engine.below.cuts.above(len(engine.below.layers) // 2, len(engine.weights.tunables))
    probes = tuple(replace(p, scaling=half) for p in moved.probes[:2])
    expected = tuple(plain_answers_in_full(engine, moved.batch, p, [0, 1]) for p in probes)
    upper = replace(moved, probes=probes, expected=expected)
    if any(_error(engine, form, c, _NATURAL) > moved.bound for c in (moved.first(2), upper)):
        engine.below = None


@torch.no_grad()
def head_is_last(engine: Checked) -> bool:
    """Whether the model returns what its output embedding makes, untouched: no soft cap, no scale."""
    module = engine.head_module
    made: list[torch.Tensor] = []

    def ramp(hidden: torch.Tensor) -> torch.Tensor:
        values = torch.linspace(-100, 100, module.weight.shape[0], device=hidden.device, dtype=hidden.dtype)
        made.append(values.expand(*hidden.shape[:-1], -1))
        return made[0]

    try:
        with engine.probing.at([Probe(0, 0.0)], overrides={module: ramp}):
            logits = engine.model(input_ids=torch.tensor([[5, 6, 7]], device=device_of(engine.model))).logits
    except NOT_TAKEN:
        return False
    return len(made) == 1 and logits.shape == made[0].shape and torch.equal(logits.float(), made[0].float())


def _shares(model: Any, config: Any) -> tuple[float, float]:
    """What a query-key pair costs, and a key and value handed to a row, over a token in the linear layers."""
    linear = 2 * sum(p.numel() for n, p in model.named_parameters() if p.dim() == 2 and "embed" not in n)
    layers, hidden = getattr(config, "num_hidden_layers", 1), getattr(config, "hidden_size", 1)
    # On a CPU masked attention runs at about a quarter of a matrix product's speed, and an element is
    # written and read again, by the cache and by the heads that share it, in the time of 640 operations.
    return 4 * 4 * layers * hidden / max(1, linear), 640 * 2 * layers * hidden / max(1, linear)
