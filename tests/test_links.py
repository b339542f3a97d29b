"""A RUN may come from someone else: links, pipes and devices in it are not followed, and nothing outside is touched."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.resumed import base, config_for, resume, trainer

from mezo.cli import main
from mezo.errors import MezoError
from mezo.run import RunFolder

NAMES = (
    "trajectory.mezo",
    "trajectory.mezo.journal",
    "metrics.jsonl",
    "events.jsonl",
    "snapshots",
    "plots",
    "logs",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("links")
    trainer(config_for(base(folder / "base"), num_steps=4), output=folder / "run").train()
    return folder / "run"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder of somebody's, with a name in it that a run takes for its own half-written files."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / ".profile.old").write_text("mine")
    (folder / "step-00000001.safetensors").write_text("mine")
    return folder


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


@pytest.mark.parametrize("name", NAMES)
def test_a_link_in_a_run_is_refused_and_what_it_names_stays(
    run: Path, outside: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    copy, before = shutil.copytree(run, tmp_path / "run"), contents(outside)
    RunFolder(copy).snapshots.mkdir(exist_ok=True)
    link = copy / name
    if link.is_dir():
        shutil.rmtree(link)
    link.unlink(missing_ok=True)
    link.symlink_to(outside if name in ("snapshots", "plots", "logs") else outside / ".profile.old")
    for command in (["train", "--resume"], ["replay", "--output", str(tmp_path / "again")], ["plot"]):
        assert main([*command, str(copy)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"{link}: expected a file or folder of the run's own, found a link" in line
    assert contents(outside) == before
    RunFolder.create(copy, overwrite=True)
    assert not link.is_symlink()
    assert contents(outside) == before


@pytest.mark.parametrize(
    ("what", "make"),
    [
        ("a pipe or a device", os.mkfifo),
        ("a link", lambda path: os.symlink("/dev/zero", path)),
        ("a link", lambda path: os.symlink(path, path)),
    ],
    ids=["pipe", "device", "itself"],
)
@pytest.mark.parametrize("name", ["trajectory.mezo", "snapshots/step-00000002.safetensors"])
def test_what_may_never_end_is_not_read(
    run: Path, tmp_path: Path, name: str, what: str, make: Callable[[Path], None]
) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    RunFolder(copy).snapshots.mkdir(exist_ok=True)
    (copy / name).unlink(missing_ok=True)
    make(copy / name)
    with pytest.raises(MezoError, match=f"{name}: expected a file or folder of the run's own, found {what}"):
        resume(copy)


def test_a_lock_that_is_a_link_is_not_written_through(run: Path, outside: Path, tmp_path: Path) -> None:
    copy, before = shutil.copytree(run, tmp_path / "run"), contents(outside)
    (copy / ".lock").symlink_to(outside / ".profile.old")
    with pytest.raises(MezoError, match="cannot lock the run: Too many levels of symbolic links"):
        resume(copy)
    assert contents(outside) == before


def test_a_run_itself_may_be_a_link(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "elsewhere")
    (tmp_path / "run").symlink_to(copy)
    assert RunFolder.open(tmp_path / "run").trajectory.read_bytes() == (run / "trajectory.mezo").read_bytes()
