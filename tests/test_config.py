"""Settings: the paper's values, round trips, and mistakes in one line."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mezo.config import MeZOConfig
from mezo.errors import MezoError


@pytest.mark.parametrize(
    ("family", "tuning", "rate", "epsilon", "decay", "batch", "steps"),
    [
        ("roberta", "full", 1e-6, 1e-3, 0.0, 64, 100_000),
        ("roberta", "lora", 5e-5, 1e-3, 0.1, 64, 100_000),
        ("roberta", "prefix", 5e-3, 1e-1, 0.0, 64, 100_000),
        ("opt", "full", 1e-6, 1e-3, 0.0, 16, 20_000),
        ("opt", "lora", 1e-4, 1e-2, 0.0, 16, 20_000),
        ("opt", "prefix", 1e-2, 1e-1, 0.0, 16, 20_000),
    ],
)
def test_the_papers_values(
    family: Any, tuning: Any, rate: float, epsilon: float, decay: float, batch: int, steps: int
) -> None:
    config = MeZOConfig.paper(family, tuning)
    found = (config.learning_rate, config.epsilon, config.weight_decay, config.batch_size, config.num_steps)
    assert found == (rate, epsilon, decay, batch, steps)
    assert (config.lora_rank, config.lora_alpha, config.schedule) == (8, 16, "constant")
    assert MeZOConfig.paper(family, tuning, seed=7).seed == 7


def test_defaults_of_the_public_interface() -> None:
    config = MeZOConfig()
    assert (config.learning_rate, config.num_steps, config.epsilon, config.batch_size) == (
        1e-6,
        10_000,
        1e-3,
        64,
    )
    assert (config.max_length, config.normalize_perturbations, config.estimator) == (512, False, "two-point")


@given(
    st.builds(
        dict,
        learning_rate=st.floats(0, 1),
        epsilon=st.floats(1e-9, 1),
        seed=st.integers(0, 2**64 - 1),
        label_words=st.none() | st.lists(st.text(min_size=1), min_size=1, max_size=3).map(tuple),
        template=st.none() | st.text(),
        tuning=st.sampled_from(["full", "lora"]),
    )
)
def test_yaml_round_trip(tmp_path_factory: pytest.TempPathFactory, values: dict[str, Any]) -> None:
    config = MeZOConfig.build(**values)
    path = tmp_path_factory.getbasetemp() / "config.yaml"
    path.write_text(config.to_yaml(), encoding="utf-8")
    assert MeZOConfig.load(path) == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"learning_rat": 1}, "unknown setting 'learning_rat'; did you mean 'learning_rate'"),
        ({"epsilon": 0}, "epsilon=0: input should be greater than 0"),
        ({"tuning": "lorra"}, "unknown tuning mode 'lorra'; did you mean 'lora'"),
        ({"batch_size": "many"}, "batch_size='many'"),
        ({"train_examples": 5, "shots_per_class": 5}, "exclude each other"),
        ({"num_steps": 5, "warmup_steps": 5}, "leaves no step"),
    ],
)
def test_mistakes_are_one_line(values: dict[str, Any], message: str) -> None:
    with pytest.raises(MezoError) as caught:
        MeZOConfig.build(**values)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_presets() -> None:
    with pytest.raises(MezoError, match="the paper has no family 'obt'; did you mean 'opt'"):
        MeZOConfig.paper("obt", "full")  # type: ignore[arg-type]
    with pytest.raises(MezoError, match="the paper has no tuning mode 'lor'"):
        MeZOConfig.paper("opt", "lor")  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "\x00"])
def test_a_file_that_is_no_config(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(MezoError, match=r"c\.yaml: "):
        MeZOConfig.load(path)


@dataclass
class ServerArgs:
    """As SGLang's: a record of options with defaults."""

    model_path: str
    mem_fraction_static: float | None = None
    tp_size: int = 1
    lora_paths: list[str] = field(default_factory=list)
    log_level: str = "info"
    _resolved: bool = True


def test_an_engines_own_object_of_options_is_what_differs_from_its_defaults() -> None:
    given = ServerArgs("./my-model", mem_fraction_static=0.6, log_level="error")
    config = MeZOConfig.build(engine="sglang", tuning="lora", server_args=given)
    assert config.server_args == {"mem_fraction_static": 0.6, "log_level": "error"}
