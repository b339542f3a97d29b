"""Parts of the perturbation: where it is held, in what pieces, and how it is drawn."""

from mezo.ablation.binding.part import Part, Quantity

_MATRIX, _BLOCK, _ELEMENT = (
    {"memory": "regenerate", "granularity": each} for each in ("matrix", "block", "element")
)
_STORE, _LAYER, _AGAIN = {"memory": "store"}, {"memory": "store-layer"}, {"memory": "regenerate"}
_UNIT = {"normalize_perturbations": True}
_RADEMACHER, _LOW_RANK, _GAUSSIAN = ({"noise": each} for each in ("rademacher", "low-rank", "gaussian"))

PERTURBATION = (
    Part(
        "perturbation granularity",
        ("granularity", "granularity_block"),
        (
            "granularity",
            "granularity of the? parameter? perturbation",
            "strategy|way for|of perturbing the? parameter|weight",
        ),
        "matrix, block or element",
        present=(
            "perturbing entire|whole|full weight? matrix|matrices",
            "weight? matrix at a time",
        ),
        own={
            "perturbing|perturb? individual|single parameter|element|weight": _ELEMENT,
            "perturbing|perturb? each|every parameter|element|weight individually|separately": _ELEMENT,
            "scalar|element level|wise perturbation?": _ELEMENT,
            "one|a parameter|element at a time": _ELEMENT,
            "perturbing|perturb? smaller? parameter? block": _BLOCK,
            "smaller parameter? block": _BLOCK,
            "block wise perturbation?": _BLOCK,
            "perturbing|perturb? weight? matrix|matrices": _MATRIX,
            "matrix": _MATRIX,
            "block": _BLOCK,
            "element": _ELEMENT,
        },
        quantities=(
            Quantity(
                "granularity_block",
                ("block of",),
                ("element",),
                whole=True,
                low=2,
                needs={"memory": ("regenerate",), "granularity": ("block",)},
                bare=False,
            ),
        ),
        off={"memory": "regenerate", "granularity": None},
    ),
    Part(
        "memory mode: in-place walk, stored or regenerated perturbation",
        ("memory",),
        ("memory mode",),
        "materialize, regenerate, store or store-layer",
        present=(
            "in place implementation|operation|perturbation|update",
            "in place parameter perturbation",
            "in place",
            "memory efficient in? place? implementation|mechanism of zo? sgd|mezo?",
            "memory efficient mezo? implementation",
            "in place implementation of zo sgd",
            "random? seed trick",
            "random? seed based? resampling|regeneration of z",
            "random? seed resampling|regeneration",
            "prng? seed resampling",
            "with random seed regeneration",
            "with? z regenerated from its? the? seed",
            "resampling z from the? random? seed instead? of? storing? it?",
            "storing only the? random? seed instead of the? full? perturbation? z?",
            "random? seed trick for regenerating? perturbation",
        ),
        own={
            "store|storing? the? full|whole|entire? random|perturbation? vector? z in? gpu? memory?": _STORE,
            "store|storing the? full|whole|entire perturbation vector? in? memory?": _STORE,
            "store the? z explicitly": _STORE,
            "store|storing z for|of all weight|layer": _STORE,
            "z of all weight stored": _STORE,
            "naive zo sgd": _STORE,
            "vanilla|naive zo sgd that stores? z": _STORE,
            "store the? perturbation|z of one|a layer at a time": _LAYER,
            "per layer storage of z": _LAYER,
            "z of a layer stored": _LAYER,
            "regenerate|regenerating|resample|resampling z from the? its? seed": _AGAIN,
            "the? walk of algorithm 1": _AGAIN,
            "regenerate": _AGAIN,
        },
        off=_STORE,
    ),
    Part(
        "distribution of the perturbation",
        ("noise", "noise_rank"),
        (
            "perturbation|noise|sampling distribution|type|kind",
            "distribution of the? random? perturbation|noise|z",
            "distribution of the? perturbation z",
        ),
        "gaussian, rademacher or low-rank",
        present=(
            "gaussian|isotropic perturbation|noise|sampling distribution?",
            "gaussian perturbation|noise z",
            "gaussian distribution of the? perturbation z?",
            "gaussian sampling of z",
            "isotropic gaussian perturbation",
            "~ n 0, i d?",
        ),
        values={
            "rademacher distribution|noise|perturbation?": _RADEMACHER,
            "rademacher plus minus 1": _RADEMACHER,
            "plus minus 1": _RADEMACHER,
        },
        own={
            "gaussian noise|perturbation|direction?": _GAUSSIAN,
            "low rank gaussian? perturbation|noise|direction": _LOW_RANK,
            "lozo": _LOW_RANK,
            "low rank": _LOW_RANK,
            "uniform? on the? unit? sphere": {"noise": "gaussian", **_UNIT},
            "unit sphere": {"noise": "gaussian", **_UNIT},
            "sphere uniform": {"noise": "gaussian", **_UNIT},
        },
        off="without noise there is no direction to probe",
    ),
    Part(
        "rank of low-rank perturbations",
        ("noise_rank",),
        ("noise rank", "rank of the? low rank perturbation|noise", "low rank perturbation|noise rank"),
        "a whole number from 1 to 32",
        quantities=(
            Quantity("noise_rank", ("r", "rank"), whole=True, low=1, high=32, needs={"noise": ("low-rank",)}),
        ),
        off=_GAUSSIAN,
    ),
    Part(
        "normalisation of the perturbation",
        ("normalize_perturbations",),
        (
            "normalization of the? perturbation|direction|z vector? z? to? unit? norm?",
            "perturbation|direction vector? normalization",
            "unit norm perturbation",
        ),
        "on or off",
        present=("un? normalized perturbation|direction vector?", "direction that are not normalized"),
        values={"unit norm|length perturbation|direction": _UNIT, "direction of unit length": _UNIT},
        own={
            "normalize|normalized z|perturbation|direction to? unit? norm?": _UNIT,
            "l2 normalize|normalized z|perturbation": _UNIT,
            "unit norm|length": _UNIT,
        },
        off={"normalize_perturbations": False},
        switch=_UNIT,
    ),
)
