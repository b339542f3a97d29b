"""A model folder looked at before anything is built from it: what its files of weights are, and whether its
config.json can be of them."""

from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from mezo.errors import MezoError
from mezo.models import gguf_files
from mezo.util.foreign import read_text
from mezo.util.parsing import parse_json

INDEX, ADAPTER = "model.safetensors.index.json", "adapter_config.json"
_MOST = 256 << 20  # bytes of an index; the largest models' have some ten megabytes
_MOST_TOKENS = 1 << 28  # a thousand times the largest vocabulary


def check_index(folder: Path) -> None:
    """Raises MezoError if an index in the folder names files that are not in the folder, or that are no safetensors.

    A path out of the folder would be read as weights wherever it leads, and a pickle could run code.
    """
    for path in sorted(folder.glob("*.index.json")):
        files = named_files(path)
        missing = sorted(name for name in files if not (folder / name).is_file())
        if missing:
            raise MezoError(f"{path}: names {missing[0]!r}, which is not there; copy the whole folder again")


def named_files(index: Path) -> set[str]:
    """The files that an index names. Raises MezoError unless each is the bare name of a safetensors file."""
    try:
        files = set(parse_json(read_text(index, most=_MOST))["weight_map"].values())
        wrong = [name for name in files if not _is_name(name)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise MezoError(
            f"{index}: expected a weight_map from tensors to files, found something else ({type(error).__name__})"
        ) from None
    if wrong:
        raise MezoError(f"{index}: expected names of files in this folder, found {wrong[0]!r:.60}")
    if index.name.endswith(".safetensors.index.json") and (
        unsafe := sorted(name for name in files if not name.endswith(".safetensors"))
    ):
        raise MezoError(
            f"{index}: names {unsafe[0]!r:.60} as weights: expected *.safetensors, since other formats can run code when "
            "they are opened; convert them once with transformers' save_pretrained"
        )
    return files


def check_source(source: str, config: Any) -> None:
    """Raises MezoError, before a weight is read, if a model's files lead to a pickle, another model or foreign code.

    source: a folder that `check_index` has seen, or a hub id, of which the index and the adapter's config are looked at.
    """
    folder = Path(source)
    _check_names(source, config)
    if folder.is_file():
        _check_layers(source, config, gguf_files.tensor_count(folder))
        return
    if folder.is_dir():
        if (folder / ADAPTER).is_file():
            raise MezoError(
                f"{folder}: has {ADAPTER} beside config.json, and would be loaded as the model that it names: "
                "move the adapter into a folder of its own"
            )
        check_size(folder, config)
        return
    from transformers.utils.hub import cached_file

    quietly: dict[str, Any] = {
        f"_raise_exceptions_for_{what}": False
        for what in ("missing_entries", "gated_repo", "connection_errors")
    }
    if (path := cached_file(source, INDEX, **quietly)) is not None:
        named_files(Path(path))
    if cached_file(source, ADAPTER, **quietly) is not None:
        raise MezoError(f"{source}: an adapter, not a model: give its base model with --model")


def _check_names(source: str, config: Any) -> None:
    """Of files and code in config.json."""
    weights = getattr(config, "transformers_weights", None)
    if weights is not None and not (
        _is_name(weights) and weights.endswith((".safetensors", ".safetensors.index.json"))
    ):
        raise MezoError(
            f"{source}: config.json has transformers_weights={weights!r:.60}: expected the name of a safetensors file"
        )
    for name in ("_attn_implementation", "attn_implementation", "_experts_implementation"):
        value = getattr(config, f"{name}_internal", None) or getattr(config, name, None)
        if value is not None and "/" in str(value):
            raise MezoError(
                f"{source}: config.json has {name.removeprefix('_')}={str(value)!r:.60}, code from a repository of kernels: "
                "expected a name such as sdpa; remove it"
            )


def check_tokens(name: str, tokenizer: Any) -> None:
    """Raises MezoError for a token's id that no embedding can have."""
    token, largest = max(tokenizer.get_vocab().items(), key=lambda item: item[1], default=("", 0))
    if not 0 <= largest < _MOST_TOKENS:
        raise MezoError(
            f"{name}: its tokenizer gives {token!r:.40} the id {largest:,}: expected ids below {_MOST_TOKENS:,}; the file is "
            "damaged or of another model"
        )


def reason_of(error: BaseException, what: str) -> str:
    """Why transformers could not read a model's `what`, in one line that says what was found."""
    text = str(error)
    if "weights_only" in text or "torch.load" in text:
        return "expected safetensors, found a pickle, which can run code when it is opened"
    if isinstance(error, KeyError):
        return f"the files lack {text}, which its model type needs"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if "size mismatch" in text or "mismatched" in text.lower():
        return (
            f"tensors of other shapes than config.json says: {_first_with(lines, 'size mismatch', 'shape')}"
        )
    if any("above report" in line for line in lines):
        return f"the files of {what} are not those that config.json describes"
    return lines[0] if lines else type(error).__name__


def _first_with(lines: list[str], *words: str) -> str:
    return next((line for word in words for line in lines if word in line), lines[0] if lines else "")[:200]


def _is_name(name: Any) -> bool:
    return (
        isinstance(name, str)
        and name.isprintable()
        and name == Path(name).name
        and name not in ("", "..", ".")
    )


def check_size(folder: Path, config: Any) -> None:
    """Raises MezoError if the config has more layers than the files have tensors.

    A model is built layer by layer before a weight of it is read, so this number alone can take all memory.
    """
    tensors = sum(len(shapes_of(path)) for path in folder.glob("*.safetensors"))
    _check_layers(str(folder / "config.json"), config, tensors)


def _check_layers(where: str, config: Any, tensors: int) -> None:
    layers = getattr(config.get_text_config(), "num_hidden_layers", None)
    if isinstance(layers, int) and layers > tensors:
        raise MezoError(
            f"{where}: has {layers:,} layers, and the files of weights have {tensors:,} tensors:"
            f" they are not of one model"
        )


def shapes_of(path: Path) -> dict[str, tuple[int, ...]]:
    """The tensors of a safetensors file. Raises MezoError if it is not one."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise MezoError(f"{path}: not a readable safetensors file: {' '.join(str(error).split())}") from None
