"""The tensors of a forward pass at several probes, as the layers of the model ask for them."""

from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from mezo import noise
from mezo.engines.perturb.deal import CannotStack, Deal
from mezo.engines.perturb.raw_reads import knowing
from mezo.engines.perturb.small_tensors import Pair, SmallTensors, pair_up
from mezo.noise.where import Where
from mezo.types import Probe
from mezo.util.profiling import span
from mezo.weights.tunable import Tunable
from mezo.weights.weights import Weights

# Perturbed weights are written in row blocks of this many elements for each sign: 4 MB in float32, so
# that a block is still in the cache when the matrix product reads it, and a vocabulary-sized head
# costs no more memory than any other layer. On a GPU every block costs launches: there both signs of
# one take 32 MB, which the L2 cache of a large card holds (A100: 40 MB, H100: 50 MB).
BLOCK_ELEMENTS, GPU_BLOCK_BYTES = 2**20, 2**24


def block_elements(weight: torch.Tensor) -> int:
    """Elements of a block of a perturbed weight."""
    return GPU_BLOCK_BYTES // weight.element_size() if weight.is_cuda else BLOCK_ELEMENTS


class Scratch:
    """A stack of flat buffers: `take` hands one out for the length of a with block."""

    def __init__(self) -> None:
        self._free: dict[tuple[torch.device, torch.dtype], list[torch.Tensor]] = {}

    @contextmanager
    def take(self, shape: tuple[int, ...], like: torch.Tensor) -> Iterator[torch.Tensor]:
        """An uninitialised tensor of `shape`, on the device and of the dtype of `like`."""
        size = 1
        for n in shape:
            size *= n
        free = self._free.setdefault((like.device, like.dtype), [])
        fitting = [i for i, b in enumerate(free) if b.numel() >= size]
        if fitting:
            buffer = free.pop(min(fitting, key=lambda i: free[i].numel()))
        else:
            if free:
                free.pop()  # replace a buffer that is too small instead of keeping both
            buffer = torch.empty(size, dtype=like.dtype, device=like.device)
        try:
            yield buffer[:size].view(shape)
        finally:
            free.append(buffer)


class Probed:
    """What the layer handlers (`layer_forwards`) know of the pass: its probes, and the tensors at each of them."""

    def __init__(self, weights: Weights, tables: Container[int]):
        """tables: ids of the tensors that are read by rows."""
        self.weights, self.scratch = weights, Scratch()
        self._of = {id(t.tensor): t for t in weights.tunables}
        self._place = {t.name: n for n, t in enumerate(weights.tunables)}
        self._whole: set[str] = set()  # tensors that are read outside their owner's forward
        self._small = SmallTensors(weights, without=tables)
        self._small_values: list[list[torch.Tensor]] = []
        self._factors: dict[tuple[str, int, torch.dtype], tuple[torch.Tensor, torch.Tensor]] = {}
        self.probes: Sequence[Probe] = ()
        self.pairs: list[Pair] = []
        self.rows: int | None = (
            None  # leading dimension of the inputs, of all probes together; None: not known
        )
        self.deal: Deal | None = None  # of probes that are slots: which direction each token goes along

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

    def tunable(self, module: nn.Module, key: str) -> Tunable | None:
        """The tuned tensor that `module` holds under `key`; None without one that a handler perturbs."""
        found = self._of.get(id(module._parameters.get(key)))
        return None if found is None or found.name in self._whole else found

    def place(self, tunable: Tunable) -> int:
        """Its number in the list of tuned tensors."""
        return self._place[tunable.name]

    def deal_of(self, tokens: int) -> Deal:
        """The deal, of a layer that is given so many tokens of each slot. Raises CannotStack unless these are all."""
        assert self.deal is not None
        self.deal.check(tokens)
        return self.deal

    @contextmanager
    def reading(self, positions: torch.Tensor) -> Iterator[None]:
        """Inside the block a layer is given the tokens at these positions of each probe alone."""
        deal = self.deal
        self.deal = None if deal is None else deal.at(positions)
        try:
            yield
        finally:
            self.deal = deal

    def _check_alike(self, tunable: Tunable) -> None:
        if self.deal is not None:
            raise CannotStack(f"{tunable.name} is needed whole, and every part of the batch has its own")

    def scale_of(self, pair: Pair, tunable: Tunable) -> float:
        """The scale of z, or of m + z / drift, in a tensor at the pair's probes."""
        return pair.at.scale_in(self._place[tunable.name])

    def perturbed(
        self, tunable: Tunable, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """(probe index, rows start:stop of the tensor at that probe); each is valid until the next one."""
        self._check_alike(tunable)
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
        """(probe index, plus or minus) of one direction, whose noise is made once.

        theta: a block of the tensor, which begins at `where`; or the whole table, of which `rows` are wanted.
        """
        scale, kind = self.scale_of(pair, tunable), self.weights.entrywise
        with span("noise"):
            if pair.at.drift:
                with self._step_of(pair, tunable, where, plus.shape, rows) as step:
                    values = theta if rows is None else theta.index_select(0, rows)
                    torch.add(values, step, out=plus)
                    torch.sub(values, step, out=minus)
            elif pair.plus and pair.minus:
                noise.perturb_pair(theta, where, pair.at.seed, scale, plus, minus, rows=rows, kind=kind)
            elif pair.plus:
                noise.perturb(theta, where, pair.at.seed, scale, plus, rows=rows, kind=kind)
            else:
                noise.perturb(theta, where, pair.at.seed, -scale, minus, rows=rows, kind=kind)
        yield from ((i, plus) for i in pair.plus)
        yield from ((i, minus) for i in pair.minus)

    @contextmanager
    def _step_of(
        self, pair: Pair, tunable: Tunable, where: Where, shape: torch.Size, rows: torch.Tensor | None
    ) -> Iterator[torch.Tensor]:
        """scale * (m + z / drift) of a part of a tensor, float32: what `Weights.write` adds, to the bit."""
        n, at = self._place[tunable.name], pair.at
        m = self.weights.heading.of(n)
        with self.scratch.take(tuple(shape), m) as step, knowing():
            if rows is None:
                self.weights.along(n, where.start, at.seed, at.drift, step.view(1, -1))
            else:
                table, kind = m.view(tunable.rows().shape), self.weights.entrywise
                noise.perturb(table, where, at.seed, 1 / at.drift, step, rows=rows, kind=kind)
            yield step.mul_(at.scale_in(n))

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
        self._check_alike(tunable)
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
        """The whole tensor at each probe, for small tensors and unknown modules. Read-only, valid inside `at`."""
        self._check_alike(tunable)
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
        """(start, stop) of row blocks of at most `limit` elements, by default as many as suit the device."""
        num_rows, row_length = weight.shape
        step = max(1, (limit or block_elements(weight)) // max(1, row_length))
        for start in range(0, num_rows, step):
            yield start, min(start + step, num_rows)

    def factors(self, t: Tunable, seed: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """(r, rows) and (r, columns) of a low-rank direction, z = left^T right; drawn once a pass."""
        key = t.name, seed, dtype
        if key not in self._factors:
            assert t.low_rank is not None
            device = t.tensor.device
            with span("noise"):
                left, right = t.low_rank.left(seed, device), t.low_rank.right(seed, device)
                self._factors[key] = left.to(dtype), right.to(dtype)
        return self._factors[key]
