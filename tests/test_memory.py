"""Memory of this process: its peak, and pages of libraries given back."""

import sys

import pytest
import torch

from mezo import memory, noise

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads Linux's /proc/self/smaps")


def resident(name: str) -> int:
    """kB of the library's pages that were never altered."""
    with open("/proc/self/smaps", errors="replace") as file:
        mappings = memory._mappings(file.read())
    return sum(
        int(fields["Rss"]) - int(fields["Private_Dirty"])
        for _, _, path, fields in mappings
        if path.rsplit("/", 1)[-1].startswith(name)
    )


def test_the_peak_counts_what_was_allocated() -> None:
    before = memory.peak_bytes()
    held = torch.ones(1 << 26)  # 256 MiB, written to
    after = memory.peak_bytes()
    assert after >= held.numel() * 4
    assert after >= before


@linux
def test_a_library_gives_its_pages_back_and_goes_on_working() -> None:
    a = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    before = a @ a, torch.linalg.svd(a).S
    held = resident("libtorch_cpu")
    assert memory.release_library("libtorch_cpu") > 0
    assert resident("libtorch_cpu") < held
    assert torch.equal(before[0], a @ a)
    assert torch.equal(before[1], torch.linalg.svd(a).S)


@linux
def test_no_such_library_is_nothing_to_give_back() -> None:
    assert memory.release_library("libno-such-thing") == 0


@linux
def test_the_compiler_of_the_kernels_is_given_back_and_compiles_again() -> None:
    weight = torch.zeros(1, 1000)
    where = noise.Where(noise.tensor_id("a"))
    first = torch.empty_like(weight)
    noise.perturb(weight, where, 7, 1.0, first)
    from mezo.noise.cpu_kernels import perturb_bf16, perturb_fp32

    for native in (perturb_fp32, perturb_bf16):
        native.__dict__.pop("callback", None)
        assert native.callback.address  # loaded from the cache or compiled, whichever
        held = resident("libllvmlite")
        assert held < 20_000, "the compiler's code is still resident after the kernel is there"
    again = torch.empty_like(weight)
    noise.perturb(weight, where, 7, 1.0, again)
    assert torch.equal(first, again)
