"""SGLang itself, in its own environment: whole runs beside the transformers engine's.

Engines live in processes of their own (`mezo.engines.serving.subprocess`), with a limit on the time of every call, so
one that dies or hangs fails its test and no more.
"""

import json
import os
import subprocess as process
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file
from tests.engines.serving.conftest import need, standins
from tests.engines.serving.envs import python_of
from tests.shared import shared
from tests.tiny_models import same_files
from tests.toys import byte_tokenizer

import mezo
from mezo.engines.serving import subprocess
from mezo.engines.serving.backend import Ask
from mezo.errors import MezoError
from mezo.events import Observer, StepRecord
from mezo.resume.replay import replay
from mezo.runs import trajectory

pytestmark = pytest.mark.engine
ROOT = Path(__file__).parents[3]

SHOTS = "".join(f"The team of ticket {i}: web\nThe team of invoice {i}: pay\n" for i in range(4))
ROWS = [
    {"prompt": f"{SHOTS}The team of {what} {number}:", "completion": answer}
    for number in range(10, 20)
    for what, answer in (("ticket", " web"), ("invoice", " pay"))
]
LORA: dict[str, Any] = dict(lora_rank=4, lora_alpha=8, learning_rate=1e-3, epsilon=1e-2, num_steps=20)
FULL: dict[str, Any] = dict(lora_rank=0, learning_rate=1e-5, epsilon=1e-3, num_steps=10)


