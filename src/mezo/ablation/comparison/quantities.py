"""The measured quantities in a report: title, unit, digits, and which side is better."""

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Quantity:
    name: str  # its key in a run's metrics
    title: str
    unit: str = ""  # behind a value
    factor: float = 1.0  # from the recorded unit to the shown one
    better: Literal["higher", "lower", None] = None  # None: neither is
    digits: int | None = None  # after the point; None: four significant ones

    def value(self, value: float, *, sign: bool = False) -> str:
        """`value` (in the recorded unit) as shown, without its unit."""
        if not math.isfinite(value):
            return "–"
        shown = value * self.factor
        plus = "+" if sign else ""
        text = f"{shown:{plus}.4g}" if self.digits is None else f"{shown:{plus},.{self.digits}f}"
        return text.replace("-", "−")

    @property
    def difference_unit(self) -> str:
        return "points" if self.unit == "%" else self.unit

    @property
    def heading(self) -> str:
        return f"{self.title} ({self.unit})" if self.unit else self.title


def _share(name: str, title: str) -> Quantity:
    return Quantity(name, title, "%", 100.0, "higher", 2)


_KNOWN = {
    quantity.name: quantity
    for quantity in (
        _share("accuracy", "Accuracy"),
        _share("f1", "F1"),
        _share("exact_match", "Exact match"),
        Quantity("loss", "Validation loss", better="lower", digits=4),
        Quantity("train_loss", "Training loss", better="lower", digits=4),
        Quantity("peak_memory_gb", "Peak memory of the process", "GB", better="lower", digits=3),
        Quantity("step_memory_gb", "Peak memory while steps run", "GB", better="lower", digits=3),
        Quantity("device_memory_gb", "Peak memory of the device", "GB", better="lower", digits=3),
        Quantity("train_seconds", "Training time", "s", better="lower", digits=1),
        Quantity("device_hours", "Device-hours", "h", better="lower"),
        Quantity("steps_to_threshold", "Steps to the threshold", better="lower", digits=0),
        Quantity("seconds_to_threshold", "Seconds to the threshold", "s", better="lower", digits=1),
        Quantity("reached_threshold", "Runs that reached the threshold", "%", 100.0, "higher", 0),
        Quantity("area_under_curve", "Area under the curve"),
        Quantity("zero_gradient_fraction", "Steps without a gradient", "%", 100.0, None, 1),
        Quantity("forward_passes", "Forward passes", better="lower", digits=0),
    )
}


def quantity(name: str) -> Quantity:
    """The quantity of a metric; an unknown metric is shown as recorded."""
    if name in _KNOWN:
        return _KNOWN[name]
    if name.startswith("rouge"):
        return _share(name, name.replace("rouge", "ROUGE-"))
    if ":" in name:  # a custom reward
        return Quantity(name, name, better="higher")
    return Quantity(name, name.replace("_", " ")[:1].upper() + name.replace("_", " ")[1:])
