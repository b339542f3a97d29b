"""Objectives that read what a model wrote: by name, by hand, and the mistakes in rewards."""

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mezo.errors import MezoError
from mezo.objectives import OBJECTIVES, OutputObjective, objective_named, reported, reward_of
from mezo.scoring import Example
from mezo.util import plugins


def example(*references: str, **fields: Any) -> Example:
    return Example((9,), ((1,),), 0, references=references, fields=fields)


def outputs_objective(name: str, *metrics: str) -> OutputObjective:
    objective = objective_named(name, metrics)
    assert isinstance(objective, OutputObjective)
    assert not objective.needs_candidates
    assert objective.name == name
    return objective


@pytest.mark.parametrize(
    ("name", "metrics", "expected"),
    [
        ("f1", (), -(2 / 3 + 0) / 2),
        ("f1", ("squad-f1", "squad-em"), -(2 / 3 + 0) / 2),
        ("f1", ("drop-f1", "drop-em"), -(0.67 + 0) / 2),
        ("rouge", (), -(2 / 3 + 0) / 2),
        ("rouge:rougeL", (), -(2 / 3 + 0) / 2),
        ("rouge:rouge1", (), -(2 / 3 + 2 / 3) / 2),
        ("rouge:rouge2", (), 0.0),
    ],
)
def test_values_by_hand(name: str, metrics: tuple[str, ...], expected: float) -> None:
    """One of two words is right; then, two of four words in the wrong order and with a wrong number."""
    if "rouge1" in name:
        examples, outputs = [example("red"), example("b c x y")], ["red cat", "c b"]
    else:
        examples, outputs = [example("red"), example("7 dogs")], ["red cat", "8 cats"]
    # a mean of two quotients
    assert outputs_objective(name, *metrics)(examples, outputs) == pytest.approx(expected, rel=1e-14)


def test_where_the_values_are_reported() -> None:
    names = {name: outputs_objective(name).metric for name in ("f1", "rouge", "rouge:rouge1")}
    assert names == {"f1": "squad-f1", "rouge": "rougeL", "rouge:rouge1": "rouge1"}
    assert outputs_objective("f1", "drop-f1").metric == "drop-f1"


def test_the_loss_reported_in_their_place() -> None:
    assert reported(objective_named("accuracy")).name == "candidate-ce"
    assert reported(objective_named("f1")).name == "answer-ce"
    for name in ("answer-ce", "candidate-ce"):
        assert reported(OBJECTIVES[name]) is OBJECTIVES[name]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "acuracy",
            r"unknown objective 'acuracy'; did you mean 'accuracy'\?.*or a reward function, module:func",
        ),
        ("rouge:rouge3", r"unknown objective 'rouge:rouge3'; did you mean 'rouge:rouge"),
        ("rewards:", "unknown objective 'rewards:'"),
        (":reward", "unknown objective ':reward'"),
    ],
)
def test_unknown_names(name: str, message: str) -> None:
    with pytest.raises(MezoError, match=message):
        objective_named(name)


# ---------------------------------------------------------------- rewards


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of rewards in the working directory."""
    (tmp_path / "my_rewards.py").write_text(
        "def length(example, output):\n"
        "    return -abs(len(output) - example['wanted'])\n"
        "def matches(example, output):\n"
        "    return output in example['references']\n"
        "def broken(example, output):\n"
        "    return 1 / (len(output) - 3)\n"
        "constant = 3\n"
    )
    (tmp_path / "my_broken_rewards.py").write_text("import no_such_module_anywhere\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_rewards", raising=False)
    monkeypatch.setattr(plugins, "is_allowed", lambda name: True)
    return "my_rewards"


def test_a_reward_reads_the_fields_of_a_row(module: str) -> None:
    objective = outputs_objective(f"{module}:length")
    assert objective.metric == "my_rewards:length"
    assert objective([example(wanted=4), example(wanted=2)], ["four", "three"]) == (0 + 3) / 2


def test_a_reward_reads_the_references_and_may_be_a_truth_value(module: str) -> None:
    examples = [example("dog", "a dog"), example("cat"), example()]
    assert outputs_objective(f"{module}:matches")(examples, ["a dog", "cow", ""]) == -1 / 3


def test_importing_leaves_the_path_as_it_was(module: str) -> None:
    before = list(sys.path)
    objective_named(f"{module}:length")
    assert sys.path == before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "my_reward:length",
            "objective 'my_reward:length': cannot import 'my_reward' from .*ModuleNotFoundErr",
        ),
        ("my_broken_rewards:length", "cannot import .*No module named 'no_such_module_anywhere'"),
        ("my_rewards:lenght", r"my_rewards has no 'lenght'; did you mean 'length'\?"),
        ("my_rewards:constant", "expected a mezo.objectives.base.Objective, or a function, found 3"),
    ],
)
def test_rewards_that_cannot_be_had(module: str, name: str, message: str) -> None:
    with pytest.raises(MezoError, match=message) as caught:
        objective_named(name)
    assert "\n" not in str(caught.value)


def test_an_error_in_a_reward_names_it_and_its_example(module: str) -> None:
    objective = outputs_objective(f"{module}:broken")
    with pytest.raises(MezoError) as caught:
        objective([example("ok", id="q-1"), example("dog", id="q-2")], ["hi", "cat"])
    assert str(caught.value) == (
        "reward my_rewards:broken, example {'id': 'q-2', 'references': ['dog']}, output 'cat': "
        "raised ZeroDivisionError: division by zero"
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, None, "1.0", np.array([1.0])])
def test_a_reward_is_a_finite_number(value: object) -> None:
    objective = reward_of(lambda example, output: value, "mine")
    with pytest.raises(MezoError, match=r"reward mine, example .*: expected a finite number, found"):
        objective([example()], ["text"])


@pytest.mark.parametrize("value", [np.float32(0.5), np.float64(0.5), 0.5])
def test_numbers_of_any_kind_will_do(value: Any) -> None:
    assert reward_of(lambda example, output: value, "mine")([example()], ["text"]) == -0.5


def test_a_long_example_is_shown_in_part() -> None:
    objective = reward_of(lambda example, output: None, "mine")  # type: ignore[arg-type]
    with pytest.raises(MezoError) as caught:
        objective([example(passage="one\ntwo " * 500)], ["text\n" * 500])
    assert len(str(caught.value)) < 600
    assert "\n" not in str(caught.value)


def test_a_reward_cannot_change_the_example() -> None:
    def spoil(example: dict[str, Any], output: str) -> float:
        example["references"].clear()
        example.clear()
        return 1.0

    one = example("dog", id=1)
    reward_of(spoil, "spoil")([one], ["x"])
    assert (one.references, one.fields) == (("dog",), {"id": 1})
