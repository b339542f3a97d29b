"""Readers of what a model is tuned and asked by: layers, modules, prompts, label words."""

import re
from typing import Any

from mezo.ablation.facts import facts_of
from mezo.ablation.numbers import numbers
from mezo.ablation.values import Reading, Refused
from mezo.ablation.words import folded
from mezo.config import MeZOConfig

# peft takes what of a list a model has; these are the linear layers of Llama, OPT, BERT, GPT-2 and relatives.
_ATTENTION = (
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
    "qkv_proj",
)
_MLP = (
    "gate_proj",
    "up_proj",
    "down_proj",
    "fc1",
    "fc2",
    "dense",
    "c_fc",
    "c_proj",
    "dense_h_to_4h",
    "dense_4h_to_h",
    "gate_up_proj",
)
_SHARES = {"half": 1 / 2, "third": 1 / 3, "quarter": 1 / 4}
_TARGETS = {
    r"(query|q) (and |key |k )*(value|v)": None,  # the default, whatever the model calls them
    r"all|linear|every": (*_ATTENTION, *_MLP),
    r"attention": _ATTENTION,
    r"mlps?|feed ?forward|ffn": _MLP,
}
_NAMED = {  # what parts of a model are called in the architectures there are
    r"attention|attn": r"attn|attention",
    r"mlps?|feed ?forward|ffn": r"mlp|fc1|fc2|feed_forward|ffn|intermediate|\d\.output\.dense",
    r"bias(es)?|bit ?fit": r"bias$",
    r"layer ?norms?|(?<!parameter )(?<!weight )(?<!gradient )(?<!unit )norms?|normalization layers?": r"norm|ln_|layer_norm|LayerNorm",
    r"embeddings?": r"embed|wte|wpe",
    r"(lm )?head|output (layer|projection)|classifier": r"lm_head|cls\.|classifier",
}


def share_of_layers(value: Any, config: MeZOConfig) -> tuple[Reading, ...] | None:
    """ "50% of the layers at each step", "a random half of the layers": as many of the baseline's model."""
    which = (
        r"(?:random |randomly \w+ )?(?:(?:subset )?of )?(?:the |all )?(?:transformer )?(?:layers|blocks)\b"
    )
    found = re.search(rf"(?i)(?:(\d+)\s*%|\b(half|quarter|third)\b) {which}", str(value))
    if found is None:
        return None
    layers = facts_of(config.model).layers
    if layers is None:
        raise Refused(
            f"the number of layers of {config.model!r} is not known: write set: {{layers_per_step: ...}}"
        )
    share = float(found[1]) / 100 if found[1] else _SHARES[found[2].lower()]
    count = max(1, round(share * layers))
    return (
        Reading({"blocks": "random", "layers_per_step": count}, f"{count} of the model's {layers} layers"),
    )


def layers(value: Any, config: MeZOConfig) -> tuple[Reading, ...] | None:
    """Which parameters are tuned, as a pattern for their names."""
    if not isinstance(value, str):
        return None
    text = folded(value)
    if re.search(r"\b(every (other|second|third)|alternat\w*)\b", text):
        return None
    if re.search(r"\b(all|every|full|entire)\b", text) and not re.search(r"\b(but|except)\b", text):
        return (Reading({"train": None}),)
    frozen = re.search(r"\b(freez\w*|frozen|without|no|except|but|exclud\w*|not)\b", text) is not None
    place = re.search(r"\b(last|top|upper|final|first|bottom|lower|early|initial|later?)\b", text)
    if place and re.search(r"\b(layers?|blocks?|half|third|quarter)\b", text):
        pattern, note = _numbered(text, value, place[1], config)
    else:
        pattern = "|".join(p for words, p in _NAMED.items() if re.search(rf"\b(?:{words})\b", text))
        note = ""
    if not pattern:
        return None
    return (Reading({"train": (rf"^(?!.*(?:{pattern}))" if frozen else pattern,)}, note),)


def _numbered(text: str, value: str, place: str, config: MeZOConfig) -> tuple[str, str]:
    """The pattern of the first or last so many layers of the baseline's model, and what it is."""
    layers = facts_of(config.model).layers
    if layers is None:
        raise Refused(
            f"the number of layers of {config.model!r} is not known before it is fetched: write set: {{train: [...]}}"
        )
    given = numbers(value) or [share for word, share in _SHARES.items() if word in text]
    count = given[0] if given else 1 if re.search(r"\blayer\b", text) else 1 / 2
    count = max(1, round(count * layers)) if 0 < count < 1 else int(count)
    if not 1 <= count <= layers:
        raise Refused(f"the baseline's model has {layers} layers, the plan asks for {count}")
    last = place in ("last", "top", "upper", "final", "later", "late")
    chosen = range(layers - count, layers) if last else range(count)
    pattern = rf"\b(?:layers?|h|blocks?)\.(?:{'|'.join(map(str, chosen))})\."
    return pattern, f"{count} of the model's {layers} layers"


