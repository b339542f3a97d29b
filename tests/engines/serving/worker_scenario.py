"""Run by an engine's own interpreter: full-parameter steps inside its workers, told as JSON.

    python worker_scenario.py ENGINE SPEC.json RESULT.json

SPEC: {"model": folder, "tp": n, "dtype", "shapes", "tied", "seeds", "epsilon", "learning_rate", "keep",
"rounding", "rows": token rows}. RESULT: checksums at theta, at the first probe and back again; then for each step its projected
gradient, of the mean log-probability of all tokens but the first; then the checksums at the end. Or
{"error": why}.
"""

import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mezo.engines.workers.group import Workers
from mezo.engines.workers.shard_map import Logical
from mezo.errors import MezoError
from mezo.optimizers import SGD
from mezo.types import Direction, Probe, Update

Rows = list[list[int]]
Score = Callable[[Rows], float]
Started = tuple[Callable[[str, dict[str, Any]], list[dict[str, Any]]], Score, Callable[[], None]]


def start_sglang(spec: dict[str, Any]) -> Started:
    """(ask the workers, mean loss of rows, end the engine)."""
    os.environ["SGLANG_USE_CPU_ENGINE"] = "1"
    from sglang import Engine  # pyright: ignore[reportMissingImports]

    from mezo.engines.workers.sglang import LOADER, read_answers, request

    engine = Engine(
        model_path=spec["model"],
        device="cpu",
        dtype=spec["dtype"],
        tp_size=spec["tp"],
        attention_backend="torch_native",
        disable_cuda_graph=True,
        max_total_tokens=2048,
        max_running_requests=16,
        context_length=128,
        random_seed=0,
        skip_server_warmup=True,
        skip_tokenizer_init=True,
        custom_weight_loader=[LOADER],
    )

    def call(operation: str, arguments: dict[str, Any]) -> list[dict[str, Any]]:
        with tempfile.TemporaryDirectory() as folder:
            for result in (
                engine.begin_weight_update(selector="target"),
                engine.update_weights_from_tensor(
                    request(operation, arguments, Path(folder)), load_format=LOADER, flush_cache=True
                ),
                engine.end_weight_update(),
            ):
                assert result[0], result
            return read_answers(Path(folder), spec["tp"])

    def score(rows: Rows) -> float:
        answers: Any = engine.generate(
            input_ids=rows,
            sampling_params={"max_new_tokens": 0, "temperature": 0},
            return_logprob=True,
            logprob_start_len=0,
        )
        values = [entry[0] for a in answers for entry in a["meta_info"]["input_token_logprobs"][1:]]
        return -float(np.mean(values))

    return call, score, engine.shutdown


def start_vllm(spec: dict[str, Any]) -> Started:
    """As `start_sglang`."""
    from vllm import LLM, SamplingParams  # pyright: ignore[reportMissingImports]

    llm = LLM(
        spec["model"],
        dtype=spec["dtype"],
        tensor_parallel_size=spec["tp"],
        enforce_eager=True,
        block_size=32,
        max_model_len=128,
        max_num_seqs=16,
        max_num_batched_tokens=1024,
        skip_tokenizer_init=True,
        worker_extension_cls=spec["extension"],
    )

    def call(operation: str, arguments: dict[str, Any]) -> list[dict[str, Any]]:
        answers = llm.collective_rpc("mezo", args=(operation, arguments))
        llm.reset_prefix_cache()
        return answers

    def score(rows: Rows) -> float:
        asked = SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=0, detokenize=False)
        answers = llm.generate([{"prompt_token_ids": row} for row in rows], asked, use_tqdm=False)
        values = [
            entry[token].logprob
            for row, answer in zip(rows, answers, strict=True)
            for token, entry in zip(row[1:], answer.prompt_logprobs[1:], strict=True)  # type: ignore[index]
        ]
        return -float(np.mean(values))

    return call, score, lambda: None


def walk(spec: dict[str, Any], call: Callable[..., Any], score: Score) -> dict[str, Any]:
    shapes = {name: tuple(shape) for name, shape in spec["shapes"].items()}
    optimizer = SGD(rounding=spec["rounding"])
    workers = Workers(
        call,
        Logical(shapes, tied=spec["tied"]),
        optimizer=optimizer,
        keep=spec["keep"],
        restore_every=4,
        checkpoint=spec["model"],
        workers=spec["tp"],
    )
    result: dict[str, Any] = {"keep": workers.keep, "unverified": workers.unverified}
    epsilon, rows = spec["epsilon"], spec["rows"]
    result["theta"] = workers.checksums()
    workers.go(Probe(spec["seeds"][0], epsilon))
    result["probe"] = workers.checksums()
    workers.restore()
    result["back"] = workers.checksums()
    result["grads"], result["walked"] = [], []
    for step, seed in enumerate(spec["seeds"]):
        losses = []
        for sign in (1, -1):
            workers.go(Probe(seed, sign * epsilon))
            losses.append(score(rows))
        grad = float(np.float32((losses[0] - losses[1]) / (2 * epsilon)))
        walked = workers.apply(Update(step, spec["learning_rate"], (Direction(seed, grad),), 1))
        result["grads"].append(grad)
        result["walked"].append(None if walked is None else [walked.steps, walked.largest, walked.relative])
    workers.restore()
    result["end"] = workers.checksums()
    result["loss"] = score(rows)
    return result


def main() -> None:
    engine, spec, out = sys.argv[1], json.loads(Path(sys.argv[2]).read_text()), Path(sys.argv[3])
    call, score, close = {"sglang": start_sglang, "vllm": start_vllm}[engine](spec)
    try:
        result = walk(spec, call, score)
    except MezoError as error:
        result = {"error": str(error)}
    out.write_text(json.dumps(result))
    close()


if __name__ == "__main__":  # engines start their workers by importing this file again
    main()
