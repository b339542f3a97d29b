"""The peak memory of a run's steps, apart from loading the model and evaluations, which need more."""

import re
from pathlib import Path

from mezo.util.atomic_files import write_text
from mezo.util.json_text import to_json
from mezo.util.memory import peak_bytes
from mezo.util.parsing import parse_json

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class StepPeak:
    """Follows the system's high-water mark of resident memory, which is reset before the steps (Linux).

    Where the mark cannot be reset, `of_steps` is None and `whole` is still right.
    """

    def __init__(self, file: Path | None = None) -> None:
        """file: keeps the marks for a process that resumes the run."""
        self._file = file
        self._whole = 0
        self._steps: int | None = None
        self._fresh = False
        if file is not None and file.is_file():
            found = parse_json(file.read_text(encoding="utf-8"))
            self._whole, self._steps = found["whole"], found["steps"]

    def begin(self) -> None:
        """Call before steps: resets the mark."""
        self._whole = self.whole()
        self._fresh = _reset()
        if self._file is not None:
            write_text(self._file, to_json({"whole": self._whole, "steps": self._steps}) + "\n")

    def stepped(self) -> None:
        """Call after each step."""
        if self._fresh and (found := high_water()) is not None:
            self._steps = max(self._steps or 0, found)

    def of_steps(self) -> int | None:
        """The peak over all steps in bytes; None without steps, or if it cannot be measured."""
        return self._steps

    def whole(self) -> int:
        """The peak of the process in bytes, since its start."""
        # The kernel adds up its counts of pages now and then, so a later mark may be a little lower.
        return max(self._whole, self._steps or 0, high_water() or peak_bytes())


def high_water() -> int | None:
    """The most resident memory of this process since the last reset, in bytes; None except on Linux."""
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def _reset() -> bool:
    """Reset the mark to what is resident now (5: see proc(5)); whether that worked."""
    before = high_water()
    try:
        _RESET.write_text("5")
    except OSError:
        return False
    after = high_water()
    return before is not None and after is not None and after <= before
