"""Records to theta, many in a pass over memory: the bits of one step after another."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mezo import estimators
from mezo.build.schedule import most_directions
from mezo.combinations import broken
from mezo.config import MeZOConfig
from mezo.estimators import ESTIMATORS
from mezo.optimizers import OPTIMIZERS
from mezo.resume import replay_steps
from mezo.resume.replay_steps import Folding
from mezo.weights.weights import Weights

STEPS = 9
SHAPES = {
    "embed.weight": (30, 80),
    "layers.0.weight": (40, 60),
    "layers.0.bias": (60,),
    "layers.1.weight": (3, 1000),
    "norm.weight": (70,),
}
# cone's directions hang on m as it was at their step, so past ones cannot be made again
PAIRS = [(e, o) for e in ESTIMATORS for o in OPTIMIZERS if not (e == "cone" and o.endswith("rebuilt"))]
DTYPES = (torch.float32, torch.bfloat16)


def weights_of(config: MeZOConfig, dtype: torch.dtype) -> Weights:
    generator = torch.Generator().manual_seed(0)
    named = [(name, torch.randn(shape, generator=generator).to(dtype)) for name, shape in SHAPES.items()]
    return Weights(named, kind=config.noise, rank=config.noise_rank)


def config_with(**changes: Any) -> MeZOConfig:
    several = 4 if changes.get("estimator") == "fzoo" else 2
    return MeZOConfig.build(
        **{"num_steps": STEPS, "learning_rate": 1e-2, "num_directions": several, "history": 3, **changes}
    )


def records_for(config: MeZOConfig) -> np.ndarray:
    """(STEPS, width) float32: a replay takes any numbers."""
    width = estimators.build(config, weights_of(config, torch.float32)).width(most_directions(config))
    return np.random.default_rng(1).normal(size=(STEPS, width)).astype(np.float32)


def both(
    header: dict[str, Any], records: np.ndarray, config: MeZOConfig, dtype: torch.dtype
) -> tuple[Folding, Folding]:
    """After all records: one step at a time, and as many at a time as can be."""
    single, several = (Folding(header, weights_of(config, dtype)) for _ in range(2))
    for record in records:
        single.apply(single.next(record))
    several.take(records)
    return single, several


def check(config: MeZOConfig, dtype: torch.dtype) -> None:
    header = {"config": config.model_dump(mode="json")}
    single, several = both(header, records_for(config), config, dtype)
    begun = weights_of(config, dtype).checksum()
    assert single.weights.checksum() != begun, "the records move nothing: the case says nothing"
    assert several.weights.checksum() == single.weights.checksum()
    assert several.step == single.step == STEPS


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("estimator", "optimizer"), PAIRS)
def test_every_pair(estimator: str, optimizer: str, dtype: torch.dtype) -> None:
    check(config_with(estimator=estimator, optimizer=optimizer, weight_decay=0.1), dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("blocks", ["all", "each", "random"])
def test_rows_along_their_own_directions(blocks: str, dtype: torch.dtype) -> None:
    around = dict(num_directions=1, row_directions=8, noise="rank-one", weight_decay=0.1, blocks=blocks)
    config = config_with(**around)
    check(config, dtype)
    assert records_for(config).shape == (STEPS, 8 * (4 if blocks == "each" else 1))


@given(
    settings_=st.fixed_dictionaries(
        {},
        optional={
            "estimator": st.sampled_from([e for e in ESTIMATORS if e != "fzoo"]),
            "noise": st.sampled_from(["gaussian", "rademacher", "low-rank", "kept-basis", "rank-one"]),
            "rounding": st.sampled_from(["matched", "stochastic", "nearest"]),
            "weight_decay": st.sampled_from([0.0, 0.3]),
            "num_directions": st.integers(1, 3),
            "final_directions": st.integers(3, 4),
            "schedule": st.sampled_from(["constant", "linear", "cosine"]),
            "layer_scaling": st.sampled_from(["none", "variance", "expectation"]),
            "blocks": st.sampled_from(["all", "round-robin", "random", "each"]),
            "clip_projected_grad": st.just(0.5),
            "normalize_perturbations": st.booleans(),
        },
    ),
    dtype=st.sampled_from((*DTYPES, torch.float16)),
    most=st.integers(1, STEPS),
)
@settings(max_examples=40)
def test_every_setting_that_moves_theta(settings_: dict[str, Any], dtype: torch.dtype, most: int) -> None:
    config = config_with(**settings_)
    assume(not any(broken(config)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replay_steps, "_MOST", most)
        check(config, dtype)


@pytest.mark.parametrize("optimizers", [("sgd", "adam", "sgd"), ("momentum", "sgd", "sgd")])
def test_a_forked_run_changes_its_config_in_the_midst_of_a_pass(optimizers: Sequence[str]) -> None:
    ends, rates = (3, 5), (1e-2, 3e-2, 1e-3)
    configs = [
        config_with(optimizer=name, learning_rate=rate) for name, rate in zip(optimizers, rates, strict=True)
    ]
    dumped = [config.model_dump(mode="json") for config in configs]
    branches = [{"end": end, "config": each} for end, each in zip(ends, dumped[:2], strict=True)]
    header = {"config": dumped[2], "branches": branches}
    single, several = both(header, records_for(configs[0]), configs[0], torch.bfloat16)
    assert several.weights.checksum() == single.weights.checksum()
    assert several.part.config == single.part.config == configs[2]


@pytest.mark.parametrize(("optimizer", "passes"), [("sgd", [4, 8, 9]), ("adam", list(range(1, 10)))])
def test_tells_how_far_it_is(optimizer: str, passes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_steps, "_MOST", 4)
    config, told = config_with(optimizer=optimizer), []
    fold = Folding({"config": config.model_dump(mode="json")}, weights_of(config, torch.float32))
    fold.take(records_for(config), lambda done, steps: told.append((done, steps)))
    assert told == [(done, STEPS) for done in [0, *passes]]


def test_an_interrupt_comes_between_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was taken by then is whole steps, from which the rest goes on."""
    monkeypatch.setattr(replay_steps, "_MOST", 2)
    config = config_with()
    header, records = {"config": config.model_dump(mode="json")}, records_for(config)
    single, several = (Folding(header, weights_of(config, torch.bfloat16)) for _ in range(2))

    def stop(done: int, steps: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        several.take(records, stop)
    assert several.step == 4
    several.take(records[4:])
    single.take(records)
    assert several.weights.checksum() == single.weights.checksum()
