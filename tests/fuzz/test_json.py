"""JSON that mezo reads of folders and files of its own: fields of another type, size or name, headers re-sealed."""

import contextlib
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import yaml
from tests.fuzz.corpus import broken, twisted
from tests.fuzz.harness import dumped, survive

from mezo.ablation.binding.literal_values import facts_of
from mezo.ablation.formats import files as formats
from mezo.ablation.run.folder import StudyFolder
from mezo.ablation.run.measures import read_outcome
from mezo.baselines import compare
from mezo.config import MeZOConfig
from mezo.errors import MezoError
from mezo.noise.spec import VERSION
from mezo.resume import plan, publishing, trajectory_tools, verify
from mezo.runs import trajectory
from mezo.runs.folder import RunFolder
from mezo.runs.metrics_file import read_metrics, record_of
from mezo.runs.summary import read_summary
from mezo.search.trials import SearchFolder
from mezo.sinks import run_ids

FAST, WHOLE = 12, 400  # cases a kind of file, twisted; a quarter as many more with broken bytes
SETTINGS = 100  # of config.yaml: YAML of that length takes a tenth of a second to read

CONFIG = MeZOConfig().model_dump(mode="json")
HEADER = {
    "config": CONFIG,
    "mezo": "0.2.0",
    "noise": VERSION,
    "base_fingerprint": "ab",
    "data": {"train": "16 (5f)", "validation": None},
    "branches": [{"end": 2, "config": CONFIG}],
    "parent": {"path": "runs/a", "step": 2, "trajectory": "00"},
}
STUDY = {
    "name": "epsilon",
    "ablated_part": "Perturbation scale",
    "action": "REPLACE",
    "replacement": [0.001, 0.1],
    "metrics": ["accuracy"],
    "set": {"epsilon": 0.1},
}
PLAN = {"title": "A", "reasoning": "since", "studies": [STUDY]}
STEP = dict(kind="step", step=0, loss=1.5, learning_rate=1e-3, projected_grads=[0.5], seconds=1.0, tokens=9)
EVAL = dict(
    kind="eval", step=0, split="test", accuracy=0.5, loss=1.0, examples=4, seconds=1.0, metrics={"f1": 0.5}
)
EVALUATED = {"task": "sst2", "loss": 0.5, "metrics": {"accuracy": 0.5}, "seconds": 1.0, "shots": 2}
TRIAL = dict(
    rung=0, steps=3, learning_rate=1e-3, epsilon=0.1, start=1.0, loss=0.5, score=None, diverged=False, too_large=False,
    seconds=1.0, peak_memory_bytes=9,
)  # fmt: skip
ASKED = {"plan": PLAN, "config": {"seed": 1, "epsilon": 0.1}, "seeds": 3}
AGREED = {
    "asked": {**ASKED, "config": CONFIG},
    "costs": {"a": {"step": 1.0, "fixed": 1.0, "evaluation": 0.5, "passes": 2.0}},
    "errors": {},
    "steps": {"a": 20},
}


class Kind(NamedTuple):
    name: str  # of the file, in a folder
    sound: Any  # its values
    read: Callable[[Path], Any]  # given the file


def _trajectory(path: Path) -> None:
    """All that is done with a trajectory but replaying it."""
    for use in (
        trajectory_tools.facts,
        lambda p: trajectory_tools.difference(p, p),
        verify.verify,
        lambda p: publishing.publish(p, path.with_name("published"), base="a/b"),
        lambda p: trajectory_tools.merge(p, p, path.with_name("merged")),
    ):
        with contextlib.suppress(MezoError):  # the others must be tried, too
            use(path)
        for made in ("published", "merged"):
            path.with_name(made).unlink(missing_ok=True)


def _plan(path: Path) -> None:
    formats.parse(path.read_bytes().decode("utf-8", "replace"), path.suffix)


