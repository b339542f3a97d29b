"""Parts of the budget: batches, steps, examples, seeds."""

from mezo.ablation.binding.part import Part, Quantity

_ALL: dict[str, None] = {"train_examples": None, "shots_per_class": None}
_COUNT = "a whole number of 1 or more"
_SEEDS = "--seeds of mezo ablate runs every variant with several"

BUDGET = (
    Part(
        "batch size",
        ("batch_size",),
        ("mini? batch size b?", "example per|in a batch|step"),
        _COUNT,
        quantities=(
            Quantity("batch_size", ("bs",), ("b", "example", "batch"), whole=True, low=1, high=1 << 20),
        ),
        off={"batch_size": 1},
    ),
    Part(
        "gradient accumulation (microbatches a step)",
        ("gradient_accumulation",),
        ("gradient accumulation", "gradient? accumulation step", "microbatch per|a step"),
        _COUNT,
        quantities=(
            Quantity(
                "gradient_accumulation",
                (),
                ("micro? batch per? step?", "microbatch per? step?"),
                whole=True,
                low=1,
                high=1 << 20,
            ),
        ),
        off={"gradient_accumulation": 1},
    ),
    Part(
        "number of steps",
        ("num_steps",),
        (
            "number of training|optimization|update? step|iteration",
            "training|optimization step|iteration|duration|length",
            "step",
        ),
        _COUNT,
        quantities=(
            Quantity("num_steps", ("training step",), ("step|iteration", "training step"), whole=True, low=1),
        ),
        off="without steps nothing is tuned; the baseline's first evaluation shows that",
    ),
    Part(
        "examples of every class (k-shot)",
        ("shots_per_class",),
        (
            "shot per class k?",
            "number of shot per class k?",
            "number of training? example|sample per class k?",
            "few shot k training? example|sample? per? class?",
            "few shot setting",
            "example|sample per class",
        ),
        _COUNT,
        own={"full|whole training set|data": _ALL},
        quantities=(Quantity("shots_per_class", ("shot",), ("k", "per class"), whole=True, low=1),),
        off=_ALL,
    ),
    Part(
        "number of training examples",
        ("train_examples",),
        ("number of training example|sample", "training set|data size", "size of the? training set|data"),
        _COUNT,
        own={"full|whole training set|data": _ALL},
        quantities=(
            Quantity("train_examples", ("training example",), ("example",), whole=True, low=1),
            Quantity(
                "shots_per_class",
                (),
                ("per class", "example|sample per class"),
                whole=True,
                low=1,
                bare=False,
            ),
        ),
        off=_ALL,
    ),
    Part(
        "random seed",
        ("seed",),
        ("random|training seed", "random seed of training", "seed"),
        "a whole number of 0 or more",
        quantities=(Quantity("seed", whole=True, high=2**63),),
        off=_SEEDS,
    ),
)
