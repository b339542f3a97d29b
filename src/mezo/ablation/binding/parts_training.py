"""Parts of the training: optimizer, rates, what is minimised."""

from mezo.ablation.binding.part import Part, Quantity

_STATEFUL = {"optimizer": ("momentum", "momentum-rebuilt", "adam", "adam-rebuilt")}
_ADAM = {"optimizer": ("adam", "adam-rebuilt")}
_REBUILT = {"optimizer": ("adam-rebuilt", "momentum-rebuilt")}
_UNCLIPPED = {"clip_projected_grad": None, "clip_quantile": None}
_QUANTILE = Quantity(
    "clip_quantile", (), ("percentile",), low=1e-9, high=1 - 1e-9, bare=False, scale="percentile"
)
# Beside other settings "warm-up" may be of any of them, so its bare name counts in studies of the rate alone.
_WARMUP_UNITS = ("linear? warmup phase|step?", "of? the? training? step")
_WARMUP = Quantity("warmup_steps", (), _WARMUP_UNITS[:1], whole=True, bare=False, scale="share of steps")
_ALONE = Quantity("warmup_steps", (), _WARMUP_UNITS, whole=True, scale="share of steps")

TRAINING = (
    Part(
        "base optimizer",
        ("optimizer",),
        ("optimizer", "base|zo optimizer", "update rule", "zo? sgd optimizer"),
        "sgd, momentum, adam, momentum-rebuilt or adam-rebuilt",
        present=("absence of momentum",),
        values={
            "zo|mezo? adam": {"optimizer": "adam"},
            "zo|mezo? momentum": {"optimizer": "momentum"},
            "zo? sgd with momentum": {"optimizer": "momentum"},
            "momentum sgd": {"optimizer": "momentum"},
            "zo? sgd": {"optimizer": "sgd"},
            "zo? sgd without momentum": {"optimizer": "sgd"},
            "mezo? adam with moment|momentum? recomputed|rebuilt from the? seed|log history?": {
                "optimizer": "adam-rebuilt"
            },
            "momentum recomputed|rebuilt from the? seed|log history?": {"optimizer": "momentum-rebuilt"},
        },
        quantities=(
            Quantity(
                "beta1",
                ("momentum", "zo? sgd with momentum"),
                ("beta", "beta1"),
                high=0.999999,
                needs=_STATEFUL,
                implied=True,
                bare=False,
            ),
        ),
        off={"optimizer": "sgd"},
    ),
    Part(
        "momentum coefficient (beta1)",
        ("beta1",),
        ("beta1", "momentum coefficient|factor|parameter|strength beta1?"),
        "a number from 0 to below 1",
        quantities=(Quantity("beta1", (), ("momentum",), high=0.999999, needs=_STATEFUL),),
        off={"optimizer": "sgd"},
    ),
    Part(
        "second-moment coefficient of Adam (beta2)",
        ("beta2",),
        ("beta2", "adam beta2"),
        "a number from 0 to below 1",
        quantities=(Quantity("beta2", high=0.999999, needs=_ADAM),),
        off={"optimizer": "momentum"},
    ),
    Part(
        "epsilon of Adam",
        ("adam_epsilon",),
        ("adam epsilon", "epsilon of|in adam"),
        "a number above 0",
        quantities=(Quantity("adam_epsilon", (), ("eps", "epsilon"), low=1e-30, high=1e3, needs=_ADAM),),
    ),
    Part(
        "steps from which moments are rebuilt",
        ("history",),
        ("history length|window",),
        "a whole number of 1 or more",
        quantities=(Quantity("history", (), ("step",), whole=True, low=1, high=1 << 16, needs=_REBUILT),),
    ),
    Part(
        "learning rate",
        ("learning_rate",),
        ("learning rate eta?", "lr", "eta"),
        "a number, such as 1e-6",
        quantities=(Quantity("learning_rate", low=1e-30, high=1e3),),
        off="without a learning rate nothing is learnt",
    ),
    Part(
        "learning-rate schedule",
        ("schedule",),
        (
            "learning rate schedule",
            "schedule of the? learning rate",
            "lr schedule",
        ),
        "constant, linear or cosine",
        present=("constant learning rate schedule?",),
        values={
            "linear learning rate decay|schedule": {"schedule": "linear"},
            "cosine learning rate decay|schedule|annealing": {"schedule": "cosine"},
        },
        own={
            "linear decay|schedule": {"schedule": "linear"},
            "linear decay schedule": {"schedule": "linear"},
            "linear decay to zero": {"schedule": "linear"},
            "cosine decay|schedule|annealing": {"schedule": "cosine"},
            "cosine decay schedule": {"schedule": "cosine"},
            "constant learning rate": {"schedule": "constant"},
            "constant lr?": {"schedule": "constant"},
            "linear lr?": {"schedule": "linear"},
            "cosine lr?": {"schedule": "cosine"},
        },
        quantities=(_WARMUP,),
        off={"schedule": "constant", "warmup_steps": 0},
    ),
    Part(
        "warm-up of the learning rate",
        ("warmup_steps",),
        ("learning rate warmup", "warmup of the learning rate", "linear learning rate warmup"),
        "a whole number of steps, or a share of them",
        quantities=(_ALONE,),
        off={"warmup_steps": 0},
    ),
    Part(
        "weight decay",
        ("weight_decay",),
        ("weight decay regularization?", "wd"),
        "a number of 0 or more",
        quantities=(Quantity("weight_decay", high=1e3),),
        off={"weight_decay": 0.0},
    ),
    Part(
        "clipping of projected gradients",
        ("clip_projected_grad", "clip_quantile"),
        (
            "projected gradient|grad clipping",
            "clipping of the? projected gradient|grad",
            "clip|clipping the? projected gradient|grad",
        ),
        "a bound on the projected gradient above 0, or a percentile",
        quantities=(Quantity("clip_projected_grad", low=1e-12, high=1e12), _QUANTILE),
        off=_UNCLIPPED,
    ),
    Part(
        "gradient clipping",
        ("clip_quantile", "clip_projected_grad"),
        ("clipping", "clip"),
        "a bound that is named as one on the projected gradient, or a percentile of it",
        quantities=(_QUANTILE,),
        off=_UNCLIPPED,
    ),
    Part(
        "rounding of updates to 16-bit weights",
        ("rounding",),
        ("rounding mode?", "rounding mode of low precision update"),
        "matched, stochastic or nearest",
        values={
            "stochastic rounding": {"rounding": "stochastic"},
            "round to nearest": {"rounding": "nearest"},
            "nearest rounding": {"rounding": "nearest"},
        },
        off={"rounding": "nearest"},
    ),
    Part(
        "objective",
        ("objective",),
        (
            "objective",
            "training|optimization objective function?",
            "loss function?",
        ),
        "answer-ce, candidate-ce, accuracy, f1 or rouge",
        present=("cross entropy loss? objective?", "differentiable cross? entropy? objective"),
        values={
            "accuracy objective": {"objective": "accuracy"},
            "f1 objective": {"objective": "f1"},
        },
        own={
            "accuracy": {"objective": "accuracy"},
            "non differentiable accuracy": {"objective": "accuracy"},
            "f1 score?": {"objective": "f1"},
            "accuracy as the (non differentiable) objective": {"objective": "accuracy"},
            "cross entropy over the full? vocabulary": {"objective": "answer-ce"},
            "cross entropy over the candidate|label word?": {"objective": "candidate-ce"},
        },
        off="there has to be something to minimise",
    ),
)
