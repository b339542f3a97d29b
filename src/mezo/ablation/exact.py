"""Values that are a setting's own, letter by letter: `store-layer`, `two-point`, `all-linear`."""

from collections.abc import Sequence
from typing import Any, Literal, get_args, get_origin

from mezo.config import MeZOConfig


def exact(fields: Sequence[str], value: Any) -> dict[str, Any] | None:
    """The setting of the first of `fields` that has `value` among its choices; None if none has."""
    if not isinstance(value, str):
        return None
    text = value.strip().lower()
    for name in fields:
        if text in _choices(name):
            return {name: text}
    return None


def _choices(name: str) -> tuple[str, ...]:
    from mezo.estimators import ESTIMATORS
    from mezo.objectives import OBJECTIVES
    from mezo.optimizers import OPTIMIZERS

    tables = {"estimator": ESTIMATORS, "optimizer": OPTIMIZERS, "objective": OBJECTIVES}
    if name in tables:
        return tuple(tables[name])
    annotation = MeZOConfig.model_fields[name].annotation
    found = [annotation, *get_args(annotation)]
    return tuple(c for a in found if get_origin(a) is Literal for c in get_args(a))
