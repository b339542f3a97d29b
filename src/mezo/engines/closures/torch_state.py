"""What every evaluation of a step starts from: the same buffers and the same random state."""

import torch
from torch import nn

_SMALL = 1 << 20  # elements of a buffer that is put back without a look at whether it was written


class Buffers:
    """A module's buffers, put back after each probe.

    Large ones only if their version says that they were written; small ones always, since batch_norm writes its
    statistics without a new version.
    """

    def __init__(self, module: nn.Module | None):
        self._owners = [] if module is None else [m for m in module.modules() if m._buffers]
        self._kept: list[tuple[nn.Module, str, torch.Tensor, int, torch.Tensor]] = []

    def keep(self) -> None:
        """Take the buffers as they are for what they are to be after each probe."""
        before = {(id(m), key): (x, version, copy) for m, key, x, version, copy in self._kept}
        self._kept = []
        for module in self._owners:
            for key, x in module._buffers.items():
                if x is None or x.is_meta or x.is_inference():
                    continue
                old, version, copy = before.get((id(module), key), (None, -1, None))
                if copy is None or old is not x or version != x._version or x.numel() <= _SMALL:
                    copy = x.detach().clone()
                self._kept.append((module, key, x, x._version, copy))

    def put_back(self) -> None:
        for n, (module, key, x, version, copy) in enumerate(self._kept):
            if x.numel() <= _SMALL or x._version != version:
                x.detach().copy_(copy)
                self._kept[n] = module, key, x, x._version, copy
            if module._buffers.get(key) is not x:
                module._buffers[key] = x


class RandomState:
    """A snapshot of torch's random state: common random numbers for all probes."""

    def __init__(self) -> None:
        self.cpu = torch.get_rng_state()
        self.cuda = (
            torch.cuda.get_rng_state_all()
            if torch.cuda.is_available() and torch.cuda.is_initialized()
            else None
        )

    def restore(self) -> None:
        torch.set_rng_state(self.cpu)
        if self.cuda is not None:
            torch.cuda.set_rng_state_all(self.cuda)
