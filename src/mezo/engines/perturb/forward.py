"""The forward pass at theta + scale * z without writing theta.

`Probing.at(probes)` patches, for the length of a with block, the forward of every module that owns
a tuned tensor. A patched module writes its perturbed weight into scratch memory block by block, uses
it and forgets it. With P probes the batch carries P copies of the input, stacked along its first
dimension; each module serves all of them while its weights are in cache, and the two signs of a
direction share one generation of noise. After the block, theta is bit for bit what it was, because
nothing has written it; an interrupt at any point changes nothing of that.

A tensor that is read past the module that owns it (`mezo.engines.perturb.raw_reads` finds those) cannot be served
like this. Its own memory holds the probe for the length of a pass, and gets its exact bytes back from a
copy afterwards.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from mezo import noise
from mezo.engines.perturb import layer_forwards
from mezo.engines.perturb.biased_pairs import BiasedOutputs, perturb_biased_pair
from mezo.engines.perturb.layer_forwards import CannotStack
from mezo.engines.perturb.lora_forward import LastCast, LoraForward, is_plain_lora
from mezo.engines.perturb.low_rank_factors import Factors
from mezo.engines.perturb.pairs import Pair, pair_up
from mezo.engines.perturb.raw_reads import knowing
from mezo.engines.perturb.scratch import BLOCK_ELEMENTS, Scratch
from mezo.engines.perturb.small_tensors import SmallTensors
from mezo.noise.where import Where
from mezo.types import Probe
from mezo.util.profiling import span
from mezo.weights.tunable import Tunable
from mezo.weights.weights import Weights


class Probing:
    """Evaluates any nn.Module at probes. `weights` must be tensors of `model`."""

    def __init__(self, model: nn.Module, weights: Weights):
        self.model, self.weights = model, weights
        self.scratch = Scratch()
        self._of = {id(t.tensor): t for t in weights.tunables}
        self._place = {t.name: n for n, t in enumerate(weights.tunables)}
        self._whole: set[str] = set()  # tensors that are read outside their owner's forward
        self._owners = [(m, keys) for m in model.modules() if (keys := self._keys_of(m))]
        self._cast = LastCast()
        self.use_products(True)
        tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}  # by rows, not whole
        self._small = SmallTensors(weights, without=tables)
        self._small_values: list[list[torch.Tensor]] = []
        self.factors = Factors()  # of the directions at hand, where they are of low rank
        self.probes: Sequence[Probe] = ()
        self.pairs: list[Pair] = []
        self.rows: int | None = None

    # ---------------------------------------------------------------- for whoever runs the model

    @contextmanager
    def at(
        self,
        probes: Sequence[Probe],
        *,
        rows: int | None = None,
        overrides: dict[nn.Module, Callable[..., Any]] | None = None,
        plainly: bool = False,
    ) -> Iterator[None]:
        """Inside the block, the model's forward sees theta + scale * z(seed).

        `rows`: leading dimension of the inputs, P times the batch; may be None for one probe.
        `overrides`: handlers that take the place of ours for some modules (the LM head).
        `plainly`: every module runs its own forward on its whole perturbed tensors, one probe; what all
        that is faster is compared with.

        A forward that somebody set on a module (a hook of accelerate's, a kernel's patch) is what runs
        there, with the perturbed tensors in the module's place for them, and is back in place afterwards.
        """
        self.probes, self.pairs, self.rows = probes, pair_up(probes), rows
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
                        patches.set(module, partial(handler, self, module, own or _forward_of(module), keys))
            for module, handler in (overrides or {}).items():
                patches.set(module, handler)
            yield
        finally:
            patches.undo()
            with knowing(), torch.no_grad():
                for tunable, theta in written:
                    tunable.rows().copy_(theta)
            self.probes, self.pairs, self.rows = (), [], None
            self._small_values = []
            self.factors.forget()
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
        """From now on these tensors hold the probe themselves for the length of a pass, one probe at a time.

        For tensors that are read outside the forward of the module that owns them; `RawReads` finds them.
        """
        self._whole |= names

    def moved(self, names: set[str], probes: Sequence[Probe]) -> set[str]:
        """Of these tensors, those in which any of the probes differs from theta."""
        return {n for n in names if any(p.scale and p.factor(self._place[n]) for p in probes)}

    @property
    def whole(self) -> frozenset[str]:
        """The names that `write_whole` was given."""
        return frozenset(self._whole)

    @contextmanager
    def only(self, i: int) -> Iterator[None]:
        """Inside the block there is one probe, the i-th: for the forward of a module that holds others."""
        probes, pairs, rows, small = self.probes, self.pairs, self.rows, self._small_values
        self.probes, self._small_values = [probes[i]], [small[i]]
        self.pairs, self.rows = pair_up(self.probes), None if rows is None else rows // len(probes)
        try:
            yield
        finally:
            self.probes, self.pairs, self.rows, self._small_values = probes, pairs, rows, small

    # ---------------------------------------------------------------- for the layer handlers

    def tunable(self, module: nn.Module, key: str) -> Tunable | None:
        """The tuned tensor that `module` holds under `key`; None without one that a handler perturbs."""
        found = self._of.get(id(module._parameters.get(key)))
        return None if found is None or found.name in self._whole else found

    def scale_of(self, pair: Pair, tunable: Tunable) -> float:
        """The scale of z, or of m + z / drift, in a tensor at the pair's probes."""
        return pair.at.scale_in(self._place[tunable.name])

    def perturbed(
        self, tunable: Tunable, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """(probe index, rows start:stop of the tensor at that probe), for every probe.

        Each tensor yielded is valid until the next one is asked for.
        """
        if (n := self._small.of(tunable)) is not None:
            for i, values in enumerate(self._small_values):
                yield i, values[n].view(tunable.rows().shape)[start:stop]
            return
        if tunable.low_rank is not None:
            yield from self._summed(tunable, start, stop)
            return
        block, where = tunable.rows()[start:stop], tunable.where(start)
        with (
            self.scratch.take(tuple(block.shape), block) as plus,
            self.scratch.take(tuple(block.shape), block) as minus,
        ):
            for pair in self.pairs:
                if self.scale_of(pair, tunable) == 0:
                    yield from ((i, block) for i in pair.plus + pair.minus)
                else:
                    yield from self._at_pair(pair, tunable, block, where, plus, minus)

    def _at_pair(
        self,
        pair: Pair,
        tunable: Tunable,
        theta: torch.Tensor,
        where: Where,
        plus: torch.Tensor,
        minus: torch.Tensor,
        rows: torch.Tensor | None = None,
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """(probe index, plus or minus) of one direction, which makes its noise once.

        theta: a block of the tensor, which begins at `where`; or the whole table, of which `rows` are wanted.
        """
        scale, kind = self.scale_of(pair, tunable), self.weights.entrywise
        with span("noise"):
            if pair.at.drift:
                values = theta if rows is None else theta.index_select(0, rows)
                into = BiasedOutputs(plus, minus, where.start, rows)
                perturb_biased_pair(self.weights, self._place[tunable.name], pair, values, into, self.scratch)
            elif pair.plus and pair.minus:
                noise.perturb_pair(theta, where, pair.at.seed, scale, plus, minus, rows=rows, kind=kind)
            elif pair.plus:
                noise.perturb(theta, where, pair.at.seed, scale, plus, rows=rows, kind=kind)
            else:
                noise.perturb(theta, where, pair.at.seed, -scale, minus, rows=rows, kind=kind)
        yield from ((i, plus) for i in pair.plus)
        yield from ((i, minus) for i in pair.minus)

    def _summed(self, tunable: Tunable, start: int, stop: int | None) -> Iterator[tuple[int, torch.Tensor]]:
        """`perturbed` with low-rank noise, for a module that must be given its weight."""
        block = tunable.rows()[start:stop]
        with self.scratch.take(tuple(block.shape), block) as out:
            for pair in self.pairs:
                for sign, members in ((1, pair.plus), (-1, pair.minus)):
                    for i in members:
                        scale, begin = sign * self.scale_of(pair, tunable), start * block.shape[1]
                        with span("noise"), knowing():
                            self.weights.perturb(tunable, pair.at.seed, scale, out.view(1, -1), start=begin)
                        yield i, out

    def perturbed_rows(self, tunable: Tunable, rows: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
        """(probe index, the given rows of the tensor at that probe): what an embedding needs."""
        table = tunable.rows()
        shape, where = (len(rows), table.shape[1]), Where(tunable.tensor_id)
        with self.scratch.take(shape, table) as plus, self.scratch.take(shape, table) as minus:
            for pair in self.pairs:
                if self.scale_of(pair, tunable) == 0:
                    plus.copy_(table.index_select(0, rows))
                    yield from ((i, plus) for i in pair.plus + pair.minus)
                else:
                    yield from self._at_pair(pair, tunable, table, where, plus, minus, rows)

    def perturbed_copies(self, tunable: Tunable) -> list[torch.Tensor]:
        """The whole tensor at each probe, in probe order: for small tensors and unknown modules.

        Not to be written; those of small tensors are valid as long as the block of `at`.
        """
        if (n := self._small.of(tunable)) is not None:
            return [values[n] for values in self._small_values]
        copies = [torch.empty_like(tunable.tensor.detach()) for _ in self.probes]
        flat = [copy.view(tunable.rows().shape) for copy in copies]
        with knowing():  # block by block, so that scratch memory stays small beside the copies
            for start, stop in self.blocks(tunable.rows()):
                for i, values in self.perturbed(tunable, start, stop):
                    flat[i][start:stop] = values
        return copies

    @staticmethod
    def blocks(weight: torch.Tensor, limit: int | None = None) -> Iterator[tuple[int, int]]:
        """(start, stop) of row blocks of a matrix of at most `limit` elements, by default as many as
        its device likes."""
        num_rows, row_length = weight.shape
        step = max(1, (limit or BLOCK_ELEMENTS * (4 if weight.is_cuda else 1)) // max(1, row_length))
        for start in range(0, num_rows, step):
            yield start, min(start + step, num_rows)

    def _keys_of(self, module: nn.Module) -> list[str]:
        """The tuned tensors a module owns and does not merely share with a module inside it (BERT's
        prediction head names its decoder's bias)."""
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


def _forward_of(module: nn.Module) -> Callable[..., Any]:
    """The forward of the module's class, whatever is patched on the module itself."""
    return partial(type(module).forward, module)
