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
from hashlib import blake2b
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np

from mezo.errors import MezoError
from mezo.util.atomic_files import replacing, write_all
from mezo.util.foreign import kind_of
from mezo.util.parsing import parse_json

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

    header: JSON values; num_directions: n. Raises MezoError if the file exists.

    A record survives the death of the process once `append` returns, and a loss of power once its block is sealed, or
    after `sync`. The journal is synced before the block that replaces it is begun, so a half-written block is never
    the only copy of its records.
    """

    def __init__(self, path: Path, header: dict[str, Any], num_directions: int):
        if path.exists():
            raise MezoError(
                f"{path} exists already: a trajectory is never overwritten; choose another folder"
            )
        full = {"format": FORMAT_VERSION, "num_directions": num_directions, **header}
        journal_of(path).unlink(missing_ok=True)
        self._begin(path, full, np.empty((0, num_directions), np.float32))

    @classmethod
    def resume(cls, path: Path, header: dict[str, Any], records: np.ndarray) -> "TrajectoryWriter":
        """Go on after `records`, (steps, n) float32, under a header as `read` returns it.

        The file then has the bytes of an uninterrupted one: whole blocks, the rest in the journal, which is put in
        place first. A crash between the two leaves the records of the file, which `read` prefers.
        """
        writer = cls.__new__(cls)
        sealed = len(records) // BLOCK_RECORDS * BLOCK_RECORDS
        lines = (_line(step, _bytes(records[step])) for step in range(sealed, len(records)))
        _replace(journal_of(path), b"".join(lines))
        writer._begin(path, header, records)
        return writer

    def _begin(self, path: Path, header: dict[str, Any], records: np.ndarray) -> None:
        self.path, self.num_directions = path, int(header["num_directions"])
        sealed = len(records) // BLOCK_RECORDS * BLOCK_RECORDS
        parts = [_head(header)]
        for first in range(0, sealed, BLOCK_RECORDS):
            parts.append(_block(first, BLOCK_RECORDS, _bytes(records[first : first + BLOCK_RECORDS])))
        _replace(path, b"".join(parts))
        # without a buffer of our own: a write that fails must not be tried again when the file is closed
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 - closed by close()
        self._journal = open(journal_of(path), "ab", buffering=0)  # noqa: SIM115
        self._step = sealed  # of the first record not yet in a block
        self._pending = [_bytes(record) for record in records[sealed:]]
        self._digest = _digest(records)
        self._failed = False

    def __len__(self) -> int:
        return self._step + len(self._pending)

    @property
    def checksum(self) -> str:
        """`checksum` of all records."""
        return self._digest.hexdigest()

    @property
    def seals_next(self) -> bool:
        """Whether the next record will complete a block."""
        return len(self._pending) == BLOCK_RECORDS - 1

    def append(self, projected_grads: Sequence[float]) -> None:
        """Add the record of the next step; on return it survives the death of this process.

        Raises OSError if it cannot be written; then nothing more is, and what was stays readable.
        """
        if len(projected_grads) != self.num_directions:
            raise ValueError(
                f"expected {self.num_directions} projected gradients, found {len(projected_grads)}"
            )
        record = np.asarray(projected_grads, dtype="<f4").tobytes()
        self._write(self._journal, _line(len(self), record))
        self._pending.append(record)
        self._digest.update(record)
        if len(self._pending) == BLOCK_RECORDS:
            self._seal()

    def sync(self) -> None:
        """On return all records survive a loss of power."""
        os.fsync(self._journal.fileno())

    def close(self) -> None:
        """Seal what is pending; afterwards the file alone is the whole trajectory."""
        if not self._file.closed and not self._failed:
            self._seal()
            self.abandon()
            journal_of(self.path).unlink()

    def abandon(self) -> None:
        """Close the files as they are, the journal beside the trajectory: as a death of the process would."""
        self._file.close()
        self._journal.close()

    def __enter__(self) -> "TrajectoryWriter":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _seal(self) -> None:
        if not self._pending:
            return
        count = len(self._pending)
        self.sync()
        self._write(self._file, _block(self._step, count, b"".join(self._pending)))
        os.fsync(self._file.fileno())
        # only now may the journal forget: a crash in between leaves the records in both
        self._step += count
        self._pending.clear()
        self._journal.truncate(0)

    def _write(self, file: FileIO, data: bytes) -> None:
        try:
            write_all(file, data)
        except OSError:
            self._failed = True
            raise


def checksum(records: np.ndarray) -> str:
    """32 hex digits of (steps, n) float32 records: which run they are, and how far."""
    return _digest(records).hexdigest()


def read(path: Path) -> Trajectory:
    """Read and check a trajectory, with its journal if a run has not closed it.

    Raises MezoError, naming the record, if it cannot be read, is of another format or is damaged.
    """
    try:
        raw = path.read_bytes()
        journal = _journal_beside(path)
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


def _journal_beside(path: Path) -> bytes:
    journal = journal_of(path)
    if not journal.exists():
        return b""
    if (kind := kind_of(journal)) is not None:  # beside a file that came from someone else
        raise MezoError(f"{journal}: expected a file, found {kind}; remove it")
    return journal.read_bytes()


def sealed(path: Path) -> int:
    """How many steps are in blocks: those were on the disk, and their journal too, whatever came after."""
    raw = path.read_bytes()
    header, at = _read_header(path, raw)
    block = 2 + BLOCK_RECORDS * 4 * header["num_directions"] + 4
    return (len(raw) - at) // block * BLOCK_RECORDS


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
        header = parse_json(raw[start : start + size], finite=True)
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


def _head(header: dict[str, Any]) -> bytes:
    text = json.dumps(header, sort_keys=True, allow_nan=False).encode()
    head = MAGIC + struct.pack("<I", len(text)) + text
    return head + struct.pack("<I", zlib.crc32(head))


def _block(first_step: int, count: int, data: bytes) -> bytes:
    return struct.pack("<H", count) + data + struct.pack("<I", _block_crc(first_step, count, data))


def _block_crc(first_step: int, count: int, data: bytes) -> int:
    return zlib.crc32(struct.pack("<QH", first_step, count) + data)


def _line(step: int, record: bytes) -> bytes:
    """Of the journal."""
    body = struct.pack("<Q", step) + record
    return body + struct.pack("<I", zlib.crc32(body))


def _bytes(records: np.ndarray) -> bytes:
    return np.ascontiguousarray(records, dtype="<f4").tobytes()


def _digest(records: np.ndarray) -> blake2b:
    return blake2b(_bytes(records), digest_size=16)


def _replace(path: Path, data: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(data)
