"""Memory of this process: its peak."""

import torch

from mezo.util import memory


def test_the_peak_counts_what_was_allocated() -> None:
    before = memory.peak_bytes()
    held = torch.ones(1 << 26)  # 256 MiB, written to
    after = memory.peak_bytes()
    assert after >= held.numel() * 4
    assert after >= before
