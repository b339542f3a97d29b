"""Every module of torch.nn that has parameters, in training and in evaluation, tuned by `mezo.MeZO`."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.test_optim_reads import check, optimizer
from torch import nn

X = (2, 6, 8)  # rows, tokens or channels, features
# what a class is made with, and what its forward is given; those whose names begin alike share an entry
MAKE: dict[str, tuple[Callable[[Any], nn.Module], Callable[[], tuple[Any, ...]]]] = {
    "Linear": (lambda c: c(8, 5), lambda: (torch.randn(X),)),
    "Bilinear": (lambda c: c(8, 8, 3), lambda: (torch.randn(X), torch.randn(X))),
    "Embedding": (lambda c: c(11, 8), lambda: (torch.arange(12).view(2, 6) % 11,)),
    "EmbeddingBag": (lambda c: c(11, 8), lambda: (torch.arange(12).view(2, 6) % 11,)),
    "Conv1d": (lambda c: c(6, 4, 3), lambda: (torch.randn(X),)),
    "Conv2d": (lambda c: c(6, 4, 3), lambda: (torch.randn(2, 6, 8, 8),)),
    "Conv3d": (lambda c: c(6, 4, 3), lambda: (torch.randn(2, 6, 4, 4, 4),)),
    "BatchNorm1d": (lambda c: c(6), lambda: (torch.randn(X),)),
    "BatchNorm2d": (lambda c: c(6), lambda: (torch.randn(2, 6, 4, 4),)),
    "BatchNorm3d": (lambda c: c(6), lambda: (torch.randn(2, 6, 2, 4, 4),)),
    "GroupNorm": (lambda c: c(2, 6), lambda: (torch.randn(X),)),
    "LayerNorm": (lambda c: c(8), lambda: (torch.randn(X),)),
    "RMSNorm": (lambda c: c(8), lambda: (torch.randn(X),)),
    "PReLU": (lambda c: c(), lambda: (torch.randn(X),)),
    "MultiheadAttention": (lambda c: c(8, 2, batch_first=True), lambda: (torch.randn(X),) * 3),
    "RNN": (lambda c: c(8, 5, batch_first=True), lambda: (torch.randn(X),)),
    "Cell": (lambda c: c(8, 5), lambda: (torch.randn(4, 8),)),
    "TransformerEncoderLayer": (lambda c: c(8, 2, 16, batch_first=True), lambda: (torch.randn(X),)),
    "TransformerDecoderLayer": (lambda c: c(8, 2, 16, batch_first=True), lambda: (torch.randn(X),) * 2),
    "TransformerEncoder": (
        lambda c: c(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2, enable_nested_tensor=False),
        lambda: (torch.randn(X),),
    ),
    "TransformerDecoder": (
        lambda c: c(nn.TransformerDecoderLayer(8, 2, 16, batch_first=True), 2),
        lambda: (torch.randn(X),) * 2,
    ),
    "Transformer": (lambda c: c(8, 2, 1, 1, 16, batch_first=True), lambda: (torch.randn(X),) * 2),
    "AdaptiveLogSoftmaxWithLoss": (
        lambda c: c(8, 20, [5, 10], div_value=2.0),
        lambda: (torch.randn(12, 8), torch.arange(12)),
    ),
    "NonDynamicallyQuantizableLinear": (lambda c: c(8, 5), lambda: (torch.randn(X),)),
}
ALIASES = {
    "ConvTranspose": "Conv", "SyncBatchNorm": None, "Lazy": None, "InstanceNorm": "BatchNorm", "LSTMCell": "Cell",
    "GRUCell": "Cell", "RNNCell": "Cell", "LSTM": "RNN", "GRU": "RNN", "CrossMapLRN2d": None,
}  # fmt: skip
# without parameters, or bases and containers of others
NONE = {
    "Module", "Container", "Sequential", "ModuleList", "ModuleDict", "ParameterList", "ParameterDict", "DataParallel",
    "RNNBase", "RNNCellBase", "Identity",
}  # fmt: skip


def made(kind: Any) -> nn.Module:
    return MAKE[entry(kind.__name__) or ""][0](kind)


def entry(name: str) -> str | None:
    for prefix, other in ALIASES.items():
        if name.startswith(prefix):
            return (
                None if other is None else next((m for m in MAKE if m == name.replace(prefix, other)), None)
            )
    return name if name in MAKE else None


def classes() -> list[Any]:
    found = [c for _, c in inspect.getmembers(nn, inspect.isclass) if issubclass(c, nn.Module)]
    return [c for c in found if entry(c.__name__)]


def total(output: Any) -> torch.Tensor:
    if isinstance(output, torch.Tensor):
        return output.pow(2).sum() if output.dtype.is_floating_point else output.float().sum() * 0
    return sum((total(part) for part in output), torch.zeros(()))


@pytest.mark.filterwarnings("ignore:`NLLLoss2d` has been deprecated:FutureWarning")
def test_no_class_with_parameters_is_left_out() -> None:
    """A class of a later torch that is not named here must be one without parameters."""
    for name, kind in inspect.getmembers(nn, inspect.isclass):
        known = (
            entry(name) or name in NONE or any(name.startswith(p) and o is None for p, o in ALIASES.items())
        )
        if not issubclass(kind, nn.Module) or known:
            continue
        required = [
            p for p in inspect.signature(kind).parameters.values()
            if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        ]  # fmt: skip
        if not required:
            assert not list(kind().parameters()), name
        else:
            source = inspect.getsource(kind)
            assert "Parameter(" not in source, f"{name} may have parameters: give it an entry in MAKE"


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("kind", classes(), ids=lambda c: c.__name__)
def test_the_slope_is_that_of_theta_written_out(kind: Any, training: bool) -> None:
    torch.manual_seed(0)
    module = made(kind)
    if not list(module.parameters()):  # InstanceNorm by default
        module = kind(6, affine=True)
    inputs = MAKE[entry(kind.__name__) or ""][1]()
    module.train(training)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.1 * torch.randn_like(p))
    check(optimizer(module), lambda: total(module(*inputs)) / 10)
