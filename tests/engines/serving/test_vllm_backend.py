"""What vLLM's backend answers is what the model says, from the cache or not; the cache is of one adapter's name."""

import contextlib
import json
import os
import signal
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tests.engines.serving.conftest import SETTINGS, need
from tests.engines.serving.envs import python_of
from tests.engines.serving.runs import tiny_llama

from mezo.config import MeZOConfig
from mezo.engines.serving.backend import Answer, Ask
from mezo.engines.serving.open import adapter_config, lora_spec
from mezo.engines.serving.requests import check_fresh
from mezo.errors import MezoError
from mezo.models.load import load
from mezo.optimizers import SGD
from mezo.tuning import tune
from mezo.types import THETA, Direction, Probe, Update
from mezo.weights.weights import Weights

pytestmark = pytest.mark.engine

HERE = Path(__file__).parent
LIMIT = 420  # seconds; on two idle cores it takes 60
ROUNDING = 2**-20  # of a log-probability near -6: some units of 2^-22 in either program
BLOCK = 32
SHARED = tuple(range(10, 110))  # what all rows begin with
ROWS: list[tuple[tuple[int, ...], int, tuple[int, ...]]] = [
    ((*SHARED, 5, 6, 7), 0, (8, 9, 250)),  # candidates of one token
    ((*SHARED, 5, 9), 0, (8,)),
    ((*SHARED, 20, 21, 22), 101, ()),  # a candidate of two
    ((*SHARED, 20, 40, 41, 42), 101, ()),
    (tuple(range(60, 110)), 48, ()),  # in common with no other row
    (tuple(range(110, 160)), 10, ()),  # more tokens than are asked for one by one
]


def rows_at(name: str | None) -> list[Ask]:
    return [Ask(tokens, start, name, choices) for tokens, start, choices in ROWS]


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the scenario found, and under "model" what transformers says at each adapter."""
    need("vllm")
    folder = tmp_path_factory.mktemp("vllm")
    checkpoint = tiny_llama(folder / "llama")
    config = MeZOConfig.build(model=str(checkpoint), tuning="lora", lora_rank=4, seed=3)
    model, weights = tune(load(str(checkpoint), "float32", "cpu").model, config)
    files, said = {}, {}
    for name, probe in (("plus", Probe(7, 0.05)), ("minus", Probe(7, -0.05)), ("after", THETA)):
        if name == "after":
            SGD().apply_(weights, None, Update(0, 0.05, (Direction(7, 1.5),), 1))
        theta = [t.tensor.detach().clone() for t in weights.tunables]
        if probe.scale:
            weights.add_noise_(probe)
        files[name] = str(folder / f"{name}.safetensors")
        save_file(adapter_tensors(weights), files[name])
        said[name] = [logprobs(model, ask) for ask in rows_at(name)]
        for tunable, values in zip(weights.tunables, theta, strict=True):
            tunable.tensor.detach().copy_(values)
    settings = adapter_config(model)
    spec = {
        "model": str(checkpoint),
        "lora": asdict(lora_spec(settings, weights, at_once=2)),
        "config": settings,
        "adapters": files,
        "rows": ROWS,
    }
    return {**run(folder, spec), "model": said}


def adapter_tensors(weights: Weights) -> dict[str, torch.Tensor]:
    return {f"base_model.model.{t.name}": t.tensor.detach().clone().contiguous() for t in weights.tunables}


@torch.no_grad()
def logprobs(model: Any, ask: Ask) -> list[float]:
    found = model(torch.tensor([ask.tokens])).logits[0].double().log_softmax(-1)
    if ask.choices:
        return [float(found[-1, token]) for token in ask.choices]
    return [float(found[i - 1, ask.tokens[i]]) for i in range(ask.start, len(ask.tokens))]


def run(folder: Path, spec: dict[str, Any]) -> dict[str, Any]:
    """The scenario in vLLM's interpreter, in a process group that does not outlive it."""
    (folder / "spec.json").write_text(json.dumps(spec))
    command = [python_of("vllm"), HERE / "vllm_scenario.py", folder / "spec.json", folder / "result.json"]
    unbound = {name: value for name, value in SETTINGS.items() if not name.endswith("_BIND")}
    environment = {
        **unbound,
        **os.environ,
        "PYTHONPATH": str(HERE.parents[2] / "src"),
        "OMP_NUM_THREADS": "1",
    }
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
        try:
            process.wait(LIMIT)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if not (folder / "result.json").exists():
        pytest.fail(f"no result, exit status {process.returncode}:\n{(folder / 'log').read_text()[-4000:]}")
    return json.loads((folder / "result.json").read_text())


