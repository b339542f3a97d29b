"""Files of somebody else: no code of theirs runs, no pickle is opened, and nothing that changed passes unseen."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.resumed import base, config_for, resume, trainer

from mezo.cli import main
from mezo.config import MeZOConfig
from mezo.errors import MezoError
from mezo.events import Observer
from mezo.models.load import load
from mezo.resume.publishing import load_finetuned, publish
from mezo.resume.verify import verify
from mezo.runs import trajectory
from mezo.runs.folder import RunFolder
from mezo.runs.metrics_file import read_metrics

OWN = """
from pathlib import Path
Path({mark!r}).write_text("ran")
from transformers import LlamaConfig, LlamaForCausalLM
class OwnConfig(LlamaConfig):
    model_type = "own"
class Own(LlamaForCausalLM):
    config_class = OwnConfig
"""


def changed(path: Path, **values: Any) -> None:
    found = json.loads(path.read_text())
    path.write_text(json.dumps({**found, **values}))


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """(a model that brings code, the file which that code writes)."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    model, mark = base(tmp_path / "own"), tmp_path / "mark"
    (model / "modeling_own.py").write_text(OWN.format(mark=str(mark)))
    auto = {"AutoConfig": "modeling_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.Own"}
    changed(model / "config.json", model_type="own", auto_map=auto)
    return model, mark


def file_naming(model: Path, folder: Path) -> Path:
    path = folder / "from-somebody.mezo"
    config = MeZOConfig(model=str(model), num_steps=1).model_dump(mode="json") | {"trust_remote_code": True}
    header = {"noise": trajectory_noise(), "config": config, "base_fingerprint": "x"}
    with trajectory.TrajectoryWriter(path, header, 1) as writer:
        writer.append([0.5])
    return path


def trajectory_noise() -> int:
    from mezo.noise.spec import VERSION

    return VERSION


def test_a_trajectory_runs_no_code_of_its_base(own: tuple[Path, Path], tmp_path: Path) -> None:
    model, mark = own
    path = file_naming(model, tmp_path)
    with pytest.raises(MezoError, match="add --trust-remote-code"):
        load_finetuned(path, observer=Observer())
    with pytest.raises(MezoError, match="nothing of it was run"):  # trusted, and not the run's
        load_finetuned(path, observer=Observer(), trust_remote_code=True)
    assert main(["replay", str(path), "--output", str(tmp_path / "out"), "--trust-remote-code"]) == 2
    assert main(["trajectory", "show", str(path)]) == 0
    assert not mark.exists()
    assert not (tmp_path / "out").exists()


def test_whether_code_may_run_is_never_saved() -> None:
    config = MeZOConfig(trust_remote_code=True)
    assert config.model_dump(mode="json")["trust_remote_code"] is False
    assert "trust_remote_code: false" in config.to_yaml()


@pytest.mark.parametrize(
    ("line", "flag"),
    [
        ("server: ['http://127.0.0.1:9']", "--server"),
        ("server_args: {a: 1}", "--server-args"),
        ("task: 'os:path'", "--task"),
        ("objective: 'os:getcwd'", "--objective"),
    ],
)
def test_what_a_settings_file_cannot_ask_for(line: str, flag: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(line)
    with pytest.raises(MezoError, match=f"which a file cannot ask for.* give {flag} yourself"):
        MeZOConfig.load(path)
    name = flag.removeprefix("--").replace("-", "_")
    value = getattr(MeZOConfig.read(path), name)
    assert getattr(MeZOConfig.load(path, **{name: value}), name) == value
    assert main(["train", "--config", str(path), "--output", str(tmp_path / "run")]) == 2
    assert not (tmp_path / "run").exists()


def test_a_settings_file_does_not_trust(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("trust_remote_code: true")
    assert MeZOConfig.load(path).trust_remote_code is False
    assert MeZOConfig.load(path, trust_remote_code=True).trust_remote_code is True


# ---------------------------------------------------------------- weights


def by_index(model: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    (model / "model.safetensors").rename(model / "other.safetensors")
    torch.save(tensors, model / "weights.bin")
    index = {"metadata": {}, "weight_map": dict.fromkeys(tensors, "weights.bin")}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))


def by_named_index(model: Path) -> None:
    by_index(model)
    (model / "model.safetensors.index.json").rename(model / "x.safetensors.index.json")
    changed(model / "config.json", transformers_weights="x.safetensors.index.json")


def by_name(model: Path) -> None:
    torch.save(load_file(model / "model.safetensors"), model / "adapter_model.bin")
    changed(model / "config.json", transformers_weights="adapter_model.bin")


def by_content(model: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()  # the tensors are a view of the file
    torch.save(tensors, model / "model.safetensors")


def by_adapter(model: Path) -> None:
    torch.save({}, model / "adapter_model.bin")
    (model / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "base_model_name_or_path": str(model)})
    )


