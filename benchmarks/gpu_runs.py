"""Whole runs on a GPU: the demo and its replay on the CPU, and a LoRA step on the engines that are installed."""

import importlib.util
import json
import sys
import tempfile
import time
from pathlib import Path
from subprocess import run

from benchmarks.gpu_child import Settings
from benchmarks.gpu_figures import Figure
from benchmarks.processes import ROOT, environment
from mezo.models import smollm2

ENGINES = ("sglang", "vllm")


def replayed(settings: Settings) -> None:
    """All weights of SmolLM2-135M in bfloat16, by the demo's settings; the bytes of its replay without a GPU."""
    steps = 3 if settings.dry else 200
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model, name = _model(settings, folder)
        what = f"{name}, {steps} steps of the demo"
        train = ["train", "--config", str(ROOT / "examples" / "demo.yaml"), "--model", model]
        train += ["--dtype", "bfloat16", "--steps", str(steps), "--eval-every", "0"]
        began = time.monotonic()
        _mezo([*train, "--output", str(folder / "run"), "--device", "cpu" if settings.dry else "auto"])
        Figure(what, "seconds, with loading and saving", time.monotonic() - began).say()
        began = time.monotonic()
        _mezo(["replay", str(folder / "run"), "--output", str(folder / "again")], CUDA_VISIBLE_DEVICES="")
        Figure(what, "seconds of the replay on the CPU", time.monotonic() - began).say()
        ours, again = (_bytes(folder / "run" / "model"), _bytes(folder / "again" / "model"))
        Figure(what, "equal bytes to the replay", float(bool(ours) and ours == again), at_least=1).say()


def _model(settings: Settings, folder: Path) -> tuple[str, str]:
    """(what --model takes, its name). Without SmolLM2 at hand, random weights of its shape."""
    if settings.model:
        return settings.model, Path(settings.model).name
    if not settings.dry and (smollm2.cache_folder() / "models" / smollm2.NAME / "config.json").is_file():
        return smollm2.NAME, smollm2.NAME
    from tests.toys import byte_tokenizer
    from transformers import LlamaConfig, LlamaForCausalLM, set_seed

    tokenizer = byte_tokenizer(words=(" great", " terrible"))
    hidden, layers = (24, 1) if settings.dry else (576, 30)
    config = LlamaConfig(
        vocab_size=len(tokenizer) if settings.dry else 49152,
        hidden_size=hidden,
        intermediate_size=hidden * 8 // 3,
        num_hidden_layers=layers,
        num_attention_heads=9 if not settings.dry else 3,
        num_key_value_heads=3,
        tie_word_embeddings=True,
    )
    set_seed(0)
    made = folder / "random"
    LlamaForCausalLM(config).save_pretrained(made)
    tokenizer.save_pretrained(made)
    return str(made), f"random weights of {smollm2.NAME}'s shape" if not settings.dry else "tiny"


def served(settings: Settings) -> None:
    """A step of LoRA on each engine: slopes and adapters beside those of transformers."""
    found = [name for name in ENGINES if importlib.util.find_spec(name) is not None]
    if not found and not settings.dry:
        print("left out: neither sglang nor vllm is installed", flush=True)
        return
    with tempfile.TemporaryDirectory() as scratch:
        model, name = _model(settings, Path(scratch))
        for engine in found or ["transformers"]:
            command = [sys.executable, "-m", "benchmarks", "engines-agree", "--engine", "transformers"]
            command += ["--engine", engine] if engine != "transformers" else []
            command += ["--", "--model", model, "--task", "demo", "--tuning", "lora", "--steps", "1"]
            command += ["--learning-rate", "1e-3", "--epsilon", "1e-2", "--batch-size", "4"]
            command += ["--eval-every", "0", "--device", "cpu"] if settings.dry else ["--eval-every", "0"]
            done = run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
            if done.returncode:
                said = (done.stderr.strip().splitlines() or ["no word"])[-1][:200]
                Figure(f"{name} on {engine}", "a LoRA step", None, why=said).say()
                continue
            apart = json.loads(done.stdout.strip().splitlines()[-1])
            for key in ("largest_slope", "slopes_apart", "largest_weight", "weights_apart"):
                Figure(f"{name} on {engine}, a LoRA step", key.replace("_", " "), apart[key]).say()


def _mezo(arguments: list[str], **variables: str) -> None:
    """Run the command; its last line is this process's, if it fails."""
    command = [sys.executable, "-m", "mezo", *arguments]
    done = run(command, cwd=ROOT, env=environment(**variables), capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        sys.exit(f"mezo {arguments[0]}: {said}")


def _bytes(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.glob("*.safetensors"))}
