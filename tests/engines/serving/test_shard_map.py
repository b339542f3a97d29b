"""Where an engine's parameters are in the model's own tensors, and what is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from tests.engines.serving.parallel import worker_model
from tests.tiny_models import tiny
from torch import nn

from mezo import noise
from mezo.engines.workers.group import _overlap, tensors_of
from mezo.engines.workers.shard_map import Logical, Piece, Pieces, find_pieces
from mezo.engines.workers.verify import check_against, sum_of, whole
from mezo.errors import MezoError
from mezo.optimizers import SGD, Adam, Optimizer
from mezo.types import Direction, Probe, Update
from mezo.weights.rank_one import Moved, RankOne
from mezo.weights.weights import Weights

LLAMA_LIKE = ["llama", "llama-tied", "qwen2", "qwen3", "gemma", "gemma2-softcap", "mistral-window", "opt"]


def logical_of(model: Any) -> Logical:
    return tensors_of(model.requires_grad_(True))


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("manner", ["numbers", "group"])
@pytest.mark.parametrize("name", LLAMA_LIKE)
def test_the_pieces_of_all_workers_are_the_model(name: str, manner: str, size: int) -> None:
    model = tiny(name)
    gathered = {n: torch.full_like(p, torch.nan) for n, p in model.named_parameters()}
    for rank in range(size):
        for piece in find_pieces(worker_model(model, rank, size, manner), logical_of(model)):
            rows, columns = piece.rows().shape
            flat = gathered[piece.name].view(-1)
            for row in range(rows):
                begin = piece.first + row * piece.row_stride
                flat[begin : begin + columns] = piece.rows()[row]
    for n, p in model.named_parameters():
        assert torch.equal(gathered[n], p), n


def test_matrices_that_the_model_fuses_too_are_one_tensor() -> None:
    """As in Phi-3, whose own qkv_proj is q, k and v, one after the other."""
    model = tiny("qwen2")
    fused = {n: tuple(p.shape) for n, p in worker_model(model, 0, 1).named_parameters()}
    halves = [find_pieces(worker_model(model, rank, 2), _unpadded(fused)) for rank in range(2)]
    name = "model.layers.0.self_attn.qkv_proj.weight"
    where = [(p.first, p.rows().shape) for half in halves for p in half if p.name == name]
    # q has 32 rows, k and v 16 each, of 32 columns
    assert where == [
        (0, (16, 32)),
        (32 * 32, (8, 32)),
        (48 * 32, (8, 32)),
        (16 * 32, (16, 32)),
        (40 * 32, (8, 32)),
        (56 * 32, (8, 32)),
    ]


def _unpadded(shapes: dict[str, tuple[int, ...]]) -> Logical:
    return Logical({n: (300, *s[1:]) if s[0] == 320 else s for n, s in shapes.items()})


def test_a_tied_head_that_the_engine_holds_apart_has_the_noise_of_the_embedding() -> None:
    model = tiny("llama-tied")
    part = worker_model(model, 0, 1)
    part.lm_head = nn.Linear(32, 300, bias=False)  # instead of the embedding's own module
    pieces = find_pieces(part, logical_of(model))
    name = "model.embed_tokens.weight"
    assert [(p.name, p.first) for p in pieces if p.name == name] == [(name, 0), (name, 0)]


class Wrapped(nn.Module):
    """A layer with places for adapters, as SGLang wraps it: the parameters are the wrapper's as well."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.base_layer, self.weight = layer, layer.weight


def test_layers_that_are_wrapped_for_adapters_have_the_same_pieces() -> None:
    model = tiny("qwen2")
    plain, wrapped = worker_model(model, 1, 2), worker_model(model, 1, 2)
    for path, module in list(wrapped.named_modules()):
        if path.endswith("_proj"):
            wrapped.set_submodule(path, Wrapped(module))
    there, here = (find_pieces(part, logical_of(model)) for part in (wrapped, plain))
    assert [(p.name, p.first, p.row_stride) for p in there] == [(p.name, p.first, p.row_stride) for p in here]
    assert all(torch.equal(a.tensor, b.tensor) for a, b in zip(there, here, strict=True))


def _part() -> tuple[nn.Module, Logical]:
    model = tiny("llama")
    return worker_model(model, 0, 2), logical_of(model)


QKV = "model.layers.0.self_attn.qkv_proj"


def _emptied(part: nn.Module) -> None:
    part.get_submodule(QKV).weight = nn.Parameter(torch.empty(0))


def _quantised(part: nn.Module) -> None:
    codes = torch.zeros(64, 32, dtype=torch.int8)
    part.get_submodule(QKV).weight = nn.Parameter(codes, requires_grad=False)


def _transposed(part: nn.Module) -> None:
    layer = part.get_submodule("model.layers.0.self_attn.o_proj")
    layer.weight = nn.Parameter(torch.zeros(16, 32).t())


