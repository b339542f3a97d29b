"""The last updates of a run: the state of an optimizer that keeps no moments but rebuilds them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mezo.types import Direction, Scaling, Update


@dataclass(frozen=True, slots=True)
class History:
    """A few numbers for each of the last steps. A replay has it again by folding over the updates.

    What a step's learning rate was plays no part in moments and is kept for no use but to be whole.
    """

    steps: int = 0  # of the run so far
    recent: tuple[Update, ...] = ()  # oldest first

    def after(self, update: Update, window: int) -> "History":
        """With one more update, the oldest forgotten where there are more than `window`."""
        return History(self.steps + 1, (*self.recent, update)[-window:])


def pack(history: History) -> dict[str, Any]:
    """Numbers, texts, lists and dicts that `unpack` makes a History of."""
    scalings: dict[int, Scaling] = {}  # by identity, as they are compared
    steps: list[dict[str, Any]] = []
    for update in history.recent:
        directions: list[tuple[int, float, int | None]] = []
        for d in update.directions:
            if d.scaling is not None:
                scalings[id(d.scaling)] = d.scaling
            place = None if d.scaling is None else list(scalings).index(id(d.scaling))
            directions.append((d.seed, d.projected_grad, place))
        steps.append(
            dict(step=update.step, learning_rate=update.learning_rate, n=update.n, directions=directions)
        )
    named = [(s.name, list(s.factors)) for s in scalings.values()]
    return {"steps": history.steps, "scalings": named, "recent": steps}


def unpack(packed: dict[str, Any]) -> History:
    scalings = [Scaling(name, tuple(factors)) for name, factors in packed["scalings"]]
    recent = tuple(
        Update(
            each["step"],
            each["learning_rate"],
            _directions(each["directions"], scalings),
            each["n"],
        )
        for each in packed["recent"]
    )
    return History(packed["steps"], recent)


def _directions(packed: Sequence[Sequence[Any]], scalings: Sequence[Scaling]) -> tuple[Direction, ...]:
    return tuple(Direction(s, g, None if place is None else scalings[place]) for s, g, place in packed)
