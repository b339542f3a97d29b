"""A run from end to end on toy models: it learns, it is saved, it replays to the same bytes."""

import gzip
import json
import math
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.tiers import mostly_slow
from tests.tiny_models import same_files, tiny
from tests.toys import byte_tokenizer

import mezo
from mezo import noise
from mezo.algorithm import NonFiniteLoss
from mezo.config import MeZOConfig
from mezo.data import MeZODataset
from mezo.engines.counts import Counts
from mezo.errors import MezoError
from mezo.events import Observer, token_reuse
from mezo.resume.replay import replay
from mezo.runs import trajectory
from mezo.runs.folder import RunFolder
from mezo.runs.metrics_file import read_metrics
from mezo.training.trainer import MeZOTrainer, MezoWarning
from mezo.util import profiling

WORDS = (" great", " terrible")
ROWS = [
    {"sentence": s, "label": int(s.startswith("g"))}
    for s in ("gab", "hat", "gig", "hub", "get", "him", "god", "hen") * 4
]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A tiny Llama and its tokenizer as a folder, as a hub model would be."""
    folder = tmp_path / "base"
    tiny("llama").save_pretrained(folder)
    byte_tokenizer(words=WORDS).save_pretrained(folder)
    return folder


def config_for(base: Path, **changes: Any) -> MeZOConfig:
    values = dict(
        model=str(base),
        task="sst2",
        batch_size=4,
        num_steps=70,
        learning_rate=1e-3,
        epsilon=1e-3,
        eval_every=25,
        seed=2,
    )
    return MeZOConfig.build(**{**values, **changes})


def data() -> tuple[MeZODataset, MeZODataset]:
    return MeZODataset(ROWS, task="sst2"), MeZODataset(ROWS[:8], task="sst2", split="validation")


def run(config: MeZOConfig, output: Path | None = None, **options: Any) -> mezo.TrainResult:
    train, validation = data()
    return MeZOTrainer(config, train=train, validation=validation, output=output, **options).train()


@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("dtype", mostly_slow(["float32", "bfloat16", "float16"], lambda t: t == "bfloat16"))
def test_a_run_replays_to_the_same_bytes(base: Path, tmp_path: Path, tuning: str, dtype: str) -> None:
    config = config_for(
        base, tuning=tuning, dtype=dtype, num_directions=2, schedule="cosine", weight_decay=0.01
    )
    result = run(config, tmp_path / "run")
    written = replay(tmp_path / "run", output=tmp_path / "again")
    assert same_files(written, tmp_path / "run" / written.name)
    assert result.trajectory is not None
    assert len(trajectory.read(result.trajectory)) == 70


def test_what_a_run_leaves_behind(base: Path, tmp_path: Path) -> None:
    result = run(config_for(base, num_directions=2), tmp_path / "run")
    folder = RunFolder.open(tmp_path / "run")
    names = {p.name for p in folder.path.iterdir()}
    assert names == {
        "README.md",
        "config.yaml",
        "events.jsonl",
        "metrics.jsonl",
        "model",
        "plots",
        "summary.json",
        "trajectory.mezo",
    }
    assert MeZOConfig.load(folder.config) == result.config
    metrics = read_metrics(folder.metrics)
    assert metrics.steps == result.steps
    assert metrics.evals == result.evals
    assert [e.step for e in result.evals] == [0, 25, 50, 70]
    recorded = trajectory.read(folder.trajectory)
    assert np.array_equal(
        recorded.records, np.array([s.projected_grads for s in result.steps], dtype=np.float32)
    )


def test_it_learns_what_it_is_given(base: Path) -> None:
    # a byte model that must tell g... from h...: from chance to right on nearly all of 8 words
    result = run(config_for(base, num_steps=600, learning_rate=3e-3, num_directions=4, eval_every=0))
    first, last = result.evals
    assert last.loss < 0.5 * first.loss
    assert last.accuracy is not None
    assert last.accuracy >= 7 / 8


def test_two_runs_are_one(base: Path) -> None:
    config = config_for(base, num_steps=5)
    assert run(config).losses == run(config).losses
    assert run(config).losses != run(config_for(base, num_steps=5, seed=3)).losses


def test_normalized_directions_match_plain_ones_at_the_right_scale(base: Path) -> None:
    """Unit directions with epsilon * sqrt(d) and lr * d walk as plain ones do, nearly: ||z||^2 is d to 1%."""
    plain = run(config_for(base, num_steps=5, eval_every=0))
    d = tiny("llama").num_parameters()
    normal = run(
        config_for(
            base,
            num_steps=5,
            eval_every=0,
            normalize_perturbations=True,
            epsilon=1e-3 * d**0.5,
            learning_rate=1e-3 * d,
        )
    )
    assert np.allclose(plain.losses, normal.losses, rtol=1e-3)
    ratios = [
        a.projected_grads[0] / b.projected_grads[0] for a, b in zip(plain.steps, normal.steps, strict=True)
    ]
    assert np.allclose(ratios, d, rtol=0.05)  # what is recorded is the slope per ||z||^2 of plain z


def test_compilations_are_announced_to_the_run_and_to_nobody_after_it(base: Path, tmp_path: Path) -> None:
    heard: list[str] = []

    class Hearing(Observer):
        def on_note(self, text: str) -> None:
            heard.append(text)

        def on_step(self, record: Any) -> None:
            noise.announce("compiling")
            if record.step == 3:
                raise MezoError("enough")

        def on_replay(self, done: int, steps: int) -> None:
            noise.announce("compiling again")

    before = noise.announce
    with pytest.raises(MezoError, match="enough"):
        run(config_for(base), tmp_path / "run", observer=Hearing())
    assert noise.announce is before
    with pytest.raises(MezoError, match="no module of this 'llama' model is named nope"):
        run(config_for(base, tuning="lora", lora_targets=("nope",)))
    assert noise.announce is before
    replay(tmp_path / "run", output=tmp_path / "again", observer=Hearing())
    assert noise.announce is before
    assert heard.count("compiling") == 4
    assert "compiling again" in heard


@pytest.mark.parametrize("where", ["between steps", "inside an update"])
def test_interrupt_saves_everything(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    class Impatient(Observer):
        def on_step(self, record: Any) -> None:
            if record.step == 9 and where == "between steps":
                signal.raise_signal(signal.SIGINT)

    train, validation = data()
    trainer = MeZOTrainer(
        config_for(base), train=train, validation=validation, output=tmp_path / "run", observer=Impatient()
    )
    apply = trainer.engine.apply

    def interrupted(update: Any) -> None:
        if update.step == 9 and where == "inside an update":
            signal.raise_signal(signal.SIGINT)
        apply(update)

    monkeypatch.setattr(trainer.engine, "apply", interrupted)
    result = trainer.train()
    assert result.interrupted
    assert len(result.steps) == 10
    written = replay(tmp_path / "run", output=tmp_path / "again")
    assert same_files(written, tmp_path / "run" / "model")


def test_a_loss_that_is_not_finite_stops_with_the_last_good_weights(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, validation = data()
    trainer = MeZOTrainer(config_for(base), train=train, validation=validation, output=tmp_path / "run")
    whole = trainer.engine.losses
    counted = iter(range(100))
    monkeypatch.setattr(
        trainer.engine,
        "losses",
        lambda batch, probes: [math.nan, 1.0] if next(counted) == 12 else whole(batch, probes),
    )
    with pytest.raises(
        NonFiniteLoss,
        match=r"step 12: the loss is not finite \(losses nan, 1\).*batch: training examples \d+, \d+, \d+, \d+,",
    ):
        trainer.train()
    assert len(trajectory.read(RunFolder.open(tmp_path / "run").trajectory)) == 12
    written = replay(tmp_path / "run", output=tmp_path / "again")
    assert same_files(written, tmp_path / "run" / "model")


def test_batches_made_ahead_are_those_of_a_plain_loop(base: Path) -> None:
    train, validation = data()
    config = config_for(base, num_steps=12, batch_size=5)  # epochs of 32 end inside a batch
    trainer = MeZOTrainer(config, train=train, validation=validation)
    plain = [trainer.train_set.batch(step, 5, config.seed) for step in range(12)]
    prepare, prepared = trainer.engine.prepare, []
    trainer.engine.prepare = lambda batch: (prepared.append(list(batch)), prepare(batch))[1]
    trainer.train()
    assert prepared == plain
    assert not [t for t in threading.enumerate() if t.name.startswith("mezo-ahead")]


def test_a_batch_that_cannot_be_prepared_ends_the_run_at_its_step(base: Path, tmp_path: Path) -> None:
    train, validation = data()
    trainer = MeZOTrainer(config_for(base), train=train, validation=validation, output=tmp_path / "run")
    prepare, asked = trainer.engine.prepare, iter(range(100))

    def failing(batch: Any) -> Any:
        if next(asked) == 7:
            raise MezoError("no batch")
        return prepare(batch)

    trainer.engine.prepare = failing
    with pytest.raises(MezoError, match="no batch"):
        trainer.train()
    assert len(trajectory.read(RunFolder.open(tmp_path / "run").trajectory)) == 7
    written = replay(tmp_path / "run", output=tmp_path / "again")
    assert same_files(written, tmp_path / "run" / "model")


def test_a_profile_changes_nothing_and_accounts_for_all(base: Path, tmp_path: Path) -> None:
    config = config_for(base, num_steps=8, eval_every=3)
    result = run(config, tmp_path / "run", profile=True)
    assert result.losses == run(config).losses
    assert read_metrics(RunFolder(tmp_path / "run").metrics).steps == result.steps
    assert len(result.profile) == 8
    assert {"data", "update", "logging", "other"} <= set(result.profile[-1]) <= set(profiling.NAMES)
    # the record is made inside the step, after its clock is read: what came before is all accounted for
    first = result.steps[0]
    assert first.profile is not None
    assert sum(first.profile.values()) >= first.seconds
    assert sum(sum(p.values()) for p in result.profile) <= result.seconds
    report = json.loads((tmp_path / "run" / "profile.json").read_text())
    assert list(report["spans"]) == list(profiling.NAMES)
    assert (report["steps"], report["warm_up_steps_left_out"], report["device"]) == (6, 2, "cpu")
    assert sum(s["share"] for s in report["spans"].values()) == pytest.approx(
        1, abs=7 * 5e-5
    )  # 4 digits each


def test_without_a_profile_nothing_of_it_is_kept(base: Path, tmp_path: Path) -> None:
    result = run(config_for(base, num_steps=3), tmp_path / "run")
    assert result.profile == []
    assert "profile" not in (tmp_path / "run" / "metrics.jsonl").read_text()
    assert not (tmp_path / "run" / "profile.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("num_steps", "traced"), [(6, 2), (3, 1), (2, 0)])
def test_a_trace_is_of_some_steps_after_the_first_two(
    base: Path, tmp_path: Path, num_steps: int, traced: int
) -> None:
    notes: list[str] = []

    class Hearing(Observer):
        def on_note(self, text: str) -> None:
            notes.append(text)

    result = run(
        config_for(base, num_steps=num_steps, eval_every=0),
        tmp_path / "run",
        trace_steps=2,
        observer=Hearing(),
    )
    assert result.profile == []
    path = tmp_path / "run" / "trace.json.gz"
    assert path.exists() == bool(traced)
    assert any("no trace" in note for note in notes) == (not traced)
    if traced:
        events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
        updates = [e for e in events if e.get("name") == "update" and e.get("cat") == "user_annotation"]
        assert len(updates) == traced
        assert any(e.get("cat") == "cpu_op" for e in events)
    assert [p.name for p in path.parent.iterdir() if p.name.startswith(".")] == []


def test_an_interrupt_keeps_the_profile_and_the_trace(base: Path, tmp_path: Path) -> None:
    class Impatient(Observer):
        def on_step(self, record: Any) -> None:
            if record.step == 5:
                signal.raise_signal(signal.SIGINT)

    result = run(config_for(base), tmp_path / "run", observer=Impatient(), profile=True, trace_steps=50)
    assert result.interrupted
    assert len(result.profile) == 6
    assert json.loads((tmp_path / "run" / "profile.json").read_text())["steps"] == 4
    assert "traceEvents" in json.loads(gzip.decompress((tmp_path / "run" / "trace.json.gz").read_bytes()))
    assert not [t for t in threading.enumerate() if t.name.startswith("mezo-ahead")]


def test_a_trace_needs_a_place(base: Path, tmp_path: Path) -> None:
    with pytest.raises(MezoError, match=r"trace_steps=2: expected .* and an output= folder"):
        run(config_for(base), trace_steps=2)
    with pytest.raises(MezoError, match="trace_steps=-1: expected a number of steps"):
        run(config_for(base), tmp_path / "run", trace_steps=-1)


def test_counts_are_of_the_step(base: Path) -> None:
    """Evaluations go through the engine, too: what they take is no step's."""
    train, validation = data()
    trainer = MeZOTrainer(config_for(base, num_steps=6, eval_every=2), train=train, validation=validation)
    counted: list[Counts] = []
    losses = trainer.engine.losses

    def watched(batch: Any, probes: Any) -> list[float]:
        before = replace(trainer.engine.counts)
        found = losses(batch, probes)
        counted.append(trainer.engine.counts.since(before))
        return found

    trainer.engine.losses = watched
    result = trainer.train()
    spent = [Counts(s.tokens_asked, s.tokens, s.tokens_reused, s.seconds_saved) for s in result.steps]
    assert spent == counted
    assert all(s.tokens > 0 for s in result.steps)
    asked, reused = sum(s.asked for s in spent), sum(s.reused for s in spent)
    assert result.metrics["token_reuse_rate"] == token_reuse(asked, reused)
    assert token_reuse(0, 0) == 0.0
    assert token_reuse(4, 3) == 0.75


