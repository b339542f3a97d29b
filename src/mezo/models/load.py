"""Load any Hugging Face causal or masked language model, frozen and ready to be scored."""

import contextlib
import threading
from collections.abc import Callable
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

from mezo.errors import MezoError
from mezo.models import gguf_files, quantised
from mezo.models.checkpoint_files import check_source, check_tokens, shapes_of
from mezo.models.dtypes import DTYPES, checkpoint_dtype
from mezo.models.identity import code_of
from mezo.models.limits import with_a_row
from mezo.models.locate import folder_of, locate, quiet, reading, to_stderr
from mezo.models.offloaded import device_of
from mezo.util.memory import give_back_freed
from mezo.util.registry import look_up

Kind = Literal["causal", "masked"]


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

    source: str  # a folder, a GGUF file, or a hub id
    config: Any
    kind: Kind
    tokenizer: Any


# While it loads, transformers replaces `PreTrainedModel.tie_weights` for all threads: of two at once the second would put
# the replacement back for good, and no later model would be tied.
_ONE_AT_A_TIME = threading.Lock()


def load(
    name_or_path: str | Path,
    dtype: str = "float32",
    device: str = "auto",
    trust_remote_code: bool = False,
    note: Callable[[str], None] | None = None,
    quantize: str | None = None,
) -> LoadedModel:
    """Load a folder, a GGUF file, a hub id, or the embedded `smollm2-135m`.

    Of weights safetensors and GGUF are read: other formats can run code when they are opened. Every parameter has
    requires_grad False; the model keeps no key/value cache between calls.
    note: called for slow things (the first fetch of the embedded model); default: standard error. quantize: hold the
    matrices in few bits (`mezo.models.quantised`); a checkpoint that is quantised is loaded as it is.

    Raises MezoError if there is no such model, or it lacks a config, safetensors, a tokenizer or its
    language-model head, or if the dtype or device is not available.
    """
    name = str(name_or_path)
    torch_dtype = look_up(DTYPES, checkpoint_dtype(name) if dtype == "auto" else dtype, "dtype")
    torch_device = resolve_device(device)
    own_code = code_of(folder_of(name, code=True)) if trust_remote_code else None  # before it can run
    found = describe(name, trust_remote_code, note)
    source, config, kind, tokenizer = found.source, found.config, found.kind, found.tokenizer
    check_source(source, config)
    where, options = gguf_files.arguments(source)
    if options and quantize:
        raise MezoError(f"{name}: quantize={quantize!r} takes a checkpoint in safetensors, found a GGUF file")
    few_bits = quantised.options_for(name, config, quantize, torch_dtype, torch_device)
    # In a process that was forked, torch mends its pool of threads on the first call; transformers loads with several
    # threads, of which a second one would find no pool ("Invalid thread pool").
    torch.set_num_threads(torch.get_num_threads())
    with _ONE_AT_A_TIME, quiet(), gguf_files.without_bars(source), quantised.quiet_packages():
        auto = AutoModelForCausalLM if kind == "causal" else AutoModelForMaskedLM
        model, info = reading(
            name,
            "weights",
            lambda: auto.from_pretrained(
                where,
                config=config,
                dtype=torch_dtype,
                trust_remote_code=trust_remote_code,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # which are then refused by name
                **options,
                **gguf_files.for_weights(source),
                **few_bits,
            ),
        )
    _check_complete(name, source, kind, model, info)
    if options:
        gguf_files.check_whole(Path(source), model)
    if options or quantised.method_of(config) == "mxfp4":
        gguf_files.made_plain(model)
    model.config.use_cache = False  # scoring reads each position once: a cache is memory for nothing
    if "device_map" not in few_bits:
        model.to(torch_device)
    quantised.settle(model)
    if quantize is not None:
        quantised.let_go_of_the_file(model)
        give_back_freed()  # the unquantised matrices, one after another
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
        model(input_ids=torch.tensor([[5, 6, 7]], device=device_of(model)))
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
        source = locate(name, note or to_stderr)
        where, options = gguf_files.arguments(source)
        options["trust_remote_code"] = trust_remote_code
        config = reading(name, "config", lambda: AutoConfig.from_pretrained(where, **options))
        kind = kind_of(config, name)
        tokenizer = reading(name, "tokenizer", lambda: AutoTokenizer.from_pretrained(where, **options))
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
