"""Readers with what else a text may set beside its first word: modules of LoRA, the rounding of a type."""

import re
from typing import Any

from mezo.ablation import readers
from mezo.ablation.values import Reader, Reading
from mezo.config import MeZOConfig


def with_targets(reader: Reader) -> Reader:
    """With the modules that LoRA is put on: "LoRA on all linear layers"."""

    def read(value: Any, config: MeZOConfig) -> tuple[Reading, ...] | None:
        found = reader(value, config)
        place = re.search(r"(?i)\b(?:on|to|in|of|targets?|targeting) (.+)$", str(value))
        if not found or found[0].settings.get("tuning") != "lora" or place is None:
            return found
        named = readers.targets(place[1], config)
        targets = named[0].settings["lora_targets"] if named else None
        more = {"lora_targets": targets} if targets else {}
        return tuple(Reading({**each.settings, **more}, each.note) for each in found)

    return read


def with_rounding(reader: Reader) -> Reader:
    """With the rounding beside a 16-bit type: "bf16 with stochastic rounding"."""

    def read(value: Any, config: MeZOConfig) -> tuple[Reading, ...] | None:
        found = reader(value, config)
        said = re.search(
            r"(?i)\b(stochastic|nearest|matched)(?:ally)?\b.{0,12}\bround|round\w*[- ]to[- ](nearest)",
            str(value),
        )
        if not found or said is None:
            return found
        rounding = (said[1] or said[2]).lower()
        return tuple(Reading({**each.settings, "rounding": rounding}, each.note) for each in found)

    return read
