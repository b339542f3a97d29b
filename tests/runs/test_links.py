"""A RUN may come from someone else: links, pipes and devices in it are not followed, and nothing outside is touched."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.resumed import base, config_for, resume, trainer

from mezo.cli import main
from mezo.errors import MezoError
from mezo.resume.replay import replay
from mezo.runs import trajectory
from mezo.runs.folder import RunFolder

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
@pytest.mark.parametrize(
    "name", ["trajectory.mezo", "snapshots/step-00000002.safetensors", "logs/ids.json", "model"]
)
def test_what_may_never_end_is_not_read(
    run: Path, tmp_path: Path, name: str, what: str, make: Callable[[Path], None]
) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    for folder in (RunFolder(copy).snapshots, RunFolder(copy).logs):
        folder.mkdir(exist_ok=True)
    (copy / name).unlink(missing_ok=True)
    make(copy / name)
    with pytest.raises(MezoError, match=f"{name}: expected a file or folder of the run's own, found {what}"):
        resume(copy)


def test_a_half_written_model_that_is_a_link_is_not_written_through(
    run: Path, outside: Path, tmp_path: Path
) -> None:
    before = contents(outside)
    for folder in ("overwritten", "resumed"):
        copy = shutil.copytree(run, tmp_path / folder)
        (copy / ".model.writing").symlink_to(outside)
        if folder == "overwritten":
            trainer(config_for(run.parent / "base", num_steps=1), output=copy, overwrite=True).train()
        else:
            resume(copy)
        assert not (copy / ".model.writing").is_symlink()
    again = tmp_path / "again"
    again.mkdir()
    (again / ".model.writing").symlink_to(outside)
    replay(run, output=again)
    assert not (again / "model").is_symlink()
    assert contents(outside) == before


def test_what_a_death_has_left_goes_and_what_a_person_has_left_stays(run: Path, tmp_path: Path) -> None:
    copy = RunFolder(shutil.copytree(run, tmp_path / "run"))
    copy.snapshots.mkdir()
    kept = [copy.path / ".config.yaml.swp", copy.path / ".tmpA1b2C3", copy.snapshots / ".keep.me"]
    # the last one is safetensors' own: it writes beside the name that it is given
    left = [copy.path / ".config.yaml.ab_45678", copy.snapshots / ".step-1.safetensors.12345678"]
    left.append(copy.snapshots / ".tmpA1b2C3")
    for path in (*kept, *left):
        path.write_text("")
    copy.clean()
    assert [path.exists() for path in (*kept, *left)] == [True] * len(kept) + [False] * len(left)


def test_a_pipe_for_a_journal_beside_a_file_is_not_read(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = Path(shutil.copy(run / "trajectory.mezo", tmp_path / "published.mezo"))
    os.mkfifo(journal := trajectory.journal_of(file))
    assert main(["trajectory", "show", str(file)]) == 2
    assert f"{journal}: expected a file, found a pipe; remove it" in capsys.readouterr().err


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "folder"])
def test_a_lock_that_is_no_file_holds_nobody_up(
    run: Path, tmp_path: Path, make: Callable[[Path], None]
) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    make(copy / ".lock")
    if make is os.mkdir:
        with pytest.raises(MezoError, match=r"\.lock: cannot lock the run: Is a directory"):
            resume(copy)
    else:
        resume(copy)
        assert not (copy / ".lock").exists()


def test_a_lock_that_is_a_link_is_not_written_through(run: Path, outside: Path, tmp_path: Path) -> None:
    copy, before = shutil.copytree(run, tmp_path / "run"), contents(outside)
    (copy / ".lock").symlink_to(outside / ".profile.old")
    with pytest.raises(MezoError, match="cannot lock the run: it is a link; remove it"):
        resume(copy)
    assert contents(outside) == before


def test_a_run_itself_may_be_a_link(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "elsewhere")
    (tmp_path / "run").symlink_to(copy)
    assert RunFolder.open(tmp_path / "run").trajectory.read_bytes() == (run / "trajectory.mezo").read_bytes()