def values(found: list[Any]) -> list[float]:
    return [value for logprobs, _, _ in found for value in logprobs]


def cached(found: list[Any]) -> list[int]:
    return [answer[2] for answer in found]


@pytest.mark.parametrize(("when", "names"), [("probes", ["plus", "minus"]), ("after", ["after"])])
def test_with_the_cache_without_it_and_in_transformers(
    when: str, names: list[str], answers: dict[str, Any]
) -> None:
    found = answers[when]
    true = [value for name in names for row in answers["model"][name] for value in row]
    for how in ("alone", "together", "again"):
        np.testing.assert_allclose(values(found[how]), true, rtol=0, atol=ROUNDING, err_msg=how)
    assert cached(found["alone"]) == [0] * len(ROWS) * len(names)
    for n, name in enumerate(names):
        mine = slice(n * len(ROWS), (n + 1) * len(ROWS))
        # three whole blocks. Of a candidate's k tokens, k requests compute 5, 6, ... tokens beyond them, and
        # the last token is none that is spared; the first row and those with nothing in common: nothing
        assert cached(found["together"][mine]) == [0, 96, 103 - 1 - 5 - 6, 104 - 1 - 5 - 6 - 7, 0, 0]
        check_fresh(rows_at(name), [Answer(tuple(v), p, c) for v, p, c in found["together"][mine]])
        # the second time everything is there, but for rows whose many tokens are asked for in one request
        assert cached(found["again"][mine]) == [96, 96, 91, 85, 50 - 1 - 16 - 17, 0]
    if when == "probes":  # two adapters, and not one of them twice
        assert np.abs(np.subtract(*np.split(np.array(true), 2))).max() > 0.05


def test_an_adapters_name_is_used_once(answers: dict[str, Any]) -> None:
    assert "adapter 'plus' was loaded into this engine before" in answers["refused"]


def test_an_adapter_in_the_place_of_another_would_read_its_cache(answers: dict[str, Any]) -> None:
    """What the rule above is for: the value is neither adapter's, and its cache tells."""
    found = answers["reused"]
    true = answers["model"]["minus"][0]
    np.testing.assert_allclose(values(found["true"]), true, rtol=0, atol=ROUNDING)
    assert np.abs(np.subtract(values(found["stale"]), true)).max() > 100 * ROUNDING
    assert np.abs(np.subtract(values(found["stale"]), values(found["before"]))).max() > 100 * ROUNDING
    ask = rows_at("after")[:1]
    with pytest.raises(MezoError, match="an adapter's name was used before"):
        check_fresh(ask, [Answer(tuple(v), p, c) for v, p, c in found["stale"]])
    check_fresh(ask, [Answer(tuple(v), p, c) for v, p, c in found["true"]])


def test_more_adapters_than_places_wait_for_one(answers: dict[str, Any]) -> None:
    for n, (found, _, spared) in enumerate(answers["many"]):
        np.testing.assert_allclose(
            found, answers["model"][("plus", "minus")[n % 2]][0], rtol=0, atol=ROUNDING
        )
        assert spared == 0


def test_tokens_are_written(answers: dict[str, Any]) -> None:
    assert [0 < len(tokens) <= 5 for tokens in answers["written"]] == [True, True]
