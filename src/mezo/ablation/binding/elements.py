"""The elements of a text: its names, its values, its numbers. What is no part of one is refused by name."""

import re
from dataclasses import dataclass

from mezo.ablation.binding.part import Meaning, Part, Quantity, Refused, lexicon
from mezo.ablation.binding.tokens import Token

SMALL = frozenset(["a", "an", "the", "with", "and", "use", "using", "at", "of", "as", *"()[]{},:="])
_LINKS = frozenset(["=", ":", "of", "to", "is", "at", "∈", "(", "{", "["])  # between a symbol and its number
_FACTORS = {"half": 1 / 2, "third": 1 / 3, "quarter": 1 / 4, "eighth": 1 / 8, "tenth": 1 / 10, "twice": 2, "double": 2, "triple": 3}  # fmt: skip
_CHANGED = {"halved": 1 / 2, "doubled": 2.0, "tripled": 3.0, "quadrupled": 4.0}
_SMALLER = frozenset(["smaller", "lower", "fewer", "less"])
_LARGER = frozenset(["larger", "higher", "more", "bigger"])
_MANY = (("as", "many"), ("as", "large"), ("as", "long"), ("as", "much"), ("of", "the"), ("of",), ("the",))
_TIMES = frozenset(["×", "x", "*", "times"])
_NAMING = ("name", "symbol")  # what a quantity goes by in any study
_ANY = (*_NAMING, "unit")
LONGEST = 14  # words of a phrase


@dataclass(frozen=True)
class Value:
    """A phrase that sets something."""

    text: str
    meanings: tuple[Meaning, ...]


@dataclass(frozen=True)
class Number:
    """Numbers, and the quantities that they may be of; a factor is on the baseline's value."""

    text: str
    values: tuple[Token, ...]
    quantities: tuple[Quantity, ...]
    factor: bool = False
    symbols: tuple[Quantity, ...] = ()  # of these, the ones that their words name in any study


@dataclass(frozen=True)
class Name:
    """A part's name that sets nothing."""

    text: str
    parts: frozenset[Part]


Element = Value | Number | Name


def elements(words: tuple[Token, ...], part: Part) -> list[Element]:
    """Raises Refused with what is left over."""
    found: list[Element] = []
    left: list[str] = []
    i = 0
    while i < len(words):
        element, length = _element(words, i, part)
        if element is not None:
            found.append(element)
        elif not length:
            left.append(words[i].text)
        i += max(length, 1)
    if left:
        # the words as they stand, with the small ones between them, so that the reason can be found in the plan
        texts = [word.text for word in words]
        first, last = texts.index(left[0]), len(texts) - 1 - texts[::-1].index(left[-1])
        while last + 1 < len(words) and words[last + 1].text in ")]}":
            last += 1
        raise Refused(f"'{_shown(words[first : last + 1])}' is not understood")
    return found


def _element(words: tuple[Token, ...], i: int, part: Part) -> tuple[Element | None, int]:
    """The element that begins at word `i`, and its length: 0 without one."""
    length, meanings = longest(words, i, part, of_any=True)
    found = _factor(words, i, part) or _numbers(words, i, part) or _symbol(words, i)
    if found and not (values_of(meanings, part) and length > found[1]):  # "half precision" is no half
        return found
    if length:
        text = _shown(words[i : i + length])
        values = values_of(meanings, part)
        names = frozenset(m.part for m in meanings if m.kind in ("name", "symbol"))
        if values:
            return Value(text, values), length
        if reason := next((p.reason for p in names if not p.fields), ""):
            raise Refused(f"'{text}': {reason}")
        if names:
            return Name(text, names), length
    return None, int(words[i].text in SMALL)


def _symbol(words: tuple[Token, ...], i: int) -> tuple[Element, int] | None:
    """ "n = 4", "rank {1, 4}", "learning rate × 0.1", "learning rate halved"."""
    for length in range(min(LONGEST, len(words) - i), 0, -1):
        named, j = words[i : i + length], i + length
        quantities, symbols = _quantities(named), _quantities(named, _NAMING)
        if not quantities or j == len(words):
            continue
        if words[j].text in _CHANGED:
            number = Token(words[j].text, "", _CHANGED[words[j].text], "x")
            return Number(_shown(words[i : j + 1]), (number,), quantities, True, symbols), length + 1
        if words[j].text in _TIMES and j + 1 < len(words) and words[j + 1].value is not None:
            return Number(_shown(words[i : j + 2]), (words[j + 1],), quantities, True, symbols), length + 2
        while j < min(len(words), i + length + 3) and words[j].text in _LINKS:
            j += 1
        units = _quantities(named, ("unit",))
        if j == i + length and units and set(symbols) <= set(units):
            continue  # "step 1000" is one of the steps
        values, end = _list(words, j)
        if not values:
            continue
        unit, _ = _unit(words, end, quantities)
        if not unit and len(values) > 1 and _unit(words, end)[0]:  # "n = 4 and 8 steps": 8 is of the steps
            values, end = values[:1], j + 1
        return Number(_shown(words[i : end + unit]), values, quantities, symbols=symbols), end + unit - i
    return None