@pytest.mark.parametrize("spoil", [by_index, by_named_index, by_name, by_content, by_adapter])
def test_no_pickle_is_opened(
    spoil: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = base(tmp_path / "model")
    spoil(model)
    monkeypatch.setattr(torch, "load", lambda *args, **options: pytest.fail("torch.load was reached"))
    with pytest.raises(MezoError) as caught:
        load(model)
    assert "weights_only" not in str(caught.value)


def test_kernels_of_a_repository_are_refused(tmp_path: Path) -> None:
    model = base(tmp_path / "model")
    changed(model / "config.json", attn_implementation="somebody/kernels")
    with pytest.raises(MezoError, match="kernels"):
        load(model)


def test_an_id_that_no_embedding_has(tmp_path: Path) -> None:
    model = base(tmp_path / "model")
    found = json.loads((model / "tokenizer.json").read_text())
    found["model"]["vocab"]["zzz"] = 4_000_000_000
    (model / "tokenizer.json").write_text(json.dumps(found))
    with pytest.raises(MezoError, match="the id 4,000,000,000"):
        load(model)


# ---------------------------------------------------------------- beyond the weights


def template(model: Path) -> None:
    (model / "chat_template.jinja").write_text("{{ messages }}")


CHANGES: dict[str, tuple[Callable[[Path], None], str | None]] = {
    "an activation": (lambda m: changed(m / "config.json", hidden_act="gelu"), "config.json hidden_act"),
    "an epsilon": (lambda m: changed(m / "config.json", rms_norm_eps=0.1), "config.json rms_norm_eps"),
    "a generation": (
        lambda m: changed(m / "generation_config.json", repetition_penalty=2.0),
        "generation config repetition_penalty",
    ),
    "a template": (template, "tokenizer chat template"),
    "a version": (lambda m: changed(m / "config.json", transformers_version="1.2.3"), None),
    "a type": (
        lambda m: changed(m / "config.json", dtype="bfloat16", architectures=["LlamaForCausalLM"]),
        None,
    ),
    "dropout": (lambda m: changed(m / "config.json", attention_dropout=0.5), None),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_beside_the_weights_is_refused_by_name(name: str, tmp_path: Path) -> None:
    change, what = CHANGES[name]
    model, run = base(tmp_path / "model"), tmp_path / "run"
    trainer(config_for(model, num_steps=2, eval_every=0, schedule="constant"), output=run).train()
    published = publish(run, tmp_path / "p.mezo", base="somebody/model")
    change(model)
    longer = MeZOConfig.load(RunFolder(run).config, num_steps=3)
    if what is None:
        resume(run, longer)
        assert len(read_metrics(RunFolder(run).metrics).steps) == 3
        load_finetuned(published, model=str(model), observer=Observer())
        return
    for again in (
        lambda: resume(run, longer),
        lambda: load_finetuned(published, model=str(model), observer=Observer()),
    ):
        with pytest.raises(MezoError, match=what):
            again()


def test_a_base_that_changed_is_not_published(tmp_path: Path) -> None:
    model, run = base(tmp_path / "model"), tmp_path / "run"
    trainer(config_for(model, num_steps=2, eval_every=0), output=run).train()
    changed(model / "config.json", rms_norm_eps=0.1)
    with pytest.raises(MezoError, match=r"config\.json rms_norm_eps: the run has 1e-06, now 0\.1"):
        publish(run, tmp_path / "p.mezo", base="somebody/model")
    assert not (tmp_path / "p.mezo").exists()


@pytest.mark.parametrize(
    ("file", "values"),
    [("adapter_config.json", {"lora_alpha": 99}), ("config.json", {"rms_norm_eps": 0.5})],
)
def test_what_is_beside_the_saved_weights_is_verified(
    file: str, values: dict[str, Any], tmp_path: Path
) -> None:
    tuning = "lora" if "adapter" in file else "full"
    model, run = base(tmp_path / "model"), tmp_path / "run"
    trainer(config_for(model, num_steps=2, eval_every=0, tuning=tuning), output=run, artifacts=True).train()
    assert verify(run, weights=True, observer=Observer())
    changed(run / ("adapter" if tuning == "lora" else "model") / file, **values)
    with pytest.raises(MezoError, match=f"has {next(iter(values))}="):
        verify(run, weights=True, observer=Observer())


def test_a_run_of_an_earlier_version_goes_on_with_a_note(tmp_path: Path) -> None:
    model, run = base(tmp_path / "model"), tmp_path / "run"
    trainer(config_for(model, num_steps=2, eval_every=0, schedule="constant"), output=run).train()
    path = RunFolder(run).trajectory
    found = trajectory.read(path)
    path.unlink()
    header = {name: value for name, value in found.header.items() if name != "model"}
    trajectory.TrajectoryWriter.resume(path, header, found.records).close()
    notes: list[str] = []

    class Notes(Observer):
        def on_note(self, text: str) -> None:
            notes.append(text)

    resume(run, MeZOConfig.load(RunFolder(run).config, num_steps=3), observer=Notes())
    assert any("earlier version" in note for note in notes)


def test_a_refused_start_leaves_no_run(tmp_path: Path) -> None:
    made = trainer(config_for(base(tmp_path / "model"), num_steps=2), output=tmp_path / "run")
    made._fresh.header["wrong"] = float("inf")
    with pytest.raises(ValueError, match="JSON"):
        made.train()
    assert not (tmp_path / "run").exists()
