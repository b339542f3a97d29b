"""Prompts and label words of one's own."""

import pytest

from mezo.errors import MezoError
from mezo.tasks import MASK, Row, task_for

ROW = Row({"sentence": " a fine film ", "label": 1, "title": "Up"}, "list", 0)


@pytest.mark.parametrize(
    ("template", "prompt"),
    [
        ("Review: {sentence}\nSentiment:", "Review: a fine film\nSentiment:"),
        ("{title}: {sentence} {{so}}", "Up: a fine film {so}"),
        ("{sentence}", "a fine film"),
    ],
)
def test_a_template_replaces_the_prompt_and_nothing_else(template: str, prompt: str) -> None:
    task = task_for("sst2", ("Negative", "Positive"), template)
    found = task.causal(ROW)
    assert found.prompt == prompt
    assert found.candidates == (" Negative", " Positive")
    assert found.answer == task.label(ROW) == 1
    assert task.name == "sst2"


def test_a_masked_template_keeps_what_is_around_the_first_field() -> None:
    found = task_for("sst2", template="{mask}! {sentence} ({title})").masked(ROW)
    assert found.prompt == f"{MASK}! a fine film (Up)"
    assert found.text == "a fine film"
    assert found.tail == " (Up)"


@pytest.mark.parametrize(
    ("words", "template", "message"),
    [
        (("bad",), None, "needs 2 different label words"),
        (("bad", "bad"), None, "needs 2 different label words"),
        (None, "no field", "expected the name of a field"),
        (None, "{sentence", "template '{sentence'"),
        (None, "{sentence!r}", "expected a field's name in braces"),
        (None, "{0}", "expected a field's name in braces"),
        (None, "{sentence.upper}", "expected a field's name in braces"),
    ],
)
def test_mistakes_in_words_and_templates(
    words: tuple[str, ...] | None, template: str | None, message: str
) -> None:
    with pytest.raises(MezoError, match=message) as caught:
        task_for("sst2", words, template)
    assert "\n" not in str(caught.value)


def test_a_field_that_no_row_has_names_the_row() -> None:
    task = task_for("sst2", template="{review}")
    assert "review" in task.fields
    with pytest.raises(MezoError, match=r"list\[0\]: expected a field 'review'"):
        task.causal(ROW)


def test_masks_go_with_masked_models() -> None:
    with pytest.raises(MezoError, match=r"mask\} is for masked models"):
        task_for("sst2", template="{sentence} {mask}").causal(ROW)
    with pytest.raises(MezoError, match=r"needs \{mask\} in it, once"):
        task_for("sst2", template="{sentence}").masked(ROW)


def test_free_text_has_no_words_to_replace() -> None:
    with pytest.raises(MezoError, match="has no label words to replace"):
        task_for("prompt-completion", ("a", "b"))
