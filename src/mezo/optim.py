"""`MeZO`: an optimizer for anyone's own loop and any nn.Module, without gradients."""

import math
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import nn

from mezo.algorithm import check_finite, draw_of, update_of
from mezo.config import MeZOConfig
from mezo.engines.in_place.modes import Memory, walk_for
from mezo.engines.perturb.forward import Probing
from mezo.engines.perturb.raw_reads import RawReads
from mezo.errors import MezoError
from mezo.estimators import Estimator, build, norms_of
from mezo.events import MezoWarning
from mezo.noise import Rounding
from mezo.optimizers import OPTIMIZERS, Optimizer
from mezo.types import Probe, Update
from mezo.util.registry import look_up
from mezo.weights.low_rank_noise import Kind
from mezo.weights.weights import Weights


class MeZO(torch.optim.Optimizer):
    """Algorithm 1 of Malladi et al. 2023 behind `torch.optim`'s interface.

    >>> opt = mezo.MeZO(model, lr=1e-6, eps=1e-3)
    >>> loss = opt.step(lambda: model(**batch).loss)

    model_or_params: an nn.Module, whose trainable parameters are tuned and whose forward passes are
        evaluated at theta + eps z without writing theta; or an iterable of tensors or (name, tensor)
        pairs, which hold the probe themselves while it is evaluated and get their exact bytes back from a
        second copy.
    lr, weight_decay: as in the paper; they may be changed between steps (torch's schedulers work).
    eps: the size of the perturbation. num_directions: n of n-SPSA, 2n forward passes a step with the
        two-point estimator; docs/estimators.md has the others.
    seed: with the step number it determines every direction.
    normalize: directions of unit length instead of the paper's standard normal.
    blocks, layers_per_step, layer_scaling, clip_projected_grad, clip_quantile, cone_angle, cone_beta, cone_warmup:
        as in MeZOConfig.
    optimizer: its name, or one with settings of its own: `mezo.optimizers.Adam(beta2=0.99)`, whose weight
        decay and rounding are those given here.
    memory: "materialize", or "regenerate" for the paper's in-place walk (modules and tensors alike;
        no second copy, but 16-bit weights drift), or "store", "store-layer": see docs/memory.md.

    Every probe of a step sees the same random state, so dropout masks do not differ between them, and the
    same buffers: what a forward writes into those (BatchNorm's running statistics) is undone after each probe,
    so that they stay what they were. In train mode BatchNorm normalises by the batch all the same.

    Weights that a closure reads past the module that owns them (a parameter in a list, a view of a flat
    buffer, functional calls) are noticed in whatever step it happens; they hold the probe themselves from then
    on, and get their exact bytes back. The first probe of all is evaluated a second time with every weight
    written, which shows what nobody can watch (a NumPy view, a C++ extension): then all weights are written,
    with a MezoWarning. Compiled modules (torch.jit, torch.compile) are served like that from the start. This
    takes a second copy of those weights.

    Raises MezoError for tensors or settings that cannot be used.
    """

    def __init__(
        self,
        model_or_params: nn.Module | Iterable[torch.Tensor] | Iterable[tuple[str, torch.Tensor]],
        lr: float = 1e-6,
        eps: float = 1e-3,
        seed: int = 0,
        *,
        num_directions: int = 1,
        weight_decay: float = 0.0,
        estimator: str = "two-point",
        noise: Kind = "gaussian",
        noise_rank: int = 2,
        normalize: bool = False,
        blocks: Literal["all", "round-robin", "random", "each"] = "all",
        layers_per_step: int = 1,
        layer_scaling: Literal["none", "variance", "expectation"] = "none",
        clip_projected_grad: float | None = None,
        clip_quantile: float | None = None,
        cone_angle: float = 1.35,
        cone_beta: float = 0.99,
        cone_warmup: int = 2000,
        optimizer: str | Optimizer = "sgd",
        rounding: Rounding = "matched",
        memory: Memory = "materialize",
    ):
        _check_settings({"lr": lr, "eps": eps, "weight_decay": weight_decay})
        module = _unwrapped(model_or_params) if isinstance(model_or_params, nn.Module) else None
        source = model_or_params if module is None else module
        named = [(name, p) for name, p in _named(source) if p.requires_grad or module is None]
        self.weights = Weights(named, kind=noise, rank=noise_rank)
        self._made = False
        super().__init__([p for _, p in named], {"lr": lr, "eps": eps, "weight_decay": weight_decay})
        self._made = True
        self.seed, self.num_directions = seed, num_directions
        if isinstance(optimizer, str):
            optimizer = look_up(OPTIMIZERS, optimizer, "optimizer")()
        self.optimizer = replace(optimizer, rounding=rounding)
        self.optimizer_state = self.optimizer.init(self.weights)
        self._config = MeZOConfig.build(
            estimator=estimator,
            epsilon=eps,
            num_directions=num_directions,
            normalize_perturbations=normalize,
            blocks=blocks,
            layers_per_step=layers_per_step,
            layer_scaling=layer_scaling,
            clip_projected_grad=clip_projected_grad,
            clip_quantile=clip_quantile,
            cone_angle=cone_angle,
            cone_beta=cone_beta,
            cone_warmup=cone_warmup,
            optimizer=_name_of(self.optimizer),
            noise=noise,
        )
        self._norms = None if layer_scaling == "none" else norms_of(self.weights)
        self.estimator: Estimator = build(self._config, self.weights, self._norms)
        self.estimator_state = self.estimator.init()
        self.last_update: Update | None = None
        self.steps_done = 0
        follows = module is not None and memory == "materialize" and not _is_compiled(module)
        self._probing = Probing(module, self.weights) if module is not None and follows else None
        self._in_place = walk_for(memory, self.weights)
        self._buffers = _Buffers(module)
        self._audited = self._probing is None
        self._kinds = [(t.tensor.dtype, t.tensor.device) for t in self.weights.tunables]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> float:  # type: ignore[override]
        """One step; the mean loss of its probes.

        closure: computes the loss, a number or a tensor of one element, from scratch; it is called
        once for every probe, twice a direction with the two-point estimator (and once more in the
        first step, to see whether the model reads its weights where the probe is; again for a probe at which
        it is found to read some of them elsewhere).

        Raises NonFiniteLoss, with theta untouched, if a loss is not finite.
        """
        if closure is None:
            raise MezoError(
                "MeZO needs a closure that computes the loss: opt.step(lambda: model(**batch).loss)"
            )
        group = self.param_groups[0]
        _check_settings(group)
        self._check_unmoved()
        if self.estimator.epsilon != group["eps"]:
            self.estimator = self.estimator.with_epsilon(group["eps"])
        estimator = self.estimator
        draw = draw_of(self.seed, self.steps_done, self.num_directions)
        probes = estimator.ask(draw, self.estimator_state)
        losses = self._losses(closure, probes)
        grads, estimator_state = estimator.tell(draw, losses, self.estimator_state)
        check_finite(self.steps_done, losses, grads)
        update = update_of(estimator, draw, float(group["lr"]), grads)
        self._apply(replace(self.optimizer, weight_decay=group["weight_decay"]), update)
        self.estimator_state = estimator_state
        self.last_update, self.steps_done = update, self.steps_done + 1
        return sum(losses) / len(losses)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Raises MezoError once the optimizer is made: its noise belongs to the tensors it was made with."""
        if getattr(self, "_made", False):
            raise MezoError(
                "MeZO tunes the tensors it was made with: add_param_group() would add none; pass all of them to MeZO(...)"
            )
        super().add_param_group(param_group)

    def state_dict(self) -> dict[str, Any]:
        """What is needed to go on: the number of steps done, the seed, the optimizer's moments and what
        the estimator remembers, if anything."""
        own = {
            "steps_done": self.steps_done,
            "seed": self.seed,
            "optimizer": type(self.optimizer).__name__,
            "optimizer_state": self.optimizer.pack(self.optimizer_state),
            "estimator": self._config.estimator,
            "estimator_state": self.estimator_state,
            "norms": self._norms,
            "heading": self.weights.heading.pack(),
        }
        return {**super().state_dict(), "mezo": own}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        own = state_dict["mezo"]
        if (mine := type(self.optimizer).__name__) != own["optimizer"]:
            raise MezoError(
                f"the state is one of {own['optimizer']}, this optimizer is {mine}: make it the same"
            )
        if (mine := self._config.estimator) != own["estimator"]:
            raise MezoError(
                f"the state is one of estimator {own['estimator']!r}, found {mine!r}: make it the same"
            )
        super().load_state_dict({k: v for k, v in state_dict.items() if k != "mezo"})
        self.steps_done, self.seed = own["steps_done"], own["seed"]
        self.optimizer_state = self.optimizer.unpack(self.weights, own["optimizer_state"])
        self._norms = own["norms"]
        self.weights.heading.unpack(own["heading"])
        self.estimator = build(self._config, self.weights, self._norms)
        self.estimator_state = own["estimator_state"]

    def _apply(self, optimizer: Optimizer, update: Update) -> None:
        if self._in_place is None:
            self.optimizer_state = optimizer.apply_(self.weights, self.optimizer_state, update)
        else:
            self.optimizer_state = optimizer.apply_(self._in_place.weights, self.optimizer_state, update)
            self._in_place.release()

    def _losses(self, closure: Callable[[], Any], probes: Sequence[Probe]) -> list[float]:
        """The closure's loss at each probe, all from the same random state and the same buffers."""
        random_state, losses = _RandomState(), []
        self._buffers.keep()

        def evaluate() -> float:
            random_state.restore()
            try:
                return float(closure())
            finally:
                self._buffers.put_back()

        with closing(self._visit(probes, evaluate)) as found:
            losses.extend(found)
        return losses

    def _visit(self, probes: Sequence[Probe], evaluate: Callable[[], float]) -> Generator[float]:
        """The loss at each probe."""
        if self._in_place is not None:
            with closing(self._in_place.visit(probes)) as points:
                for _ in points:
                    yield evaluate()
            return
        for probe in probes:
            loss = self._followed(probe, evaluate)
            if not self._audited:
                self._audited = True
                loss = self._audit(probe, loss, evaluate)
            yield loss

    def _followed(self, probe: Probe, evaluate: Callable[[], float]) -> float:
        """The loss at a probe; evaluated again whenever the closure read weights where the probe is not."""
        while self._probing is not None:
            watch = RawReads(self.weights, ignoring=self._probing.whole)
            with self._probing.at([probe]), watch if probe.scale else nullcontext():
                loss = evaluate()
            if not (read := self._probing.moved(watch.read, [probe])):
                return loss
            self._probing.write_whole(read)
        with self._written(probe):
            return evaluate()

    def _audit(self, probe: Probe, loss: float, evaluate: Callable[[], float]) -> float:
        """The loss with all weights written, if that is another one: then they are, from here on."""
        with self._written(probe):
            written = evaluate()
        eps = max(torch.finfo(dtype).eps for dtype, _ in self._kinds)
        # float32 sums of deep models in another order were seen 1e-5 apart; 16 bits add to that a few last places
        bound = (100 if eps < 1e-6 else 4) * eps * max(1.0, abs(written))
        if not math.isfinite(written) or abs(written - loss) <= bound:
            return loss
        with self._written(probe):
            again = evaluate()
        if abs(again - written) > abs(written - loss) / 4:
            return loss  # the closure differs from call to call by itself: this proves nothing
        warnings.warn(
            f"the closure reads weights in a way that cannot be followed (its loss is {loss:.9g}, and {written:.9g} with "
            "the perturbed weights written into their memory): from here on they are written, and put back from a copy",
            MezoWarning,
            stacklevel=5,
        )
        self._probing = None
        return written

    @contextmanager
    def _written(self, probe: Probe) -> Iterator[None]:
        """Inside the block the tensors themselves are at the probe; they get their exact bytes back."""
        moved = [n for n in range(len(self.weights.tunables)) if probe.scale and probe.factor(n)]
        theta = [(self.weights.tunables[n], self.weights.tunables[n].flat().clone()) for n in moved]
        try:
            if moved:
                self.weights.add_noise_(probe)
            yield
        finally:
            for t, data in theta:
                t.flat().copy_(data)

    def _check_unmoved(self) -> None:
        for t, (dtype, device) in zip(self.weights.tunables, self._kinds, strict=True):
            if (t.tensor.dtype, t.tensor.device) != (dtype, device):
                raise MezoError(
                    f"{t.name} was {dtype} on {device} when MeZO was made, and is {t.tensor.dtype} on {t.tensor.device} "
                    "now: make MeZO(model, ...) after model.to(...), and load_state_dict() if there was a state"
                )


