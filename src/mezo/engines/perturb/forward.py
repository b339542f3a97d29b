"""The forward pass at theta + scale * z without writing theta.

`Probing.at(probes)` patches, inside a with block, the forward of every module that owns a tuned tensor. A patched
module writes its perturbed weight into scratch memory block by block. With P probes the batch carries P copies of the
input, stacked along its first dimension; each module serves all of them while its weights are in cache, and the two
signs of a direction share one generation of noise. Theta is never written, so an interrupt leaves it bit for bit.

A tensor that is read outside the module that owns it (`mezo.engines.perturb.raw_reads` finds those) holds the probe
itself for the length of a pass, and gets its exact bytes back from a copy.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from mezo.engines.perturb import layer_forwards
from mezo.engines.perturb.deal import Deal
from mezo.engines.perturb.layer_forwards import CannotStack
from mezo.engines.perturb.lora_forward import LastCast, LoraForward, is_plain_lora
from mezo.engines.perturb.probed import Probed
from mezo.engines.perturb.raw_reads import knowing
from mezo.engines.perturb.small_tensors import pair_up
from mezo.types import Probe
from mezo.weights.tunable import Tunable
from mezo.weights.weights import Weights


class Probing(Probed):
    """Evaluates any nn.Module at probes. `weights` must be tensors of `model`."""

    def __init__(self, model: nn.Module, weights: Weights):
        tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}  # by rows, not whole
        super().__init__(weights, tables)
        self.model = model
        self._owners = [(m, keys) for m in model.modules() if (keys := self._keys_of(m))]
        self._cast = LastCast()
        self.use_products(True)

    @contextmanager
    def at(
        self,
        probes: Sequence[Probe],
        *,
        rows: int | None = None,
        overrides: dict[nn.Module, Callable[..., Any]] | None = None,
        plainly: bool = False,
        deal: Deal | None = None,
    ) -> Iterator[None]:
        """Inside the block, the model's forward sees theta + scale * z(seed).

        `rows`: leading dimension of the inputs, P times the batch; may be None for one probe. `overrides`: handlers
        that replace ours for some modules (the LM head). `plainly`: every module runs its own forward on its whole
        perturbed tensors, one probe: the reference. `deal`: the probes are slots, of which each row has its own. A forward that someone else has set on a module runs there with the
        perturbed tensors, and is back in place afterwards.
        """
        self.probes, self.pairs, self.rows, self.deal = probes, pair_up(probes), rows, deal
        patches = _Patches()
        written: list[tuple[Tunable, torch.Tensor]] = []
        moving = any(p.scale != 0 for p in probes)
        try:
            for module, handler in () if plainly else self._products:
                if "forward" not in module.__dict__:  # those of tuned weights are replaced again below
                    patches.set(module, handler)
            if moving:
                with knowing():
                    self._write_whole(written)
                    if deal is None:
                        self._small_values = self._small.perturb(self.pairs, len(probes))
                for module, owned in self._owners:
                    keys = [key for key in owned if self._moves(module, key)]
                    if keys and module not in (overrides or {}):
                        own = patches.own(module)
                        handler = (
                            layer_forwards.any_module
                            if plainly
                            else layer_forwards.handler_for(module, keys, own)
                        )
                        forward = own or partial(type(module).forward, module)
                        patches.set(module, partial(handler, self, module, forward, keys))
            for module, handler in (overrides or {}).items():
                patches.set(module, handler)
            yield
        finally:
            patches.undo()
            with knowing(), torch.no_grad():
                for tunable, theta in written:
                    tunable.rows().copy_(theta)
            self.probes, self.pairs, self.rows, self.deal = (), [], None, None
            self._small_values = []
            self._factors.clear()
            self._cast.forget()

    def use_products(self, use: bool) -> None:
        """Whether layers that are not probed may multiply by what is fastest here (`engines.perturb.matmul`)."""
        modules = list(self.model.modules()) if use else []
        self._products: list[tuple[nn.Module, Callable[..., Any]]] = [
            (m, partial(layer_forwards.unperturbed_linear, m))
            for m in modules
            if layer_forwards.is_faster_here(m)
        ]
        self._products += [(m, LoraForward(m, self._cast)) for m in modules if is_plain_lora(m)]

    def owners(self) -> list[nn.Module]:
        """The modules that hold tuned tensors."""
        return [module for module, _ in self._owners]

    def write_whole(self, names: set[str]) -> None:
        """From now on these tensors (see `RawReads`) hold the probe themselves during a pass, one probe at a time."""
        self._whole |= names

    def moved(self, names: set[str], probes: Sequence[Probe]) -> set[str]:
        """Of these tensors, those in which any of the probes differs from theta."""
        return {n for n in names if any(p.scale and p.factor(self._place[n]) for p in probes)}

    @property
    def whole(self) -> frozenset[str]:
        """The names that `write_whole` was given."""
        return frozenset(self._whole)

    def _keys_of(self, module: nn.Module) -> list[str]:
        """The tuned tensors a module owns, without those shared with a module inside it (BERT's decoder bias)."""
        inside = {id(p) for child in module.children() for p in child.parameters()}
        mine = ((key, id(p)) for key, p in module._parameters.items() if p is not None)
        return [key for key, identity in mine if identity in self._of and identity not in inside]

    def _moves(self, module: nn.Module, key: str) -> bool:
        """Whether any probe differs from theta in this tensor, and its owner's handler is to see to it."""
        tunable = self.tunable(module, key)
        return tunable is not None and any(pair.at.scale_in(self._place[tunable.name]) for pair in self.pairs)

    def _write_whole(self, written: list[tuple[Tunable, torch.Tensor]]) -> None:
        """Move what is read past its module to the probe, in its own memory; `written`: what to put back."""
        if self._whole and len(self.probes) > 1:
            raise CannotStack(f"{min(self._whole)} is read outside its module: one probe at a time")
        for t in self.weights.tunables if self._whole else ():
            place, probe = self._place[t.name], self.probes[0]
            if t.name in self._whole and probe.scale and probe.factor(place):
                theta = t.rows().clone()
                written.append((t, theta))
                self.weights.write(place, probe, t.flat())


class _Patches:
    """Forwards set on modules, and whatever was set there before."""

    def __init__(self) -> None:
        self._before: dict[nn.Module, Any] = {}

    def set(self, module: nn.Module, forward: Callable[..., Any]) -> None:
        self._before.setdefault(module, module.__dict__.get("forward"))
        module.__dict__["forward"] = forward

    def own(self, module: nn.Module) -> Any:
        """The forward that somebody else has set on the module; None: it has its class's."""
        return self._before[module] if module in self._before else module.__dict__.get("forward")

    def undo(self) -> None:
        for module, forward in self._before.items():
            if forward is None:
                module.__dict__.pop("forward", None)
            else:
                module.__dict__["forward"] = forward
