"""Probes that drift along m: the engine and every walk against theta + scale * (z + drift * m) written out."""

from contextlib import closing
from typing import Any

import numpy as np
import pytest
import torch
from tests.engines.in_place.test_modes import HALF, OTHERS
from tests.engines.perturb.test_forward import engine_for, examples
from tests.tiny_models import tiny

from mezo import noise
from mezo.engines.in_place.modes import walk_for
from mezo.engines.perturb.forward import Probing
from mezo.engines.transformers.generate import at
from mezo.noise.where import Where
from mezo.optimizers import OPTIMIZERS
from mezo.scoring import pose
from mezo.types import THETA, Direction, Probe, Update
from mezo.weights.weights import Weights

SHAPES = {"embed.weight": (40, 7), "layers.0.weight": (9, 30), "layers.0.bias": (9,), "layers.1.weight": (5,)}


def turn(weights: Weights) -> None:
    """m of some length, in every tensor."""
    generator = torch.Generator().manual_seed(9)
    for n in range(len(weights.tunables)):
        m = weights.heading.of(n)
        m.copy_(torch.randn(m.shape, generator=generator) * 0.3)
    weights.heading.changed()


def weights_of(dtype: torch.dtype) -> Weights:
    generator = torch.Generator().manual_seed(0)
    weights = Weights(
        [(name, torch.randn(shape, generator=generator).to(dtype)) for name, shape in SHAPES.items()]
    )
    turn(weights)
    return weights


def z_and_m(weights: Weights, n: int, probe: Probe | Direction) -> torch.Tensor:
    """z + drift * m of the n-th tensor, (1, elements) float64."""
    t = weights.tunables[n]
    z = torch.empty(1, t.tensor.numel())
    noise.fill_(z, Where(t.tensor_id), probe.seed)
    scaled = z.double() + probe.drift * weights.heading.of(n).double()
    return scaled * (probe.scaling.factors[n] if probe.scaling else 1.0)


def written_out(engine: Any, batch: Any, probe: Probe) -> np.ndarray:
    """The log-probabilities, after theta is written as the probe has it, in the simplest way."""
    theta = [t.tensor.detach().clone() for t in engine.weights.tunables]
    for n, t in enumerate(engine.weights.tunables):
        point = t.flat().double() + probe.scale * z_and_m(engine.weights, n, probe)
        t.tensor.data.copy_(point.view(t.tensor.shape))
    found = engine.logprobs(batch)[0]
    for t, data in zip(engine.weights.tunables, theta, strict=True):
        t.tensor.data.copy_(data)
    return found


def probes_of(weights: Weights) -> list[Probe]:
    layers = list(weights.layers().values())
    return [
        Probe(7, 1e-2, drift=0.5),
        Probe(7, -1e-2, drift=0.5),
        Probe(8, 1e-2, drift=2.0),
        Probe(7, -1e-2),
        THETA,
        Probe(9, 1e-2, layers[1], drift=-2.0),
        Probe(9, -1e-2, layers[1], drift=-2.0),
    ]


@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("name", ["llama-tied", "gpt2", "gemma3", "bert"])
def test_probes_equal_writing_theta(name: str, tuning: str) -> None:
    engine, weights = engine_for(name, tuning)
    if tuning == "lora":  # B starts at zero: move it, or A's noise is never seen
        weights.update_([1], [0.1])
    turn(weights)
    before = weights.checksum()
    batch, probes = pose(examples(engine.kind)), probes_of(weights)
    found = engine.logprobs(batch, probes)
    assert weights.checksum() == before
    # float32 forward passes that sum in other orders, as in test_probing: 1e-6 of logits of order 10
    for probe, row in zip(probes, found, strict=True):
        np.testing.assert_allclose(row, written_out(engine, batch, probe), atol=2e-4)
    assert np.abs(found[0] - found[3]).max() > 1e-3, "m was seen"


def test_large_tensors_are_written_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """No tensor of the toys is above the limit of small ones: with a limit of 0 all go through scratch."""
    monkeypatch.setattr("mezo.engines.perturb.small_tensors.LIMIT", 0)
    monkeypatch.setattr("mezo.engines.perturb.probed.BLOCK_ELEMENTS", 100)
    engine, weights = engine_for("llama")
    turn(weights)
    batch, probes = pose(examples("causal")), probes_of(weights)
    for probe, row in zip(probes, engine.logprobs(batch, probes), strict=True):
        np.testing.assert_allclose(row, written_out(engine, batch, probe), atol=2e-4)