KINDS = (
    Kind("summary.json", {"method": "MeZO lora", "seconds": 1.0, "peak_memory_bytes": 9}, lambda p: read_summary(p.parent)),
    Kind("process.json", {"seconds": 1.0, "forward_passes": 2, "peak_memory_bytes": 9, "device": "cpu"}, lambda p: read_outcome(p.parent)),
    Kind("config.json", {"num_hidden_layers": 2, "architectures": ["OPTForCausalLM"]}, lambda p: facts_of(str(p.parent))),
    Kind("plan.json", PLAN, _plan),
    Kind("plan.jsonl", STUDY, _plan),
    Kind("config.yaml", CONFIG, MeZOConfig.load),
    Kind("metrics.jsonl", EVAL, lambda p: record_of(p.read_text(errors="replace"), "here")),
    Kind("steps.jsonl", STEP, lambda p: read_metrics(p)),
    Kind("eval.json", EVALUATED, lambda p: compare.markdown(compare.compare([p]))),
    Kind("study.json", AGREED, lambda p: StudyFolder(p.parent).agreed(AGREED["asked"])),
    Kind("search.yaml", {"asked": ASKED, "rungs": [3, 9]}, lambda p: SearchFolder(p.parent).open(ASKED)),
    Kind("trials.jsonl", TRIAL, lambda p: SearchFolder(p.parent).trials()),
    Kind("ids.json", {"wandb": "x"}, lambda p: run_ids.read(p.parent)),
)  # fmt: skip


def _yaml(value: Any) -> bytes:
    return yaml.safe_dump(value, sort_keys=False).encode("utf-8", "surrogatepass")


def _texts(kind: Kind, count: int) -> list[bytes]:
    write = _yaml if kind.name.endswith(".yaml") else lambda value: dumped(value) + b"\n"
    return [*map(write, twisted(kind.sound, count)), *broken(write(kind.sound), count // 4)]


def _fuzz(kind: Kind, folder: Path, count: int) -> int:
    path = folder / kind.name

    def read(data: bytes) -> None:
        path.write_bytes(data)
        kind.read(path)

    return survive(_texts(kind, count), read)


def _sealed(header: bytes, records: np.ndarray) -> bytes:
    """A trajectory file whose checksums fit whatever its header says; (steps, 1) records."""
    head = trajectory.MAGIC + struct.pack("<I", len(header)) + header
    return head + struct.pack("<I", zlib.crc32(head)) + trajectory._block(0, len(records), records.tobytes())


def _fuzz_headers(folder: Path, count: int) -> int:
    run = RunFolder(folder)
    run.config.write_text(MeZOConfig().to_yaml())
    run.metrics.write_bytes(dumped(STEP) + b"\n")
    records = np.arange(3, dtype="<f4").reshape(-1, 1)
    sound = {"format": 1, "num_directions": 1, **HEADER}

    def read(header: bytes) -> None:
        run.trajectory.write_bytes(_sealed(header, records))
        for use in (_trajectory, lambda path: plan.plan(run, remembers=False)):
            use(run.trajectory)

    headers = [*map(dumped, twisted(sound, count)), *broken(dumped(sound), count // 4)]
    return survive(headers, read)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_what_is_not_twisted_is_read(kind: Kind, tmp_path: Path) -> None:
    path = tmp_path / kind.name
    path.write_bytes(_yaml(kind.sound) if path.suffix == ".yaml" else dumped(kind.sound) + b"\n")
    kind.read(path)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_some_twisted_files(kind: Kind, tmp_path: Path) -> None:
    assert _fuzz(kind, tmp_path, FAST) == FAST + FAST // 4


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_many_twisted_files(kind: Kind, tmp_path: Path) -> None:
    count = SETTINGS if kind.name == "config.yaml" else WHOLE
    assert _fuzz(kind, tmp_path, count) == count + count // 4


def test_some_headers_of_trajectories_whose_checksums_fit(tmp_path: Path) -> None:
    assert _fuzz_headers(tmp_path, 12) == 15


@pytest.mark.slow
def test_many_headers_of_trajectories_whose_checksums_fit(tmp_path: Path) -> None:
    assert _fuzz_headers(tmp_path, 240) == 300
