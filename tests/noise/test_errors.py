"""Mistakes are one line that says what was expected and what was found; nothing is written."""

from collections.abc import Callable

import pytest
import torch

from mezo import noise
from mezo.errors import MezoError
from mezo.noise.where import Where

W = Where(1)


def perturb(w: torch.Tensor, out: torch.Tensor, **settings: object) -> None:
    noise.perturb(w, W, 1, 1.0, out, **settings)  # type: ignore[arg-type]


MISTAKES: dict[str, tuple[str, Callable[[], None]]] = {
    "three dimensions": ("2-D view", lambda: perturb(torch.ones(2, 2, 2), torch.ones(2, 2, 2))),
    "one dimension": ("2-D view", lambda: noise.update_(torch.ones(4), W, [1], [1.0])),
    "transposed": ("columns side by side", lambda: noise.update_(torch.ones(3, 4).T, W, [1], [1.0])),
    "transposed output": ("columns side by side", lambda: perturb(torch.ones(4, 3), torch.ones(3, 4).T)),
    "float64": (
        "float32, bfloat16 or float16",
        lambda: noise.update_(torch.ones(1, 4).double(), W, [1], [1.0]),
    ),
    "another shape": ("like the weight", lambda: perturb(torch.ones(4, 3), torch.ones(4, 2))),
    "another dtype": ("like the weight", lambda: perturb(torch.ones(4, 3), torch.ones(4, 3).half())),
    "fill of 16 bits": ("float32", lambda: noise.fill_(torch.ones(1, 4).half(), W, 1)),
    "unknown noise": (
        "did you mean 'gaussian'",
        lambda: perturb(torch.ones(1, 4), torch.ones(1, 4), kind="gausian"),
    ),
    "unknown rounding": (
        "did you mean 'nearest'",
        lambda: noise.update_(torch.ones(1, 4), W, [1], [1.0], rounding="nearist"),  # type: ignore[arg-type]
    ),
    "a coefficient too few": (
        "coefficient for each seed",
        lambda: noise.update_(torch.ones(1, 4), W, [1, 2], [1.0]),
    ),
    "row beyond the table": (
        "from 0 to 3, found 0 to 4",
        lambda: perturb(torch.ones(4, 3), torch.ones(2, 3), rows=torch.tensor([0, 4])),
    ),
    "row before the table": (
        "from 0 to 3, found -1 to 0",
        lambda: perturb(torch.ones(4, 3), torch.ones(2, 3), rows=torch.tensor([0, -1])),
    ),
    "rows of 32 bits": (
        "torch.int64",
        lambda: perturb(torch.ones(4, 3), torch.ones(1, 3), rows=torch.tensor([0], dtype=torch.int32)),
    ),
    "no kernels": ("device 'meta'", lambda: noise.update_(torch.ones(1, 4, device="meta"), W, [1], [1.0])),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(mistake: str) -> None:
    words, make = MISTAKES[mistake]
    with pytest.raises(MezoError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)
