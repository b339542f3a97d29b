"""What a model is beyond its weights: its config, tokenizer, generation settings, and code of its own.

`rope_theta`, an activation, a norm's epsilon or a token's id change every loss and are in no tensor. A run records them
beside the fingerprint of its weights, and whatever goes on from it compares them, field by field.

    {"versions": {"transformers": "5.1.0", ...}, "config": {field: value}, "generation": {field: value},
     "tokenizer": {part: digest}, "code": digest or null}
"""

import json
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

from mezo.errors import MezoError
from mezo.util.foreign import read_text
from mezo.util.parsing import parse_json

# Keys of config.json that no forward pass in evaluation mode reads.
FREE = frozenset(
    {
        "_attn_implementation", "_attn_implementation_autoset", "_commit_hash", "_experts_implementation",
        "_name_or_path", "architectures", "attn_implementation", "auto_map", "chunk_size_feed_forward", "dtype",
        "finetuning_task", "id2label", "initializer_factor", "initializer_range", "label2id", "model_name",
        "name_or_path", "num_labels", "output_attentions", "output_hidden_states", "pretraining_tp", "problem_type",
        "return_dict", "task_specific_params", "torch_dtype", "torchscript", "transformers.js_config",
        "transformers_version", "transformers_weights", "use_bfloat16", "use_cache",
    }
)  # fmt: skip
_FREE_ENDINGS = ("dropout", "dropout_prob", "_pdrop", "layerdrop", "_drop")  # off in evaluation mode
_FREE_GENERATION = frozenset(
    {"_from_model_config", "transformers_version", "use_cache", "output_attentions", "output_hidden_states"}
)
_LONGEST = 200  # characters of a value; of a longer one its digest is kept
# Settings of a call, which a tokenizer keeps from the last one.
_OF_CALLS = ("truncation", "padding")


class Change(NamedTuple):
    what: str
    recorded: Any
    found: Any


def identity_of(base: Any) -> dict[str, Any]:
    """Of a LoadedModel, or an Outline: JSON values."""
    generation = getattr(base.model, "generation_config", None)
    return {
        "versions": _versions(),
        "config": _fields(base.model.config.to_dict(), FREE),
        "generation": {} if generation is None else _fields(generation.to_dict(), _FREE_GENERATION),
        "tokenizer": _tokenizer(base.tokenizer),
        "code": getattr(base, "code", None),
    }


