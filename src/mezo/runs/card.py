"""RUN/README.md: a model card that says what was tuned, on what, how well, and how to check it."""

import math
import re
import shlex
from typing import Protocol

import yaml

from mezo.config import MeZOConfig
from mezo.events import EvalRecord, token_reuse
from mezo.runs.folder import RunFolder
from mezo.runs.metrics_file import Metrics, read_metrics
from mezo.util.atomic_files import write_text
from mezo.util.escaping import code_block, code_span

_PAPER = "[Malladi et al. 2023](https://arxiv.org/abs/2305.17333)"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_EMBEDDED = {"smollm2-135m": "HuggingFaceTB/SmolLM2-135M-Instruct"}


class RunOutcome(Protocol):
    """What the card needs to know of a run besides its metrics; a TrainResult is one."""

    config: MeZOConfig
    interrupted: bool
    seconds: float
    peak_memory_bytes: int


def write_card(run: RunFolder, outcome: RunOutcome) -> None:
    """Write the card from the run's settings, its outcome and its metrics.jsonl.

    Raises MezoError if the metrics cannot be read.
    """
    config, metrics = outcome.config, read_metrics(run.metrics)
    parts = [
        _front_matter(config),
        f"# {code_span(config.model)} tuned on {code_span(config.task)} with MeZO\n",
        _summary(outcome, metrics),
        _results(metrics),
        _commands(run, config),
        _settings(config),
        _licence(config),
    ]
    write_text(run.card, "\n".join(part for part in parts if part))


def _front_matter(config: MeZOConfig) -> str:
    fields: dict[str, object] = {"library_name": "peft" if config.saves_adapter else "transformers"}
    base = _base(config)
    if base:
        fields["base_model"] = base
    fields["tags"] = ["mezo", "zeroth-order", config.task]
    return f"---\n{yaml.safe_dump(fields, sort_keys=False)}---\n"


def _base(config: MeZOConfig) -> str | None:
    """The hub id of the base model; None where it is a folder."""
    if config.model in _EMBEDDED:
        return _EMBEDDED[config.model]
    return config.model if _HUB_ID.fullmatch(config.model) else None


def _summary(outcome: RunOutcome, metrics: Metrics) -> str:
    config = outcome.config
    done = metrics.steps[-1].step + 1 if metrics.steps else 0
    what = {
        "full": "Weights matching its patterns" if config.train else "All weights",
        "lora": "LoRA factors",
        "prefix": "A prefix of keys and values",
        "head": "The language-model head",
    }
    text = (
        f"{what.get(config.tuning, f'Parameters of tuning mode {config.tuning}')} tuned with forward passes only (MeZO, {_PAPER}): {done} of {config.num_steps}"
        f" steps{', then stopped by hand' if outcome.interrupted else ''}; {config.batch_size} examples and"
        f" {config.num_directions} direction{'s' if config.num_directions > 1 else ''} a step;"
        f" {outcome.seconds:.0f} s, at most {outcome.peak_memory_bytes / 2**30:.2f} GiB of memory.\n"
    )
    text += _reuse(metrics)
    overview = "\n![Loss, accuracy and projected gradients over the run](plots/overview.png)\n"
    return text + (overview if metrics.steps else "")


def _reuse(metrics: Metrics) -> str:
    asked = sum(s.tokens_asked for s in metrics.steps)
    reused = sum(s.tokens_reused for s in metrics.steps)
    if reused <= 0:
        return ""
    saved = math.fsum(s.seconds_saved for s in metrics.steps if math.isfinite(s.seconds_saved))
    share = f"{100 * token_reuse(asked, reused):.1f} %"
    time = f", which saved about {saved:.0f} s" if saved >= 0.5 else ""
    return f"\nOf the {asked:,} tokens its steps asked for, {share} were not computed again{time}.\n"


def _results(metrics: Metrics) -> str:
    name = next((e.headline.name for e in metrics.evals if e.headline), "accuracy")
    rows = [
        "## Results\n",
        f"| split | step | examples | {code_span(name, table=True) if ':' in name else name} | loss |",
        "|---|---|---|---|---|",
    ]
    for split in dict.fromkeys(e.split for e in metrics.evals):
        mine = [e for e in metrics.evals if e.split == split]
        for record in mine if len(mine) < 2 else (mine[0], mine[-1]):
            rows.append(
                f"| {code_span(split, table=True)} | {record.step} | {record.examples}"
                f" | {_judged(record)} | {record.loss:.4f} |"
            )
    if not metrics.evals:
        return ""
    note = "\n\nAccuracy is given with one standard error.\n" if name == "accuracy" else "\n"
    return "\n".join(rows) + note


def _judged(record: EvalRecord) -> str:
    """The headline metric; accuracy with one standard error, of other metrics it is not known."""
    headline = record.headline
    if headline is None:
        return "-"
    if headline.name != "accuracy":
        return str(headline)
    error = math.sqrt(headline.value * (1 - headline.value) / max(record.examples, 1))
    return f"{100 * headline.value:.1f} ± {100 * error:.1f} %"


def _commands(run: RunFolder, config: MeZOConfig) -> str:
    tuned = ["--adapter", str(run.adapter)] if config.saves_adapter else ["--model", str(run.model)]
    evaluate = ["mezo", "eval", "--config", str(run.config), *tuned]
    replay = ["mezo", "replay", str(run.path), "--model", config.model, "--output", f"{run.path}-replayed"]
    return (
        "## Check it\n\nFrom the folder in which the run was started: measure the weights again, and make"
        " them again, bit for bit, from the base model and the trajectory.\n\n"
        + code_block([shlex.join(evaluate), shlex.join(replay)])
    )


def _settings(config: MeZOConfig) -> str:
    rows = ["## Settings\n", "| setting | value |", "|---|---|"]
    values = config.model_dump(mode="json")
    rows += [
        f"| {code_span(name, table=True)} | {code_span('-' if value is None else value, table=True)} |"
        for name, value in values.items()
    ]
    return "\n".join(rows) + "\n"


def _licence(config: MeZOConfig) -> str:
    base = _base(config)
    name = code_span(config.model) + (f" ({code_span(base)})" if base and base != config.model else "")
    return (
        f"## Licence\n\nTuned weights are a derivative of the base model, {name}, and of the data: their"
        f" licences apply.\n"
    )
