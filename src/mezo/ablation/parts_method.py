"""Parts of the method: how a gradient is estimated, and along which directions."""

import re
from typing import Any

from mezo.ablation.numbers import numbers
from mezo.ablation.parts import Part
from mezo.ablation.readers import share_of_layers
from mezo.ablation.values import (
    MODULES,
    Reader,
    Reading,
    choice,
    first_of,
    number,
    steady,
    switch,
    unless,
    with_number,
)
from mezo.ablation.words import folded
from mezo.config import MeZOConfig


def _growing(value: Any, config: MeZOConfig) -> tuple[Reading, ...] | None:
    """ "n growing linearly to 16": the last number, or the paper's 16 (appendix A.2)."""
    text = folded(value) if isinstance(value, str) else ""
    text = re.sub(r"\b(learning rate|lr)\b.*|\bscal\w* linear\w*|\blinear\w* scal\w*", "", text)
    if not re.search(r"\b(linear\w*|grow\w*|gradual\w*|ramp\w*|increasing)\b|\bschedul\w*", text):
        return None
    last = [int(n) for n in numbers(value) if n == int(n) and n >= 1][-1:]
    note = "" if last else "the plan does not say to how many"
    return (Reading({"final_directions": last[0] if last else 16}, note),)


def _with_scaled_rate(reader: Reader) -> Reader:
    """With the learning rate in proportion to n, where a text asks for it (the paper's appendix A.2)."""

    def read(value: Any, config: MeZOConfig) -> tuple[Reading, ...] | None:
        found = reader(value, config)
        text = folded(value) if isinstance(value, str) else ""
        asked = re.search(
            r"\b(scal\w* (the )?(learning rate|lr)|(learning rate|lr) (is |being )?(linearly )?(scal|proportional)\w*|linear scaling)",
            text,
        )
        if not found or not asked or "num_directions" not in found[0].settings:
            return found
        each = [
            (r, config.learning_rate * r.settings["num_directions"] / config.num_directions) for r in found
        ]
        return tuple(
            Reading(
                {**r.settings, "learning_rate": float(f"{rate:.12g}")}, "learning rate in proportion to n"
            )
            for r, rate in each
        )

    return read


def _of_one_side(value: Any, config: MeZOConfig) -> tuple[Reading, ...] | None:
    """What is left of two-sided evaluation when one of its passes, or sides, is taken away."""
    text = folded(str(value))
    if re.search(r"\b(second|one of (the )?two|extra|additional) (forward pass|evaluation|query|loss)", text):
        return (Reading({"estimator": "one-point"}, "one forward pass a step"),)
    if re.search(
        r"\b(negative|minus|backward|both|two (sided?|directions)|symmetric|antithetic|central)\b", text
    ):
        return (Reading({"estimator": "one-sided"}, "one side, against the loss at theta"),)
    return None


