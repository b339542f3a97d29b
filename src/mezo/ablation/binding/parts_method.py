"""Parts of the method: how a gradient is estimated, and along which directions."""

import math

from mezo.ablation.binding.part import Part, Quantity

_RANDOM = ("random", "round-robin")
_ONE_SIDED, _ONE_POINT = {"estimator": "one-sided"}, {"estimator": "one-point"}
_TWO_POINT, _SIGN = {"estimator": "two-point"}, {"estimator": "sign"}

METHOD = (
    Part(
        "perturbation scale (epsilon)",
        ("epsilon",),
        (
            "epsilon",
            "perturbation|smoothing scale|magnitude|strength|radius|amplitude|epsilon",
            "perturbation size",
            "perturbation step size",
            "smoothing parameter",
            "scale|size|magnitude|strength|radius of the? perturbation",
            "perturbation scale epsilon",
            "perturbation scale epsilon - the size of the step",
            "finite difference step|interval size?",
            "perturbation magnitude used in the finite difference approximation",
        ),
        "a number above 0, such as 1e-3",
        quantities=(Quantity("epsilon", ("eps", "epsilon"), ("sigma", "mu"), low=1e-12, high=1e3),),
        off="without a perturbation both losses are equal and there is nothing to estimate from",
    ),
    Part(
        "number of directions (n of n-SPSA)",
        ("num_directions", "final_directions"),
        (
            "n",
            "num directions",
            "number|count of the? random|perturbation? direction|vector",
            "number|count of perturbation per? step?",
            "number|count of perturbation averaged per? step?",
            "number|count of the? n? spsa sample",
            "number|count of gradient estimate per? step?",
            "number|count of sample per step",
            "number|count of random vector n? used in n spsa",
            "spsa sample",
            "n of|in n spsa",
            "n spsa",
            "n spsa n",
            "sample of n spsa",
        ),
        "a whole number of 1 or more",
        present=(
            "multiple|single perturbation per step",
            "single sample gradient estimate",
        ),
        quantities=(
            Quantity(
                "num_directions",
                (
                    "direction per? step?",
                    "spsa sample",
                    "perturbation per step",
                    "gradient estimate per step",
                ),
                (
                    *(
                        "sample per? step?",
                        "perturbation per? step?",
                        "direction per? step?",
                        "per step",
                        "random? vector",
                    ),
                    *("spsa sample?", "z", "gradient estimate per step"),
                ),
                whole=True,
                low=1,
                high=4096,
            ),
            Quantity(
                "final_directions", ("n increased? linearly to",), whole=True, low=1, high=4096, bare=False
            ),
        ),
        off={"num_directions": 1, "final_directions": None},
    ),
    Part(
        "gradient estimator",
        ("estimator",),
        (
            "estimator",
            "gradient|zo|spsa estimator|estimate|estimation method|variant?",
            "zo|spsa gradient estimator|estimate|estimation",
            "choice of zo|gradient estimator",
        ),
        "two-point, one-sided, one-point, sign, fzoo or cone",
        present=(
            "two point|sided spsa? gradient? estimator|estimate|estimation",
            "spsa two point|sided gradient? estimator|estimate|estimation",
            "two forward pass",
        ),
        values={
            "one point spsa|gradient|zo|random gradient? estimator|estimate": _ONE_POINT,
            "one|single point zo gradient? estimator|estimate": _ONE_POINT,
            "one point estimate with residual feedback": _ONE_POINT,
            "one sided spsa|gradient|zo? estimator|estimate|estimation": _ONE_SIDED,
            "one sided|forward finite difference": _ONE_SIDED,
            "forward finite? difference": _ONE_SIDED,
            "forward finite? difference estimator|estimate": _ONE_SIDED,
            "two point|sided spsa|gradient|zo? estimator|estimate|estimation": _TWO_POINT,
            "central|symmetric finite? difference": _TWO_POINT,
            "fzoo": {"estimator": "fzoo"},
            "conmezo": {"estimator": "cone"},
        },
        own={
            "spsa": _TWO_POINT,
            "two point|sided": _TWO_POINT,
            "sign only": _SIGN,
            "sign of the projected gradient only?": _SIGN,
            "only? the sign of the projected gradient": _SIGN,
            "1 bit sign of the projected gradient": _SIGN,
            "one point spsa?": _ONE_POINT,
            "one sided spsa?": _ONE_SIDED,
            "two point|sided spsa?": _TWO_POINT,
            "one point estimator|estimate": _ONE_POINT,
            "cone": {"estimator": "cone"},
        },
        off="without an estimator nothing moves the weights",
    ),
    Part(
        "layers that move at a step (block-wise perturbation)",
        ("blocks", "layers_per_step"),
        (
            "block|layer wise perturbation|optimization|training",
            "block|layer wise zo? update",
            "layer per step",
        ),
        "all, round-robin, random or each, and a number of layers",
        present=(
            "perturbing|perturbation of all the? layer|parameter|block at once|simultaneously?",
            "perturbing|updating all layer|parameter simultaneously",
        ),
        values={
            "block coordinate descent": {"blocks": "round-robin"},
            "cyclic block coordinate descent": {"blocks": "round-robin"},
        },
        own={
            "one layer per|each|at step": {"blocks": "round-robin", "layers_per_step": 1},
            "one layer per step round robin": {"blocks": "round-robin", "layers_per_step": 1},
            "one layer a step": {"blocks": "round-robin", "layers_per_step": 1},
            "one random layer per|each step": {"blocks": "random", "layers_per_step": 1},
            "a? separate|own projected gradient|slope for|of each|every layer": {"blocks": "each"},
            "a? slope for each layer": {"blocks": "each"},
            "cyclic": {"blocks": "round-robin"},
            "all layer|parameter at once?": {"blocks": "all"},
        },
        quantities=(
            Quantity(
                "layers_per_step",
                (),
                ("layer per|each|a step", "layer"),
                whole=True,
                low=1,
                high=1000,
                needs={"blocks": _RANDOM},
                bare=False,
            ),
        ),
        off={"blocks": "all"},
    ),
    Part(
        "scaling of layers by their norms",
        ("layer_scaling",),
        (
            "layer scaling",
            "layer norm scaling",
            "scaling of the? perturbation by layer|parameter norm",
            "scaling perturbation with|by layer|parameter norm",
            "layer wise perturbation scaling",
        ),
        "none, variance or expectation",
        values={
            "variance modified spsa?": {"layer_scaling": "variance"},
            "expectation modified spsa?": {"layer_scaling": "expectation"},
        },
        off={"layer_scaling": "none"},
    ),
    Part(
        "angle of the cone around the mean gradient",
        ("cone_angle", "cone_beta", "cone_warmup"),
        ("cone angle",),
        "an angle in radians, up to pi/2",
        quantities=(
            Quantity(
                "cone_angle", (), ("radian",), low=0.01, high=math.pi / 2, needs={"estimator": ("cone",)}
            ),
            Quantity("cone_beta", high=0.999999, needs={"estimator": ("cone",)}),
            Quantity("cone_warmup", whole=True, needs={"estimator": ("cone",)}),
        ),
        off={"estimator": "two-point"},
    ),
)
