"""`mezo.engines.workers.worker` inside SGLang: requests come as a tensor of bytes, answers go through a folder.

SGLang calls a custom weight loader, `apply(model, named_tensors)`, in every tensor-parallel worker, and returns only
whether it raised. So a request names a folder, shared by the workers, for every worker's answer.

    engine = Engine(..., custom_weight_loader=[LOADER])
    engine.begin_weight_update(selector="target")
    engine.update_weights_from_tensor(request("probe", {...}, folder), load_format=LOADER)
    engine.end_weight_update()
    answers = read_answers(folder, workers=tp_size)
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mezo.engines.workers.worker import handle
from mezo.errors import MezoError

LOADER = f"{__name__}.apply"
_REQUEST = "mezo.request"


def request(operation: str, arguments: dict[str, Any], folder: Path) -> list[tuple[str, torch.Tensor]]:
    """What to send to the workers; `folder` must be empty."""
    asked = json.dumps({"operation": operation, "arguments": arguments, "folder": str(folder)})
    return [(_REQUEST, torch.frombuffer(bytearray(asked.encode()), dtype=torch.uint8))]


def apply(model: torch.nn.Module, named_tensors: Sequence[tuple[str, torch.Tensor]]) -> None:
    """Called by SGLang in each worker."""
    sent = dict(named_tensors)
    if set(sent) != {_REQUEST}:
        raise MezoError(f"{LOADER} loads no weights: expected one tensor {_REQUEST!r}, found {sorted(sent)}")
    asked = json.loads(bytes(sent[_REQUEST].cpu().numpy()))
    answer = handle(model, asked["operation"], asked["arguments"])
    # tensor-parallel workers only: neither pipeline nor data parallelism is asked for
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    path = Path(asked["folder"]) / f"{rank}.json"
    part = path.with_suffix(".part")
    part.write_text(json.dumps(answer))
    os.replace(part, path)  # not synced: what is read at once need not outlive the machine


def read_answers(folder: Path, workers: int) -> list[dict[str, Any]]:
    """The answers by rank. Raises MezoError if a worker left none."""
    found = []
    for rank in range(workers):
        path = folder / f"{rank}.json"
        if not path.exists():
            raise MezoError(f"worker {rank} of {workers} did not answer: its file {path} is missing")
        found.append(json.loads(path.read_text()))
        path.unlink()
    return found
