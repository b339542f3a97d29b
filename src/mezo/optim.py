"""`MeZO`: an optimizer for anyone's own loop and any nn.Module, without gradients."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import nn

from mezo.algorithm import check_finite, draw_of, update_of
from mezo.config import MeZOConfig
from mezo.engines.modes import Memory, walk_for
from mezo.engines.probing import Probing
from mezo.engines.watch import Watch
from mezo.errors import MezoError
from mezo.estimators import Estimator, build, norms_of
from mezo.lowrank import Kind
from mezo.noise import Rounding
from mezo.optimizers import OPTIMIZERS, Optimizer
from mezo.registry import look_up
from mezo.types import Probe, Update
from mezo.weights import Weights


class MeZO(torch.optim.Optimizer):
    """Algorithm 1 of Malladi et al. 2023 behind `torch.optim`'s interface.

    >>> opt = mezo.MeZO(model, lr=1e-6, eps=1e-3)
    >>> loss = opt.step(lambda: model(**batch).loss)

    model_or_params: an nn.Module, whose trainable parameters are tuned and whose forward passes are
        evaluated at theta + eps z without writing theta; or an iterable of tensors or (name, tensor)
        pairs, for which a second copy of them is held while a probe is evaluated.
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

    Every probe of a step sees the same random state, so dropout masks do not differ between them.
    Raises MezoError for tensors that cannot be tuned.
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
        module = model_or_params if isinstance(model_or_params, nn.Module) else None
        named = [(name, p) for name, p in _named(model_or_params) if p.requires_grad or module is None]
        self.weights = Weights(named, kind=noise, rank=noise_rank)
        super().__init__([p for _, p in named], {"lr": lr, "eps": eps, "weight_decay": weight_decay})
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
        self._probing = (
            Probing(module, self.weights) if module is not None and memory == "materialize" else None
        )
        self._in_place = walk_for(memory, self.weights)
        self._watched = False

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> float:  # type: ignore[override]
        """One step; the mean loss of its probes.

        closure: computes the loss, a number or a tensor of one element, from scratch; it is called
        once for every probe, twice a direction with the two-point estimator (and once more in the
        first step, to see how the model reads its weights).

        Raises NonFiniteLoss, with theta untouched, if a loss is not finite.
        """
        if closure is None:
            raise MezoError(
                "MeZO needs a closure that computes the loss: opt.step(lambda: model(**batch).loss)"
            )
        group = self.param_groups[0]
        if self.estimator.epsilon != group["eps"]:
            self.estimator = self.estimator.with_epsilon(group["eps"])
        estimator = self.estimator
        draw = draw_of(self.seed, self.steps_done, self.num_directions)
        probes = estimator.ask(draw, self.estimator_state)
        random_state = _RandomState()
        if self._probing is not None and not self._watched:
            with self._probing.at([Probe(draw.seeds[0], group["eps"])]), Watch(self.weights) as watch:
                closure()
            self._probing.swap_whole(watch.read_raw)
            self._watched = True
        losses = []
        with closing(self._visit(probes)) as points:
            for _ in points:
                random_state.restore()
                losses.append(float(closure()))
        grads, estimator_state = estimator.tell(draw, losses, self.estimator_state)
        check_finite(self.steps_done, losses, grads)
        update = update_of(estimator, draw, group["lr"], grads)
        self._apply(replace(self.optimizer, weight_decay=group["weight_decay"]), update)
        self.estimator_state = estimator_state
        self.last_update, self.steps_done = update, self.steps_done + 1
        return sum(losses) / len(losses)

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

    def _visit(self, probes: Sequence[Probe]) -> Generator[Probe]:
        """The tuned tensors are at each probe while it is yielded."""
        if self._in_place is not None:
            yield from self._in_place.visit(probes)
            return
        for probe in probes:
            with self._at(probe):
                yield probe

    @contextmanager
    def _at(self, probe: Probe) -> Iterator[None]:
        if self._probing is not None:
            with self._probing.at([probe]):
                yield
        else:
            theta = [t.tensor.data for t in self.weights.tunables]
            try:
                for t in self.weights.tunables:
                    t.tensor.data = t.tensor.data.clone()
                self.weights.add_noise_(probe)
                yield
            finally:
                for t, data in zip(self.weights.tunables, theta, strict=True):
                    t.tensor.data = data


class _RandomState:
    """torch's random state at one moment, to be gone back to: common random numbers for all probes."""

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