@pytest.mark.parametrize("limit", [0, 1 << 16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_a_module_is_given_is_what_a_walk_writes(
    dtype: torch.dtype, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit: block by block, row by row, whole, for both signs at once or one alone."""
    monkeypatch.setattr("mezo.engines.perturb.small_tensors.LIMIT", limit)
    model = tiny("llama-tied", dtype)
    weights = Weights(model.named_parameters())
    turn(weights)
    probing, probes = Probing(model, weights), probes_of(weights)
    rows = torch.tensor([5, 3, 5])
    theta = [t.tensor.detach().clone() for t in weights.tunables]
    with probing.at(probes, rows=len(probes)):
        copies = [[c.clone() for c in probing.perturbed_copies(t)] for t in weights.tunables]
        looked_up = {i: r.clone() for i, r in probing.perturbed_rows(weights.tunables[0], rows)}
    for i, probe in enumerate(probes):
        weights.add_noise_(probe)
        for n, t in enumerate(weights.tunables):
            assert torch.equal(copies[n][i], t.tensor)
            t.tensor.data.copy_(theta[n])
        assert torch.equal(looked_up[i], copies[0][i][rows])
        with at(model, weights, probe):
            assert all(torch.equal(p, copies[n][i]) for n, p in enumerate(model.parameters()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mode", OTHERS)
def test_every_walk_passes_through_the_same_bits(mode: str, dtype: torch.dtype) -> None:
    probes = [
        Probe(1, 1e-2, None, 0.7),
        Probe(1, -1e-2, None, 0.7),
        Probe(1, 1e-2),
        Probe(2, 1e-2, HALF, 0.3),
    ]

    def visited(memory: str, **options: Any) -> list[str]:
        walk = walk_for(memory, weights_of(dtype), **options)
        assert walk is not None
        with closing(walk.visit(probes)) as points:
            return [walk.weights.checksum() for _ in points]

    places = visited(**OTHERS[mode])
    assert places == visited("regenerate")
    assert len(set(places)) == len(probes)


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam"])
def test_updates_along_directions_that_drift(name: str) -> None:
    """One step from nothing: theta by the optimizer's rule and m by its own, with the old m in both.

    Sums of four float32 terms of order 1 and less: 1e-6."""
    weights = weights_of(torch.float32)
    before = [t.flat().double() for t in weights.tunables]
    m = [weights.heading.of(n).double() for n in range(len(before))]
    directions = (Direction(3, 0.5, None, 0.7), Direction(4, -0.25, HALF, 0.7))
    terms = [[d.projected_grad * z_and_m(weights, n, d) for d in directions] for n in range(4)]
    gradient = [torch.stack(each).sum(0) / 2 for each in terms]
    optimizer = OPTIMIZERS[name]()
    optimizer.apply_(weights, optimizer.init(weights), Update(0, 0.1, directions, 2, heading_beta=0.9))
    for n, t in enumerate(weights.tunables):
        g = gradient[n]
        moved = {"sgd": g, "momentum": 0.1 * g, "adam": g.sign()}[name]
        # where g is small Adam's epsilon shows, and rounding of g its sign
        clear = g.abs() > 1e-3
        torch.testing.assert_close(
            t.flat().double()[clear], (before[n] - 0.1 * moved)[clear], atol=2e-6, rtol=0
        )
        torch.testing.assert_close(weights.heading.of(n).double(), 0.9 * m[n] + 0.1 * g, atol=1e-6, rtol=0)


def test_what_is_stored_beside_the_noise_serves_the_update_too() -> None:
    """memory="store" hands the optimizer weights of its own making: they share m with the model's."""
    directions = (Direction(3, 0.5, None, 0.7),)
    update = Update(0, 0.1, directions, 1, heading_beta=0.9)
    found = []
    for memory in ("store", "regenerate"):
        weights = weights_of(torch.float32)
        walk = walk_for(memory, weights)
        assert walk is not None
        OPTIMIZERS["sgd"]().apply_(walk.weights, None, update)
        found.append((weights.checksum(), weights.heading.norm()))
    assert found[0] == found[1]
