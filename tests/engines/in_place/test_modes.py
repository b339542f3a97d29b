"""The memory modes: one walk, whatever z is held in between, to the same bits."""

from contextlib import closing
from typing import Any

import pytest
import torch
from tests.tiny_models import tiny

from mezo.config import MeZOConfig
from mezo.engines.in_place.modes import WALKS, walk_for
from mezo.engines.in_place.stored import StoredNoise
from mezo.engines.in_place.walk import InPieces, InPlace
from mezo.engines.transformers.engine import TransformersEngine
from mezo.errors import MezoError
from mezo.objectives import OBJECTIVES
from mezo.optimizers import OPTIMIZERS, SGD
from mezo.scoring import Example
from mezo.tuning import tune
from mezo.types import THETA, Direction, Probe, Scaling, Update
from mezo.weights.weights import Weights

SHAPES = {"embed.weight": (40, 7), "layers.0.weight": (9, 30), "layers.0.bias": (9,), "layers.1.weight": (5,)}
HALF = Scaling("some", (0.5, 0.0, 1.0, -2.0))
PROBES = [
    Probe(1, 1e-2),
    Probe(1, -1e-2),
    Probe(2, 3e-3),
    THETA,
    Probe(2, -3e-3, HALF),
    Probe(3, 1e-2, HALF),
]
OTHERS: dict[str, dict[str, Any]] = {
    "store": dict(memory="store"),
    "store-layer": dict(memory="store-layer"),
    "matrix": dict(memory="regenerate", granularity="matrix"),
    "block": dict(memory="regenerate", granularity="block", block=100),
    "element": dict(memory="regenerate", granularity="element"),
}


def weights_of(dtype: torch.dtype, kind: Any = "gaussian") -> Weights:
    generator = torch.Generator().manual_seed(0)
    named = [(name, torch.randn(shape, generator=generator).to(dtype)) for name, shape in SHAPES.items()]
    return Weights(named, kind=kind)


def visited(walk: InPlace) -> list[str]:
    """What theta is at each probe and after them."""
    with closing(walk.visit(PROBES)) as points:
        found = [walk.weights.checksum() for _ in points]
    return [*found, walk.weights.checksum()]


def walk_of(dtype: torch.dtype, kind: Any = "gaussian", **mode: Any) -> InPlace:
    walk = walk_for(mode.pop("memory"), weights_of(dtype, kind), **mode)
    assert walk is not None
    return walk


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("mode", OTHERS)
def test_every_walk_passes_through_the_same_bits(mode: str, dtype: torch.dtype) -> None:
    places = visited(walk_of(dtype, **OTHERS[mode]))
    assert places == visited(walk_of(dtype, memory="regenerate"))
    assert len(set(places[:3])) == 3


@pytest.mark.parametrize("mode", OTHERS)
def test_rademacher_noise_walks_too(mode: str) -> None:
    expected = visited(walk_of(torch.float32, "rademacher", memory="regenerate"))
    assert visited(walk_of(torch.float32, "rademacher", **OTHERS[mode])) == expected


