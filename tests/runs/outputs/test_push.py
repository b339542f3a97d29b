"""`mezo push` against a hub in this process: what goes there, and what is never shown."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tests.outputs import finished
from tests.runs.outputs.fake_hub import FakeHub, running

import mezo
from mezo.cli import main
from mezo.errors import MezoError
from mezo.runs.outputs.finished import FinishedRun
from mezo.runs.outputs.merge import outcome_of
from mezo.util import plugins

TOKEN = "hf_thisIsNoRealTokenButLong"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished(tmp_path_factory.mktemp("push"), tuning="lora")


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with running(TOKEN) as found:
        yield found


def push(hub: FakeHub, *arguments: str | Path, token: str = TOKEN) -> subprocess.CompletedProcess[str]:
    """In a process of its own: huggingface_hub reads the environment when it is imported."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(mezo.__file__).parents[1]),
        "HF_ENDPOINT": hub.address,
        "HF_TOKEN": token,
        "HF_HUB_DISABLE_XET": "1",  # files over HTTP alone
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    environment.pop("HF_HUB_OFFLINE", None)
    done = subprocess.run(
        [sys.executable, "-m", "mezo.cli", "push", *map(str, arguments)],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert token not in done.stdout + done.stderr
    return done


def test_an_adapter_goes_there_with_its_card(run: Path, hub: FakeHub) -> None:
    done = push(hub, run, "me/tuned", "--private")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"uploaded  {hub.address}/me/tuned" in done.stdout
    found = hub.repositories["me/tuned"]
    assert found["visibility"] == "private"
    assert found["files"] == {p.name: p.read_bytes() for p in (run / "adapter").iterdir()}
    metadata = yaml.safe_load(found["files"]["README.md"].decode().split("---\n")[1])
    assert metadata["library_name"] == "peft"
    assert metadata["pipeline_tag"] == "text-generation"
    assert hub.unknown == []
    again = push(hub, run, "me/tuned")  # a repository that is there already
    assert again.returncode == 0, again.stderr


def test_nothing_private_goes_to_a_public_repository(run: Path, hub: FakeHub) -> None:
    hub.repositories["me/open"] = {"visibility": "public", "files": {}}
    done = push(hub, run, "me/open", "--private")
    assert done.returncode == 2
    assert done.stderr.startswith("mezo: error: me/open: is there already, and public")
    assert hub.repositories["me/open"]["files"] == {}


def test_the_files_of_a_run_have_no_code_trusted(tmp_path: Path) -> None:
    run = finished(tmp_path, tuning="full")
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("estimator: two-point", "estimator: evil.py:E"))
    assert "evil.py:E" in (run / "config.yaml").read_text()
    assert outcome_of(FinishedRun.open(run)).config.estimator == "evil.py:E"
    with pytest.raises(MezoError, match="Python code that a file names; it was not run"):
        plugins.load("estimator", "evil.py:E")


def test_a_token_that_is_none(run: Path, hub: FakeHub) -> None:
    done = push(hub, run, "me/tuned", token="hf_anotherOneThatIsWrong")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("mezo: error: me/tuned: the hub refuses: no valid token")
    assert "hf auth login" in line
    assert hub.repositories == {}


def test_a_dry_run_lists_what_would_go(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["push", str(run), "me/tuned", "--dry-run"]) == 0
    out = capsys.readouterr().out
    for path in (run / "adapter").iterdir():
        assert f"{path.stat().st_size:>14,}  {path.name}\n" in out
    assert "library_name: peft" in out
    assert "nothing was uploaded to me/tuned (--dry-run)" in out


def test_a_run_of_an_earlier_version_gets_a_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = finished(tmp_path, tuning="full")
    card = run / "model/README.md"
    text = card.read_text()
    card.unlink()
    assert main(["push", str(run), "me/tuned", "--dry-run"]) == 0
    assert f"{len(text.encode()):>14,}  README.md\n" in capsys.readouterr().out
    assert not card.exists()


@pytest.mark.parametrize("name", ["tuned", "me/", "me/a/b", "../x", "me/\x1b[31m"])
def test_a_name_that_is_none(run: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["push", str(run), name, "--dry-run"]) == 2
    assert "expected the repository's name as user/name, found" in capsys.readouterr().err


def test_a_card_without_metadata(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = finished(tmp_path, tuning="lora")
    (run / "adapter/README.md").write_text("# Mine\n")
    assert main(["push", str(run), "me/tuned", "--dry-run"]) == 2
    assert "expected a card that begins with metadata" in capsys.readouterr().err
