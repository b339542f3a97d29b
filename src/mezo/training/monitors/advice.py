"""What a person should hear about the size of the steps, with the learning rate to try instead."""

from collections import deque
from statistics import fmean

from mezo.algorithm import NonFiniteLoss
from mezo.config import MeZOConfig
from mezo.data import EncodedDataset
from mezo.events import StepRecord
from mezo.weights.weights import Weights

WINDOW = 50  # steps

# To first order a step lowers the loss by lr * g^2 along its direction (lr / n * sum of g_k^2 for n). Runs of
# models of 4 to 135 million parameters that went well, full or LoRA, promised 0.001 to 0.02 of the loss a
# step, toys that learn by heart up to 0.15; runs that diverged 0.1 as their loss began to rise, then 0.4.
TOO_MUCH = 0.2
GOOD = 0.02
_FOR_GAUSSIAN = 1e-5  # the largest that the paper has for full tuning, without normalisation
RISE = 1.5  # times the loss of the first steps


def before_the_start(config: MeZOConfig) -> str | None:
    """A warning if the learning rate is one for full tuning, and something far smaller is tuned, or moves far less."""
    if config.learning_rate == "auto":
        return None
    if config.normalize_perturbations and config.learning_rate <= _FOR_GAUSSIAN:
        return (
            f"warning: a learning rate of {config.learning_rate:g} will hardly move the weights along normalised directions, "
            "which are shorter by the root of the number of elements: begin with 1e-3"
        )
    if config.tuning not in ("lora", "prefix") or config.normalize_perturbations:
        return None
    usual = {family: MeZOConfig.paper(family, config.tuning).peak_rate for family in ("roberta", "opt")}
    if config.learning_rate >= min(usual.values()) / 5:
        return None
    what = "LoRA adapter, which starts at zero" if config.tuning == "lora" else "prefix"
    return (
        f"warning: a learning rate of {config.learning_rate:g} will hardly move a {what}; "
        f"the paper uses {usual['roberta']:g} (RoBERTa) and {usual['opt']:g} (OPT)"
    )


def naming_the_batch(
    error: NonFiniteLoss, train_set: EncodedDataset, config: MeZOConfig, step: int, way_back: str = ""
) -> NonFiniteLoss:
    """The error, with the examples of its step. way_back: how to get better weights than the last, if need be."""
    c = config
    together = sum(map(len, train_set.microbatches(step, c.batch_size, c.gradient_accumulation, c.seed)))
    rows = train_set.batch_indices(step, together, c.seed)
    shown = ", ".join(map(str, rows[:16])) + (", ..." if len(rows) > 16 else "")
    return NonFiniteLoss(
        f"{error} (batch: training examples {shown}, counted from 0)" + (way_back and f"; {way_back}")
    )


def last_update_overflowed(weights: Weights) -> bool:
    """Whether theta itself is not finite: then it was the update before that broke the run, and not the probe."""
    here = (t.tensor for t in weights.tunables if not t.tensor.is_meta)
    return not all(bool(tensor.isfinite().all()) for tensor in here)


class StepSize:
    """Watches the records of a run, and warns once.

    slopes=False: the values are no slopes (a sign, normalised, or scaled by the optimizer), so only the loss is
    watched.
    """

    def __init__(self, *, slopes: bool = True):
        self._slopes = slopes
        self._promised: deque[float] = deque(maxlen=WINDOW)
        self._losses: deque[float] = deque(maxlen=WINDOW)
        self._first: float | None = None
        self._spoke = False

    def seen(self, record: StepRecord) -> str | None:
        """A warning for people, or None."""
        if self._spoke:
            return None
        self._losses.append(record.loss)
        self._promised.append(record.learning_rate * fmean(g * g for g in record.projected_grads))
        if len(self._losses) < WINDOW:
            return None
        loss = fmean(self._losses)
        if self._first is None:
            self._first = loss
        text = self._judged(record, loss, self._first)
        self._spoke = text is not None
        return text

    def _judged(self, record: StepRecord, loss: float, first: float) -> str | None:
        share = fmean(self._promised) / abs(loss) if self._slopes and loss else 0.0
        if share > TOO_MUCH:
            return (
                f"warning: the steps are too large: over the last {WINDOW} the slope promised "
                f"{100 * share:.0f} % of the loss a step, farther than a slope holds; "
                f"try --learning-rate {_rounded(record.learning_rate * GOOD / share)}"
            )
        if loss - first > (RISE - 1) * abs(first):
            return (
                f"warning: the loss has risen from {first:.3g} to {loss:.3g}: the steps are too large; "
                f"try --learning-rate {_rounded(record.learning_rate / 3)}"
            )
        return None


def _rounded(value: float) -> str:
    """One significant digit."""
    return f"{float(f'{value:.0e}'):g}"