def _numbers(words: tuple[Token, ...], i: int, part: Part) -> tuple[Element, int] | None:
    """ "4", "2, 4 and 8 samples", "500 warmup steps", "0.1 × lr"."""
    values, end = _list(words, i)
    if not values:
        return None
    if len(values) == 1 and end < len(words) and words[end].text in _TIMES:
        length, quantities = _unit(words, end + 1)
        symbols = _quantities(words[end + 1 : end + 1 + length], _NAMING)
        end += 1 + length
        return Number(_shown(words[i:end]), values, quantities, True, symbols), end - i
    length, quantities = _unit(words, end, kinds=("unit",))
    after = end + length
    # in "4 n = 8" the symbol is of the number behind it
    if not length or (after < len(words) and (words[after].text in "=:∈" or words[after].value is not None)):
        length, _ = _unit(words, end, kinds=_NAMING)
        if length and words[end + length - 1].text != words[end + length - 1].stem:
            after = end + length  # "5 seeds" is how many, and no seed
            return Number(_shown(words[i:after]), values, ()), after - i
        return Number(_shown(words[i:end]), values, bare(part)), end - i
    symbols = _quantities(words[end:after], ("symbol",))
    return Number(_shown(words[i:after]), values, quantities, symbols=symbols), after - i


def _factor(words: tuple[Token, ...], i: int, part: Part) -> tuple[Element, int] | None:
    """ "half the learning rate", "10x smaller", "1/4 of the steps", "twice as many steps"."""
    word, j = words[i], i + 1
    if word.unit == "x" and word.value:
        value = word.value
    elif word.text in _FACTORS:
        value = _FACTORS[word.text]
    elif word.text in ("×", "x") and j < len(words) and words[j].value and not words[j].unit:
        value, j = words[j].value or 0.0, j + 1
    else:
        return None
    if word.unit == "x" and value > 1 and j < len(words) and words[j].text in _SMALLER | _LARGER:
        value, j = (1 / value if words[j].text in _SMALLER else value), j + 1
    for many in _MANY * 2:
        if tuple(w.text for w in words[j : j + len(many)]) == many:
            j += len(many)
    number = Token(word.text, "", value, "x")
    length, quantities = _unit(words, j)
    if length:
        symbols = _quantities(words[j : j + length], _NAMING)
        return Number(_shown(words[i : j + length]), (number,), quantities, True, symbols), j + length - i
    # "1/10" alone may be a factor or a number
    own = () if "/" in word.text and j == i + 1 else bare(part)
    return Number(_shown(words[i:j]), (number,), own, factor=True), j - i


def _list(words: tuple[Token, ...], i: int) -> tuple[tuple[Token, ...], int]:
    """The numbers of a list that begins at word `i`, and where it ends."""
    if i >= len(words) or words[i].value is None or words[i].unit == "x":
        return (), i
    found, end = [words[i]], i + 1
    while end + 1 < len(words) and words[end].text in (",", "and", "or"):
        following = end + (2 if words[end + 1].text in ("and", "or") else 1)
        if (
            following >= len(words)
            or words[following].value is None
            or words[following].unit != found[0].unit
        ):
            break
        found.append(words[following])
        end = following + 1
    return tuple(found), end


def _unit(
    words: tuple[Token, ...], i: int, wanted: tuple[Quantity, ...] = (), kinds: tuple[str, ...] = _ANY
) -> tuple[int, tuple[Quantity, ...]]:
    """The length of the longest unit or name at word `i`, and its quantities: of the wanted ones if there are any."""
    for length in range(min(LONGEST, len(words) - i), 0, -1):
        found = _quantities(words[i : i + length], kinds)
        if found := tuple(q for q in found if not wanted or q in wanted):
            return length, found
    return 0, ()


def _quantities(words: tuple[Token, ...], kinds: tuple[str, ...] = _ANY) -> tuple[Quantity, ...]:
    meanings = lexicon().get(tuple(word.stem for word in words), ())
    return tuple(dict.fromkeys(m.quantity for m in meanings if m.quantity and m.kind in kinds))


def longest(
    words: tuple[Token, ...], i: int, part: Part, *, of_any: bool = False
) -> tuple[int, tuple[Meaning, ...]]:
    """The longest phrase of the part at word `i`, or of any part; its length and its meanings."""
    for length in range(min(LONGEST, len(words) - i), 0, -1):
        meanings = lexicon().get(tuple(word.stem for word in words[i : i + length]), ())
        found = tuple(
            m
            for m in meanings
            if (m.kind != "present" or not of_any)
            and (m.part is part or (of_any and m.kind in ("value", "name", "symbol")))
        )
        if found:
            return length, found
    return 0, ()


def values_of(meanings: tuple[Meaning, ...], part: Part) -> tuple[Meaning, ...]:
    """The meanings that set something: the part's own before those of others."""
    mine = tuple(m for m in meanings if m.part is part and m.kind in ("own", "value"))
    return mine or tuple(m for m in meanings if m.kind == "value")


def bare(part: Part) -> tuple[Quantity, ...]:
    return tuple(q for q in part.quantities if q.bare)[:1]


def _shown(words: tuple[Token, ...]) -> str:
    text = " ".join(word.text for word in words)
    return re.sub(r" (?=[),:\]}])|(?<=[(\[{]) ", "", text)