METHOD = (
    Part(
        "perturbation scale (epsilon)",
        ("epsilon",),
        (
            r"(perturbation|noise|smoothing|probe) (scale|size|magnitude|strength|radius|amplitude|std|parameter)",
            "(scale|size|magnitude|strength|radius) of the (perturbation|noise)s?",
            "smoothing (parameter|radius)",
            "finite difference (step|interval)( size)?",
            r"(?<!adam )epsilon(?! (greedy|in adam))",
        ),
        steady(number("epsilon", "epsilon|eps|ε|ϵ|\\\\epsilon|scale|mu|μ|sigma|σ|delta|δ|c|h", low=1e-12)),
        hints=("eps", "perturbation"),
        off="without a perturbation both losses are equal and there is nothing to estimate from",
        symbols="epsilon|eps|ε|ϵ",
        takes="a number above 0, such as 1e-3",
    ),
    Part(
        "number of directions (n of n-SPSA)",
        ("num_directions", "final_directions"),
        (
            "(number|count|amount)s? of (the )?(random |spsa |perturbation |gradient |zo |noise )*(vectors?|directions?|perturbations?|samples? per step|spsa samples?|(function )?(queries|query)|probes?|z samples?|zs?|gradient estimates?|estimates?)",
            "(n|\\d+) spsa",
            "(spsa|perturbation|direction|gradient|noise) samples?( count| size)?",
            "(sample|query) (schedule|budget)",
            "(multiple|averag\\w*|single) (random )?(directions?|perturbations?|gradient estimates?|z)",
        ),
        first_of(
            _growing,
            _with_scaled_rate(
                number("num_directions", "n|num_directions|q|k|m|samples", whole=True, low=1, high=4096)
            ),
        ),
        hints=("number of", "n", "samples?", "directions?"),
        off={"num_directions": 1, "final_directions": None},
        on={"num_directions": 4},
        symbols="n",
        takes="a whole number of 1 or more",
    ),
    Part(
        "gradient estimator",
        ("estimator",),
        (
            "(zo|zeroth order|spsa|gradient|finite differences?|two point|one point|two sided|one sided) (gradient )?estimat(or|ors|e|ion)( method| type| choice| variant)?",
            "(choice|type|kind|class) of (the )?(zo |gradient )*estimat(or|ion)",
            "(two|one|single|double)[ ](point|sided?|evaluation)",
            "(symmetric|central|forward|antithetic) (finite )?(differences?|evaluation|sampling|perturbations?)",
            "finite differences?( scheme| formula)?",
            "(both|positive|negative|second|backward) (perturbation|direction|forward pass|evaluation)(e?s)?",
            "(perturbation|evaluation)s? (of|in) both (directions|signs|sides)",
            "(two|2|second|number of) forward pass(es)?( per (step|iteration))?",
            "signs? of the (projected )?(gradient|slope|loss)|sign (based|only) (update|estimat\\w*)",
        ),
        choice(
            (
                r"forward mode|forward gradients?|jvp|directional derivatives?|jacobian vector",
                "forward-mode differentiation is not here: mezo has forward passes alone",
            ),
            (
                r"evolution\w*|es|cma( es)?|nes|reinforce|policy gradients?|genetic",
                "evolution strategies and policy gradients are not among the estimators",
            ),
            (
                r"svrg|variance reduc\w+|control variates?",
                "variance-reduced estimators with a stored gradient are not among the estimators",
            ),
            (r"coordinate\w*( wise)?", "a coordinate at a time would need two losses for each weight"),
            (r"cone\w*|conmezo", {"estimator": "cone"}),
            (
                r"fzoo|normalized by the (standard deviation|std)|batched one sided",
                {"estimator": "fzoo", "num_directions": 8},
            ),
            (r"signs?|feedsign|1 bit|one bit|sign based|ternary", {"estimator": "sign"}),
            (
                r"(one|single|1) ?point|residual feedback|single (function )?(evaluation|query)|one (loss|function) (evaluation|query)",
                {"estimator": "one-point"},
            ),
            (
                r"(one|single|1) ?sided?|only (theta|the positive|the forward|plus|one (direction|side|perturbation))|forward (finite )?differences?|forward only differences?|non ?symmetric|asymmetric|backward differences?",
                {"estimator": "one-sided"},
            ),
            (
                r"(zo )?sign ?sgd",
                "ZO-signSGD takes the sign of every coordinate of g z; estimator=sign takes that of g, set: {estimator: sign}",
            ),
            (
                r"(two|double|2) ?(point|sided?)|central (finite )?differences?|symmetric|antithetic|spsa|mezo",
                {"estimator": "two-point"},
            ),
        ),
        hints=("spsa", "estimat(or|ors|e|ion)", "gradient", "projected gradients?"),
        without=_of_one_side,
        off="without an estimator nothing moves the weights",
        takes="two-point, one-sided, one-point, sign, fzoo or cone",
    ),
    Part(
        "layers that move at a step (block-wise perturbation)",
        ("blocks", "layers_per_step"),
        (
            "(block|layer)( ?wise)? (coordinate|cyclic|sparse|subset|updates?|descent)( descent| updates?)?",
            "(block|layer) ?wise (perturb\\w*(?! scal)|zo|optimization|estimat\\w*|training|tuning|update\\w*)",
            "(subset|number|selection|choice|fraction) of (the )?layers (that are |which are )?(perturbed|updated|moved|per step)( (per|each|at a) (step|time))?",
            "layers? per (step|iteration)",
            "(perturbing|perturb|updating|update|perturbation of) all( the)? (layers|parameters|blocks|weights)( at once| simultaneously| jointly| together)*",
            "(simultaneous|joint) (perturbation|update)s?( of)?( all)?",
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
                            r"(each|every|per) layer(s)? (its|with its|has its|alone|separate\w*|own)|(separate|own|individual|independent|layer ?wise) (slopes?|projected gradients?|gradient estimates?|estimates?|spsa)|per layer (spsa|estimat\w*|gradients?)",
                            {"blocks": "each"},
                        ),
                        (
                            r"round robin|cycl\w*|in turn|sequential\w*|alternat\w*|one after (the other|another)|coordinate descent",
                            {"blocks": "round-robin"},
                        ),
                        (
                            r"random\w*|subset|sampled|one layer|(a |one )?single (layer|block)|half",
                            {"blocks": "random"},
                        ),
                        (
                            r"all (the )?(layers|parameters|blocks|weights)|simultaneous\w*|jointly|at once|full model",
                            {"blocks": "all"},
                        ),
                        (
                            r"(block|layer) ?wise|(only )?(one|a single) (layer|block) (at a time|(per|each|every|at a) step)|one by one",
                            {"blocks": "round-robin"},
                        ),
                    ),
                    "layers_per_step",
                    "layers|blocks",
                ),
                number(
                    "layers_per_step",
                    "layers|blocks",
                    whole=True,
                    low=1,
                    high=1000,
                    also={"blocks": ("random", "round-robin")},
                ),
            ),
        ),
        hints=("layer ?wise", "block ?wise", "layers?", "blocks?"),
        off={"blocks": "all"},
        on={"blocks": "round-robin"},
        takes="all, round-robin, random or each, and a number of layers",
    ),
    Part(
        "scaling of layers by their norms",
        ("layer_scaling",),
        (
            "layer (scaling|norm scaling|adaptive scaling)",
            "(variance|expectation) modified( spsa)?",
            "(parameter|layer|weight) norms? (scaling|scaled|based|adaptive)( perturbations?)?",
            "scal\\w* (of )?(perturbations?|noise|layers) by (the )?(layer|parameter|weight|gradient)s? norms?",
            "(layer ?wise|per layer|layer adaptive|layer dependent) (perturbation )?(scal\\w*|epsilon)",
        ),
        switch(
            "layer_scaling",
            on="variance",
            off="none",
            more=choice(
                (
                    r"gradient norms?",
                    "scaling takes the norms of the weights; norms of estimated gradients are not here",
                ),
                (r"expectation", {"layer_scaling": "expectation"}),
                (r"variance|norms?|layer", {"layer_scaling": "variance"}),
                (r"uniform|same|none", {"layer_scaling": "none"}),
            ),
        ),
        hints=("norms?",),
        off={"layer_scaling": "none"},
        on={"layer_scaling": "variance"},
        takes="none, variance or expectation",
    ),
    Part(
        "cone of directions around the mean gradient",
        ("cone_angle", "cone_beta", "cone_warmup"),
        (
            "cone( angle| beta| warm ?up| of directions)?",
            "conmezo",
            "directions? biased? (towards|to) (the )?(momentum|mean gradient)",
        ),
        first_of(
            choice((r"conmezo|cone", {"estimator": "cone"})),
            number("cone_angle", "angle", low=0.01, high=1.5707963267948966, also={"estimator": "cone"}),
        ),
        off={"estimator": "two-point"},
        on={"estimator": "cone"},
        takes="an angle in radians, up to pi/2",
    ),
)
