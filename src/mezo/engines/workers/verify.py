"""Whether a worker's pieces hold the checkpoint's values at their places; and checksums of weights."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mezo.engines.workers.shard_map import Piece
from mezo.errors import MezoError
from mezo.util.parsing import parse_json

_AT_ONCE = 1 << 20
_MIX = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9)  # odd, their bits well spread


def check_against(folder: Path, pieces: Sequence[Piece]) -> list[str]:
    """Compare the pieces with the safetensors files in `folder`; the names of tensors that none has.

    Raises MezoError for a piece that holds other values than the checkpoint, rounded to its dtype.
    """
    from safetensors import safe_open

    files = files_of(folder)
    absent: dict[str, None] = {}
    for name, mine in _by_file(files, pieces, absent).items():
        with safe_open(folder / name, framework="pt") as opened:  # pyright: ignore[reportArgumentType]
            for piece in mine:
                _compare(opened, folder / name, piece)
    return list(absent)


def files_of(folder: Path) -> dict[str, str]:
    """tensor -> the file in `folder` that has it; {} if there are no safetensors files."""
    index = folder / "model.safetensors.index.json"
    if index.exists():
        return dict(parse_json(index.read_text())["weight_map"])
    single = folder / "model.safetensors"
    if not single.exists():
        return {}
    from safetensors import safe_open

    with safe_open(single, framework="pt") as opened:  # pyright: ignore[reportArgumentType]
        return dict.fromkeys(opened.keys(), single.name)


def _by_file(
    files: Mapping[str, str], pieces: Sequence[Piece], absent: dict[str, None]
) -> dict[str, list[Piece]]:
    found: dict[str, list[Piece]] = {}
    for piece in pieces:
        if piece.name in files:
            found.setdefault(files[piece.name], []).append(piece)
        else:
            absent[piece.name] = None
    return found


def _compare(opened: Any, path: Path, piece: Piece) -> None:
    stored = opened.get_slice(piece.name)
    shape = tuple(stored.get_shape())
    if len(shape) == 2 and piece.tensor.dim() == 2:
        row, column = divmod(piece.first, piece.row_stride)
        rows, columns = piece.tensor.shape
        true = stored[row : row + rows, column : column + columns]
    elif len(shape) == 1 and piece.tensor.dim() == 1:
        true = stored[piece.first : piece.first + piece.tensor.numel()]
    else:
        true = opened.get_tensor(piece.name)
    here = piece.tensor.detach().cpu()
    if true.shape != here.shape or not torch.equal(true.to(here.dtype), here):
        raise MezoError(
            f"{piece.name}: from element {piece.first} on, the engine holds other values than {path}: it keeps this "
            "tensor in a form of its own, so the model cannot be tuned in full on this engine"
        )


def sum_of(piece: Piece) -> int:
    """A sum over the bits of every element and its place: 64 bits.

    The sums of a tensor's pieces add up (modulo 2^64) to the sum of the whole tensor, however it is cut.
    """
    rows = piece.rows()
    bits = rows.view(torch.int32 if rows.element_size() == 4 else torch.int16)
    height, width = bits.shape
    step = max(1, _AT_ONCE // max(1, width))
    column = torch.arange(width, device=rows.device)
    total = 0
    for begin in range(0, height, step):
        part = bits[begin : begin + step].to(torch.int64)
        row = torch.arange(begin, begin + len(part), device=rows.device).unsqueeze(1)
        place = piece.first + row * piece.row_stride + column
        # int64 products wrap around; xor and shift, so that equal changes at two places do not cancel
        mixed = (part + 1) * _signed(_MIX[0]) ^ (place + 1) * _signed(_MIX[1])
        mixed = (mixed ^ (mixed >> 29)) * _signed(_MIX[1])
        total += int((mixed ^ (mixed >> 32)).sum())
    return total % (1 << 64)


def whole(name: str, tensor: torch.Tensor) -> Piece:
    """A tensor that is not cut, as a piece: what the sums of an engine's pieces are to come to."""
    return Piece(name, tensor.detach(), 0, row_stride=tensor.shape[-1] if tensor.dim() else 1)


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word
