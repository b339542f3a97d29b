"""The memory modes by name: how a model gets to a probe and back."""

from typing import Literal

from mezo.engines.in_place.stored import StoredLayer, StoredNoise
from mezo.engines.in_place.walk import Granularity, InPieces, InPlace
from mezo.errors import MezoError
from mezo.util.registry import look_up
from mezo.weights.weights import Weights

Memory = Literal["materialize", "regenerate", "store", "store-layer"]

WALKS: dict[str, type[InPlace]] = {
    "regenerate": InPlace,
    "store": StoredNoise,
    "store-layer": StoredLayer,
}


def walk_for(
    memory: str, weights: Weights, granularity: Granularity | None = None, block: int = 4096
) -> InPlace | None:
    """How theta walks to a probe; None for "materialize", which never writes theta.

    Raises MezoError for an unknown mode, or a granularity where z is not regenerated.
    """
    if granularity is not None and memory != "regenerate":
        raise MezoError(
            f"granularity={granularity!r} cuts the walk of memory='regenerate', found memory={memory!r}: "
            "change one of them"
        )
    if memory == "materialize":
        return None
    if granularity is not None:
        return InPieces(weights, granularity, block)
    return look_up({"materialize": InPlace, **WALKS}, memory, "memory mode")(weights)
