"""Parts of the training: optimizer, rates, what is minimised."""

import re
from typing import Any

from mezo.ablation.parts import Part
from mezo.ablation.values import Reader, Reading, choice, first_of, number, switch, unless, with_number
from mezo.ablation.warmup import share_of_steps, warmup, with_warmup
from mezo.config import MeZOConfig

_STATEFUL = ("momentum", "momentum-rebuilt", "adam", "adam-rebuilt")
_ADAMS = ("adam", "adam-rebuilt")
_BETA1 = r"momentum(?: (?:coefficient|factor|parameter|term))?|mu|μ|(?:beta|β|\\beta)[ _{]*[1₁]?\}?"
_BETA2 = r"(?:beta|β|\\beta)[ _{]*[2₂]\}?"


def _with_moments(reader: Reader) -> Reader:
    """With the numbers of the optimizer beside its name: "Adam (β1 = 0.9, β2 = 0.99)"."""
    reader = with_number(reader, "weight_decay", "weight decay|wd|λ", whole=False)
    with_betas = with_number(with_number(reader, "beta1", _BETA1, whole=False), "beta2", _BETA2, whole=False)
    return with_number(with_betas, "history", "history|window")


def _quantile(value: Any, config: MeZOConfig) -> tuple[Reading, ...] | None:
    """ "95th percentile", "quantile 0.9"."""
    text = str(value).lower()
    if found := re.search(r"(\d+(?:\.\d+)?)\s*(?:th|st|nd|rd|%)?[ -]*(?:percentile|%)", text):
        share = float(found[1]) / 100
    elif found := re.search(r"quantile\D{0,6}(0?\.\d+)|(0?\.\d+)[ -]quantile", text):
        share = float(found[1] or found[2])
    else:
        return None
    return (Reading({"clip_quantile": share}),) if 0 < share < 1 else None


def _symmetric(value: Any, config: MeZOConfig) -> tuple[Reading, ...] | None:
    """A bound on both sides: "[-1, 1]", "±5"."""
    number = r"(\d*\.?\d+(?:e[-+]?\d+)?)"
    found = re.search(rf"[\[(]\s*[-−–]\s*{number}\s*,\s*\+?\s*{number}\s*[\])]", str(value))
    both = float(found[1]) if found and float(found[1]) == float(found[2]) else None
    either = re.search(rf"(?:±|\\pm|\+/-)\s*{number}", str(value))
    bound = both or (float(either[1]) if either else None)
    return (Reading({"clip_projected_grad": bound}),) if bound else None


