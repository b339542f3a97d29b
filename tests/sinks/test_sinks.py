"""The numbers of a run elsewhere: read back by each project's own package; and a sink that fails is no matter."""

import contextlib
import math
import threading
from collections.abc import Iterator, Sequence
from inspect import signature
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.resumed import base, config_for, trainer, what_counts
from tests.tiers import mostly_slow

from mezo.cli import main
from mezo.config import MeZOConfig
from mezo.errors import MezoError
from mezo.events import Observer
from mezo.runs.folder import RunFolder
from mezo.runs.metrics_file import read_metrics
from mezo.sinks import background, run_ids
from mezo.sinks import wandb as wandb_sink
from mezo.sinks.base import Begun, Sink, SinkPoint
from mezo.sinks.logging import SINKS, Several, logging_to, names_for
from mezo.sinks.numbers import of_evaluation, of_step, without_secrets
from mezo.sinks.prometheus import Family, render


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return base(tmp_path_factory.mktemp("base"))


def run_logged(model: Path, folder: Path, *names: str, notes: list[str] | None = None, **options: Any) -> Any:
    """A run of 12 steps; its result."""
    config = config_for(model)
    said = notes if notes is not None else []
    with logging_to(names, run=folder, config=config, note=said.append, **options) as logs:
        return trainer(config, output=folder, observer=logs).train()


# ---------------------------------------------------------------- a sink of our own


class Listening(Sink):
    every = 0.0

    def __init__(self, *, breaks: str = "") -> None:
        self.points: list[SinkPoint] = []
        self.begun: Begun | None = None
        self.closed: list[bool] = []
        self._breaks = breaks

    def open(self, begun: Begun) -> str:
        self.begun = begun
        self._break("open")
        return "a1"

    def write(self, points: Sequence[SinkPoint]) -> None:
        self._break("write")
        self.points += points

    def close(self, *, failed: bool) -> None:
        self._break("close")
        self.closed.append(failed)

    def _break(self, where: str) -> None:
        if self._breaks == where:
            raise SystemExit(f"no {where}\nhere")


@contextlib.contextmanager
def registered(sink: Sink) -> Iterator[None]:
    class Kind:
        package = "json"

        def make(self) -> Sink:
            return sink

    SINKS["own"] = Kind()  # type: ignore[assignment]
    try:
        yield
    finally:
        del SINKS["own"]


def test_a_sink_hears_every_number_of_the_metrics(model: Path, tmp_path: Path) -> None:
    sink = Listening()
    with registered(sink):
        run_logged(model, tmp_path / "run", "own", notes=[])
    metrics = read_metrics(RunFolder(tmp_path / "run").metrics)
    steps = {p.step: p.numbers for p in sink.points if "train/loss" in p.numbers}
    assert steps == {r.step: of_step(r) for r in metrics.steps}
    evals = {p.step: p.numbers for p in sink.points if "validation/loss" in p.numbers}
    assert evals == {r.step: of_evaluation(r) for r in metrics.evals}
    assert sorted(evals) == [0, 5, 10, 12]
    assert sink.closed == [False]
    assert run_ids.read(tmp_path / "run/logs") == {"own": "a1"}


@pytest.mark.parametrize("breaks", mostly_slow(["open", "write", "close"], lambda where: where == "write"))
def test_a_sink_that_fails_is_told_once_and_changes_nothing(model: Path, tmp_path: Path, breaks: str) -> None:
    notes: list[str] = []
    with registered(Listening(breaks=breaks)):
        logged = run_logged(model, tmp_path / "run", "own", notes=notes)
    plain = trainer(config_for(model), output=tmp_path / "plain").train()
    a, b = what_counts(tmp_path / "run", logged), what_counts(tmp_path / "plain", plain)
    assert {k: v for k, v in a.items() if k != "files"} == {k: v for k, v in b.items() if k != "files"}
    assert notes == [f"warning: --log own: SystemExit: no {breaks} here; the run goes on without it"]


