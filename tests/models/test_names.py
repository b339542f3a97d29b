"""What a model is called where others read it."""

from pathlib import Path

import pytest

from mezo.models.names import hub_id, is_embedded, public_name
from mezo.models.smollm2 import HUB_ID, cache_folder


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("smollm2-135m", HUB_ID),
        ("facebook/opt-125m", "facebook/opt-125m"),
        ("/cache/hub/models--facebook--opt-125m/snapshots/0a1b2c", "facebook/opt-125m"),
        ("/cache/hub/models--a-b--c.d/snapshots/0a1b2c/", "a-b/c.d"),
        ("./my-model", None),
        ("/models/mine", None),
        ("gpt2", None),
    ],
)
def test_hub_ids(model: str, name: str | None) -> None:
    assert hub_id(model) == name
    assert public_name(model) == (name or model)


def test_the_folder_of_the_embedded_model_is_that_model() -> None:
    assert is_embedded(str(cache_folder() / "models" / "smollm2-135m"))


def test_a_folder_wins_over_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "facebook/opt-125m").mkdir(parents=True)
    (tmp_path / "smollm2-135m").mkdir()
    monkeypatch.chdir(tmp_path)
    assert hub_id("facebook/opt-125m") is None
    assert hub_id("smollm2-135m") is None