def test_the_adapter_scores_equally_in_peft(base: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    config = config_for(base, tuning="lora", learning_rate=1e-2, num_directions=4)
    result = run(config, tmp_path / "run")
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    served = PeftModel.from_pretrained(model, tmp_path / "run" / "adapter").eval()
    ids = torch.tensor([[1, 100, 101, 102, 30, 31]])
    with torch.no_grad():
        ours, theirs = result.model(input_ids=ids).logits, served(input_ids=ids).logits
        base_logits = served.get_base_model()(input_ids=ids).logits
        with served.disable_adapter():
            untuned = served(input_ids=ids).logits
    assert torch.equal(ours, theirs)
    assert torch.equal(base_logits, theirs)
    assert not torch.equal(ours, untuned)


def test_a_wrong_base_is_refused(base: Path, tmp_path: Path) -> None:
    run(config_for(base, num_steps=3), tmp_path / "run")
    other = tmp_path / "other"
    model = tiny("llama")
    model.lm_head.weight.data[0, 0] += 1
    model.save_pretrained(other)
    byte_tokenizer(words=WORDS).save_pretrained(other)
    with pytest.raises(MezoError, match="is not the base model of this run"):
        replay(tmp_path / "run", model=str(other), output=tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_mistakes_are_told_before_anything_is_written(base: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(MezoError, match="did you mean 'accuracy'"):
        run(config_for(base, objective="acuracy"), out)
    with pytest.raises(MezoError, match="no module of this 'llama' model is named nope"):
        run(config_for(base, tuning="lora", lora_targets=("nope",)), out)
    with pytest.raises(MezoError, match="compares candidates, and task 'prompt-completion' has none"):
        MeZOTrainer(
            config_for(base, objective="accuracy"),
            train=MeZODataset([{"prompt": "a", "completion": " b"}], task="prompt-completion"),
            output=out,
        )
    assert not out.exists()


def test_finetune_on_prompts_and_completions(base: Path) -> None:
    rows = [{"prompt": "say ab", "completion": "ba"}, {"prompt": "say cd", "completion": "dc"}]
    with pytest.warns(MezoWarning, match="will hardly move a LoRA adapter.* the paper uses 5e-05"):
        result = mezo.mezo_finetune(str(base), rows, num_steps=3, batch_size=2)
    assert result.config.tuning == "lora"
    assert len(result.losses) == 3
    full = mezo.mezo_finetune(str(base), rows, lora_rank=0, num_steps=300, batch_size=2, learning_rate=1e-3)
    assert full.losses[-1] < full.losses[0]
    assert full.config.tuning == "full"


def test_finetune_names_its_mistakes(base: Path) -> None:
    rows = [{"prompt": "a", "completion": "b"}]
    with pytest.raises(
        MezoError, match=r"no argument 'learning_rat'; did you mean 'learning_rate'|no argument"
    ):
        mezo.mezo_finetune(str(base), rows, learning_rat=1.0)
    with pytest.raises(MezoError, match=r"server_args.* is for serving engines"):
        mezo.mezo_finetune(str(base), rows, learning_rate=1e-3, server_args={"a": 1})


def test_objective_accuracy_moves_only_when_predictions_change(base: Path) -> None:
    result = run(config_for(base, objective="accuracy", num_steps=20, epsilon=1e-6, eval_every=0))
    assert result.metrics["zero_gradient_fraction"] == 1.0
    moved = run(config_for(base, objective="accuracy", num_steps=20, epsilon=0.1, eval_every=0))
    share = moved.metrics["zero_gradient_fraction"]
    assert share is not None
    assert share < 1.0
