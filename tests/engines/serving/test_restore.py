"""Ways to keep theta while an engine computes elsewhere: which are exact, and how far the walk strays."""

from pathlib import Path

import pytest
import torch
from tests.engines.serving.parallel import worker_model
from tests.engines.serving.test_worker import engine_of, sums, updates, weights_of
from tests.tiny_models import tiny

from mezo.engines.workers import restore
from mezo.engines.workers.group import tensors_of
from mezo.engines.workers.restore import ThetaSnapshot, Walk, keeper_for
from mezo.engines.workers.shard_map import Pieces, find_pieces
from mezo.engines.workers.verify import sum_of
from mezo.errors import MezoError
from mezo.optimizers import SGD, Adam, MomentumRebuilt
from mezo.types import Probe


def live_of(dtype: torch.dtype = torch.bfloat16) -> Pieces:
    model = tiny("qwen2", dtype).requires_grad_(True)
    return Pieces(find_pieces(worker_model(model, 0, 1), tensors_of(model)))


def bits(pieces: Pieces) -> list[int]:
    return [sum_of(piece) for piece in pieces.pieces]


PROBES = [Probe(7, 1e-2), Probe(7, -1e-2), Probe(8, 1e-2), Probe(8, -1e-2)]


@pytest.mark.parametrize("beside", [True, False], ids=["on-the-device", "on-the-host-of-a-device"])
def test_a_snapshot_is_exact_wherever_it_is(beside: bool) -> None:
    live, once = live_of(), live_of()
    keeper = ThetaSnapshot(live, SGD(), "host")
    keeper.beside = beside  # False: as where the model is on a GPU and theta is not
    start = bits(live)
    for update in updates():
        for probe in PROBES:
            keeper.go(live, probe)
            there = live.copies([p.tensor.clone() for p in once.pieces])
            there.add_noise_(probe)
            assert bits(live) == bits(there)
        assert keeper.update(live, update) is None
        SGD().apply_(once, None, update)
        assert bits(live) == bits(once) != start
    keeper.go(live, PROBES[0])
    assert keeper.restore(live) is None
    assert bits(live) == bits(once)


@pytest.mark.parametrize("optimizer", [SGD(), MomentumRebuilt()], ids=["sgd", "momentum-rebuilt"])
def test_a_walk_is_exact_every_so_many_steps(optimizer: SGD | MomentumRebuilt, tmp_path: Path) -> None:
    engine = engine_of(tiny("qwen2", torch.bfloat16), optimizer=optimizer, keep="walk", restore_every=3)
    weights = weights_of(tiny("qwen2", torch.bfloat16))
    state = optimizer.init(weights)
    exact = []
    for update in updates(7):
        for probe in PROBES:
            engine.go(probe)
        walked = engine.apply(update)
        state = optimizer.apply_(weights, state, update)
        exact.append(engine.checksums() == sums(weights))
        assert (walked is not None) == (update.step in (2, 5))
        if walked is not None:
            # each of the 18 moves of three steps rounds by half a place at most, which is 2^-9 of a bfloat16
            assert walked.steps == 3
            assert 0 < walked.relative < 18 * 2**-9
            assert walked.largest > 0
    assert exact == [False, False, True, False, False, True, False]
    last = engine.restore()
    assert last is not None
    assert last.steps == 1
    assert engine.checksums() == sums(weights)


def test_a_walk_goes_straight_from_plus_to_minus() -> None:
    live, by_hand = live_of(), live_of()
    walk = Walk(live, SGD(), every=10)
    for probe, moves in [
        (Probe(7, 1e-2), [(7, 1e-2)]),
        (Probe(7, -1e-2), [(7, -2e-2)]),
        (Probe(8, 1e-2), [(7, 1e-2), (8, 1e-2)]),
        (Probe(0, 0.0), [(8, -1e-2)]),
    ]:
        walk.go(live, probe)
        for seed, scale in moves:
            by_hand.add_noise_(Probe(seed, scale))
        assert bits(live) == bits(by_hand)


def test_a_walk_in_float32_strays_by_roundings_alone() -> None:
    engine = engine_of(tiny("qwen2"), keep="walk", restore_every=100)
    for probe in PROBES:
        engine.go(probe)
    walked = engine.restore()
    assert walked is not None
    # 6 moves, each off by half a place of a float32 at most: 2^-24 of a weight and of the 4.9 epsilon
    # that is the longest move, twice over
    assert 0 < walked.largest < 6 * 2**-24 * (10 + 2 * 4.9e-2)
    assert walked.relative < 6 * 2**-24


def test_what_a_walk_cannot_do_is_refused() -> None:
    with pytest.raises(
        MezoError, match="optimizer Adam keeps moments, which a walk cannot make again; choose"
    ):
        engine_of(tiny("llama"), optimizer=Adam(), keep="walk")
    engine = engine_of(tiny("llama"), keep="walk")
    with pytest.raises(MezoError, match="a walk cannot follow directions that drift"):
        engine.go(Probe(1, 1e-2, None, 0.5))
    with pytest.raises(
        MezoError, match="unknown way to keep theta 'vram'; choices: auto, device, host, walk"
    ):
        engine_of(tiny("llama"), keep="vram")


def test_the_copy_on_disk_leaves_no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(restore.tempfile, "tempdir", str(tmp_path))
    walk = keeper_for("walk", live_of(), SGD(), every=2, workers=1)
    assert isinstance(walk, Walk)
    assert bits(walk.exact) == bits(live_of())
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_too_small_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 1000

    monkeypatch.setattr(restore.shutil, "disk_usage", lambda path: Usage)
    with pytest.raises(MezoError, match="bytes are needed to keep theta on disk, 1000 are free; set TMPDIR"):
        keeper_for("walk", live_of(), SGD(), every=2, workers=1)


@pytest.mark.parametrize(("free", "chosen"), [(None, "host"), (10**9, "host"), (139_392, "walk")])
def test_theta_is_kept_in_memory_where_it_fits(
    free: int | None, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers with 34,848 elements of 2 bytes each need 139,392 bytes, and a tenth more."""
    monkeypatch.setattr(restore, "available_bytes", lambda: free)
    live = live_of()
    assert restore.size_of(live) == 69_696
    assert keeper_for("auto", live, SGD(), every=2, workers=2).name == chosen


def test_workers_agree_on_how_theta_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of them found no room."""
    answers = iter([10**9, 10])
    monkeypatch.setattr(restore, "available_bytes", lambda: next(answers))
    engine = engine_of(tiny("llama"))
    assert engine.keep == "walk"
    assert "made again exactly every 10 steps" in engine.summary()
    engine.go(Probe(1, 1e-2))
    assert engine.restore() is not None


def test_available_memory_is_read() -> None:
    found = restore.available_bytes()
    assert found is None or found > 0
