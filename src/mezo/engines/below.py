"""What lies below the lowest tuned layer does not depend on the probe: it is computed once.

With LoRA on the top layers only, or the lower layers frozen, the batch goes through the lower ones
as it is and is repeated for each probe where the first tuned layer begins. Within a memory bound,
what comes out of the lower layers is kept for token rows that come again in a later step: those
layers are then not run at all. They hold no tuned tensor, so nothing kept is ever out of date.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

from mezo.engines.batch import Share, stacked, to_device


class Below:
    """layers: the model's decoder layers in order, of which the first `first` hold nothing tuned."""

    def __init__(self, layers: Sequence[nn.Module], first: int, max_bytes: int = 0):
        self.layers, self.first, self.max_bytes = list(layers), first, max_bytes
        self.kept: OrderedDict[tuple[int, ...], torch.Tensor] = OrderedDict()  # row -> (tokens, hidden)
        self.bytes = 0

    @contextmanager
    def once(self, share: Share, copies: int) -> Iterator[float]:
        """Inside the block a forward pass of a share's B rectangle rows comes out of the layers as
        copies x B. Yields what part of the layers' work for all copies is spared, below 1.
        """
        size, known = len(share.layout.input_ids), self._known(share.rows)
        taken: list[torch.Tensor] = []
        repeated: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

        def spread(leaf: Any) -> Any:
            if not isinstance(leaf, torch.Tensor) or leaf.dim() < 2 or leaf.shape[0] != size:
                return leaf
            if id(leaf) not in repeated:
                repeated[id(leaf)] = leaf, stacked(leaf, copies)
            return repeated[id(leaf)][1]

        def tuned(
            forward: Callable[..., Any], is_first: bool, hidden: torch.Tensor, *a: Any, **k: Any
        ) -> Any:
            if is_first:
                if known is not None:
                    hidden = self._filled(hidden, known, share)
                elif self.max_bytes:
                    taken.append(hidden)
                hidden = stacked(hidden, copies)
            a, k = tree_map(spread, (a, k))
            return forward(hidden, *a, **k)

        for n, layer in enumerate(self.layers):
            if n >= self.first:
                layer.__dict__["forward"] = partial(tuned, layer.forward, n == self.first)
            elif known is not None:
                layer.__dict__["forward"] = _pass_on
        try:
            spared = self.first * (copies if known is not None else copies - 1)
            yield min(0.99, spared / (copies * len(self.layers)))
        finally:
            for layer in self.layers:
                layer.__dict__.pop("forward", None)
        if taken:  # the pass came to its end
            self._keep(share, taken[0])

    def _known(self, rows: Sequence[tuple[int, ...]]) -> list[torch.Tensor] | None:
        if not self.max_bytes or any(row not in self.kept for row in rows):
            return None
        for row in rows:
            self.kept.move_to_end(row)
        return [self.kept[row] for row in rows]

    @staticmethod
    def _filled(like: torch.Tensor, known: list[torch.Tensor], share: Share) -> torch.Tensor:
        hidden = like.clone()  # padding keeps whatever it was
        flat = hidden.view(-1, hidden.shape[-1])
        where = to_device(torch.from_numpy(share.layout.place), like.device)
        flat[where] = torch.cat(known)
        return hidden

    def _keep(self, share: Share, hidden: torch.Tensor) -> None:
        where = to_device(torch.from_numpy(share.layout.place), hidden.device)
        states = hidden.reshape(-1, hidden.shape[-1])[where].split([len(row) for row in share.rows])
        for row, mine in zip(share.rows, states, strict=True):
            if row not in self.kept:
                self.kept[row] = mine.clone()
                self.bytes += mine.nbytes
        while self.bytes > self.max_bytes:
            self.bytes -= self.kept.popitem(last=False)[1].nbytes


def _pass_on(hidden: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    return hidden


def find_below(
    model: nn.Module, owners: Sequence[nn.Module], run: Callable[[], object], max_bytes: int
) -> Below | None:
    """The layers below the lowest tuned one, or None if there are none that can be set apart.

    owners: the modules that hold tuned tensors. run: a forward pass of the model, in which the order
    of modules is seen: whatever is tuned must come after the layers that are set apart.
    """
    count = getattr(model.config.get_text_config(), "num_hidden_layers", 0)  # type: ignore[union-attr]
    lists = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == count]
    if len(lists) != 1:
        return None
    layers = list(lists[0])
    order: list[nn.Module] = []
    plain: list[bool] = []

    def note(module: nn.Module, args: Any) -> None:
        order.append(module)

    def look(module: nn.Module, args: Any, output: Any) -> None:
        plain.append(isinstance(output, torch.Tensor) and bool(args) and output.shape == args[0].shape)

    hooks = [m.register_forward_pre_hook(note) for m in {*layers, *owners}]
    hooks += [m.register_forward_hook(look) for m in layers]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    tuned = set(owners)
    begun: list[nn.Module] = []  # layers, in the order they began, before anything tuned
    for module in order:
        if module in tuned:
            break
        begun.append(module)
    if not all(plain) or begun != layers[: len(begun)] or len(plain) != count:
        return None
    # the last one that began is the one that holds the first tuned tensor
    first = len(begun) - 1
    return Below(layers, first, max_bytes) if first > 0 else None
