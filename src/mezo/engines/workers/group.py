"""The workers of a serving engine as one: full-parameter operations asked of all of them, and checked.

`mezo.engines.workers.worker` documents the messages. All workers hold parts of one theta: after a failed operation
the engine must be started again, and the weights made from the run's trajectory.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from typing import Any

from mezo.engines.workers.restore import Keep, WalkError
from mezo.engines.workers.shard_map import Logical
from mezo.errors import MezoError
from mezo.optimizers import OPTIMIZERS, Optimizer
from mezo.types import Direction, Probe, Scaling, Update
from mezo.weights.tunable import canonical

Call = Callable[[str, dict[str, Any]], list[dict[str, Any]]]


def tensors_of(model: Any) -> Logical:
    """The tensors of a transformers model, which may be on the meta device.

    Tuned is what requires gradients, as `mezo.tuning.tune` leaves it.
    """
    named = {canonical(name): p for name, p in model.named_parameters()}
    first = {id(p): name for name, p in named.items()}
    every = {canonical(name): first[id(p)] for name, p in model.named_parameters(remove_duplicate=False)}
    return Logical(
        tuned={name: tuple(p.shape) for name, p in named.items() if p.requires_grad},
        frozen={name: tuple(p.shape) for name, p in named.items() if not p.requires_grad},
        tied={alias: name for alias, name in every.items() if alias != name},
    )


class Workers:
    """theta in the workers of an engine, put at probes and moved by updates."""

    def __init__(
        self,
        call: Call,
        tensors: Logical,
        *,
        optimizer: Optimizer,
        noise: str = "gaussian",  # one of `mezo.engines.workers.shard_map.KINDS`
        keep: Keep = "auto",
        restore_every: int = 10,
        checkpoint: str | None = None,
        workers: int = 1,
    ):
        """call: asks every worker (`mezo.engines.workers.worker.handle`) and returns their answers, rank by rank.

        tensors: the model's, as transformers has them (`tensors_of`). checkpoint: a folder, readable by the workers,
        that their weights were loaded from. Raises MezoError if a parameter cannot be tuned or differs from the
        checkpoint, or if the workers together lack an element of a tuned tensor.
        """
        self.call, self.tuned, self.workers = call, dict(tensors.tuned), workers
        self.names = list(self.tuned)
        named = {type_: name for name, type_ in OPTIMIZERS.items()}
        if type(optimizer) not in named:
            raise MezoError(
                f"optimizer {type(optimizer).__name__} is a plugin's, and the processes of a serving engine have this package's "
                f"alone to tune all weights ({', '.join(OPTIMIZERS)}): use one of these, or tuning='lora'"
            )
        asked = {
            "tuned": [[name, list(shape)] for name, shape in tensors.tuned.items()],
            "frozen": [[name, list(shape)] for name, shape in tensors.frozen.items()],
            "tied": dict(tensors.tied),
            "noise": noise,
            "optimizer": [named[type(optimizer)], asdict(optimizer)],
            "keep": keep,
            "restore_every": restore_every,
            "workers": workers,
            "checkpoint": checkpoint,
        }
        answers = self._ask("configure", asked)
        if len({answer["keep"] for answer in answers}) > 1:
            # "auto" found room for theta on some workers alone; they should all be equally exact
            answers = self._ask("configure", {**asked, "keep": "walk"})
        self.held = [[tuple(piece) for piece in answer["pieces"]] for answer in answers]
        self._check_coverage()
        self.keep: str = answers[0]["keep"]
        self.restore_every = restore_every
        self.bytes: list[int] = [answer["bytes"] for answer in answers]  # of theta in each worker
        self.unverified: list[str] = answers[0]["unverified"] or []  # names that the checkpoint does not have

    def summary(self) -> str:
        """For people: where theta is while the engine computes at probes."""
        size = f"{max(self.bytes) / 1e6:.0f} MB a worker"
        if self.keep == "walk":
            return (
                f"the engine's weights walk to the probes and back; theta is made again exactly every "
                f"{self.restore_every} steps, from a copy on disk of {size}"
            )
        if self.keep == "alone":
            return f"theta is the engine's own weights, {size}: the probes are adapters, and no second copy is kept"
        place = "the host's memory" if self.keep == "host" else "the device's memory"
        return f"theta is kept once more in {place}, {size}: the engine's weights come back to it bit for bit"

    def go(self, probe: Probe) -> None:
        """The model is at the probe; cached keys and values are stale."""
        self._ask("probe", _plain(probe))

    def apply(self, update: Update) -> WalkError | None:
        """theta moves, and the model is at it; cached keys and values are stale."""
        names = ("step", "learning_rate", "n", "heading_beta")
        asked: dict[str, Any] = {name: getattr(update, name) for name in names}
        asked["directions"] = [_plain(direction) for direction in update.directions]
        return _walked(self._ask("update", asked))

    def restore(self) -> WalkError | None:
        """The model is at theta exactly; cached keys and values are stale."""
        return _walked(self._ask("restore", {}))

    def release(self) -> WalkError | None:
        """As `restore`, and nothing is kept of theta: the engine is as if it had never been tuned by MeZO."""
        return _walked(self._ask("release", {}))

    def checksums(self) -> dict[str, int]:
        """A 64-bit sum for each tuned tensor, of what the model holds now: equal however it is cut.

        Raises MezoError if workers hold different values of what they should hold alike.
        """
        answers = self._ask("checksum", {})
        sums: dict[tuple[int, ...], int] = {}
        for pieces, answer in zip(self.held, answers, strict=True):
            for piece, value in zip(pieces, answer["sums"], strict=True):
                if sums.setdefault(piece, value) != value:
                    raise MezoError(f"two workers hold different values of {self.names[piece[0]]}")
        totals = dict.fromkeys(self.names, 0)
        for (number, *_), value in sums.items():
            totals[self.names[number]] = (totals[self.names[number]] + value) % (1 << 64)
        return totals

    def _ask(self, operation: str, arguments: dict[str, Any]) -> list[dict[str, Any]]:
        answers = self.call(operation, arguments)
        if len(answers) != self.workers:
            raise MezoError(f"{operation}: expected answers of {self.workers} workers, found {len(answers)}")
        for rank, answer in enumerate(answers):
            if "error" in answer:
                raise MezoError(f"worker {rank} of {self.workers}: {answer['error']}")
        return answers

    def _check_coverage(self) -> None:
        """Every element of every tensor is in exactly one piece, those that workers hold alike aside."""
        pieces: dict[int, set[tuple[int, ...]]] = {}
        for piece in {piece for held in self.held for piece in held}:
            pieces.setdefault(piece[0], set()).add(piece)
        for number, (name, shape) in enumerate(self.tuned.items()):
            found = sum(rows * columns for _, _, rows, columns, _ in pieces.get(number, ()))
            if found != math.prod(shape) or _overlap(sorted(pieces[number])):
                raise MezoError(
                    f"{name}: the workers' pieces have {found} of its {math.prod(shape)} elements, or some of them "
                    "twice: this model cannot be tuned in full on this engine"
                )


def _overlap(pieces: Sequence[tuple[int, ...]]) -> bool:
    """Whether two rectangles of a tensor share elements."""
    boxes = [(*divmod(first, stride), rows, columns) for _, first, rows, columns, stride in pieces]
    return any(
        a[0] < b[0] + b[2] and b[0] < a[0] + a[2] and a[1] < b[1] + b[3] and b[1] < a[1] + a[3]
        for n, a in enumerate(boxes)
        for b in boxes[:n]
    )


def _plain(point: Probe | Direction) -> dict[str, Any]:
    """As JSON values, the scaling as its factors."""
    values = {field.name: getattr(point, field.name) for field in fields(point)}
    scaling: Scaling | None = values.pop("scaling")
    return {**values, "factors": None if scaling is None else list(scaling.factors)}


def _walked(answers: Sequence[dict[str, Any]]) -> WalkError | None:
    """That of all workers together."""
    found = [WalkError(**answer["drift"]) for answer in answers if answer["drift"] is not None]
    if not found:
        return None
    squares, of_theta = sum(w.squares for w in found), sum(w.theta_squares for w in found)
    return WalkError(max(w.steps for w in found), max(w.largest for w in found), squares, of_theta)
