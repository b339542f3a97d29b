"""`mezo.engines.workers.worker` inside vLLM: the extension that adds it to every worker.

    llm = LLM(..., worker_extension_cls=EXTENSION)
    answers = llm.collective_rpc("mezo", args=("probe", {...}))

On a CPU, vLLM packs the matrix of every linear layer for oneDNN when the model is loaded and leaves an
empty parameter behind, which can be perturbed without any effect. Importing this module, which vLLM
does before it loads a model, turns that off.
"""

from typing import Any

import vllm._custom_ops as ops  # pyright: ignore[reportMissingImports]

from mezo.engines.workers.worker import handle

EXTENSION = f"{__name__}.MezoWorker"

ops._supports_onednn = False


class MezoWorker:
    """What every worker of vLLM inherits besides its own class."""

    model_runner: Any

    def mezo(self, operation: str, arguments: dict[str, Any]) -> dict[str, Any]:
        return handle(self.model_runner.get_model(), operation, arguments)
