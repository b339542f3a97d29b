"""Metrics in prose, as names of what is computed of every run."""

import re
from collections.abc import Iterable

from mezo.ablation.binding.text import folded

# A text may ask for several: "Task Performance (Accuracy/F1)". Names: those of the runs' records.
_NAMES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"accurac(y|ies)|acc|success rate|error rate", ("accuracy",)),
    (r"exact match|em", ("exact_match",)),
    (r"f1|f measure|f score", ("f1",)),
    (r"rouge( ?[12l])*(sum)?", ("rouge",)),
    (r"train\w* (and validation )?loss(es)?", ("train_loss",)),
    (r"(?<!training )(?<!train )loss(es)?|perplexity|cross entropy|nll", ("loss",)),
    (
        r"(gpu|device|accelerator|cuda|v?ram|hbm)( memory| peak| ram| footprint)|v ?ram|peak (gpu|device|cuda)",
        ("device_memory_gb",),
    ),
    (r"(?<!gpu )(?<!device )(?<!cuda )memory|ram|footprint|rss|gb|gigabytes?|mib|mb", ("peak_memory_gb",)),
    (
        r"(gpu|device|tpu|accelerator|compute|cpu|a100|h100) ?hours?|hours? of (gpu|compute)|computational (cost|budget)|compute (cost|budget)?",
        ("device_hours",),
    ),
    (
        r"(training|train|wall ?clock|wall clock|run ?time|running|elapsed|execution|step|iteration|computation\w*)( clock)?( (time|seconds?|duration|speed))|wall ?clock|run ?time|speed(?! of convergence)|throughput|latency|seconds?|(time|seconds) per (step|iteration)|training (speed|efficiency)|time",
        ("train_seconds",),
    ),
    (
        r"converg\w*|(steps?|iterations?) to|sample efficiency|speed of convergence|optimi[sz]ation (speed|efficiency)|learning curves?",
        ("steps_to_threshold", "seconds_to_threshold", "area_under_curve"),
    ),
    (r"area under|auc|learning curves?", ("area_under_curve",)),
    (
        r"zero (projected )?gradients?( fraction| steps| share| rate)?|(fraction|share|rate) of (steps with )?(zero|null|no) (projected )?gradients?",
        ("zero_gradient_fraction",),
    ),
    (
        r"(number of |count of |total )?forward (passes|evaluations)|function (evaluations|queries)|(number of )?(loss )?evaluations|nfe|queries|query count",
        ("forward_passes",),
    ),
)
# What a task is judged by, where a plan only says "performance".
_PERFORMANCE = re.compile(
    r"\b(performance|quality|score|task metrics?|generali[sz]ation|effectiveness|downstream|results?)\b"
)
_JUDGED = ("accuracy", "f1", "rouge")


def metric_names(texts: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(names of computed metrics, each once; texts that ask for none of them)."""
    names: dict[str, None] = {}
    unknown = []
    for text in texts:
        found = _names(folded(text))
        names.update(dict.fromkeys(found))
        if not found:
            unknown.append(text)
    return tuple(names), tuple(unknown)


def _names(text: str) -> list[str]:
    found: list[str] = []
    # what is measured as a distance in time is no time of training
    rest = re.sub(
        r"\b(convergence|converged?) (speed|rate|time)\b|\btime to (convergence|converge|threshold)\b",
        "convergence",
        text,
    )
    for pattern, names in _NAMES:
        if re.search(rf"\b(?:{pattern})\b", rest):
            found += names
    if re.search(r"\bmemory\b|\bmemory gb\b", rest) and "device_memory_gb" not in found:
        found.append("device_memory_gb")
    if (
        not set(found) & set(_JUDGED)
        and _PERFORMANCE.search(rest)
        and not re.search(r"memory|speed|time|cost|comput", rest)
    ):
        found += _JUDGED
    return found