def _unknown(part: nn.Module) -> None:
    part.get_submodule("model.layers.0.mlp").register_parameter("scale", nn.Parameter(torch.ones(3)))


def _other_shape(part: nn.Module) -> None:
    part.get_submodule("model.layers.0.mlp.down_proj").weight = nn.Parameter(torch.zeros(32, 20))


def _more_rows(part: nn.Module) -> None:
    part.get_submodule(QKV).weight = nn.Parameter(torch.zeros(40, 32))


def _missing(part: nn.Module) -> None:
    del part.get_submodule("model.layers.1").input_layernorm


def _words_added(part: nn.Module) -> None:
    indices: Any = part.get_submodule("lm_head").shard_indices
    indices.added_vocab_end_index += 3


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (_emptied, rf"{QKV}\.weight: the engine has emptied this parameter"),
        (_quantised, rf"{QKV}\.weight: cannot tune a model with torch\.int8 parameters; load it unquantised"),
        (_transposed, r"o_proj\.weight: expected rows one after another in memory, found shape \(32, 16\)"),
        (
            _unknown,
            r"the engine's model\.layers\.0\.mlp\.scale is not one of the model's tensors.*Choices",
        ),
        (
            _other_shape,
            r"down_proj\.weight: rows 0 to 32 of the engine's \(32, 20\) are no known share of .* \(32, 48\) "
            "for worker 0 of 2",
        ),
        (_more_rows, rf"{QKV}\.weight: its layer tells of 32 rows, the parameter has 40"),
        (_missing, r"no parameter for model\.layers\.1\.input_layernorm\.weight \(1 of 21 tensors\)"),
        (_words_added, "the engine has added words to the vocabulary"),
    ],
)
def test_what_cannot_be_addressed_is_named(spoil: Any, told: str) -> None:
    part, logical = _part()
    spoil(part)
    with pytest.raises(MezoError, match=told) as error:
        find_pieces(part, logical)
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------- the checkpoint's values


def test_pieces_are_compared_with_the_checkpoint(tmp_path: Path) -> None:
    model = tiny("llama")
    save_file({n: p.detach() for n, p in model.named_parameters()}, tmp_path / "model.safetensors")
    part = worker_model(model, 1, 2).bfloat16()  # the engine may have rounded them
    pieces = find_pieces(part, logical_of(model))
    assert check_against(tmp_path, pieces) == []
    part.get_parameter("model.layers.1.mlp.down_proj.weight").data[3, 4] += 1
    with pytest.raises(
        MezoError, match=r"model\.layers\.1\.mlp\.down_proj\.weight: from element 24 on, the engine"
    ):
        check_against(tmp_path, pieces)


def test_tensors_that_no_file_has_are_listed(tmp_path: Path) -> None:
    model = tiny("llama")
    names = [n for n, _ in model.named_parameters()]
    save_file(
        {n: p.detach() for n, p in model.named_parameters() if n != names[5]}, tmp_path / "model.safetensors"
    )
    pieces = find_pieces(worker_model(model, 0, 1), logical_of(model))
    assert check_against(tmp_path, pieces) == [names[5]]
    assert check_against(tmp_path / "elsewhere", pieces) == names


def test_a_checkpoint_of_several_files_is_read(tmp_path: Path) -> None:
    model = tiny("llama")
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    assert check_against(tmp_path, find_pieces(worker_model(model, 0, 1), logical_of(model))) == []


# ---------------------------------------------------------------- sums, however a tensor is cut


@st.composite
def cuts(draw: st.DrawFn) -> tuple[int, int, int, int, int]:
    """(rows, columns, a row and a column to cut at, a seed)."""
    rows, columns = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    return rows, columns, draw(st.integers(0, rows)), draw(st.integers(0, columns)), draw(st.integers(0, 99))


def _quarters(tensor: torch.Tensor, row: int, column: int) -> list[Piece]:
    width = tensor.shape[1]
    return [
        Piece("w", tensor[r, c].contiguous(), 0, None, 0, (r.start or 0) * width + (c.start or 0), width)
        for r in (slice(0, row), slice(row, None))
        for c in (slice(0, column), slice(column, None))
        if tensor[r, c].numel()
    ]


@given(cuts(), st.sampled_from([torch.float32, torch.bfloat16, torch.float16]))
def test_the_sums_of_pieces_add_up(cut: tuple[int, int, int, int, int], dtype: torch.dtype) -> None:
    rows, columns, row, column, seed = cut
    tensor = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)).to(dtype)
    parts = sum(sum_of(piece) for piece in _quarters(tensor, row, column)) % 2**64
    assert parts == sum_of(whole("w", tensor))


