"""RUN/README.md: a model card that says what was tuned, on what, how well, and how to check it."""

import math
import shlex
from collections.abc import Mapping
from pathlib import PurePath
from typing import Literal, Protocol

import yaml

from mezo.config import MeZOConfig
from mezo.events import EvalRecord, token_reuse
from mezo.models import smollm2
from mezo.models.names import hub_id, is_embedded
from mezo.runs.folder import RunFolder
from mezo.runs.metrics_file import Metrics, read_metrics
from mezo.tuning.started import base_of
from mezo.util.atomic_files import write_text
from mezo.util.escaping import code_block, code_span

Kind = Literal["causal", "masked"]  # as models.load has it, which imports torch
_PAPER = "[Malladi et al. 2023](https://arxiv.org/abs/2305.17333)"
_AUTO: dict[Kind, str] = {"causal": "AutoModelForCausalLM", "masked": "AutoModelForMaskedLM"}
_FOR_THE_HUB: dict[Kind, dict[str, object]] = {
    "causal": {"pipeline_tag": "text-generation"},
    "masked": {"pipeline_tag": "fill-mask"},
}


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
    overview = "![Loss, accuracy and projected gradients over the run](plots/overview.png)\n"
    parts = [
        *_head(outcome, metrics, is_adapter=config.saves_adapter, extra={}),
        overview if metrics.steps else "",
        _results(metrics),
        _commands(run, config),
        _settings(config.model_dump(mode="json")),
        _licence(config),
    ]
    write_text(run.card, "\n".join(part for part in parts if part))


def weights_card(run: RunFolder, outcome: RunOutcome, *, kind: Kind = "causal", merged: bool = False) -> str:
    """The card for a folder of weights that leaves this machine: how to load them, and no path of this machine.

    Args:
        run: has the metrics.
        outcome: has the settings.
        kind: of the model.
        merged: the weights are a whole model, also where the run's own are an adapter.

    Raises:
        MezoError: the metrics cannot be read.
    """
    config, metrics = outcome.config, read_metrics(run.metrics)
    values = config.model_dump(mode="json")
    is_adapter = config.saves_adapter and not merged
    parts = [
        *_head(outcome, metrics, is_adapter=is_adapter, extra=_FOR_THE_HUB[kind]),
        _results(metrics),
        _usage(_on_its_base(config), _AUTO[kind], is_adapter=is_adapter),
        _settings({name: _without_path(value) for name, value in values.items()}),
        _licence(_on_its_base(config)),
    ]
    return "\n".join(part for part in parts if part)


def _on_its_base(config: MeZOConfig) -> MeZOConfig:
    """Of a run that started from an adapter, the settings with the model that the adapter is for."""
    return config.model_copy(update={"model": base_of(config.model)})


def _head(
    outcome: RunOutcome, metrics: Metrics, *, is_adapter: bool, extra: Mapping[str, object]
) -> list[str]:
    config = _on_its_base(outcome.config)
    return [
        _front_matter(config, is_adapter=is_adapter, extra=extra),
        f"# {code_span(_shown_base(config))} tuned on {code_span(_without_path(config.task))} with MeZO\n",
        _summary(outcome, metrics),
        _provenance(config),
    ]


def _front_matter(config: MeZOConfig, *, is_adapter: bool, extra: Mapping[str, object]) -> str:
    fields: dict[str, object] = {"library_name": "peft" if is_adapter else "transformers"}
    base = hub_id(config.model)
    if base:
        fields["base_model"] = base
    if extra and is_embedded(config.model):
        fields["license"] = smollm2.LICENSE
    fields |= extra
    fields["tags"] = ["mezo", "zeroth-order", _without_path(config.task)]
    return f"---\n{yaml.safe_dump(fields, sort_keys=False)}---\n"


def _shown_base(config: MeZOConfig) -> str:
    if is_embedded(config.model):
        return smollm2.NAME
    return hub_id(config.model) or str(_without_path(config.model))


def _without_path(value: object) -> object:
    """The last part of a path of this machine; anything else as it is."""
    if isinstance(value, list):
        return [_without_path(each) for each in value]
    return PurePath(value).name if isinstance(value, str) and value.startswith(("/", "~")) else value


def _provenance(config: MeZOConfig) -> str:
    if not is_embedded(config.model):
        return ""
    return (
        f"The base: {smollm2.provenance()}. On the hub's own weights the results differ a little, by the rounding to 4 bits; "
        "`mezo eval --model smollm2-135m` makes the exact ones.\n"
    )


def _usage(config: MeZOConfig, auto: str, *, is_adapter: bool) -> str:
    """How others load it, from the folder or the hub."""
    lines = [f"from transformers import {auto}, AutoTokenizer"]
    here = 'here = "."  # this folder, or its name on the hub'
    if is_adapter:
        base = hub_id(config.model) or str(_without_path(config.model))
        lines += ["from peft import PeftModel", "", here]
        lines += [f"base = {auto}.from_pretrained({base!r})", "model = PeftModel.from_pretrained(base, here)"]
    else:
        lines += ["", here, f"model = {auto}.from_pretrained(here)"]
    return "## Use it\n\n" + code_block([*lines, "tokenizer = AutoTokenizer.from_pretrained(here)"], "python")


def _summary(outcome: RunOutcome, metrics: Metrics) -> str:
    config = outcome.config
    done = metrics.steps[-1].step + 1 if metrics.steps else 0
    what = {
        "full": "Weights matching its patterns" if config.train else "All weights",
        "lora": "LoRA factors",
        "prefix": "A prefix of keys and values",
        "head": "The language-model head",
        "norms": "The gains and biases of the normalisation layers",
    }
    text = (
        f"{what.get(config.tuning, f'Parameters of tuning mode {config.tuning}')} tuned with forward passes only (MeZO, {_PAPER}): {done} of {config.num_steps}"
        f" steps{', then stopped by hand' if outcome.interrupted else ''}; {config.batch_size} examples and"
        f" {_directions(config)} a step;"
        f" {outcome.seconds:.0f} s, at most {outcome.peak_memory_bytes / 2**30:.2f} GiB of memory.\n"
    )
    return text + _reuse(metrics)


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


def _settings(values: Mapping[str, object]) -> str:
    rows = ["## Settings\n", "| setting | value |", "|---|---|"]
    rows += [
        f"| {code_span(name, table=True)} | {code_span('-' if value is None else value, table=True)} |"
        for name, value in values.items()
    ]
    return "\n".join(rows) + "\n"


def _licence(config: MeZOConfig) -> str:
    base, shown = hub_id(config.model), _shown_base(config)
    name = code_span(shown) + (f" ({code_span(base)})" if base and base != shown else "")
    return (
        f"## Licence\n\nTuned weights are a derivative of the base model, {name}, and of the data: their"
        f" licences apply.\n"
    )


def _directions(config: MeZOConfig) -> str:
    if config.row_directions > 1:
        return f"{config.row_directions} directions, each on its part of the batch,"
    return f"{config.num_directions} direction{'s' if config.num_directions > 1 else ''}"
