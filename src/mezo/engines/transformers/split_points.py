"""Where a forward pass first meets a tensor that the probes move.

One plain pass records the order in which layers and modules with tuned tensors begin, so a step that moves the upper
layers only knows what precedes them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import nn

from mezo.types import Probe, Scaling


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """What runs before `module` begins is the same for all probes."""

    module: nn.Module  # a layer; or, where all layers come before it, a module that takes their output
    below: int  # layers that have ended by then


class Cuts:
    """layers: the model's decoder layers, in order. order: for every module with tuned tensors, in the order they
    first
    run: its cut and the places of its tensors in `Weights.tunables`.
    """

    def __init__(self, layers: Sequence[nn.Module], order: Sequence[tuple[Cut, tuple[int, ...]]]):
        self.layers, self.order = list(layers), list(order)
        self.lowest = self.order[0][0]  # of everything that is tuned
        self._first = lru_cache(maxsize=256)(self._find)

    def of(self, probes: Sequence[Probe]) -> Cut:
        """The cut below which none of the probes differs from theta."""
        scalings = {probe.scaling for probe in probes if probe.scale}
        return self.order[min(map(self._first, scalings), default=0)][0]

    def above(self, count: int, num_tensors: int) -> Scaling | None:
        """1 for the tensors that are only read once `count` layers have ended; None without any."""
        read_below = {n for cut, places in self.order if cut.below < count for n in places}
        read_above = {n for cut, places in self.order if cut.below >= count for n in places} - read_below
        if not read_above:
            return None
        return Scaling(f"above {count} layers", tuple(float(n in read_above) for n in range(num_tensors)))

    def _find(self, scaling: Scaling | None) -> int:
        """The number, in `order`, of the first module with a tensor that the scaling moves."""
        if scaling is None:
            return 0
        moved = (any(scaling.factors[n] for n in places) for _, places in self.order)
        return next((i for i, moves in enumerate(moved) if moves), 0)


def find_cuts(
    model: nn.Module, owners: Mapping[nn.Module, tuple[int, ...]], run: Callable[[], object]
) -> Cuts | None:
    """The cuts of a model whose layers run one after another, or None for any other.

    owners: the modules that hold tuned tensors, and the places of these. run: a forward pass.
    """
    count = getattr(model.config.get_text_config(), "num_hidden_layers", 0)  # type: ignore[union-attr]
    lists = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == count]
    if len(lists) != 1:
        return None
    layers = list(lists[0])
    numbers = {layer: n for n, layer in enumerate(layers)}
    begun: list[nn.Module] = []  # layers, in the order they began
    plain: list[bool] = []  # of each layer that has ended: whether it is a tensor in, one like it out
    order: dict[nn.Module, Cut] = {}

    def begin(module: nn.Module, args: tuple[object, ...]) -> None:
        if module in numbers:
            begun.append(module)
        if module not in owners or module in order:
            return
        takes_hidden = bool(args) and isinstance(args[0], torch.Tensor) and args[0].dim() == 3
        if not begun:
            order[module] = Cut(layers[0], 0)
        elif len(plain) == count and takes_hidden:
            order[module] = Cut(module, count)
        else:  # the layer that began last holds it, or comes before it
            order[module] = Cut(begun[-1], len(begun) - 1)

    def end(module: nn.Module, args: tuple[object, ...], output: object) -> None:
        same = isinstance(output, torch.Tensor) and bool(args) and isinstance(args[0], torch.Tensor)
        plain.append(same and output.shape == args[0].shape)  # type: ignore[union-attr]

    hooks = [m.register_forward_pre_hook(begin) for m in {*layers, *owners}]
    hooks += [m.register_forward_hook(end) for m in layers]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    if begun != layers or len(plain) != count or not all(plain) or not order:
        return None
    unseen = tuple((Cut(layers[0], 0), places) for module, places in owners.items() if module not in order)
    return Cuts(layers, [*unseen, *((cut, owners[module]) for module, cut in order.items())])
