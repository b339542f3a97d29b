"""One batch whose rows go along probes of their own, for as many passes as an output has tokens.

Rows lie probe after probe, as many for each. Adapters, gains and biases are stacked by probe, and the matrices of
low-rank and rank-one noise keep their weight: with z = left^T right, x goes to x W^T + s (x right^T) left. All tables
are drawn once, and shrink as probes leave. A pass takes one product with each weight, whatever the number of probes.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from mezo.engines.perturb.deal import CannotStack
from mezo.engines.perturb.layer_forwards import (
    conv1d,
    embedding,
    gain,
    handler_for,
    layer_norm_of,
    linear,
)
from mezo.engines.perturb.lora_forward import is_plain_lora
from mezo.types import Probe
from mezo.weights.tunable import Tunable
from mezo.weights.weights import Weights

Table = tuple[
    torch.Tensor, ...
]  # of a vector or an adapter's factor: itself at every probe; else left and right


class Population:
    """The forwards of a model's tuned modules, each of which tells rows by their probes."""

    def __init__(self, model: nn.Module, weights: Weights):
        self.weights, self.probes, self._tables = weights, 0, {}
        self._place = {id(t.tensor): n for n, t in enumerate(weights.tunables)}
        self._forwards: list[tuple[nn.Module, Callable[..., Any]]] = []
        self.why: str | None = None  # the model cannot be used so
        inside: set[int] = set()  # modules that another's forward stands for
        for module in model.modules():
            if is_plain_lora(module) and (owned := self._owned(module)):
                self._forwards.append((module, partial(_lora, self, _Lora(module))))
                inside |= owned
        for module in model.modules():
            keys = [k for k, p in module._parameters.items() if p is not None and id(p) in self._place]
            if keys and id(module) not in inside:
                forward = self._forward_of(module, keys)
                if forward is None:
                    self.why = f"{type(module).__name__} reads {keys[0]} in a way of its own"
                    return
                self._forwards.append((module, partial(forward, self, module)))

    def can(self, probes: Sequence[Probe]) -> bool:
        """Whether these can share a batch."""
        return self.why is None and not any(probe.drift for probe in probes)

    @contextmanager
    def at(self, probes: Sequence[Probe]) -> Iterator[None]:
        """Inside the block the model takes rows at these probes, probe after probe."""
        before = [(module, module.__dict__.get("forward")) for module, _ in self._forwards]
        try:
            self.probes = len(probes)
            self._tables = {n: self._table(n, t, probes) for n, t in enumerate(self.weights.tunables)}
            for module, forward in self._forwards:
                module.__dict__["forward"] = forward
            yield
        finally:
            for module, forward in before:
                if forward is None:
                    module.__dict__.pop("forward", None)
                else:
                    module.__dict__["forward"] = forward
            self.probes, self._tables = 0, {}

    def keep(self, probes: torch.Tensor) -> None:
        """From now on there are only these, by number."""
        self.probes = len(probes)
        self._tables = {n: tuple(part[probes] for part in table) for n, table in self._tables.items()}

    def table(self, module: nn.Module, key: str) -> Table | None:
        """That of a module's tensor; None of one that is not tuned."""
        found = self._place.get(id(module._parameters.get(key)))
        return None if found is None else self._tables[found]

    def by_probe(self, x: torch.Tensor) -> torch.Tensor:
        """(rows, ..., features) -> (probes, rows and tokens of each, features)."""
        if x.shape[0] % self.probes or x.dim() < 2:
            raise CannotStack(f"a layer is given {tuple(x.shape)} for the rows of {self.probes} probes")
        return x.reshape(self.probes, -1, x.shape[-1])

    def _table(self, n: int, t: Tunable, probes: Sequence[Probe]) -> Table:
        if t.low_rank is None:
            out = torch.empty(len(probes), *t.tensor.shape, dtype=t.tensor.dtype, device=t.tensor.device)
            for probe, values in zip(probes, out, strict=True):
                if probe.scale_in(n):
                    self.weights.write(n, probe, values.view(1, -1))
                else:
                    values.copy_(t.tensor.detach())
            return (out,)
        seeds = list(dict.fromkeys(probe.seed for probe in probes))
        which = torch.tensor([seeds.index(probe.seed) for probe in probes], device=t.tensor.device)
        scales = torch.tensor([probe.scale_in(n) for probe in probes], device=t.tensor.device)
        left, right = (f(seeds, t.tensor.device) for f in (t.low_rank.lefts, t.low_rank.rights))
        scaled = left[which] * scales[:, None, None]
        return scaled.to(t.tensor.dtype), right.to(t.tensor.dtype)[which]

    def _owned(self, module: Any) -> set[int]:
        """The modules of a LoRA layer's factors, where these are tuned."""
        name = next(iter(module.active_adapters))
        factors = [module.lora_A[name], module.lora_B[name]]
        tuned = [f for f in factors if id(f.weight) in self._place and self._is_entrywise(f.weight)]
        return {id(f) for f in factors} if len(tuned) == len(factors) else set()

    def _is_entrywise(self, tensor: torch.Tensor) -> bool:
        return self.weights.tunables[self._place[id(tensor)]].low_rank is None

    def _forward_of(self, module: nn.Module, keys: Sequence[str]) -> Callable[..., Any] | None:
        """What replaces the module's own forward; None if what that computes is unknown."""
        own = module.__dict__.get("forward")
        kind = handler_for(module, list(keys), own)
        matrix = module._parameters.get("weight")
        tuned = matrix is not None and id(matrix) in self._place
        if kind is gain:
            return _gain
        if kind in (linear, conv1d, embedding) and (not tuned or not self._is_entrywise(matrix)):  # type: ignore[arg-type]
            return {linear: _linear, conv1d: partial(_linear, transposed=True), embedding: _embedding}[kind]
        return _layer_norm if own is None and layer_norm_of(module) else None


