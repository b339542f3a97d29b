"""Compute a batch of the run without any shortcut, and compare.

The check at the start uses a few synthetic tokens; this one uses real data, after a step's losses and before its
update.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace

import numpy as np

from mezo.engines.transformers.checked import Checked
from mezo.engines.transformers.form import Form
from mezo.engines.transformers.plain_forward import NOT_TAKEN, plain_answers, rounding, row_distances
from mezo.errors import MezoError
from mezo.scoring import ScoringBatch
from mezo.types import Probe

_TOKENS = 8  # more that are asked for at the same positions, so that rounding is measured on enough of them
# A run is not ended for an odd row: twice what lets a shortcut pass at the start. What is wrong in structure is
# off by far more in float32, and by several times this in 16 bits.
_ROOM = 2.0


class ShortcutFailed(MezoError):
    """A shortcut does not compute what the model's own forward does. shortcut: its name in `disable_shortcuts`."""

    def __init__(self, model: str, shortcut: str, distance: float, bound: float):
        self.shortcut = shortcut
        super().__init__(
            f"{model}: log-probabilities of this run's own data are {distance:.2g} from those of the model's own forward "
            f"pass, and rounding explains {bound:.2g}: the shortcut {shortcut!r} does not hold for this model. No weight "
            f"was changed by this step; start again with --disable-shortcuts {shortcut}"
        )


def audit(engine: Checked, batch: ScoringBatch, probes: Sequence[Probe], found: np.ndarray) -> None:
    """Compare a few rows of a batch, at the last probe that moves, with the model's own forward.

    found: (P, Q) the engine's answers. Raises ShortcutFailed, naming the shortcut, beyond rounding.
    """
    if engine.form.plain:
        return
    place = max((i for i, probe in enumerate(probes) if probe.scale), default=len(probes) - 1)
    by_length = sorted((len(batch.rows[r]), int(r)) for r in np.unique(batch.query_row))
    rows = sorted({r for _, r in (by_length[0], by_length[-1])})  # those most likely to share a rectangle row
    mine = np.flatnonzero(np.isin(batch.query_row, rows))
    wide = _with_more_tokens(engine, batch, rows)
    alone = plain_answers(engine, wide, probes[place], rows)
    moved = plain_answers(engine, wide, probes[place], rows, jitter=True)
    bound = _ROOM * rounding(alone, [moved], engine.model)

    def distance(answers: np.ndarray) -> float:
        expected = alone.logprobs[: len(mine)]  # the batch's own queries come first
        return max(row_distances(answers[place][mine], expected, batch.query_row[mine]), default=0.0)

    if (apart := distance(found)) > bound:
        guilty = _guilty(engine, batch, probes, lambda answers: distance(answers) <= bound)
        raise ShortcutFailed(type(engine.model).__name__, guilty, apart, bound)


def _with_more_tokens(engine: Checked, batch: ScoringBatch, rows: Sequence[int]) -> ScoringBatch:
    """The queries of these rows, followed by other tokens at the same positions."""
    mine = np.flatnonzero(np.isin(batch.query_row, rows))
    row, position = np.unique(np.stack([batch.query_row[mine], batch.query_position[mine]]), axis=1)
    vocabulary = engine.head_module.weight.shape[0]
    others = (np.arange(len(row) * _TOKENS) * 7919 + 13) % vocabulary
    return replace(
        batch,
        query_row=np.concatenate([batch.query_row[mine], np.repeat(row, _TOKENS)]),
        query_position=np.concatenate([batch.query_position[mine], np.repeat(position, _TOKENS)]),
        query_token=np.concatenate([batch.query_token[mine], others]),
    )


def _guilty(
    engine: Checked,
    batch: ScoringBatch,
    probes: Sequence[Probe],
    right: Callable[[np.ndarray], bool],
) -> str:
    """The first shortcut without which the answers are right; "all" if none alone does it.

    Where they are right already, they were found in a pass whose rows had directions of their own: "stacking".
    """
    with suppress(*NOT_TAKEN):
        if right(engine.in_form(batch, probes)):
            return "stacking"
    for name in ("sharing", "packing", "stacking", "lower-layers", "products", "head"):
        try:
            with _without(engine, name):
                if right(engine.in_form(batch, probes)):
                    return name
        except NOT_TAKEN:
            continue
    return "all"


@contextmanager
def _without(engine: Checked, name: str) -> Iterator[None]:
    form, below = engine.form, engine.below
    changes: dict[str, Form] = {
        "sharing": replace(form, shared=False),
        "packing": replace(form, packed=False, shared=False),
        "stacking": replace(form, stacked=False),
        "head": replace(form, whole_head=True),
    }
    try:
        engine.form = changes.get(name, form)
        engine.below = None if name == "lower-layers" else below
        engine.probing.use_products(name != "products" and engine.allows("products"))
        yield
    finally:
        engine.form, engine.below = form, below
        engine.probing.use_products(engine.allows("products"))
