"""Names that other libraries have for settings of a run: taken where they mean the same, else answered with mezo's.

Of transformers and TRL, torchtune, LLaMA-Factory, Unsloth, mlx-lm, peft, and the published code of MeZO and ZO-Bench.
"""

import difflib
import math
import os
from collections.abc import Callable, Collection, Mapping
from typing import Any

# Theirs -> ours: the same meaning, the same values.
SAME = {
    **dict.fromkeys(("lr", "step_size", "peak_lr"), "learning_rate"),
    **dict.fromkeys(("eps", "zo_eps", "zo_epsilon", "perturb_eps", "perturbation_scale"), "epsilon"),
    **dict.fromkeys(("num_perturbations", "n_perturbations", "num_pertub", "q"), "num_directions"),
    **dict.fromkeys(("max_steps", "iters", "num_iterations", "total_steps", "train_steps"), "num_steps"),
    **dict.fromkeys(("gradient_accumulation_steps", "grad_accumulation_steps"), "gradient_accumulation"),
    **dict.fromkeys(("eval_steps", "steps_per_eval"), "eval_every"),
    **dict.fromkeys(("save_steps", "save_every", "steps_per_save"), "snapshot_every"),
    **dict.fromkeys(("max_seq_length", "max_seq_len", "cutoff_len"), "max_length"),
    **dict.fromkeys(("lora_r", "r", "rank"), "lora_rank"),
    **dict.fromkeys(("target_modules", "lora_target_modules", "lora_target"), "lora_targets"),
    **dict.fromkeys(("finetuning_type", "fine_tune_type"), "tuning"),
    **dict.fromkeys(("model_name_or_path", "model_name", "model_path", "model_id"), "model"),
    **dict.fromkeys(("dataset", "dataset_name", "train_file", "train_dataset"), "data"),
    **dict.fromkeys(("task_name", "dataset_task"), "task"),
    **dict.fromkeys(("num_prefix", "num_virtual_tokens"), "prefix_tokens"),
    **dict.fromkeys(("num_train", "max_samples", "max_train_samples"), "train_examples"),
    **dict.fromkeys(("num_eval", "max_eval_samples"), "eval_examples"),
    "adam_beta1": "beta1",
    "adam_beta2": "beta2",
    "random_state": "seed",
    "torch_dtype": "dtype",
    "assistant_prefill": "prefill",
}  # fmt: skip

# Theirs -> what to do instead: nothing of mezo's means quite the same.
ANSWERS = {
    **dict.fromkeys(
        ("num_train_epochs", "num_epochs", "epochs"),
        "a run is as long as num_steps says: give num_steps = epochs * examples / batch_size",
    ),
    **dict.fromkeys(("bf16", "load_bfloat16"), "the weights themselves are held in 16 bits: give dtype='bfloat16'"),
    **dict.fromkeys(("fp16", "load_float16"), "the weights themselves are held in 16 bits: give dtype='float16'"),
    "report_to": "give --log tensorboard, wandb or mlflow on the command line; in Python, callbacks= or observer=",
    "logging_steps": "every step is in metrics.jsonl; `result.steps` has them",
    **dict.fromkeys(
        ("output_dir", "adapter_path", "save_dir"), "the folder is no setting: --output; in Python, output="
    ),
    **dict.fromkeys(("optim", "optim_type"), "give optimizer='sgd', 'momentum' or 'adam'"),
    "max_grad_norm": "slopes are clipped, not gradients: give clip_projected_grad",
    "lora_dropout": "nothing is dropped in a forward pass of MeZO: leave it out",
    **dict.fromkeys(
        ("per_device_eval_batch_size", "eval_batch_size"), "evaluation chooses its own batches: leave it out"
    ),
    **dict.fromkeys(
        ("load_in_4bit", "load_in_8bit", "quantization_bit", "load_in_fp8"), "give quantize='nf4' or 'int8'"
    ),
    "continue_final_message": "give prefill, one text for all rows, or the field continue_final_message in the data",
    "load_best_model_at_end": "the last weights are kept; `mezo trajectory cut` and `mezo replay` make those of any step again",
    "dataloader_drop_last": "an epoch has no last batch: batches are cut from epochs laid end to end",
    "data_seed": "seed draws both noise and batches: give seed",
    "gradient_checkpointing": "there are no gradients to keep activations for: leave it out",
    "perturbation_mode": "give estimator='two-point' or 'one-sided'",
    **dict.fromkeys(("zo_variant", "trainer", "method"), "the method is MeZO's: estimator and optimizer vary it"),
    "eval_strategy": "give eval_every",
    "evaluation_strategy": "give eval_every",
    "save_strategy": "give snapshot_every",
    "packing": "rows of any length are packed by themselves: leave it out",
    "neftune_noise_alpha": "no noise is added to embeddings: leave it out",
}  # fmt: skip


