"""A run as a file: a header, then one float32 projected gradient per direction per step (`cone`: and one
number more).

    file     = magic, header length (u32), header (JSON), crc32 (u32), block, block, ...
    block    = record count (u16), records, crc32 (u32) of first step, count and records
    record   = n float32, little-endian

Records gather in a journal beside the file (step u64, record, crc32; appended one by one) and move
into the file 64 at a time, so 20,000 steps of one direction are 82 kB and every record is checked.
A block or a journal line torn by a crash is dropped back to the last whole record; a checksum that
does not fit anywhere else is an error that names the record.
"""

import json
import os
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mezo.errors import MezoError

MAGIC = b"MEZOTRJ1"
FORMAT_VERSION = 1
BLOCK_RECORDS = 64
_MAX_HEADER = 1 << 24


@dataclass(frozen=True)
class Trajectory:
    """header: what is needed to replay, as JSON values. records: (steps, n) float32."""

    header: dict[str, Any]
    records: np.ndarray
    dropped_bytes: int = 0  # of a torn tail

    def __len__(self) -> int:
        return len(self.records)


def journal_of(path: Path) -> Path:
    return path.with_name(path.name + ".journal")


class TrajectoryWriter:
    """Appends records; `with` closes it. The file exists, with its header, from the start.

    header: JSON values; num_directions: n. Raises MezoError if the file is there already.
    """

    def __init__(self, path: Path, header: dict[str, Any], num_directions: int):
        if path.exists():
            raise MezoError(
                f"{path} exists already: a trajectory is never overwritten; choose another folder"
            )
        self.path, self.num_directions = path, num_directions
        full = {"format": FORMAT_VERSION, "num_directions": num_directions, **header}
        text = json.dumps(full, sort_keys=True, allow_nan=False).encode()
        head = MAGIC + struct.pack("<I", len(text)) + text
        temporary = path.with_name(path.name + ".tmp")
        with open(temporary, "wb") as file:
            file.write(head + struct.pack("<I", zlib.crc32(head)))
            _sync(file)
        os.replace(temporary, path)
        self._file = open(path, "ab")  # noqa: SIM115 - closed by close()
        self._journal = open(journal_of(path), "wb")  # noqa: SIM115
        self._step = 0  # of the first record not yet in a block
        self._pending: list[bytes] = []

    def append(self, projected_grads: Sequence[float]) -> None:
        """Add the record of the next step; on return it survives the death of this process."""
        if len(projected_grads) != self.num_directions:
            raise ValueError(
                f"expected {self.num_directions} projected gradients, found {len(projected_grads)}"
            )
        record = np.asarray(projected_grads, dtype="<f4").tobytes()
        body = struct.pack("<Q", self._step + len(self._pending)) + record
        self._journal.write(body + struct.pack("<I", zlib.crc32(body)))
        self._journal.flush()
        self._pending.append(record)
        if len(self._pending) == BLOCK_RECORDS:
            self._seal()

    def close(self) -> None:
        """Seal what is pending; afterwards the file alone is the whole trajectory."""
        if self._file.closed:
            return
        self._seal()
        self._file.close()
        self._journal.close()
        journal_of(self.path).unlink()

    def __enter__(self) -> "TrajectoryWriter":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _seal(self) -> None:
        if not self._pending:
            return
        data = b"".join(self._pending)
        count = len(self._pending)
        self._file.write(
            struct.pack("<H", count) + data + struct.pack("<I", _block_crc(self._step, count, data))
        )
        _sync(self._file)
        # only now may the journal forget: a crash in between leaves the records in both
        self._step += count
        self._pending.clear()
        self._journal.seek(0)
        self._journal.truncate()