def test_a_sink_that_says_its_key_is_told_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_API_KEY", "sk-1234567890")

    def begin(first: int, steps: int) -> Sink:
        raise RuntimeError("no login with\n\x1b[31msk-1234567890")

    notes: list[str] = []
    sink = background.Background("--log own", begin, notes.append)
    sink.on_start(0, 12, "")
    sink.close(failed=False)
    assert notes == [
        "warning: --log own: RuntimeError: no login with \\x1b[31m***; the run goes on without it"
    ]


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("denied: Basic YXBpOnNr+/Z=", "denied: Basic ***"),
        ('{"key": "Bearer abc.def-1"}', '{"key": "Bearer ***"}'),
        ("to http://me:pw@host:1/a, and http://host/b@c", "to http://***@host:1/a, and http://host/b@c"),
        ("basic", "basic"),
    ],
)
def test_credentials_that_a_server_repeats_are_not_told(said: str, told: str) -> None:
    def begin(first: int, steps: int) -> Sink:
        raise RuntimeError(said)

    notes: list[str] = []
    sink = background.Background("--log own", begin, notes.append)
    sink.on_start(0, 12, "")
    sink.close(failed=False)
    assert notes == [f"warning: --log own: RuntimeError: {told}; the run goes on without it"]


def test_the_time_that_wandb_may_hold_up_a_program_s_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """In settings that its release knows; the person's own setting wins."""
    monkeypatch.delenv("WANDB_INIT_TIMEOUT", raising=False)
    new, old = SimpleNamespace(model_fields={"finish_timeout"}), SimpleNamespace(model_fields={})
    assert wandb_sink.bounds(new) == {"finish_timeout": background.PATIENCE, "init_timeout": 30.0}
    assert wandb_sink.bounds(old) == {"init_timeout": 30.0}
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "5")
    assert wandb_sink.bounds(new) == {"finish_timeout": background.PATIENCE}


