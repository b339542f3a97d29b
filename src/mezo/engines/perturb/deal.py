"""Which direction each token of a pass goes along, where every part of the batch has its own.

The probes of such a pass are slots: the +eps of every part's own direction, say. Slots lie one after another along the
first dimension, as the probes of any pass do, and have the same rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from mezo.types import Probe
from mezo.util.devices import to_device


class CannotStack(RuntimeError):
    """A module cannot tell the probes of a pass apart: they have to go one after another."""


@dataclass(frozen=True)
class Deal:
    """Which direction each token goes along. Slots differ between parts by their seeds and scales alone."""

    slots: Sequence[Sequence[Probe]]  # [slot][part]
    part: torch.Tensor  # (n,) int64: of each token of a slot's rows, laid flat
    width: int | None  # tokens of a row; None: the tokens are not those of whole rows
    _scales: dict[tuple[float, ...], torch.Tensor] = field(default_factory=dict)

    @property
    def seeds(self) -> list[int]:
        """Of every part's direction; a slot at theta does not use it."""
        moving = next((slot for slot in self.slots if slot[0].scale), self.slots[0])
        return [probe.seed for probe in moving]

    def at(self, positions: torch.Tensor) -> "Deal":
        """That of these tokens alone."""
        return replace(self, part=self.part[positions], width=None, _scales={})

    def scales(self, place: int) -> torch.Tensor | None:
        """(slots, parts) float32: how far along the noise the n-th tensor is; None: nowhere."""
        factors = tuple(slot[0].factor(place) if slot[0].scale else 0.0 for slot in self.slots)
        if any(factors) and factors not in self._scales:
            rows = [
                [p.scale * factor for p in slot] for slot, factor in zip(self.slots, factors, strict=True)
            ]
            self._scales[factors] = to_device(torch.tensor(rows, dtype=torch.float32), self.part.device)
        return self._scales[factors] if any(factors) else None

    def check(self, tokens: int) -> None:
        """Raises CannotStack unless a layer is given every token."""
        if tokens != len(self.part):
            raise CannotStack(f"a layer is given {tokens} tokens of {len(self.part)}")
