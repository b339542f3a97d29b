"""Runs on preferences: rows to tokens, the start's log-probabilities, resuming, replaying, evaluating."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.resumed import base, config_for
from tests.tiny_models import same_files
from tests.toys import byte_tokenizer

import mezo
from mezo import api
from mezo.config import MeZOConfig
from mezo.data import MeZODataset
from mezo.data.references import References
from mezo.errors import MezoError
from mezo.events import MezoWarning, Observer, StopTraining
from mezo.objectives import OBJECTIVES, PreferenceObjective
from mezo.resume.reference_file import references_of
from mezo.resume.replay import replay
from mezo.runs import trajectory
from mezo.runs.metrics_file import read_metrics
from mezo.scoring import candidate_sums, pose
from mezo.training.trainer import MeZOTrainer

ROWS = [{"prompt": f"Q{n}:", "chosen": f" sorry {n}{n}", "rejected": " no" * (1 + n % 3)} for n in range(8)]
TALK = [{"role": "user", "content": "hi"}]


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return base(tmp_path_factory.mktemp("base"))


def preferring(model: Path, **changes: Any) -> MeZOConfig:
    return config_for(model, **{"task": "preference", **changes})


def trainer(config: MeZOConfig | None, rows: Any = ROWS, **options: Any) -> MeZOTrainer:
    train, validation = MeZODataset(rows), MeZODataset(ROWS[:3], split="validation")
    options = {"observer": Observer(), "artifacts": False, **options}
    return MeZOTrainer(config, train=train, validation=validation, **options)


class Stopping(Observer):
    def on_step(self, record: Any) -> None:
        if record.step == 5:
            raise StopTraining


# ---------------------------------------------------------------- rows


def chat_tokenizer() -> Any:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    return tokenizer


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": TALK, "chosen": said("yes"), "rejected": said("no way")},
        {"chosen": TALK + said("yes"), "rejected": TALK + said("no way")},
        {"prompt": "hi", "chosen": TALK + said("yes"), "rejected": TALK + said("no way")},
        {"prompt": "hi", "chosen": said("yes"), "rejected": said("no way")},
        {
            "prompt": json.dumps(TALK),
            "chosen": json.dumps(said("yes")),
            "rejected": json.dumps(said("no way")),
        },
    ],
    ids=["explicit", "implicit", "both", "text", "csv"],
)
def test_every_form_of_messages_is_the_same_pair(row: dict[str, Any]) -> None:
    data, tokenizer = MeZODataset([row]), chat_tokenizer()
    assert data.task.name == "preference"
    (example,) = data.encode(tokenizer, "causal", 200)
    assert tokenizer.decode(example.prompt).endswith("<user>hi</s><assistant>")
    assert [tokenizer.decode(c) for c in example.candidates] == ["yes</s>", "no way</s>"]
    assert example.right == (0,)


def test_texts_are_joined_as_they_are_written() -> None:
    tokenizer = byte_tokenizer()
    (example,) = MeZODataset(ROWS[:1]).encode(tokenizer, "causal", 200)
    assert [tokenizer.decode([*example.prompt[1:], *c[:-1]]) for c in example.candidates] == [
        "Q0: sorry 00",
        "Q0: no",
    ]


def test_long_conversations_lose_their_beginning_in_both() -> None:
    old = [*TALK, *said("a" * 50)]
    row = {"prompt": [*old, *TALK], "chosen": said("yes"), "rejected": said("n" * 30)}
    (example,) = MeZODataset([row]).encode(chat_tokenizer(), "causal", 70)
    assert "aaa" not in chat_tokenizer().decode(example.prompt)
    assert all(len(example.prompt) + len(c) <= 70 for c in example.candidates)
    (example,) = MeZODataset([{**row, "prompt": TALK}]).encode(chat_tokenizer(), "causal", 45)
    assert len(example.prompt) + len(example.candidates[1]) == 45


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (
            {"prompt": TALK, "chosen": said("a"), "rejected": TALK},
            "one conversation up to their last messages",
        ),
        (
            {"chosen": [*TALK, *said("a")], "rejected": [{"role": "user", "content": "x"}, *said("b")]},
            "one conversation up to their last messages",
        ),
        ({"chosen": " a", "rejected": " b"}, "expected a field 'prompt'"),
        ({"prompt": "p", "chosen": "", "rejected": " b"}, "expected some text in field 'chosen'"),
        ({"prompt": "p", "chosen": " a", "rejected": 3}, "expected text in field 'rejected'"),
        ({"prompt": "p" * 99, "chosen": said("a"), "rejected": said("b")}, "raise max_length"),
    ],
)
def test_a_broken_row_is_named(row: dict[str, Any], words: str) -> None:
    with pytest.raises(MezoError, match=words) as caught:
        MeZODataset([row]).encode(chat_tokenizer(), "causal", 60)
    assert str(caught.value).startswith("data[0]: ")


def test_equal_answers_are_left_out() -> None:
    with pytest.warns(MezoWarning, match="chosen and rejected are equal"):
        data = MeZODataset([*ROWS[:2], {"prompt": "p", "chosen": " x", "rejected": " x"}])
    assert len(data) == 2


# ---------------------------------------------------------------- runs


@pytest.mark.parametrize("name", [n for n, o in OBJECTIVES.items() if isinstance(o, PreferenceObjective)])
def test_a_step_is_the_objective_at_both_probes(model: Path, name: str) -> None:
    """The recorded slope is that of losses computed here, from log-probabilities of the probes and of the start."""
    run = trainer(preferring(model, objective=name, num_steps=1, batch_size=4, eval_every=0))
    batch = run.train_set.batch(0, 4, run.config.seed)
    objective: Any = run.objective
    posed = pose(batch)
    if objective.needs_reference:
        (at_start,) = run.engine.logprobs(posed)
        assert posed.candidate_reference is not None
        # log-probabilities of other batches, of a few hundred float32 roundings near 50
        assert candidate_sums(posed, at_start) == pytest.approx(posed.candidate_reference, abs=1e-3)
    draw = mezo.algorithm.draw_of(run.config.seed, 0, 1)
    probes = run.estimator.ask(draw, run.estimator_state)
    plus, minus = (objective(posed, run.engine.logprobs(posed, (probe,))[0]) for probe in probes)
    (slope,) = run.train().steps[0].projected_grads
    # losses near 1 of float32 log-probabilities, over 2e-3
    assert slope == pytest.approx((plus - minus) / 2e-3, abs=0.02)
    assert abs(slope) > 0.02


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_a_resumed_run_has_the_bytes_of_an_uninterrupted_one(
    model: Path, tmp_path: Path, tuning: str
) -> None:
    config = preferring(model, tuning=tuning, learning_rate=1e-2)
    trainer(config, output=tmp_path / "whole").train()
    trainer(config, output=tmp_path / "run", observer=Stopping()).train()
    trainer(None, resume=tmp_path / "run").train()
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert same_bytes(whole / "trajectory.mezo", run / "trajectory.mezo")
    assert same_bytes(whole / "reference.safetensors", run / "reference.safetensors")
    one, two = (read_metrics(folder / "metrics.jsonl") for folder in (whole, run))
    assert [(e.loss, e.metrics) for e in one.evals] == [(e.loss, e.metrics) for e in two.evals]
    assert one.evals[0].metrics["preference-accuracy"] == 0.5  # at the start all margins are 0
    assert one.evals[0].metrics["preference-margin"] == 0.0
    assert one.evals[-1].metrics["preference-margin"] != 0.0


def same_bytes(one: Path, two: Path) -> bool:
    return one.read_bytes() == two.read_bytes()


def test_what_is_kept_is_used_and_not_computed_again(model: Path, tmp_path: Path) -> None:
    trainer(preferring(model), output=tmp_path / "run", observer=Stopping()).train()
    path = tmp_path / "run" / "reference.safetensors"
    kept = references_of(tmp_path / "run")
    assert len(kept.table) == len(ROWS)
    moved = References({key: (a + 1, b) for key, (a, b) in kept.table.items()})
    path.write_bytes(moved.to_bytes())
    resumed = trainer(None, resume=tmp_path / "run")
    assert resumed.train_set[0].reference == moved.of(resumed.train_set[0]).reference
    path.write_bytes(b"something else")
    with pytest.raises(MezoError, match="expected log-probabilities of the start"):
        trainer(None, resume=tmp_path / "run")


def test_rows_that_no_step_draws_are_not_scored(model: Path) -> None:
    run = trainer(preferring(model, num_steps=1, batch_size=2, eval_every=0))
    drawn = run.train_set.batch_indices(0, 2, run.config.seed)
    scored = [n for n, example in enumerate(run.train_set) if example.reference]
    assert set(drawn) | {0, 1, 2} == set(scored)  # and the validation rows, which are among these


def test_a_replay_needs_no_reference(model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    trainer(preferring(model, learning_rate=1e-2), output=run, artifacts=True).train()
    (run / "reference.safetensors").unlink()
    assert same_files(run / "model", replay(run, output=tmp_path / "again"))


def test_an_adapter_is_judged_against_its_base(model: Path, tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS[:3]))
    config = preferring(model, tuning="lora", learning_rate=1e-1, data=str(data))
    result = trainer(config, output=tmp_path / "run", artifacts=True).train()
    found = api.evaluate(config, adapter=tmp_path / "run" / "adapter")
    last = result.evals[-1]
    # the same adapter through another engine: float32 roundings of sums near 50, times beta
    assert found["metrics"]["preference-margin"] == pytest.approx(last.metrics["preference-margin"], abs=1e-4)
    assert abs(last.metrics["preference-margin"]) > 1e-3
    alone = api.evaluate(config)
    assert list(alone["metrics"]) == ["accuracy"]
    with pytest.raises(MezoError, match="no log-probabilities of it"):
        api.evaluate(config.model_copy(update={"objective": "dpo"}))


def test_auto_is_dpo_and_other_objectives_work(model: Path, tmp_path: Path) -> None:
    assert trainer(preferring(model)).objective.name == "dpo"
    for name in ("answer-ce", "candidate-ce"):
        result = trainer(preferring(model, objective=name, num_steps=2), output=tmp_path / name).train()
        assert np.isfinite(result.steps[-1].loss)
        assert not (tmp_path / name / "reference.safetensors").exists()
    assert len(trajectory.read(tmp_path / "answer-ce" / "trajectory.mezo").records) == 2


def test_an_objective_of_pairs_on_rows_without_is_refused(model: Path) -> None:
    rows = [{"prompt": "a", "completion": " b"}] * 4
    with pytest.raises(MezoError, match="compares candidates, and task 'prompt-completion' has none"):
        MeZOTrainer(config_for(model, task="auto", objective="dpo"), train=MeZODataset(rows))
