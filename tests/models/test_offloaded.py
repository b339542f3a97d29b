"""Models larger than memory: weights on a disk, fetched by accelerate's hooks, with LoRA or a prefix beside them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import disk_offload
from tests.resumed import ROWS
from tests.tiny_models import tiny
from tests.toys import byte_tokenizer
from tests.zoo.judging import examples
from tests.zoo.reference import reference

from mezo.build.setup import set_up
from mezo.config import MeZOConfig
from mezo.data import MeZODataset
from mezo.errors import MezoError
from mezo.events import Observer
from mezo.models.load import LoadedModel, frozen
from mezo.models.offloaded import is_offloaded
from mezo.objectives import OBJECTIVES
from mezo.scoring import pose
from mezo.training.trainer import MeZOTrainer
from mezo.tuning import tune
from mezo.types import Probe
from mezo.weights.fingerprint import fingerprint_of

EPSILON = {"lora": 1e-2, "prefix": 0.3}


def on_disk(folder: Path, name: str = "llama") -> Any:
    return disk_offload(tiny(name), str(folder), execution_device=torch.device("cpu"))


def config_for(tuning: str, **changes: Any) -> MeZOConfig:
    fixed: dict[str, Any] = dict(model="x", task="sst2", tuning=tuning, batch_size=4, num_steps=3, seed=3)
    return MeZOConfig.build(**{**fixed, "learning_rate": 1e-2, **changes})


@torch.no_grad()
@pytest.mark.parametrize("tuning", EPSILON)
def test_probes_are_those_of_the_model_in_memory_written_out(tmp_path: Path, tuning: str) -> None:
    config, tokenizer = config_for(tuning), byte_tokenizer()
    plain, other = tune(tiny("llama"), config)
    base = LoadedModel(frozen(on_disk(tmp_path)), tokenizer, "causal", "x")
    bench = set_up(config, base, OBJECTIVES["candidate-ce"])
    for n, (mine, yours) in enumerate(zip(bench.weights.tunables, other.tunables, strict=True)):
        assert torch.equal(mine.tensor, yours.tensor)  # the same start
        if tuning == "lora":  # B is zero at first, and would hide A's noise
            mine.tensor.add_(0.1 * torch.randn(mine.tensor.shape, generator=torch.Generator().manual_seed(n)))
            yours.tensor.copy_(mine.tensor)
    batch, stored = pose(examples("causal")), tuple(t.tensor.dtype for t in other.tunables)
    probes = [Probe(seed, sign * EPSILON[tuning]) for seed in (7, 9) for sign in (1, -1)]
    expected = np.stack([reference(plain, other.tunables, stored, batch, probe) for probe in probes])
    found = bench.engine.logprobs(batch, probes)
    largest = float(np.abs(expected).max())
    assert np.abs(found - expected).max() <= 5 * 2**-23 * largest  # sums in another order, in float32
    assert np.abs(expected[0] - expected[1]).max() > 1e-2
    assert is_offloaded(bench.model)  # the hooks are in place
    assert sum(p.is_meta for p in bench.model.parameters()) == sum(1 for _ in tiny("llama").parameters())


@pytest.mark.parametrize("tuning", EPSILON)
def test_a_run_is_that_of_the_model_in_memory(tmp_path: Path, tuning: str) -> None:
    options: dict[str, Any] = dict(
        train=MeZODataset(ROWS, task="sst2"),
        tokenizer=byte_tokenizer(words=(" great", " terrible")),
        observer=Observer(),
    )
    config = config_for(tuning, epsilon=EPSILON[tuning], disable_shortcuts=("all",))
    here = MeZOTrainer(config, model=tiny("llama"), **options).train()
    away = MeZOTrainer(
        config, model=on_disk(tmp_path / "weights"), output=tmp_path / "run", **options
    ).train()
    assert away.losses == pytest.approx(here.losses, rel=1e-6)  # memory that is aligned otherwise
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").is_file()


def test_the_fingerprint_is_that_of_the_model_in_memory(tmp_path: Path) -> None:
    assert fingerprint_of(on_disk(tmp_path, "llama-tied")) == fingerprint_of(tiny("llama-tied"))


@pytest.mark.parametrize("tuning", ["full", "head"])
def test_weights_that_wait_on_a_disk_do_not_move(tmp_path: Path, tuning: str) -> None:
    with pytest.raises(MezoError, match=r"which is offloaded .*: use tuning=lora or prefix"):
        tune(on_disk(tmp_path), config_for(tuning))
