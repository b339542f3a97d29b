"""The rewards of this package: values by hand, bounds on what an output may do, settings, and sums."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from mezo.config import MeZOConfig
from mezo.errors import MezoError
from mezo.objectives import Reward, objective_named
from mezo.objectives.rewards import REWARDS
from mezo.scoring import Example
from mezo.util.weighted_names import weighted


def scored(name: str, output: str, *references: str, **fields: Any) -> float:
    objective = objective_named(name)
    assert isinstance(objective, Reward)
    (found,) = objective.each([Example((1,), ((2,),), 0, references=references, fields=fields)], [output])
    return found


@pytest.mark.parametrize(
    ("output", "answer", "expected"),
    [
        ("6 * 7 = 42", "42", 1),
        ("#### 42", "So 7 * 6.\n#### 42", 1),
        ("42.0", "42", 1),
        ("1,234,567 dollars", "1234567", 1),
        ("-3", "-3", 1),
        ("it is 5-3", "-3", 1),  # as a reader of the last number sees it
        ("42 or 43", "42", 0),
        ("none", "42", 0),
        ("", "42", 0),
        (".5", "0.5", 1),
        ("9" * 15_000, "9", 0),
        ("7" * 40 + ".", "7" * 40, 1),
    ],
)
def test_last_number(output: str, answer: str, expected: float) -> None:
    assert scored("last-number", output, answer) == expected


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("(20 + 5) * 3", 1.0),
        ("First I add.\n(20 + 5) * 3 = 75", 1.0),
        ("<think>20 * 5</think><answer>3 × (5 + 20)</answer> done", 1.0),
        ("20 * 5 / 3", 0.1),  # of the numbers, another value
        ("20 * 5", 0.0),  # one is left
        ("(20 + 5) * 3 + 3 - 3", 0.0),  # used twice
        ("75", 0.0),
        ("20 / (5 - 5) * 3", 0.0),
        ("3 / (5 - 5)", 0.0),
        ("20 ** 5 ** 3", 0.0),
        ("9**9**9**9", 0.0),
        ("__import__('os').system('touch /tmp/never')", 0.0),
        ("(lambda: 75)()", 0.0),
        ("[20, 5, 3]", 0.0),
        ("True + 75", 0.0),
        ("20.0 + 5 * 3", 0.0),
        ("(" * 300 + "20" + ")" * 300, 0.0),
        ("(" * 90 + "20" + ")" * 90, 0.0),
        ("", 0.0),
        ("\x00", 0.0),
        ("20 +", 0.0),
    ],
)
def test_countdown(output: str, expected: float) -> None:
    assert scored("countdown(partial=0.1)", output, numbers=[3, 5, 20], target=75) == expected
    assert not Path("/tmp/never").exists()


def test_countdown_counts_exactly() -> None:
    """In floating point this is not 3."""
    assert scored("countdown", "49 / 49 * 3", numbers=[49, 49, 3], target=3) == 1.0
    assert scored("countdown", "1 / 3 * 3 + 2", numbers=[1, 3, 3, 2], target=3) == 1.0
    assert scored("countdown(use_all=False)", "5 * 3", numbers=[3, 5, 20], target=15) == 1.0


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"numbers": [1, 2]},
        {"numbers": [], "target": 1},
        {"numbers": ["1"], "target": 1},
        {"numbers": [True], "target": 1},
    ],
)
def test_countdown_without_its_numbers_is_an_error(fields: dict[str, Any]) -> None:
    with pytest.raises(MezoError, match=r"reward countdown, example .*expected fields numbers"):
        scored("countdown", "1", **fields)


@pytest.mark.parametrize(
    ("name", "output", "expected"),
    [
        ("exact", " Paris\n", 1),
        ("exact", "paris", 0),
        ("exact(ignore_case=True)", "PARIS", 1),
        ("contains", "I say paris.", 1),
        ("contains(ignore_case=False)", "I say paris.", 0),
        ("contains(text='say')", "I say rome.", 1),
        ("regex(pattern=r'^\\w+$')", "Paris", 1),
        ("regex(pattern='ari')", "Paris", 1),
        ("regex(pattern='ari', whole=True)", "Paris", 0),
        ("length(least=4, most=10)", "Pa", 0.5),
        ("length(least=4, most=10)", "Paris", 1),
        ("length(least=4, most=10)", "P" * 15, 0.5),
        ("length(most=10)", "P" * 99, 0),
        ("length(most=2, words=True)", "a b c", 0.5),
        ("json", '{"a": 1}', 1),
        ("json", 'Here:\n```json\n{"a": 1}\n```', 1),
        ("json", "3", 0),  # JSON, and neither an object nor a list
        ("json(partial=0.25)", "3", 0.25),
        ("json", '{"a": NaN}', 0),
        ("json", "[" * 5000 + "]" * 5000, 0),
        ("json", "[" * 15_000, 0),
        ("json", "{'a': 1}", 0),
    ],
)
def test_values(name: str, output: str, expected: float) -> None:
    assert scored(name, output, "Paris") == expected


def test_json_by_a_schema(tmp_path: Path) -> None:
    pytest.importorskip("jsonschema")
    schema = {"type": "object", "properties": {"team": {"enum": ["web", "billing"]}}, "required": ["team"]}
    path = tmp_path / "form.json"
    path.write_text(json.dumps(schema))
    for given in (str(path), json.dumps(schema)):
        name = f"json(schema={given!r}, partial=0.1)"
        assert scored(name, '{"team": "web"}') == 1.0
        assert scored(name, '{"team": "cat"}') == 0.1
        assert scored(name, "web") == 0.0


@pytest.mark.parametrize("schema", ['{"type": 3}', "{", "nowhere.json"])
def test_what_is_no_schema_is_refused(schema: str) -> None:
    pytest.importorskip("jsonschema")
    with pytest.raises(MezoError, match="expected a JSON schema"):
        objective_named(f"json(schema={schema!r})")


def test_a_schema_fetches_nothing() -> None:
    pytest.importorskip("jsonschema")
    schema = json.dumps({"$ref": "http://localhost:1/other.json"})
    with pytest.raises(MezoError, match="write it into the schema"):
        scored(f"json(schema={schema!r})", "{}")


def test_a_pattern_without_end_is_an_error_and_no_hang() -> None:
    began = time.monotonic()
    with pytest.raises(MezoError, match=r"took longer than 0\.2 s on"):
        scored("regex(pattern=r'^(a|aa)+$', seconds=0.2)", "a" * 5000 + "b")
    assert time.monotonic() - began < 60


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("regex", "expected a pattern"),
        ("regex(pattern='(')", "is no pattern"),
        ("regex(pattern='a', seconds=0)", "expected seconds"),
        ("contains(text=' ')", "expected text to be some text"),
        ("length(most=0)", "expected whole numbers 0 <= least <= most"),
        ("length(least=5, most=4)", "expected whole numbers"),
        ("length(mast=4)", "has no setting 'mast'.*most"),
        ("lenght", "unknown objective 'lenght'.*length"),
        ("judge", "expected judge"),
        (
            "judge(model='m', base_url='http://here/v1', prompt='How good?')",
            "expected {output} in the prompt",
        ),
        ("judge(model='m', base_url='http://here/v1', timeout=0)", "expected timeout to be a number above 0"),
    ],
)
def test_settings_are_checked(name: str, said: str) -> None:
    with pytest.raises(MezoError, match=said):
        objective_named(name)


@pytest.mark.parametrize("name", ["last-number", "exact", "contains"])
def test_rewards_of_answers_need_answers(name: str) -> None:
    with pytest.raises(MezoError, match=rf"reward {name}, example .*this row has none"):
        scored(name, "42", id=1)


def test_every_reward_takes_any_output() -> None:
    settings = {"regex": "(pattern='a')", "judge": None}
    for name in REWARDS:
        if (given := settings.get(name, "")) is None:
            continue
        for output in ("", "\ud800", "\x00\n", "a" * 100_000, "９", "ß"):
            assert 0.0 <= scored(name + given, output, "4", numbers=[1, 2], target=3) <= 1.0


# ---------------------------------------------------------------- sums


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("0.5*json+0.5*length(most=80)", [(0.5, "json"), (0.5, "length(most=80)")]),
        (" 1 * regex(pattern='a+b)') + -.25*exact ", [(1, "regex(pattern='a+b)')"), (-0.25, "exact")]),
        ("2*my_rewards:polite", [(2, "my_rewards:polite")]),
        (r"1*regex(pattern='\'+(') + 1*f1", [(1, r"regex(pattern='\'+(')"), (1, "f1")]),
        ("exact", []),
        ("c++/r.py:f", []),
    ],
)
def test_sums_are_read(name: str, expected: list[tuple[float, str]]) -> None:
    assert weighted(name) == expected


def test_a_sum_is_the_sum() -> None:
    name = "0.5*exact + 0.25*length(most=10) + 2*f1"
    assert scored(name, "Paris", "Paris") == 0.5 + 0.25 + 2
    assert scored(name, "P" * 15, "Paris") == 0.125
    objective = objective_named(name)
    assert isinstance(objective, Reward)
    assert (
        objective([Example((1,), ((2,),), 0, references=("Paris",))] * 2, ["Paris", "x"])
        == -(2.75 + 0.25) / 2
    )


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("0.5*exact + length", "expected WEIGHT\\*NAME"),
        ("0.5*exact + 0.5*", "expected WEIGHT\\*NAME"),
        ("0.5*exact + 0.5*dpo", "'dpo' is not of what is written"),
        ("0.5*exact + 0.5*nothing", "unknown objective 'nothing'"),
    ],
)
def test_what_is_no_sum_is_refused(name: str, said: str) -> None:
    with pytest.raises(MezoError, match=said):
        objective_named(name)


def test_a_file_cannot_bring_code_or_a_judge_in_a_sum(tmp_path: Path) -> None:
    """Each term counts, wherever it stands."""
    path = tmp_path / "config.yaml"
    for name, why in (
        ("0.5*exact + 0.5*os:getcwd", "imports Python code"),
        ("0.5*exact + 0.5*judge(model='m', base_url='http://h/v1')", "reaches other machines"),
        ("judge(model='m', base_url='http://h/v1')", "reaches other machines"),
    ):
        path.write_text(f"objective: {json.dumps(name)}\n")
        with pytest.raises(MezoError, match=f"{why}, which a file cannot ask for"):
            MeZOConfig.load(path)
        assert MeZOConfig.load(path, objective=name).objective == name
    path.write_text("objective: 0.5*exact + 0.5*length\n")
    assert MeZOConfig.load(path).objective == "0.5*exact + 0.5*length"
