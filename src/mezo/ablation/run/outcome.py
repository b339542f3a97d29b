"""What a run's own process says of it, beyond metrics.jsonl: RUN/process.json."""

from dataclasses import asdict, dataclass
from pathlib import Path

from mezo.errors import MezoError
from mezo.parsing import parse_json
from mezo.run import to_json, write_text

NAME = "process.json"  # written last, so a folder that has it is a finished run's


@dataclass(frozen=True, slots=True)
class Outcome:
    """Counted and measured in the process of one run."""

    seconds: float  # of the run and its evaluations; starting the process and loading the model left out
    forward_passes: int  # over microbatches, one a probe; those of evaluations left out
    peak_memory_bytes: int  # resident memory of the process, its libraries and the model included
    device: str  # where the model ran: "cpu", or a GPU's name
    devices: int = 1
    device_memory_bytes: int | None = None  # peak of what torch allocated there; None on a CPU
    step_memory_bytes: int | None = None  # peak resident memory while steps ran; None where not to be had
    threads: int = 1
    versions: dict[str, str] | None = None


def write_outcome(folder: Path, outcome: Outcome) -> None:
    """Write FOLDER/process.json, whole or not at all."""
    write_text(folder / NAME, to_json(asdict(outcome)) + "\n")


def read_outcome(folder: Path) -> Outcome:
    """What `write_outcome` wrote. Raises MezoError if it is not there or is something else."""
    path = folder / NAME
    try:
        return Outcome(**parse_json(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise MezoError(
            f"{path}: expected what a finished run of a study says of itself, found something else"
            f" ({error}); delete its folder, and the run is made again"
        ) from None
