"""What a run may be resumed as: what it was; longer, where no step depends on its length; else as a fork."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.resumed import ROWS, Copying, base, config_for, copy, resume, trainer, what_counts
from tests.tiers import mostly_slow
from tests.tiny_models import same_files

import mezo
from mezo.cli import main
from mezo.config import MeZOConfig
from mezo.engines.transformers.engine import TransformersEngine
from mezo.errors import MezoError
from mezo.resume.compatibility import Changed
from mezo.resume.replay import replay
from mezo.resume.session import Resume, follow, take_up
from mezo.runs import trajectory
from mezo.runs.folder import RunFolder
from mezo.runs.metrics_file import read_metrics
from mezo.weights.fingerprint import fingerprint


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def killed(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 12 steps, killed after the seventh. To be copied, not to be changed."""
    folder = tmp_path_factory.mktemp("killed")
    config = config_for(model, schedule="constant")
    trainer(config, output=folder / "run", observer=Copying(folder / "run", folder, (7,))).train()
    return folder / "7"


def of(folder: Path, **changes: Any) -> MeZOConfig:
    return MeZOConfig.load(RunFolder(folder).config, **changes)


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        (dict(learning_rate=2e-3), "learning_rate: the run has 0.001, now 0.002.; .*--fork NEW_RUN"),
        (dict(batch_size=4, seed=3), "batch_size: the run has 3, now 4; seed: .* or start another run"),
        (dict(num_steps=10), "num_steps: the run has 12, now 10"),
        (dict(num_steps=20, schedule="cosine"), "schedule: the run has constant, now cosine"),
    ],
)
def test_another_setting_is_refused_with_the_difference(
    killed: Path, changes: dict[str, Any], shown: str
) -> None:
    with pytest.raises(Changed, match=shown):
        trainer(of(killed, **changes), resume=killed)


def test_a_config_that_was_edited_in_the_folder_is_seen(killed: Path, tmp_path: Path) -> None:
    copy(killed, tmp_path / "run")
    text = RunFolder(tmp_path / "run").config.read_text()
    RunFolder(tmp_path / "run").config.write_text(text.replace("epsilon: 0.001", "epsilon: 0.002"))
    with pytest.raises(Changed, match=r"epsilon: the run has 0\.001, now 0\.002"):
        trainer(None, resume=tmp_path / "run")


def test_another_base_model_is_refused_and_the_same_one_elsewhere_is_not(
    killed: Path, model: Path, tmp_path: Path
) -> None:
    shutil.copytree(model, tmp_path / "same")
    copy(killed, tmp_path / "run")
    assert len(resume(tmp_path / "run", of(killed, model=str(tmp_path / "same"))).steps) == 12
    import torch
    from transformers import AutoModelForCausalLM

    other = AutoModelForCausalLM.from_pretrained(model)
    with torch.no_grad():
        other.model.norm.weight[0] += 1
    other.save_pretrained(tmp_path / "same")
    with pytest.raises(
        Changed, match=r"base model .*: the run has [0-9a-f]+, now [0-9a-f]+.; give the run's own"
    ):
        trainer(of(killed, model=str(tmp_path / "same")), resume=killed)


def test_other_examples_are_refused(killed: Path) -> None:
    with pytest.raises(Changed, match=r"train examples: the run has 8 \(\w+\), now 7 \(\w+\)"):
        trainer(None, ROWS[1:], resume=killed)
    swapped = [ROWS[1], ROWS[0], *ROWS[2:]]
    with pytest.raises(Changed, match=r"train examples: the run has 8 \(\w+\), now 8 \(\w+\)"):
        trainer(None, swapped, resume=killed)


def test_a_longer_run_is_the_run_that_was_longer_from_the_start(
    killed: Path, model: Path, tmp_path: Path
) -> None:
    whole = trainer(config_for(model, schedule="constant", num_steps=17), output=tmp_path / "whole").train()
    copy(killed, tmp_path / "run")
    longer = resume(tmp_path / "run", of(killed, num_steps=17))
    assert what_counts(tmp_path / "run", longer) == what_counts(tmp_path / "whole", whole)


FORKS: dict[str, dict[str, Any]] = {
    "learning rate": dict(learning_rate=3e-3, schedule="linear"),
    "optimizer": dict(optimizer="adam", learning_rate=1e-4),
    "wider": dict(estimator="cone", num_directions=3),
}