@pytest.fixture(autouse=True)
def sglang(engine_env: None, monkeypatch: pytest.MonkeyPatch) -> None:
    need("sglang")
    monkeypatch.setenv("PYTHONPATH", standins())
    monkeypatch.setenv("MEZO_ENGINE_SECONDS", "240")
    monkeypatch.setattr(subprocess, "START_SECONDS", 420.0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """2 layers, 4 heads, 2 KV heads: so small, and can be cut in two."""
    folder = tmp_path_factory.mktemp("llama")
    torch.manual_seed(0)
    config = hf.LlamaConfig(
        vocab_size=300,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    llama = hf.LlamaForCausalLM(config)
    with torch.no_grad():
        for p in llama.parameters():
            if p.dim() > 1:
                p.mul_(3)  # large enough to matter
    llama.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return str(folder)


def tune(model: str, engine: str, output: Path | None = None, **settings: Any) -> mezo.TrainResult:
    common: dict[str, Any] = dict(batch_size=4, max_length=480, max_new_tokens=8, device="cpu")
    return mezo.mezo_finetune(
        model, ROWS, engine=engine, output=output, **{"observer": Observer(), **common, **settings}
    )


def grads(result: mezo.TrainResult) -> np.ndarray:
    return np.array([step.projected_grads for step in result.steps])


def assert_equal_walks(here: mezo.TrainResult, there: mezo.TrainResult, part: str, depth: int = 1) -> None:
    """Projected gradients, and what the runs wrote, to what float32 allows.

    A loss is about 5 and comes out of float32 products summed in another order: some 20 roundings of 6e-8
    of it at each of two probes, over 2 epsilon. The walks part by that, times |z| < 6, at every step; and a
    slope that is off moves theta, which the next slopes see once more: a factor of 2 for all steps.
    depth: so many times the roundings of the small model.
    """
    config = here.config
    tolerance = depth * 2 * 20 * 5 * 6e-8 / config.epsilon
    assert np.abs(grads(here) - grads(there)).max() <= tolerance
    assert np.abs(grads(here)).max() > 100 * tolerance
    assert here.output is not None
    assert there.output is not None
    mine, theirs = (load_file(r.output / part) for r in (here, there) if r.output is not None)
    assert mine.keys() == theirs.keys()
    bound = config.num_steps * config.peak_rate * tolerance * 6
    # and half a unit in the last place of weights of up to 4, in each of the steps
    bound += config.num_steps * 2.4e-7
    assert max(float((mine[name] - theirs[name]).abs().max()) for name in mine) <= bound
    a, b = (trajectory.read(r.output / "trajectory.mezo") for r in (here, there) if r.output is not None)
    assert a.header["base_fingerprint"] == b.header["base_fingerprint"]


@pytest.mark.slow
def test_lora_walks_as_on_transformers(model: str, tmp_path: Path) -> None:
    here = tune(model, "transformers", tmp_path / "here", **LORA)
    there = tune(model, "sglang", tmp_path / "there", **LORA, serve_as="kept")
    backend = there.engine.backend
    try:
        assert_equal_walks(here, there, "adapter/adapter_model.safetensors")
        # every prompt of a probe begins alike: the cache has all of it but what is new and what is asked for
        assert there.metrics["token_reuse_rate"] > 0.5
        check_served(backend, here, model)
        check_names(backend)
    finally:
        there.engine.close()


def check_served(backend: Any, here: mezo.TrainResult, model: str) -> None:
    """The adapter left in the engine is the tuned one, cached or not."""
    row = tuple(here.tokenizer(ROWS[0]["prompt"] + " web").input_ids)
    with torch.no_grad():
        expected = torch.log_softmax(here.model(torch.tensor([row])).logits[0].double(), -1)
    ask = Ask(row, len(row) - 3, "kept")
    backend.flush()
    first, second = (backend.score([ask])[0] for _ in range(2))
    assert first.cached_tokens == 0
    assert second.cached_tokens == len(row) - 4
    for answer in (first, second):
        for i, value in zip(range(len(row) - 3, len(row)), answer.logprobs, strict=True):
            assert value == pytest.approx(
                float(expected[i - 1, row[i]]), abs=1e-4
            )  # float32, weights 2e-6 apart


def check_names(backend: Any) -> None:
    with pytest.raises(MezoError, match="adapter 'kept' was loaded into this engine before"):
        backend.load_adapter("kept", {}, {})
    backend.unload_adapter("kept")
    with pytest.raises(MezoError, match="adapter 'kept' was loaded into this engine before"):
        backend.load_adapter("kept", {}, {})


def test_lora_on_two_workers_walks_as_on_transformers(model: str, tmp_path: Path) -> None:
    here = tune(model, "transformers", tmp_path / "here", **LORA)
    there = tune(model, "sglang", tmp_path / "there", **LORA, tensor_parallel=2)
    assert_equal_walks(here, there, "adapter/adapter_model.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_all_parameters_walk_as_on_transformers(model: str, tmp_path: Path, workers: int) -> None:
    here = tune(model, "transformers", tmp_path / "here", **FULL)
    there = tune(model, "sglang", tmp_path / "there", **FULL, tensor_parallel=workers)
    assert_equal_walks(here, there, "model/model.safetensors")
    assert there.metrics["token_reuse_rate"] > 0.5
    again = replay(tmp_path / "there", output=tmp_path / "again")
    assert same_files(again, tmp_path / "there" / "model")


@pytest.mark.parametrize("settings", [LORA, pytest.param(FULL, marks=pytest.mark.slow)], ids=["lora", "full"])
def test_the_cache_changes_no_loss(model: str, settings: dict[str, Any]) -> None:
    """At +eps and -eps, and after updates: the same losses with the cache and without it."""
    short = {**settings, "num_steps": 4}
    cached, plain = (tune(model, "sglang", **short, enable_kv_cache_optimization=on) for on in (True, False))
    assert cached.metrics["token_reuse_rate"] > 0.5
    assert plain.metrics["token_reuse_rate"] == 0
    tolerance = 2 * 20 * 5 * 6e-8 / settings["epsilon"]  # as above
    assert np.abs(grads(cached) - grads(plain)).max() <= tolerance


def test_a_flush_that_is_skipped_is_caught(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess.Hosted, "flush", lambda self: None)
    with pytest.raises(MezoError, match="they were computed with other weights, so the loss is wrong"):
        tune(model, "sglang", **FULL)


def test_a_scheduler_that_dies_ends_the_run_with_its_trajectory(model: str, tmp_path: Path) -> None:
    class Killer(Observer):
        def on_step(self, record: StepRecord) -> None:
            if record.step == 3:
                mine = psutil.Process().children(recursive=True)
                workers = [p for p in mine if any("scheduler" in part for part in p.cmdline())]
                assert workers
                for worker in workers:
                    worker.kill()

    with pytest.raises(subprocess.EngineDied, match="sglang ended during"):
        tune(model, "sglang", tmp_path / "run", **LORA, observer=Killer())
    assert len(trajectory.read(tmp_path / "run" / "trajectory.mezo").records) == 4
    again = replay(tmp_path / "run", output=tmp_path / "again")
    assert same_files(again, tmp_path / "run" / "adapter")
    left = [p for p in psutil.Process().children(recursive=True) if p.status() != psutil.STATUS_ZOMBIE]
    assert left == []


@pytest.mark.slow
def test_written_text_is_that_of_transformers(model: str) -> None:
    settings = {**LORA, "num_steps": 3, "objective": "f1"}
    first, second = (tune(model, engine, **settings) for engine in ("transformers", "sglang"))
    assert first.losses == second.losses


@pytest.mark.slow
def test_smollm2_walks_as_on_transformers(tmp_path: Path) -> None:
    """A real model: log-probabilities come of 30 layers, so of some 5 times the roundings of the small one."""
    data = shared("tasks/sst2")
    runs = []
    for engine in ("transformers", "sglang"):
        runs.append(
            mezo.mezo_finetune(
                "smollm2-135m",
                data,
                task="sst2",
                engine=engine,
                device="cpu",
                batch_size=4,
                output=tmp_path / engine,
                observer=Observer(),
                **LORA,
            )
        )
    assert_equal_walks(runs[0], runs[1], "adapter/adapter_model.safetensors", depth=5)


def test_a_model_runner_in_its_own_process_walks_as_transformers(model: str, tmp_path: Path) -> None:
    """The guide's MeZOTrainer(model_runner, lora_manager, lora_name, tokenizer)."""
    targets = ["q_proj", "k_proj", "v_proj"]
    settings = dict(LORA, lora_targets=targets, num_steps=6, batch_size=4, max_length=480, eval_every=0)
    first = tune(model, "transformers", tmp_path / "first", **settings)
    given, out = tmp_path / "given.json", tmp_path / "out.json"
    given.write_text(json.dumps({"rows": ROWS, "settings": settings}))
    done = process.run(
        [
            *(str(python_of("sglang")), "-m", "tests.engines.serving.sglang_runner"),
            *(model, str(given), str(tmp_path / "first" / "adapter"), str(out)),
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([standins(), str(ROOT / "src"), str(ROOT)])},
        capture_output=True,
        text=True,
        check=False,
        timeout=420,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(out.read_text())
    tolerance = 2 * 20 * 5 * 6e-8 / LORA["epsilon"]  # see assert_equal_walks
    for cache in (True, False):
        assert np.abs(np.array(found[f"grads, cache {cache}"]) - grads(first)).max() <= tolerance
    assert found["reuse, cache True"] > 0.5
    assert found["reuse, cache False"] < found["reuse, cache True"]
    # What is tuned further starts where the first run ended: another walk than from a new adapter.
    assert np.abs(np.array(found["further"]) - grads(first)).max() > 100 * tolerance
    assert np.abs(np.array(found["and further"]) - np.array(found["further"])).max() > 100 * tolerance
    assert found["adapters"] == ["cache-False", "cache-True", "mine"]
    assert found["leaked"] == [0, 0]
    no_trajectory, not_a_folder = found["refused"]
    assert "a trajectory could not" in no_trajectory
    assert "not from a folder" in not_a_folder
    plain: Any = hf.AutoModelForCausalLM.from_pretrained(model)
    ids = first.tokenizer(ROWS[0]["prompt"], return_tensors="pt").input_ids
    with torch.no_grad():
        expected = torch.log_softmax(plain(ids).logits[0, -1].double(), -1)[[5, 6]].tolist()
        written = plain.generate(ids, max_new_tokens=6, do_sample=False)[0, ids.shape[1] :]
    assert found["by choice"] == pytest.approx(expected, abs=1e-4)
    assert found["written"] == [first.tokenizer.decode(written, skip_special_tokens=True).partition("\n")[0]]
