"""Every setting has an option, and an option's value reaches the setting."""

from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from mezo.cli.options import SETTINGS, flags_of, with_config
from mezo.config import MeZOConfig
from mezo.errors import MezoError

OTHER: dict[str, Any] = {
    "model": "other",
    "task": "demo",
    "data": "folder",
    "label_words": ("bad", "good"),
    "template": "Review: {sentence} So,",
    "tuning": "lora",
    "train": ("layers.1", "norm$"),
    "lora_rank": 4,
    "lora_alpha": 3,
    "lora_targets": ("q_proj", "v_proj"),
    "prefix_tokens": 3,
    "prefix_init": "random",
    "start": "linear-probe",
    "start_examples": 300,
    "dtype": "bfloat16",
    "quantize": "nf4",
    "device": "cpu",
    "trust_remote_code": True,
    "engine": "sglang",
    "tensor_parallel": 2,
    "parallel": "both",
    "checksum_every": 7,
    "rank_timeout": 12.5,
    "server": ("http://here:30000", "http://there:8000"),
    "server_args": {"mem_fraction_static": 0.5, "lora_target_modules": ["q_proj"]},
    "estimator": "one-sided",
    "final_directions": 4,
    "gradient_accumulation": 2,
    "num_directions": 3,
    "row_directions": 4,
    "epsilon": 0.25,
    "noise": "rademacher",
    "noise_rank": 3,
    "normalize_perturbations": True,
    "blocks": "random",
    "layers_per_step": 2,
    "layer_scaling": "variance",
    "clip_projected_grad": 8.0,
    "cone_angle": 1.2,
    "cone_beta": 0.9,
    "cone_warmup": 100,
    "clip_quantile": 0.5,
    "scores": "rank",
    "groups": 2,
    "optimizer": "momentum",
    "beta1": 0.5,
    "beta2": 0.75,
    "adam_epsilon": 0.125,
    "history": 32,
    "learning_rate": 0.5,
    "schedule": "cosine",
    "warmup_steps": 7,
    "weight_decay": 0.125,
    "objective": "accuracy",
    "reward_timeout": 2.5,
    "show_samples": 2,
    "max_new_tokens": 7,
    "stop": ("</answer>", ";"),
    "prefill": "<think>",
    "temperature": 0.75,
    "top_p": 0.5,
    "top_k": 5,
    "samples": 2,
    "rows_at_once": 64,
    "rounding": "nearest",
    "memory": "regenerate",
    "granularity": "block",
    "granularity_block": 64,
    "enable_kv_cache_optimization": False,
    "activation_cache_mb": 64,
    "audit": False,
    "disable_shortcuts": ("packing", "stacking"),
    "matmul": "torch",
    "num_steps": 99,
    "batch_size": 5,
    "max_length": 33,
    "train_examples": 11,
    "shots_per_class": 2,
    "split_sizes": (7, 8, 9),
    "columns": {"prompt": "question"},
    "splits": {"train": "train_sft"},
    "data_format": ".csv",
    "metrics": ("macro-f1", "accuracy"),
    "chat_template": "chatml",
    "turns": "last",
    "append_eos": False,
    "parse_special": True,
    "eval_seed": 3,
    "eval_examples": 12,
    "eval_every": 13,
    "seed": 2**64 - 1,
    "snapshot_every": 250,
    "stop_on_explosion": False,
}


def parse(arguments: list[str]) -> MeZOConfig:
    seen: list[MeZOConfig] = []

    @with_config(SETTINGS)
    def command(config: MeZOConfig) -> None:
        seen.append(config)

    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return seen[0]


def flags(name: str, value: Any) -> list[str]:
    flag = flags_of(name)[0]
    if isinstance(value, bool):
        return [flag.split("/")[0 if value else 1]]
    return [flag, ",".join(map(str, value)) if isinstance(value, tuple) else str(value)]


def test_every_field_has_words_and_none_is_left_over() -> None:
    assert all(field.description for field in MeZOConfig.model_fields.values())
    assert set(OTHER) == set(MeZOConfig.model_fields)


def test_without_options_the_defaults_hold() -> None:
    assert parse([]) == MeZOConfig.build()


@pytest.mark.parametrize("name", MeZOConfig.model_fields)
def test_an_option_sets_its_field_and_no_other(name: str) -> None:
    assert OTHER[name] != MeZOConfig.model_fields[name].default
    assert parse(flags(name, OTHER[name])) == MeZOConfig.build(**{name: OTHER[name]})


@pytest.mark.parametrize("name", [n for n in OTHER if n != "train_examples"])
def test_a_flag_wins_over_the_file(tmp_path: Path, name: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(MeZOConfig.build(task="other", num_steps=50).to_yaml())
    config = parse(["--config", str(file), *flags(name, OTHER[name])])
    assert config == MeZOConfig.build(**{"task": "other", "num_steps": 50, name: OTHER[name]})


def test_the_file_is_named_in_its_mistakes(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("learning_rat: 1\n")
    with pytest.raises(
        MezoError, match=r"run\.yaml: unknown setting 'learning_rat'; did you mean 'learning_rate'"
    ):
        parse(["--config", str(file)])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("\\n,; ", ("\n", "; ")),
        ('["a,b", "\\n"]', ("a,b", "\n")),
        ("eos", ()),
    ],
)
def test_stop_strings_on_the_command_line(given: str, expected: tuple[str, ...]) -> None:
    assert parse(["--stop", given]).stop == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("", "stop.*an empty string is everywhere"),
        ("a,", "stop.*an empty string is everywhere"),
        ('["a"', "not a readable JSON list"),
        ("[1]", "expected a JSON list of strings"),
    ],
)
def test_stop_strings_that_are_none(given: str, message: str) -> None:
    with pytest.raises(MezoError, match=message):
        parse(["--stop", given])
