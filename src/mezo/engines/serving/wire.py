"""Messages between a run and an engine in another process: one JSON header, then tensors as raw bytes.

    8 bytes, little endian     length of the header
    header                     UTF-8 JSON: {"value": ..., "tensors": [[name, dtype, shape], ...]}
    for each tensor, in order  its elements in row-major order, little endian

Nothing is pickled: the two ends may be of different Python environments, and reading runs no code.
"""

import json
import math
import struct
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
