"""Parts of the budget: batches, steps, examples, seeds."""

from typing import Any

from mezo.ablation.parts import Part
from mezo.ablation.values import Reading, choice, first_of, number, steady
from mezo.config import MeZOConfig

_SEEDS = "--seeds of mezo ablate runs every variant with several"


def _per_class(value: object) -> bool:
    text = str(value).lower()
    return any(word in text for word in ("class", "label", "shot", "k=", "k ="))


_ALL_DATA = r"(full|entire|whole|complete|all) (of )?(the )?(available )?(training |train |labell?ed )*(set|data ?set|data|examples|samples)"


def _examples(value: Any, config: MeZOConfig) -> tuple[Reading, ...] | None:
    name = "shots_per_class" if _per_class(value) else "train_examples"
    return number(name, "k|examples|shots|n", whole=True, low=1)(value, config)


BUDGET = (
    Part(
        "batch size",
        ("batch_size",),
        ("batch ?sizes?", "examples (per|in a) (batch|step)|samples (per|in a) batch", "batch(es)?"),
        steady(number("batch_size", "batch size|batch|b|bs", whole=True, low=1, high=1_000_000)),
        off={"batch_size": 1},
        symbols="batch size|batch|bs",
        takes="a whole number of 1 or more",
    ),
    Part(
        "gradient accumulation (microbatches a step)",
        ("gradient_accumulation",),
        ("gradient accumulation( steps)?", "micro ?batch(es)?", "accumulation steps"),
        number("gradient_accumulation", "accumulation|microbatches|steps", whole=True, low=1, off=1),
        off={"gradient_accumulation": 1},
        on={"gradient_accumulation": 4},
        takes="a whole number of 1 or more",
    ),
    Part(
        "number of steps",
        ("num_steps",),
        (
            "(number|count|amount) of (training |optimization |update |zo )*(steps|iterations|updates)",
            "(training|optimization|step|iteration) (steps|budget|length|duration|time budget)",
            "(longer|shorter) training",
            "steps",
        ),
        number("num_steps", "steps|iterations|t", whole=True, low=1),
        off="without steps nothing is tuned; the baseline's first evaluation shows that",
        takes="a whole number of 1 or more",
    ),
    Part(
        "examples of every class (k-shot)",
        ("shots_per_class",),
        (
            "(k|few|\\d+) shots?( per class| setting| k)?",
            "shots( per class)?",
            "(training |labell?ed )*(examples|samples|shots) (per|of each|of every|for each) (class|label)",
        ),
        first_of(
            choice((_ALL_DATA, {"train_examples": None, "shots_per_class": None})),
            number("shots_per_class", "k|examples|shots|n", whole=True, low=1),
        ),
        off={"train_examples": None, "shots_per_class": None},
        takes="a whole number of 1 or more",
    ),
    Part(
        "number of training examples",
        ("train_examples",),
        (
            "(number|amount|size) of (the )?(training |labell?ed |train )*(examples|data|samples|set)",
            "(training|train) (set|data|data ?set) size",
            "(data|sample) efficiency",
        ),
        first_of(
            choice((_ALL_DATA, {"train_examples": None, "shots_per_class": None})),
            _examples,
        ),
        hints=("examples", "data"),
        off={"train_examples": None, "shots_per_class": None},
        takes="a whole number of 1 or more; with k = or per class, of every class",
    ),
    Part(
        "random seed",
        ("seed",),
        (
            "(random|training|run|data) seeds?(?! (resampl|trick|reset|regenerat|replay|stor))",
            "(number|choice|effect|sensitivity) (of|to) (the )?(random )?seeds?",
            "seed (sensitivity|variance|robustness)",
            "reproducib\\w*",
        ),
        first_of(
            choice((r"(\d+|several|multiple|different|more) (different |random )*seeds", _SEEDS)),
            number("seed", "seed", whole=True, low=0, high=2**63),
        ),
        hints=("seeds?",),
        off=_SEEDS,
        on=_SEEDS,
        takes="a whole number of 0 or more",
    ),
)
