"""What the matrices that write to the residual stream read at the scored positions, and along what the head hears them."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from transformers.pytorch_utils import Conv1D

from mezo.build.slopes import slopes_of
from mezo.engines.transformers.batch import BatchPart
from mezo.engines.transformers.engine import TransformersEngine
from mezo.scoring import Example, ScoringBatch
from mezo.tuning.evidence import sizes_of
from mezo.tuning.select import is_target

# Names of the projections with which attention or an MLP adds to the residual stream.
_WRITERS = (
    "o_proj",
    "out_proj",
    "down_proj",
    "c_proj",
    "fc2",
    "fc_out",
    "dense_4h_to_h",
    "wo",
    "Wo",
    "out_lin",
    "lin2",
    "output.dense",
    "attention.dense",
    "self_attention.dense",
    "self_attn.dense",
)
_OF_MLPS = ("down_proj", "fc2", "fc_out", "dense_4h_to_h", "lin2", "output.dense", "mlp.c_proj")
_ATTENTION = re.compile("att(e?n)?", re.IGNORECASE)  # in the name of what has its projection
HEARD = 32  # examples from which the way to the head is found


def residual_writers(model: Any, width: int, taken: Collection[str] = ()) -> dict[str, torch.nn.Module]:
    """Projections into the residual stream by name, in the order of the blocks: attention's of the later half, the last MLP's.

    What is written there passes few blocks, which change it little. Attention gathers from all of a text, so what it reads
    says the most. MLPs would add less than the blocks behind them distort.

    Args:
        model: has its blocks numbered in the names of its modules.
        width: of the residual stream.
        taken: names, or ends of them, that are left out.
    """
    uses = Counter(id(w) for m in model.modules() if (w := m._parameters.get("weight")) is not None)
    experts = any("expert" in name for name, _ in model.named_modules())
    found = {
        name: (int(numbers[0]), module)
        for name, module in model.named_modules()
        if type(module) in (torch.nn.Linear, Conv1D)
        and is_target(name, _WRITERS)
        and not is_target(name, list(taken))
        # where there are experts peft takes the names of MLPs for theirs
        and not (experts and is_target(name, _OF_MLPS))
        and len(numbers := re.findall(r"\.(\d+)\.", name)) == 1
        and (sizes_of(module) or (0,))[0] == width
        and uses[id(module._parameters["weight"])] == 1  # blocks that share a matrix would write twice
        # a state space reads its matrix past the module, so what is added there would not be computed
        and not hasattr(model.get_submodule(name.rpartition(".")[0]), "conv1d")
    }
    blocks = 1 + max((block for block, _ in found.values()), default=0)
    return {
        name: module
        for name, (block, module) in found.items()
        if block == blocks - 1 or (block >= blocks // 2 and _ATTENTION.search(name.rpartition(".")[0]))
    }


class Reader:
    """Keeps what modules read where the first token of each example's first candidate is scored.

    Args:
        engine: whose passes are watched.
        modules: by name.
        count: examples there will be.
    """

    def __init__(self, engine: TransformersEngine, modules: Mapping[str, torch.nn.Module], count: int):
        self.engine, self.modules, self.count = engine, dict(modules), count
        # (count, width of the input) for each, in the order of the calls
        self.inputs: dict[str, torch.Tensor] = {}

    @contextmanager
    def watching(self, batch: ScoringBatch, members: Sequence[int]) -> Iterator[None]:
        """Inside the block the engine answers the batch, whose examples are these of all."""
        first = np.unique(batch.candidate_example[batch.query_candidate], return_index=True)[1]  # of queries
        place = np.full(len(batch.query_token), -1)
        place[first] = members
        shares, calls = self.engine.laid_out(batch).shares, dict.fromkeys(self.modules, 0)
        sizes: dict[int, int] = {}

        def keep(name: str, x: torch.Tensor) -> None:
            call = calls[name]
            calls[name] += 1
            if 0 <= call < len(shares) and sizes.setdefault(call, x[..., 0].numel()) == x[..., 0].numel():
                self._keep(name, x, shares[call], place)
            else:  # it sees other tokens, or is called again
                calls[name] = -len(shares)

        def watch(name: str) -> Callable[..., None]:
            return lambda _module, given: keep(name, given[0].detach())

        hooks = [module.register_forward_pre_hook(watch(name)) for name, module in self.modules.items()]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
        for name in [name for name, called in calls.items() if called != len(shares)]:
            del self.modules[name]
            self.inputs.pop(name, None)

    def _keep(self, name: str, x: torch.Tensor, share: BatchPart, place: np.ndarray) -> None:
        at = place[share.mine]
        rows = share.queries.positions[share.queries.inverse[torch.from_numpy(np.flatnonzero(at >= 0))]]
        if name not in self.inputs:
            self.inputs[name] = torch.empty(self.count, x.shape[-1], dtype=x.dtype)
        self.inputs[name][torch.from_numpy(at[at >= 0])] = x.reshape(-1, x.shape[-1])[rows].cpu()


def writing_of(
    model: Any, writer: torch.nn.Module, examples: Sequence[Example], change: torch.Tensor
) -> torch.Tensor | None:
    """(H, C) float32: what has to be added at the last writer's output for each label word's logit to rise by 1, alone.

    The least change that does so, by the mean slopes of some examples. They are of what follows the last block, its
    norm and the head, so nothing is kept of the blocks. None where the model does not show them.

    Args:
        model: at the weights to start from.
        writer: the last module that adds to the residual stream.
        examples: the first of them are used.
        change: (C, H) of the label words' rows, which is not in the model.
    """
    slopes, found = slopes_of(model, writer, change), []
    for example in examples[:HEARD]:
        slope = slopes(example)
        if slope is None:
            return None
        found.append(slope[:, -1 if example.mask_position is None else example.mask_position])
    writing = torch.linalg.pinv(torch.stack(found).mean(0))
    return writing.contiguous() if bool(writing.isfinite().all()) else None
