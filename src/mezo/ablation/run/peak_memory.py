"""The peak memory of a run's steps, apart from loading the model and from evaluations, which take more."""

import re
from pathlib import Path

from mezo.memory import peak_bytes
from mezo.parsing import parse_json
from mezo.run import to_json, write_text

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class StepPeak:
    """Follows the system's high-water mark of resident memory, reset before the steps (Linux).

    Where it cannot be reset, `of_steps` is None and `whole` is still right.
    """

    def __init__(self, kept: Path | None = None) -> None:
        """kept: a file for the marks, from which a process that goes on with the run has them."""
        self._kept = kept
        self._whole = 0
        self._steps: int | None = None
        self._fresh = False
        if kept is not None and kept.is_file():
            found = parse_json(kept.read_text(encoding="utf-8"))
            self._whole, self._steps = found["whole"], found["steps"]

    def begin(self) -> None:
        """What follows is steps. The mark of before is kept for `whole`."""
        self._whole = self.whole()
        self._fresh = _reset()
        if self._kept is not None:
            write_text(self._kept, to_json({"whole": self._whole, "steps": self._steps}) + "\n")

    def stepped(self) -> None:
        """A step has been made since `begin` or the last step."""
        if self._fresh and (found := high_water()) is not None:
            self._steps = max(self._steps or 0, found)

    def of_steps(self) -> int | None:
        """The peak over all steps in bytes; None without steps, or where it is not available."""
        return self._steps

    def whole(self) -> int:
        """The peak of the process in bytes, since its start."""
        # The kernel adds up its counts of pages now and then, so a later mark may be a little lower.
        return max(self._whole, self._steps or 0, high_water() or peak_bytes())


def high_water() -> int | None:
    """The most resident memory of this process since the last reset, in bytes; None but on Linux."""
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def _reset() -> bool:
    """Whether the mark now is what is resident. 5: see proc(5); it touches nothing else."""
    before = high_water()
    try:
        _RESET.write_text("5")
    except OSError:
        return False
    after = high_water()
    return before is not None and after is not None and after <= before
