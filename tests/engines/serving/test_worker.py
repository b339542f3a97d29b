"""theta in the workers of an engine: the same bits as whole tensors, however it is cut."""

from typing import Any

import pytest
import torch
from tests.engines.serving.parallel import worker_model
from tests.tiny_models import tiny

from mezo.engines.workers.group import Workers, tensors_of
from mezo.engines.workers.verify import sum_of, whole
from mezo.engines.workers.worker import handle
from mezo.errors import MezoError
from mezo.optimizers import SGD, Adam, AdamRebuilt, Momentum, MomentumRebuilt, Optimizer
from mezo.types import THETA, Direction, Probe, Scaling, Update
from mezo.weights.weights import Weights

LAYOUTS = [(1, "numbers"), (2, "numbers"), (2, "group"), (4, "group")]  # at 4, two workers share a KV head


def engine_of(model: Any, size: int = 2, manner: str = "numbers", **settings: Any) -> Workers:
    models = [worker_model(model, rank, size, manner) for rank in range(size)]
    return Workers(
        lambda operation, arguments: [handle(m, operation, arguments) for m in models],
        tensors_of(model.requires_grad_(True)),
        workers=size,
        **{"optimizer": SGD(), **settings},
    )


def weights_of(model: Any, **settings: Any) -> Weights:
    return Weights(model.named_parameters(), **settings)


def sums(weights: Weights) -> dict[str, int]:
    return {t.name: sum_of(whole(t.name, t.tensor)) for t in weights.tunables}


def updates(count: int = 3, factors: Scaling | None = None) -> list[Update]:
    return [
        Update(step, 1e-2, (Direction(3 * step, 0.5, factors), Direction(2**64 - 1 - step, -0.25)), 2)
        for step in range(count)
    ]


@pytest.mark.parametrize(("size", "manner"), LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["llama-tied", "qwen2", "gemma3", "opt"])
@pytest.mark.parametrize("noise", ["gaussian", "rank-one"])
def test_probes_and_updates_have_the_bits_of_whole_tensors(
    noise: Any, name: str, dtype: torch.dtype, size: int, manner: str
) -> None:
    engine, model = engine_of(tiny(name, dtype), size, manner, noise=noise), tiny(name, dtype)
    weights = weights_of(model, kind=noise)
    before = sums(weights)
    assert engine.checksums() == before
    for probe in (Probe(7, 1e-2), Probe(7, -1e-2)):
        engine.go(probe)
        there = weights_of(tiny(name, dtype), kind=noise)
        there.add_noise_(probe)
        assert engine.checksums() == sums(there) != before
    engine.go(THETA)
    assert engine.checksums() == before
    for update in updates():
        assert engine.apply(update) is None
        SGD().apply_(weights, None, update)
    assert engine.checksums() == sums(weights) != before


