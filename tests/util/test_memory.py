"""Memory of this process: its peak, and what is given back."""

import os
import platform
from pathlib import Path

import pytest
import torch

from mezo.util import memory


def test_the_peak_counts_what_was_allocated() -> None:
    before = memory.peak_bytes()
    held = torch.ones(1 << 26)  # 256 MiB, written to
    after = memory.peak_bytes()
    assert after >= held.numel() * 4
    assert after >= before


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries keep less")
def test_what_was_freed_is_given_back() -> None:
    """Blocks that are too small to be mapped one by one stay on glibc's heap where some between them are in use."""
    blocks = [bytearray(os.urandom(1) * 60_000) for _ in range(4000)]  # 240 MB
    kept = blocks[::20]
    del blocks
    before = resident()
    memory.give_back_freed()
    assert before - resident() > 100e6
    assert len(kept) == 200
