"""Several ranks as threads of this process, and as processes that torchrun starts."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from tests.tiny_models import tiny
from tests.toys import byte_tokenizer

from mezo.engines.transformers.engine import TransformersEngine
from mezo.objectives import OBJECTIVES
from mezo.optimizers import SGD
from mezo.parallel.group import ProcessGroup
from mezo.scoring import Example
from mezo.weights.low_rank_noise import Kind
from mezo.weights.weights import Weights

T = TypeVar("T")
WORDS = (" great", " terrible")
_MAKING = threading.Lock()
LIMIT = 240  # seconds that a run of several processes may take; a hang fails the test, and nothing else


@dataclass
class _Table:
    """Where the ranks of a process meet."""

    size: int
    places: dict[int, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.barrier = threading.Barrier(self.size, timeout=60)

    def exchange(self, place: int, value: T) -> list[T]:
        """Everybody's value, in order."""
        self.places[place] = value
        self.barrier.wait()
        found = [self.places[n] for n in range(self.size)]
        self.barrier.wait()
        return found


@dataclass
class ThreadGroup(ProcessGroup):
    """A rank that is a thread: says and hears what a process would."""

    table: Any = None  # of all ranks
    model_table: Any = None  # of those that share a copy of the weights

    def gather(self, message: np.ndarray) -> np.ndarray:
        self.sent += message.nbytes
        return np.stack(self.table.exchange(self.rank, message.copy()))

    def add_up(self, tensor: Any) -> None:
        parts = self.model_table.exchange(self.part, tensor.clone())
        tensor.copy_(torch.stack(parts).sum(0))

    def parts(self, tensor: Any) -> list[Any] | None:
        found = self.model_table.exchange(self.part, tensor)
        return found if self.leads else None


def in_threads(size: int, work: Callable[[ProcessGroup], T], *, tensor: int = 1) -> list[T]:
    """What `work` returns on each of `size` ranks; the first error, if there is one."""
    table, copies = _Table(size), [_Table(tensor) for _ in range(size // tensor)]
    groups = [
        ThreadGroup(rank, size, tensor, table=table, model_table=copies[rank // tensor])
        for rank in range(size)
    ]
    with ThreadPoolExecutor(size) as pool:
        futures = [pool.submit(work, group) for group in groups]
        return [future.result(timeout=120) for future in futures]


def toy_model(dtype: torch.dtype = torch.float32) -> Any:
    """The same tiny Llama for every thread: torch's random state, from which it is made, is one for all."""
    with _MAKING:
        return tiny("llama", dtype)


def toy_engine(model: Any = None, noise: Kind = "gaussian") -> TransformersEngine:
    """Of a tiny Llama, all of which is tuned."""
    model = toy_model() if model is None else model
    weights = Weights(model.named_parameters(), kind=noise)
    return TransformersEngine(
        model, weights, OBJECTIVES["candidate-ce"], SGD(), kind="causal", pad_token_id=0
    )


def toy_batches(count: int, size: int = 3) -> list[list[Example]]:
    """Microbatches of rows of unlike lengths."""
    drawn = np.random.RandomState(1)

    def text(n: int) -> tuple[int, ...]:
        return tuple(int(t) for t in drawn.randint(4, 290, n))

    return [[Example(text(3 + (m + i) % 4), ((7,), (9,)), i % 2) for i in range(size)] for m in range(count)]


# ---------------------------------------------------------------- processes


def base_and_data(folder: Path) -> list[str]:
    """A tiny model and examples in `folder`; the arguments of `mezo train` that name them."""
    tiny("llama").save_pretrained(folder / "base")
    byte_tokenizer(words=WORDS).save_pretrained(folder / "base")
    texts = ("gab", "hat", "gig", "hub", "get", "him", "god", "hen") * 4
    rows = [{"sentence": s, "label": int(s.startswith("g"))} for s in texts]
    (folder / "data").mkdir()
    for split in ("train", "validation"):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "data" / f"{split}.jsonl").write_text(lines)
    return [
        *("--model", str(folder / "base"), "--data", str(folder / "data"), "--task", "sst2"),
        *("--batch-size", "4", "--learning-rate", "1e-3", "--seed", "2", "--rank-timeout", "60"),
    ]


def environment() -> dict[str, str]:
    """One thread a process, so that several and one compute alike."""
    source = Path(__file__).parents[2] / "src"
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(source)}


def command(processes: int, arguments: Sequence[str], *, restarts: int = 0) -> list[str]:
    """`mezo train` with these arguments in so many processes."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    started = [*launcher, f"--max-restarts={restarts}"] if processes > 1 else []
    return [sys.executable, *started, "-m", "mezo", "train", *arguments]


def train(processes: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(processes, arguments),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
