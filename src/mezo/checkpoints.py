"""A model folder looked at before anything is built from it: what its files of weights are, and whether its
config.json can be of them."""

from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from mezo.errors import MezoError
from mezo.parsing import parse_json

INDEX = "model.safetensors.index.json"


def check_index(folder: Path) -> None:
    """Raises MezoError if the folder's index names files that are not in the folder, or is none.

    A path out of the folder would be read as weights wherever it leads.
    """
    path = folder / INDEX
    if not path.is_file():
        return
    try:
        named = parse_json(path.read_text(encoding="utf-8"))["weight_map"]
        files = set(named.values())
        wrong = [name for name in files if not _is_name(name)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise MezoError(
            f"{path}: expected a weight_map from tensors to files, found something else ({type(error).__name__})"
        ) from None
    if wrong:
        raise MezoError(f"{path}: expected names of files in this folder, found {wrong[0]!r:.60}")
    missing = sorted(name for name in files if not (folder / name).is_file())
    if missing:
        raise MezoError(f"{path}: names {missing[0]!r}, which is not there; copy the whole folder again")


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
    layers = getattr(config.get_text_config(), "num_hidden_layers", None)
    tensors = sum(len(shapes_of(path)) for path in folder.glob("*.safetensors"))
    if isinstance(layers, int) and layers > tensors:
        raise MezoError(
            f"{folder / 'config.json'}: has {layers:,} layers, and the files of weights have {tensors:,} tensors:"
            f" they are not of one model"
        )


def shapes_of(path: Path) -> dict[str, tuple[int, ...]]:
    """The tensors of a safetensors file. Raises MezoError if it is none."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise MezoError(f"{path}: not a readable safetensors file: {' '.join(str(error).split())}") from None
