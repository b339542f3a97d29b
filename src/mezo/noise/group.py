"""A fixed list of tensors, so that one kernel call can work on all of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mezo.errors import MezoError

if TYPE_CHECKING:
    import torch

    from mezo.noise.where import Where
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class DevicePart:
    """The tensors of a group on one device and of one element type."""

    backend: Any
    members: list[int]  # their numbers in the group
    table: Any  # what the backend made of them

    def of(self, values: Sequence[Any]) -> list[Any]:
        return [values[i] for i in self.members]


class TensorGroup:
    """Tensors and their places: 2-D views, or contiguous tensors of any shape, each named once.

    The kernels' tables are made on first use, and again when a tensor's memory has moved.
    """

    def __init__(self, weights: "Sequence[torch.Tensor]", wheres: "Sequence[Where]") -> None:
        if len(weights) != len(wheres):
            raise MezoError(f"expected a place for each tensor, found {len(wheres)} for {len(weights)}")
        self.weights, self.wheres = tuple(weights), tuple(wheres)
        self._addresses: list[int] = []
        self._parts: list[DevicePart] = []

    def parts(self, backend: Callable[[str], Any]) -> list[DevicePart]:
        """For the operations of `mezo.noise`: the tensors by device and element type."""
        addresses = [weight.data_ptr() for weight in self.weights]
        if addresses != self._addresses:
            self._parts, self._addresses = self._gather(backend), addresses
        return self._parts

    def _gather(self, backend: Callable[[str], Any]) -> list[DevicePart]:
        alike: dict[tuple[torch.device, torch.dtype], list[int]] = {}
        for i, weight in enumerate(self.weights):
            alike.setdefault((weight.device, weight.dtype), []).append(i)
        parts = []
        for (device, _), members in alike.items():
            kernels = backend(device.type)
            weights, wheres = ([of[i] for i in members] for of in (self.weights, self.wheres))
            parts.append(DevicePart(kernels, members, kernels.table_of(weights, wheres)))
        return parts


class Step(NamedTuple):
    """One update among several; the arguments of `noise.update_`."""

    seeds: Sequence[int]
    coefficients: Sequence[float]
    decay: float = 1.0
    rounding_seed: int = 0
