"""theta + eps z through a backend is theta + eps z: whole runs beside the transformers engine's."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.engines.serving.inprocess import InProcess
from tests.tiny_models import same_files, tiny
from tests.toys import byte_tokenizer

import mezo
from mezo.engines.serving import subprocess
from mezo.engines.serving.backend import Ask, EngineSpec, Tokens
from mezo.errors import MezoError
from mezo.events import Observer
from mezo.resume.replay import replay
from mezo.util.writing import Writing
from mezo.weights.tunable import canonical

ROWS = [
    {"prompt": f"{context} {number}", "completion": answer}
    for number in range(6)
    for context, answer in (("The team of ticket", " web"), ("The team of invoice", " pay"))
]
SETTINGS: dict[str, Any] = dict(
    batch_size=4, num_steps=6, max_length=96, max_new_tokens=4, observer=Observer()
)
LORA: dict[str, Any] = dict(lora_rank=2, lora_alpha=4, learning_rate=1e-2, epsilon=1e-2)
FULL: dict[str, Any] = dict(lora_rank=0, learning_rate=1e-4, epsilon=1e-3)


PROJECTIONS = ("_proj",)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    tiny("llama-tied").save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[InProcess]:
    """Engines of this process in place of SGLang, in the order they were started."""
    backends: list[InProcess] = []

    def start(engine: str, spec: EngineSpec, **_: Any) -> InProcess:
        backends.append(InProcess(spec))
        return backends[-1]

    monkeypatch.setattr(subprocess, "start", start)
    monkeypatch.setenv("MEZO_SGLANG_PYTHON", "python")
    return backends


def grads(result: mezo.TrainResult) -> np.ndarray:
    return np.array([step.projected_grads for step in result.steps])


def tune(model: str, engine: str, **settings: Any) -> mezo.TrainResult:
    return mezo.mezo_finetune(model, ROWS, engine=engine, **{**SETTINGS, **settings})


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"num_directions": 2, "estimator": "one-sided"},
        {"blocks": "round-robin", "gradient_accumulation": 2},
        {"row_directions": 2, "noise": "rank-one"},
        pytest.param({"optimizer": "adam", "noise": "rademacher"}, marks=pytest.mark.slow),
        pytest.param({"estimator": "cone"}, marks=pytest.mark.slow),
        pytest.param({"noise": "low-rank"}, marks=pytest.mark.slow),
    ],
    ids=lambda s: "-".join(map(str, s.values())) or "plain",
)
def test_lora_walks_as_on_transformers(
    model: str, started: list[InProcess], settings: dict[str, Any]
) -> None:
    here, there = (tune(model, engine, **LORA, **settings) for engine in ("transformers", "sglang"))
    assert started[0].closed
    assert not started[0].names.loaded
    assert_equal_runs(here, there)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"estimator": "one-sided", "row_directions": 2},
        {"memory": "regenerate"},
        {"train": ("layers.1", "norm")},
    ],
)
def test_all_parameters_walk_as_on_transformers(
    model: str, started: list[InProcess], settings: dict[str, Any]
) -> None:
    here, there = (tune(model, engine, **FULL, **settings) for engine in ("transformers", "sglang"))
    assert_equal_runs(here, there)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"row_directions": 2, "memory": "regenerate"},
        pytest.param(
            {"num_directions": 3, "estimator": "one-sided", "optimizer": "momentum"}, marks=pytest.mark.slow
        ),
        pytest.param({"blocks": "each"}, marks=pytest.mark.slow),
    ],
    ids=lambda s: "-".join(map(str, s.values())) or "plain",
)
@pytest.mark.parametrize("train", [PROJECTIONS, None], ids=["adapters", "walk"])
def test_all_parameters_along_rank_one_noise_walk_as_on_transformers(
    model: str, started: list[InProcess], settings: dict[str, Any], train: Any
) -> None:
    settings = {**FULL, "noise": "rank-one", "train": train, **settings}
    here, there = (tune(model, engine, **settings) for engine in ("transformers", "sglang"))
    (backend,) = started
    assert (backend.spec.lora is not None) == (train is not None)
    assert not backend.names.loaded
    assert_equal_runs(here, there)
    if train is None and settings.get("memory") == "regenerate":
        return  # the engine's weights stray between the steps that make theta again
    # what the workers have is what the updates make of the checkpoint, bit for bit
    for name, tensor in backend.model.named_parameters():
        assert torch.equal(tensor, there.model.get_parameter(name)), name


@pytest.mark.slow  # writes runs
@pytest.mark.parametrize("settings", [LORA, FULL], ids=["lora", "full"])
def test_a_run_replays_on_the_plain_checkpoint(
    model: str, started: list[InProcess], tmp_path: Path, settings: dict[str, Any]
) -> None:
    tune(model, "sglang", output=tmp_path / "run", **settings)
    again = replay(tmp_path / "run", output=tmp_path / "again")
    part = "adapter" if settings is LORA else "model"
    assert same_files(again, tmp_path / "run" / part)


def assert_equal_runs(here: mezo.TrainResult, there: mezo.TrainResult) -> None:
    config = here.config
    # a loss of about 6 is a sum in float32 that either engine rounds in its own order: some 20 roundings of
    # 6e-8 * 6 at each of two probes, over 2 epsilon; and the walks part by what the slopes differ
    tolerance = config.num_steps * 20 * 6 * 6e-8 / config.epsilon
    assert np.abs(grads(here) - grads(there)).max() <= tolerance
    assert np.abs(grads(here)).max() > 20 * tolerance
    # a moment over its root has no bound in the slopes, but moves by about the rate; |z| is below 6
    bound = config.peak_rate * (2 if config.optimizer == "adam" else tolerance * 6)
    mine, theirs = tuned(here), tuned(there)
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        assert float((tensor - theirs[name]).abs().max()) <= config.num_steps * bound + 1e-6


def tuned(result: mezo.TrainResult) -> dict[str, torch.Tensor]:
    lora = result.config.tuning == "lora"
    return {name: p.detach() for name, p in result.model.named_parameters() if not lora or ".lora_" in name}


def test_all_probes_of_a_step_are_asked_at_once(model: str, started: list[InProcess]) -> None:
    result = tune(model, "sglang", **LORA, num_directions=3, num_steps=2)
    rows = started[0].calls
    assert len(rows) == 2  # one call a step
    assert all(n % 6 == 0 for n in rows)
    assert len(result.steps) == 2


def test_the_cache_changes_no_loss_and_is_counted(model: str, started: list[InProcess]) -> None:
    for settings in (LORA, FULL):
        with_cache = tune(model, "sglang", **settings)
        without = tune(model, "sglang", **settings, enable_kv_cache_optimization=False)
        assert [s.projected_grads for s in with_cache.steps] == [s.projected_grads for s in without.steps]
        assert with_cache.metrics["token_reuse_rate"] > 0.2  # "The team of " begins every row
        assert without.metrics["token_reuse_rate"] == 0


def test_a_flush_that_does_nothing_is_caught(
    model: str, started: list[InProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache of a probe read at the next one would be wrong: the run ends instead."""
    monkeypatch.setattr(InProcess, "flush", lambda self: None)
    with pytest.raises(MezoError, match=r"have \d+ in common: they were computed with other weights"):
        tune(model, "sglang", **FULL)