def fields_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Of a file that describes a model: what a forward pass may depend on, by names with dots."""
    return _fields(values, FREE | _FREE_GENERATION | set(_OF_CALLS))


def check_description(name: str, recorded: Any, config: Any, tokenizer: Any) -> None:
    """As `changes` finds them, of a model whose weights are not loaded. Raises MezoError, naming what changed."""
    if not isinstance(recorded, Mapping):
        return
    found = {
        "versions": _versions(),
        "config": _fields(config.to_dict(), FREE),
        "generation": recorded.get("generation"),
        "tokenizer": _tokenizer(tokenizer),
        "code": recorded.get("code"),
    }
    if isinstance(found["generation"], Mapping) and (differing := changes(recorded, found)):
        shown = "; ".join(f"{d.what}: the run has {d.recorded}, now {d.found}" for d in differing)
        raise MezoError(f"{name}: is no longer the base of this run ({shown}); undo the change")


def changes(recorded: Any, found: Mapping[str, Any]) -> list[Change] | None:
    """What differs; None where nothing was recorded (a run of an earlier version).

    Another release of transformers has other fields with other defaults, so only those that both have are compared then.
    """
    if not isinstance(recorded, Mapping):
        return None
    same = recorded.get("versions") == found["versions"]
    differing = []
    for part, name in (
        ("config", "config.json"),
        ("generation", "generation config"),
        ("tokenizer", "tokenizer"),
    ):
        before, now = recorded.get(part), found[part]
        if not isinstance(before, Mapping):
            continue
        names = sorted({*before, *now}) if same else sorted(before.keys() & now.keys())
        for field in names:
            if part == "tokenizer" and not same and field == "rules":
                continue
            if before.get(field) != now.get(field):
                differing.append(Change(f"{name} {field}", before.get(field), now.get(field)))
    if recorded.get("code") != found["code"]:
        differing.append(Change("the model's own code", recorded.get("code"), found["code"]))
    return differing


def code_of(folder: Path) -> str | None:
    """A digest of the Python code that a model folder brings along, and of its weights; None if it brings none.

    Nothing is imported. Raises MezoError if the code is in another repository, or a file cannot be read.
    """
    mapped = _auto_map(folder)
    if not mapped:
        return None
    digest = blake2b(json.dumps(sorted(mapped)).encode(), digest_size=16)
    for path in sorted((*folder.rglob("*.py"), *folder.glob("*.safetensors"))):
        digest.update(f"{path.relative_to(folder).as_posix()} {path.stat().st_size}\n".encode())
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


def check_code(name: str, folder: Path, recorded: Any) -> None:
    """Raises MezoError, before any code of it runs, unless the model's own code and weights are those of the run.

    name: for the message. folder: its files. recorded: what the run's header says under "model".
    """
    if away := [text for text in _auto_map(folder) if "--" in text]:
        raise MezoError(
            f"{name}: its code {away[0]!r:.80} is in another repository, and cannot be compared with the run's before it "
            "runs: copy it into the model's folder"
        )
    found = code_of(folder)
    before = recorded.get("code") if isinstance(recorded, Mapping) else None
    if found is None or found == before:
        return
    said = f"has {before}" if before else "records none, so they cannot be compared before that code runs"
    raise MezoError(
        f"{name}: brings its own Python code, and its code and weights are not known to be those of the run: their "
        f"fingerprint is {found}, the run {said}; nothing of it was run"
    )


def _auto_map(folder: Path) -> list[str]:
    """The classes that config.json and tokenizer_config.json name."""
    named: list[str] = []
    for file in ("config.json", "tokenizer_config.json", "processor_config.json"):
        path = folder / file
        if not path.is_file():
            continue
        try:
            values = parse_json(read_text(path))
        except (OSError, ValueError) as error:
            raise MezoError(f"{path}: cannot be read: {' '.join(str(error).split())}") from None
        named += _texts(values.get("auto_map") if isinstance(values, dict) else None)
    return named


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)


def _fields(values: Mapping[str, Any], free: frozenset[str], prefix: str = "") -> dict[str, Any]:
    """Nested fields by names with dots."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if str(key) in free or str(key).endswith(_FREE_ENDINGS):
            continue
        if isinstance(value, Mapping):
            found |= _fields(value, free, f"{name}.")
        elif value is not None:
            found[name] = _kept(value)
    return found


def _kept(value: Any) -> Any:
    """As JSON has it, so that what was written and read again is equal."""
    text = json.dumps(value, default=str, sort_keys=True)
    return json.loads(text) if len(text) <= _LONGEST and _finite(value) else _digest(text)


def _finite(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False, default=str)
    except ValueError:
        return False
    return True


def _tokenizer(tokenizer: Any) -> dict[str, str]:
    found = {
        "kind": type(tokenizer).__name__,
        "vocabulary": _digest(json.dumps(tokenizer.get_vocab(), sort_keys=True)),
        "special tokens": _digest(json.dumps(tokenizer.special_tokens_map, default=str, sort_keys=True)),
        "chat template": _digest(json.dumps(getattr(tokenizer, "chat_template", None), default=str)),
    }
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        rules = json.loads(backend.to_str())
        found["rules"] = _digest(json.dumps({k: v for k, v in rules.items() if k not in _OF_CALLS}))
    return found


def _digest(text: str) -> str:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _versions() -> dict[str, str]:
    import tokenizers
    import transformers

    return {"transformers": transformers.__version__, "tokenizers": tokenizers.__version__}
