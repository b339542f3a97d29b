"""MeZOTrainer by the arguments of transformers' Trainer: model, args, data sets, compute_metrics, callbacks."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.resumed import ROWS, base
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    EarlyStoppingCallback,
    EvalPrediction,
    TrainerCallback,
    TrainingArguments,
)

import mezo
from mezo.config import MeZOConfig
from mezo.errors import MezoError
from mezo.events import Observer
from mezo.weights.fingerprint import fingerprint

SETTINGS = dict(task="sst2", num_steps=6, batch_size=3, learning_rate=1e-3, eval_every=2, seed=2)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return base(tmp_path_factory.mktemp("base"))


def train(**given: Any) -> mezo.TrainResult:
    return mezo.MeZOTrainer(
        **{"train_dataset": ROWS, "eval_dataset": ROWS[:4], "observer": Observer(), **given}
    ).train()


def arguments(folder: Path, **changes: Any) -> TrainingArguments:
    values: dict[str, Any] = dict(
        max_steps=4, per_device_train_batch_size=2, learning_rate=1e-3, use_cpu=True, report_to="none"
    )
    return TrainingArguments(output_dir=str(folder / "out"), **{**values, **changes})


def test_both_forms_make_the_same_run(model: Path) -> None:
    loaded = AutoModelForCausalLM.from_pretrained(model)
    tokenizer = AutoTokenizer.from_pretrained(model)
    ours = train(args=MeZOConfig.build(model=str(model), **SETTINGS))
    path = train(model=str(model), args=MeZOConfig.build(**SETTINGS))
    theirs = train(model=loaded, processing_class=tokenizer, args=MeZOConfig.build(**SETTINGS))
    assert path.config == ours.config
    assert theirs.config == ours.config  # the model's name and type are taken from the object
    assert ours.losses == path.losses == theirs.losses
    weights = [fingerprint(result.model.named_parameters()) for result in (ours, path, theirs)]
    assert len(set(weights)) == 1


def test_training_arguments_mean_what_they_say(model: Path, tmp_path: Path) -> None:
    given = arguments(
        tmp_path, num_train_epochs=3, max_steps=-1, gradient_accumulation_steps=2, warmup_steps=2, seed=7,
        weight_decay=0.1, lr_scheduler_type="cosine", eval_strategy="epoch", save_strategy="steps", save_steps=3,
    )  # fmt: skip
    result = train(model=str(model), args=given)
    found = result.config
    assert (found.num_steps, found.batch_size, found.gradient_accumulation) == (6, 2, 2)  # 8 rows, 3 times
    assert (found.schedule, found.warmup_steps, found.learning_rate) == ("cosine", 2, 1e-3)
    assert (found.seed, found.weight_decay, found.eval_every, found.snapshot_every) == (7, 0.1, 2, 3)
    assert result.output == tmp_path / "out"
    assert (tmp_path / "out" / "trajectory.mezo").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_grad_norm": 0.5}, "max_grad_norm=0.5: slopes are clipped, not gradients: give clip_projected_grad"),
        ({"optim": "adafactor"}, "optim=.*give optimizer="),
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor=0.1: a run of forward passes has nothing of it"),
        ({"report_to": "tensorboard"}, "report_to=.*--log tensorboard"),
        ({"lr_scheduler_type": "polynomial"}, "give schedule='constant', 'linear' or 'cosine'"),
        ({"eval_strategy": "epoch"}, "'epoch' beside max_steps"),
    ],
)  # fmt: skip
def test_arguments_of_which_a_run_has_nothing(
    model: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(MezoError, match=message):
        train(model=str(model), args=arguments(tmp_path, **changes))


def test_what_excludes_each_other_is_said(model: Path) -> None:
    config = MeZOConfig.build(model=str(model), **SETTINGS)
    with pytest.raises(MezoError, match="args= and config="):
        train(args=config, config=config)
    with pytest.raises(MezoError, match=r"expected a MeZOConfig or transformers.TrainingArguments"):
        train(args={"max_steps": 3})
    loaded = AutoModelForCausalLM.from_pretrained(model)
    with pytest.raises(MezoError, match="dtype='bfloat16': the model given is in float32"):
        train(model=loaded, processing_class=object(), args=MeZOConfig.build(dtype="bfloat16", **SETTINGS))


# ---------------------------------------------------------------- metrics


def test_metrics_go_by_their_names(model: Path) -> None:
    def right(found: EvalPrediction) -> dict[str, Any]:
        assert np.asarray(found.predictions).shape == (4, 2)
        return {"right": np.mean(np.argmax(found.predictions, axis=-1) == found.label_ids)}

    result = train(args=MeZOConfig.build(model=str(model), **SETTINGS), compute_metrics=right)
    last = result.evals[-1]
    assert result.metrics["accuracy"] == result.metrics["validation/accuracy"] == last.accuracy
    assert result.metrics["right"] == result.metrics["accuracy"]
    assert result.metrics["loss"] == last.loss


def test_texts_are_what_is_judged_where_there_is_no_choice(model: Path) -> None:
    rows = [{"prompt": row["sentence"], "completion": " great"} for row in ROWS]
    seen: list[EvalPrediction] = []

    def length(found: EvalPrediction) -> dict[str, float]:
        seen.append(found)
        return {"length": float(np.mean([len(text) for text in found.predictions]))}

    config = MeZOConfig.build(
        model=str(model), num_steps=1, batch_size=2, learning_rate=1e-3, max_new_tokens=3
    )
    result = train(args=config, train_dataset=rows, eval_dataset=rows[:3], compute_metrics=length)
    assert [type(text) for text in seen[0].predictions] == [str, str, str]
    assert len(seen[0].label_ids) == 3
    assert result.metrics["length"] == np.mean([len(text) for text in seen[-1].predictions])


@pytest.mark.parametrize("value", [None, {"x": "much"}, {"x": float("nan")}])
def test_metrics_that_are_no_numbers(model: Path, value: Any) -> None:
    with pytest.raises(MezoError, match="compute_metrics: expected a"):
        train(args=MeZOConfig.build(model=str(model), **SETTINGS), compute_metrics=lambda found: value)


# ---------------------------------------------------------------- callbacks


class Listens(TrainerCallback):
    def __init__(self, stop_at: int | None = None) -> None:
        self.heard: list[tuple[Any, ...]] = []
        self.stop_at = stop_at
        self.logs: list[dict[str, Any]] = []
        self.evaluated: list[dict[str, float]] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        assert kwargs["model"] is not None
        assert kwargs["processing_class"] is not None
        self.heard.append(("begin", state.max_steps))

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.heard.append(("step", state.global_step))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.heard.append(("done", state.global_step))
        if state.global_step == self.stop_at:
            control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        self.logs.append(logs)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        self.heard.append(("evaluated", state.global_step))
        self.evaluated.append(metrics)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.heard.append(("saved", state.global_step))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.heard.append(("end", state.global_step))


def test_callbacks_hear_of_a_run_in_order(model: Path, tmp_path: Path) -> None:
    listens = Listens()
    settings = {**SETTINGS, "num_steps": 3, "snapshot_every": 2}
    result = train(
        args=MeZOConfig.build(model=str(model), **settings), callbacks=[listens], output=tmp_path / "run"
    )
    assert listens.heard == [
        ("begin", 3), ("step", 0), ("evaluated", 0), ("done", 1), ("step", 1), ("done", 2), ("step", 2),
        ("evaluated", 2), ("saved", 2), ("done", 3), ("evaluated", 3), ("end", 3),
    ]  # fmt: skip
    assert [log["loss"] for log in listens.logs if "loss" in log] == result.losses
    assert listens.evaluated[-1]["eval_accuracy"] == result.metrics["accuracy"]


def test_a_callback_stops_a_run_that_can_go_on(model: Path, tmp_path: Path) -> None:
    config = MeZOConfig.build(model=str(model), **SETTINGS)
    listens = Listens(stop_at=3)
    stopped = train(args=config, callbacks=[listens], output=tmp_path / "run")
    assert (len(stopped.steps), stopped.interrupted, listens.heard[-1]) == (3, True, ("end", 3))
    whole = train(args=config, output=tmp_path / "whole")
    resumed = train(args=config, resume=tmp_path / "run")
    assert resumed.losses == whole.losses
    saved = [(tmp_path / name / "trajectory.mezo").read_bytes() for name in ("run", "whole")]
    assert saved[0] == saved[1]


def test_early_stopping_of_transformers_works(model: Path, tmp_path: Path) -> None:
    given = arguments(
        tmp_path, max_steps=8, eval_strategy="steps", eval_steps=1, metric_for_best_model="worst", greater_is_better=True,
        logging_steps=2,
    )  # fmt: skip
    listens = Listens()
    result = train(
        model=str(model), args=given, callbacks=[EarlyStoppingCallback(early_stopping_patience=3), listens],
        compute_metrics=lambda found: {"worst": 0.0},
    )  # fmt: skip
    assert len(result.steps) == 3  # no evaluation was better than that before the first step
    assert sum("learning_rate" in log for log in listens.logs) == 1  # every 2 steps


def test_what_is_no_callback_is_refused(model: Path) -> None:
    with pytest.raises(MezoError, match=r"expected transformers.TrainerCallback objects, found"):
        train(args=MeZOConfig.build(model=str(model), **SETTINGS), callbacks=[print])


def test_a_model_object_alone_says_what_it_is(model: Path) -> None:
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype="bfloat16")
    made = mezo.MeZOTrainer(
        model=loaded,
        processing_class=AutoTokenizer.from_pretrained(model),
        train_dataset=[{"prompt": "one", "completion": " two"}],
        observer=Observer(),
    )
    assert (made.config.model, made.config.dtype) == (str(model), "bfloat16")


def test_shares_of_a_run_and_the_device_are_taken(model: Path, tmp_path: Path) -> None:
    given = arguments(
        tmp_path, max_steps=40, eval_strategy="steps", eval_steps=0.25, save_strategy="steps", save_steps=0.5
    )
    rows = [{"prompt": "one", "completion": " two"}]
    made = mezo.MeZOTrainer(
        model=str(model), args=given, train_dataset=rows, eval_dataset=rows, observer=Observer()
    )
    assert (made.config.eval_every, made.config.snapshot_every, made.config.device) == (10, 20, "cpu")


@pytest.mark.parametrize(
    "changes",
    [
        dict(
            load_best_model_at_end=True,
            eval_strategy="steps",
            eval_steps=2,
            save_strategy="steps",
            save_steps=2,
        ),
        dict(data_seed=77),
        dict(dataloader_drop_last=True),
    ],
)
def test_what_would_be_ignored_is_refused(changes: dict[str, Any], model: Path, tmp_path: Path) -> None:
    with pytest.raises(MezoError, match=f"TrainingArguments: {next(iter(changes))}="):
        mezo.MeZOTrainer(model=str(model), args=arguments(tmp_path, **changes), train_dataset=ROWS)
