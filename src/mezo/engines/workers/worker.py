"""Full-parameter MeZO inside the workers of a serving engine: what is asked of them, and their answers.

`handle(model, operation, arguments)` runs in every tensor-parallel worker, on the engine's own module
tree. Arguments and answers are JSON values. `mezo.engines.workers.group.Workers` is the other side: it asks
all workers at once and checks that what they answer fits together.

configure   {"tuned": [[name, shape], ...],    the tuned tensors as transformers calls them, in order
             "frozen": [[name, shape], ...],   the model's other tensors
             "tied": {name: name},             names that transformers ties -> the one listed above
             "noise": "gaussian" | "rademacher" | "rank-one",
             "optimizer": [name, settings],    of `mezo.optimizers.OPTIMIZERS`
             "keep": "auto" | "device" | "host" | "walk" | "alone",  where theta is kept (`mezo.engines.workers.restore`)
             "restore_every": steps,           of a walk
             "workers": how many there are on a host,
             "checkpoint": folder | null}      compare every piece with what its files have
            -> {"pieces": [[number of the tensor, first element, rows, columns, row stride], ...],
                "bytes": of theta here, "keep": what "auto" chose,
                "unverified": names that no file of the checkpoint has; null without a checkpoint}
probe       {"seed", "scale", "factors": one per tuned tensor | null, "drift"}: the model is put at that
            point; scale 0 is theta -> {}
update      {"step", "learning_rate", "n", "directions": [{"seed", "projected_grad", "factors", "drift"}, ...],
             "heading_beta"}: theta moves and the model is at it -> {"drift": null | how far a walk had strayed}
restore     {}: the model is at theta, exactly -> {"drift": likewise}
checksum    {}: of the values the model holds now -> {"sums": one for each piece (`engines.workers.verify.sum_of`)}
release     {}: the model is at theta, exactly, and what was kept is forgotten -> {"drift": likewise}

An operation that failed answers {"error": one line} instead. Keys and values that an engine has cached
are of other weights after a probe, an update and a restore: whoever calls flushes them.
"""

import traceback
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary, ref

import torch

from mezo.engines.workers.restore import WalkError, keeper_for, size_of
from mezo.engines.workers.shard_map import Logical, Pieces, find_pieces
from mezo.engines.workers.verify import check_against, sum_of
from mezo.errors import MezoError
from mezo.optimizers import OPTIMIZERS
from mezo.types import Direction, Probe, Scaling, Update
from mezo.util.registry import look_up

Answer = dict[str, Any]


@torch.no_grad()
def handle(model: torch.nn.Module, operation: str, arguments: dict[str, Any]) -> Answer:
    """Do one operation on this worker's model. Never raises: what went wrong is in the answer."""
    try:
        if operation == "configure":
            _SESSIONS.pop(model, None)
            session = _Session(model, arguments)
            _SESSIONS[model] = session
            return session.description
        operations: dict[str, Callable[[_Session, dict[str, Any]], Answer]] = {
            "probe": _Session.probe,
            "update": _Session.update,
            "restore": _Session.restore,
            "checksum": _Session.checksum,
            "release": _Session.release,
        }
        act = look_up(operations, operation, "operation of a worker")
        if model not in _SESSIONS:
            raise MezoError(f"{operation!r} was asked of a worker before 'configure'")
        return act(_SESSIONS[model], arguments)
    except MezoError as error:
        return {"error": str(error)}
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return {
            "error": f"{type(error).__name__}: {error} ({where.name}, {Path(where.filename).name}:{where.lineno})"
        }


class _Session:
    """One model of a worker, from configure to release."""

    def __init__(self, model: torch.nn.Module, asked: dict[str, Any]):
        self.of = ref(model)  # a session is kept for as long as its model is, and no longer
        shapes = {
            which: {name: tuple(shape) for name, shape in asked[which]} for which in ("tuned", "frozen")
        }
        self.logical = Logical(shapes["tuned"], shapes["frozen"], asked["tied"])
        self.kind = asked["noise"]
        self._find(model)
        folder = asked["checkpoint"]
        unverified = None if folder is None else check_against(Path(folder), self.live.pieces)
        name, settings = asked["optimizer"]
        optimizer = look_up(OPTIMIZERS, name, "optimizer")(**settings)
        every, workers = asked["restore_every"], asked["workers"]
        self.keeper = keeper_for(asked["keep"], self.live, optimizer, every=every, workers=workers)
        self.scalings: dict[tuple[float, ...], Scaling] = {}
        pieces = self.live.pieces
        self.description = {
            "pieces": [[p.number, p.first, *p.rows().shape, p.row_stride] for p in pieces],
            "bytes": size_of(self.live),
            "keep": self.keeper.name,
            "unverified": unverified,
        }

    def _find(self, model: torch.nn.Module) -> None:
        self.live = Pieces(find_pieces(model, self.logical), kind=self.kind)
        self.places = _places(model)

    def _here(self) -> Pieces:
        """The pieces, found again if the engine has given its parameters other memory."""
        model = self.of()
        if model is not None and _places(model) != self.places:
            self._find(model)
        return self.live

    def probe(self, asked: dict[str, Any]) -> Answer:
        scaling = self._scaling(asked.get("factors"))
        self.keeper.go(self._here(), Probe(asked["seed"], asked["scale"], scaling, asked.get("drift") or 0.0))
        return {}

    def update(self, asked: dict[str, Any]) -> Answer:
        directions = tuple(
            Direction(d["seed"], d["projected_grad"], self._scaling(d.get("factors")), d.get("drift") or 0.0)
            for d in asked["directions"]
        )
        beta = asked.get("heading_beta")
        update = Update(asked["step"], asked["learning_rate"], directions, asked["n"], heading_beta=beta)
        return _told(self.keeper.update(self._here(), update))

    def restore(self, asked: dict[str, Any]) -> Answer:
        return _told(self.keeper.restore(self._here()))

    def checksum(self, asked: dict[str, Any]) -> Answer:
        return {"sums": [sum_of(piece) for piece in self._here().pieces]}

    def release(self, asked: dict[str, Any]) -> Answer:
        drift = self.keeper.restore(self._here())
        if (model := self.of()) is not None:
            _SESSIONS.pop(model, None)
        return _told(drift)

    def _scaling(self, factors: list[float] | None) -> Scaling | None:
        """One object for equal factors, as scalings are compared by identity."""
        if factors is None:
            return None
        key = tuple(factors)
        if key not in self.scalings:
            self.scalings[key] = self.live.scaling_of("", key)
        return self.scalings[key]


_SESSIONS: WeakKeyDictionary[torch.nn.Module, _Session] = WeakKeyDictionary()


def _places(model: torch.nn.Module) -> list[int]:
    return [parameter.data_ptr() for parameter in model.parameters()]


def _told(drift: WalkError | None) -> Answer:
    return {"drift": None if drift is None else asdict(drift)}