@pytest.mark.parametrize(
    "optimizer",
    [
        SGD(0.1, rounding="stochastic"),
        SGD(0.1, rounding="nearest"),
        Momentum(0.1),
        MomentumRebuilt(0.1),
        Adam(0.1),
        AdamRebuilt(0.1),
    ],
    ids=lambda optimizer: type(optimizer).__name__,
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("one_layer", [False, True])
@pytest.mark.parametrize("noise", ["gaussian", "rank-one"])
def test_every_optimizer_does_in_workers_what_it_does_here(
    noise: Any, optimizer: Optimizer, dtype: torch.dtype, one_layer: bool
) -> None:
    if noise == "rank-one" and isinstance(optimizer, MomentumRebuilt):
        pytest.skip("refused: the sum over all remembered steps is not exact")
    engine = engine_of(tiny("qwen2", dtype), optimizer=optimizer, noise=noise)
    weights = weights_of(tiny("qwen2", dtype), kind=noise)
    factors = weights.layers()["model.layers.1"] if one_layer else None
    state: Any = optimizer.init(weights)
    for update in updates(3, factors):
        engine.apply(update)
        state = optimizer.apply_(weights, state, update)
    assert engine.checksums() == sums(weights)
    engine.go(Probe(5, 1e-2, factors))
    weights.add_noise_(Probe(5, 1e-2, factors))
    assert engine.checksums() == sums(weights)


def test_directions_that_drift_do_too() -> None:
    engine, weights = engine_of(tiny("llama")), weights_of(tiny("llama"))
    for step in range(3):
        update = Update(step, 1e-2, (Direction(step, 0.5, None, 0.25),), 1, heading_beta=0.9)
        engine.apply(update)
        SGD().apply_(weights, None, update)
    assert engine.checksums() == sums(weights)
    probe = Probe(11, 1e-2, None, 0.25)
    engine.go(probe)
    weights.add_noise_(probe)
    assert engine.checksums() == sums(weights)


def test_rademacher_noise_does_too() -> None:
    engine = engine_of(tiny("llama"), noise="rademacher")
    weights = weights_of(tiny("llama"), kind="rademacher")
    engine.go(Probe(1, 1e-2))
    weights.add_noise_(Probe(1, 1e-2))
    assert engine.checksums() == sums(weights)


def test_tensors_that_are_frozen_stay() -> None:
    model = tiny("llama")
    for name, p in model.named_parameters():
        p.requires_grad_("layers.1" in name)
    tensors = tensors_of(model)
    parts = [worker_model(model, rank, 2) for rank in range(2)]
    before = [{n: p.clone() for n, p in part.named_parameters()} for part in parts]
    engine = Workers(
        lambda operation, arguments: [handle(m, operation, arguments) for m in parts],
        tensors,
        optimizer=SGD(),
        workers=2,
    )
    engine.go(Probe(1, 1e-2))
    for part, old in zip(parts, before, strict=True):
        for name, p in part.named_parameters():
            assert torch.equal(p, old[name]) == ("layers.1" not in name), name


def test_the_padding_of_a_vocabulary_is_never_written() -> None:
    part = worker_model(tiny("llama"), 1, 2)  # 300 words, padded to 320: this worker has 160 to 300
    tensors = tensors_of(tiny("llama").requires_grad_(True))
    model = [worker_model(tiny("llama"), 0, 2), part]
    engine = Workers(
        lambda operation, arguments: [handle(m, operation, arguments) for m in model],
        tensors,
        optimizer=SGD(),
        workers=2,
    )
    engine.go(Probe(1, 1e-2))
    engine.apply(updates(1)[0])
    for name in ("model.embed_tokens", "lm_head"):
        weight = part.get_submodule(name).weight
        assert isinstance(weight, torch.Tensor)
        assert not weight[140:].any()
        assert weight[:140].any(1).all()


def test_an_engine_that_moves_its_parameters_is_followed() -> None:
    model = tiny("llama")
    part = worker_model(model, 0, 1)
    engine = Workers(
        lambda operation, arguments: [handle(part, operation, arguments)],
        tensors_of(model.requires_grad_(True)),
        optimizer=SGD(),
    )
    for p in part.parameters():
        p.data = p.data.clone()
    weights = weights_of(tiny("llama"))
    engine.go(Probe(1, 1e-2))
    weights.add_noise_(Probe(1, 1e-2))
    assert engine.checksums() == sums(weights)


def test_released_workers_are_at_theta_and_know_nothing() -> None:
    model = tiny("llama")
    part = worker_model(model, 0, 1)
    engine = Workers(
        lambda operation, arguments: [handle(part, operation, arguments)],
        tensors_of(model.requires_grad_(True)),
        optimizer=SGD(),
    )
    engine.go(Probe(1, 1e-2))
    assert engine.release() is None
    untouched = worker_model(model, 0, 1)
    for name, p in part.named_parameters():
        assert torch.equal(p, untouched.get_parameter(name)), name
    with pytest.raises(MezoError, match="worker 0 of 1: 'checksum' was asked of a worker before 'configure'"):
        engine.checksums()


def test_mistakes_are_told_in_one_line() -> None:
    engine = engine_of(tiny("llama"))
    with pytest.raises(MezoError, match=r"worker 0 of 2: unknown operation of a worker 'perturb'.*probe"):
        engine._ask("perturb", {})
    with pytest.raises(MezoError, match="worker 0 of 2: KeyError: 'seed'"):
        engine._ask("probe", {})
    with pytest.raises(MezoError, match="noise='low-rank' cannot be made by an engine's workers"):
        engine_of(tiny("llama"), noise="low-rank")


def test_workers_that_do_not_have_everything_are_refused() -> None:
    model = tiny("llama")
    tensors, part = tensors_of(model.requires_grad_(True)), worker_model(model, 0, 2)
    with pytest.raises(MezoError, match="the workers' pieces have 5120 of its 9600 elements"):
        Workers(lambda operation, a: [handle(part, operation, a)], tensors, optimizer=SGD())
    with pytest.raises(MezoError, match="expected answers of 2 workers, found 1"):
        Workers(lambda operation, a: [handle(part, operation, a)], tensors, optimizer=SGD(), workers=2)


def test_workers_that_differ_in_what_they_share_are_found() -> None:
    model = tiny("llama")
    parts = [worker_model(model, rank, 2) for rank in range(2)]
    engine = Workers(
        lambda operation, a: [handle(m, operation, a) for m in parts],
        tensors_of(model.requires_grad_(True)),
        optimizer=SGD(),
        workers=2,
    )
    parts[1].get_parameter("model.norm.weight").data[3] += 1
    with pytest.raises(MezoError, match=r"two workers hold different values of model\.norm\.weight"):
        engine.checksums()