TRAINING = (
    Part(
        "base optimizer",
        ("optimizer",),
        (
            "optimi[zs]ers?( choice| type| algorithm)?",
            "optimization (algorithm|method|rule)",
            "update rule",
            "(zo )?sgd( update| optimizer| base)?(?! with(out)? )",
            "(zo )?adamw?(?! (beta|epsilon|second|first))",
            "adaptive (optimizers?|learning|moments?|step ?sizes?)",
            "momentum( terms?| buffer)?",
            "moment (estimates?|buffers?|rebuild\\w*|recomput\\w*)",
        ),
        first_of(
            _with_moments(
                choice(
                    (
                        r"rmsprop|lion|adagrad|sophia|lamb|adafactor|sign ?sgd|adadelta|muon|shampoo|nesterov|l ?bfgs|newton|hessian\w*|helene|hizoo",
                        "optimizer takes sgd, momentum, adam, and the last two rebuilt from seeds",
                    ),
                    (r"(sgd|descent)?.*\b(without|no) (momentum|adam|adaptive)", {"optimizer": "sgd"}),
                    (r"adamw", {"optimizer": "adam", "weight_decay": 0.01}),
                    (
                        r"(rebuil\w*|recomput\w*|reconstruct\w*|without (extra |stored |additional )?(memory|moments?|buffers?|state)|memory efficient|from (the )?(history|seeds|log)) .*adam|adam .*(rebuil\w*|recomput\w*|reconstruct\w*|without (extra |stored |additional )?(memory|moments?|buffers?|state)|memory efficient|from (the )?(history|seeds|log))|adam rebuilt",
                        {"optimizer": "adam-rebuilt"},
                    ),
                    (r"adam\w*|adaptive\w*|second moments?", {"optimizer": "adam"}),
                    (
                        r"momentum rebuilt|momentum .*(rebuil\w*|recomput\w*|reconstruct\w*|from (the )?(history|seeds|log))|(rebuil\w*|recomput\w*|reconstruct\w*) .*momentum",
                        {"optimizer": "momentum-rebuilt"},
                    ),
                    (r"momentum|heavy ball|first moments?|msgd", {"optimizer": "momentum"}),
                    (r"sgd|gradient descent|plain|vanilla", {"optimizer": "sgd"}),
                ),
            ),
            number("beta1", _BETA1, low=0.1, high=0.9999, also={"optimizer": _STATEFUL}),
        ),
        hints=("sgd", "momentum", "adam"),
        off={"optimizer": "sgd"},
        on={"optimizer": "momentum"},
        takes="sgd, momentum, adam, momentum-rebuilt or adam-rebuilt",
    ),
    Part(
        "momentum coefficient (beta1)",
        ("beta1",),
        (
            "beta1",
            "momentum (coefficient|factor|parameter|value|decay|strength|rate)",
            "first moment (decay|coefficient)",
        ),
        number("beta1", _BETA1, high=0.999999, also={"optimizer": _STATEFUL}),
        off={"optimizer": "sgd"},
        on={"optimizer": "momentum"},
        takes="a number from 0 to below 1",
    ),
    Part(
        "second-moment coefficient of Adam (beta2)",
        ("beta2",),
        ("beta2", "second moment (decay|coefficient)", "adam (decay|beta)s?"),
        number("beta2", _BETA2, high=0.999999, also={"optimizer": _ADAMS}),
        off={"optimizer": "momentum"},
        takes="a number from 0 to below 1",
    ),
    Part(
        "epsilon of Adam",
        ("adam_epsilon",),
        ("adam epsilon", "epsilon (in|of) adam", "denominator epsilon"),
        number("adam_epsilon", "eps|epsilon", low=1e-30, also={"optimizer": _ADAMS}),
        takes="a number above 0",
    ),
    Part(
        "steps from which moments are rebuilt",
        ("history",),
        ("history( length| size| window)?", "(rebuild|reconstruction) (window|steps|length)"),
        number(
            "history",
            "history|window|steps",
            whole=True,
            low=1,
            also={"optimizer": ("adam-rebuilt", "momentum-rebuilt")},
        ),
        takes="a whole number of 1 or more",
    ),
    Part(
        "learning rate",
        ("learning_rate",),
        (
            "learning rate(?! (schedul\\w*|decay\\w*|warm ?up|anneal\\w*))",
            "step size(?! (schedul\\w*|decay))",
            "lr(?! (schedul\\w*|decay))",
        ),
        unless(
            r"decay\w*|anneal\w*|schedul\w*|warm ?up|cosine",
            number("learning_rate", r"lr|learning rate|eta|η|\\eta|step size", low=1e-30, high=1e3),
        ),
        off="without a learning rate nothing is learnt",
        symbols="lr|learning rate|η|step size",
        takes="a number, such as 1e-6",
    ),
    Part(
        "learning-rate schedule",
        ("schedule",),
        (
            "(learning rate|lr|step size) (schedul\\w*|decay\\w*|anneal\\w*|policy)",
            "(constant|linear|cosine|decaying|decayed) (learning rate|lr|schedule|step size|decay)",
        ),
        switch(
            "schedule",
            on="linear",
            off="constant",
            more=with_warmup(
                choice(
                    (
                        r"exponential|step ?wise|polynomial|inverse|sqrt|cyclic\w*|restarts?|one ?cycle|plateau|piecewise",
                        "schedule takes constant, linear or cosine",
                    ),
                    (r"cosine", {"schedule": "cosine"}),
                    (r"(no|without) (decay|schedul\w*)|constant|fixed", {"schedule": "constant"}),
                    (r"linear\w*|decay\w*|anneal\w*", {"schedule": "linear"}),
                ),
            ),
        ),
        hints=("schedul(e|er|ing)s?", "decay", "anneal\\w*", "learning rate"),
        off={"schedule": "constant", "warmup_steps": 0},
        on={"schedule": "linear"},
        takes="constant, linear or cosine",
    ),
    Part(
        "warm-up of the learning rate",
        ("warmup_steps",),
        ("warm ?up( steps| phase| period)?",),
        first_of(
            warmup,
            share_of_steps,
            number("warmup_steps", "warm-?up(?: steps)?|steps", whole=True, low=0, off=0),
        ),
        off={"warmup_steps": 0},
        on="the plan does not say of how many steps: write set: {warmup_steps: 100}",
        takes="a whole number of steps",
    ),
    Part(
        "weight decay",
        ("weight_decay",),
        ("weight decay", "(l2|ridge) regulariz\\w*", "regulariz\\w*"),
        number("weight_decay", "weight decay|wd|lambda|λ", off=0.0, high=100),
        off={"weight_decay": 0.0},
        on={"weight_decay": 0.1},
        symbols="weight decay|wd",
        takes="a number of 0 or more",
    ),
    Part(
        "clipping of projected gradients",
        ("clip_projected_grad", "clip_quantile"),
        (
            "(gradients?|projected gradients?|slopes?|norm|update|value)s? clip\\w*",
            "clip\\w*( of)?( the)?( projected)?( gradients?| slopes?)?",
            "outlier (clipp\\w*|rejection)",
        ),
        first_of(
            choice((r"(no|without|un) ?clip\w*", {"clip_projected_grad": None, "clip_quantile": None})),
            _quantile,
            _symmetric,
            number("clip_projected_grad", "threshold|clip|c|norm|bound", low=1e-12),
            unless(r"\d+(\.\d+)?", choice((r"quantile|percentile|adaptive|clip\w*", {"clip_quantile": 0.9}))),
        ),
        hints=("clip\\w*",),
        off={"clip_projected_grad": None, "clip_quantile": None},
        on={"clip_quantile": 0.9},
        takes="a bound above 0, or a quantile",
    ),
    Part(
        "rounding of updates to 16-bit weights",
        ("rounding",),
        ("rounding( mode)?", "(stochastic|nearest|matched) round\\w*"),
        choice(
            (r"stochastic\w*|random\w*", {"rounding": "stochastic"}),
            (r"nearest|deterministic|standard|default|rne", {"rounding": "nearest"}),
            (r"matched", {"rounding": "matched"}),
        ),
        off={"rounding": "nearest"},
        on={"rounding": "stochastic"},
        takes="matched, stochastic or nearest",
    ),
    Part(
        "objective",
        ("objective",),
        (
            "(training |optimization |learning )?objectives?( function)?",
            "loss( function)?s?",
            "(cross entropy|ce)( loss| objective)?",
            "(non ?)?differentiable( objectives?| metrics?| losses)?",
            "rewards?( function)?",
        ),
        choice(
            (
                r"hinge|contrastive|mse|squared|focal|kl|dpo|preference|margin|ranking|bleu|human",
                "objective takes answer-ce, candidate-ce, accuracy, f1, rouge, or a reward of your own as --objective module:function",
            ),
            (
                r"(non ?differentiable )?(negative )?(task )?accurac(y|ies)|0 1 loss|zero one|error rate",
                {"objective": "accuracy"},
            ),
            (r"f1( score)?|f 1", {"objective": "f1"}),
            (r"rouge( ?1)?\b(?! ?[2l])|rouge", {"objective": "rouge"}),
            (
                r"candidates?|label words?|verbali[sz]ers?|choices?|classification (loss|head)|restricted|over (the )?(labels|classes)",
                {"objective": "candidate-ce"},
            ),
            (
                r"full vocab\w*|answer tokens?|language model\w*|lm|next token|generat\w*|whole vocab\w*|vocab\w*",
                {"objective": "answer-ce"},
            ),
            (r"cross entropy|ce|differentiable|log likelihood|nll", {"objective": "auto"}),
        ),
        hints=("accuracy", "f1", "metrics?"),
        off="there has to be something to minimise",
        takes="answer-ce, candidate-ce, accuracy, f1 or rouge",
    ),
)
