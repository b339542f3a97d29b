"""SGLang and vLLM load the folders that a run saves: RUN/model and RUN/adapter."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from tests.engines.serving.conftest import need, standins
from tests.engines.serving.envs import python_of
from tests.engines.serving.runs import tiny_llama, trainer
from transformers import AutoModelForCausalLM, AutoTokenizer

pytestmark = pytest.mark.engine


@pytest.mark.parametrize("engine", ["sglang", "vllm"])
def test_an_engine_loads_what_a_run_saved(engine: str, engine_env: None, tmp_path: Path) -> None:
    need(engine)
    base = tiny_llama(tmp_path / "base")
    # Steps so long that both the weights and the adapter change what is written.
    common: dict[str, Any] = dict(num_steps=3, eval_every=0, schedule="constant", learning_rate=0.05)
    trainer(base, tmp_path / "full", tuning="full", **common).train()
    model = tmp_path / "full" / "model"
    trainer(model, tmp_path / "lora", tuning="lora", lora_rank=4, **{**common, "learning_rate": 0.5}).train()
    adapter = tmp_path / "lora" / "adapter"
    prompt = AutoTokenizer.from_pretrained(model)("The team of ticket 7:").input_ids
    script = Path(__file__).parent / "load_saved.py"
    environment = {**os.environ, "PYTHONPATH": standins() if engine == "sglang" else ""}
    done = subprocess.run(
        [str(python_of(engine)), str(script), engine, str(model), str(adapter), json.dumps(prompt)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=420,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    plain: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    expected = [written(plain, prompt), written(PeftModel.from_pretrained(plain, str(adapter)), prompt)]
    assert expected[0] != expected[1]
    (found,) = (line for line in done.stdout.splitlines() if line.startswith("[["))  # the engines talk, too
    assert json.loads(found) == expected


def written(model: Any, prompt: list[int]) -> list[int]:
    """Six tokens, greedily, whatever ends an answer."""
    ids = torch.tensor([prompt])
    with torch.no_grad():
        for _ in range(6):
            ids = torch.cat([ids, model(input_ids=ids).logits[:, -1:].argmax(-1)], dim=1)
    return ids[0, len(prompt) :].tolist()