@pytest.mark.parametrize("block", [1, 512])
def test_blocks_do_not_show(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = visited(walk_of(torch.bfloat16, memory="regenerate"))
    monkeypatch.setattr("mezo.engines.in_place.walk.block_size", lambda device: block)
    assert visited(walk_of(torch.bfloat16, memory="store")) == expected


@pytest.mark.parametrize("memory", WALKS)
def test_theta_comes_back_when_a_loss_fails(memory: str) -> None:
    # in float32, within a rounding: theta is of order 4 at most, and is added to and taken from once
    walk = walk_of(torch.float32, memory=memory)
    before = [t.tensor.clone() for t in walk.weights.tunables]

    def fail() -> None:
        with walk.at(PROBES[0]):
            assert not torch.equal(walk.weights.tunables[0].tensor, before[0])
            raise ValueError("no loss")

    with pytest.raises(ValueError, match="no loss"):
        fail()
    for t, theta in zip(walk.weights.tunables, before, strict=True):
        torch.testing.assert_close(t.tensor, theta, rtol=0, atol=2 * 2**-22)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scaling", [None, HALF])
@pytest.mark.parametrize("rounding", ["stochastic", "nearest", "matched"])
def test_an_update_from_stored_noise_is_that_from_seeds(
    rounding: Any, scaling: Scaling | None, dtype: torch.dtype
) -> None:
    plain, walk = weights_of(dtype), StoredNoise(weights_of(dtype))
    for probe in PROBES[:3]:
        with walk.at(probe):
            pass
    for t, source in zip(plain.tunables, walk.weights.tunables, strict=True):
        t.tensor.copy_(source.tensor)
    update = Update(0, 0.1, (Direction(1, 0.3, scaling), Direction(2, -2.0)), 2)
    for weights in (plain, walk.weights):
        SGD(weight_decay=0.1, rounding=rounding).apply_(weights, None, update)
    assert walk.weights.checksum() == plain.checksum()


def test_stored_noise_is_read_and_then_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    walk = StoredNoise(weights_of(torch.float32))
    made: list[int] = []
    plain = Weights.add_to_
    monkeypatch.setattr(
        Weights, "add_to_", lambda self, *args, **kw: (made.append(args[1]), plain(self, *args, **kw))[1]
    )
    for _ in range(2):  # two batches at the same probes
        for probe in PROBES[:2]:
            with walk.at(probe):
                pass
    SGD().apply_(walk.weights, None, Update(0, 0.1, (Direction(1, 1.0),), 1))
    assert made == [0, 1, 2, 3]  # once for every tensor
    walk.release()
    with walk.at(PROBES[0]):
        pass
    assert made == [0, 1, 2, 3] * 2


def test_a_layer_of_noise_is_made_three_times_for_a_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    plain = Weights.add_to_
    monkeypatch.setattr(
        Weights, "add_to_", lambda self, *args, **kw: (made.append(args[1]), plain(self, *args, **kw))[1]
    )
    walk = walk_of(torch.float32, memory="store-layer")
    with closing(walk.visit(PROBES[:2])) as points:
        for _ in points:
            pass
    assert made == [0, 1, 2, 3] * 3


@pytest.mark.parametrize(
    "mode", [dict(memory="store"), dict(memory="store-layer"), dict(memory="regenerate", granularity="block")]
)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_steps_of_a_model_are_those_of_the_plain_walk(optimizer: str, mode: dict[str, Any]) -> None:
    def steps(mode: dict[str, Any]) -> tuple[list[list[float]], str]:
        model, weights = tune(tiny("llama-tied", torch.bfloat16), MeZOConfig.build(tuning="full"))
        engine = TransformersEngine(
            model,
            weights,
            OBJECTIVES["candidate-ce"],
            OPTIMIZERS[optimizer](),
            kind="causal",
            pad_token_id=0,
            **mode,
        )
        batch, losses = [Example((5, 6, 7), ((20,), (30,)), 1), Example((9, 4), ((20,), (30,)), 0)], []
        for step in range(3):
            losses.append(engine.losses(batch, [Probe(step, 1e-2), Probe(step, -1e-2)]))
            engine.apply(Update(step, 1e-2, (Direction(step, 0.5),), 1))
        return losses, weights.checksum()

    assert steps(mode) == steps(dict(memory="regenerate"))


def test_modes_by_name() -> None:
    weights = weights_of(torch.float32)
    assert walk_for("materialize", weights) is None
    assert isinstance(walk_for("regenerate", weights, "block", 8), InPieces)
    with pytest.raises(MezoError, match="unknown memory mode 'stor'; did you mean 'store'"):
        walk_for("stor", weights)
    with pytest.raises(MezoError, match="granularity='matrix' cuts the walk of memory='regenerate'"):
        walk_for("store", weights, "matrix")