_SMALL = 1 << 20  # elements of a buffer that is put back without a look at whether it was written


class _Buffers:
    """A module's buffers, put back after each probe.

    Large ones only if their version says that they were written: most are masks and tables that nobody writes. For
    small ones that is not enough, since batch_norm writes its statistics without a new version.
    """

    def __init__(self, module: nn.Module | None):
        self._owners = [] if module is None else [m for m in module.modules() if m._buffers]
        self._kept: list[tuple[nn.Module, str, torch.Tensor, int, torch.Tensor]] = []

    def keep(self) -> None:
        """Take the buffers as they are for what they are to be after each probe."""
        before = {(id(m), key): (x, version, copy) for m, key, x, version, copy in self._kept}
        self._kept = []
        for module in self._owners:
            for key, x in module._buffers.items():
                if x is None or x.is_meta or x.is_inference():
                    continue
                old, version, copy = before.get((id(module), key), (None, -1, None))
                if copy is None or old is not x or version != x._version or x.numel() <= _SMALL:
                    copy = x.detach().clone()
                self._kept.append((module, key, x, x._version, copy))

    def put_back(self) -> None:
        for n, (module, key, x, version, copy) in enumerate(self._kept):
            if x.numel() <= _SMALL or x._version != version:
                x.detach().copy_(copy)
                self._kept[n] = module, key, x, x._version, copy
            if module._buffers.get(key) is not x:
                module._buffers[key] = x


