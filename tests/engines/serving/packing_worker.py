"""A worker extension that leaves vLLM's packing of matrices on, as one that forgot about it would."""

import vllm._custom_ops as ops  # pyright: ignore[reportMissingImports]

from mezo.engines.workers.vllm import MezoWorker

ops._supports_onednn = True


class Packing(MezoWorker):
    pass