_ANSWER = r"(?i)\{(?:label|answer|label_words?|verbali[sz]er|completion)\}|\[mask\]|<mask>"


def template(value: Any, config: MeZOConfig) -> tuple[Reading, ...] | None:
    """A template as it stands, or the bare fields of the task for "without a prompt"."""
    if not isinstance(value, str) and value is not None:
        return None
    if isinstance(value, str) and (marked := re.sub(r"(?i)<(?!mask>)([a-z]\w*)>", r"{\1}", value)) != value:
        value = marked
    if isinstance(value, str) and re.search(r"\{\w+\}", value):
        return (_written(value, config),)
    if value is not None and not re.search(
        r"\b(no|without|remov\w*|empty|null|bare|raw|plain|un ?prompted|promptless|none|omit\w*)\b",
        folded(value),
    ):
        return None
    return (bare(config),)


def _written(value: str, config: MeZOConfig) -> Reading:
    """The template in a text: what stands in quotes, or behind "Prompt:"; the answer's place is the end."""
    from mezo.tasks import task_for

    quoted = re.search(r"(?<!\w)([\"'`“‘])([^\"“”`]*\{\w+\}.*?)[\"'`”’](?=[\s).,;]|$)", value)
    before = r"(?i)^(?:[\w-]+ ){0,3}(?:prompt|template|format)(?: \([^)]*\))?\s*:\s*|^.*\be\.g\.,?\s*"
    text = quoted[2] if quoted else re.sub(before, "", value)
    text = re.sub(_ANSWER, "{mask}", text.strip("\"'“”`").replace("\\n", "\n"))
    given, notes = [name for name in re.findall(r"\{(\w+)\}", text) if name != "mask"], []
    known = [name for name in task_for(config.task).fields if name not in ("label", "answer", "idx")]
    unknown = set(given) - {*known, *task_for(config.task).fields}
    if unknown and len(set(given)) == len(known) == 1:
        text = text.replace(f"{{{given[0]}}}", f"{{{known[0]}}}")
        notes.append(f"{{{given[0]}}} read as {{{known[0]}}}, the field of {config.task}")
    elif unknown:
        raise Refused(
            f"rows of {config.task} have {', '.join(known)}, the template names {', '.join(sorted(unknown))}"
        )
    if not facts_of(config.model).masked:
        text = text.replace("{mask}", "").rstrip()
    elif "{mask}" not in text:
        text, notes = f"{text} {{mask}}", [*notes, "the masked model answers at its end"]
    return Reading({"template": text}, "; ".join(notes))


def bare(config: MeZOConfig) -> Reading:
    from mezo.tasks import task_for

    task = task_for(config.task)
    mask = " {mask}" if facts_of(config.model).masked else ""
    bare = " ".join(f"{{{name}}}" for name in task.fields if name not in ("label", "answer", "idx"))
    return Reading({"template": bare + mask}, f"the task's fields alone: {bare}")


def label_words(value: Any, config: MeZOConfig) -> tuple[Reading, ...] | None:
    """Words by comma or slash, or a list of them; as many as the task has classes."""
    from mezo.tasks import task_for

    words = (
        value
        if isinstance(value, list)
        else re.split(r"\s*(?:,|/|\||\bvs\.?|\band\b)\s*", value)
        if isinstance(value, str)
        else []
    )
    words = [re.sub(r"^.*(?::|→|->)\s*|[\"'“”‘’`().]", "", str(word)).strip() for word in words]
    count = len(task_for(config.task).label_words)
    if count < 2 or len(words) != count or not all(0 < len(word.split()) <= 2 for word in words):
        return None
    return (Reading({"label_words": tuple(words)}, "in the task's order of classes"),)


def targets(value: Any, config: MeZOConfig) -> tuple[Reading, ...] | None:
    if isinstance(value, str):
        for pattern, targets in _TARGETS.items():
            if re.search(rf"\b(?:{pattern})\b", folded(value)) and "_proj" not in value:
                return (Reading({"tuning": "lora", "lora_targets": targets}),)
        value = re.findall(r"\b\w+_\w+\b", value)
    if isinstance(value, list) and value and all(isinstance(each, str) for each in value):
        return (Reading({"tuning": "lora", "lora_targets": tuple(value)}),)
    return None
