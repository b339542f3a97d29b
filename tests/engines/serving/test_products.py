"""What adapters of rank 1 add to a batch on vLLM without a GPU: each row its own, whatever the others have."""

from typing import Any

import pytest
import torch

from mezo.engines.vllm.products import add_products, install, own_places

PLACES, COLUMNS, SIZES = 4, 24, (16, 8)
OWN = torch.tensor([2, 0, 0, -1, 3, 2])  # of each token; -1: the base model's


def factors(dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    drawn = torch.Generator().manual_seed(1)
    a = tuple(torch.randn(PLACES, 1, 1, COLUMNS, generator=drawn).to(dtype) for _ in SIZES)
    b = tuple(torch.randn(PLACES, 1, size, 1, generator=drawn).to(dtype) for size in SIZES)
    return a, b


def rows(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(len(OWN), COLUMNS, generator=torch.Generator().manual_seed(2)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_each_row_gets_its_own_adapter(dtype: torch.dtype) -> None:
    (a, b), x = factors(dtype), rows(dtype)
    y = torch.zeros(len(OWN), sum(SIZES), dtype=dtype)
    own = own_places(OWN, PLACES, dtype)
    assert own is not None
    add_products(y, x, a, b, SIZES, own)
    true = torch.stack(
        [
            torch.cat([right[n, 0] @ row * left[n, 0, :, 0] for right, left in zip(a, b, strict=True)])
            if n >= 0
            else torch.zeros(sum(SIZES), dtype=dtype)
            for n, row in zip(OWN.tolist(), x, strict=True)
        ]
    )
    # sums of 24 products in another order, and in bfloat16 one rounding more
    bound = float(true.abs().max()) * (24 * 2**-24 if dtype == torch.float32 else 2**-6)
    assert (y - true).abs().max() <= bound
    assert not y[3].any()


def test_a_rows_bits_do_not_depend_on_other_adapters() -> None:
    (a, b), x = factors(), rows()
    alone = OWN.where(OWN == 2, -1)
    found = []
    for indices in (OWN, alone):
        y = torch.ones(len(OWN), sum(SIZES))
        own = own_places(indices, PLACES, torch.float32)
        assert own is not None
        add_products(y, x, a, b, SIZES, own)
        found.append(y[OWN == 2])
    assert torch.equal(*found)


class Wrapper:
    """What is asked of vLLM's own class."""

    def __init__(self, indices: torch.Tensor):
        self.token_lora_indices, self.theirs = indices, 0

    def update_metadata(self, indices: torch.Tensor) -> None:
        self.token_lora_indices = indices

    def add_lora_linear(self, *args: Any, **kwargs: Any) -> None:
        self.theirs += 1


def test_only_what_is_of_rank_one_is_taken_over() -> None:
    class Installed(Wrapper):
        pass

    install(Installed)
    (a, b), x = factors(), rows()
    wrapper = Installed(OWN)
    y = torch.zeros(len(OWN), sum(SIZES))
    Installed.add_lora_linear(wrapper, y, x, a, b, 1.0, SIZES)
    assert (y.any(1) == (OWN >= 0)).all()
    wide = tuple(torch.randn(PLACES, 1, 8, COLUMNS) for _ in SIZES)
    Installed.add_lora_linear(wrapper, y, x, wide, b, 1.0, SIZES)
    Installed.add_lora_linear(wrapper, y, x, a, b, 0.5, SIZES)
    Installed.add_lora_linear(wrapper, y[:2], x[:2], a, b, 1.0, SIZES)  # not the batch's rows
    assert wrapper.theirs == 3


def test_a_new_batch_has_other_places() -> None:
    class Installed(Wrapper):
        pass

    install(Installed)
    (a, b), x = factors(), rows()
    wrapper = Installed(OWN)
    Installed.add_lora_linear(wrapper, torch.zeros(len(OWN), sum(SIZES)), x, a, b, 1.0, SIZES)
    Installed.update_metadata(wrapper, torch.full_like(OWN, -1))
    y = torch.zeros(len(OWN), sum(SIZES))
    Installed.add_lora_linear(wrapper, y, x, a, b, 1.0, SIZES)
    assert not y.any()
    assert wrapper.theirs == 0
