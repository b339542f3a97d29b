"""Evaluation: every metric of a task, whatever the order examples are scored in; training by each objective."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.tiny_models import tiny
from tests.toys import byte_tokenizer

import mezo
from mezo.engines.transformers.engine import TransformersEngine
from mezo.errors import MezoError
from mezo.events import EvalRecord
from mezo.metrics import METRICS
from mezo.objectives import OBJECTIVES, Objective, objective_named, reward_of
from mezo.optimizers import SGD
from mezo.runs.metrics_file import MetricsWriter, read_metrics
from mezo.scoring import Example, pose, predictions
from mezo.training import evaluation
from mezo.training.evaluation import evaluate
from mezo.types import THETA, Probe
from mezo.util.writing import Writing
from mezo.weights.weights import Weights


def engine_for(objective: Objective) -> TransformersEngine:
    model = tiny("llama")
    return TransformersEngine(
        model,
        Weights(model.named_parameters()),
        objective,
        SGD(),
        kind="causal",
        pad_token_id=0,
        tokenizer=byte_tokenizer(),
        writing=Writing(5),
    )


def choices(number: int = 9) -> list[Example]:
    """Prompts of falling lengths, so that they are scored in another order than they are given."""
    drawn = np.random.RandomState(1)
    return [
        Example(
            tuple(int(t) for t in drawn.randint(4, 260, 30 - 2 * i)),
            ((20,), (30, 31), (40,)),
            int(drawn.randint(3)),
            answers=(0, 2) if i == 4 else (),
            references=("a b", "c d"),
            group=i // 2,
        )
        for i in range(number)
    ]


# ---------------------------------------------------------------- candidates


def test_choices_are_those_of_each_example_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "_CHUNK", 2)
    examples, engine = choices(), engine_for(OBJECTIVES["candidate-ce"])
    alone = [int(predictions(pose([e]), engine.logprobs(pose([e]))[0])[0]) for e in examples]
    record = evaluate(
        engine, examples, OBJECTIVES["candidate-ce"], has_candidates=True, metrics=("macro-f1", "accuracy")
    )
    right = np.mean([c in e.right for c, e in zip(alone, examples, strict=True)])
    assert 0 < right < 1, "neither all right nor all wrong: the order matters"
    assert record.accuracy == record.metrics["accuracy"] == right
    assert list(record.metrics) == ["macro-f1", "accuracy"]
    assert record.metrics["macro-f1"] == METRICS["macro-f1"].of(examples, alone)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["answer-ce", "candidate-ce"])
def test_the_loss_is_that_of_all_examples_at_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "_CHUNK", 2)
    examples, engine, objective = choices(), engine_for(OBJECTIVES[name]), OBJECTIVES[name]
    posed = pose(examples, answers_only=objective.answers_only)
    expected = objective(posed, engine.logprobs(posed)[0])
    # float32 log-probabilities of order 10 in batches of another layout
    assert evaluate(engine, examples, objective, has_candidates=True).loss == pytest.approx(
        expected, abs=1e-4
    )


def test_without_a_word_on_metrics_accuracy_is_measured() -> None:
    record = evaluate(
        engine_for(OBJECTIVES["accuracy"]), choices(), OBJECTIVES["accuracy"], has_candidates=True
    )
    assert record.metrics == {"accuracy": record.accuracy}


def test_metrics_that_cannot_be_had() -> None:
    engine = engine_for(OBJECTIVES["answer-ce"])
    measure: dict[str, Any] = {"has_candidates": False}
    with pytest.raises(MezoError, match="unknown metric 'acuracy'; did you mean 'accuracy'"):
        evaluate(engine, choices(), OBJECTIVES["answer-ce"], metrics=("acuracy",), **measure)
    with pytest.raises(
        MezoError, match="metric 'macro-f1' judges a choice between candidates, and this task has"
    ):
        evaluate(engine, choices(), OBJECTIVES["answer-ce"], metrics=("macro-f1",), **measure)


# ---------------------------------------------------------------- generated text


def test_texts_are_judged_beside_the_loss() -> None:
    examples, engine = choices(), engine_for(objective_named("f1"))
    outputs = engine.generate(examples)
    examples[3] = Example(examples[3].prompt, ((20,),), 0, references=(f"the {outputs[3]}!", "other"))
    record = evaluate(
        engine, examples, objective_named("f1"), has_candidates=False, metrics=("squad-f1", "squad-em")
    )
    assert list(record.metrics) == ["squad-f1", "squad-em"]
    assert record.metrics["squad-em"] == 1 / len(examples)
    assert record.accuracy is None
    posed = pose(examples, answers_only=True)
    expected = OBJECTIVES["answer-ce"](posed, engine.logprobs(posed)[0])
    assert record.loss == pytest.approx(expected, abs=1e-4)  # as above


def test_an_objective_of_outputs_is_reported_as_a_metric() -> None:
    objective = reward_of(lambda example, output: len(output), "my:length")
    engine, examples = engine_for(objective), choices(3)
    record = evaluate(engine, examples, objective, has_candidates=False, metrics=())
    assert record.metrics == {"my:length": sum(map(len, engine.generate(examples))) / 3}


def test_losses_of_outputs_are_those_of_what_each_probe_writes() -> None:
    objective = reward_of(lambda example, output: len(output) + output.count("e"), "my:reward")
    engine, examples = engine_for(objective), choices(6)
    probes = [THETA, Probe(3, 2e-2), Probe(3, -2e-2)]
    batch = engine.prepare(examples)
    expected = [objective(examples, engine.generate(examples, probe)) for probe in probes]
    assert engine.losses(batch, probes) == expected
    assert len(set(expected)) > 1
    assert engine.counts.computed > 0


# ---------------------------------------------------------------- records on disk


def test_metrics_are_kept_and_older_files_still_read(tmp_path: Path) -> None:
    record = EvalRecord(3, "validation", None, 0.5, 7, 1.5, {"drop-f1": 0.25, "drop-em": 0.125})
    with MetricsWriter(tmp_path / "metrics.jsonl") as writer:
        writer.write(record)
    old = {
        "kind": "eval",
        "step": 0,
        "split": "test",
        "accuracy": 0.5,
        "loss": 1.0,
        "examples": 2,
        "seconds": 1,
    }
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(old) + "\n")
    assert read_metrics(tmp_path / "metrics.jsonl").evals == [record, EvalRecord(0, "test", 0.5, 1.0, 2, 1.0)]


# ---------------------------------------------------------------- training by every objective

SENTENCES = [
    {"sentence": s, "label": int(s.startswith("g"))} for s in ("gab", "hat", "gig", "hub", "get", "him")
]
PAIRS = [
    {"prompt": f"{s} is", "completion": f" {s[::-1]}", "weight": i}
    for i, s in enumerate(("abc", "de", "fgh"))
]


@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize(
    ("task", "objective"),
    [("sst2", name) for name in OBJECTIVES]
    + [
        ("prompt-completion", name)
        for name in ("answer-ce", "f1", "rouge", "rouge:rouge1", "their_reward:of")
    ],
)
def test_a_model_is_tuned_by(
    task: str, objective: str, tuning: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "their_reward.py").write_text(
        "def of(example, output):\n    return example['weight'] * sum(map(ord, output)) / 1e3\n"
    )
    monkeypatch.chdir(tmp_path)
    model, tokenizer = tiny("llama"), byte_tokenizer(words=(" great", " terrible"))
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    rows = SENTENCES if task == "sst2" else PAIRS
    result = mezo.mezo_finetune(
        "toy",
        rows,
        task=task,
        objective=objective,
        validation_dataset=rows,
        model=model,
        tokenizer=tokenizer,
        lora_rank=2 if tuning == "lora" else 0,
        num_steps=3,
        batch_size=3,
        epsilon=0.1,
        learning_rate=1e-2,
        max_new_tokens=4,
    )
    assert [math.isfinite(loss) for loss in result.losses] == [True] * 3
    assert math.isfinite(result.evals[-1].loss)
    after = dict(result.model.named_parameters())
    moved = any(not torch.equal(after[name], p) for name, p in start.items()) if tuning == "full" else True
    assert moved == (tuning == "lora" or any(any(s.projected_grads) for s in result.steps))
    if objective == "their_reward:of":
        assert result.evals[-1].metrics.keys() == {"their_reward:of"}
        assert any(any(s.projected_grads) for s in result.steps), "this reward changes with every letter"


def test_a_mistake_in_a_reward_ends_a_run_with_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wrong_reward.py").write_text("def of(example, output):\n    return example['wieght']\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        MezoError, match=r"reward wrong_reward:of, example .*'prompt': .*raised KeyError: 'wieght'"
    ):
        mezo.mezo_finetune(
            "toy",
            PAIRS,
            objective="wrong_reward:of",
            model=tiny("llama"),
            tokenizer=byte_tokenizer(),
            lora_rank=0,
            num_steps=3,
            batch_size=3,
            max_new_tokens=2,
        )
