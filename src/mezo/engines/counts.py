"""How much went through the model, and how much did not have to."""

from dataclasses import dataclass

from mezo.engines.layout import Layout


@dataclass(slots=True)
class Counts:
    """Since the engine was made; tokens of all probes together."""

    asked: int = 0  # tokens of all rows
    computed: int = 0  # tokens that went through the model, padding included
    reused: int = 0  # tokens asked for that another row's computation served
    seconds_saved: float = 0.0  # what the reused tokens would have taken at the rate of those computed

    def add(self, layout: Layout, num_probes: int, seconds: float) -> None:
        reused = layout.asked - layout.distinct
        self.asked += num_probes * layout.asked
        self.computed += num_probes * layout.computed
        self.reused += num_probes * reused
        self.seconds_saved += seconds * reused / layout.computed
