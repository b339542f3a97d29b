"""`mezo trajectory` and published fine-tunes, on a run of a toy model."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.resumed import base, config_for, copy, trainer

import mezo
from mezo.cli import main
from mezo.errors import MezoError
from mezo.resume.publishing import publish
from mezo.resume.replay import replay
from mezo.resume.trajectory_tools import cut, difference, facts, merge
from mezo.resume.verify import verify
from mezo.runs import trajectory
from mezo.runs.folder import RunFolder
from mezo.weights.fingerprint import fingerprint


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tools")
    trainer(config_for(base(folder / "base")), output=folder / "run", artifacts=True).train()
    return folder / "run"


def test_show_says_what_the_run_was(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trajectory", "show", str(run), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    records = trajectory.read(RunFolder(run).trajectory).records
    assert (found["steps"], found["seed"], found["gradients"]["not_finite"]) == (12, 2, 0)
    assert found["gradients"]["largest_size"] == float(np.abs(records).max())
    assert main(["trajectory", "show", str(run)]) == 0
    assert found["base_fingerprint"] in capsys.readouterr().out


def test_verify_finds_the_run_sound_its_weights_included(run: Path) -> None:
    lines = verify(run, weights=True)
    assert [line.split()[0] for line in lines] == ["checksums", "settings", "metrics", "weights"]


@pytest.mark.parametrize("what", ["trajectory", "settings", "metrics", "weights"])
def test_verify_names_what_was_changed(run: Path, tmp_path: Path, what: str) -> None:
    broken = RunFolder(copy(run, tmp_path / "run"))
    if what == "trajectory":
        data = bytearray(broken.trajectory.read_bytes())
        data[-9] ^= 1
        broken.trajectory.write_bytes(data)
        message = "checksum|damaged"
    elif what == "settings":
        broken.config.write_text(broken.config.read_text().replace("seed: 2", "seed: 3"))
        message = "seed differ"
    elif what == "metrics":
        lines = broken.metrics.read_text().splitlines(keepends=True)
        first = json.loads(lines[1])
        first["projected_grads"][0] += 1
        broken.metrics.write_text("".join([lines[0], json.dumps(first) + "\n", *lines[2:]]))
        message = f"gradients of step {first['step']}"
    else:
        path = broken.model / "model.safetensors"
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
        message = "is not what the trajectory gives"
    with pytest.raises(MezoError, match=message):
        verify(broken.path, weights=what == "weights")


def test_a_cut_run_merged_with_the_whole_is_the_whole(run: Path, tmp_path: Path) -> None:
    first = cut(run, 5, tmp_path / "first.mezo")
    whole, part = trajectory.read(RunFolder(run).trajectory), trajectory.read(first)
    assert part.header == whole.header
    assert np.array_equal(part.records, whole.records[:5])
    merged = merge(first, run, tmp_path / "merged.mezo")
    assert merged.read_bytes() == RunFolder(run).trajectory.read_bytes()
    assert difference(first, run).first_step == 5
    assert difference(merged, run).none


def test_a_fork_is_merged_with_its_parent_and_strangers_are_not(run: Path, tmp_path: Path) -> None:
    parent = cut(run, 8, tmp_path / "parent.mezo")
    child = trainer(
        config_for(run.parent / "base", num_steps=14, learning_rate=5e-4), resume=run, fork=tmp_path / "fork"
    )
    child.train()
    merged = merge(run, tmp_path / "fork", tmp_path / "merged.mezo")
    assert len(trajectory.read(merged)) == 14
    with pytest.raises(MezoError, match="not of one run"):
        merge(parent, tmp_path / "fork", tmp_path / "none.mezo")
    assert "learning_rate" in [row.name for row in difference(run, tmp_path / "fork").header]


def test_a_published_file_gives_the_weights_and_no_path_of_this_machine(run: Path, tmp_path: Path) -> None:
    with pytest.raises(MezoError, match="--base"):
        publish(run, tmp_path / "tune.mezo")
    file = publish(run, tmp_path / "tune.mezo", base="someone/base")
    assert str(run.parent).encode() not in file.read_bytes()
    with pytest.raises(MezoError, match="exists already"):
        publish(run, file, base="someone/base")
    model, tokenizer = mezo.load_finetuned(file, model=str(run.parent / "base"))
    written = replay(file, model=str(run.parent / "base"), output=tmp_path / "again")
    kept = (run / "model" / "model.safetensors").read_bytes()
    assert (written / "model.safetensors").read_bytes() == kept
    assert tokenizer is not None
    assert not model.training
    from transformers import AutoModelForCausalLM

    saved = AutoModelForCausalLM.from_pretrained(run / "model", dtype=torch.float32)
    assert fingerprint(model.named_parameters()) == fingerprint(saved.named_parameters())


def test_mistakes_are_told_in_one_line(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        ["show", str(tmp_path / "nothing")],
        ["cut", str(run), "--steps", "13", "-o", str(tmp_path / "x.mezo")],
        ["cut", str(run), "--steps", "3", "-o", str(RunFolder(run).trajectory)],
    ):
        assert main(["trajectory", *arguments]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert main(["trajectory", "diff", str(run), str(shutil.copytree(run, tmp_path / "same"))]) == 0
    assert facts(tmp_path / "same")["checksum"] == facts(run)["checksum"]
