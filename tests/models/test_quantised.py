"""Bases in few bits: each way x each tuning mode is exact, replays to equal bytes, and is refused where it cannot be.

Needs bitsandbytes and torchao (`make quantised-tests`); without them the test of a package is skipped.
"""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from tests.gguf_models import tiny_llama
from tests.resumed import config_for, resume, trainer
from tests.tiny_models import same_files
from tests.toys import byte_tokenizer
from tests.zoo.judging import examples
from tests.zoo.reference import reference
from transformers import AutoModelForCausalLM

from mezo.build.setup import set_up
from mezo.engines.serving.meta_model import outline
from mezo.errors import MezoError
from mezo.models import quantised
from mezo.models.load import load
from mezo.objectives import OBJECTIVES
from mezo.resume.replay import replay
from mezo.runs.outputs.merge import merge
from mezo.scoring import pose
from mezo.tuning import tune
from mezo.types import Probe
from mezo.weights.fingerprint import fingerprint_of

EPSILON = {"lora": 1e-2, "prefix": 0.3, "head": 1e-2, "norms": 1e-2}
RATE = {"lora": 1e-3, "prefix": 1e-2, "head": 1e-3, "norms": 1e-3}
# Of sums of the same products in another order, in float32: units in the last place of the largest answer.
TOLERANCE = 64 * 2**-23