class _Lora:
    """A LoRA layer's parts."""

    def __init__(self, module: Any):
        name = next(iter(module.active_adapters))
        self.base, self.scaling = module.base_layer, module.scaling[name]
        self.a, self.b = module.lora_A[name], module.lora_B[name]


def _lora(population: Population, layer: _Lora, x: torch.Tensor) -> torch.Tensor:
    out = layer.base(x)
    a, b = (population.table(f, "weight") for f in (layer.a, layer.b))
    assert a is not None
    assert b is not None
    thin = torch.bmm(population.by_probe(x).to(a[0].dtype), a[0].mT)
    population.by_probe(out).baddbmm_(thin.to(out.dtype), b[0].mT.to(out.dtype), alpha=layer.scaling)
    return out


def _linear(
    population: Population, module: Any, x: torch.Tensor, *, transposed: bool = False
) -> torch.Tensor:
    weight, bias = population.table(module, "weight"), population.table(module, "bias")
    matrix = module.weight.t() if transposed else module.weight
    out = F.linear(x, matrix, module.bias if bias is None else None)
    if weight is not None:
        left, right = weight
        _add_(
            population.by_probe(out),
            population.by_probe(x),
            *((left, right) if transposed else (right, left)),
        )
    if bias is not None:
        population.by_probe(out).add_(bias[0].unsqueeze(1))
    return out


def _add_(out: torch.Tensor, x: torch.Tensor, narrow: torch.Tensor, wide: torch.Tensor) -> None:
    """out (P, n, m) += x (P, n, k) @ narrow (P, r, k)^T @ wide (P, r, m)."""
    thin = torch.bmm(x, narrow.mT)
    if wide.shape[1] == 1 and not out.is_cuda:  # a product of one column is slower than the sum that it is
        out.addcmul_(thin, wide)
    else:
        out.baddbmm_(thin, wide)


def _embedding(population: Population, module: Any, ids: torch.Tensor) -> torch.Tensor:
    out, table = F.embedding(ids, module.weight), population.table(module, "weight")
    assert table is not None
    left, right = table
    tokens = population.by_probe(ids.unsqueeze(-1)).squeeze(-1)
    thin = left.gather(2, tokens.unsqueeze(1).expand(-1, left.shape[1], -1))  # (P, r, n)
    population.by_probe(out).baddbmm_(thin.mT, right)
    return out


def _gain(population: Population, module: nn.Module, x: torch.Tensor) -> Any:
    table, original = population.table(module, "weight"), module._parameters["weight"]
    assert table is not None
    if x.shape[0] % population.probes:
        raise CannotStack(f"a norm is given {tuple(x.shape)} for the rows of {population.probes} probes")
    gains = table[0].repeat_interleave(x.shape[0] // population.probes, 0)
    module._parameters["weight"] = gains.view(len(gains), *[1] * (x.dim() - 2), -1)  # type: ignore[assignment]
    try:
        return type(module).forward(module, x)
    finally:
        module._parameters["weight"] = original


def _layer_norm(population: Population, module: Any, x: torch.Tensor) -> torch.Tensor:
    out = F.layer_norm(x.float(), module.normalized_shape, eps=module.eps).contiguous()
    rows = population.by_probe(out)
    for key, change in (("weight", rows.mul_), ("bias", rows.add_)):
        table, plain = population.table(module, key), module._parameters.get(key)
        if table is not None:
            change(table[0].unsqueeze(1))
        elif plain is not None:
            change(plain)
    return out.to(x.dtype)
