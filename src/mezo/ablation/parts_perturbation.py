"""Parts of the perturbation: where it is held, in what pieces, and how it is drawn."""

from typing import Any

from mezo.ablation.parts import Part
from mezo.ablation.readers import share_of_layers
from mezo.ablation.values import MODULES, Reading, choice, first_of, number, switch, unless, with_number
from mezo.config import MeZOConfig

_FULL_FLOAT = "a copy of the weights is not held by any memory mode; memory=materialize never writes them"


def _by_elements(value: Any, config: MeZOConfig) -> tuple[Reading, ...] | None:
    """A bare number is the elements of a block."""
    found = number("granularity_block", "block size|elements", whole=True, low=2)(value, config)
    walk = {"memory": "regenerate", "granularity": "block"}
    return found and tuple(Reading({**walk, **each.settings}, each.note) for each in found)


PERTURBATION = (
    Part(
        "perturbation granularity",
        ("granularity", "granularity_block"),
        (
            "granularity",
            "(strategy|way|unit|level) (for|of) (perturbing|perturbation)( parameters| weights)?",
            "(perturbing|perturbation of|perturb)( the)? (entire |whole |full |individual |single |each |all )*(weight )?(matri(x|ces)|tensors?|scalars?|elements?|individual parameters?|parameter blocks?)",
            "(matrix|tensor|element|scalar|parameter|weight|block)( ?wise| level| by (matrix|tensor|element)) (perturbations?|perturbing|noise|sampling)",
            "block size of the perturbation",
        ),
        unless(
            MODULES,
            first_of(
                share_of_layers,
                with_number(
                    choice(
                        (
                            r"^(?!.*\b(layers?|blocks?)\b).*\b(subset|fraction|mask\w*|random) .*(parameters|weights|coordinates|entries)|spars\w*",
                            "sparse directions are not here; layers that move can be chosen: blocks, train",
                        ),
                        (
                            r"round robin|cyclic\w*|in turn|only (one|a single) (layer|block)",
                            {"blocks": "round-robin"},
                        ),
                        (
                            r"(subset of|random|some|selected|alternat\w*) (the )?layers?|layers? (per|each|every) (step|iteration)",
                            {"blocks": "random"},
                        ),
                        (
                            r"layers?( wise| by layer| level)?|per layer|modules?( wise)?",
                            {"memory": "store-layer"},
                        ),
                        (
                            r"(entire|whole|all|full) (parameters?|model|vector|network)( at once| vector| together)?|(full|entire) (perturbation|parameter) vector|at once|global\w*",
                            {"memory": "store"},
                        ),
                        (
                            r"blocks?( wise)?|chunks?|groups?|smaller|sub ?matri(x|ces)|tiles?|rows?|columns?",
                            {"memory": "regenerate", "granularity": "block"},
                        ),
                        (
                            r"individual\w*|elements?( wise)?|scalars?|single (parameter|weight|coordinate)s?|each (parameter|weight|element)|coordinates?( wise)?|parameter (by parameter|wise)|one (parameter|weight|element) at a time",
                            {"memory": "regenerate", "granularity": "element"},
                        ),
                        (
                            r"matri(x|ces)( wise)?|tensors?( wise)?|weight matri(x|ces)",
                            {"memory": "regenerate", "granularity": "matrix"},
                        ),
                    ),
                    "granularity_block",
                    "elements|parameters|weights|block size|size",
                ),
                _by_elements,
            ),
        ),
        hints=("perturbing", "weight matri(x|ces)", "perturbation"),
        off={"memory": "regenerate", "granularity": None},
        takes="matrix, block or element",
    ),
    Part(
        "memory mode: in-place walk, stored or regenerated perturbation",
        ("memory",),
        (
            "in ?place( implementation| operations?| perturbations?| updates?| modification)?",
            "memory (efficient|efficiency|saving)( implementation| mechanism| strategy| technique| trick| perturbation| zo sgd| sgd| design)?",
            "memory modes?",
            "(random )?seeds? (resampl\\w*|trick|reset\\w*|regenerat\\w*|replay\\w*|storage|storing|based|stor\\w*)",
            "(re ?sampl\\w*|regenerat\\w*|re ?generat\\w*|re ?creat\\w*|recomput\\w*)( of| the| same| random)* (z|perturbations?|noise|directions?|random (seeds?|vectors?|numbers?)|seeds?|vectors?)",
            "(perturbation|noise|z|random vectors?) (regenerat\\w*|resampl\\w*|storage|stor\\w*|caching|materiali\\w*)",
            "(stor|sav|cach|keep)\\w* (the |of |full |a |whole |entire )*(random |perturbation |noise )*(seeds?|vectors?|z|noise|perturbations?)",
        ),
        choice(
            (
                r"backprop\w*|checkpoint\w*|offload\w*|adamw?",
                "that is no way to hold perturbations; memory takes materialize, regenerate, store or store-layer",
            ),
            (
                r"(two|second|separate|full|extra|backup|another) cop(y|ies)( of)?( the)?( model)?( weights| parameters)|copy(ing)? the (model|weights|parameters)|deep ?copy|snapshot",
                _FULL_FLOAT,
            ),
            (
                r"(different|fresh|new|independent) (z|seeds?|noise|perturbations?|random (vectors?|numbers?)|directions?)",
                "the update goes along the direction that was probed; along another one it would be noise",
            ),
            (
                r"layer (by layer|at a time|wise)|per layer|one layer|store layer|layers?",
                {"memory": "store-layer"},
            ),
            (
                r"materiali\w*|scratch|without (writing|modifying|touching) (the )?(weights|parameters|theta)|out of place|not in place|no in place",
                {"memory": "materialize"},
            ),
            (
                r"no (re ?generation|resampling)|without (re ?generati\w+|resampl\w+|seeds?)|non in place",
                {"memory": "store"},
            ),
            (
                r"(?<!no )(?<!without )(stor|sav|cach|keep|kept|hold|held|retain|memoriz|persist|pre ?comput|buffer|allocat|explicit)\w*|naive\w*|vanilla|standard zo sgd|plain zo sgd|(full|whole|entire) (perturbation|noise|random|z)( vector)?",
                {"memory": "store"},
            ),
            (
                r"regenerat\w*|re ?sampl\w*|in ?place|seeds?|re ?generat\w*|recomput\w*|on the fly",
                {"memory": "regenerate"},
            ),
        ),
        hints=("memory", "resampl\\w*", "seeds?", "z"),
        off={"memory": "store"},
        on={"memory": "regenerate"},
        takes="materialize, regenerate, store or store-layer",
    ),
    Part(
        "distribution of the perturbation",
        ("noise", "noise_rank"),
        (
            "(perturbation|noise|sampling|random vectors?|z|direction)s? (distribution|type|kind|sampling)s?",
            "distributions? (of|for|from which) (the )?(random )?(perturbations?|noise|z|directions?|vectors?)",
            "(gaussian|rademacher|normal|bernoulli|spherical|low rank) (perturbations?|noise|distributions?|directions?|sampling|random vectors?|vectors?|z)",
            "(rank of (the )?)?low rank( structure| perturbation| noise| direction)?s?(?! adapt)",
            "isotropic",
        ),
        with_number(
            choice(
                (
                    r"spars\w*|masked|dropout",
                    "sparse directions are not here; layers that move can be chosen: blocks, train",
                ),
                (
                    r"laplac\w*|cauchy|student|heavy tail\w*|uniform\b(?!.*(sphere|spherical|unit norm))(?<!sphere uniform)|exponential",
                    "noise takes gaussian, rademacher or low-rank",
                ),
                (
                    r"orthogonal\w*|quasi|sobol|hadamard|structured|coordinate\w*|one hot|basis",
                    "noise takes gaussian, rademacher or low-rank",
                ),
                (r"low rank|lozo|rank \d+|factor\w*|mezo svd|subspace", {"noise": "low-rank"}),
                (
                    r"sphere|spherical\w*|unit (norm|length|vector)\w*|normalized",
                    {"noise": "gaussian", "normalize_perturbations": True},
                ),
                (
                    r"rademacher|bernoulli|binary|random signs?|signs?|plus minus 1|1 1|discrete|two point distribution|coin",
                    {"noise": "rademacher"},
                ),
                (r"gauss\w*|normal", {"noise": "gaussian"}),
            ),
            "noise_rank",
            "rank|r",
        ),
        hints=("gaussian", "noise", "random", "distribution", "perturbation"),
        off="without noise there is no direction to probe",
        on="the plan does not say which noise to add",
        takes="gaussian, rademacher or low-rank",
    ),
    Part(
        "rank of low-rank perturbations",
        ("noise_rank",),
        (
            "noise rank",
            "rank of (the )?(low rank )?(perturbations?|noise|directions?|z)",
            "low rank (perturbation |noise |direction )?rank",
        ),
        number("noise_rank", "rank|r", whole=True, low=1, high=32, also={"noise": "low-rank"}),
        off={"noise": "gaussian"},
        takes="a whole number from 1 to 32",
    ),
    Part(
        "normalisation of the perturbation",
        ("normalize_perturbations",),
        (
            "normaliz\\w* (of |the )*(random )?(perturbations?|directions?|noise|z|vectors?)",
            "(perturbations?|directions?|noise|z|vector)( vector)?s? normaliz\\w*",
            "unit (norm|length|sphere)( perturbations?| directions?| vectors?| normalization)?",
            "normalize perturbations",
        ),
        switch(
            "normalize_perturbations",
            more=choice(
                (
                    r"(projected )?(gradients?|slopes?)( norm)?",
                    "what is normalised is the perturbation; clipping bounds slopes, and estimator=fzoo divides by"
                    " the losses' deviation",
                ),
                (
                    r"layers?( wise)?|per (layer|tensor|matrix|parameter)|parameter norms?",
                    {"layer_scaling": "variance"},
                ),
                (
                    r"un ?normalized|not normaliz\w*|without normaliz\w*|no normaliz\w*|raw|plain|unscaled|gaussian without",
                    {"normalize_perturbations": False},
                ),
                (
                    r"unit|sphere|spherical|normaliz\w*|norm|sqrt d|length 1",
                    {"normalize_perturbations": True},
                ),
            ),
        ),
        hints=("normaliz\\w*",),
        off={"normalize_perturbations": False},
        on={"normalize_perturbations": True},
        takes="on or off",
    ),
)
