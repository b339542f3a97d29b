"""Load any Hugging Face causal or masked language model, frozen and ready to be scored."""

import contextlib
import difflib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)
from transformers.utils import logging as hf_logging

from mezo.errors import MezoError
from mezo.models import smollm2
from mezo.models.checkpoint_files import check_index, check_source, check_tokens, reason_of, shapes_of
from mezo.models.identity import code_of
from mezo.models.limits import with_a_row
from mezo.util.registry import look_up

Kind = Literal["causal", "masked"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A frozen model in eval mode, its tokenizer, and what is asked of it."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    kind: Kind
    name: str  # as the person gave it
    code: str | None = None  # a digest of the Python code that it brought along, where that was run

    @property
    def pad_token_id(self) -> int:
        """What fills up a row. Never attended to, so any token that the model has a row for serves."""
        return with_a_row((self.tokenizer.pad_token_id, self.tokenizer.eos_token_id), self.model)


class Description(NamedTuple):
    """A checkpoint but for its weights."""

    source: str  # what from_pretrained is given: a folder, or a hub id
    config: Any
    kind: Kind
    tokenizer: Any


def load(
    name_or_path: str | Path,
    dtype: str = "float32",
    device: str = "auto",
    trust_remote_code: bool = False,
    note: Callable[[str], None] | None = None,
) -> LoadedModel:
    """Load a folder, a hub id, or the embedded `smollm2-135m`.

    Only safetensors are read: other formats can run code when they are opened. Every parameter has
    requires_grad False; the model keeps no key/value cache between calls.
    note: called for slow things (the first fetch of the embedded model); default: standard error.

    Raises MezoError if there is no such model, or it lacks a config, safetensors, a tokenizer or its
    language-model head, or if the dtype or device is not available.
    """
    name = str(name_or_path)
    torch_dtype = look_up(DTYPES, dtype, "dtype")
    torch_device = resolve_device(device)
    own_code = code_of(folder_of(name, code=True)) if trust_remote_code else None  # before it can run
    found = describe(name, trust_remote_code, note)
    source, config, kind, tokenizer = found.source, found.config, found.kind, found.tokenizer
    check_source(source, config)
    # In a process that was forked, torch mends its pool of threads on the first call; transformers loads with several
    # threads, of which a second one would find no pool ("Invalid thread pool").
    torch.set_num_threads(torch.get_num_threads())
    with quiet():
        auto = AutoModelForCausalLM if kind == "causal" else AutoModelForMaskedLM
        model, info = _read(
            name,
            "weights",
            lambda: auto.from_pretrained(
                source,
                config=config,
                dtype=torch_dtype,
                use_safetensors=True,
                trust_remote_code=trust_remote_code,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # which are then refused by name
            ),
        )
    _check_complete(name, source, kind, model, info)
    model.config.use_cache = False  # scoring reads each position once: a cache is memory for nothing
    model.to(torch_device)
    check_tokens(name, tokenizer)
    return LoadedModel(frozen(model), tokenizer, kind, name, own_code)


def frozen(model: Any) -> Any:
    """The model in eval mode with requires_grad False, whose forwards leave its weights as they are.

    RWKV divides weights by powers of two in its first forward in eval mode, and halves what passes between layers
    in turn, against overflow in float16: a run would save the divided ones. It does neither here.

    Raises MezoError for any other model whose forward writes its own weights.
    """
    model.eval().requires_grad_(False)
    for module in model.modules():
        if hasattr(module, "_rescale_layers"):
            module._rescale_layers = _leave_weights
    before = {name: p._version for name, p in model.named_parameters() if not p.is_inference()}
    with torch.no_grad(), contextlib.suppress(Exception):  # what a row of three tokens meets, the engine says
        model(input_ids=torch.tensor([[5, 6, 7]], device=model.device))
    now = dict(model.named_parameters())
    written = next((name for name, version in before.items() if now[name]._version != version), None)
    if written is not None:
        raise MezoError(
            f"{type(model).__name__}: its forward writes its own weights ({written}), so steps would be taken from "
            "others than those loaded: this model cannot be tuned"
        )
    return model


def _leave_weights() -> None:
    """In place of RWKV's rescaling."""


def describe(
    name: str, trust_remote_code: bool = False, note: Callable[[str], None] | None = None
) -> Description:
    """What a model is, without its weights. Raises MezoError as `load` does."""
    with quiet():
        source = _locate(name, note or _to_stderr)
        config = _read(
            name, "config", lambda: AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)
        )
        kind = kind_of(config, name)
        tokenizer = _read(
            name,
            "tokenizer",
            lambda: AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code),
        )
    if kind == "masked" and tokenizer.mask_token_id is None:
        raise MezoError(f"{name}: a masked language model, but its tokenizer has no mask token")
    if tokenizer.pad_token_id is None and tokenizer.eos_token_id is not None:
        tokenizer.pad_token = tokenizer.eos_token
    return Description(source, config, kind, tokenizer)


