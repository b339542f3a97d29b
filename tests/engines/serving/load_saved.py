"""Run in an engine's environment, without this package: what the engine answers with a folder that a run saved.

    python load_saved.py ENGINE MODEL ADAPTER PROMPT-IDS

Prints a JSON list: the tokens that the model writes greedily, and those that it writes with the adapter.
"""

import json
import os
import sys

if __name__ == "__main__":  # engines start processes of their own, which import this file
    engine, model, adapter, prompt = sys.argv[1], sys.argv[2], sys.argv[3], json.loads(sys.argv[4])
    if engine == "sglang":
        os.environ.setdefault("SGLANG_USE_CPU_ENGINE", "1")
        from sglang import Engine  # pyright: ignore[reportMissingImports, reportAttributeAccessIssue]

        started = Engine(
            model_path=model,
            dtype="float32",
            device="cpu",
            attention_backend="torch_native",
            disable_cuda_graph=True,
            max_total_tokens=2048,
            max_running_requests=8,
            skip_server_warmup=True,
            log_level="error",
            enable_lora=True,
            lora_paths={"saved": adapter},
            max_loras_per_batch=2,
            lora_backend="torch_native",
        )
        settings = {"max_new_tokens": 6, "temperature": 0, "ignore_eos": True}
        found = [
            started.generate(input_ids=[prompt], sampling_params=settings, lora_path=[name])[0]["output_ids"]
            for name in (None, "saved")
        ]
        started.shutdown()
    else:
        from vllm import LLM, SamplingParams  # pyright: ignore[reportMissingImports, reportAttributeAccessIssue]
        from vllm.lora.request import LoRARequest  # pyright: ignore[reportMissingImports]

        llm = LLM(
            model=model,
            dtype="float32",
            max_model_len=256,
            enforce_eager=True,
            enable_lora=True,
            max_lora_rank=8,
            max_loras=2,
        )
        sampling = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True)
        found = [
            list(
                llm.generate({"prompt_token_ids": prompt}, sampling, lora_request=request)[0]
                .outputs[0]
                .token_ids
            )
            for request in (None, LoRARequest("saved", 1, adapter))
        ]
    print("\n" + json.dumps(found))