def has(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def bitsandbytes(**settings: Any) -> Any:
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(**settings)


def torchao(kind: str, **settings: Any) -> Any:
    import torchao.quantization as ao  # type: ignore[import-not-found]
    from transformers import TorchAoConfig

    return TorchAoConfig(getattr(ao, kind)(**settings))


_INT4: Any = vars(torch).get("int4")
FOUR = dict(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32)
# What a checkpoint is quantised by; a name alone: quantised while it is loaded.
WAYS: dict[str, tuple[str, Callable[[], Any] | None]] = {
    "nf4": ("bitsandbytes", None),
    "int8": ("torchao", None),
    "bitsandbytes-nf4": (
        "bitsandbytes",
        lambda: bitsandbytes(**FOUR, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True),
    ),
    "bitsandbytes-fp4": ("bitsandbytes", lambda: bitsandbytes(**FOUR, bnb_4bit_quant_type="fp4")),
    "bitsandbytes-int8": ("bitsandbytes", lambda: bitsandbytes(load_in_8bit=True)),
    "torchao-int8": ("torchao", lambda: torchao("Int8WeightOnlyConfig")),
    "torchao-int8-int8": ("torchao", lambda: torchao("Int8DynamicActivationInt8WeightConfig")),
    "torchao-fp8": ("torchao", lambda: torchao("Float8WeightOnlyConfig")),
    "torchao-intx": ("torchao", lambda: torchao("IntxWeightOnlyConfig", weight_dtype=_INT4)),
}
CASES = [
    pytest.param(
        way,
        tuning,
        marks=[
            pytest.mark.skipif(not has(package), reason=f"needs {package}"),
            *(
                []
                if (way, tuning) in (("nf4", "lora"), ("int8", "lora"), ("nf4", "norms"))
                else [pytest.mark.slow]
            ),
        ],
    )
    for way, (package, _) in WAYS.items()
    for tuning in EPSILON
]


def saved(folder: Path, way: str) -> dict[str, Any]:
    """The settings of a base in a folder that is quantised in this way, or is to be."""
    make = WAYS[way][1]
    tiny_llama(vocab_size=320).save_pretrained(folder)
    if make is not None:
        with quantised.quiet_packages():
            model = AutoModelForCausalLM.from_pretrained(folder, quantization_config=make())
            for path in folder.glob("*.safetensors"):
                path.unlink()
            model.save_pretrained(folder)
    byte_tokenizer(words=(" great", " terrible")).save_pretrained(folder)
    return {"quantize": way} if make is None else {}


def settings(folder: Path, tuning: str, way: str) -> Any:
    changes = dict(tuning=tuning, epsilon=EPSILON[tuning], learning_rate=RATE[tuning], prefix_init="random")
    return config_for(folder, **changes, **saved(folder, way), num_steps=4, eval_every=0, snapshot_every=2)


def started(config: Any) -> Any:
    return load(config.model, config.dtype, "cpu", quantize=config.quantize)


@torch.no_grad()
@pytest.mark.parametrize(("way", "tuning"), CASES)
def test_probes_are_theta_written_out_by_hand_and_the_base_stays(
    tmp_path: Path, way: str, tuning: str
) -> None:
    config = settings(tmp_path, tuning, way)
    plain, other = tune(started(config).model, config)
    base = started(config)
    before = fingerprint_of(base.model)
    bench = set_up(config, base, OBJECTIVES["candidate-ce"])
    for n, (mine, yours) in enumerate(zip(bench.weights.tunables, other.tunables, strict=True)):
        if tuning == "lora":  # B is zero at first, and would hide A's noise
            mine.tensor.add_(0.1 * torch.randn(mine.tensor.shape, generator=torch.Generator().manual_seed(n)))
            yours.tensor.copy_(mine.tensor)
    batch, stored = pose(examples("causal")), tuple(t.tensor.dtype for t in other.tunables)
    probes = [Probe(seed, sign * EPSILON[tuning]) for seed in (7, 9) for sign in (1, -1)]
    expected = np.stack([reference(plain, other.tunables, stored, batch, probe) for probe in probes])
    found = bench.engine.logprobs(batch, probes)
    largest = float(np.abs(expected).max())
    # Where activations are rounded to 8 bits, a sum in another order moves one of them now and then by a whole step, 1/127 of
    # its row's largest; of a log-probability, through the two layers, that was seen to be 8e-5 of the largest.
    tolerance = 2.0**-12 if way == "torchao-int8-int8" else TOLERANCE
    assert np.abs(found - expected).max() <= tolerance * largest
    assert np.abs(expected[0] - expected[1]).max() > 4 * tolerance * largest
    assert fingerprint_of(started(config).model) == before


@pytest.mark.parametrize(("way", "tuning"), CASES)
def test_a_run_is_resumed_and_replayed_to_equal_bytes(tmp_path: Path, way: str, tuning: str) -> None:
    config = settings(tmp_path / "base", tuning, way).model_copy(update={"schedule": "constant"})
    half = config.model_copy(update={"num_steps": 2})
    result = trainer(half, output=tmp_path / "run", artifacts=True).train()
    name = "adapter" if config.saves_adapter else "model"
    replay(tmp_path / "run", output=tmp_path / "again")
    assert same(tmp_path / "run" / name, tmp_path / "again" / name)
    whole = trainer(config, output=tmp_path / "whole", artifacts=True).train()
    further = resume(tmp_path / "run", config, artifacts=True)
    assert further.losses == whole.losses
    assert same(tmp_path / "run" / name, tmp_path / "whole" / name)
    assert result.losses == whole.losses[:2]
    if name == "model":  # a quantised checkpoint again
        assert fingerprint_of(load(tmp_path / "run" / name, "float32", "cpu").model) == fingerprint_of(
            further.model
        )


def same(a: Path, b: Path) -> bool:
    """Equal files; of safetensors by their tensors, since torchao's descriptions of them are in no order."""
    names, others = (sorted(p.name for p in folder.iterdir() if p.name != "README.md") for folder in (a, b))
    if names != others:
        return False
    return all(
        (a / n).read_bytes() == (b / n).read_bytes()
        or (n.endswith(".safetensors") and _same_tensors(a / n, b / n))
        for n in names
    )


def _same_tensors(a: Path, b: Path) -> bool:
    with safe_open(a, "pt") as one, safe_open(b, "pt") as other:
        keys = sorted(one.keys())
        return (
            one.metadata() == other.metadata()
            and keys == sorted(other.keys())
            and all(torch.equal(one.get_tensor(key), other.get_tensor(key)) for key in keys)
        )


@pytest.mark.skipif(not has("torchao"), reason="needs torchao")
def test_the_fingerprint_is_of_the_quantised_bytes(tmp_path: Path) -> None:
    saved(tmp_path, "torchao-int8")
    model = load(tmp_path, "float32", "cpu").model
    before = fingerprint_of(model)
    with torch.no_grad():
        model(torch.tensor([[5, 6, 7]]))
    assert fingerprint_of(model) == before
    weight: Any = model.model.layers[0].self_attn.q_proj.weight
    weight.qdata[0, 0] += 1
    moved = fingerprint_of(model)
    weight.qdata[0, 0] -= 1
    weight.scale[0] *= 2
    assert len({before, moved, fingerprint_of(model)}) == 3


@pytest.mark.skipif(not has("bitsandbytes"), reason="needs bitsandbytes")
def test_the_fingerprint_has_the_scales_of_bitsandbytes(tmp_path: Path) -> None:
    saved(tmp_path, "nf4")
    model = load(tmp_path, quantize="nf4").model
    before = fingerprint_of(model)
    model.model.layers[0].self_attn.q_proj.weight.quant_state.absmax[0] *= 2
    assert fingerprint_of(model) != before


@pytest.mark.parametrize(
    ("way", "mixes"),
    [
        pytest.param(
            way,
            way in ("bitsandbytes-int8", "torchao-int8-int8"),
            marks=pytest.mark.skipif(not has(package), reason=package),
        )
        for way, (package, _) in WAYS.items()
    ],
)
def test_rows_that_change_each_other_are_computed_apart(tmp_path: Path, way: str, mixes: bool) -> None:
    config = settings(tmp_path, "lora", way)
    base = started(config)
    assert quantised.mixes_rows(base.model) is mixes
    engine: Any = set_up(config, base, OBJECTIVES["candidate-ce"]).engine
    assert engine.form.plain is mixes


# ---------------------------------------------------------------- what is refused


def complaint(folder: Path, **options: Any) -> str:
    with pytest.raises(MezoError) as error:
        load(folder, "float32", "cpu", **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def quantised_by(folder: Path, method: str, **settings: Any) -> Path:
    saved(folder, "nf4")
    path = folder / "config.json"
    config = json.loads(path.read_text()) | {"quantization_config": {"quant_method": method, **settings}}
    path.write_text(json.dumps(config))
    return folder


def test_ways_that_mezo_does_not_load_are_named(tmp_path: Path) -> None:
    assert "quantised by aqlm, which mezo does not load: expected bitsandbytes" in complaint(
        quantised_by(tmp_path, "aqlm")
    )


@pytest.mark.parametrize(
    ("method", "package"), [("bitsandbytes", "bitsandbytes"), ("torchao", "torchao"), ("gptq", "gptqmodel")]
)
def test_the_package_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, package: str
) -> None:
    quantised_by(tmp_path, method)
    monkeypatch.setattr(quantised.importlib.util, "find_spec", lambda name: None)
    assert f"weights quantised by {method} needs the package {package}: pip install" in complaint(tmp_path)


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_what_needs_a_gpu_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    quantised_by(tmp_path, method, bits=4, group_size=128)
    monkeypatch.setattr(quantised.importlib.util, "find_spec", lambda name: object())
    assert f"weights quantised by {method} need a CUDA GPU, found cpu" in complaint(tmp_path)


@pytest.mark.skipif(not has("torchao"), reason="needs torchao")
def test_int4_says_what_it_needs(tmp_path: Path) -> None:
    saved(tmp_path, "nf4")
    assert "quantize='int4' needs a CUDA GPU and dtype=bfloat16, found cpu and float32" in complaint(
        tmp_path, quantize="int4"
    )


def test_what_is_quantised_already_is_not_quantised_again(tmp_path: Path) -> None:
    quantised_by(tmp_path, "torchao")
    assert "quantize='nf4', and its weights are quantised already (torchao)" in complaint(
        tmp_path, quantize="nf4"
    )


@pytest.mark.parametrize("engine", ["sglang", "vllm"])
def test_serving_engines_quantise_by_options_of_their_own(tmp_path: Path, engine: str) -> None:
    config = config_for(tmp_path, engine=engine, quantize="nf4", tuning="lora")
    with pytest.raises(MezoError, match="is of --engine transformers"):
        outline(config, lambda text: None)


@pytest.mark.parametrize("way", ["nf4", "int8"])
def test_quantised_weights_do_not_move(tmp_path: Path, way: str) -> None:
    if not has(WAYS[way][0]):
        pytest.skip(f"needs {WAYS[way][0]}")
    config = config_for(tmp_path, **saved(tmp_path, way))
    with pytest.raises(
        MezoError, match=r"tuning='full' would move model.layers.0.self_attn.q_proj.weight, whose"
    ):
        tune(started(config).model, config)
    norms = config.model_copy(update={"train": ("norm",)})
    assert len(tune(started(norms).model, norms)[1].tunables) == 3


@pytest.mark.skipif(not has("bitsandbytes"), reason="needs bitsandbytes")
def test_a_forward_leaves_the_bytes_and_nothing_is_said(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = settings(tmp_path, "lora", "nf4")
    capfd.readouterr()
    base = started(config)
    before = {name: tensor.clone() for name, tensor in quantised.contents(base.model)}
    with torch.no_grad():
        base.model(torch.tensor([[5, 6, 7]]))
    assert capfd.readouterr().out == ""
    assert all(torch.equal(tensor, before[name]) for name, tensor in quantised.contents(base.model))
    assert quantised.num_parameters(base.model) == tiny_llama(vocab_size=320).num_parameters()


@pytest.mark.skipif(not has("bitsandbytes"), reason="needs bitsandbytes")
def test_a_prefix_from_activations_is_refused(tmp_path: Path) -> None:
    config = settings(tmp_path, "prefix", "nf4").model_copy(update={"prefix_init": "activations"})
    with pytest.raises(MezoError, match="--prefix-init random"):
        tune(started(config).model, config)


# ---------------------------------------------------------------- of a GPU


@pytest.mark.gpu
@pytest.mark.parametrize("way", ["int4", "nf4", "int8"])
def test_lora_on_a_gpu(tmp_path: Path, way: str) -> None:
    pytest.importorskip(quantised._PACKAGE[way])
    saved(tmp_path / "base", "nf4")
    changes = dict(tuning="lora", quantize=way, dtype="bfloat16", device="cuda", num_steps=3, eval_every=0)
    trainer(config_for(tmp_path / "base", **changes), output=tmp_path / "run", artifacts=True).train()
    replay(tmp_path / "run", output=tmp_path / "again")
    assert same_files(tmp_path / "run" / "adapter", tmp_path / "again" / "adapter")


@pytest.mark.gpu
def test_a_gptq_checkpoint_on_a_gpu(tmp_path: Path) -> None:
    for package in ("gptqmodel", "optimum"):
        pytest.importorskip(package)
    from transformers import GPTQConfig

    saved(tmp_path / "base", "nf4")
    texts = ["the film is great and the end is not"] * 16
    way = GPTQConfig(
        bits=4, group_size=16, dataset=texts, tokenizer=byte_tokenizer(words=(" great", " terrible"))
    )
    model: Any = AutoModelForCausalLM.from_pretrained(
        tmp_path / "base", quantization_config=way, device_map={"": 0}
    )
    for path in (tmp_path / "base").glob("*.safetensors"):
        path.unlink()
    model.save_pretrained(tmp_path / "base")
    changes = dict(tuning="lora", dtype="float16", device="cuda", num_steps=3, eval_every=0)
    trainer(config_for(tmp_path / "base", **changes), output=tmp_path / "run", artifacts=True).train()
    replay(tmp_path / "run", output=tmp_path / "again")
    assert same_files(tmp_path / "run" / "adapter", tmp_path / "again" / "adapter")


@pytest.mark.skipif(not has("torchao"), reason="needs torchao")
def test_an_adapter_is_not_rounded_away_into_its_base(tmp_path: Path) -> None:
    config = settings(tmp_path / "base", "lora", "int8")
    trainer(config, output=tmp_path / "run", artifacts=True).train()
    with pytest.raises(MezoError, match="held in few bits, which would round the adapter away"):
        merge(tmp_path / "run")


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
@pytest.mark.parametrize("way", ["nf4", "int8"])
def test_the_unquantised_file_does_not_stay_in_memory(tmp_path: Path, way: str) -> None:
    if not has(WAYS[way][0]):
        pytest.skip(f"needs {WAYS[way][0]}")
    saved(tmp_path, way)
    model = load(tmp_path, quantize=way).model
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()
    assert model.num_parameters()
