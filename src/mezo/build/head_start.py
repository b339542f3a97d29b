"""`start=linear-probe`: the label words' rows of the head, what later blocks write for them, and what tokens say.

All are fitted before the first step. Linear probing before tuning is LP-FT (Kumar et al. 2022, arXiv:2202.10054). Here the probe is the head itself: what is
fitted is the change of its own rows, so each later step goes on from the fitted loss. That the probe also reads inside
the blocks, and writes there, is ours.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from mezo.build.block_fit import MOST
from mezo.build.block_inputs import Reader, residual_writers
from mezo.build.deeper import CHUNK, deeper, features_of
from mezo.build.label_fit import RowFit, fit_rows
from mezo.build.setup import engine_at
from mezo.config import MeZOConfig
from mezo.data import EncodedDataset
from mezo.engines.transformers.engine import TransformersEngine
from mezo.engines.transformers.selfcheck import head_is_last
from mezo.errors import MezoError
from mezo.models.load import LoadedModel
from mezo.models.offloaded import is_offloaded
from mezo.objectives import OBJECTIVES, LogprobObjective, Objective
from mezo.scoring import Example, pose
from mezo.tuning import lora_targets
from mezo.tuning.evidence import Evidence, showing
from mezo.tuning.label_rows import LabelRows, head_of, lora_settings, write_rows
from mezo.tuning.own_adapter import own_adapter
from mezo.util.clock import since

_OF = ("candidate-ce", "accuracy")  # objectives whose loss the fit lowers


@dataclass(frozen=True)
class HeadStart:
    """What a run starts from.

    Args:
        rows: the change of the label words' rows; None for the model as it is.
        record: what the run keeps of it, as JSON values.
        seconds: that it took.
    """

    rows: LabelRows | None
    record: dict[str, Any]
    seconds: float

    def in_words(self) -> str:
        """For people."""
        r = self.record
        spent = f"{r['examples']:,} examples, {r['rows_scored']:,} rows through the model"
        spent += f" (as many as {r['forward_passes']:,} forward passes of a step), {self.seconds:.1f} s"
        (loss, fitted), (accuracy, now) = r["loss"], r["accuracy"]
        if self.rows is None:
            why = f"have no lower loss on held-out ones than the model's own ({fitted:.4f}, own {loss:.4f})"
            if fitted < loss:  # with all else held fixed
                why = "do not lower the loss where they are also read as inputs, or before later words of a label"
            return (
                f"warning: no head start: rows of the label words fitted to {spent}, {why}: the run starts from the model as it "
                "is"
            )
        also = f" and what {r['matrices']} matrices write for them" if r.get("matrices") else ""
        if r.get("tokens"):
            also = f", what {r['matrices']} matrices write for them and what {r['tokens']:,} tokens say,"
        return (
            f"head start: {len(self.rows.words)} rows of label words{also} fitted to {spent}; on held-out ones loss "
            f"{loss:.4f} -> {fitted:.4f}, accuracy {100 * accuracy:.1f} % -> {100 * now:.1f} %"
        )


def check_start(
    config: MeZOConfig, base: LoadedModel, train: EncodedDataset, objective: Objective
) -> list[Example]:
    """The examples that the rows are fitted to, in the order in which the run draws them.

    Raises MezoError, in a line, where start=linear-probe has no meaning, or the run's weights could not hold the rows.
    """
    instead = "use start=model"
    if objective.name not in _OF:
        raise MezoError(
            f"start='linear-probe' lowers the loss over candidates, and the objective is {objective.name!r}: {instead}, or "
            "objective=candidate-ce with a task that has candidates"
        )
    if (own := own_adapter(base.model)) is not None:
        raise MezoError(
            f"start='linear-probe' makes an adapter of its own, and the model has {own.in_words()}: {instead}, or merge it "
            "first"
        )
    examples = [train[i] for i in train.batch_indices(0, min(config.start_examples, len(train)), config.seed)]
    first = examples[0].candidates
    if any(e.candidates != first or e.scored is not None for e in examples):
        raise MezoError(
            f"start='linear-probe' fits a row for each label word, and in this task each example has candidates of its own: "
            f"{instead}"
        )
    words = [c[0] for c in first]
    if len(set(words)) < len(words):
        twice = next(i for i, word in enumerate(words) if word in words[:i])
        text = [base.tokenizer.decode(list(first[i])) for i in (words.index(words[twice]), twice)]
        raise MezoError(
            f"start='linear-probe' fits a row for each label word's first token, and {text[0]!r} and {text[1]!r} begin with the "
            f"same one: choose others with label_words, or {instead}"
        )
    if len({right for e in examples for right in e.right}) < 2:
        raise MezoError(
            f"start='linear-probe' needs examples of at least 2 classes, found {len(examples)}, all of one: {instead}"
        )
    rows = LabelRows(torch.tensor(words), torch.empty(len(words), 0))
    lora_settings(base.model, rows) if config.tuning == "lora" else head_of(base.model)
    return examples


def made_start(
    config: MeZOConfig, base: LoadedModel, examples: Sequence[Example], note: Callable[[str], None]
) -> HeadStart:
    """Fit the rows, and try them. The model is left as it was. Raises MezoError if its logits are no plain product."""
    began = time.monotonic()
    note(f"a head start: fitting the label words' rows to {len(examples):,} examples")
    loss = OBJECTIVES["candidate-ce"]
    engine = engine_at(base, loss, disable_shortcuts=config.disable_shortcuts)
    if not head_is_last(engine):
        raise MezoError(
            f"{type(base.model).__name__} changes its logits after its head (a soft cap, a scale), so rows cannot be fitted to "
            "what the head reads: use start=model"
        )
    writers = _writers(config, base.model) if len(examples) <= MOST else {}
    reader = Reader(engine, writers, len(examples))
    known, scored = features_of(engine, examples, reader)
    fit = fit_rows(known)
    found: list[tuple[RowFit, Evidence | None]] = [] if fit.change is None else [(fit, None)]
    more_of, more = deeper(engine, base.model, examples, fit, known, reader)
    scored += more
    if more_of is not None:
        found.insert(0, more_of)
    words, rows = torch.tensor([c[0] for c in examples[0].candidates]), None
    used = found[0][0] if found else fit
    tied = config.tuning == "full" and _is_tied(base.model)
    # the fit holds all else fixed: what the words mean as inputs, and their later tokens
    in_doubt, tried = tied or bool((known.lengths > 1).any()), examples[:CHUNK]
    for fitted, evidence in found:
        assert fitted.change is not None
        made = LabelRows(words, fitted.change.float(), evidence)
        if in_doubt:
            with showing(base.model, evidence), _held(base.model, made, alone=not tied):
                lost, more = _loss(engine, loss, tried)
            scored += more
            if not lost < float(known.losses()[: len(tried)].mean()):
                continue
        rows, used = made, fitted
        break
    said = None if rows is None or rows.evidence is None else rows.evidence.tokens
    record = {
        "examples": len(examples),
        "rows_scored": scored,
        "forward_passes": math.ceil(scored / (config.batch_size * config.gradient_accumulation)),
        "loss": [fit.losses[0], used.losses[1]],
        "accuracy": [fit.accuracies[0], used.accuracies[1]],
        "ridge": used.ridge if math.isfinite(used.ridge) else None,
        "matrices": 0 if rows is None or rows.evidence is None else len(rows.evidence.reads),
        "tokens": 0 if said is None else len(said.tokens),
    }
    return HeadStart(rows, record, since(began))


def _writers(config: MeZOConfig, model: Any) -> dict[str, torch.nn.Module]:
    """The matrices that may write evidence: they have to be part of what is saved, and take it whole."""
    if (
        config.tuning == "head"
        or is_offloaded(model)
        or (config.tuning == "full" and model.dtype != torch.float32)
    ):
        return {}
    taken = (config.lora_targets or lora_targets(model)) if config.tuning == "lora" else ()
    return residual_writers(model, head_of(model)[1].get_parameter("weight").shape[1], taken)


def _is_tied(model: Any) -> bool:
    output = model.get_output_embeddings()
    others = {id(p) for m in model.modules() if m is not output for p in m._parameters.values()}
    return id(output._parameters["weight"]) in others


@contextmanager
def _held(model: Any, rows: LabelRows, *, alone: bool) -> Iterator[None]:
    """Inside the block the model has the rows. alone: in the head, and not where its weight is an input embedding, too."""
    output = head_of(model)[1]
    weight = output._parameters["weight"]
    assert weight is not None
    before = weight.detach()[rows.words.to(weight.device)].clone()
    if alone:
        output._parameters["weight"] = torch.nn.Parameter(weight.detach().clone(), requires_grad=False)
    try:
        write_rows(model, rows)
        yield
    finally:
        output._parameters["weight"] = weight
        if not alone:
            with torch.no_grad():
                weight[rows.words.to(weight.device)] = before


def _loss(
    engine: TransformersEngine, loss: LogprobObjective, examples: Sequence[Example]
) -> tuple[float, int]:
    batch = pose(examples)
    return loss(batch, engine.logprobs(batch)[0]), len(batch.rows)
