"""TensorBoard."""

from collections.abc import Sequence

import yaml

from mezo.sinks.base import Begun, Sink, SinkPoint


class TensorBoard(Sink):
    """Event files in RUN/logs/tensorboard, by torch's writer.

    Example:
        mezo train --task demo --steps 3 --log tensorboard
    """

    every = 1.0

    def open(self, begun: Begun) -> str:
        from torch.utils.tensorboard import SummaryWriter

        # what a killed run had logged beyond the step that it goes on from is shown no more
        purge = None if begun.id is None else begun.first_step
        self._writer = SummaryWriter(str(begun.logs / "tensorboard"), purge_step=purge, flush_secs=10)
        if begun.id is None:
            text = yaml.safe_dump(dict(begun.settings), sort_keys=False)
            # as a block of code: a value may hold Markdown
            self._writer.add_text("settings", "\n".join(f"    {line}" for line in text.splitlines()))
        return "tensorboard"

    def write(self, points: Sequence[SinkPoint]) -> None:
        for point in points:
            for name, value in point.numbers.items():
                self._writer.add_scalar(name, value, point.step, walltime=point.time)

    def close(self, *, failed: bool) -> None:
        self._writer.close()
