"""Other libraries' names of settings: taken, or answered, and never taken for something else."""

from pathlib import Path
from typing import Any

import pytest
from tests.resumed import ROWS, base

import mezo
from mezo.cli import main
from mezo.config import MeZOConfig
from mezo.errors import MezoError
from mezo.util.other_names import _MEANS, ANSWERS, SAME, answer


def test_every_name_leads_to_a_setting() -> None:
    fields = MeZOConfig.model_fields
    assert set(SAME.values()) <= set(fields)
    assert not (SAME.keys() | ANSWERS.keys() | _MEANS.keys()) & fields.keys()


@pytest.mark.parametrize(
    ("given", "ours"),
    [
        ({"lora_r": 4, "max_seq_length": 99}, {"lora_rank": 4, "max_length": 99}),
        ({"zo_eps": 0.5, "lr": 0.25}, {"epsilon": 0.5, "learning_rate": 0.25}),
        ({"max_steps": 50, "warmup_ratio": 0.05}, {"num_steps": 50, "warmup_steps": 3}),
        ({"per_device_train_batch_size": 3, "gradient_accumulation_steps": 2}, {"batch_size": 3, "gradient_accumulation": 2}),
        ({"lr_scheduler_type": "constant_with_warmup", "warmup_steps": 2}, {"schedule": "constant", "warmup_steps": 2}),
        ({"lr_scheduler_type": "cosine"}, {"schedule": "cosine"}),
        ({"eval_steps": 5, "save_steps": 6}, {"eval_every": 5, "snapshot_every": 6}),
        ({"bf16": False, "report_to": "none"}, {}),
        ({"max_steps": 50, "num_steps": 50}, {"num_steps": 50}),
    ],
)  # fmt: skip
def test_what_means_the_same_is_taken(given: dict[str, Any], ours: dict[str, Any], tmp_path: Path) -> None:
    assert MeZOConfig.build(**given) == MeZOConfig.build(**ours)
    file = tmp_path / "settings.yaml"
    file.write_text(
        "".join(f"{name}: {value!r}\n" for name, value in given.items()).replace("False", "false")
    )
    assert MeZOConfig.load(file) == MeZOConfig.build(**ours)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"bf16": True}, "bf16: .*give dtype='bfloat16'"),
        ({"fp16": True}, "fp16: .*give dtype='float16'"),
        ({"num_train_epochs": 3}, "num_train_epochs: .*give num_steps = epochs"),
        ({"output_dir": "x"}, "output_dir: .*--output"),
        ({"report_to": "wandb"}, "report_to: give --log"),
        ({"logging_steps": 5}, "logging_steps: every step"),
        ({"max_steps": 5, "num_steps": 6}, "max_steps=5: mezo's name is num_steps, and num_steps=6 is given, too"),
        ({"lr_scheduler_type": "constant", "warmup_steps": 2}, "'constant' has no warm-up there"),
        ({"lr_scheduler_type": "polynomial"}, "lr_scheduler_type: found 'polynomial': give schedule="),
        ({"warmup_ratio": 0.1}, "warmup_ratio: expected a share of num_steps"),
        ({"eval_batch_size": 3}, "eval_batch_size: evaluation chooses its own batches"),
    ],
)  # fmt: skip
def test_what_does_not_is_answered(given: dict[str, Any], message: str) -> None:
    with pytest.raises(MezoError, match=message):
        MeZOConfig.build(**given)
    if "warmup_ratio" not in given:  # mezo_finetune knows num_steps
        with pytest.raises(MezoError, match=message):
            mezo.mezo_finetune("nowhere", [], **given)


def test_a_device_s_batch_is_not_that_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(MezoError, match="batch_size counts the examples of all processes together"):
        MeZOConfig.build(per_device_train_batch_size=2)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("learning_rat", "; did you mean 'learning_rate'?"),
        ("batchsize", "; did you mean 'batch_size'?"),
        ("lora_ranks", "; did you mean 'lora_rank'?"),
        ("max_seq_lenght", "; did you mean 'max_length'?"),
        *((name, "; `mezo train --help` lists all settings") for name in (
            "early_stopping_patience", "momentum", "dropout", "num_workers", "seq_len", "group_by_length",
            "num_layers", "epsilon_schedule", "num_beams", "padding_side", "eval_delay",
        )),
    ],
)  # fmt: skip
def test_a_hint_names_no_unrelated_setting(name: str, hint: str) -> None:
    assert answer(name, MeZOConfig.model_fields) == hint
    with pytest.raises(MezoError, match=f"unknown setting '{name}'"):
        MeZOConfig.build(**{name: 1})


def test_finetune_takes_them_in_place_of_its_own(tmp_path: Path) -> None:
    rows = [{"prompt": row["sentence"], "completion": " great"} for row in ROWS]
    result = mezo.mezo_finetune(
        str(base(tmp_path)),
        rows,
        lora_r=2,
        max_steps=4,
        lr=1e-3,
        per_device_train_batch_size=2,
        warmup_ratio=0.5,
    )
    found = result.config
    assert (found.lora_rank, found.num_steps, found.learning_rate) == (2, 4, 1e-3)
    assert (found.batch_size, found.warmup_steps) == (2, 2)


def test_flags_win_over_a_file_by_any_name(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("max_steps: 5\nlora_r: 4\n")
    assert MeZOConfig.load(file, num_steps=7) == MeZOConfig.build(num_steps=7, lora_rank=4)
    file.write_text("max_grad_norm: 1.0\n")
    with pytest.raises(MezoError, match=r"settings\.yaml: max_grad_norm: slopes are clipped"):
        MeZOConfig.load(file)


@pytest.mark.parametrize("line", ["task_name: 'os:path'", "finetuning_type: 'os:system'"])
def test_another_name_is_no_way_around_the_question(line: str, tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(line)
    with pytest.raises(MezoError, match="imports Python code, which a file cannot ask for"):
        MeZOConfig.load(file)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--lora-r", "no option --lora-r: mezo's name is --lora-rank"),
        ("--max_steps", "no option --max_steps: mezo's name is --steps"),
        ("--per-device-train-batch-size", "mezo's name is --batch-size"),
        ("--bf16", "no option --bf16: the weights themselves are held in 16 bits"),
        ("--nonsense", "No such option: --nonsense"),
    ],
)
def test_options_are_answered(option: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", option, "3"]) == 2
    assert said in capsys.readouterr().err
