"""A model without its weights: for a run whose engine holds them, so that they are in memory once."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, GenerationConfig
from transformers.utils import GENERATION_CONFIG_NAME

from mezo.config import MeZOConfig
from mezo.engines.serving.backend import Backend
from mezo.errors import MezoError
from mezo.models.checkpoint_files import check_index, check_source, check_tokens
from mezo.models.dtypes import DTYPES
from mezo.models.load import LoadedModel, describe, load
from mezo.models.locate import quiet
from mezo.util.registry import look_up
from mezo.weights.fingerprint import fingerprint_of, fingerprint_sorted

Note = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline(LoadedModel):
    """A causal model's modules on the meta device, and the folder that its weights are in."""

    folder: Path
    config: MeZOConfig
    note: Note
    backend: Backend | None = None  # that holds the weights already; None: one is started

    def load(self) -> LoadedModel:
        """The model itself, in the memory of the host."""
        c = self.config
        return load(c.model, c.dtype, "cpu", c.trust_remote_code, self.note)

    def fingerprint(self) -> str:
        """`mezo.weights.weights.fingerprint` of the model as `load` has it, read a tensor at a time where it can be."""
        found = _sources(self.model, self.folder)
        if found is None:  # names or shapes differ: transformers knows how they are converted
            return fingerprint_of(self.load().model)
        return fingerprint_sorted(_read(self.model, found))


def outline(config: MeZOConfig, note: Note) -> Outline:
    """Describe the config's model. Raises MezoError as `load` does, and for a model that is no causal one."""
    if config.quantize is not None:
        raise MezoError(
            f"quantize={config.quantize!r} is of --engine transformers; engine {config.engine!r} takes a checkpoint that is "
            "quantised, or options of its own (--server-args)"
        )
    found = describe(config.model, config.trust_remote_code, note)
    if found.kind != "causal":
        raise MezoError(
            f"engine {config.engine!r} serves causal language models, and {config.model} is a {found.kind} one: "
            "use --engine transformers"
        )
    check_source(found.source, found.config)
    folder = Path(found.source)
    if folder.is_file():
        raise MezoError(
            f"{config.model}: a GGUF file, whose weights engine {config.engine!r} does not have as mezo reads them: use "
            "--engine transformers, or give a folder of safetensors"
        )
    if not folder.is_dir():
        folder = _fetched(found.source)
        check_index(folder)
    check_tokens(config.model, found.tokenizer)
    with quiet(), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            found.config,
            dtype=look_up(DTYPES, config.dtype, "dtype"),
            trust_remote_code=config.trust_remote_code,
        )
    if (
        folder / GENERATION_CONFIG_NAME
    ).is_file():  # else it is made of the model's own config, as where it is loaded
        with quiet():
            model.generation_config = GenerationConfig.from_pretrained(folder)
    model.tie_weights()
    model.config.use_cache = False
    model.eval().requires_grad_(False)
    return Outline(model, found.tokenizer, found.kind, config.model, folder=folder, config=config, note=note)


def _fetched(hub_id: str) -> Path:
    """The folder a hub model is kept in; engines and fingerprints read its files."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(hub_id, allow_patterns=["*.json", "*.safetensors", "*.model", "*.txt"]))
    except (OSError, ValueError) as error:
        raise MezoError(f"{hub_id}: cannot fetch the weights: {' '.join(str(error).split())}") from None


def _sources(model: Any, folder: Path) -> dict[str, tuple[Path, str]] | None:
    """By parameter: the file and the name there; None if one of them is not found as it is."""
    kept: dict[str, tuple[Path, tuple[int, ...]]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for key in file.keys():  # noqa: SIM118 (it is no dict)
                if key in kept:
                    return None
                kept[key] = (path, tuple(file.get_slice(key).get_shape()))
    prefix = model.base_model_prefix + "."
    aliases: dict[int, list[str]] = {}
    for name, tensor in model.named_parameters(remove_duplicate=False):
        aliases.setdefault(id(tensor), []).append(name)
    found = {}
    for name, tensor in model.named_parameters():
        names = [*aliases[id(tensor)], name.removeprefix(prefix)]
        key = next((n for n in names if n in kept and kept[n][1] == tuple(tensor.shape)), None)
        if key is None:
            return None
        found[name] = (kept[key][0], key)
    return found


def _read(model: Any, sources: dict[str, tuple[Path, str]]) -> Iterator[tuple[str, torch.Tensor]]:
    dtypes = {name: tensor.dtype for name, tensor in model.named_parameters()}
    for name in sorted(sources):
        path, key = sources[name]
        with safe_open(path, "pt") as file:
            yield name, file.get_tensor(key).to(dtypes[name])