def read(path: Path) -> Trajectory:
    """Read and check a trajectory, with its journal where a run has not closed it.

    Raises MezoError if it cannot be read, is of another format or is damaged; the message names
    the record.
    """
    try:
        raw = path.read_bytes()
        journal = journal_of(path).read_bytes() if journal_of(path).exists() else b""
    except OSError as error:
        raise MezoError(f"{path}: cannot read the trajectory: {error.strerror}") from None
    header, at = _read_header(path, raw)
    n = header["num_directions"]
    chunks: list[bytes] = []
    step = dropped = 0
    damaged: tuple[int, int] | None = None
    while at < len(raw):
        count = struct.unpack_from("<H", raw, at)[0] if at + 2 <= len(raw) else 0
        end = at + 2 + count * 4 * n + 4
        if at + 2 > len(raw) or (end > len(raw) and count <= BLOCK_RECORDS):
            dropped = len(raw) - at
            break
        data = raw[at + 2 : end - 4]
        sound = (
            0 < count <= BLOCK_RECORDS
            and _block_crc(step, count, data) == struct.unpack_from("<I", raw, end - 4)[0]
        )
        if not sound:
            damaged = (at, count)
            break
        chunks.append(data)
        step, at = step + count, end
    records = np.frombuffer(b"".join(chunks), dtype="<f4").reshape(-1, n)
    extra, torn = _read_journal(journal, n, first=len(records))
    if damaged is not None and not len(extra):
        raise MezoError(
            f"{path}: damaged at byte {damaged[0]}: the checksum of the records from step {step} on does not fit; "
            f"steps 0 to {step - 1} are sound"
            if step
            else f"{path}: damaged at byte {damaged[0]}, in the record of step 0"
        )
    return Trajectory(header, np.concatenate([records, extra]).astype(np.float32), dropped + torn)


def _read_header(path: Path, raw: bytes) -> tuple[dict[str, Any], int]:
    if raw[: len(MAGIC)] != MAGIC:
        raise MezoError(
            f"{path}: not a mezo trajectory: expected it to begin with {MAGIC.decode()}, found {raw[:8]!r}"
        )
    start = len(MAGIC) + 4
    size = struct.unpack_from("<I", raw, len(MAGIC))[0] if len(raw) >= start else _MAX_HEADER + 1
    if size > _MAX_HEADER or start + size + 4 > len(raw):
        raise MezoError(f"{path}: the header is cut short")
    if zlib.crc32(raw[: start + size]) != struct.unpack_from("<I", raw, start + size)[0]:
        raise MezoError(f"{path}: the header is damaged: its checksum does not fit")
    try:
        header = json.loads(raw[start : start + size])
    except ValueError:
        raise MezoError(f"{path}: the header is not JSON") from None
    if not isinstance(header, dict) or header.get("format") != FORMAT_VERSION:
        found = header.get("format") if isinstance(header, dict) else header
        raise MezoError(
            f"{path}: expected trajectory format {FORMAT_VERSION}, found {found!r}; use the mezo that wrote it"
        )
    n = header.get("num_directions")
    if not isinstance(n, int) or isinstance(n, bool) or not 0 < n < 1 << 16:
        raise MezoError(f"{path}: the header's num_directions is {n!r}, expected a whole number above 0")
    return header, start + size + 4


def _read_journal(raw: bytes, n: int, *, first: int) -> tuple[np.ndarray, int]:
    """The journal's whole records from step `first` on, and the bytes that are torn."""
    size = 8 + 4 * n + 4
    found: list[np.ndarray] = []
    at = 0
    while at + size <= len(raw):
        body = raw[at : at + size - 4]
        if zlib.crc32(body) != struct.unpack_from("<I", raw, at + size - 4)[0]:
            break
        if struct.unpack_from("<Q", body)[0] == first + len(found):
            found.append(np.frombuffer(body, dtype="<f4", offset=8))
        at += size
    return np.array(found, dtype=np.float32).reshape(-1, n), len(raw) - at


def _block_crc(first_step: int, count: int, data: bytes) -> int:
    return zlib.crc32(struct.pack("<QH", first_step, count) + data)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
