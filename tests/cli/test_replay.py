"""`mezo replay`: an interrupt leaves nothing."""

from pathlib import Path

import pytest
from tests.resumed import base, config_for, trainer

from mezo.cli import main
from mezo.resume.replay_steps import Folding


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("replay")
    trainer(config_for(base(folder / "base"), eval_every=0), output=folder / "run").train()
    return folder / "run"


def test_an_interrupted_replay_leaves_nothing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = Folding.take

    def interrupted(self: Folding, records: object, told: object = None) -> None:
        take(self, records[:5], told)  # type: ignore[index, arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(Folding, "take", interrupted)
    assert main(["replay", str(run), "--output", str(tmp_path / "again")]) == 130
    assert not (tmp_path / "again").exists()
