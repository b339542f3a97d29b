"""Steps that change nothing: both probes came to the same loss, so the slope is 0 and theta stays."""

from collections import deque

from mezo.config import MeZOConfig
from mezo.events import StepRecord

WINDOW = 200  # steps
SHARE = 0.9  # of them, above which a run is said to stand still
# In a row there is no need to wait for more. Of steps that stand still by chance, nine in ten, a hundred in a row
# come once in 400,000 (0.9^100 times 0.1, for where it begins).
NONE_OF_THE_FIRST, IN_A_ROW = 50, 100

_JUMPS = ("accuracy", "f1", "rouge")  # objectives that move in jumps, by the first word of their names


class Stillness:
    """Counts them, and speaks once."""

    def __init__(self, config: MeZOConfig, objective: str) -> None:
        self._config, self._objective = config, objective
        self._still: deque[bool] = deque(maxlen=WINDOW)
        self._in_a_row, self._moved = 0, False
        self._spoke = False

    def seen(self, record: StepRecord) -> str | None:
        """A warning for people, or None."""
        still = not any(record.projected_grads)
        self._still.append(still)
        self._in_a_row = self._in_a_row + 1 if still else 0
        self._moved = self._moved or not still
        if self._spoke or not self._is_too_much():
            return None
        self._spoke = True
        many = len(self._still) if self._in_a_row < self._enough else self._in_a_row
        return (
            f"warning: {sum(list(self._still)[-many:])} of the last {many} steps changed nothing: their probes' losses "
            f"were equal, and so their projected gradients 0; {self._advice()}"
        )

    @property
    def _enough(self) -> int:
        return IN_A_ROW if self._moved else NONE_OF_THE_FIRST

    def _is_too_much(self) -> bool:
        full = len(self._still) == WINDOW
        return self._in_a_row >= self._enough or (full and sum(self._still) > SHARE * WINDOW)

    def _advice(self) -> str:
        wider = f"try --epsilon {2 * self._config.epsilon:g}"
        if self._objective.partition(":")[0] in _JUMPS or ":" in self._objective:
            return f"{self._objective} moves in jumps: {wider}, a larger --batch-size, or cross-entropy first"
        if self._moved and self._in_a_row >= IN_A_ROW:
            return (
                "they moved before: the weights have been driven to where the loss no longer depends on them; begin "
                "again with a lower learning rate"
            )
        if self._config.dtype != "float32" and self._config.tuning not in ("lora", "prefix"):
            return f"the perturbation is lost in the rounding of {self._config.dtype}: {wider}, or --dtype float32"
        return (
            f"the perturbation is too small to be seen in the loss: {wider}, and look at what --train tunes"
        )
