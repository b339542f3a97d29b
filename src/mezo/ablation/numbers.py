"""Numbers in prose: 1e-3, 10^{-3}, 5 x 10⁻⁴, 10,000, 2k, four, twice the default."""

import re

from mezo.ablation.words import without_citations

_WORDS = {
    word: number
    for number, words in {
        1: "one single",
        2: "two",
        3: "three",
        4: "four",
        5: "five",
        6: "six",
        8: "eight",
        10: "ten",
        16: "sixteen",
        32: "thirty-two",
        64: "sixty-four",
        100: "hundred",
    }.items()
    for word in words.split()
}
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_TIMES = r"(?:\\times|\\cdot|[x×*·])"
_NUMBER = re.compile(
    r"(?<![\w.^])(?<!\w-)[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[-+]?\d+)?(?P<unit>%|k\b|m\b)?(?![\w^]|\.\d)", re.I
)
_SMALLER = r"smaller|lower|less|fewer|reduc\w*|decreas\w*|shorter|divid\w*"
_LARGER = r"larger|bigger|higher|greater|more|increas\w*|longer|multipl\w*"
_BASELINE = r"η|ε|ϵ|\beta\b|\bepsilon\b|\blr\b|\bn\b|\bthe\b|\bdefault\b|\bbaseline\b|\blearning rate\b"
# A number that is set by a letter is of that quantity, and of no other one.
_OF_OTHERS = re.compile(
    r"(?<![\w-])(?:learning rate|lr|η|epsilon|eps|ε|ϵ|n|batch size|bs|weight decay|wd|rank|r|alpha|α|(?:beta|β)[ _]?[12₁₂]?)"
    r"\s*=\s*[-+]?[\d.]+(?:e[-+]?\d+)?",
    re.I,
)
_MULTIPLES = {
    r"\b(?:half|halv\w+)\b": 0.5,
    r"\b(?:doubl\w+|twice)\b": 2.0,
    r"\b(?:tripl\w+)\b": 3.0,
    r"\bquadrupl\w+\b": 4.0,
    r"\bquarter\b": 0.25,
}


def numbers(text: str, symbols: str = "") -> list[float]:
    """The numbers that a text gives, in their order, each once; those of citations are none.

    symbols: a regular expression for the letters or words of a quantity; where one of them is set
    ("n = 4, epsilon = 1e-2"), the numbers behind it alone are taken.
    """
    text = _spelt(without_citations(text))
    if symbols and (found := re.search(rf"(?i)(?<![\w-])(?:{symbols})\s*(?:=|:|∈|\\in\b|\bof\b)", text)):
        text = re.split(r"(?<=[\s,;(])[^\W\d]\w*(?: \w+)?\s*(?:=|∈)", text[found.end() :])[0]
    elif symbols:
        text = _OF_OTHERS.sub(" ", text)
    values: list[float] = []
    for match in _NUMBER.finditer(text):
        unit = (match["unit"] or "").lower()
        value = float(match[0][: len(match[0]) - len(unit)])
        if unit == "%":  # not times 0.01, which is no number of binary digits: 7% is 0.07
            value = value / 100
        values.append(value * {"k": 1e3, "m": 1e6}.get(unit, 1))
    return list(dict.fromkeys(values or _in_words(text)))


def multiple(text: str) -> float | None:
    """The factor on the baseline's value that a text asks for: "10x smaller", "double"; None if none."""
    text = text.lower()
    down = re.search(rf"\b(?:{_SMALLER})\b", text) is not None
    behind = rf"(?:[x×](?!\s*[\w×])|[x×*]\s*(?:{_SMALLER}|{_LARGER}|{_BASELINE})|times\b|-?fold\b)"
    for pattern in (rf"(?<![\w.])(\d+(?:\.\d+)?)\s*{behind}", rf"(?:{_BASELINE})\s*[×*x]\s*(\d+(?:\.\d+)?)"):
        if found := re.search(pattern, text):
            factor = float(found[1])
            return None if factor == 0 else 1 / factor if down else factor
    if found := re.search(
        r"(?<![\w./])1\s*/\s*(\d+)(?:th)?\s+(?:of|as|the)\b|^\W*[x×]\s*(\d+(?:\.\d+)?)\W*$", text
    ):
        return 1 / float(found[1]) if found[1] and float(found[1]) else float(found[2] or 0) or None
    if re.search(r"order of magnitude|tenfold|ten times", text):
        return 0.1 if down else 10.0
    for pattern, factor in _MULTIPLES.items():
        if re.search(pattern, text):
            return factor
    return None


def direction(text: str) -> int:
    """-1 where a text asks for less, 1 where it asks for more, 0 where for neither or both."""
    text = text.lower()
    down, up = (re.search(rf"\b(?:{words})\b", text) is not None for words in (_SMALLER, _LARGER))
    return up - down


def _spelt(text: str) -> str:
    """Powers, thousands and signs as Python writes numbers."""
    text = re.sub(r"[⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+", lambda m: "^" + m[0].translate(_SUPERSCRIPTS), text)
    text = re.sub(r"(?<=\d)\s*–\s*(?=\d)", " to ", text)
    text = text.replace("−", "-").replace("–", "-").replace("$", " ")
    text = (
        re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text) if not re.search(r"\d,\d{3},\d{1,2}\b", text) else text
    )
    power = rf"(?:(?<![\w.])(\d+(?:\.\d+)?)\s*{_TIMES}\s*)?\b10\s*(?:\^|\*\*)\s*[{{(]?\s*([-+]?\d{{1,3}})\s*[}})]?"
    text = re.sub(power, lambda m: f"{m[1] or 1}e{m[2]}", text)
    small = r"\b(\d{1,2})\s*(?:\^|\*\*)\s*\{?\s*([-+]?\d{1,2})\s*\}?"
    return re.sub(small, lambda m: repr(float(m[1]) ** int(m[2])) if float(m[1]) else m[1], text)


def _in_words(text: str) -> list[float]:
    found = re.findall(rf"(?i)\b({'|'.join(_WORDS)})\b(?![- ](?:point|side|stage|step))", text)
    return [float(_WORDS[word.lower()]) for word in found]
