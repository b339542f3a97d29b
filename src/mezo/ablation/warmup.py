"""The warm-up of the learning rate in prose: so many steps, or a share of them, beside a schedule or alone."""

import re
from typing import Any

from mezo.ablation.values import Reader, Reading
from mezo.config import MeZOConfig

_WARMUP = r"warm-?\s?up"
_WARMUP_WORDS = re.compile(rf"(?i)(?:linear )?{_WARMUP}(?: (?:phase|period|steps))?")


def warmup(value: Any, config: MeZOConfig) -> tuple[Reading, ...] | None:
    """Steps of a warm-up, or a share of the run's: "10% warm-up", "over the first 100 steps"."""
    text = str(value)
    share = re.search(
        rf"(?i)(\d+(?:\.\d+)?)\s*%\s*(?:of (?:the |all |total |training )*steps )?(?:linear )?{_WARMUP}", text
    )
    share = share or re.search(rf"(?i){_WARMUP}[^,;.%]*?(\d+(?:\.\d+)?)\s*%", text)
    if share:
        return (Reading({"warmup_steps": round(config.num_steps * float(share[1]) / 100)}),)
    if ratio := re.search(rf"(?i){_WARMUP} (?:ratio|fraction|proportion)\W{{0,3}}(?:of )?(0?\.\d+)", text):
        return (Reading({"warmup_steps": round(config.num_steps * float(ratio[1]))}),)
    joined = r"(?: (?:steps|phase|period))?(?: (?:of|for|over|during|in))?(?: the)?(?: first)?"
    found = re.search(rf"(?i){_WARMUP}{joined}\s*[:=(]?\s*(\d[\d,]*)(?![\d.%])", text)
    found = found or re.search(rf"(?i)(\d[\d,]*)[ -](?:steps? )?(?:of )?(?:linear )?{_WARMUP}", text)
    return (Reading({"warmup_steps": int(found[1].replace(",", ""))}),) if found else None


def share_of_steps(value: Any, config: MeZOConfig) -> tuple[Reading, ...] | None:
    """A bare share in a study of the warm-up: "10% of steps"."""
    found = re.search(r"(\d+(?:\.\d+)?)\s*%", value) if isinstance(value, str) else None
    return (Reading({"warmup_steps": round(config.num_steps * float(found[1]) / 100)}),) if found else None


def with_warmup(reader: Reader) -> Reader:
    """With the steps of a warm-up beside the schedule's name, which is no schedule itself: "linear warm-up"."""

    def read(value: Any, config: MeZOConfig) -> tuple[Reading, ...] | None:
        if not isinstance(value, str) or not _WARMUP_WORDS.search(value):
            return reader(value, config)
        steps = warmup(value, config)
        more = steps[0].settings if steps else {}
        found = reader(_WARMUP_WORDS.sub(" ", value), config)
        return steps if not found else tuple(Reading({**each.settings, **more}, each.note) for each in found)

    return read