def test_a_stale_cache_gives_another_loss(model: str) -> None:
    """The stand-in's cache really is what the test above is about."""
    backend = InProcess(EngineSpec(model))
    ask = Ask((5, 6, 7, 8, 9), 4)
    before = backend.score([ask])[0]
    next(backend.model.parameters()).data.mul_(1.5)
    stale = backend.score([ask])[0]
    backend.flush()
    fresh = backend.score([ask])[0]
    assert stale.logprobs == before.logprobs
    assert stale.cached_tokens == 3
    assert fresh.logprobs != stale.logprobs
    assert fresh.cached_tokens == 0


def test_the_adapter_can_stay_in_the_engine(model: str, started: list[InProcess]) -> None:
    result = tune(model, "sglang", **LORA, serve_as="tickets")
    backend = started[0]
    assert backend.names.loaded == {"tickets"}
    weights = {canonical(name): tensor for name, tensor in tuned(result).items()}
    name = next(name for name in weights if ".lora_A." in name)
    product = 2.0 * weights[name.replace(".lora_A.", ".lora_B.")] @ weights[name]
    assert backend.adapters["tickets"][name.replace(".lora_A.", ".")].equal(product)
    assert backend.write([Ask((1, 5, 6), adapter="tickets")], Writing(3, ("\n",)))
    result.engine.close()
    assert backend.closed