@given(cuts())
def test_a_sum_sees_every_bit_and_its_place(cut: tuple[int, int, int, int, int]) -> None:
    rows, columns, row, column, seed = cut
    tensor = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    before = sum_of(whole("w", tensor))
    other = tensor.clone()
    other.view(torch.int32)[row % rows, column % columns] ^= 1 << (seed % 32)
    assert sum_of(whole("w", other)) != before
    if tensor.numel() > 1:
        assert sum_of(whole("w", tensor.flatten().roll(1).view_as(tensor))) != before


@given(cuts())
@settings(max_examples=30)
def test_noise_of_pieces_is_that_of_the_whole(cut: tuple[int, int, int, int, int]) -> None:
    rows, columns, row, column, seed = cut
    z = torch.empty(rows, columns)
    noise.fill_(z, noise.Where(0), seed)
    for piece in _quarters(torch.zeros(rows, columns), row, column):
        noise.fill_(piece.tensor, piece.where(), seed)
        r, c = divmod(piece.first, columns)
        height, width = piece.tensor.shape
        assert torch.equal(piece.tensor, z[r : r + height, c : c + width])


@st.composite
def wide_cuts(draw: st.DrawFn) -> tuple[int, int, int, int, int]:
    """As `cuts`, of matrices that are wider than a block of the kernels' noise, and that their edges cut anywhere."""
    rows, columns = draw(st.integers(1, 40)), draw(st.integers(500, 1100))
    return rows, columns, draw(st.integers(0, rows)), draw(st.integers(0, columns)), draw(st.integers(0, 99))


@given(
    st.one_of(cuts(), wide_cuts()),
    st.sampled_from([torch.float32, torch.bfloat16]),
    st.sampled_from([SGD(), SGD(0.1, rounding="nearest"), Adam(0.1)]),
)
@settings(max_examples=60, deadline=None)
def test_pieces_go_along_rank_one_noise_with_the_bits_of_the_whole(
    cut: tuple[int, int, int, int, int], dtype: torch.dtype, optimizer: Optimizer
) -> None:
    rows, columns, row, column, seed = cut
    start = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)).to(dtype)
    theta = start.clone()
    weights = Weights([("w", theta)], kind="rank-one")
    cut_up = [
        replace(p, tensor_id=weights.tunables[0].tensor_id) for p in _quarters(start.clone(), row, column)
    ]
    pieces = Pieces(cut_up, kind="rank-one")
    ours, theirs = optimizer.init(weights), optimizer.init(pieces)
    out, far = torch.empty_like(theta), pieces.zeros().copies([torch.empty_like(p.tensor) for p in cut_up])
    for step in range(3):
        probe = Probe(seed + step, 1e-3 * (-1) ** step)
        weights.write(0, probe, out.view(1, -1))
        pieces.write_all(probe.seed, probe.scale, far)
        _assert_pieces_of(out, far)
        # slopes as an estimator leaves them: integers times one power of two
        slopes = [0.5 * (step + 1), -0.25, 3.0]
        directions = tuple(Direction(seed + 10 * step + k, g) for k, g in enumerate(slopes))
        update = Update(step, 1e-2, directions, 3)
        ours = optimizer.apply_(weights, ours, update)
        theirs = optimizer.apply_(pieces, theirs, update)
        _assert_pieces_of(theta, pieces)
    assert theta.numel() < 9 or dtype != torch.float32 or not torch.equal(theta, start)
    squares = sum(pieces._sum_of_squares(p, seed) for p in pieces.pieces)
    assert squares == weights._sum_of_squares(weights.tunables[0], seed)


def _assert_pieces_of(tensor: torch.Tensor, pieces: Pieces) -> None:
    for piece in pieces.pieces:
        r, c = divmod(piece.first, piece.row_stride)
        height, width = piece.tensor.shape
        assert torch.equal(piece.tensor, tensor[r : r + height, c : c + width])


def test_a_rectangles_part_of_rank_one_noise_is_a_part_of_either_vector() -> None:
    whole_ = RankOne.of("w", torch.empty(7, 9))
    assert whole_ is not None
    z = torch.zeros(1, 63)
    whole_.add_(z, 0, [5], [1.0])
    (piece,) = (p for p in _quarters(torch.zeros(7, 9), 3, 4) if p.first == 3 * 9 + 4)
    low = piece.rank_one()
    assert low is not None
    values = torch.zeros(1, 20)
    low.drawn(Moved([5], [1.0]), values.device).add_(values, 0)
    assert torch.equal(values.view(4, 5), z.view(7, 9)[3:, 4:])
    assert z.abs().min() == 1


@given(cuts())
def test_quarters_do_not_overlap_and_a_piece_and_its_part_do(cut: tuple[int, int, int, int, int]) -> None:
    rows, columns, row, column, _ = cut
    boxes = [
        (0, p.first, *p.tensor.shape, columns) for p in _quarters(torch.zeros(rows, columns), row, column)
    ]
    assert not _overlap(boxes)
    assert _overlap([*boxes, (0, (rows - 1) * columns, 1, columns, columns)])
