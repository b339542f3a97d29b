"""Evidence for the label words that blocks write into the residual stream: a change of low rank of a few matrices.

Of a matrix's input each word's row of `reads` makes a number, its evidence, which goes to the matrix's output along
the word's column of `writing`. A model holds the products in these matrices, an adapter as a LoRA on each. With it may
come what tokens say of these words.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers.pytorch_utils import Conv1D

from mezo.errors import MezoError
from mezo.models.offloaded import check_here
from mezo.models.quantised import check_plain
from mezo.tuning.token_evidence import (
    TokenEvidence,
    fitting_embedding,
    hold_tokens,
    show_tokens,
    write_tokens,
)


@dataclass(frozen=True)
class Evidence:
    """What C words are read from, and where it is written.

    Args:
        writing: (H, C) float32: what a unit of evidence adds to a block's output. One for all matrices.
        reads: (C, width of the input) float32 for each matrix, by the name of its module.
        tokens: what the input embedding has for the same words; None: nothing.
    """

    writing: torch.Tensor
    reads: Mapping[str, torch.Tensor]
    tokens: TokenEvidence | None = None


def modules_of(model: Any, evidence: Evidence) -> dict[str, torch.nn.Module]:
    """Those that the evidence names. Raises MezoError unless it fits them."""
    found = {}
    named = dict(model.named_modules())
    height, count = evidence.writing.shape
    for name, reads in evidence.reads.items():
        module = named.get(name)
        if module is None or sizes_of(module) != (height, reads.shape[1]) or len(reads) != count:
            raise MezoError(
                f"the head start does not fit the model: expected a matrix {name} of {height} outputs and {reads.shape[1]} "
                f"inputs, found {'none' if module is None else sizes_of(module)}"
            )
        found[name] = module
    return found


def sizes_of(module: Any) -> tuple[int, int] | None:
    """(outputs, inputs) of a linear layer; None for any other module."""
    if isinstance(module, torch.nn.Linear):
        return module.out_features, module.in_features
    return (module.nf, module.nx) if isinstance(module, Conv1D) else None


@torch.no_grad()
def write_evidence(model: Any, evidence: Evidence) -> None:
    """Add the products to the matrices, in their dtype."""
    for name, module in modules_of(model, evidence).items():
        weight = module._parameters["weight"]
        assert weight is not None
        check_plain([(f"{name}.weight", weight)], "full")
        check_here(f"{name}.weight", weight, "full")
        change = torch.zeros(evidence.writing.shape[0], evidence.reads[name].shape[1])
        for column, reads in zip(evidence.writing.T, evidence.reads[name], strict=True):
            # no matrix product: its bits depend on the machine, and a replay has to have the run's
            change += torch.outer(column, reads)
        change = (change.T if isinstance(module, Conv1D) else change).to(weight.device)
        weight.copy_((weight.float() + change).to(weight.dtype))
    if evidence.tokens is not None:
        write_tokens(model, evidence.tokens)


def lora_names(model: Any, evidence: Evidence) -> list[str]:
    """The modules that get factors. Raises MezoError unless the evidence fits them."""
    embedding = [] if evidence.tokens is None else [fitting_embedding(model, evidence.tokens)[0]]
    return [*modules_of(model, evidence), *embedding]


@torch.no_grad()
def hold_evidence(tuned: Any, evidence: Evidence) -> list[torch.nn.Module]:
    """Put the products into the factors on the modules of a PeftModel, and return these; they are not tuned."""
    layers = [] if evidence.tokens is None else [hold_tokens(tuned, evidence.tokens)]
    for name, reads in evidence.reads.items():
        layer = tuned.get_base_model().get_submodule(name)
        if not hasattr(layer, "lora_A"):
            raise MezoError(
                f"{name} takes no LoRA adapter, and the head start has factors for it: use start=model"
            )
        (a,), (b,), (scale,) = layer.lora_A.values(), layer.lora_B.values(), layer.scaling.values()
        a.weight.copy_(reads)
        b.weight.copy_(evidence.writing / scale)
        a.weight.requires_grad_(False)
        b.weight.requires_grad_(False)
        layers.append(layer)
    return layers


@contextmanager
def showing(model: Any, evidence: Evidence | None) -> Iterator[None]:
    """Inside the block the model adds the evidence to what its modules compute; its weights do not change."""
    ends = []
    if evidence is not None and evidence.tokens is not None:
        ends.append(show_tokens(model, evidence.tokens))
    for name, module in ({} if evidence is None else modules_of(model, evidence)).items():
        assert evidence is not None
        reads, writing = evidence.reads[name], evidence.writing

        def add(
            _module: Any,
            inputs: tuple[torch.Tensor, ...],
            output: torch.Tensor,
            reads: torch.Tensor = reads,
            writing: torch.Tensor = writing,
        ) -> torch.Tensor:
            found = inputs[0].float() @ reads.to(output.device).T
            return output + (found @ writing.to(output.device).T).to(output.dtype)

        ends.append(module.register_forward_hook(add).remove)
    try:
        yield
    finally:
        for end in ends:
            end()
