"""How much went through the model, and how much did not have to."""

from dataclasses import dataclass, fields

from mezo.engines.layout import Layout


@dataclass(slots=True)
class Counts:
    """Since the engine was made; tokens of all probes together."""

    asked: int = 0  # tokens of all rows
    computed: int = 0  # tokens that went through the model, padding included
    reused: int = 0  # tokens asked for that another row's computation served
    seconds_saved: float = 0.0  # estimated: at the rate of what was computed

    def add(self, layout: Layout, num_probes: int, spared: float, seconds: float) -> None:
        """spared: the share of the layers' work for all probes that was not done, 0 to 1."""
        reused = layout.asked - layout.distinct
        self.asked += num_probes * layout.asked
        self.computed += num_probes * layout.computed
        self.reused += num_probes * reused
        whole = seconds / (1 - spared)
        self.seconds_saved += whole - seconds + whole * reused / layout.computed

    def go_back(self, earlier: "Counts") -> None:
        """Forget what was counted since `earlier`: a pass whose answers are not used."""
        for field in fields(self):
            setattr(self, field.name, getattr(earlier, field.name))
