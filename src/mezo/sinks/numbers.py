"""What of a run's records a person plots, by name; and its settings, with nothing secret in them."""

import re
from collections.abc import Mapping
from statistics import fmean
from typing import Any

from mezo.events import EvalRecord, StepRecord, token_reuse

_SECRET = re.compile(r"key|token|secret|passw|credential|auth", re.IGNORECASE)
_HARMLESS = {"max_new_tokens", "prefix_tokens"}


def of_step(record: StepRecord) -> dict[str, float]:
    """train/NAME: value."""
    grads = record.projected_grads
    found = {
        "loss": record.loss,
        "learning_rate": record.learning_rate,
        "projected_gradient": fmean(grads),
        "projected_gradient_magnitude": fmean(map(abs, grads)),
        "zero_gradient": float(not any(grads)),  # its running mean is the share of steps that changed nothing
        "tokens_per_second": record.tokens / record.seconds if record.seconds > 0 else 0.0,
        "token_reuse": token_reuse(record.tokens_asked, record.tokens_reused),
        "seconds": record.seconds,
        **{f"reward_{name}": value for name, value in (record.rewards or {}).items()},
        **{f"seconds_{name}": value for name, value in (record.profile or {}).items()},
    }
    return {f"train/{name}": value for name, value in found.items()}


def of_evaluation(record: EvalRecord) -> dict[str, float]:
    """SPLIT/loss, and SPLIT/METRIC for each of the task's."""
    found = {"loss": record.loss, **record.metrics}
    if record.accuracy is not None:
        found["accuracy"] = record.accuracy
    return {f"{record.split}/{name}": value for name, value in found.items()}


def without_secrets(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, flat ("server_args.tp_size"), with *** for each whose name speaks of a secret."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{inner}": v for inner, v in without_secrets(value).items()}
        elif _SECRET.search(name) and name not in _HARMLESS:
            flat[name] = "***"
        else:
            flat[name] = value
    return flat
