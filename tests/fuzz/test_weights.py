"""Files of weights, and what describes them: adapters, models, snapshots. Broken bytes, twisted values, hostile
sizes: a clear error, or what was there."""

import copy
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.fuzz.corpus import broken, twisted
from tests.fuzz.harness import dumped, survive
from tests.resumed import base
from tests.tiny_models import tiny
from tests.toys import byte_tokenizer

from mezo.config import MeZOConfig
from mezo.errors import MezoError
from mezo.models import load
from mezo.resume.start_file import rows_of
from mezo.runs import snapshots
from mezo.runs.folder import RunFolder
from mezo.runs.snapshots import Snapshot, State
from mezo.tuning import save, tune, with_adapter
from mezo.tuning.label_rows import LabelRows, digest_of, write_rows
from mezo.weights.weights import Weights

FAST, WHOLE = 4, 150
ADAPTERS = ("lora", "prefix", "norms")
ADAPTER_CONFIG, ADAPTER = "adapter_config.json", "adapter_model.safetensors"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A saved adapter of each kind, and a model."""
    into = tmp_path_factory.mktemp("sound")
    for tuning in ADAPTERS:
        model, weights = tune(tiny("llama"), MeZOConfig.build(tuning=tuning, lora_rank=2, prefix_tokens=2))
        weights.update_([1], [0.1])
        save(model, byte_tokenizer(), into / tuning)
    base(into / "model")
    return {path.name: path for path in into.iterdir()}


def _copied(sound: Path, to: Path) -> Path:
    return Path(shutil.copytree(sound, to / sound.name, dirs_exist_ok=True))


def _contents(path: Path, count: int) -> list[bytes]:
    raw = path.read_bytes()
    cases = list(broken(raw[:3000], count))  # what a file begins with is what says what it is
    cases = [case + raw[3000:] for case in cases]
    if path.suffix == ".json":
        cases += map(dumped, twisted(json.loads(raw), 2 * count))
    return cases


def _fuzz_adapter(sound: Path, name: str, to: Path, count: int) -> int:
    folder, bare = _copied(sound, to), tiny("llama")

    def read(data: bytes) -> None:
        (folder / name).write_bytes(data)
        model = with_adapter(copy.deepcopy(bare), folder)
        with torch.no_grad():
            model(input_ids=torch.tensor([[5, 6, 7]]))

    return survive(_contents(sound / name, count), read)


ADAPTER_FILES = [(tuning, name) for tuning in ADAPTERS for name in (ADAPTER_CONFIG, ADAPTER)]


@pytest.mark.parametrize(("tuning", "name"), ADAPTER_FILES)
def test_some_broken_adapters(tuning: str, name: str, folders: dict[str, Path], tmp_path: Path) -> None:
    assert _fuzz_adapter(folders[tuning], name, tmp_path, FAST) >= FAST


@pytest.mark.slow
@pytest.mark.parametrize(("tuning", "name"), ADAPTER_FILES)
def test_many_broken_adapters(tuning: str, name: str, folders: dict[str, Path], tmp_path: Path) -> None:
    assert _fuzz_adapter(folders[tuning], name, tmp_path, WHOLE) >= WHOLE


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("r", 10**9),
        ("r", -1),
        ("rank_pattern", {"q_proj": 10**9}),
        ("rank_pattern", {"(a+)+$": 2}),
        ("layer_replication", [[0, 10**6]]),
        ("megatron_config", {"a": 1}),
        ("init_lora_weights", "pissa"),
        ("peft_type", "ADAPTION_PROMPT"),
        ("lora_alpha", 10**400),
        ("bias", ["none"]),
    ],
)
def test_hostile_settings_of_an_adapter_are_refused(
    name: str, value: Any, folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = _copied(folders["lora"], tmp_path)
    settings = json.loads((folder / ADAPTER_CONFIG).read_text())
    (folder / ADAPTER_CONFIG).write_text(json.dumps({**settings, name: value}))
    with pytest.raises(MezoError, match=f"{ADAPTER_CONFIG}.*{name}"):
        with_adapter(tiny("llama"), folder)


def test_expressions_of_an_adapter_are_not_matched(folders: dict[str, Path], tmp_path: Path) -> None:
    """The tensors say which modules have factors."""
    folder = _copied(folders["lora"], tmp_path)
    settings = json.loads((folder / ADAPTER_CONFIG).read_text())
    hostile = {"target_modules": "(.*a.*)*!", "exclude_modules": "(.*a.*)*!", "layers_pattern": "(.*)*!"}
    (folder / ADAPTER_CONFIG).write_text(json.dumps({**settings, **hostile}))
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        expected = with_adapter(tiny("llama"), folders["lora"])(input_ids=ids).logits
        assert torch.equal(with_adapter(tiny("llama"), folder)(input_ids=ids).logits, expected)


@pytest.mark.parametrize("change", ["one is missing", "one is renamed", "another shape", "of another model"])
def test_factors_that_are_not_all_there_are_not_made_up(
    change: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = _copied(folders["lora"], tmp_path)
    tensors = load_file(folder / ADAPTER)
    name = min(name for name in tensors if "lora_B" in name)
    tensor = tensors.pop(name)
    if change == "one is renamed":
        tensors[name.replace("lora_B", "lora_C")] = tensor
    elif change == "another shape":
        tensors[name] = torch.zeros(3, 3)
    elif change == "of another model":
        tensors = {key.replace("layers.0", "layers.77"): value for key, value in tensors.items()}
    save_file(tensors, folder / ADAPTER)
    with pytest.raises(MezoError, match=f"{folder}: this adapter does not fit the model"):
        with_adapter(tiny("llama"), folder)


# ---------------------------------------------------------------- models

MODEL_FILES = (
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
)


def _fuzz_model(sound: Path, name: str, to: Path, count: int) -> int:
    folder = _copied(sound, to)

    def read(data: bytes) -> None:
        (folder / name).write_bytes(data)
        load.load(folder)

    return survive(_contents(sound / name, count), read)


@pytest.mark.parametrize("name", MODEL_FILES)
def test_some_broken_models(name: str, folders: dict[str, Path], tmp_path: Path) -> None:
    assert _fuzz_model(folders["model"], name, tmp_path, 2) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("name", MODEL_FILES)
def test_many_broken_models(name: str, folders: dict[str, Path], tmp_path: Path) -> None:
    assert _fuzz_model(folders["model"], name, tmp_path, 60) >= 60


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_hidden_layers", 10**9),
        ("hidden_size", 10**9),
        ("vocab_size", 10**12),
        ("intermediate_size", 10**10),
        ("max_position_embeddings", 10**15),
        ("num_attention_heads", 0),
    ],
)
def test_a_config_of_hostile_sizes(name: str, value: int, folders: dict[str, Path], tmp_path: Path) -> None:
    folder = _copied(folders["model"], tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, name: value}))
    assert survive([folder], load.load) == 1


@pytest.mark.parametrize("file", ["../outside.safetensors", "/etc/hostname", "a\x00b", "..", 3, None, ["x"]])
def test_an_index_that_names_files_elsewhere(file: Any, folders: dict[str, Path], tmp_path: Path) -> None:
    folder = _copied(folders["model"], tmp_path)
    tensors = load_file(folder / "model.safetensors")
    shutil.move(folder / "model.safetensors", tmp_path / "outside.safetensors")
    save_file(tensors, folder / "other.safetensors")
    index = {"metadata": {"total_size": 9}, "weight_map": dict.fromkeys(tensors, file)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(MezoError, match=r"model\.safetensors\.index\.json"):
        load.load(folder)


# ---------------------------------------------------------------- snapshots


def _snapshot(folder: Path) -> Path:
    weights = Weights([("a", torch.arange(6.0)), ("b", torch.ones(2, 2, dtype=torch.bfloat16))])
    state = State(3, "t", {"seen": [1.0, (2, "x")]}, "sgd", None, None)
    return snapshots.write(folder, weights, state)


def _resealed(path: Path, count: int) -> Iterator[bytes]:
    """Snapshots whose checksum fits whatever they say."""
    from safetensors import safe_open
    from safetensors.torch import save

    with safe_open(path, "pt") as file:
        values = json.loads(file.metadata()["mezo"])
    tensors = load_file(path)
    for value in twisted(values, count):
        text = json.dumps(value)
        yield save(tensors, {"mezo": text, "checksum": snapshots._checksum(text, tensors.items())})


def _fuzz_snapshots(folder: Path, count: int) -> int:
    path = _snapshot(folder)

    def read(data: bytes) -> None:
        path.write_bytes(data)
        weights = Weights([("a", torch.zeros(6)), ("b", torch.zeros(2, 2, dtype=torch.bfloat16))])
        Snapshot(path).restore_(weights)

    cases = [*broken(path.read_bytes(), count), *_resealed(path, count)]
    return survive(cases, read)


def test_some_broken_snapshots(tmp_path: Path) -> None:
    assert _fuzz_snapshots(tmp_path / "s", 15) == 30


@pytest.mark.slow
def test_many_broken_snapshots(tmp_path: Path) -> None:
    assert _fuzz_snapshots(tmp_path / "s", 600) == 1200


def test_broken_rows_to_start_from(tmp_path: Path) -> None:
    """The digest that a stranger's trajectory records is of a stranger's file."""
    file, sound = RunFolder(tmp_path).start, LabelRows(torch.tensor([5, 6]), torch.ones(2, 32))

    def read(data: bytes) -> None:
        file.write_bytes(data)
        rows = rows_of(tmp_path, {"start": {"rows": digest_of(data)}})
        assert rows is not None
        write_rows(tiny("llama"), rows)

    assert survive(broken(sound.to_bytes(), FAST * 10), read) >= FAST
    for rows in (
        LabelRows(torch.tensor([5, 300]), torch.ones(2, 32)),
        LabelRows(torch.tensor([-1, 6]), torch.ones(2, 32)),
        LabelRows(torch.tensor([5, 6]), torch.ones(2, 31)),
        LabelRows(torch.tensor([5, 6, 7]), torch.ones(2, 32)),
    ):
        with pytest.raises(MezoError):
            read(rows.to_bytes())
