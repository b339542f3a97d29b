"""`MeZO`: an optimizer for anyone's own loop and any nn.Module, without gradients."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any, Literal, TypedDict, Unpack

import torch
from torch import nn

from mezo.algorithm import draw_of, mezo_step
from mezo.config import MeZOConfig
from mezo.engines.closures.engine import ClosureEngine
from mezo.engines.in_place.modes import Memory
from mezo.errors import MezoError, near
from mezo.estimators import Estimator, build, norms_of
from mezo.noise import Rounding
from mezo.optimizers import OPTIMIZERS, Optimizer
from mezo.types import Update
from mezo.util import plugins
from mezo.weights.low_rank_noise import Kind
from mezo.weights.weights import Weights


class Settings(TypedDict, total=False):
    """Settings of `MeZO` that few people change; names, values and defaults are those of `MeZOConfig`."""

    estimator: str  # "two-point"; docs/estimators.md has the others
    noise: Kind  # "gaussian"
    noise_rank: int  # 2; of low-rank and kept-basis noise
    basis_steps: int  # 100; that noise kept-basis keeps a factor for
    normalize: bool  # directions of unit length in place of the paper's standard normal
    blocks: Literal["all", "round-robin", "random", "each"]
    layers_per_step: int
    layer_scaling: Literal["none", "variance", "expectation", "learned"]
    clip_projected_grad: float | None
    clip_quantile: float | None
    cone_angle: float
    cone_beta: float
    cone_warmup: int
    rounding: Rounding  # "matched"; of 16-bit weights


_IN_CONFIG = {"normalize": "normalize_perturbations"}
_OF_WEIGHTS = ("noise", "noise_rank", "rounding")  # not read from the config here


class MeZO(torch.optim.Optimizer):
    """Algorithm 1 of Malladi et al. 2023 behind `torch.optim`'s interface.

    Args:
        model_or_params: an nn.Module, whose trainable parameters are tuned and whose forward passes are evaluated at
            theta + eps z without writing theta; or an iterable of tensors or (name, tensor) pairs, which hold the
            probe while it is evaluated and get their exact bytes back from a second copy.
        lr: the learning rate; torch's schedulers may change it between steps.
        eps: the size of the perturbation, in units of the weights.
        seed: with the step number it determines every direction.
        num_directions: n of n-SPSA, 2n forward passes a step with the two-point estimator.
        weight_decay: decoupled, times the learning rate.
        optimizer: its name, or one with settings of its own: `mezo.optimizers.Adam(beta2=0.99)`. Its weight decay and
            rounding are those given here.
        memory: "materialize", or "regenerate" for the paper's in-place walk (no second copy, but 16-bit weights
            drift), or "store", "store-layer": see docs/memory.md.
        settings: how directions are drawn and slopes are read, see `Settings`.

    Raises:
        MezoError: tensors or settings that cannot be used.

    Reference:
        Malladi et al. 2023, arXiv:2305.17333, Algorithm 1. Departure: a probe does not write theta, so that theta is
        exact after any number of probes.

    Example:
        >>> import mezo, torch
        >>> model = torch.nn.Linear(4, 1)
        >>> x, y = torch.randn(8, 4), torch.randn(8, 1)
        >>> optimizer = mezo.MeZO(model, lr=1e-2, eps=1e-3)
        >>> loss = optimizer.step(lambda: torch.nn.functional.mse_loss(model(x), y))
        >>> optimizer.steps_done
        1

    Every probe of a step sees the same random state, so dropout masks do not differ between them, and the same
    buffers: what a forward writes into those (BatchNorm's running statistics) is undone after each probe. In train
    mode BatchNorm normalises by the batch all the same.

    Weights that a closure reads past the module that owns them (a parameter in a list, a view of a flat buffer,
    functional calls) are noticed in whatever step it happens. They hold the probe themselves from then on, and get
    their exact bytes back. The first probe of all is evaluated a second time with every weight written, which shows
    what nobody can watch (a NumPy view, a C++ extension): then all weights are written, with a MezoWarning. Compiled
    modules (torch.jit, torch.compile) are served like that from the start. This takes a second copy of those weights.
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
        optimizer: str | Optimizer = "sgd",
        memory: Memory = "materialize",
        **settings: Unpack[Settings],
    ):
        _check_settings({"lr": lr, "eps": eps, "weight_decay": weight_decay})
        if unknown := settings.keys() - Settings.__annotations__.keys():
            name = min(unknown)
            raise MezoError(f"MeZO has no setting {name!r}{near(name, Settings.__annotations__)}")
        module = _unwrapped(model_or_params) if isinstance(model_or_params, nn.Module) else None
        source = model_or_params if module is None else module
        named = [(name, p) for name, p in _named(source) if p.requires_grad or module is None]
        noise = settings.get("noise", "gaussian")
        self.weights = Weights(named, kind=noise, rank=settings.get("noise_rank", 2))
        self._made = False
        super().__init__([p for _, p in named], {"lr": lr, "eps": eps, "weight_decay": weight_decay})
        self._made = True
        self.seed, self.num_directions = seed, num_directions
        if isinstance(optimizer, str):
            plugins.trust("optimizer", optimizer)
            rule, own = plugins.find("optimizer", optimizer, OPTIMIZERS)
            optimizer = plugins.made(optimizer, rule, own)
        optimizer = replace(optimizer, rounding=settings.get("rounding", "matched"))
        self._config = MeZOConfig.build(
            **{
                _IN_CONFIG.get(name, name): value
                for name, value in settings.items()
                if name not in _OF_WEIGHTS
            },
            epsilon=eps,
            num_directions=num_directions,
            optimizer=_name_of(optimizer),
            noise=noise,
        )
        self._norms = None if self._config.layer_scaling == "none" else norms_of(self.weights)
        self.estimator: Estimator = build(self._config, self.weights, self._norms)
        self.estimator_state = self.estimator.init()
        self.engine = ClosureEngine(self.weights, optimizer, module, memory)
        self.last_update: Update | None = None
        self.steps_done = 0

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
                "MeZO needs a closure that computes the loss: opt.step(lambda: model(**batch).loss); transformers' Trainer "
                "gives none: use mezo.MeZOTrainer(model=..., train_dataset=...) in its place"
            )
        group = self.param_groups[0]
        _check_settings(group)
        self.engine.check_unmoved()
        if self.estimator.epsilon != group["eps"]:
            self.estimator = self.estimator.with_epsilon(group["eps"])
        self.engine.optimizer = replace(self.engine.optimizer, weight_decay=group["weight_decay"])
        try:
            self.last_update, losses, self.estimator_state = mezo_step(
                self.engine,
                self.estimator,
                [closure],
                draw_of(self.seed, self.steps_done, self.num_directions),
                float(group["lr"]),
                self.estimator_state,
            )
        except RuntimeError as error:
            if "does not require grad" not in str(error):
                raise
            raise MezoError(
                "MeZO: the closure calls backward(), and there are no gradients: let it return the loss alone; in Lightning, "
                "set automatic_optimization = False and call opt.step(lambda: the loss) in training_step"
            ) from error
        self.steps_done += 1
        return sum(losses) / len(losses)

    @property
    def optimizer(self) -> Optimizer:
        """What makes the update of the slopes."""
        return self.engine.optimizer

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
            "optimizer_state": self.optimizer.pack(self.engine.state),
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
        self.engine.state = self.optimizer.unpack(self.weights, own["optimizer_state"])
        self._norms = own["norms"]
        self.weights.heading.unpack(own["heading"])
        self.estimator = build(self._config, self.weights, self._norms)
        self.estimator_state = own["estimator_state"]


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
