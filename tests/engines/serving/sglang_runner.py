"""Run in SGLang's environment: a ModelRunner as SGLang's scheduler makes one, tuned in this process.

    python -m tests.engines.serving.sglang_runner MODEL SETTINGS ADAPTER OUT

MODEL: a folder. SETTINGS: a JSON file with rows and settings. ADAPTER: a LoRA adapter's folder. OUT: a JSON file.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("SGLANG_USE_CPU_ENGINE", "1")


def runner_of(model: str) -> tuple[Any, Any]:
    """SGLang's own way to a ModelRunner without a scheduler: that of its benchmark of one batch."""
    from sglang.benchmark import one_batch  # pyright: ignore[reportMissingImports]
    from sglang.srt.entrypoints.engine import _set_envs_and_config  # pyright: ignore[reportMissingImports]
    from sglang.srt.server_args import PortArgs, ServerArgs  # pyright: ignore[reportMissingImports]

    arguments = ServerArgs(
        model_path=model,
        dtype="float32",
        device="cpu",
        attention_backend="torch_native",
        disable_cuda_graph=True,
        max_total_tokens=4096,
        max_running_requests=16,
        enable_lora=True,
        max_lora_rank=4,
        lora_target_modules=["q_proj", "k_proj", "v_proj"],
        max_loras_per_batch=3,
        lora_backend="torch_native",
    )
    arguments.resolve_once()
    _set_envs_and_config(arguments)
    rank = one_batch.spawn_world_rank(arguments, tp_rank=0, pp_rank=0)
    one_batch.publish(arguments, role="scheduler", ranks=one_batch.SpawnRanks(world_rank=rank, gpu_id=0))
    one_batch._init_process_global_configs()
    runner, tokenizer = one_batch.load_model(arguments, PortArgs.init_new(arguments), 0, 0)
    return runner.torch_runner, tokenizer


def main(model: str, settings: str, adapter: str, out: str) -> None:
    from sglang.srt.lora.lora_registry import LoRARef  # pyright: ignore[reportMissingImports]

    from mezo.engines.output_text import OutputText
    from mezo.engines.serving.backend import Ask
    from mezo.engines.sglang.in_process import ModelRunnerBackend
    from mezo.errors import MezoError
    from mezo.events import Observer
    from mezo.sglang import MeZOTrainer
    from mezo.util.writing import Writing

    given = json.loads(Path(settings).read_text())
    runner, tokenizer = runner_of(model)
    pools = (runner.token_to_kv_pool_allocator, runner.req_to_token_pool)
    free = [pool.available_size() for pool in pools]
    found: dict[str, Any] = {}
    for cache in (True, False):
        trainer = MeZOTrainer(
            runner, runner.lora_manager, f"cache-{cache}", tokenizer, enable_kv_cache_optimization=cache
        )
        result = trainer.train(given["rows"], observer=Observer(), **given["settings"])
        found[f"grads, cache {cache}"] = [step.projected_grads for step in result.steps]
        found[f"reuse, cache {cache}"] = result.metrics["token_reuse_rate"]
    prompt = tuple(tokenizer(given["rows"][0]["prompt"]).input_ids)
    backend = ModelRunnerBackend(runner, runner.lora_manager, tokenizer)
    (tokens,) = backend.write([Ask(prompt)], Writing(6))
    found["written"] = [OutputText(tokenizer).output(tokens, Writing(6))]
    found["by choice"] = backend.score([Ask(prompt, choices=(5, 6))])[0].logprobs
    backend.close()

    ref = LoRARef(lora_name="mine", lora_path=adapter, pinned=False)
    assert runner.lora_manager.load_lora_adapter(ref).success
    further = MeZOTrainer(runner, runner.lora_manager, "mine", tokenizer)
    more = {name: value for name, value in given["settings"].items() if not name.startswith("lora")}
    result = further.train(given["rows"], observer=Observer(), **more)
    found["further"] = [step.projected_grads for step in result.steps]
    result = further.train(given["rows"], observer=Observer(), **more)
    found["and further"] = [step.projected_grads for step in result.steps]
    for again, options in (
        (further, {"output": "anywhere"}),
        (MeZOTrainer(runner, runner.lora_manager, "cache-True", tokenizer), {}),
    ):
        try:
            again.train(given["rows"], **more, **options)
        except MezoError as error:
            found.setdefault("refused", []).append(str(error))
    found["adapters"] = sorted(ref.lora_name for ref in runner.lora_manager.lora_refs.values())
    found["leaked"] = [was - pool.available_size() for was, pool in zip(free, pools, strict=True)]
    Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
