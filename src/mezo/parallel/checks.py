"""That all processes of a run hold the same: before it starts everything it is made of, later their weights."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import blake2b

import numpy as np
import torch

from mezo.errors import MezoError
from mezo.parallel.group import Apart, ProcessGroup
from mezo.weights.weights import Weights

_WORDS = 1 << 13  # 8-byte words that are summed to one


class Diverged(Apart):
    """The weights of one process are not those of the others."""


def theta_checksum(weights: Weights) -> int:
    """64 bits, signed, of every byte of the tuned tensors, read once.

    Hashed sums of 64 kB blocks: no single bit and no misplaced block goes unnoticed, at the cost of reading the
    weights.
    """
    digest = blake2b(digest_size=8)
    for t in weights.tunables:
        raw = t.tensor.detach().contiguous().view(-1).view(torch.uint8)
        if raw.data_ptr() % 8 or raw.storage_offset() % 8:  # somewhere inside a file that was mapped
            raw = raw.clone()
        whole = raw.numel() // (8 * _WORDS) * (8 * _WORDS)
        if whole:
            sums = raw[:whole].view(torch.int64).view(-1, _WORDS).sum(1)
            digest.update(sums.cpu().numpy().tobytes())
        digest.update(raw[whole:].cpu().numpy().tobytes())
    return int.from_bytes(digest.digest(), "little", signed=True)


class Watchman:
    """Compares the weights of all processes before every so many steps."""

    def __init__(self, group: ProcessGroup, every: int) -> None:
        self.group, self.every = group, every
        self.agreed = 0  # steps, since the start of this process, after which they were last the same

    def is_due(self, step: int) -> bool:
        return self.every > 0 and step % self.every == 0

    def compare(self, checksums: Sequence[int] | np.ndarray, step: int) -> None:
        """checksums: of every rank, in order. Raises Diverged, naming who is alone."""
        for part in range(self.group.tensor):
            ranks = range(part, self.group.size, self.group.tensor)
            found = {rank: int(checksums[rank]) for rank in ranks}
            most, count = Counter(found.values()).most_common(1)[0]
            others = [rank for rank, value in found.items() if value != most]
            if others:
                sure = 2 * count > len(found)
                names = ", ".join(str(rank) for rank in (others if sure else found))
                raise Diverged(
                    (f"the weights of rank {names} are not those of the others" if sure else "")
                    + ("" if sure else f"the weights of ranks {names} differ, and there is no majority")
                    + f", {step} steps after this start; they were the same after {self.agreed}. Nothing more is written: "
                    "that machine's memory or processor is at fault. Base model and trajectory give the right weights: "
                    "replace it, and go on with --resume RUN"
                )
        self.agreed = step


def agree(group: ProcessGroup, facts: Mapping[str, object]) -> None:
    """facts: what must be the same everywhere, by name. Raises MezoError for the first that is not, naming who."""
    if group.size == 1:
        return
    everybody = group.records(
        {name: json.dumps(value, sort_keys=True, default=str) for name, value in facts.items()}
    )
    for name in facts:
        values = [theirs.get(name) for theirs in everybody]
        most = Counter(values).most_common(1)[0][0]
        if others := [rank for rank, value in enumerate(values) if value != most]:
            raise MezoError(
                f"the processes of this run differ in their {name}: ranks {', '.join(map(str, others[:8]))} of "
                f"{group.size} have {_shown(values[others[0]])}, the others {_shown(most)}; give all the same"
            )


def _shown(value: str | None) -> str:
    text = "none" if value is None else value.strip('"')
    return text if len(text) <= 80 else text[:77] + "..."
