"""RUN/logs/ids.json: under which ids a run's logs go on when it is resumed."""

from pathlib import Path

from mezo.util.atomic_files import write_text
from mezo.util.foreign import read_text
from mezo.util.json_text import to_json
from mezo.util.parsing import parse_json

NAME = "ids.json"


def read(logs: Path) -> dict[str, str]:
    """Name of the sink -> id; {} where that is missing, or the file is no such thing."""
    try:
        found = parse_json(read_text(logs / NAME))
    except (OSError, ValueError, RecursionError):
        return {}
    return {str(k): v for k, v in found.items() if isinstance(v, str)} if isinstance(found, dict) else {}


def keep(logs: Path, name: str, id: str) -> None:
    """Add one, whole or not at all."""
    logs.mkdir(parents=True, exist_ok=True)
    write_text(logs / NAME, to_json({**read(logs), name: id}) + "\n")
