"""RUN/start.safetensors: the label words' rows that a run starts from, whose digest is in its trajectory's header.

A published trajectory has no folder around it, and carries them in the header.
"""

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mezo.errors import MezoError
from mezo.runs.folder import RunFolder
from mezo.tuning.label_rows import LabelRows, digest_of
from mezo.util.atomic_files import replacing
from mezo.util.foreign import kind_of

_MOST = 256 << 20  # bytes of a file: thousands of label words of the widest models
_MOST_CARRIED = 8 << 20  # in the header of a published trajectory, whose reader allows 16 MiB


def write_start(run: RunFolder, rows: LabelRows | None) -> None:
    """Write the file, if the run starts from rows. Raises OSError if it cannot be written."""
    if rows is not None:
        with replacing(run.start) as temporary:
            temporary.write_bytes(rows.to_bytes())


def rows_of(run: Path, header: Mapping[str, Any]) -> LabelRows | None:
    """The rows that the header says its run starts from, from the header itself or from the file beside the trajectory.

    run: its folder, or a trajectory file. Raises MezoError if they are missing, or are not those of the run.
    """
    recorded = header.get("start")
    digest = recorded.get("rows") if isinstance(recorded, Mapping) else None
    if not isinstance(recorded, Mapping) or digest is None:
        return None
    where, data = _data(run, recorded)
    if digest_of(data) != digest:
        raise MezoError(
            f"{where}: expected the label words' rows that the run started from (digest {digest!s:.40}), found "
            f"{digest_of(data)}: the file was changed, or is of another run"
        )
    return LabelRows.of_bytes(data, where)


def carried(run: Path, header: Mapping[str, Any]) -> dict[str, Any]:
    """The header's "start" with the rows in it. Raises MezoError as `rows_of` does, and if they are too large for that."""
    rows = rows_of(run, header)
    if rows is None:
        return dict(header["start"])
    data = rows.to_bytes()
    if len(data) > _MOST_CARRIED:
        raise MezoError(
            f"{run}: its label words' rows are {len(data):,} bytes, and a trajectory carries at most {_MOST_CARRIED:,}: "
            "give others the tuned weights (mezo push)"
        )
    return {**header["start"], "held": base64.b64encode(data).decode()}


def _data(run: Path, recorded: Mapping[str, Any]) -> tuple[Path, bytes]:
    """Where the rows are, and their bytes."""
    if (held := recorded.get("held")) is not None:
        try:
            return run, base64.b64decode(held, validate=True)
        except (binascii.Error, TypeError, ValueError):
            raise MezoError(f"{run}: the label words' rows in its header cannot be read") from None
    path = RunFolder(run if run.is_dir() else run.parent).start
    try:
        if (kind := kind_of(path)) is not None or path.stat().st_size > _MOST:
            raise MezoError(f"{path}: expected a file of label words' rows, found {kind or 'a larger one'}")
        return path, path.read_bytes()
    except OSError as error:
        raise MezoError(
            f"{path}: expected the label words' rows that the run started from: {error.strerror}; copy the file of the RUN "
            "there"
        ) from None
