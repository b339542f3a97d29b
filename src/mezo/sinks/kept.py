"""RUN/logs/ids.json: under which ids a run's logs go on when it is resumed."""

import json
from pathlib import Path

from mezo.run import to_json, write_text

NAME = "ids.json"


def read(logs: Path) -> dict[str, str]:
    """Name of the sink -> id; {} where there is none, or the file is no such thing."""
    try:
        found = json.loads((logs / NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return {str(k): v for k, v in found.items() if isinstance(v, str)} if isinstance(found, dict) else {}


def keep(logs: Path, name: str, id: str) -> None:
    """Add one, whole or not at all."""
    logs.mkdir(parents=True, exist_ok=True)
    write_text(logs / NAME, to_json({**read(logs), name: id}) + "\n")
