"""Samples of a run by rewards: what is kept, shown and escaped, without and with a resumed run."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from tests.resumed import base

from mezo.config import MeZOConfig
from mezo.data import MeZODataset
from mezo.errors import MezoError
from mezo.events import Observer, StopTraining
from mezo.runs.folder import RunFolder
from mezo.runs.samples import Sample, page, write_samples
from mezo.tasks import RowOptions, task_for
from mezo.training.trainer import MeZOTrainer

ROWS = [{"prompt": f"{n}:", "completion": " a"} for n in range(6)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return base(tmp_path_factory.mktemp("base"))


class Listening(Observer):
    def __init__(self, stop: int = 100) -> None:
        self.notes: list[str] = []
        self.stop = stop

    def on_note(self, text: str) -> None:
        self.notes.append(text)

    def on_step(self, record: Any) -> None:
        if record.step + 1 == self.stop:
            raise StopTraining


def run(
    model: Path | None, folder: Path, *, validation: bool = False, stop: int = 100, **changes: Any
) -> list[str]:
    values = dict(
        model=str(model),
        objective="length(most=20)",
        num_steps=4,
        batch_size=2,
        eval_every=2,
        max_new_tokens=6,
    )
    config = (
        None
        if model is None
        else MeZOConfig.build(**{**values, "epsilon": 0.1, "learning_rate": 1e-3, **changes})
    )
    data: dict[str, Any] = {"train": MeZODataset(ROWS)}
    if validation:
        data["validation"] = MeZODataset(ROWS[4:], split="validation")
    where: dict[str, Any] = {"resume": folder} if model is None else {"output": folder}
    observer = Listening(stop)
    MeZOTrainer(config, observer=observer, artifacts=False, **data, **where).train()
    return observer.notes


def test_prompts_alone_are_written_after_and_judged(model: Path, tmp_path: Path) -> None:
    """What is reported as the loss, where there is no answer to have one, is the objective's."""
    config = MeZOConfig.build(
        model=str(model),
        objective="length(most=20)",
        max_new_tokens=6,
        prefill="ab",
        num_steps=2,
        batch_size=2,
        epsilon=0.1,
        learning_rate=1e-3,
    )
    task = task_for("auto", reading=RowOptions(prefill="ab"))
    rows = [{"prompt": f"{n}:"} for n in range(4)]
    data: dict[str, Any] = {
        "train": MeZODataset(rows, task=task),
        "validation": MeZODataset(rows, task=task),
    }
    result = MeZOTrainer(config, output=tmp_path / "run", artifacts=False, **data).train()
    for record in result.evals:
        assert record.loss == -record.metrics["reward:length"]
    for entry in lines(tmp_path / "run"):
        assert entry["expected"] == []
        assert entry["output"].startswith("ab")
    assert (tmp_path / "run" / "samples.html").is_file()


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("validation", [False, True])
def test_the_same_prompts_at_every_evaluation(model: Path, tmp_path: Path, validation: bool) -> None:
    notes = run(model, tmp_path / "run", validation=validation, show_samples=2)
    found = lines(tmp_path / "run")
    assert [entry["step"] for entry in found] == [0, 0, 2, 2, 4, 4]
    prompts = [entry["prompt"] for entry in found]
    assert prompts[:2] == prompts[2:4] == prompts[4:]
    assert ("4:" in prompts[0]) == validation
    for entry in found:
        text = entry["output"]
        assert entry["reward"] == max(0.0, 1 - max(0, len(text) - 20) / 20)
        assert entry["expected"] == ["a"]
    said = [note for note in notes if note.startswith("step ")]
    assert len(said) == 6
    assert said[0].startswith(f"step 0, reward {found[0]['reward']:.4g}: ")
    text = (tmp_path / "run" / "samples.html").read_text()
    assert text.index("Step 4") < text.index("Step 2") < text.index("Step 0")


def test_a_resumed_run_has_the_samples_of_an_uninterrupted_one(model: Path, tmp_path: Path) -> None:
    run(model, tmp_path / "whole")
    run(model, tmp_path / "run", stop=3)
    assert [entry["step"] for entry in lines(tmp_path / "run")][-1] == 2
    run(None, tmp_path / "run")
    for name in ("samples.jsonl", "samples.html"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_none_where_none_are_wanted_or_nothing_is_written(model: Path, tmp_path: Path) -> None:
    run(model, tmp_path / "none", show_samples=0)
    run(model, tmp_path / "other", objective="answer-ce")
    assert not list(tmp_path.glob("*/samples.*"))


def test_a_reward_that_breaks_names_the_sample(model: Path, tmp_path: Path) -> None:
    with pytest.raises(MezoError, match=r"reward countdown, example {'prompt': '0:'"):
        run(model, tmp_path / "run", objective="countdown")


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


EVIL = "<script>alert(1)</script><img src=x onerror=alert(1)>'\"&amp;</td></table>\u202e\x1b[31m"


def test_no_text_becomes_markup(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    sample = Sample(1, EVIL, [EVIL], EVIL, 0.5)
    write_samples(RunFolder(tmp_path / "run"), [sample])
    found = Tags()
    found.feed((tmp_path / "run" / "samples.html").read_text())
    ours = Tags()
    ours.feed(page([]) + "<h2><table><tr><td><th>")
    assert found.tags <= ours.tags
    assert found.text.count("<script>alert(1)</script>") == 3
    assert "\x1b" not in found.text
    assert "\u202e" not in found.text


def test_later_samples_and_strange_lines_give_way(tmp_path: Path) -> None:
    run_folder = RunFolder(tmp_path)
    for step in (0, 5, 10):
        write_samples(run_folder, [Sample(step, "p", [], str(step), 1.0)])
    with run_folder.samples.open("a") as file:
        file.write('{"step": "x"}\n[1]\n{"step')
    write_samples(run_folder, [Sample(5, "p", [], "again", 1.0)])
    assert [(e["step"], e["output"]) for e in lines(tmp_path)] == [(0, "0"), (5, "again")]
