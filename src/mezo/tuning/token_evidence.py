"""Evidence for the label words that tokens bring along: a change of low rank of the input embedding.

A token's row of `says` has a number for each label word, which goes into what the embedding gives for the token along the
label word's column of `along`. A model holds the products in the embedding's rows, an adapter as a LoRA on it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from mezo.errors import MezoError
from mezo.models.offloaded import check_here
from mezo.models.quantised import check_plain


@dataclass(frozen=True)
class TokenEvidence:
    """What n tokens say of C label words, and where an embedding of width E writes it; float32.

    Args:
        tokens: (n,) int64, all different.
        says: (n, C).
        along: (E, C).
    """

    tokens: torch.Tensor
    says: torch.Tensor
    along: torch.Tensor

    def change(self) -> torch.Tensor:
        """(n, E) what is added to the rows of the embedding."""
        change = torch.zeros(len(self.tokens), len(self.along))
        for column, says in zip(self.along.T, self.says.T, strict=True):
            # no matrix product: its bits depend on the machine, and a replay has to have the run's
            change += torch.outer(says, column)
        return change


def token_embedding(model: Any) -> tuple[str, torch.nn.Embedding] | None:
    """The input embedding and its name; None where its rows alone do not make what the model reads of a token."""
    try:
        found = model.get_input_embeddings()
    except NotImplementedError:
        return None
    if type(found) is not torch.nn.Embedding or found.max_norm is not None:
        return None
    names = [name for name, module in model.named_modules() if module is found]
    others = [m for m in model.modules() if isinstance(m, torch.nn.Embedding) and m is not found]
    if len(names) != 1 or any(m._parameters["weight"] is found._parameters["weight"] for m in others):
        return None
    return names[0], found


def fitting_embedding(model: Any, evidence: TokenEvidence) -> tuple[str, torch.nn.Embedding]:
    """Raises MezoError unless the evidence fits the model's embedding."""
    found, width = token_embedding(model), len(evidence.along)
    most = int(evidence.tokens.max()) if len(evidence.tokens) else 0
    if found is None or found[1].embedding_dim != width or found[1].num_embeddings <= most:
        size = "none" if found is None else f"{found[1].num_embeddings} of width {found[1].embedding_dim}"
        raise MezoError(
            f"the head start does not fit the model: expected an input embedding of width {width} and more than {most} tokens, "
            f"found {size}"
        )
    return found


@torch.no_grad()
def write_tokens(model: Any, evidence: TokenEvidence) -> None:
    """Add the products to the embedding's rows, in its dtype."""
    name, module = fitting_embedding(model, evidence)
    weight = module.weight
    check_plain([(f"{name}.weight", weight)], "full")
    check_here(f"{name}.weight", weight, "full")
    at = evidence.tokens.to(weight.device)
    weight[at] = (weight[at].float() + evidence.change().to(weight.device)).to(weight.dtype)


@torch.no_grad()
def hold_tokens(tuned: Any, evidence: TokenEvidence) -> torch.nn.Module:
    """Put the products into the factors on the embedding of a PeftModel, and return it; they are not tuned."""
    layer = tuned.get_base_model().get_input_embeddings()
    ((adapter, a),) = layer.lora_embedding_A.items()
    b, scale = layer.lora_embedding_B[adapter], layer.scaling[adapter]
    a.zero_()
    a[:, evidence.tokens.to(a.device)] = evidence.says.T.to(a.device, a.dtype)
    b.copy_(evidence.along / scale)
    a.requires_grad_(False)
    b.requires_grad_(False)
    return layer


def show_tokens(model: Any, evidence: TokenEvidence) -> Callable[[], None]:
    """Let the model add the products to what its embedding gives, its weights unchanged; called, what is returned ends it."""
    module = fitting_embedding(model, evidence)[1]
    place = torch.full((module.num_embeddings,), len(evidence.tokens))
    place[evidence.tokens] = torch.arange(len(evidence.tokens))
    changes = torch.cat([evidence.change(), torch.zeros(1, len(evidence.along))])

    def add(_module: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        found = changes.to(output.device)[place.to(output.device)[inputs[0]]]
        return (output.float() + found).to(output.dtype)

    return module.register_forward_hook(add).remove
