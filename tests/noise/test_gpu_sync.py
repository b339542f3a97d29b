"""On a GPU, every operation is only launched: nothing waits for what was launched before."""

from collections.abc import Callable, Iterator

import pytest
import torch
from tests.noise.oracle import DTYPES

from mezo import noise
from mezo.noise.where import Where

pytestmark = pytest.mark.gpu

Call = Callable[[torch.Tensor, noise.TensorGroup, list[torch.Tensor]], None]

OPERATIONS: dict[str, Call] = {
    "fill": lambda w, g, o: noise.fill_(o[2], Where(1), 2),
    "perturb": lambda w, g, o: noise.perturb(w, Where(1), 2, 0.1, o[0]),
    "perturb in place": lambda w, g, o: noise.perturb(w, Where(1), 2, 0.1, w),
    "perturb pair": lambda w, g, o: noise.perturb_pair(w, Where(1), 2, 0.1, o[0], o[1]),
    "update": lambda w, g, o: noise.update_(w, Where(1), [2, 3], [0.1, 0.2], decay=0.9),
    "matched update": lambda w, g, o: noise.update_(w, Where(1), [2, 3], [0.1, 0.2], rounding="matched"),
    "store": lambda w, g, o: noise.store_(w, Where(1), o[2]),
    "update all": lambda w, g, o: noise.update_all_(g, [2, 3], [0.1, 0.2], decays=[0.9, 1.0]),
    "perturb all": lambda w, g, o: noise.perturb_all(g, 2, 0.1, o[:2]),
    "perturb all in place": lambda w, g, o: noise.perturb_all(g, 2, 0.1, g.weights),
    "perturb pair all": lambda w, g, o: noise.perturb_pair_all(g, 2, 0.1, o[:2], o[3:5]),
}


@pytest.fixture
def no_waiting() -> Iterator[None]:
    yield
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_nothing_waits_for_the_gpu(operation: str, dtype: torch.dtype) -> None:
    weights = [torch.zeros(8, 100, dtype=dtype, device="cuda") for _ in range(2)]
    group = noise.TensorGroup(weights, [Where(1), Where(2)])
    outputs = [torch.empty_like(weights[0]) for _ in range(5)]
    outputs[2] = torch.empty(8, 100, device="cuda")
    OPERATIONS[operation](weights[0], group, outputs)  # compiles
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    OPERATIONS[operation](weights[0], group, outputs)


@pytest.mark.usefixtures("no_waiting")
def test_rows_of_a_table_do_not_wait_either() -> None:
    table = torch.zeros(8, 100, device="cuda")
    rows = torch.tensor([3, 0, 3], device="cuda")
    plus, minus = torch.empty(3, 100, device="cuda"), torch.empty(3, 100, device="cuda")
    noise.perturb_pair(table, Where(1), 2, 0.1, plus, minus, rows=rows)
    torch.cuda.set_sync_debug_mode("error")
    noise.perturb_pair(table, Where(1), 2, 0.1, plus, minus, rows=rows)


@pytest.mark.usefixtures("no_waiting")
def test_a_new_group_does_not_wait() -> None:
    weights = [torch.zeros(50, device="cuda") for _ in range(3)]
    wheres = [Where(i) for i in range(3)]
    noise.update_all_(noise.TensorGroup(weights, wheres), [1], [0.1])
    torch.cuda.set_sync_debug_mode("error")
    noise.update_all_(noise.TensorGroup(weights, wheres), [1], [0.1])
