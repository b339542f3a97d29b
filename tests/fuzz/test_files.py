"""Whatever bytes a file holds, reading it gives a value or a MezoError, and never anything else."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.fuzz.corpus import broken

from mezo.ablation.formats import files as formats
from mezo.ablation.run import journal as results
from mezo.config import MeZOConfig
from mezo.data.files import read_rows
from mezo.errors import MezoError
from mezo.resume.replay_steps import configs_of
from mezo.runs import event_log, trajectory
from mezo.runs.metrics_file import read_metrics
from mezo.runs.trajectory import TrajectoryWriter, journal_of
from mezo.tasks.load_task import read_task
from mezo.util.memory import peak_bytes

FAST, WHOLE = 40, 1500  # cases a kind of file; ten kinds: 15,000
MEMORY = 256 << 20  # bytes; the files are of a few kilobytes

STEP = dict(kind="step", step=0, loss=1.5, learning_rate=1e-3, projected_grads=[0.5], seconds=1.0, tokens=9)
TASK = """
prompt: "{sentence} It was"
label: label
labels: [0, 1]
label_words: [" bad", " good"]
"""
PLAN = """
studies:
- name: epsilon
  ablated_part: Perturbation scale
  action: REPLACE
  replacement: [0.001, 0.1]
  metrics: [accuracy]
"""


def _trajectory(path: Path) -> None:
    configs_of(trajectory.read(path).header)


def _journal(path: Path) -> None:
    trajectory.read(path.with_name(path.name.removesuffix(".journal")))


def _lines(*values: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


READERS: dict[str, Callable[[Path], Any]] = {
    "t.mezo": _trajectory,
    "t.mezo.journal": _journal,
    "config.yaml": MeZOConfig.load,
    "rows.jsonl": read_rows,
    "rows.json": read_rows,
    "metrics.jsonl": read_metrics,
    "events.jsonl": event_log.read,
    "results.jsonl": results.read,
    "task.yaml": read_task,
    "plan.yaml": lambda path: formats.parse(path.read_bytes().decode("utf-8", "replace"), ".yaml"),
}


def sound(name: str, folder: Path) -> bytes:
    """A file as mezo writes it, or a person."""
    config = MeZOConfig()
    if name.startswith("t.mezo"):
        path = folder / "t.mezo"
        writer = TrajectoryWriter(path, {"config": config.model_dump(mode="json")}, 2)
        for record in np.random.RandomState(0).standard_normal((100, 2)):
            writer.append(record.tolist())
        if name.endswith(".journal"):
            writer.abandon()
            return journal_of(path).read_bytes()
        writer.close()
        return path.read_bytes()
    rows = [{"sentence": "good", "label": 1}, {"sentence": "bad", "label": 0}]
    texts = {
        "config.yaml": config.to_yaml().encode(),
        "rows.jsonl": _lines(*rows),
        "rows.json": json.dumps(rows).encode(),
        "metrics.jsonl": _lines(STEP, {**STEP, "step": 1}),
        "events.jsonl": _lines({"event": "started", "step": 0}, {"event": "finished", "step": 3}),
        "results.jsonl": _lines(
            {"kind": "meta", "steps": 3},
            {"kind": "run", "study": "a", "variant": "b", "seed": 1, "status": "ok"},
        ),
        "task.yaml": TASK.encode(),
        "plan.yaml": PLAN.encode(),
    }
    return texts[name]


def fuzz(name: str, folder: Path, count: int) -> int:
    """How many cases were run."""
    path = folder / name
    done = 0
    for data in broken(sound(name, folder), count):
        path.write_bytes(data)
        try:
            READERS[name](path)
        except MezoError:
            pass
        except Exception as error:
            raise AssertionError(f"{name}: {type(error).__name__}: {error!s:.200}\n{data[:300]!r}") from error
        done += 1
    return done


@pytest.mark.parametrize("name", READERS)
def test_what_is_not_broken_is_read(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(sound(name, tmp_path))
    READERS[name](path)


@pytest.mark.parametrize("name", READERS)
def test_some_broken_files(name: str, tmp_path: Path) -> None:
    assert fuzz(name, tmp_path, FAST) == FAST


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_many_broken_files(name: str, tmp_path: Path) -> None:
    before = peak_bytes()
    assert fuzz(name, tmp_path, WHOLE) == WHOLE
    assert peak_bytes() - before < MEMORY
