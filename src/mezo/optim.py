"""`MeZO`: an optimizer for anyone's own loop and any nn.Module, without gradients."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import nn

from mezo.algorithm import check_finite
from mezo.engines.inplace import InPlace
from mezo.engines.probing import Probing
from mezo.engines.watch import Watch
from mezo.errors import MezoError
from mezo.estimators import ESTIMATORS, Estimator, Normalized
from mezo.noise import Kind, derive_seed
from mezo.optimizers import SGD
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
    eps: the size of the perturbation. num_directions: n of n-SPSA, 2n forward passes a step.
    seed: with the step number it determines every direction.
    normalize: directions of unit length instead of the paper's standard normal.
    memory: "materialize", or "regenerate" for the paper's in-place walk (modules and tensors alike;
        no second copy, but 16-bit weights drift).

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
        normalize: bool = False,
        rounding: Literal["stochastic", "nearest"] = "stochastic",
        memory: Literal["materialize", "regenerate"] = "materialize",
    ):
        module = model_or_params if isinstance(model_or_params, nn.Module) else None
        named = [(name, p) for name, p in _named(model_or_params) if p.requires_grad or module is None]
        self.weights = Weights(named, kind=noise)
        super().__init__([p for _, p in named], {"lr": lr, "eps": eps, "weight_decay": weight_decay})
        self.seed, self.num_directions = seed, num_directions
        self.rounding: Literal["stochastic", "nearest"] = rounding
        self.estimator_name, self.normalize = estimator, normalize
        self.last_update: Update | None = None
        self.steps_done = 0
        self._probing = (
            Probing(module, self.weights) if module is not None and memory == "materialize" else None
        )
        self._in_place = InPlace(self.weights) if memory == "regenerate" else None
        self._watched = False
        self._estimator()  # an unknown name is an error here, not at the first step

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> float:  # type: ignore[override]
        """One step; the mean loss of its probes.

        closure: computes the loss, a number or a tensor of one element, from scratch; it is called
        twice for every direction (and once more in the first step, to see how the model reads its
        weights). Raises NonFiniteLoss, with theta untouched, if a loss is not finite.
        """
        if closure is None:
            raise MezoError(
                "MeZO needs a closure that computes the loss: opt.step(lambda: model(**batch).loss)"
            )
        group = self.param_groups[0]
        estimator = self._estimator()
        seeds = [derive_seed(self.seed, self.steps_done, k) for k in range(self.num_directions)]
        probes = estimator.ask(seeds)
        random_state = _RandomState()
        if self._probing is not None and not self._watched:
            with self._probing.at(probes[:1]), Watch(self.weights) as watch:
                closure()
            self._probing.swap_whole(watch.read_raw)
            self._watched = True
        losses = []
        for probe in probes:
            random_state.restore()
            with self._at(probe):
                losses.append(float(closure()))
        directions = estimator.tell(probes, losses)
        check_finite(self.steps_done, losses, [d.projected_grad for d in directions])
        update = Update(self.steps_done, group["lr"], directions)
        SGD(weight_decay=group["weight_decay"], rounding=self.rounding).apply_(self.weights, None, update)
        self.last_update, self.steps_done = update, self.steps_done + 1
        return sum(losses) / len(losses)

    def state_dict(self) -> dict[str, Any]:
        """What is needed to go on: there are no moments, only the number of steps done and the seed."""
        return {**super().state_dict(), "mezo": {"steps_done": self.steps_done, "seed": self.seed}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        own = state_dict["mezo"]
        super().load_state_dict({k: v for k, v in state_dict.items() if k != "mezo"})
        self.steps_done, self.seed = own["steps_done"], own["seed"]

    def _estimator(self) -> Estimator:
        estimator = look_up(ESTIMATORS, self.estimator_name, "estimator")(epsilon=self.param_groups[0]["eps"])  # type: ignore[call-arg]
        return Normalized(estimator, self.weights.norm) if self.normalize else estimator

    @contextmanager
    def _at(self, probe: Probe) -> Iterator[None]:
        if self._probing is not None:
            with self._probing.at([probe]):
                yield
        elif self._in_place is not None:
            with self._in_place.at(probe):
                yield
        else:
            theta = [t.tensor.data for t in self.weights.tunables]
            try:
                for t in self.weights.tunables:
                    t.tensor.data = t.tensor.data.clone()
                self.weights.add_noise_(probe.seed, probe.scale)
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
