"""Rows of the output embedding that a run starts from in place of its base's: those of the label words.

Held as the change of the base's rows, float32, in a safetensors file of the run. A model holds them in its output
embedding, an adapter as a LoRA of its own on it, of rank one a row: A is the change, B says which rows. With them may
come evidence that blocks write for these words.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from mezo.errors import MezoError
from mezo.models.offloaded import check_here
from mezo.models.quantised import check_plain
from mezo.tuning.evidence import Evidence, hold_evidence, lora_names
from mezo.tuning.token_evidence import TokenEvidence

_READS = "reads."  # in the file, before the name of a matrix
_MARK = "holds_label_rows"  # attribute of a module whose LoRA is the head start's, and not tuned


@dataclass(frozen=True)
class LabelRows:
    """The change of some rows.

    Args:
        words: (C,) int64, the rows: tokens of the vocabulary, all different.
        change: (C, H) float32.
        evidence: for the same words, written by blocks; None: none is.
    """

    words: torch.Tensor
    change: torch.Tensor
    evidence: Evidence | None = None

    def to_bytes(self) -> bytes:
        """A safetensors file."""
        tensors = {"words": self.words, "change": self.change}
        if self.evidence is not None:
            tensors["writing"] = self.evidence.writing.contiguous()
            tensors |= {f"{_READS}{name}": reads for name, reads in self.evidence.reads.items()}
            if (said := self.evidence.tokens) is not None:
                tensors |= {"tokens": said.tokens, "says": said.says, "along": said.along}
        return save(tensors, metadata={"format": "pt"})

    @classmethod
    def of_bytes(cls, data: bytes, where: Any) -> "LabelRows":
        """Raises MezoError, which names `where`, if it is no such file."""
        try:
            found = load(data)
            words, change = found.pop("words"), found.pop("change")
            writing = found.pop("writing", None)
            said = [found.pop(name) for name in ("tokens", "says", "along")] if "tokens" in found else None
            reads = {name.removeprefix(_READS): found[name] for name in sorted(found)}
        except (SafetensorError, KeyError, ValueError) as error:
            raise MezoError(
                f"{where}: expected label words' rows (words and change): {' '.join(str(error).split())[:200]}"
            ) from None
        if words.dtype != torch.int64 or change.dtype != torch.float32 or change.shape[:1] != words.shape:
            raise MezoError(f"{where}: expected words (rows) int64 and change (rows, width) float32")
        if writing is None:
            return cls(words, change)
        if any(x.dim() != 2 or x.dtype != torch.float32 for x in (writing, *reads.values())):
            raise MezoError(f"{where}: expected matrices of float32 for what blocks write")
        tokens = None if said is None else _tokens(*said, count=len(words), where=where)
        return cls(words, change, Evidence(writing, reads, tokens))


def _tokens(
    tokens: torch.Tensor, says: torch.Tensor, along: torch.Tensor, *, count: int, where: Any
) -> TokenEvidence:
    plain = says.dtype == along.dtype == torch.float32 and along.dim() == 2 and tokens.dim() == 1
    if (
        not plain
        or tokens.dtype != torch.int64
        or says.shape != (len(tokens), count)
        or along.shape[1] != count
        or bool((tokens < 0).any())
    ):
        raise MezoError(
            f"{where}: expected tokens (tokens) int64, says (tokens, words) and along (width, words) float32"
        )
    return TokenEvidence(tokens, says, along)


def digest_of(data: bytes) -> str:
    """Of the file of the rows: what a trajectory records."""
    return blake2b(data, digest_size=16).hexdigest()


def head_of(model: Any) -> tuple[str, torch.nn.Module]:
    """The output embedding and its name. Raises MezoError unless its rows can be changed."""
    output = model.get_output_embeddings()
    weight = None if output is None else output._parameters.get("weight")
    if output is None or weight is None or weight.dim() != 2:
        raise MezoError(
            f"{type(model).__name__}: has no plain output embedding, whose rows start=linear-probe fits: use start=model"
        )
    name = next(name for name, module in model.named_modules() if module is output)
    check_plain([(f"{name}.weight", weight)], "full")
    check_here(f"{name}.weight", weight, "full")
    return name, output


@torch.no_grad()
def write_rows(model: Any, rows: LabelRows) -> None:
    """Add the change to the output embedding's rows, in the embedding's dtype."""
    weight = head_of(model)[1]._parameters["weight"]
    assert weight is not None
    _check_fits(rows, weight)
    at = rows.words.to(weight.device)
    weight[at] = (weight[at].float() + rows.change.to(weight.device)).to(weight.dtype)


def lora_settings(model: Any, rows: LabelRows, scale: float = 1.0) -> dict[str, Any]:
    """What peft's LoraConfig says of the output embedding, at scale 1, and of the modules that write evidence.

    These have the adapter's own `scale`, for programs that know of one alone.
    """
    name, output = head_of(model)
    if type(output) is not torch.nn.Linear:
        raise MezoError(
            f"{name} is a {type(output).__name__}, which takes no adapter here: use tuning=full or head, or start=model"
        )
    names = [name, *([] if rows.evidence is None else lora_names(model, rows.evidence))]
    ranks = dict.fromkeys(names, len(rows.words))
    scaled = {each: count * (1 if each == name else scale) for each, count in ranks.items()}
    return {"targets": names, "rank_pattern": ranks, "alpha_pattern": scaled}


@torch.no_grad()
def hold_rows(tuned: Any, rows: LabelRows) -> None:
    """Put the rows into the factors on the output embedding of a PeftModel; they are not tuned."""
    layer = tuned.get_output_embeddings()
    (a,), (b,) = layer.lora_A.values(), layer.lora_B.values()
    _check_fits(rows, layer.base_layer.weight)
    a.weight.copy_(rows.change)
    b.weight.zero_()
    b.weight[rows.words.to(b.weight.device), torch.arange(len(rows.words), device=b.weight.device)] = 1
    for layer in () if rows.evidence is None else hold_evidence(tuned, rows.evidence):
        setattr(layer, _MARK, True)
    mark_rows(tuned)


@torch.no_grad()
def mark_rows(tuned: Any) -> None:
    """Find out whether the adapter of a PeftModel holds label words' rows: each column of B is 1 in one row alone.

    Their factors, and those on the input embedding, are set not to be tuned: a step would move every row of the vocabulary.
    """
    layer = tuned.get_output_embeddings()
    factors = dict(getattr(layer, "lora_B", {}))
    if len(factors) != 1:
        return
    ((name, b),) = factors.items()
    plain = layer.scaling[name] == 1 and name not in layer.lora_variant and b.bias is None
    w = b.weight
    held = plain and bool((w.count_nonzero(0) == 1).all() and (w.sum(0) == 1).all())
    setattr(layer, _MARK, held)
    # what tokens say comes with the rows alone
    embedding = tuned.get_base_model().get_input_embeddings() if held else None
    said = [embedding] if hasattr(embedding, "lora_embedding_A") else []
    for module in said:
        setattr(module, _MARK, True)
    for module in [layer, *said] if held else []:
        for parameter in parameters_of(module):
            parameter.requires_grad_(False)


def _check_fits(rows: LabelRows, weight: torch.Tensor) -> None:
    count, width = weight.shape
    if rows.change.shape[1] != width or not bool(((rows.words >= 0) & (rows.words < count)).all()):
        raise MezoError(
            f"the label words' rows to start from do not fit the model: expected rows of width {width}, numbered below {count}, "
            f"found width {rows.change.shape[1]} and rows {rows.words.tolist()[:8]}"
        )


def has_rows(module: Any) -> bool:
    """Whether a module's LoRA is known to be the head start's: an output embedding's, of label words' rows, an input embedding's, or a
    block's."""
    return bool(getattr(module, _MARK, False))


def parameters_of(layer: Any) -> Iterable[torch.nn.Parameter]:
    """The factors on a layer."""
    names = ("lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B")
    return [p for name in names for p in getattr(layer, name).parameters()]