def test_objectives_of_written_text(model: str, started: list[InProcess]) -> None:
    def told(engine: str) -> list[float]:
        return tune(model, engine, **LORA, objective="f1", num_steps=2).losses

    assert told("sglang") == told("transformers")


def test_evaluation_is_that_of_transformers(model: str, started: list[InProcess]) -> None:
    first, second = (
        tune(model, engine, **LORA, validation_dataset=ROWS, eval_every=3).evals
        for engine in ("transformers", "sglang")
    )
    # a mean log-probability of about 6 in float32, as above
    assert [r.loss for r in first] == pytest.approx([r.loss for r in second], abs=2e-4)
    assert len(first) == 3


# ---------------------------------------------------------------- text


def test_a_population_writes_in_one_batch_with_a_seed_for_each_output(
    model: str, started: list[InProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every adapter that the engine has room for is asked at once; both signs of a direction draw alike."""
    asked: list[list[Ask]] = []
    written: list[Writing] = []
    whole = InProcess.write

    def seen(self: InProcess, asks: list[Ask], writing: Writing) -> list[Tokens]:
        asked.append(list(asks))
        written.append(writing)
        return whole(self, asks, writing)

    monkeypatch.setattr(InProcess, "write", seen)
    settings: dict[str, Any] = dict(temperature=0.5, top_p=0.9, top_k=7, samples=2, stop=(";", "x"))
    text = dict(objective="rouge:rouge1", estimator="es", num_directions=4, num_steps=1)
    tune(model, "sglang", **{**LORA, **text, **settings})
    step = [asks for asks, how in zip(asked, written, strict=True) if how.draws]
    assert len(step) == 1
    assert all(how == Writing(4, (";", "x"), 0.5, 0.9, 7, 2, (2,)) for how in written if how.draws)
    by_adapter: dict[str | None, list[tuple[Any, int]]] = {}
    for ask in step[0]:
        by_adapter.setdefault(ask.adapter, []).append((ask.tokens, ask.seed))
    assert len(by_adapter) == 8
    (rows,) = {tuple(own) for own in by_adapter.values()}
    assert len({seed for _, seed in rows}) == len(rows) == 4 * 2
    assert [tokens for tokens, _ in rows[0::2]] == [tokens for tokens, _ in rows[1::2]]


@pytest.mark.parametrize("objective", ["answer-ce", "f1"])
def test_parts_with_directions_of_their_own_are_asked_in_one_call(
    model: str, started: list[InProcess], monkeypatch: pytest.MonkeyPatch, objective: str
) -> None:
    calls: list[list[Ask]] = []
    for name in ("score", "write"):
        whole = getattr(InProcess, name)

        def seen(self: InProcess, asks: list[Ask], *more: Any, whole: Any = whole) -> Any:
            calls.append(list(asks))
            return whole(self, asks, *more)

        monkeypatch.setattr(InProcess, name, seen)
    settings: dict[str, Any] = dict(row_directions=4, num_steps=1, objective=objective)
    here, there = (tune(model, engine, **LORA, **settings) for engine in ("transformers", "sglang"))
    if objective == "answer-ce":
        assert_equal_runs(here, there)
    assert here.losses == pytest.approx(there.losses, abs=1e-4)
    step = [asks for asks in calls if len({ask.adapter for ask in asks}) > 1]
    assert len(step) == 1
    rows: dict[str | None, set[Any]] = {}
    for ask in step[0]:
        rows.setdefault(ask.adapter, set()).add(ask.tokens)
    assert len(rows) == 8  # two signs of four directions, each with a row of its own
    assert all(len(own) == 1 for own in rows.values())
