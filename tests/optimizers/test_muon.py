"""Muon in a kept basis: what it moves, and that its bits hang on nothing but recorded numbers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.resumed import Copying, config_for, resume, trainer, what_counts
from tests.tiny_models import same_files, tiny
from tests.toys import byte_tokenizer

from mezo.combinations import check_combination
from mezo.config import MeZOConfig
from mezo.errors import MezoError
from mezo.noise.seeds import basis_of, in_basis
from mezo.optimizers import Muon, newton_schulz
from mezo.resume.replay import replay
from mezo.types import Direction, Scaling, Update
from mezo.weights import weights as holding
from mezo.weights.kept_basis import KeptBasis
from mezo.weights.weights import Weights

BASIS, OTHER = 5 << 32, 6 << 32
SHAPES = {"wide": (48, 200), "tall": (200, 48), "thin": (7, 90), "flat": (90, 7), "vector": (70,)}


def made(dtype: torch.dtype = torch.float32, rank: int = 8) -> Weights:
    generator = torch.Generator().manual_seed(0)
    named = {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in SHAPES.items()}
    return Weights(named.items(), kind="kept-basis", rank=rank)


def update(step: int, basis: int = BASIS, rate: float = 0.1, scaling: Scaling | None = None) -> Update:
    slopes = (1.0 + step, -0.75)
    return Update(
        step,
        rate,
        tuple(Direction(in_basis(1000 * k + step, basis), slope, scaling) for k, slope in enumerate(slopes)),
        2,
    )


def changes(weights: Weights, steps: int = 1, **how: Any) -> list[torch.Tensor]:
    """What steps from zero make of each tensor."""
    optimizer = Muon(beta1=0.5)
    state = optimizer.init(weights)
    for t in weights.tunables:
        t.tensor.zero_()
    for step in range(steps):
        state = optimizer.apply_(weights, state, update(step, **how))
    return [t.tensor.clone() for t in weights.tunables]


def gradients(weights: Weights) -> list[torch.Tensor]:
    """The first step's estimate, in float64, of plain sums of z."""
    found = weights.zeros()
    u = update(0)
    found.update_([d.seed for d in u.directions], [d.projected_grad for d in u.directions])
    return [t.rows().double() for t in found.tunables]


def test_a_step_is_the_orthogonal_part_of_the_momentum() -> None:
    """Singular values within 0.6 to 1.4 of their root mean square, vectors those of the estimate; each element moves by lr.

    Muon's quintic ends within 0.7 to 1.2 of 1, and a singular value of a hundredth of the largest may be below that still.
    """
    weights = made()
    for t, moved, gradient in zip(weights.tunables, changes(weights), gradients(weights), strict=True):
        moved = moved.view_as(gradient).double()
        assert float(moved.square().mean().sqrt()) == pytest.approx(0.1, rel=1e-5)
        rank = 8 if isinstance(t.low_rank, KeptBasis) else min(gradient.shape)
        u, s, vh = torch.linalg.svd(gradient, full_matrices=False)
        assert len(s) == rank or float(s[rank] / s[0]) < 1e-6
        found = torch.linalg.svdvals(moved)[:rank] / (moved.norm() / rank**0.5)
        assert float(found.min()) > 0.6, t.name
        assert float(found.max()) < 1.4, t.name
        polar = u[:, :rank] @ vh[:rank]
        assert float((polar * -moved).sum() / (polar.norm() * moved.norm())) > 0.97, t.name