@pytest.mark.parametrize("how", mostly_slow(FORKS, lambda name: name == "optimizer"))
def test_a_fork_goes_on_under_other_settings_and_replays(killed: Path, tmp_path: Path, how: str) -> None:
    copy(killed, tmp_path / "run")
    before = trajectory.read(killed / "trajectory.mezo")
    watching = Copying(tmp_path / "fork", tmp_path / "killed", (7, 8, 11))
    result = resume(
        tmp_path / "run", of(killed, **FORKS[how]), fork=tmp_path / "fork", observer=watching, artifacts=True
    )
    after = trajectory.read(tmp_path / "fork/trajectory.mezo")
    assert np.array_equal(after.records[:7, :1], before.records)
    assert after.header["parent"] == {
        "path": str(tmp_path / "run"),
        "step": 7,
        "trajectory": trajectory.checksum(before.records),
    }
    assert (
        trajectory.read(tmp_path / "run/trajectory.mezo").header == before.header
    )  # the parent is as it was
    assert result.losses == [s.loss for s in read_metrics(tmp_path / "fork/metrics.jsonl").steps]
    assert len(result.losses) == 12
    written = replay(tmp_path / "fork", output=tmp_path / "again")
    assert same_files(written, tmp_path / "fork/model")
    for step in (8, 11):  # and it is a run like any other: it can be killed
        again = resume(tmp_path / f"killed/{step}")
        assert fingerprint(again.model.named_parameters()) == fingerprint(result.model.named_parameters())
        assert (tmp_path / f"killed/{step}/trajectory.mezo").read_bytes() == (
            tmp_path / "fork/trajectory.mezo"
        ).read_bytes()


def test_a_fork_under_the_same_settings_goes_on_as_the_run_does(killed: Path, tmp_path: Path) -> None:
    copy(killed, tmp_path / "run")
    forked, whole = resume(tmp_path / "run", fork=tmp_path / "fork"), resume(tmp_path / "run")
    assert forked.losses == whole.losses
    assert fingerprint(forked.model.named_parameters()) == fingerprint(whole.model.named_parameters())


@pytest.mark.parametrize("optimizer", ["momentum", "sgd"])
def test_ranks_that_follow_reach_the_state_of_the_one_that_leads(
    killed: Path, tmp_path: Path, optimizer: str
) -> None:
    """In a fork, with its parent's optimizer or another, of a fork that changed it."""
    parent = tmp_path / "parent"
    resume(copy(killed, tmp_path / "run"), of(killed, optimizer="momentum", num_steps=9), fork=parent)
    found = []
    for leads in (True, False):
        config = of(parent, optimizer=optimizer, num_steps=12)
        forked = Resume.of(parent, config, fork=tmp_path / f"{leads}", output=None, overwrite=False)
        made = trainer(config)
        if leads:
            recorder, plan, estimator_state = take_up(forked, made._fresh, note=lambda text: None)
            recorder.close()
        else:
            plan, estimator_state = follow(forked, made._fresh, ready=lambda: None)
        assert isinstance(made.engine, TransformersEngine)
        m = made.engine.state
        found.append((plan.done, estimator_state, made.weights.checksum(), m and m.checksum()))
    assert found[0] == found[1]
    assert found[0][0] == 9
    assert (found[0][3] is None) == (optimizer == "sgd")


@pytest.mark.slow
def test_a_fork_of_a_fork_and_of_a_run_that_walks(model: Path, tmp_path: Path) -> None:
    config = config_for(model, memory="regenerate", dtype="bfloat16")
    trainer(config, output=tmp_path / "a", observer=Copying(tmp_path / "a", tmp_path, (7,))).train()
    b = resume(tmp_path / "7", of(tmp_path / "7", memory="materialize", num_steps=9), fork=tmp_path / "b")
    assert len(b.steps) == 9
    header = trajectory.read(tmp_path / "b/trajectory.mezo").header
    assert header["parent"]["step"] == 4  # steps after a snapshot of a walked run cannot be replayed
    watching = Copying(tmp_path / "c", tmp_path / "killed", (11,))
    c = resume(tmp_path / "b", of(tmp_path / "b", num_steps=13), fork=tmp_path / "c", observer=watching)
    header = trajectory.read(tmp_path / "c/trajectory.mezo").header
    assert [branch["end"] for branch in header["branches"]] == [4, 9]
    copy(tmp_path / "killed/11", tmp_path / "bare")
    again = resume(tmp_path / "killed/11")
    assert fingerprint(again.model.named_parameters()) == fingerprint(c.model.named_parameters())
    shutil.rmtree(tmp_path / "bare/snapshots")
    with pytest.raises(MezoError, match="goes on from step 9 of another run, of which no snapshot is left"):
        resume(tmp_path / "bare")


