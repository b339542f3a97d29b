"""Layers below the lowest one that moves do not depend on the probe: they are computed once.

The batch is repeated for each probe where the first moving layer begins, or at the head if only the head is tuned.
Within a memory bound, the output of the layers below everything tuned is kept for rows that come again in a later
step. Those layers hold no tuned tensor, so what is kept is never stale.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

from mezo.engines.transformers.batch import BatchPart, stacked
from mezo.engines.transformers.split_points import Cut, Cuts
from mezo.types import Probe
from mezo.util.devices import to_device


class Below:
    """cuts: where the model's passes can be divided. max_bytes: of what is kept from step to step."""

    def __init__(self, cuts: Cuts, max_bytes: int = 0):
        self.cuts, self.layers, self.max_bytes = cuts, cuts.layers, max_bytes
        self.first = cuts.lowest.below  # so many layers hold nothing tuned and come before all that does
        self.kept: OrderedDict[tuple[int, ...], torch.Tensor] = OrderedDict()  # row -> (tokens, hidden)
        self.bytes = 0

    def cut(self, probes: Sequence[Probe]) -> Cut | None:
        """Where the probes part; None if no layer comes before that, or there is but one probe."""
        cut = self.cuts.of(probes)
        return cut if cut.below and len(probes) > 1 else None

    @contextmanager
    def once(self, share: BatchPart, copies: int, cut: Cut) -> Iterator[float]:
        """Inside the block a pass of a share's B rectangle rows comes out of the layers as copies x B.

        Yields the fraction of the layers' work that is saved, below 1.
        """
        known = self._known(share.rows)
        taken: list[torch.Tensor] = []  # what came out of the layers below everything tuned
        keeps = self.max_bytes > 0 and self.first > 0
        spread = _Spread(len(share.layout.input_ids), copies)

        def enter(
            module: nn.Module,
            above: bool,
            forward: Callable[..., Any],
            hidden: torch.Tensor,
            *a: Any,
            **k: Any,
        ) -> Any:
            if module is self.cuts.lowest.module and keeps:
                if known is not None:
                    hidden = self._filled(hidden, known, share)
                else:
                    taken.append(hidden)
            if module is cut.module:
                hidden = stacked(hidden, copies)
            if above:
                a, k = tree_map(spread, (a, k))
            return forward(hidden, *a, **k)

        modules = list(dict.fromkeys([*self.layers, self.cuts.lowest.module, cut.module]))
        before = [module.__dict__.get("forward") for module in modules]  # that of a probed head
        for n, module in enumerate(modules):
            if known is not None and n < self.first:
                module.__dict__["forward"] = _pass_on
            else:
                above = n >= cut.below and (n < len(self.layers) or module is cut.module)
                module.__dict__["forward"] = partial(enter, module, above, module.forward)
        try:
            spared = cut.below * (copies - 1) + (0 if known is None else self.first)
            yield min(0.99, spared / (copies * len(self.layers)))
        finally:
            for module, forward in zip(modules, before, strict=True):
                module.__dict__.pop("forward", None)
                if forward is not None:
                    module.__dict__["forward"] = forward
        if taken:  # the pass came to its end
            self._keep(share, taken[-1])

    def _known(self, rows: Sequence[tuple[int, ...]]) -> list[torch.Tensor] | None:
        if not self.max_bytes or any(row not in self.kept for row in rows):
            return None
        for row in rows:
            self.kept.move_to_end(row)
        return [self.kept[row] for row in rows]

    @staticmethod
    def _filled(like: torch.Tensor, known: list[torch.Tensor], share: BatchPart) -> torch.Tensor:
        hidden = like.clone()  # padding keeps whatever it was
        flat = hidden.view(-1, hidden.shape[-1])
        where = to_device(torch.from_numpy(share.layout.place), like.device)
        flat[where] = torch.cat(known)
        return hidden

    def _keep(self, share: BatchPart, hidden: torch.Tensor) -> None:
        where = to_device(torch.from_numpy(share.layout.place), hidden.device)
        states = hidden.reshape(-1, hidden.shape[-1])[where].split([len(row) for row in share.rows])
        for row, mine in zip(share.rows, states, strict=True):
            if row not in self.kept:
                self.kept[row] = mine.clone()
                self.bytes += mine.nbytes
        while self.bytes > self.max_bytes:
            self.bytes -= self.kept.popitem(last=False)[1].nbytes


class _Spread:
    """Repeats a batch's tensors (masks, positions) for each probe, each tensor once."""

    def __init__(self, size: int, copies: int):
        self.size, self.copies = size, copies
        self._repeated: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def __call__(self, leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor) or leaf.dim() < 2 or leaf.shape[0] != self.size:
            return leaf
        if id(leaf) not in self._repeated:
            self._repeated[id(leaf)] = leaf, stacked(leaf, self.copies)
        return self._repeated[id(leaf)][1]


def _pass_on(hidden: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    return hidden
