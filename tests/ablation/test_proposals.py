"""`mezo ablate --binder-model`: settings that a model proposes are shown and written, and not run."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.ablation.chat_server import said, serving

from mezo.ablation.binding.bind import bind
from mezo.ablation.binding.part import described, settable, table
from mezo.ablation.formats.files import read_plan
from mezo.cli import main
from mezo.config import MeZOConfig

pytest.importorskip("openai")

STUDIES = [
    {
        "name": "scale",
        "ablated_part": "Perturbation scale (epsilon)",
        "action": "REPLACE",
        "replacement": [0.01, "ten times larger", "the moon"],
    },
    {"name": "walk", "ablated_part": "the way it walks", "action": "REPLACE", "replacement": ["in blocks"]},
]


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(STUDIES))
    return path


def reply(*settings: Any) -> str:
    return json.dumps(
        {"proposals": [{"variant": n, "set": each} for n, each in enumerate(settings, start=1)]}
    )


def propose(plan: Path, url: str, *more: str) -> int:
    arguments = ["ablate", str(plan), "--device", "cpu", "--output", str(plan.parent / "out")]
    return main([*arguments, "--binder-model", "toy", "--base-url", url, *more])


def test_proposals_are_shown_and_written_and_nothing_is_run(
    plan: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    block = {"memory": "regenerate", "granularity": "block"}
    with serving(said("Here:\n" + reply({"epsilon": 0.01}, None, block))) as server:
        assert propose(plan, server.base_url) == 0
    out = capsys.readouterr().out
    assert "proposed  scale, ten times larger: {epsilon: 0.01}" in out
    assert "not bound  scale, the moon: no settings" in out
    assert "proposed  walk, in blocks: {memory: regenerate, granularity: block}" in out
    assert not (plan.parent / "out").exists()
    proposed = plan.with_name("plan.proposed.yaml")
    assert f"written   {proposed}" in out
    assert [study.set for study in read_plan(proposed).studies] == [[None, {"epsilon": 0.01}, None], [block]]
    found = bind(read_plan(proposed), MeZOConfig())
    assert [v.settings for v in found.variants] == [{"epsilon": 0.01}, {"epsilon": 0.01}, block]
    assert [item.text for item in found.unbound] == ["the moon"]
    system, user = server.requests[0]["body"]["messages"]
    assert table() in system["content"]
    assert [json.loads(line)["replacement"] for line in user["content"].splitlines()] == [
        "ten times larger",
        "the moon",
        "in blocks",
    ]


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"epsilom": 0.1}, "unknown setting 'epsilom'; did you mean 'epsilon'"),
        ({"epsilon": -1}, "input should be greater than 0"),
        ({"epsilon": "large"}, "input should be a valid number"),
        ({"num_directions": 1.5}, "valid integer"),
        ({"estimator": "three-point"}, "unknown estimator"),
        ({"model": "other"}, "a plan does not vary model"),
        ({"objective": "os:system"}, "a plan cannot have code run"),
        ({"trust_remote_code": True}, "a plan does not vary trust_remote_code"),
        ([0.1], "expected a mapping of settings"),
        ({}, "expected a mapping of settings"),
    ],
)
def test_invalid_proposals_are_shown_as_such_and_not_written(
    settings: Any, problem: str, plan: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(said(reply(settings, None, None))) as server:
        assert propose(plan, server.base_url) == 0
    out = capsys.readouterr().out
    assert "not bound  scale, ten times larger: " in out
    assert problem in out
    assert not plan.with_name("plan.proposed.yaml").exists()


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("I would rather not.", "not the JSON object asked for"),
        ('{"proposals": [{"variant": "x"}]}', "not the JSON object asked for"),
        ('{"proposals": [{"variant": 9, "set": null}]}', "names variant 9; there are 3"),
    ],
)
def test_an_answer_that_is_none_is_one_line(
    answer: str, told: str, plan: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(said(answer)) as server:
        assert propose(plan, server.base_url) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("mezo: error: ")
    assert told in error


def test_a_dry_run_writes_no_proposals_and_a_file_that_is_there_is_kept(
    plan: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    proposed = plan.with_name("plan.proposed.yaml")
    with serving(said(reply({"epsilon": 0.01}, None, None))) as server:
        assert propose(plan, server.base_url, "--dry-run") == 0
        assert not proposed.exists()
        proposed.write_text("mine")
        assert propose(plan, server.base_url) == 2
    assert "already there" in capsys.readouterr().err
    assert proposed.read_text() == "mine"
    assert len(server.requests) == 1


def test_nobody_is_asked_about_a_plan_that_is_bound(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps([{**STUDIES[0], "replacement": [0.01]}]))
    with serving(said("no")) as server:
        assert propose(plan, server.base_url, "--dry-run") == 0
    assert server.requests == []
    assert "epsilon: 0.01" in capsys.readouterr().out


def test_an_endpoint_without_a_binder_is_a_mistake(plan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ablate", str(plan), "--base-url", "http://localhost:1/v1"]) == 2
    assert "--base-url is the endpoint of --binder-model" in capsys.readouterr().err


def test_the_table_of_settings_is_the_configs() -> None:
    assert described("epsilon") == "a number, above 0, at most 1000"
    assert described("tuning") == "one of full, lora, prefix, head, norms"
    assert described("optimizer").startswith("one of ")
    assert described("num_directions") == "a whole number, at least 1, at most 32768"
    assert described("normalize_perturbations") == "true or false"
    assert described("label_words") == "a list of texts, or null"
    assert described("clip_quantile") == "a number, above 0, below 1, or null"
    assert {line.partition(":")[0] for line in table().splitlines()} == set(settable())
    assert not {"model", "task", "trust_remote_code", "server"} & set(settable())
