"""What vLLM's backend answers, row by row and all at once, and what a cache answers that it is not kept from.

    python vllm_scenario.py SPEC RESULT

Run in the environment that has vLLM, by `test_vllm_backend.py`. SPEC: {"model", "lora", "config", "adapters": {name:
safetensors file}, "rows": [[tokens, start, choices]]}. RESULT: answers as [logprobs, prompt tokens, cached tokens].
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save

from mezo.engines.serving.backend import Answer, Ask, EngineSpec, LoraSpec
from mezo.engines.vllm import backend as vllm
from mezo.errors import MezoError
from mezo.util.writing import Writing


def listed(answers: list[Answer]) -> list[Any]:
    return [[a.logprobs, a.prompt_tokens, a.cached_tokens] for a in answers]


def score(backend: vllm.VLLM, rows: list[Ask], names: list[str]) -> dict[str, Any]:
    """The rows at every adapter: in one call, again from what that left in the cache, and each on its own."""
    asks = [replace(row, adapter=name) for name in names for row in rows]
    together, again, alone = backend.score(asks), backend.score(asks), []
    for ask in asks:
        backend.flush()
        alone += backend.score([ask])
    return {"together": listed(together), "again": listed(again), "alone": listed(alone)}


def forced_reuse(
    backend: vllm.VLLM, row: Ask, first: str, second: str, spec: dict[str, Any]
) -> dict[str, Any]:
    """Another adapter put in the place of a loaded one, which no call of the backend does."""
    asks = [replace(row, adapter=first)]
    before = backend.score(asks)
    number = backend._loaded[first].lora_int_id
    backend.llm.collective_rpc("remove_lora", args=(number,))
    tensors = save(load_file(spec["adapters"][second]))
    backend.llm.collective_rpc("mezo_adapter", args=(number, tensors, spec["config"]))
    stale = backend.score(asks)
    backend.flush()
    return {"before": listed(before), "stale": listed(stale), "true": listed(backend.score(asks))}


def refused(backend: vllm.VLLM, name: str, spec: dict[str, Any]) -> str:
    try:
        backend.load_adapter(name, load_file(spec["adapters"][name]), spec["config"])
    except MezoError as error:
        return str(error)
    return ""


def main() -> None:
    spec, out = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    asked = spec["lora"]
    lora = LoraSpec(**asked | {"matrices": tuple(asked["matrices"])})
    backend = vllm.start(EngineSpec(spec["model"], max_length=256, lora=lora))
    rows = [Ask(tuple(tokens), start, choices=tuple(choices)) for tokens, start, choices in spec["rows"]]
    for name in ("plus", "minus"):
        backend.load_adapter(name, load_file(spec["adapters"][name]), spec["config"])
    result: dict[str, Any] = {"probes": score(backend, rows, ["plus", "minus"])}
    for name in ("plus", "minus"):
        backend.unload_adapter(name)
    result["refused"] = refused(backend, "plus", spec)
    backend.load_adapter("after", load_file(spec["adapters"]["after"]), spec["config"])
    result["after"] = score(backend, rows, ["after"])
    result["written"] = backend.write([Ask(r.tokens, adapter="after") for r in rows[:2]], Writing(5))
    result["reused"] = forced_reuse(backend, rows[0], "after", "minus", spec)
    many = [f"many-{n}" for n in range(lora.at_once + 3)]
    for n, name in enumerate(many):
        file = spec["adapters"][("plus", "minus")[n % 2]]
        backend.load_adapter(name, load_file(file), spec["config"])
    result["many"] = listed(backend.score([replace(rows[0], adapter=name) for name in many]))
    out.write_text(json.dumps(result))
    backend.close()


if __name__ == "__main__":  # vLLM starts its workers by importing this file again
    main()
