"""Messages between a run and an engine in another process: one JSON header, then tensors as raw bytes.

    8 bytes, little endian     length of the header
    header                     UTF-8 JSON: {"value": ..., "tensors": [[name, dtype, shape], ...]}
    for each tensor, in order  its elements in row-major order, little endian

Nothing is pickled: the two ends may be different Python environments, and reading runs no code.
"""

import json
import math
import select
import struct
import subprocess
import time
from collections.abc import Mapping
from typing import Any, BinaryIO

import torch

from mezo.errors import MezoError
from mezo.util.parsing import parse_json

_LENGTH = struct.Struct("<Q")
_LONGEST_HEADER = 1 << 30
_MOST_ELEMENTS = 1 << 40
_DTYPES = {str(d).removeprefix("torch."): d for d in (torch.float32, torch.bfloat16, torch.float16)}


def send(to: BinaryIO, value: Any, tensors: Mapping[str, torch.Tensor] | None = None) -> None:
    """Write one message. value: of JSON's types. Raises OSError if nobody reads any more."""
    listed, parts = [], []
    for name, tensor in (tensors or {}).items():
        listed.append([name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)])
        raw = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8)
        parts.append(raw.numpy().data)
    header = json.dumps({"value": value, "tensors": listed}).encode()
    to.write(_LENGTH.pack(len(header)) + header)
    for part in parts:
        to.write(part)
    to.flush()


def receive(source: BinaryIO) -> tuple[Any, dict[str, torch.Tensor]]:
    """Read one message. Raises EOFError if the other end closed, and MezoError for what is no message."""
    length = _LENGTH.unpack(_exactly(source, _LENGTH.size))[0]
    if length > _LONGEST_HEADER:
        raise MezoError(f"no message of an engine: its header claims {length} bytes")
    try:
        header = parse_json(_exactly(source, length))
        value = header["value"]
        listed = [(str(n), _DTYPES[d], _shape(s)) for n, d, s in header["tensors"]]
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise MezoError(f"no message of an engine: {type(error).__name__} in its header") from None
    tensors = {}
    for name, dtype, shape in listed:
        raw = bytearray(_exactly(source, math.prod(shape) * dtype.itemsize))
        tensors[name] = (
            torch.frombuffer(raw, dtype=dtype).view(shape) if raw else torch.empty(shape, dtype=dtype)
        )
    return value, tensors


def _shape(listed: Any) -> list[int]:
    shape = [int(size) for size in listed]
    if any(size < 0 for size in shape) or math.prod(shape) > _MOST_ELEMENTS:
        raise ValueError(f"no tensor has the shape {shape}")
    return shape


def _exactly(source: BinaryIO, size: int) -> bytes:
    found = source.read(size)
    if len(found) < size:
        raise EOFError(f"expected {size} bytes, found {len(found)}")
    return found


_TICK = 0.5  # seconds between looks at whether the other process is alive
_PIECE = 1 << 20  # bytes at a time: what a message claims to have is not set aside before it comes


class Patient:
    """A pipe to another process, read and written until a deadline, or until that process is dead.

    Both ends are non-blocking. until: by time.monotonic(), for a whole exchange; then every method raises
    TimeoutError.
    """

    def __init__(self, reads: BinaryIO, writes: BinaryIO, until: float, other: "subprocess.Popen[bytes]"):
        self._reads, self._writes, self._until, self._other = reads, writes, until, other

    def read(self, size: int) -> bytes:
        """`size` bytes; fewer if the other process closed its end or died."""
        parts: list[bytes] = []
        while size > 0:
            ready, _, _ = select.select([self._reads], [], [], self._wait())
            part = self._reads.read(min(size, _PIECE)) if ready else None
            if part:
                parts.append(part)
                size -= len(part)
            elif ready or self._other.poll() is not None:
                break
        return b"".join(parts)

    def write(self, data: bytes | memoryview) -> None:
        """All of it. Raises OSError if nobody reads any more."""
        left = memoryview(data)  # of bytes; an empty tensor's could not be cast to them
        while left:
            _, ready, _ = select.select([], [self._writes], [], self._wait())
            if ready:
                left = left[self._writes.write(left[:_PIECE]) or 0 :]
            elif self._other.poll() is not None:
                raise BrokenPipeError

    def flush(self) -> None:
        """Nothing is held back here."""

    def _wait(self) -> float:
        """Seconds to the next look. Raises TimeoutError if the time is up."""
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return min(_TICK, left)
