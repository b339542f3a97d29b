"""Gradient estimators: ask where to evaluate, tell what was found. One file each."""

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING

from mezo.combinations import check_combination
from mezo.config import MeZOConfig
from mezo.errors import MezoError
from mezo.estimators.auto_rate import AutoRate
from mezo.estimators.base import Estimator
from mezo.estimators.blocks import Blocks
from mezo.estimators.clipped import Clipped
from mezo.estimators.cone import Cone
from mezo.estimators.each_layer import EachLayer
from mezo.estimators.es import EvolutionStrategies
from mezo.estimators.exact_sums import ExactSums
from mezo.estimators.fzoo import FZOO
from mezo.estimators.kept_basis import InKeptBasis
from mezo.estimators.layer_scaled import LayerScaled, norms_of
from mezo.estimators.learned_scales import LearnedScales, kinds_of
from mezo.estimators.normalized import Normalized
from mezo.estimators.one_point import OnePoint
from mezo.estimators.one_sided import OneSided
from mezo.estimators.row_directions import RowDirections
from mezo.estimators.sign import Sign
from mezo.estimators.two_point import TwoPoint
from mezo.util.plugins import find, made

if TYPE_CHECKING:
    from mezo.weights.weights import Weights

ESTIMATORS: dict[str, type[Estimator]] = {
    "two-point": TwoPoint,
    "one-sided": OneSided,
    "one-point": OnePoint,
    "sign": Sign,
    "fzoo": FZOO,
    "cone": Cone,
    "es": EvolutionStrategies,
}

__all__ = ["ESTIMATORS", "Estimator", "Normalized", "TwoPoint", "build", "norms_of"]


def build(config: MeZOConfig, weights: "Weights", norms: Sequence[float] | None = None) -> Estimator:
    """The config's estimator and what goes around it, from the inside: a direction for each part of the batch, layer
    scaling, blocks, unit length, clipping, sums of signs, a kept basis, a rate of its own.

    weights: at the start of the run, which layer scaling reads; or `norms` as they were then
    (`norms_of`). Raises MezoError for an unknown name or settings that do not fit the weights.
    """
    kind, settings = find("estimator", config.estimator, ESTIMATORS)
    estimator: Estimator = kind.configured(config, weights)
    if settings:
        estimator = made(config.estimator, partial(kind.with_settings, estimator), settings)
    if config.row_directions > 1:
        estimator = RowDirections(estimator)
    if config.layer_scaling == "learned":
        check_combination(config)
        estimator = LearnedScales(estimator, kinds_of(weights))
    elif config.layer_scaling != "none":
        estimator = LayerScaled.of(estimator, norms or norms_of(weights), config.layer_scaling)
    if config.blocks == "each":
        estimator = EachLayer(estimator, tuple(weights.layers().values()))
    elif config.blocks != "all":
        layers = tuple(weights.layers().values())
        if config.layers_per_step > len(layers):
            raise MezoError(
                f"layers_per_step={config.layers_per_step}: expected at most the number of tuned layers, "
                f"{len(layers)}; blocks='all' moves every layer"
            )
        estimator = Blocks(estimator, layers, config.layers_per_step, config.blocks)
    if config.normalize_perturbations:
        estimator = Normalized(estimator, lru_cache(maxsize=1024)(weights.norm))
    if config.clip_projected_grad is not None or config.clip_quantile is not None:
        estimator = Clipped(estimator, config.clip_projected_grad, config.clip_quantile)
    if config.noise == "rank-one":
        estimator = ExactSums(estimator)
    if config.noise == "kept-basis":
        estimator = InKeptBasis(estimator, config.basis_steps)
    if config.learning_rate == "auto":
        check_combination(config)
        estimator = AutoRate(estimator, halves=config.batch_size % 2 == 0)
    return estimator
