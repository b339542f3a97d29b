"""RUN/summary.json: how a run was made and what it took, for tables of several runs."""

from dataclasses import asdict, dataclass
from pathlib import Path

from mezo.errors import MezoError
from mezo.util.atomic_files import write_text
from mezo.util.foreign import read_text
from mezo.util.json_text import to_json
from mezo.util.parsing import parse_json

NAME = "summary.json"


@dataclass(frozen=True, slots=True)
class Summary:
    """What metrics.jsonl does not say of a run."""

    method: str  # for people: "MeZO lora", "AdamW full", "linear probe"
    seconds: float  # of the whole run, its evaluations included, loading the model left out
    peak_memory_bytes: int  # of the process, loading the model included


def write_summary(folder: Path, summary: Summary) -> None:
    """Write FOLDER/summary.json, whole or not at all."""
    write_text(folder / NAME, to_json(asdict(summary)) + "\n")


def read_summary(folder: Path) -> Summary | None:
    """What `write_summary` wrote; None without one.

    Raises MezoError if it is not such a file.
    """
    path = folder / NAME
    if not path.exists():
        return None
    try:
        values = parse_json(read_text(path))
        return Summary(str(values["method"]), float(values["seconds"] or 0), int(values["peak_memory_bytes"]))
    except (OSError, ValueError, TypeError, KeyError, OverflowError) as error:
        raise MezoError(
            f"{path}: expected an object with method, seconds and peak_memory_bytes,"
            f" found something else ({error}); delete it, and the run is shown without them"
        ) from None
