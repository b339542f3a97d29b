"""Numbers in prose, as Python writes them: 1e-3, 10^{-3}, 5 x 10⁻⁴, 10,000, 2k."""

import re

from mezo.ablation.binding.text import without_citations

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_NUMBER = re.compile(
    r"(?<![\w.^])(?<!\w-)[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[-+]?\d+)?(?P<unit>%|k\b|m\b)?(?![\w^]|\.\d)", re.I
)
_POWER = re.compile(
    r"(?:(?<![\w.])(\d+(?:\.\d+)?)\s*(?:\\times|\\cdot|[x×*·])\s*)?\b10\s*(?:\^|\*\*)\s*[{(]?\s*([-+]?\d{1,3})\s*[})]?"
)
_SMALL_POWER = re.compile(r"\b(\d{1,2})\s*(?:\^|\*\*)\s*\{?\s*([-+]?\d{1,2})\s*\}?")


def numbers(text: str) -> list[float]:
    """The numbers that a text gives, in their order, each once; those of citations are left out."""
    values: list[float] = []
    for match in _NUMBER.finditer(spelt(without_citations(text))):
        unit = (match["unit"] or "").lower()
        value = float(match[0][: len(match[0]) - len(unit)])
        value = value / 100 if unit == "%" else value * {"k": 1e3, "m": 1e6}.get(unit, 1)
        values.append(value)
    return list(dict.fromkeys(values))


def spelt(text: str) -> str:
    """Powers, thousands and signs as Python writes numbers."""
    text = re.sub(r"[⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+", lambda m: "^" + m[0].translate(_SUPERSCRIPTS), text)
    text = text.replace("−", "-").replace("–", "-").replace("$", " ")
    text = re.sub(r"(?<=\d),(?=000(?!\d))", "", text)  # 1,000 is a thousand; 16,128 may be two numbers
    text = _POWER.sub(lambda m: f"{m[1] or 1}e{m[2]}", text)
    return _SMALL_POWER.sub(lambda m: repr(float(m[1]) ** int(m[2])) if float(m[1]) else m[1], text)