def test_noise_of_one_basis_is_low_rank_noise_with_one_left_factor() -> None:
    weights = made()
    low = weights.tunables[0].low_rank
    assert isinstance(low, KeptBasis)
    a, b, c = (low.left(seed) for seed in (BASIS | 1, BASIS | 2, OTHER | 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert not torch.equal(low.right(BASIS | 1), low.right(BASIS | 2))
    assert torch.equal(low.left(BASIS | 1, start=5, stop=9), a[:, 5:9])
    assert basis_of(in_basis(7, BASIS)) == BASIS
    z = torch.zeros(1, 48 * 200)
    low.add_(z, 0, [BASIS | 3], [1.0])
    expected = (low.left(BASIS | 3).double().t() @ low.right(BASIS | 3).double()).view(1, -1)
    torch.testing.assert_close(z.double(), expected, rtol=0, atol=1e-5)


def in_another_order(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """x @ y with its terms added from the last to the first, in pieces."""
    total = torch.zeros(x.shape[0], y.shape[1], dtype=x.dtype)
    for k in reversed(range(0, x.shape[1], 3)):
        total = total + torch.mm(x[:, k : k + 3].flip(1), y[k : k + 3].flip(0))
    return total


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_order_of_sums_and_the_cut_in_blocks_do_not_matter(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = changes(made(dtype), steps=5)
    monkeypatch.setattr(torch.Tensor, "__matmul__", in_another_order)
    monkeypatch.setattr(holding, "block_size", lambda device: 100)
    found = changes(made(dtype), steps=5)
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)


def test_products_of_integers_are_exact() -> None:
    """Against Python's integers, at the largest magnitudes that there may be."""
    for columns in (1, 2, 3, 129, 1000):
        bits = newton_schulz.bits_for(columns)
        values = torch.linspace(-1, 1, 3 * columns).view(3, columns)
        values[0] = 0.999999  # rows whose products all add up
        q = newton_schulz.whole(values, 0.999999, bits)
        rows = [[int(v) for v in row] for row in q.tolist()]
        assert max(abs(v) for row in rows for v in row) in range(1 << (bits - 1), (1 << bits) + 1)
        exact = [[sum(a * b for a, b in zip(x, y, strict=True)) for y in rows] for x in rows]
        assert newton_schulz.gram_of(q).to(torch.int64).tolist() == exact
        assert max(exact[0]) <= 1 << 53


def test_the_small_matrices_are_multiplied_in_one_order() -> None:
    """Against a sum written out; BLAS adds otherwise, on some processors at least."""
    x, y = np.random.default_rng(0).standard_normal((2, 1, 9, 9))
    found = newton_schulz._product(x, y)
    for i in range(9):
        for j in range(9):
            total = x[0, i, 0] * y[0, 0, j]
            for k in range(1, 9):
                total += x[0, i, k] * y[0, k, j]
            assert found[0, i, j] == total


def test_a_new_basis_begins_without_momentum() -> None:
    weights, fresh = made(), made()
    optimizer = Muon()
    state = optimizer.apply_(weights, optimizer.init(weights), update(0))
    for a, b in zip(weights.tunables, fresh.tunables, strict=True):
        a.tensor.copy_(b.tensor)
    optimizer.apply_(weights, state, update(1, OTHER))
    optimizer.apply_(fresh, optimizer.init(fresh), update(1, OTHER))
    for a, b in zip(weights.tunables, fresh.tunables, strict=True):
        # what is in no basis keeps its momentum
        assert torch.equal(a.tensor, b.tensor) == isinstance(a.low_rank, KeptBasis), a.name


def test_a_tensor_that_never_moved_stays() -> None:
    only = Scaling("wide", (1.0, 0.0, 0.0, 0.0, 0.0))
    found = changes(made(), scaling=only)
    assert [bool(each.any()) for each in found] == [True, False, False, False, False]
    assert not any(each.any() for each in changes(made(), rate=0.0))


def test_a_state_is_of_its_weights() -> None:
    optimizer = Muon()
    packed = optimizer.pack(optimizer.init(made(rank=4)))
    with pytest.raises(MezoError, match=r"momenta of shapes .*belongs to other weights"):
        optimizer.unpack(made(rank=8), packed)


@pytest.mark.parametrize(
    ("kind", "shape", "message"),
    [
        ("low-rank", (48, 40), "here each direction has its own: choose noise=kept-basis"),
        ("gaussian", (129, 200), "up to a shorter side of 128, found 129 x 200; choose noise=kept-basis"),
    ],
)
def test_what_is_not_covered_is_refused(kind: Any, shape: tuple[int, int], message: str) -> None:
    with pytest.raises(MezoError, match=message):
        Muon().init(Weights([("w", torch.zeros(shape))], kind=kind))


def test_directions_of_two_bases_are_refused() -> None:
    weights = made()
    two = Update(3, 0.1, (Direction(BASIS | 1, 1.0), Direction(OTHER | 1, 1.0)), 2)
    with pytest.raises(MezoError, match=r"step 3: expected directions of one basis .* found 2 bases"):
        Muon().apply_(weights, Muon().init(weights), two)


@pytest.mark.parametrize("noise", ["low-rank", "rank-one"])
def test_the_table_refuses_noise_of_many_bases(noise: str) -> None:
    with pytest.raises(MezoError, match="optimizer='muon' needs noise other than low-rank or rank-one"):
        check_combination(MeZOConfig.build(optimizer="muon", noise=noise))


def test_a_run_resumes_and_replays_in_the_midst_of_a_basis(tmp_path: Path) -> None:
    tiny("llama").save_pretrained(tmp_path / "base")
    byte_tokenizer(words=(" great", " terrible")).save_pretrained(tmp_path / "base")
    settings = dict(optimizer="muon", noise="kept-basis", noise_rank=4, basis_steps=3, dtype="bfloat16")
    config = config_for(tmp_path / "base", **settings)
    watching = Copying(tmp_path / "run", tmp_path / "killed", (5, 11))
    made = trainer(config, output=tmp_path / "run", observer=watching, artifacts=True)
    assert sum(isinstance(t.low_rank, KeptBasis) for t in made.weights.tunables) > 4
    whole = made.train()
    expected = what_counts(tmp_path / "run", whole)
    for step in (5, 11):
        result = resume(tmp_path / "killed" / str(step), artifacts=True)
        assert what_counts(tmp_path / "killed" / str(step), result) == expected
    assert same_files(replay(tmp_path / "run", output=tmp_path / "again"), tmp_path / "run" / "model")