class _RandomState:
    """A snapshot of torch's random state: common random numbers for all probes."""

    def __init__(self) -> None:
        self.cpu = torch.get_rng_state()
        self.cuda = (
            torch.cuda.get_rng_state_all()
            if torch.cuda.is_available() and torch.cuda.is_initialized()
            else None
        )

    def restore(self) -> None:
        torch.set_rng_state(self.cpu)
        if self.cuda is not None:
            torch.cuda.set_rng_state_all(self.cuda)


def _check_settings(group: dict[str, Any]) -> None:
    """Raises MezoError for what no step can be made with."""
    for name, least, what in (
        ("lr", 0.0, "0 or more"),
        ("weight_decay", 0.0, "0 or more"),
        ("eps", None, "above 0"),
    ):
        value = float(group[name])
        if not math.isfinite(value) or (value <= 0 if least is None else value < least):
            raise MezoError(f"{name}={value!r}: expected a finite number, {what}")


def _unwrapped(module: nn.Module) -> nn.Module:
    """The module inside DataParallel and the like, whose names are those of the model."""
    wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    while isinstance(module, wrappers):
        module = module.module
    return module


def _is_compiled(module: nn.Module) -> bool:
    """Whether Python does not see the forward of the module, or of one inside it."""
    return any(
        isinstance(m, torch.jit.ScriptModule)
        or hasattr(m, "_orig_mod")
        or getattr(m, "_compiled_call_impl", None) is not None
        for m in module.modules()
    )


def _name_of(optimizer: Optimizer) -> str:
    """In the registry; elsewhere, of the class."""
    return next(
        (name for name, kind in OPTIMIZERS.items() if type(optimizer) is kind), type(optimizer).__name__
    )


def _named(source: Any) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(source, nn.Module):
        yield from source.named_parameters()
        return
    for number, item in enumerate(source):
        if isinstance(item, torch.Tensor):
            yield f"param.{number}", item
        elif isinstance(item, tuple) and len(item) == 2 and isinstance(item[1], torch.Tensor):
            yield item[0], item[1]
        else:
            raise MezoError(
                f"expected an nn.Module, tensors, or (name, tensor) pairs; found {type(item).__name__} at position {number}"
            )
