"""Probes along rank-one noise as adapters: theta + eps z, over which linear layers, and what is loaded when."""

from typing import Any

import pytest
import torch
from tests.tiny_models import tiny

from mezo.config import MeZOConfig
from mezo.engines.serving.full_adapters import RankOneAdapters, rank_one_config, takes_adapters
from mezo.engines.serving.lora import PREFIX
from mezo.engines.serving.open import lora_spec, plain_config
from mezo.errors import MezoError
from mezo.optimizers import SGD
from mezo.tuning import tune
from mezo.types import THETA, Direction, Probe, Update
from mezo.weights.weights import Weights


def tuned(name: str = "llama", device: str = "cpu", **settings: Any) -> tuple[Any, Weights]:
    values = {"tuning": "full", "noise": "rank-one", "train": ("_proj",), **settings}
    return tune(tiny(name).to(device), MeZOConfig.build(model="m", **values))


class Log:
    """A backend and workers that write down what is asked of them."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.loaded: dict[str, dict[str, torch.Tensor]] = {}

    def load_adapters(self, adapters: Any, config: Any) -> None:
        self.calls.append(("load", len(adapters)))
        self.loaded |= adapters

    def unload_adapters(self, names: Any) -> None:
        self.calls.append(("unload", len(names)))

    def flush(self) -> None:
        self.calls.append("flush")

    def apply(self, update: Update) -> None:
        self.calls.append("update")


def placed(weights: Weights) -> tuple[Log, RankOneAdapters]:
    log: Any = Log()
    config = plain_config(rank_one_config(weights))
    none: Any = None
    return log, RankOneAdapters(log, log, SGD(), none, print, weights=weights, config=config)


def test_a_probes_adapter_is_theta_plus_eps_z() -> None:
    _, weights = tuned()
    log, placement = placed(tuned(device="meta")[1])  # as a run has it, whose engine holds the weights
    layer = weights.layers()["model.layers.1"]
    probes = [Probe(5, 1e-2), Probe(5, -1e-2), Probe(6, 1e-2, layer)]
    for _ in placement.visit(probes):
        pass
    for probe, own in zip(probes, log.loaded.values(), strict=True):
        for n, t in enumerate(weights.tunables):
            there = torch.empty_like(t.tensor)
            weights.write(n, probe, there.view(1, -1))
            path = PREFIX + t.name.removesuffix(".weight")
            if not probe.scale_in(n):
                assert f"{path}.lora_A.weight" not in own
                continue
            product = own[f"{path}.lora_B.weight"] @ own[f"{path}.lora_A.weight"]
            assert torch.equal(t.tensor + product, there)


def test_a_steps_adapters_are_one_call_under_new_names_and_theta_is_the_base() -> None:
    log, placement = placed(tuned()[1])
    found = []
    for _ in range(2):
        for points in placement.visit([Probe(1, 1e-3, rows=(0, 2)), THETA, Probe(1, -1e-3, rows=(1, 2))]):
            found.append([(point.adapter, point.fresh) for point in points])
    assert log.calls == [("load", 2), ("unload", 2)] * 2
    names = [name for points in found for name, _ in points if name is not None]
    assert len(set(names)) == 4
    assert [points[1] for points in found] == [(None, False)] * 2


def test_after_an_update_the_base_is_flushed_and_fresh_once() -> None:
    log, placement = placed(tuned()[1])
    placement.apply(Update(0, 1e-2, (Direction(1, 0.5),), 1))
    assert log.calls == ["update", "flush"]
    fresh = [points[0].fresh for _ in range(2) for points in placement.visit([THETA])]
    assert fresh == [True, False]


def test_of_several_points_at_theta_the_first_alone_is_fresh() -> None:
    """The others may read from the cache what the first of the same call has left there."""
    _, placement = placed(tuned()[1])
    placement.apply(Update(0, 1e-2, (Direction(1, 0.5),), 1))
    ((*points,),) = placement.visit([THETA, Probe(1, 1e-3), THETA])
    assert [point.fresh for point in points] == [True, True, False]


@pytest.mark.parametrize(
    ("name", "settings", "takes"),
    [
        ("llama", {}, True),
        ("opt", {"train": (r"(_proj|fc\d)\.weight",)}, True),
        ("llama", {"train": None}, False),  # norms and embeddings too
        ("llama", {"train": ("_proj", "layernorm")}, False),
        ("qwen2", {}, False),  # which has biases
        ("llama", {"train": ("lm_head",)}, False),
        ("llama", {"noise": "rademacher"}, False),
        (
            "gpt2",
            {"train": (r"c_attn\.weight",)},
            False,
        ),  # its matrices are no linear layers', but transposed
    ],
)
def test_adapters_are_for_the_matrices_of_linear_layers(
    name: str, settings: dict[str, Any], takes: bool
) -> None:
    assert takes_adapters(*tuned(name, **settings)) == takes


def test_an_engine_makes_room_for_vectors_not_for_matrices() -> None:
    _, weights = tuned()
    spec = lora_spec(plain_config(rank_one_config(weights)), weights, at_once=1000)
    assert (spec.rank, spec.at_once) == (1, 64)
    assert spec.matrices == ("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj")


def test_workers_that_keep_theta_alone_do_not_leave_it() -> None:
    from tests.engines.serving.test_worker import engine_of, sums, updates, weights_of

    engine, weights = (
        engine_of(tiny("llama"), noise="rank-one", keep="alone"),
        weights_of(tiny("llama"), kind="rank-one"),
    )
    assert engine.keep == "alone"
    assert "no second copy" in engine.summary()
    for update in updates():
        engine.apply(update)
        SGD().apply_(weights, None, update)
    assert engine.checksums() == sums(weights)
    with pytest.raises(MezoError, match="keeps no other copy of theta was asked to leave it"):
        engine.go(Probe(1, 1e-3))
    engine.go(THETA)
    engine.release()
