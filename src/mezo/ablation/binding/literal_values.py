"""Values that are no phrase and no number: which layers are tuned, a prompt's template, label words."""

import re
from typing import Any

from mezo.ablation.binding.model_facts import facts_of
from mezo.ablation.binding.part import Reading, Refused
from mezo.ablation.binding.tokens import tokens
from mezo.config import MeZOConfig

# peft takes what of a list a model has; these are the linear layers of Llama, OPT, BERT, GPT-2 and relatives.
LINEAR = (
    *(
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "out_proj",
        "query",
        "key",
        "value",
        "c_attn",
        "query_key_value",
    ),
    *(
        "qkv_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
        "fc1",
        "fc2",
        "dense",
        "c_fc",
        "c_proj",
        "dense_h_to_4h",
    ),
    *("dense_4h_to_h", "gate_up_proj"),
)
_EMBEDDINGS = "embed|wte|wpe"
_NAMED = {  # what parts of a model are called in the architectures there are
    "attention": r"attn|attention",
    "mlp|ffn|feedforward": r"mlp|fc1|fc2|feed_forward|ffn|intermediate|\d\.output\.dense",
    "bias|biases": r"bias$",
    "norm|layernorm": r"norm|ln_|layer_norm|LayerNorm",
    "embedding": _EMBEDDINGS,
}
MODULES: dict[str, dict[str, Any]] = {
    **{
        f"only? the? {words} layer|parameter|weight|term? only?": {"train": (p,)}
        for words, p in _NAMED.items()
    },
    "only? the? layer norm layer|parameter|weight? only?": {"train": (_NAMED["norm|layernorm"],)},
    "only? layer norm and bias parameter": {"train": (rf"bias$|{_NAMED['norm|layernorm']}",)},
    "bit fit": {"train": ("bias$",)},
    "all except|but the? embedding layer?": {"train": (f"^(?!.*(?:{_EMBEDDINGS}))",)},
    "freeze the? embedding layer?": {"train": (f"^(?!.*(?:{_EMBEDDINGS}))",)},
    "all layer|parameter": {"train": None},
}
_LAYERS = re.compile(
    r"(?:only )?(?:the )?(last|top|first|bottom) (?:(\d+) )?(?:transformer )?layer(?: only)?"
)


def numbered_layers(value: Any, config: MeZOConfig) -> Reading | None:
    """ "only the last 4 layers", as a pattern for the names of their parameters."""
    if isinstance(value, list) and value and all(isinstance(each, str) for each in value):
        return Reading({"train": tuple(value)})
    if not isinstance(value, str):
        return None
    found = _LAYERS.fullmatch(" ".join(token.stem for token in tokens(value)))
    if found is None or (found[2] is None and "layers" in value.lower()):  # "the top layers": how many?
        return None
    layers, count = facts_of(config.model).layers, int(found[2] or 1)
    if layers is None:
        raise Refused(
            f"the number of layers of {config.model!r} is not known before it is fetched: write set: {{train: [...]}}"
        )
    if not 1 <= count <= layers:
        raise Refused(f"the baseline's model has {layers} layers, the plan asks for {count}")
    chosen = range(layers - count, layers) if found[1] in ("last", "top") else range(count)
    pattern = rf"\b(?:layers?|h|blocks?)\.(?:{'|'.join(map(str, chosen))})\."
    return Reading({"train": (pattern,)}, f"{count} of the model's {layers} layers")


def module_names(value: Any, config: MeZOConfig) -> Reading | None:
    if isinstance(value, list) and value and all(isinstance(each, str) for each in value):
        return Reading({"tuning": "lora", "lora_targets": tuple(value)})
    return None


def template(value: Any, config: MeZOConfig) -> Reading | None:
    """A template in quotes or behind its name; the task's fields alone for "no prompt"."""
    if value is None or (
        isinstance(value, str) and re.fullmatch(r"(?i)(?:no|without|empty) prompts?|none", value.strip())
    ):
        return _bare(config)
    if not isinstance(value, str):
        return None
    text = re.sub(r"(?i)^\s*(?:prompt|template)\s*:\s*", "", value).strip()
    quoted = re.fullmatch(r"([\"'`“‘])(.+)[\"'`”’]", text, re.S)
    if text == value.strip() and not quoted:
        return None
    text = quoted[2] if quoted else text
    return _written(text, config) if re.search(r"\{\w+\}", text) else None


def label_words(value: Any, config: MeZOConfig) -> Reading | None:
    """A list of words, or the words in quotes, as many as the task has classes."""
    from mezo.tasks import task_for

    if isinstance(value, str) and re.fullmatch(r"(?:\s*[\"'][^\"']+[\"']\s*(?:,|/|$))+", value):
        value = re.findall(r"[\"']([^\"']+)[\"']", value)
    if not isinstance(value, list) or len(value) != len(task_for(config.task).label_words):
        return None
    return Reading(
        {"label_words": tuple(str(word).strip() for word in value)}, "in the task's order of classes"
    )


def _bare(config: MeZOConfig) -> Reading:
    from mezo.tasks import task_for

    mask = " {mask}" if facts_of(config.model).masked else ""
    names = (name for name in task_for(config.task).fields if name not in ("label", "answer", "idx"))
    bare = " ".join(f"{{{name}}}" for name in names)
    return Reading({"template": bare + mask}, f"the task's fields alone: {bare}")


def _written(text: str, config: MeZOConfig) -> Reading:
    """The template; the place of its answer is the end."""
    from mezo.tasks import task_for

    text = re.sub(r"(?i)\{(?:label|answer|label_words?|verbali[sz]er)\}|\[mask\]|<mask>", "{mask}", text)
    known = [name for name in task_for(config.task).fields if name not in ("label", "answer", "idx")]
    unknown = set(re.findall(r"\{(\w+)\}", text)) - {*known, "mask"}
    if unknown:
        raise Refused(
            f"rows of {config.task} have {', '.join(known)}, the template names {', '.join(sorted(unknown))}"
        )
    if facts_of(config.model).masked:
        return Reading({"template": text if "{mask}" in text else f"{text} {{mask}}"})
    before, _, after = text.partition("{mask}")
    if after.strip(" ."):
        raise Refused("the answer stands in the midst of the template, and the model writes it at the end")
    return Reading({"template": before.rstrip()})