def test_what_a_fork_cannot_change(killed: Path, tmp_path: Path) -> None:
    with pytest.raises(Changed, match=r"dtype: the run has float32, now bfloat16.; a fork goes on from"):
        trainer(of(killed, dtype="bfloat16"), resume=killed, fork=tmp_path / "fork")
    with pytest.raises(MezoError, match="has done 7 steps, and is to have 6"):
        resume(copy(killed, tmp_path / "run"), of(killed, num_steps=6), fork=tmp_path / "fork")
    assert not (tmp_path / "fork").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/metrics.jsonl").write_text("")
    with pytest.raises(MezoError, match="already holds metrics"):
        trainer(None, resume=killed, fork=tmp_path / "full")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: shutil.rmtree(run), "no such run folder"),
        (lambda run: (run / "config.yaml").unlink(), "not a run of mezo"),
        (lambda run: (run / "trajectory.mezo").unlink(), "only a run of `mezo train` can be resumed"),
        (lambda run: (run / "trajectory.mezo").write_bytes(b"MEZOTRJ1"), "the header is cut short"),
    ],
)
def test_what_is_no_run_is_said_to_be_none(
    killed: Path, tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    run = copy(killed, tmp_path / "run")
    spoil(run)
    with pytest.raises(MezoError, match=message):
        resume(run)


def test_metrics_that_lost_more_than_a_crash_takes_are_an_error(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trajectory, "BLOCK_RECORDS", 4)
    watching = Copying(tmp_path / "run", tmp_path / "killed", (9,))
    trainer(config_for(model), output=tmp_path / "run", observer=watching).train()
    metrics = tmp_path / "killed/9/metrics.jsonl"
    lines = metrics.read_text().splitlines(keepends=True)
    metrics.write_text("".join(lines[:5]))
    with pytest.raises(MezoError, match="ends after step 4, and the trajectory has 8 and more"):
        resume(tmp_path / "killed/9")
    metrics.write_text("".join([*lines[:3], "nonsense\n", *lines[4:]]))
    with pytest.raises(MezoError, match=r"metrics.jsonl:4: expected a JSON object"):
        resume(tmp_path / "killed/9")


def test_arguments_that_do_not_go_together(killed: Path, tmp_path: Path) -> None:
    with pytest.raises(MezoError, match="goes on in its own folder"):
        trainer(None, resume=killed, output=tmp_path / "other")
    with pytest.raises(MezoError, match="one of --resume and --overwrite"):
        trainer(None, resume=killed, overwrite=True)
    with pytest.raises(MezoError, match="a run needs a config"):
        trainer(None)


@pytest.mark.slow
def test_finetune_resumes_what_the_same_call_began(model: Path, tmp_path: Path) -> None:
    rows = [{"prompt": "say ab", "completion": "ba"}, {"prompt": "say cd", "completion": "dc"}]
    how: dict[str, Any] = dict(num_steps=4, batch_size=2, learning_rate=1e-3, lora_rank=2)
    first = mezo.mezo_finetune(str(model), rows, output=tmp_path / "run", **how)
    copy(tmp_path / "run", tmp_path / "longer")
    longer = mezo.mezo_finetune(str(model), rows, resume=tmp_path / "longer", **{**how, "num_steps": 6})
    assert longer.losses[:4] == first.losses
    assert len(longer.losses) == 6
    with pytest.raises(Changed, match="lora_rank: the run has 2, now 3"):
        mezo.mezo_finetune(str(model), rows, resume=tmp_path / "run", **{**how, "lora_rank": 3})


@pytest.mark.slow
def test_the_command(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    run = str(tmp_path / "run")
    begin = ["train", "--model", str(model), "--task", "sst2", "--data", str(tmp_path / "train.jsonl")]
    begin += ["--learning-rate", "1e-6"]
    assert main([*begin, "--steps", "6", "--batch-size", "2", "--output", run]) == 0
    capsys.readouterr()
    assert main(["train", "--resume", run]) == 0
    assert "is finished: all 6 steps are done" in capsys.readouterr().out
    assert main(["train", "--resume", run, "--learning-rate", "0.5", "--batch-size", "3"]) == 2
    said = capsys.readouterr().err
    assert [line.split() for line in said.splitlines()[1:3]] == [
        ["learning_rate", "1e-06", "0.5"],
        ["batch_size", "2", "3"],
    ]
    fork = str(tmp_path / "fork")
    assert main(["train", "--resume", run, "--fork", fork, "--learning-rate", "1e-4", "--steps", "8"]) == 0
    assert "going on at step 6" in capsys.readouterr().out
    assert main(["train", "--resume", run, "--steps", "7"]) == 0
    assert main(["train", *begin[1:], "--fork", fork]) == 2
