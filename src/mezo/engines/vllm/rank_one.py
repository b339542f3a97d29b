"""Inside every worker of vLLM whose weights are tuned along noise of rank one: probes are adapters over weights that move.

llm = LLM(..., worker_extension_cls=EXTENSION)
"""

from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU  # pyright: ignore[reportMissingImports]

from mezo.engines.vllm.adapters import MezoAdapters
from mezo.engines.vllm.products import install
from mezo.engines.workers.vllm import MezoWorker  # which turns the packing of weights off

EXTENSION = f"{__name__}.MezoRankOne"

install(PunicaWrapperCPU)


class MezoRankOne(MezoWorker, MezoAdapters):
    """What every worker of vLLM inherits besides its own class: one extension is all that it takes."""
