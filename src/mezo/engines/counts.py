"""How much went through the model, and how much did not have to."""

from dataclasses import dataclass, fields


@dataclass(slots=True)
class Counts:
    """Since the engine was made; tokens of all probes together."""

    asked: int = 0  # tokens of all rows
    computed: int = 0  # tokens that went through the model, padding included
    reused: int = 0  # tokens asked for that another row's computation served
    seconds_saved: float = 0.0  # estimated: at the rate of what was computed

    def add(self, *, asked: int, reused: int, computed: int, spared: float, seconds: float) -> None:
        """Count one pass.

        Args:
            asked, reused, computed: tokens of all probes, as the fields above.
            spared: the share of the layers' work that was not done, 0 to 1.
            seconds: of the pass.
        """
        self.asked += asked
        self.computed += computed
        self.reused += reused
        whole = seconds / (1 - spared)
        self.seconds_saved += whole - seconds + whole * reused / computed

    def since(self, earlier: "Counts") -> "Counts":
        """What was counted after `earlier`."""
        return Counts(*(getattr(self, f.name) - getattr(earlier, f.name) for f in fields(self)))

    def go_back(self, earlier: "Counts") -> None:
        """Forget what was counted since `earlier`: a pass whose answers are not used."""
        for field in fields(self):
            setattr(self, field.name, getattr(earlier, field.name))
