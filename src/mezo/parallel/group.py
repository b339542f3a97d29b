"""The processes of a run, and their messages: a few bytes a step, in a fixed order.

The processes are laid out as (data, model): `tensor` neighbouring ranks share one copy of the weights, and the copies
share a step's probes. Copies exchange losses on the host, by gloo; sums inside a cut model use NCCL on GPUs.
"""

import atexit
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import numpy as np

from mezo.errors import MezoError
from mezo.parallel.environment import launched


class Apart(MezoError):
    """The processes of a run can no longer act as one. Nothing more is written; what was is whole."""


class RankLost(Apart):
    """Another process of the run is gone, or did not answer in time."""


@dataclass
class ProcessGroup:
    """All processes of a run; alone, it has one rank, and nothing is sent."""

    rank: int = 0
    size: int = 1
    tensor: int = 1  # processes that share one copy of the weights
    within: Any = None  # torch's process group of these, for the model's own sums
    timeout: float = 600.0  # seconds
    sent: int = field(default=0, init=False)  # bytes of messages that this process gave away

    @property
    def copies(self) -> int:
        """Copies of the weights, among which a step is shared."""
        return self.size // self.tensor

    @property
    def copy(self) -> int:
        return self.rank // self.tensor

    @property
    def part(self) -> int:
        """Which part of its copy of the weights this process holds."""
        return self.rank % self.tensor

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes files and speaks to people."""
        return self.rank == 0

    def name(self, rank: int) -> str:
        return f"rank {rank} of {self.size}"

    def gather(self, message: np.ndarray) -> np.ndarray:
        """(size, n): every process's `message`, (n,) int64, in the order of ranks.

        Raises RankLost if one of them is gone or silent for longer than the timeout.
        """
        if self.size == 1:
            return message[None].copy()
        import torch
        import torch.distributed as dist

        mine = torch.from_numpy(np.ascontiguousarray(message, dtype=np.int64))
        out = [torch.empty_like(mine) for _ in range(self.size)]
        try:
            dist.all_gather(out, mine)
        except RuntimeError as error:
            raise self.lost(error) from None
        self.sent += mine.numel() * mine.element_size()
        return torch.stack(out).numpy()

    def texts(self, text: str) -> list[str]:
        """Every process's text, in the order of ranks. For the start of a run, not for its steps."""
        raw = text.encode()
        lengths = self.gather(np.array([len(raw)]))[:, 0]
        padded = np.zeros(-(-max(1, int(lengths.max())) // 8), dtype=np.int64)
        padded.view(np.uint8)[: len(raw)] = np.frombuffer(raw, dtype=np.uint8)
        rows = self.gather(padded)
        return [row.view(np.uint8)[:n].tobytes().decode() for row, n in zip(rows, lengths, strict=True)]

    def records(self, record: Any) -> list[Any]:
        """Every process's JSON value, in the order of ranks."""
        return [json.loads(text) for text in self.texts(json.dumps(record))]

    def add_up(self, tensor: Any) -> None:
        """tensor <- its sum over the processes that share this copy of the weights, the same bits on all of them."""
        import torch.distributed as dist

        try:
            dist.all_reduce(tensor, group=self.within)
        except RuntimeError as error:
            raise self.lost(error) from None

    def parts(self, tensor: Any) -> "list[Any] | None":
        """What the processes that share this copy of the weights hold as `tensor`, in order, on the leader; else
        None.

        tensor: of the same shape on all of them. All processes must call it.
        """
        import torch
        import torch.distributed as dist

        first = self.copy * self.tensor
        out = [torch.empty_like(tensor) for _ in range(self.tensor)] if self.part == 0 else None
        try:
            dist.gather(tensor, out, dst=first, group=self.within)
        except RuntimeError as error:
            raise self.lost(error) from None
        return out if self.leads else None

    def lost(self, error: Exception) -> RankLost:
        reason = re.sub(r"\[?/\S*\]", "", " ".join(str(error).split())).strip()  # its source's place and line
        late = "timed out" in reason.lower() or "timeout" in reason.lower()
        what = f"did not answer for {self.timeout:g} seconds" if late else "is gone"
        return RankLost(
            f"{self.name(self.rank)}: another process of this run {what}; it stopped after the last whole step. "
            f"torchrun --max-restarts starts all of them again; or start them with --resume RUN ({reason[:160]})"
        )


_joined: ProcessGroup | None = None


def join(tensor: int = 1, timeout: float = 600.0, *, cuda: bool = False) -> ProcessGroup:
    """The group that this process was started in, once; alone without torchrun.

    tensor: processes that share one copy of the weights. timeout: seconds to wait for another process.
    Raises MezoError if the processes cannot be laid out so, or do not find each other.
    """
    global _joined
    if not launched():
        if tensor > 1:
            raise MezoError(
                f"tensor_parallel={tensor} needs {tensor} processes, found one: start them with "
                f"torchrun --nproc-per-node {tensor} -m mezo train ..."
            )
        return ProcessGroup()
    if _joined is None or (_joined.tensor, _joined.timeout) != (tensor, timeout):
        _joined = _join(tensor, timeout, cuda)
    return _joined


def _join(tensor: int, timeout: float, cuda: bool) -> ProcessGroup:
    import torch
    import torch.distributed as dist
    from torch.distributed.rendezvous import rendezvous

    size = int(os.environ["WORLD_SIZE"])
    if size % tensor:
        raise MezoError(
            f"tensor_parallel={tensor} does not divide the {size} processes that torchrun started: "
            f"start a multiple of {tensor}"
        )
    wait = timedelta(seconds=timeout)
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    if not dist.is_initialized():
        try:
            store, rank, _ = next(rendezvous("env://", timeout=wait))
            # the store outlives a restart: without a name of its own, this start would read the addresses
            # of processes that are gone
            start = f"mezo/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}/{size}"
            own = dist.PrefixStore(start, store)  # pyright: ignore[reportPrivateImportUsage]
            backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
            dist.init_process_group(backend, store=own, rank=rank, world_size=size, timeout=wait)
        except (RuntimeError, ValueError) as error:
            raise MezoError(
                f"the {size} processes of this run did not find each other within {timeout:g} seconds: "
                f"{' '.join(str(error).split())[:200]}"
            ) from None
        atexit.register(leave)
    group = ProcessGroup(dist.get_rank(), size, tensor, timeout=timeout)
    if tensor > 1:
        for first in range(0, size, tensor):
            made = dist.new_group(list(range(first, first + tensor)), timeout=wait)
            if first == group.copy * tensor:
                group.within = made
    return group


def leave() -> None:
    """Say good-bye to the others; does nothing without any."""
    global _joined
    if _joined is not None:
        import torch.distributed as dist

        if dist.is_initialized():
            dist.destroy_process_group()
        _joined = None


def shares(count: int, among: int) -> Sequence[range]:
    """range(count) cut into `among` parts that follow one another and differ by one at most."""
    return [range(k * count // among, (k + 1) * count // among) for k in range(among)]
