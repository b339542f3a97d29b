"""`start=linear-probe`: the rows that a run starts from are fitted, held, saved, replayed and resumed."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from peft import PeftModel
from tests.parallel.ranks import in_threads, train
from tests.shared import shared
from tests.tiny_models import same_files, tiny
from tests.toys import byte_tokenizer
from typer.testing import CliRunner

import mezo
from mezo import api
from mezo.build.setup import encode, load_model
from mezo.cli import app
from mezo.config import MeZOConfig
from mezo.data.from_config import task_of, training_set
from mezo.engines.transformers.engine import TransformersEngine
from mezo.errors import MezoError
from mezo.events import Observer
from mezo.objectives import OBJECTIVES
from mezo.resume.publishing import publish
from mezo.resume.replay import replay
from mezo.resume.verify import verify
from mezo.runs import trajectory
from mezo.runs.folder import RunFolder
from mezo.runs.outputs.merge import merge
from mezo.runs.outputs.tuned import open_tuned
from mezo.training.head_start import head_start
from mezo.training.prepare import Given, prepare_run
from mezo.training.trainer import MeZOTrainer, TrainResult
from mezo.tuning.peft_warnings import quiet_peft

WORDS = (" great", " terrible")


def base(folder: Path, name: str, words: Sequence[str] = WORDS) -> Path:
    tiny(name).save_pretrained(folder)
    byte_tokenizer(words=tuple(words)).save_pretrained(folder)
    return folder


def reviews(folder: Path, count: int = 120) -> Path:
    """Words that begin with g are great."""
    folder.mkdir()
    letters = np.random.default_rng(0).integers(97, 123, (count, 3))
    for split, rows in (("train", letters[: count // 2]), ("validation", letters[count // 2 :])):
        lines = [
            {"sentence": "gh"[n % 2] + "".join(map(chr, row)), "label": 1 - n % 2}
            for n, row in enumerate(rows)
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return reviews(tmp_path / "reviews")


def config_for(model: Path, data: Path, tuning: str, **changes: Any) -> MeZOConfig:
    fixed = dict(model=str(model), task="sst2", data=str(data), tuning=tuning, start="linear-probe", seed=2)
    budget = dict(batch_size=8, num_steps=3, learning_rate=1e-5, epsilon=1e-3)
    return MeZOConfig.build(**{**fixed, **budget, **changes})


def run(config: MeZOConfig, output: Path | None = None, **given: Any) -> TrainResult:
    return MeZOTrainer(config, output=output, **given).train()


@pytest.mark.parametrize("name", ["llama", "llama-tied", "gpt2", "bert", "roberta"])
@pytest.mark.parametrize("tuning", ["full", "lora", "head"])
def test_a_run_starts_lower_and_its_files_give_its_logits(
    tuning: str, name: str, data: Path, tmp_path: Path
) -> None:
    model = base(tmp_path / "base", name)
    before = api.evaluate(config_for(model, data, tuning, start="model"))
    config = config_for(model, data, tuning)
    result = run(config, tmp_path / "run")
    assert result.start is not None
    assert result.start["examples"] == 60
    assert result.metrics["start_forward_passes"] == -(-result.start["rows_scored"] // 8) >= 8
    assert result.evals[0].loss < 0.9 * before["loss"], "on sentences that the rows were not fitted to"
    assert result.start["loss"][1] < result.start["loss"][0]
    # replayed to the same bytes, and checked
    written = replay(tmp_path / "run", output=tmp_path / "again")
    assert same_files(written, tmp_path / "run" / written.name)
    assert any("start" in line for line in verify(tmp_path / "run", weights=True))
    # what others load has the run's logits
    loaded = others(written, model, name)
    ids = torch.tensor([[5, 6, 7, 261, 9]])
    with torch.no_grad():
        expected = result.model(input_ids=ids).logits
        for each in loaded:
            assert torch.equal(each(input_ids=ids).logits, expected)
    again = (
        api.evaluate(config, adapter=written)
        if tuning == "lora"
        else api.evaluate(config.model_copy(update={"model": str(written)}))
    )
    assert again["loss"] == pytest.approx(result.evals[-1].loss, rel=1e-5)


def others(written: Path, model: Path, name: str) -> list[Any]:
    """The weights by transformers, and by peft."""
    auto = (
        transformers.AutoModelForMaskedLM
        if name in ("bert", "roberta")
        else transformers.AutoModelForCausalLM
    )
    if written.name == "model":
        return [auto.from_pretrained(written).eval()]
    with quiet_peft():
        by_peft = PeftModel.from_pretrained(auto.from_pretrained(model), str(written)).eval()
        by_transformers = auto.from_pretrained(model)
        by_transformers.load_adapter(str(written))
    return [by_peft, by_transformers.eval()]


@pytest.mark.parametrize("tuning", ["full", "head"])
def test_the_step_moves_the_rows_on_from_the_fit(tuning: str, data: Path, tmp_path: Path) -> None:
    """The rows of the label words are the base's, the change, and the step's."""
    model = base(tmp_path / "base", "llama")
    results = [
        run(config_for(model, data, tuning, learning_rate=0.0, start=s)) for s in ("model", "linear-probe")
    ]
    plain, started = (r.model.get_output_embeddings().weight.detach() for r in results)
    words = [byte_tokenizer(words=WORDS).encode(w, add_special_tokens=False)[0] for w in WORDS]
    changed = (plain != started).any(1).nonzero().flatten().tolist()
    assert changed == sorted(words)


def test_a_tied_head_is_written_in_full_tuning_and_untied_in_the_others(data: Path, tmp_path: Path) -> None:
    model = base(tmp_path / "base", "llama-tied")
    full = run(config_for(model, data, "full", num_steps=1)).model
    assert full.get_output_embeddings().weight is full.get_input_embeddings().weight
    before = tiny("llama-tied").get_input_embeddings().weight
    for tuning in ("head", "lora"):
        made = run(config_for(model, data, tuning, num_steps=1)).model
        assert torch.equal(made.get_input_embeddings().weight, before)


@pytest.mark.parametrize("name", ["llama-tied", "llama"])
def test_an_adapter_is_merged_and_writes_as_merged(name: str, data: Path, tmp_path: Path) -> None:
    model = base(tmp_path / "base", name)
    result = run(config_for(model, data, "lora"), tmp_path / "run")
    merged = merge(tmp_path / "run")
    made = transformers.AutoModelForCausalLM.from_pretrained(merged).eval()
    ids = torch.tensor([[5, 6, 7, 261, 9]])  # 261 begins " great": as an input it means what it did
    with torch.no_grad():
        expected = result.model(input_ids=ids).logits
        # one matrix in place of two products: float32 sums in another order, of logits of order 10
        torch.testing.assert_close(made(input_ids=ids).logits, expected, rtol=0, atol=1e-4)
        opened = open_tuned(str(tmp_path / "run"))
        assert torch.equal(opened.model(input_ids=ids).logits, expected)
        with opened.base() as plain:
            assert torch.equal(plain(input_ids=ids).logits, tiny(name)(input_ids=ids).logits)


def test_the_engine_runs_the_head_with_rows_in_blocks(data: Path, tmp_path: Path) -> None:
    model = base(tmp_path / "base", "llama-tied")
    engine = MeZOTrainer(config_for(model, data, "lora")).engine
    assert isinstance(engine, TransformersEngine)
    assert (engine.form.packed, engine.form.plain, engine.form.stacked) == (True, False, True)


def test_an_adapter_with_rows_is_tuned_on_without_moving_them(data: Path, tmp_path: Path) -> None:
    model = base(tmp_path / "base", "llama")
    first = run(config_for(model, data, "lora"), tmp_path / "run").model
    config = config_for(tmp_path / "run" / "adapter", data, "lora", start="model", learning_rate=1e-2)
    trainer = MeZOTrainer(config)
    assert isinstance(trainer.engine, TransformersEngine)
    assert trainer.engine.form.stacked
    second = trainer.train().model
    for factor in ("lora_A", "lora_B"):
        a, b = (getattr(m.get_output_embeddings(), factor).default.weight for m in (first, second))
        assert torch.equal(a, b)
    assert any(
        not torch.equal(p, q)
        for (_, p), (_, q) in zip(first.named_parameters(), second.named_parameters(), strict=True)
    )


# ---------------------------------------------------------------- the file of the rows


def test_a_run_is_resumed_and_forked_from_its_rows(data: Path, tmp_path: Path) -> None:
    model = base(tmp_path / "base", "llama")
    whole = run(config_for(model, data, "lora", num_steps=6), tmp_path / "whole")
    run(config_for(model, data, "lora", num_steps=3), tmp_path / "cut")
    rows = (tmp_path / "cut" / "start.safetensors").read_bytes()
    notes: list[str] = []
    listening = Observer()
    listening.on_note = notes.append  # type: ignore[method-assign]
    longer = config_for(model, data, "lora", num_steps=6)
    resumed = MeZOTrainer(longer, resume=tmp_path / "cut", observer=listening).train()
    assert not any("head start" in note for note in notes), "the rows are not fitted again"
    assert resumed.start == whole.start
    assert same_files(tmp_path / "whole" / "adapter", tmp_path / "cut" / "adapter")
    assert (tmp_path / "cut" / "start.safetensors").read_bytes() == rows
    forked = config_for(model, data, "lora", num_steps=8, learning_rate=1e-4)
    MeZOTrainer(forked, resume=tmp_path / "cut", fork=tmp_path / "fork").train()
    shutil.rmtree(tmp_path / "cut")
    written = replay(tmp_path / "fork", output=tmp_path / "again")
    assert same_files(written, tmp_path / "fork" / "adapter")


def test_a_run_that_ended_before_its_first_step_fits_its_rows_when_it_is_resumed(
    data: Path, tmp_path: Path
) -> None:
    config = config_for(base(tmp_path / "base", "llama"), data, "full")
    whole = run(config, tmp_path / "whole")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(whole.config.to_yaml())
    MeZOTrainer(resume=tmp_path / "run").train()
    assert same_files(tmp_path / "whole" / "model", tmp_path / "run" / "model")
    assert (tmp_path / "run" / "start.safetensors").exists()


def test_missing_and_changed_rows_are_refused(data: Path, tmp_path: Path) -> None:
    config = config_for(base(tmp_path / "base", "llama"), data, "full")
    run(config, tmp_path / "run")
    rows = RunFolder(tmp_path / "run").start
    sound = rows.read_bytes()
    longer = config.model_copy(update={"num_steps": 9})
    for data_now, said in ((None, "copy the file of the RUN"), (sound[:-4] + b"\0\0\0\1", "was changed")):
        rows.unlink(missing_ok=True)
        if data_now is not None:
            rows.write_bytes(data_now)
        for act in (
            lambda: replay(tmp_path / "run", output=tmp_path / "again"),
            lambda: MeZOTrainer(longer, resume=tmp_path / "run"),
            lambda: verify(tmp_path / "run"),
        ):
            with pytest.raises(MezoError, match=said) as error:
                act()
            assert "\n" not in str(error.value)
    rows.write_bytes(sound)
    replay(tmp_path / "run", output=tmp_path / "again")


def test_a_published_trajectory_carries_the_rows(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = base(tmp_path / "base", "llama")
    result = run(config_for(model, data, "lora"), tmp_path / "run")
    file = publish(tmp_path / "run", tmp_path / "elsewhere" / "shared.mezo", base=str(model))
    loaded, _ = mezo.load_finetuned(file)
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        assert torch.equal(loaded(input_ids=ids).logits, result.model(input_ids=ids).logits)
    monkeypatch.setattr("mezo.resume.start_file._MOST_CARRIED", 100)
    with pytest.raises(MezoError, match="a trajectory carries at most 100"):
        publish(tmp_path / "run", tmp_path / "elsewhere" / "other.mezo", base=str(model))


def test_every_rank_gets_the_rows_of_the_first(data: Path, tmp_path: Path) -> None:
    config = config_for(base(tmp_path / "base", "llama"), data, "full")
    task = task_of(config)
    made = []

    def rank(group: Any) -> Any:
        notes: list[str] = []
        loaded = load_model(config, lambda said: None)
        asked = encode(training_set(config, task), loaded, config), OBJECTIVES["candidate-ce"]
        found = head_start(config, loaded, asked, group, resume=None, note=notes.append)
        made.append((group.rank, len(notes)))
        return found

    one, two = in_threads(2, rank)
    assert one.record == two.record
    assert one.rows.to_bytes() == two.rows.to_bytes()
    assert dict(made)[1] == 0, "only the first fits them"


# ---------------------------------------------------------------- what is refused, and what is of no use


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (dict(tuning="prefix"), "part of what is saved"),
        (dict(engine="sglang", tuning="lora"), "does not show what its head reads"),
        (dict(tensor_parallel=2), "only a part of the head"),
        (dict(objective="answer-ce"), "objective is 'answer-ce'"),
        (dict(objective="length(most=9)"), "objective is 'length'"),
        (dict(task="copa"), "candidates of its own"),
        (dict(task="squad"), "objective is 'answer-ce'"),
        (dict(label_words=(" great", " grim")), "begin with the same one"),
    ],
)
def test_refusals_are_one_line(changes: dict[str, Any], said: str, data: Path, tmp_path: Path) -> None:
    model = base(tmp_path / "base", "llama", words=())
    if changes.get("task") in ("copa", "squad"):
        rows = {
            "copa": {
                "premise": "It rained.",
                "choice1": "wet",
                "choice2": "dry",
                "question": "effect",
                "label": 0,
            },
            "squad": {
                "title": "rain",
                "context": "It rained.",
                "question": "What?",
                "answers": {"text": ["rain"]},
            },
        }[changes["task"]]
        file = tmp_path / "rows.jsonl"
        other = rows | ({"choice1": "mud", "label": 1} if "choice1" in rows else {})
        file.write_text(json.dumps(rows) + "\n" + json.dumps(other) + "\n")
        changes, data = {"task": changes["task"]}, file
    with pytest.raises(MezoError, match=said) as error:
        MeZOTrainer(config_for(model, data, **{"tuning": "full", **changes}))
    assert "\n" not in str(error.value)


def test_a_model_with_an_adapter_and_logits_that_are_capped_are_refused(data: Path, tmp_path: Path) -> None:
    model = base(tmp_path / "base", "llama")
    run(config_for(model, data, "lora", start="model", num_steps=1), tmp_path / "run")
    with pytest.raises(MezoError, match="has its own adapter"):
        MeZOTrainer(config_for(tmp_path / "run" / "adapter", data, "lora"))
    capped = base(tmp_path / "capped", "gemma2-softcap")
    with pytest.raises(MezoError, match="a soft cap, a scale"):
        MeZOTrainer(config_for(capped, data, "full"))


def test_label_words_of_several_tokens_are_fitted_by_their_first(data: Path, tmp_path: Path) -> None:
    """Without a token of its own each label word is as many tokens as it has bytes; and a space is all that both begin with."""
    model = base(tmp_path / "base", "llama", words=(" g", " t"))
    before = api.evaluate(config_for(model, data, "lora", start="model"))
    for tuning in ("full", "lora"):
        result = run(config_for(model, data, tuning))
        assert result.start is not None
        assert result.start["rows_scored"] >= 2 * 60
        assert result.evals[0].loss < before["loss"]


def test_rows_that_do_not_lower_the_loss_are_left_out(tmp_path: Path) -> None:
    """One sentence, half of the time great: whoever learns from some of its rows is wrong about the others."""
    folder = tmp_path / "data"
    folder.mkdir()
    rows = [{"sentence": "so so", "label": n % 2} for n in range(40)]
    (folder / "train.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    model = base(tmp_path / "base", "llama")
    even: Any = transformers.AutoModelForCausalLM.from_pretrained(model)
    words = [byte_tokenizer(words=WORDS).encode(w, add_special_tokens=False)[0] for w in WORDS]
    with torch.no_grad():  # a base that finds both words equally likely
        even.get_output_embeddings().weight[words] = 0
    even.save_pretrained(model)
    notes: list[str] = []
    listening = Observer()
    listening.on_note = notes.append  # type: ignore[method-assign]
    started = run(config_for(model, folder, "full"), tmp_path / "run", observer=listening)
    assert any("no head start" in note for note in notes)
    assert started.start is not None
    assert started.start["rows"] is None
    plain = run(config_for(model, folder, "full", start="model"))
    assert started.losses == plain.losses
    assert not RunFolder(tmp_path / "run").start.exists()
    written = replay(tmp_path / "run", output=tmp_path / "again")
    assert same_files(written, tmp_path / "run" / "model")


def test_the_default_leaves_a_run_as_it_was(data: Path, tmp_path: Path) -> None:
    model = base(tmp_path / "base", "llama")
    config = config_for(model, data, "lora", start="model")
    setup = prepare_run(config, Given(), None, mezo.parallel.group.ProcessGroup(), note=lambda said: None)
    assert "start" not in setup.run.header
    assert setup.run.rows is None
    result = run(config, tmp_path / "run")
    assert result.start is None
    assert result.metrics["start_forward_passes"] == 0
    assert "start" not in trajectory.read(RunFolder(tmp_path / "run").trajectory).header
    assert not RunFolder(tmp_path / "run").start.exists()


def test_the_command_says_what_the_start_took(data: Path, tmp_path: Path) -> None:
    model = base(tmp_path / "base", "llama")
    flags = [
        "--tuning",
        "lora",
        "--start",
        "linear-probe",
        "--start-examples",
        "40",
        "--steps",
        "2",
        "--batch",
        "8",
    ]
    where = ["--model", str(model), "--task", "sst2", "--data", str(data), "--output", str(tmp_path / "run")]
    done = CliRunner().invoke(app, ["train", *where, *flags])
    assert done.exit_code == 0, done.output
    assert "head start: 2 rows of label words fitted to 40 examples" in done.output.replace("\n", " ")
    assert "forward passes on 40 examples" in done.output


def test_auto_fits_the_rows_where_that_can_be_done(data: Path, tmp_path: Path) -> None:
    model = base(tmp_path / "base", "llama")
    asked = run(config_for(model, data, "lora"), tmp_path / "asked")
    found = run(config_for(model, data, "lora", start="auto"), tmp_path / "found")
    assert found.start == asked.start
    assert found.start is not None
    assert same_files(tmp_path / "found" / "adapter", tmp_path / "asked" / "adapter")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tuning": "prefix", "learning_rate": 1e-2}, "part of what is saved"),
        ({"objective": "answer-ce"}, "'answer-ce'"),
    ],
)
def test_auto_says_why_a_run_starts_from_the_model(
    changes: dict[str, Any], said: str, data: Path, tmp_path: Path
) -> None:
    config = config_for(base(tmp_path / "base", "llama"), data, **{"tuning": "full", **changes}, start="auto")
    notes: list[str] = []
    listening = Observer()
    listening.on_note = notes.append  # type: ignore[method-assign]
    result = run(config, tmp_path / "run", observer=listening)
    assert any(note.startswith("no head start: ") and said in note for note in notes)
    assert result.start is None
    longer = MeZOTrainer(config.model_copy(update={"num_steps": 5}), resume=tmp_path / "run").train()
    assert longer.start is None
    assert len(longer.steps) == 5


@pytest.mark.slow
def test_a_real_model_starts_far_below_its_base() -> None:
    """SmolLM2 on SST-2, on sentences that the rows were not fitted to."""
    config = MeZOConfig.build(
        model="smollm2-135m",
        task="sst2",
        data=str(shared("tasks/sst2")),
        template="Review: {sentence}\\nSentiment:",
        label_words=("Negative", "Positive"),
        tuning="lora",
        start="linear-probe",
        train_examples=400,
        eval_examples=100,
        num_steps=1,
        batch_size=8,
        learning_rate=1e-4,
        epsilon=1e-2,
    )
    try:
        before = api.evaluate(config.model_copy(update={"start": "model"}))
        result = run(config)
    except MezoError as error:
        pytest.skip(f"no SmolLM2 here: {error}")
    assert result.evals[0].loss < 0.8 * before["loss"]


@pytest.mark.slow
def test_two_processes_start_from_the_same_rows_and_are_one(data: Path, tmp_path: Path) -> None:
    model = base(tmp_path / "base", "llama")
    flags = ["--model", str(model), "--task", "sst2", "--data", str(data), "--tuning", "lora", "--seed", "2"]
    flags += ["--start-from", "linear-probe", "--steps", "4", "--batch", "8", "--gradient-accumulation", "2"]
    for processes, name in ((1, "one"), (2, "two")):
        done = train(processes, *flags, "--output", str(tmp_path / name))
        assert done.returncode == 0, done.stdout + done.stderr
    assert same_files(tmp_path / "one" / "adapter", tmp_path / "two" / "adapter")
    assert (tmp_path / "one" / "start.safetensors").read_bytes() == (
        tmp_path / "two" / "start.safetensors"
    ).read_bytes()
    assert "lm_head" in (tmp_path / "two" / "adapter" / "adapter_config.json").read_text()