def resolve_device(name: str) -> torch.device:
    """`auto` (a GPU if there is one), or a torch device name. Raises MezoError if it is not available."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise MezoError(f"unknown device {name!r}: expected auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise MezoError(
                f"device {name!r} asked for, but torch {torch.__version__} sees no CUDA GPU: use cpu or auto"
            )
        if (device.index or 0) >= torch.cuda.device_count():
            raise MezoError(f"device {name!r} asked for, but there are only {torch.cuda.device_count()} GPUs")
    return device


def kind_of(config: Any, name: str) -> Kind:
    """What the checkpoint was trained as; for a bare encoder or decoder, what its type is used as."""
    if getattr(config, "is_encoder_decoder", False):
        raise MezoError(
            f"{name}: an encoder-decoder ({config.model_type}); expected a causal or a masked language model"
        )
    named = config.architectures if isinstance(config.architectures, list | tuple) else ()
    for architecture in map(str, named):
        masked = architecture in MODEL_FOR_MASKED_LM_MAPPING_NAMES.values()
        causal = architecture in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
        if masked and (not causal or not getattr(config, "causal", False)):  # XLM is either
            return "masked"
        if causal:
            return "causal"
        if architecture.endswith("ForMaskedLM"):
            return "masked"
        if architecture.endswith(("ForCausalLM", "LMHeadModel")):
            return "causal"
    if config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        return "masked"
    if config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return "causal"
    raise MezoError(
        f"{name}: model type {config.model_type!r} is neither a causal nor a masked language model"
    )


def _check_complete(name: str, source: str, kind: Kind, model: Any, info: dict[str, Any]) -> None:
    """Raises MezoError for tensors that the files lack, or have in another shape than the config."""
    if info["mismatched_keys"]:
        key, there, here = min(info["mismatched_keys"])
        raise MezoError(
            f"{name}: config.json makes {key} {tuple(here)}, and {_file_of(key, source)} has it as {tuple(there)} "
            f"({len(info['mismatched_keys'])} tensors differ): they are not of one model; copy both from one place"
        )
    if missing := sorted(info["missing_keys"]):
        base = f"{model.base_model_prefix}."
        body = [key for key in missing if key.startswith(base)]
        raise MezoError(
            f"{name}: no weights for {len(missing)} tensors of its {kind} language model ({missing[0]}, ...): they "
            "would be random; "
            + (
                "the files of weights are not whole, or not of this config.json: copy all of the checkpoint again"
                if body
                else "give a checkpoint that has its language-model head"
            )
        )


def _file_of(key: str, source: str) -> str:
    """The file that holds a tensor, for people; names in files may lack the model's prefix."""
    for path in sorted(Path(source).glob("*.safetensors")) if Path(source).is_dir() else ():
        if any(key == own or key.endswith(f".{own}") for own in shapes_of(path)):
            return path.name
    return "the file of weights"


def _locate(name: str, note: Callable[[str], None]) -> str:
    """What from_pretrained is given: a folder that was checked, or a hub id."""
    path = Path(name).expanduser()
    if path.is_dir():
        _check_folder(path)
        return str(path)
    if name == smollm2.NAME:
        return str(smollm2.folder(note))
    if path.is_file():
        raise MezoError(f"{name}: a file; expected a model folder (config.json, *.safetensors, tokenizer)")
    beside = sorted(p.name for p in path.parent.iterdir() if p.is_dir()) if path.parent.is_dir() else []
    close = [str(path.with_name(n)) for n in difflib.get_close_matches(path.name, beside, n=3, cutoff=0.75)]
    close += difflib.get_close_matches(name, [smollm2.NAME], cutoff=0.75)
    if close:
        raise MezoError(f"no model {name!r}; did you mean {' or '.join(repr(c) for c in close)}?")
    if name.count("/") > 1 or name.startswith((".", "/", "~")):  # no hub id looks like that
        found = f"; {path.parent} holds {', '.join(beside[:8])}" if beside else ""
        raise MezoError(f"no model folder {name!r}{found}")
    return name


def folder_of(name: str, *, code: bool = False) -> Path:
    """Where a model's files are: for a hub id, the folder they are kept in. code: its Python files too."""
    source = _locate(name, _to_stderr)
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import snapshot_download

    wanted = ["*.json", "*.safetensors", "*.model", "*.txt", *(["*.py"] if code else [])]
    return Path(
        _read(
            name, "files", lambda: snapshot_download(source, allow_patterns=wanted, ignore_patterns=["*/*"])
        )
    )


def _check_folder(path: Path) -> None:
    if not (path / "config.json").is_file():
        if (path / "adapter_config.json").is_file():
            raise MezoError(
                f"{path}: an adapter, not a model: give its base model with --model, this with --adapter"
            )
        if (path / "model" / "config.json").is_file():
            raise MezoError(f"{path}: no config.json in this folder; did you mean {str(path / 'model')!r}?")
        raise MezoError(f"{path}: no config.json in this folder; expected a model saved by save_pretrained")
    if any(path.glob("*.safetensors")):
        check_index(path)
        return
    unsafe = sorted(p.name for pattern in ("*.bin", "*.pt", "*.pth") for p in path.glob(pattern))
    if unsafe:
        raise MezoError(
            f"{path}: weights only as {unsafe[0]}, which can run code when opened; expected *.safetensors:"
            f" convert it once with transformers' save_pretrained"
        )
    raise MezoError(f"{path}: no *.safetensors in this folder; expected a model saved by save_pretrained")


def _read(name: str, what: str, load_it: Callable[[], Any]) -> Any:
    try:
        return load_it()
    except Exception as error:  # of whatever kind the libraries' way through what the files say ends in
        if isinstance(error, MezoError):
            raise
        said = reason_of(error, what)
        hint = (
            ""
            if Path(name).expanduser().is_dir()
            else f"; a local folder or {smollm2.NAME!r} needs no network"
        )
        if "trust_remote_code" in str(error):
            said, hint = "it brings its own Python code; if you trust that code, add --trust-remote-code", ""
        raise MezoError(f"{name}: cannot load the {what}: {said}{hint}") from error


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no warnings that repeat what the checks here say better."""
    verbosity, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(verbosity)
        if bars:
            hf_logging.enable_progress_bar()