def test_a_sink_that_hangs_holds_up_no_step_and_the_end_for_a_moment(
    monkeypatch: pytest.MonkeyPatch, model: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(background, "PATIENCE", 0.01)
    monkeypatch.setattr(background, "HELD", 5)
    released, notes = threading.Event(), []

    class Hanging(Listening):
        def open(self, begun: Begun) -> str:
            released.wait(60)
            return "a1"

    sink = Hanging()
    with registered(sink):
        result = run_logged(model, tmp_path / "run", "own", notes=notes)
    assert len(result.steps) == 12
    assert notes == ["warning: --log own: cannot keep up; the run goes on without it"]
    released.set()


def test_an_error_of_the_run_reaches_the_sink(tmp_path: Path) -> None:
    sink = Listening()

    def breaking() -> None:
        with (
            registered(sink),
            logging_to(["own"], run=tmp_path, config=MeZOConfig(), note=pytest.fail) as logs,
        ):
            logs.on_start(0, 5, "")
            raise MezoError("broken")

    with pytest.raises(MezoError, match="broken"):
        breaking()
    assert sink.closed == [True]


def test_unknown_and_missing_logs_are_refused_before_anything(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--model", "nowhere", "--log", "tensorbord"]) == 2
    assert "unknown log 'tensorbord'; did you mean 'tensorboard'?" in capsys.readouterr().err
    monkeypatch.setitem(SINKS, "wandb", SINKS["wandb"]._replace(package="not_there_at_all"))
    assert main(["train", "--model", "nowhere", "--log", "wandb"]) == 2
    assert "pip install 'mezo-llm[wandb]'" in capsys.readouterr().err
    assert main(["train", "--model", "nowhere", "--metrics-file", "no/where.prom"]) == 2
    assert "found no such folder" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_resumed_run_goes_on_with_the_logs_it_has(tmp_path: Path) -> None:
    notes: list[str] = []
    with registered(Listening()):
        run_ids.keep(tmp_path / "logs", "own", "a1")
        run_ids.keep(tmp_path / "logs", "of another version", "b")
        assert names_for([], tmp_path, notes.append) == ("own",)
        assert names_for(["tensorboard", "tensorboard"], tmp_path, notes.append) == ("tensorboard",)
        assert names_for([], None, notes.append) == ()
        SINKS["own"].package = "not_there_at_all"  # type: ignore[misc]
        assert names_for([], tmp_path, notes.append) == ()
    assert notes == ["warning: this run was logged to own, which is not installed here: it is not any more"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": 1}', "[" * 100_000, "\ud800"])
def test_ids_that_are_none_are_none(tmp_path: Path, text: str) -> None:
    (tmp_path / run_ids.NAME).write_bytes(text.encode("utf-8", "surrogatepass"))
    assert run_ids.read(tmp_path) == {}


def test_an_overwritten_run_begins_its_logs_anew(model: Path, tmp_path: Path) -> None:
    run_ids.keep(tmp_path / "run/logs", "own", "old")
    config = config_for(model, num_steps=1)
    config_file = tmp_path / "run/config.yaml"
    config_file.write_text(config.to_yaml())
    (tmp_path / "run/metrics.jsonl").write_text("")
    trainer(config, output=tmp_path / "run", overwrite=True).train()
    assert run_ids.read(tmp_path / "run/logs") == {}


@pytest.mark.parametrize("word", [name for name in vars(Observer) if name.startswith("on_")])
def test_several_observers_hear_all_that_one_hears(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[tuple[object, ...]] = []
    monkeypatch.setattr(Observer, word, lambda self, *said: heard.append((self, *said)))
    ears = Observer(), Observer()
    said = range(len(signature(getattr(Several, word)).parameters) - 1)
    getattr(Several(*ears), word)(*said)
    assert heard == [(ear, *said) for ear in ears]


def test_secrets_are_not_logged() -> None:
    # a config refuses them; what is logged does not rely on that
    values = MeZOConfig().model_dump(mode="json")
    values["server_args"] = {
        "api_key": "sk-1", "hf_token": "hf-2", "tp": 2, "inner": {"Password": "p", "path": "x"}
    }  # fmt: skip
    found = without_secrets(values)
    assert found["server_args.api_key"] == found["server_args.hf_token"] == "***"
    assert found["server_args.inner.Password"] == "***"
    assert (found["server_args.tp"], found["server_args.inner.path"], found["max_new_tokens"]) == (2, "x", 32)
    assert not {"sk-1", "hf-2", "p"} & {str(v) for v in found.values()}
    # no setting of our own is taken for one
    assert "***" not in without_secrets(MeZOConfig().model_dump(mode="json")).values()


# ---------------------------------------------------------------- Prometheus

_NAME = st.from_regex(r"[a-z_][a-z0-9_]{0,10}", fullmatch=True)
_TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)


@given(
    labels=st.dictionaries(_NAME.filter(lambda n: n != "le"), _TEXT, max_size=3),
    value=st.floats() | st.integers(-(2**53), 2**53),
)
def test_any_sample_is_read_back_by_the_parser_of_prometheus(labels: dict[str, str], value: float) -> None:
    parser = pytest.importorskip("prometheus_client.parser")
    text = render(iter([Family("mezo_thing", "gauge", "What it is.", [(labels, value)])]))
    (family,) = parser.text_string_to_metric_families(text)
    (sample,) = family.samples
    assert (family.name, family.type, family.documentation) == ("mezo_thing", "gauge", "What it is.")
    assert sample.labels == labels
    assert sample.value == value or (math.isnan(sample.value) and math.isnan(value))


def test_the_metrics_file_says_where_the_run_is(model: Path, tmp_path: Path) -> None:
    parser = pytest.importorskip("prometheus_client.parser")
    run_logged(model, tmp_path / "run", metrics_file=tmp_path / "mezo.prom")
    families = list(parser.text_string_to_metric_families((tmp_path / "mezo.prom").read_text()))
    assert all(f.documentation and f.type in ("gauge", "counter") for f in families)
    found = {(s.name, *sorted(s.labels.items())): s.value for f in families for s in f.samples}
    metrics = read_metrics(RunFolder(tmp_path / "run").metrics)
    assert found["mezo_steps_total",] == found["mezo_planned_steps",] == 12
    assert (found["mezo_running",], found["mezo_failed",]) == (0, 0)
    assert found["mezo_loss",] == metrics.steps[-1].loss
    assert found["mezo_evaluation", ("metric", "loss"), ("split", "validation")] == metrics.evals[-1].loss
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["mezo.prom"]
