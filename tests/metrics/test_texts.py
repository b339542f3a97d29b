"""Metrics of generated text: the official scripts' cases, and cases by hand."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from mezo.errors import MezoError
from mezo.metrics import METRICS, TextMetric, drop, squad
from mezo.scoring import Example


def written(*references: str, **fields: Any) -> Example:
    return Example((9,), ((1,),), 0, references=references, fields=fields)


def value(name: str, examples: list[Example], outputs: list[str]) -> float:
    metric = METRICS[name]
    assert isinstance(metric, TextMetric)
    return metric.of(examples, outputs)


# ---------------------------------------------------------------- SQuAD


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Denver Broncos.", "denver broncos"),
        ("an apple, a day", "apple day"),
        ("theatre", "theatre"),  # an article within a word stays
        ("co-operate", "cooperate"),  # punctuation goes and leaves nothing
        ("U.S.A.", "usa"),
        ("a.m.", "am"),  # punctuation goes first, so that this "a" is no article
        ("the", ""),
    ],
)
def test_squad_normalisation(text: str, expected: str) -> None:
    assert squad.normalized(text) == expected


@pytest.mark.parametrize(
    ("output", "references", "f1", "em"),
    [
        ("Denver Broncos", ("Denver Broncos", "The Denver Broncos"), 1.0, 1.0),
        ("the Broncos of Denver", ("Denver Broncos",), 2 * 2 / (3 + 2), 0.0),
        ("Santa Clara, California", ("Santa Clara", "Levi's Stadium"), 2 * 2 / (3 + 2), 0.0),
        ("gold gold", ("gold",), 2 * 1 / (2 + 1), 0.0),  # bags: one of two golds is wanted
        ("", ("gold",), 0.0, 0.0),
        ("the", ("a",), 0.0, 1.0),  # version 1.1: nothing equals nothing, and shares no word with it
    ],
)
def test_squad_scores(output: str, references: tuple[str, ...], f1: float, em: float) -> None:
    assert value("squad-f1", [written(*references)], [output]) == pytest.approx(f1, rel=1e-15)
    assert value("squad-em", [written(*references)], [output]) == em


def test_a_metric_is_the_mean_over_examples() -> None:
    assert value("squad-em", [written("a dog"), written("cat")], ["dog", "dog"]) == 0.5


def test_without_references_there_is_nothing_to_compare() -> None:
    with pytest.raises(MezoError, match="squad-f1 compares what is written with accepted answers"):
        value("squad-f1", [written()], ["dog"])


# ---------------------------------------------------------------- DROP


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("25", "25.0"),
        ("$5,000", "5000.0"),
        ("0025.0", "25.0"),
        ("The 34-yard pass", "34.0 yard pass"),  # hyphens cut, as spaces do
        ("Tom Brady's", "tom bradys"),
        ("the", ""),
    ],
)
def test_drop_normalisation(text: str, expected: str) -> None:
    assert drop.normalized(text) == expected


@pytest.mark.parametrize(
    ("output", "answer", "f1", "em"),
    [
        # what the official script is tested for: case, articles, order, periods, hyphens, numbers, spans
        ("This was a triumph", ("tHIS Was A TRIUMPH",), 1.0, 1.0),
        ("td", ("the td",), 1.0, 1.0),
        ("John Elton", ("Elton John",), 1.0, 0.0),
        ("Per.i.o.d...", ("Period",), 1.0, 1.0),
        ("cool bar", ("cool-bar",), 1.0, 1.0),
        ("78", ("78.0",), 1.0, 1.0),
        ("25", ("34",), 0.0, 0.0),
        (["John", "Smith"], ("John",), 0.5, 0.0),
        (["Smith"], ("John", "Smith"), 0.5, 0.0),
        (["Smith", "John"], ("John", "Smith"), 1.0, 1.0),
        # by hand
        ("about 25 yards", ("25 yards",), 0.8, 0.0),
        ("24 yards", ("25 yards",), 0.0, 0.0),  # the wrong number: nothing for the word they share
        ("Brady", ("Brady", "Palmer"), 0.5, 0.0),
        ("Brady Palmer", ("Brady", "Palmer"), 0.33, 0.0),  # one span, 2/3 of one of two
        (["x y", "x"], ("x", "x y"), 1.0, 1.0),
        (["y z", "x y"], ("x y z", "y"), 0.73, 0.0),  # (4/5 + 2/3) / 2, whichever way round
    ],
)
def test_drop_scores(output: str | list[str], answer: tuple[str, ...], f1: float, em: float) -> None:
    assert drop.f1_and_em(output, answer) == (f1, em)


@given(st.integers(1, 5), st.integers(1, 5), st.data())
def test_the_assignment_is_the_best_one(rows: int, columns: int, data: st.DataObject) -> None:
    entry = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])  # exact sums
    row = st.lists(entry, min_size=columns, max_size=columns)
    scores = data.draw(st.lists(row, min_size=rows, max_size=rows))
    table = np.array(scores)
    assert drop._best_total(scores) == table[linear_sum_assignment(table, maximize=True)].sum()


def test_drop_reads_the_spans_of_a_row_as_one_answer() -> None:
    both = written("Brady", "Palmer", answers_spans={"spans": ["Brady", "Palmer"]})
    assert value("drop-f1", [both], ["Brady"]) == 0.5
    assert value("drop-f1", [written("Brady", "Palmer")], ["Palmer"]) == 1.0  # without it: either will do


def test_drop_takes_the_best_of_what_annotators_said() -> None:
    example = written(
        answers_spans={"spans": ["4 May 1734"]},
        validated_answers=[
            {"number": "", "date": {"day": "", "month": "May", "year": "1734"}, "spans": []},
            {"number": "1734", "date": {}, "spans": []},
            {"number": "", "date": {}, "spans": []},
        ],
    )
    assert [value("drop-em", [example], [text]) for text in ("May 1734", "1734", "1735")] == [1.0, 1.0, 0.0]


# ---------------------------------------------------------------- ROUGE


def test_rouge_by_hand() -> None:
    example = written("the cat sat on the mat", "nothing alike")
    # "the cat the mat": its 4 words are all in the 6 of the reference, and in their order
    assert value("rougeL", [example], ["the cat the mat"]) == pytest.approx(2 * 4 / (4 + 6))
    # "mat the": both words, 1 of them in order; no pair of neighbours
    assert value("rouge1", [example], ["mat the"]) == pytest.approx(2 * 2 / (2 + 6))
    assert value("rougeL", [example], ["mat the"]) == pytest.approx(2 * 1 / (2 + 6))
    assert value("rouge2", [example], ["mat the"]) == 0.0
