"""DROP's F1 and exact match, as its evaluation script has them (Dua et al. 2019).

An answer is a bag of spans. Spans are compared as sets of words, matched one to one so that the sum
of their F1 is largest; a span that holds a number scores only against one that holds the same.
"""

import re
import string
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from mezo.metrics.base import TextMetric, references_of
from mezo.scoring import Example

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalized(text: str) -> str:
    """Token by token (cut at spaces and hyphens): lower case, numbers as floats, and otherwise as in SQuAD."""
    tokens = (" ".join(_ARTICLES.sub(" ", _number_or_word(t)).split()) for t in re.split(" |-", text.lower()))
    return " ".join(token for token in tokens if token)


def f1_and_em(output: str | Sequence[str], answer: Sequence[str]) -> tuple[float, float]:
    """Of the spans of one output (text alone: one span) and of one accepted answer.

    F1 is rounded to two places, an example at a time, as the evaluation script rounds it.
    """
    ours = [normalized(span) for span in ([output] if isinstance(output, str) else output)]
    theirs = [normalized(span) for span in answer]
    scores = [[_span_f1(set(a.split()), set(b.split())) for a in ours] for b in theirs]
    f1 = _best_total(scores) / max(len(ours), len(theirs))
    same = set(ours) == set(theirs) and len(ours) == len(theirs)
    return round(f1, 2), float(same)


def accepted(example: Example) -> list[tuple[str, ...]]:
    """The accepted answers, each a bag of spans.

    A row's `answers_spans` is one answer of one or more spans, and each of its `validated_answers`
    (in the form of the original files) is another; without them every reference is an answer of one.
    """
    fields = example.fields or {}
    found = fields.get("answers_spans")
    spans = found.get("spans") if isinstance(found, Mapping) else found
    if not spans:
        return [(reference,) for reference in references_of(example, "drop-f1")]
    others = fields.get("validated_answers")
    others = [_spans(other) for other in others] if isinstance(others, list) else []
    return [tuple(dict.fromkeys(spans)), *filter(None, others)]  # a span twice is one


def _spans(answer: Mapping[str, Any]) -> tuple[str, ...]:
    """An answer of the original files: a number, spans, or a date."""
    if answer.get("number"):
        return (str(answer["number"]),)
    date = answer.get("date") or {}
    day = " ".join(str(date[part]) for part in ("day", "month", "year") if date.get(part))
    return tuple(answer.get("spans") or ()) or ((day,) if day else ())


def _number_or_word(token: str) -> str:
    if not _is_number(token):
        token = token.translate(_PUNCTUATION)
    return str(float(token)) if _is_number(token) else token


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _span_f1(ours: set[str], theirs: set[str]) -> float:
    numbers = set(filter(_is_number, theirs))
    if numbers and not numbers & ours:
        return 0.0
    shared = len(ours & theirs)
    precision = shared / len(ours) if ours else 1.0
    recall = shared / len(theirs) if theirs else 1.0
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _best_total(scores: list[list[float]]) -> float:
    """The largest sum of entries of which no two share a row or a column.

    Exact, over the sets of columns taken so far: answers have a handful of spans, so that a library
    for large problems is not asked for.
    """
    if len(scores) < len(scores[0]):
        scores = [list(column) for column in zip(*scores, strict=True)]  # fewer columns: fewer sets
    best = {0: 0.0}
    for row in scores:
        after = dict(best)
        for taken, total in best.items():
            for column, score in enumerate(row):
                if not taken >> column & 1:
                    now = taken | 1 << column
                    after[now] = max(after.get(now, 0.0), total + score)
        best = after
    return max(best.values())


def _score(which: int, example: Example, output: str) -> float:
    """F1 (which=0) or exact match (which=1) of one output, against the best accepted answer.

    Reference: Dua et al. 2019, the evaluation script.
    Example:
        >>> _score(0, Example((), ((1,),), 0, references=("3 boats",)), "3")
        0.67
    """
    return max(f1_and_em(output, answer)[which] for answer in accepted(example))


DROP_F1 = TextMetric("drop-f1", partial(_score, 0))
DROP_EM = TextMetric("drop-em", partial(_score, 1))
