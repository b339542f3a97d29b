"""Ways to multiply: the same numbers to rounding, chosen by measuring, kept by a run."""

from pathlib import Path

import pytest
import torch
from tests.cli import toy
from torch import nn

from mezo.cli import main
from mezo.config import MeZOConfig
from mezo.engines.perturb import matmul
from mezo.errors import MezoError

ALL = [(dtype, way) for dtype, ways in matmul.WAYS.items() for way in ways]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEZO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(matmul, "_chosen", {})


@pytest.mark.parametrize(("dtype", "way"), ALL)
@pytest.mark.parametrize("biased", [True, False])
def test_every_way_computes_the_product(
    dtype: torch.dtype, way: matmul.Matmul, biased: bool, monkeypatch
) -> None:
    if "onednn" in way and not matmul.has_onednn():
        pytest.skip("this torch has no oneDNN")
    monkeypatch.setattr(matmul, "_WIDENED", 1000)  # several blocks
    torch.manual_seed(0)
    x, weight = torch.randn(3, 5, 64, dtype=dtype), torch.randn(70, 64, dtype=dtype)
    bias = torch.randn(70, dtype=dtype) if biased else None
    exact = torch.nn.functional.linear(x.double(), weight.double(), None if bias is None else bias.double())
    matmul.use(dtype, way)
    # sums of 64 products of order 1 in float32, and one rounding to the type
    bound = 64 * 2**-23 * 8 + torch.finfo(dtype).eps * float(exact.abs().max())
    assert float((matmul.linear(x, weight, bias).double() - exact).abs().max()) <= bound
    out = torch.full((15, 90), 7.0, dtype=dtype)
    matmul.linear_into(out[:, 10:80], x.view(15, 64), weight, bias)
    assert float((out[:, 10:80].double() - exact.view(15, 70)).abs().max()) <= bound
    assert bool((out[:, :10] == 7).all() and (out[:, 80:] == 7).all())


def model(dtype: torch.dtype = torch.float32) -> nn.Module:
    return nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 8)).to(dtype)


@pytest.mark.parametrize("dtype", matmul.WAYS)
def test_the_fastest_is_taken_if_it_is_clearly_so(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    ways = [w for w in matmul.WAYS[dtype] if "onednn" not in w or matmul.has_onednn()]
    usual = matmul.usual(dtype)
    for fastest in ways:
        for much in (0.5, 0.95):
            times = {w: much if w == fastest else 1.0 for w in ways}
            monkeypatch.setattr(matmul, "_times_in", lambda found, ways, times=times: times)
            found = matmul.measured(model(dtype), dtype)
            assert found.matmul == (fastest if much == 0.5 else usual)
            assert min(found.times.values()) == 1.0


def test_a_measurement_is_made_once_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    if not matmul.has_onednn():
        pytest.skip("this torch has no oneDNN: there is nothing to choose")
    calls = []
    time = matmul._time
    monkeypatch.setattr(matmul, "_time", lambda *a: calls.append(a) or time(*a))
    first = matmul.measured(model(), torch.float32)
    assert matmul.measured(model(), torch.float32) == first
    assert len(calls) == 1
    (matmul.cache_folder() / "matmul.json").write_text("{torn")
    matmul.measured(model(), torch.float32)
    assert len(calls) == 2


def test_a_run_keeps_what_it_began_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, data = str(toy.model(tmp_path / "toy")), str(toy.reviews(tmp_path / "reviews"))
    run = tmp_path / "run"
    arguments = [
        "train",
        "--model",
        folder,
        "--data",
        data,
        "--batch-size",
        "4",
        "--lr",
        "1e-6",
        "--output",
        str(run),
    ]
    monkeypatch.setattr(
        matmul, "_time", lambda shapes, dtype, ways: {w: 1.0 if w != "torch" else 0.1 for w in ways}
    )
    assert main([*arguments, "--steps", "2"]) == 0
    assert MeZOConfig.load(run / "config.yaml").matmul == "torch"
    (tmp_path / "cache" / "matmul.json").unlink(missing_ok=True)
    monkeypatch.setattr(
        matmul, "_time", lambda shapes, dtype, ways: {w: 0.1 if w != "torch" else 1.0 for w in ways}
    )
    assert main(["train", "--resume", str(run), "--steps", "4"]) == 0
    assert MeZOConfig.load(run / "config.yaml").matmul == "torch"
    assert main(["train", "--resume", str(run), "--steps", "5", "--matmul", "onednn"]) == 2


def test_a_way_that_a_type_does_not_have_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, data = str(toy.model(tmp_path / "toy")), str(toy.reviews(tmp_path / "reviews"))
    arguments = ["train", "--model", folder, "--data", data, "--steps", "1", "--batch-size", "4", "--output", str(tmp_path / "r")]  # fmt: skip
    assert main([*arguments, "--matmul", "float32"]) == 2
    assert "matmul='float32' cannot multiply float32 matrices here: choose torch" in capsys.readouterr().err
    assert MezoError
