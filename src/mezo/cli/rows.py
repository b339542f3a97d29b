"""Rows as a model reads them, on the terminal: as text, or token by token with those that are learned marked."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.text import Text

    from mezo.scoring import Example
    from mezo.tasks import Row, Task

_LEARNED = "bold green"


def show_texts(task: "Task", rows: "Sequence[Row]", *, masked: bool) -> None:
    """The prompt of each row, and its candidates with a star at the right ones; a conversation turn by turn."""
    from mezo.tasks import MASK
    from mezo.tasks.chat import Chat

    asked = replace(task, writes=True)  # a row without an answer is shown as a prompt
    for row in rows:
        if isinstance(task, Chat):
            _print_conversation(asked, row)
            continue
        example = (task.masked if masked else asked.causal)(row)
        right = example.answers or (example.answer,)
        _print(row.where, example.prompt.replace(MASK, "[MASK]"), example.candidates, right)


def show_tokens(
    task: "Task", rows: "Sequence[Row]", model: str, max_length: int, chat_template: str | None
) -> None:
    """What the model's tokenizer makes of each row: tokens with | between them, those that are learned in brackets."""
    from mezo.data import encode
    from mezo.data.chat_templates import with_chat_template
    from mezo.models.load import describe
    from mezo.tuning.started import base_of

    found = describe(base_of(model))
    tokenizer: Any = with_chat_template(found.tokenizer, chat_template)
    task = replace(task, writes=True)
    for row, example in zip(rows, encode(task, rows, tokenizer, found.kind, max_length), strict=True):
        if len(example.candidates) == 1:
            _print_tokens(row.where, example, tokenizer)
            continue
        place = f"{row.where}, {len(example.prompt)} tokens"
        candidates = [str(tokenizer.decode(list(c))) for c in example.candidates]
        counts = [f"  ({len(c)} token{'s' if len(c) > 1 else ''})" for c in example.candidates]
        _print(place, str(tokenizer.decode(list(example.asked))), candidates, example.right, counts)


def _print_tokens(place: str, example: "Example", tokenizer: Any) -> None:
    from rich.text import Text

    (answer,) = example.candidates
    scored = range(len(answer)) if example.scored is None else example.scored
    if example.mask_position is None:
        tokens = [*example.prompt, *answer]
        learned = {len(example.prompt) + i for i in scored}
    else:  # the answer stands in the place of the masks
        at = example.mask_position
        tokens = [*example.prompt[:at], *answer, *example.prompt[at + len(answer) :]]
        learned = {at + i for i in scored}
    line = Text()
    for i, token in enumerate(tokens):
        text = str(tokenizer.decode([token])).replace("\n", "↵\n")
        line.append("[" if i in learned and i - 1 not in learned else "" if i == 0 else "|")
        line.append(text, style=_LEARNED if i in learned else "")
        if i in learned and i + 1 not in learned:
            line.append("]")
    _say(Text(f"--- {place}, {len(tokens)} tokens, {len(learned)} learned (in brackets)", style="dim"))
    _say(line)


def _print_conversation(task: "Task", row: "Row") -> None:
    from rich.text import Text

    talk = task.conversation(row)
    assert talk is not None
    learned = talk.learned(task.turns)
    _say(Text(f"--- {row.where}", style="dim"))
    for n, message in enumerate(talk.messages):
        text = f"{'*' if n in learned else ' '} {message['role']}: {message['content']}"
        _say(Text(text, style=_LEARNED if n in learned else ""))
    if talk.begun:
        _say(Text(f"  assistant, begun: {talk.begun}"))


def _print(
    place: str, prompt: str, candidates: Sequence[str], right: Sequence[int], notes: Sequence[str] = ()
) -> None:
    from rich.text import Text

    _say(Text(f"--- {place}", style="dim"))
    _say(Text(prompt))
    for number, candidate in enumerate(candidates):
        # quoted, so that the space before a word and the new line after an answer can be seen
        line = f"{'*' if number in right else ' '} {candidate!r}{notes[number] if notes else ''}"
        _say(Text(line, style=_LEARNED if number in right else ""))


def _say(text: "Text") -> None:
    """Texts of other people's making: no markup is read in them."""
    from rich.console import Console

    Console(highlight=False, markup=False, emoji=False, soft_wrap=True).print(text)