def _batch_size(value: Any, _values: Mapping[str, Any]) -> dict[str, Any]:
    if int(os.environ.get("WORLD_SIZE") or 1) > 1:
        raise ValueError("batch_size counts the examples of all processes together: give that")
    return {"batch_size": value}


def _schedule(value: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    name = str(getattr(value, "value", value))
    warm = values.get("warmup_steps") or values.get("warmup_ratio")
    if name == "constant" and warm:
        raise ValueError(
            "'constant' has no warm-up there: leave out the warm-up, or give 'constant_with_warmup'"
        )
    if name not in ("constant", "constant_with_warmup", "linear", "cosine"):
        raise ValueError(f"found {name!r}: give schedule='constant', 'linear' or 'cosine'")
    return {"schedule": name.removesuffix("_with_warmup")}


def _warmup(value: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    steps = next(
        (values[n] for n in ("num_steps", *SAME) if n in values and SAME.get(n, n) == "num_steps"), None
    )
    if not value:
        return {}
    if not isinstance(steps, int) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise ValueError(
            "expected a share of num_steps from 0 to 1, and num_steps beside it; or give warmup_steps"
        )
    return {"warmup_steps": math.ceil(value * steps)}


def _mode(name: str) -> Callable[[Any, Mapping[str, Any]], dict[str, Any]]:
    return lambda value, values: {"tuning": name} if value else {}


# Theirs -> our settings, from their value and all values that were given.
_MEANS: dict[str, Callable[[Any, Mapping[str, Any]], dict[str, Any]]] = {
    **dict.fromkeys(
        ("per_device_train_batch_size", "per_device_batch_size", "train_batch_size", "micro_batch_size"), _batch_size
    ),
    **dict.fromkeys(("lr_scheduler_type", "lr_scheduler", "lr_schedule"), _schedule),
    "warmup_ratio": _warmup,
    "lora": _mode("lora"),
    "prefix_tuning": _mode("prefix"),
    "head_tuning": _mode("head"),
    "ln_tuning": _mode("norms"),
}  # fmt: skip
_OPTIONS = {
    name: ours
    for names, ours in (
        (
            ("per_device_train_batch_size", "per_device_batch_size", "train_batch_size", "micro_batch_size"),
            "batch_size",
        ),
        (("lr_scheduler_type", "lr_scheduler", "lr_schedule"), "schedule"),
        (("warmup_ratio",), "warmup_steps"),
        (("lora", "prefix_tuning", "head_tuning", "ln_tuning"), "tuning"),
    )
    for name in names
}
_NEAR = 0.84  # eval_batch_size is as near to batch_size as 0.8, and another thing


def in_our_names(values: Mapping[str, Any], fields: Collection[str]) -> dict[str, Any]:
    """The settings with mezo's names in place of others' of the same meaning.

    Raises ValueError for one that has none, with what to do, and for two different values of one setting.
    """
    found = {name: value for name, value in values.items() if not _is_theirs(name, fields)}
    for name in values.keys() - found.keys():
        value = values[name]
        if name in ANSWERS:
            if value in (False, None) or (name == "report_to" and value in ("none", [], ["none"])):
                continue
            raise ValueError(f"{name}: {ANSWERS[name]}")
        try:
            ours = {SAME[name]: value} if name in SAME else _MEANS[name](value, values)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        for key, item in ours.items():
            if found.setdefault(key, item) != item:
                raise ValueError(
                    f"{name}={value!r}: mezo's name is {key}, and {key}={found[key]!r} is given, too: give one"
                )
    return found


def _is_theirs(name: str, fields: Collection[str]) -> bool:
    return name not in fields and (name in SAME or name in ANSWERS or name in _MEANS)


def about_option(option: str, fields: Collection[str], flag: Callable[[str], str]) -> str:
    """What an option of the command line that mezo does not have is here; "" if it is no known name of a setting.

    flag: the option of a setting.
    """
    name = option.lstrip("-").replace("-", "_")
    if not _is_theirs(name, fields):
        return ""
    return ANSWERS.get(name) or f"mezo's name is {flag(SAME.get(name) or _OPTIONS[name])}"


def answer(name: str, fields: Collection[str]) -> str:
    """To end a message about a setting that mezo does not have: the one it must be, if there is one."""
    if name in SAME:
        return f"; mezo's name is {SAME[name]!r}"
    close = difflib.get_close_matches(name, [*fields, *SAME, *_MEANS, *ANSWERS], n=3, cutoff=_NEAR)
    names = list(dict.fromkeys(SAME.get(each, each) for each in close))
    if not names:
        return "; `mezo train --help` lists all settings"
    return f"; did you mean {' or '.join(map(repr, names))}?"
