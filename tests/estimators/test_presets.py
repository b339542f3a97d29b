"""The presets of published runs on generated text: what they say, and two steps of each."""

from pathlib import Path
from typing import Any

import pytest
from tests.cli.test_options import parse
from tests.estimators.test_es import PROMPTS
from tests.estimators.test_runs import base
from tests.tiny_models import same_files

from mezo.config import MeZOConfig
from mezo.data import MeZODataset
from mezo.errors import MezoError
from mezo.resume.replay import replay
from mezo.training.trainer import MeZOTrainer

__all__ = ["base"]  # a fixture


def letters(row: dict[str, Any], output: str) -> float:
    return sum(output.count(c) for c in "aeiou") / 10


def test_what_they_say() -> None:
    scale, eggroll = MeZOConfig.preset("es-at-scale"), MeZOConfig.preset("eggroll")
    assert (2 * scale.num_directions, scale.epsilon, scale.learning_rate) == (30, 1e-3, 5e-4)
    assert (scale.scores, scale.batch_size, scale.num_steps) == ("z-score", 200, 500)
    assert scale.writing == eggroll.writing
    assert (scale.max_new_tokens, scale.temperature, scale.stop) == (512, 0.0, ())
    assert (2 * eggroll.num_directions, eggroll.epsilon, eggroll.learning_rate) == (1024, 1e-3, 2e-4)
    assert (eggroll.noise, eggroll.scores, eggroll.groups, eggroll.batch_size) == (
        "rank-one",
        "group",
        16,
        16,
    )
    assert scale.task == eggroll.task == "countdown"


@pytest.mark.parametrize("name", ["es-at-scale", "eggroll"])
def test_two_steps_on_a_tiny_model(base: Path, tmp_path: Path, name: str) -> None:
    """As the preset has it but for the prompts, of which there are 8, the outputs' length, and the precision."""
    changes: dict[str, Any] = dict(
        model=str(base),
        task="prompt-completion",
        objective=f"{__name__}:letters",
        num_steps=2,
        max_new_tokens=4,
        batch_size=8,
        dtype="float32",
        epsilon=0.02,
        learning_rate=0.01,
    )
    if name == "eggroll":
        changes |= {"groups": 8}
    config = MeZOConfig.preset(name, **changes)
    rows = [
        *PROMPTS,
        {"prompt": "say seven", "completion": " a"},
        {"prompt": "say eight", "completion": " a"},
    ]
    run = MeZOTrainer(
        config, train=MeZODataset(rows, task="prompt-completion"), output=tmp_path / "run"
    ).train()
    assert [len(step.projected_grads) for step in run.steps] == [config.num_directions] * 2
    assert any(any(step.projected_grads) for step in run.steps)
    written = replay(tmp_path / "run", output=tmp_path / "again")
    assert same_files(written, tmp_path / "run" / written.name)


def test_on_the_command_line(tmp_path: Path) -> None:
    config = parse(["--preset", "es-at-scale", "--steps", "2"])
    assert config == MeZOConfig.preset("es-at-scale", num_steps=2)
    with pytest.raises(MezoError, match="unknown preset 'egroll'; did you mean 'eggroll'"):
        parse(["--preset", "egroll"])
    file = tmp_path / "run.yaml"
    file.write_text(config.to_yaml())
    with pytest.raises(
        MezoError, match=r"--preset eggroll and the settings of .*run\.yaml exclude each other"
    ):
        parse(["--preset", "eggroll", "--config", str(file)])
