"""LoRA through HTTP, beside the transformers engine, and through every fault that is tried again."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.engines.serving.http_servers import Fault, ToyServer, toy_servers
from tests.tiny_models import tiny
from tests.toys import byte_tokenizer

import mezo
from mezo.config import MeZOConfig
from mezo.data import MeZODataset
from mezo.engines.http import backend, client
from mezo.engines.serving.backend import Ask
from mezo.engines.serving.subprocess import EngineDied
from mezo.errors import MezoError
from mezo.events import Observer, StepRecord
from mezo.runs import trajectory
from mezo.tasks import task_for
from mezo.training.trainer import MeZOTrainer
from mezo.util.writing import Writing

ROWS = [
    {"prompt": f"{context} {number}", "completion": answer}
    for number in range(6)
    for context, answer in (("The team of ticket", " web"), ("The team of invoice", " pay"))
]
SETTINGS: dict[str, Any] = dict(
    lora_rank=2,
    lora_alpha=4,
    learning_rate=1e-2,
    epsilon=1e-2,
    batch_size=2,
    num_steps=3,
    max_length=96,
    max_new_tokens=4,
)
DIALECTS = ["sglang", "vllm"]
SCORE = {"sglang": "/generate", "vllm": "/v1/completions"}
LOAD = {"sglang": "/load_lora_adapter", "vllm": "/v1/load_lora_adapter"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    tiny("llama-tied").save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "FIRST_WAIT", 0.001)


class Notes(Observer):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def on_note(self, text: str) -> None:
        self.notes.append(text)

    @property
    def lost(self) -> list[str]:
        return [note for note in self.notes if "is left out" in note]


def tune(model: str, servers: list[ToyServer], folder: Path, **settings: Any) -> mezo.TrainResult:
    """folder: where adapters are written for the servers."""
    addresses = [server.address for server in servers]
    options = {"adapter_folder": str(folder), **settings.pop("server_args", {})}
    given = {"observer": Notes(), **SETTINGS, **settings}
    return mezo.mezo_finetune(model, ROWS, engine="http", server=addresses, server_args=options, **given)


def grads(result: mezo.TrainResult) -> np.ndarray:
    return np.array([step.projected_grads for step in result.steps])


@pytest.fixture(scope="module")
def undisturbed(model: str, tmp_path_factory: pytest.TempPathFactory) -> dict[int, np.ndarray]:
    """Slopes of a run on one server, by the number of directions."""
    found = {}
    for directions in (1, 2):
        with toy_servers(model, "sglang") as servers:
            folder = tmp_path_factory.mktemp("adapters")
            found[directions] = grads(tune(model, servers, folder, num_directions=directions))
    return found


@pytest.fixture(scope="module")
def ten_steps(model: str) -> mezo.TrainResult:
    return mezo.mezo_finetune(model, ROWS, **{**SETTINGS, "num_steps": 10, "observer": Observer()})


@pytest.mark.parametrize("dialect", DIALECTS)
def test_ten_steps_walk_as_on_transformers(
    model: str, ten_steps: mezo.TrainResult, tmp_path: Path, dialect: str
) -> None:
    with toy_servers(model, dialect) as servers:
        there = tune(model, servers, tmp_path, num_steps=10)
        assert not servers[0].backend.names.loaded
    assert not any(tmp_path.iterdir())
    # a loss of about 6 is a sum in float32 that either engine rounds in its own order: some 20 roundings of
    # 6e-8 * 6 at each of two probes, over 2 epsilon; the walks part by that times |z| < 6, and weights round
    tolerance = 2 * 20 * 6 * 6e-8 / SETTINGS["epsilon"]
    assert np.abs(grads(ten_steps) - grads(there)).max() <= tolerance
    assert np.abs(grads(ten_steps)).max() > 100 * tolerance
    mine, theirs = adapter(ten_steps), adapter(there)
    assert mine.keys() == theirs.keys()
    bound = 10 * (SETTINGS["learning_rate"] * tolerance * 6 + 1.2e-7)
    assert max(float((mine[name] - theirs[name]).abs().max()) for name in mine) <= bound


def adapter(result: mezo.TrainResult) -> dict[str, torch.Tensor]:
    return {name: p.detach() for name, p in result.model.named_parameters() if ".lora_" in name}


@pytest.mark.parametrize("directions", [1, 2])
def test_several_servers_share_a_step(
    model: str, tmp_path: Path, undisturbed: dict[int, np.ndarray], directions: int
) -> None:
    """Of both kinds even: rows are computed one by one here, so the losses are equal to the bit."""
    with toy_servers(model, "sglang", "vllm") as servers:
        result = tune(model, servers, tmp_path, num_directions=directions)
        scored = [server.asked.count(SCORE[server.kind]) for server in servers]
        assert min(scored) >= SETTINGS["num_steps"]
    assert np.array_equal(grads(result), undisturbed[directions])


FAULTS = [
    ("score", Fault("", 500, times=2, after=1)),
    ("score", Fault("", 429, after=1)),
    ("score", Fault("", "reset", times=3)),
    ("score", Fault("", "lost", after=1)),
    ("score", Fault("", "silence", after=1)),
    ("score", Fault("", "restart", after=1)),
    ("load", Fault("", 503)),
    ("load", Fault("", "lost", after=2)),
]


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(("where", "fault"), FAULTS, ids=lambda v: v if isinstance(v, str) else str(v.what))
def test_trouble_that_passes_changes_nothing(
    model: str,
    tmp_path: Path,
    undisturbed: dict[int, np.ndarray],
    dialect: str,
    where: str,
    fault: Fault,
) -> None:
    path = (SCORE if where == "score" else LOAD)[dialect]
    fault = Fault(path, fault.what, fault.times, fault.after)
    notes = Notes()
    with toy_servers(model, dialect, faults=((0, fault),)) as servers:
        result = tune(model, servers, tmp_path, observer=notes, server_args={"timeout": 0.5})
        assert servers[0].faults[0].times == 0  # it happened
        assert not servers[0].backend.names.loaded
    assert not notes.lost
    assert np.array_equal(grads(result), undisturbed[1])


@pytest.mark.parametrize("what", ["die", 500, "silence"])
@pytest.mark.parametrize("where", ["score", "load"])
def test_a_lost_server_s_share_is_computed_by_the_others(
    model: str, tmp_path: Path, undisturbed: dict[int, np.ndarray], where: str, what: str | int
) -> None:
    path = (SCORE if where == "score" else LOAD)["vllm"]
    notes = Notes()
    fault = Fault(path, what, times=100, after=1 if where == "score" else 3)
    with toy_servers(model, "sglang", "vllm", faults=((1, fault),)) as servers:
        result = tune(
            model,
            servers,
            tmp_path,
            num_directions=2,
            observer=notes,
            server_args={"timeout": 0.5, "retries": 1},
        )
        (note,) = notes.lost
        assert note.startswith(f"warning: {servers[1].address} is left out: ")
        assert note.endswith("1 of 2 go on")
        assert not servers[0].backend.names.loaded
    assert np.array_equal(grads(result), undisturbed[2])


def test_a_server_that_comes_back_is_used_again(
    model: str, tmp_path: Path, undisturbed: dict[int, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "RETURN_SECONDS", 0.0)
    notes = Notes()
    fault = Fault("/generate", 500, times=2, after=1)
    with toy_servers(model, "vllm", "sglang", faults=((1, fault),)) as servers:
        result = tune(model, servers, tmp_path, num_directions=2, observer=notes, server_args={"retries": 1})
        assert servers[1].asked.count("/generate") > 3
        assert f"{servers[1].address} is back" in notes.notes
        assert not servers[1].backend.names.loaded  # the adapters of then too
    assert len(notes.lost) == 1
    assert np.array_equal(grads(result), undisturbed[2])


def test_a_server_that_is_not_there_at_the_start_is_left_out(model: str, tmp_path: Path) -> None:
    notes = Notes()
    with toy_servers(model, "sglang", "sglang") as servers:
        servers[0].stop()
        tune(model, servers, tmp_path, observer=notes)
        assert notes.lost[0].startswith(f"warning: {servers[0].address} is left out: the connection failed")


def test_without_a_server_the_run_ends_and_can_go_on(
    model: str, tmp_path: Path, undisturbed: dict[int, np.ndarray]
) -> None:
    run, adapters = tmp_path / "run", tmp_path / "adapters"
    with toy_servers(model, "sglang") as servers:

        class Killer(Observer):
            def on_step(self, record: StepRecord) -> None:
                if record.step == 1:
                    servers[0].faults.append(Fault("/generate", "die"))

        with pytest.raises(EngineDied) as caught:
            train(model, servers, adapters, run, observer=Killer())
        assert "\n" not in str(caught.value)
        assert servers[0].address in str(caught.value)
        assert "up to the last whole step" in str(caught.value)
    assert len(trajectory.read(run / "trajectory.mezo").records) == 2
    assert not any(adapters.iterdir())
    with toy_servers(model, "vllm", port=servers[0].server_address[1]) as again:
        train(model, again, adapters, run, observer=Observer(), resume=run)
    found = trajectory.read(run / "trajectory.mezo").records
    assert np.array_equal(found, undisturbed[1].astype(np.float32))  # as they are recorded


def train(model: str, servers: list[ToyServer], folder: Path, output: Path, **given: Any) -> None:
    """What `tune` does, without the files that a run ends with."""
    config = MeZOConfig.build(
        model=model,
        task="prompt-completion",
        engine="http",
        tuning="lora",
        server=[server.address for server in servers],
        server_args={"adapter_folder": str(folder)},
        **SETTINGS,
    )
    rows = MeZODataset(ROWS, task=task_for(config.task, config.label_words, config.template))
    made = MeZOTrainer(config, train=rows, output=output, artifacts=False, **given)
    try:
        made.train()
    finally:
        made.close()


def test_the_tuned_adapter_can_stay_on_the_servers(model: str, tmp_path: Path) -> None:
    with toy_servers(model, *DIALECTS) as servers:
        result = tune(model, servers, tmp_path, serve_as="tickets")
        result.engine.close()
        row = tuple(result.tokenizer(ROWS[0]["prompt"]).input_ids)
        texts = [server.backend.write([Ask(row, adapter="tickets")], Writing(4)) for server in servers]
        assert [server.backend.names.loaded for server in servers] == [{"tickets"}] * 2
        assert texts[0] == texts[1]
        assert [path.name for path in tmp_path.iterdir()] == ["tickets"]  # servers may read it again
        with pytest.raises(MezoError, match=r"there is an adapter in .*tickets already"):
            tune(model, servers, tmp_path, serve_as="tickets")


@pytest.mark.parametrize("dialect", DIALECTS)
def test_objectives_of_written_text(model: str, tmp_path: Path, dialect: str) -> None:
    settings = {**SETTINGS, "objective": "f1", "num_steps": 2, "observer": Observer()}
    here = mezo.mezo_finetune(model, ROWS, **settings)
    with toy_servers(model, dialect) as servers:
        assert tune(model, servers, tmp_path, **settings).losses == here.losses
