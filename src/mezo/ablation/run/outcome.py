"""RUN/process.json: what a run's process measures of itself, in addition to metrics.jsonl."""

from dataclasses import asdict, dataclass
from pathlib import Path

from mezo.errors import MezoError
from mezo.util.atomic_files import write_text
from mezo.util.json_text import to_json
from mezo.util.parsing import parse_json

NAME = "process.json"  # written last, so a folder with it holds a finished run


@dataclass(frozen=True, slots=True)
class Outcome:
    """Counted and measured in the process of one run."""

    seconds: float  # of the run and its evaluations, without starting the process and loading the model
    forward_passes: int  # over microbatches, one a probe; without those of evaluations
    peak_memory_bytes: int  # resident memory of the process, its libraries and the model included
    device: str  # where the model ran: "cpu", or a GPU's name
    devices: int = 1
    device_memory_bytes: int | None = None  # peak of torch's allocations there; None on a CPU
    step_memory_bytes: int | None = None  # peak resident memory during steps; None if not measured
    threads: int = 1
    versions: dict[str, str] | None = None


def write_outcome(folder: Path, outcome: Outcome) -> None:
    """Write FOLDER/process.json, whole or not at all."""
    write_text(folder / NAME, to_json(asdict(outcome)) + "\n")


def read_outcome(folder: Path) -> Outcome:
    """The outcome in FOLDER/process.json. Raises MezoError if the file is missing or invalid."""
    path = folder / NAME
    try:
        return Outcome(**parse_json(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise MezoError(
            f"{path}: expected the outcome of a finished run, found something else ({error}); delete its folder, and"
            " the run is made again"
        ) from None
