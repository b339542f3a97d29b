"""Inside every worker of vLLM whose weights are tuned along noise of rank one: probes are adapters over weights that move.

    llm = LLM(..., worker_extension_cls=EXTENSION)

Without a GPU, vLLM's fast products are of weights that oneDNN has packed, so a packed copy is made again after
each update. The weights themselves are kept, as the workers move them.
"""

from typing import Any

import torch
import vllm._custom_ops as ops  # pyright: ignore[reportMissingImports]
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU  # pyright: ignore[reportMissingImports]

from mezo.engines.vllm.adapters import MezoAdapters
from mezo.engines.vllm.products import install
from mezo.engines.workers.vllm import MezoWorker  # which turns the packing of weights off

EXTENSION = f"{__name__}.MezoRankOne"

install(PunicaWrapperCPU)


class MezoRankOne(MezoWorker, MezoAdapters):
    """What every worker of vLLM inherits besides its own class: one extension is all that it takes."""

    def mezo(self, operation: str, arguments: dict[str, Any]) -> dict[str, Any]:
        answer = super().mezo(operation, arguments)
        if operation in ("configure", "update"):
            _pack(self.model_runner.get_model(), every=operation == "configure")
        return answer


def _pack(model: torch.nn.Module, *, every: bool) -> None:
    """Have the products of the layers under adapters, or of every one, computed with what their weights are now."""
    if not hasattr(torch.ops._C, "create_onednn_mm_handler"):
        return
    for path, layer in model.named_modules():
        weight = getattr(layer, "weight", None)
        chosen = "cpu_linear" in vars(layer) and (every or path.endswith(".base_layer"))
        if chosen and weight is not None and weight.dim() == 2 and weight.device.type == "cpu":
            handler = ops.create_onednn_mm(weight.t(), 32)  # as vLLM has it
            layer.cpu_linear = _by(handler)


def _by(handler: Any) -> Any:
    return lambda x, weight, bias: ops.onednn_mm(handler, x, bias)
