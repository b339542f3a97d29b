"""Two answers to each prompt, of which one is preferred."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mezo.errors import MezoError
from mezo.tasks.base import Task, TextExample
from mezo.tasks.conversation import Conversation, conversation_in, is_messages, messages_in
from mezo.tasks.row import Row

_SAMPLES = (
    {
        "prompt": "Ticket: the login page is blank\nReply:",
        "chosen": " Sorry about that! We are looking into it.",
        "rejected": " Works here.",
    },
    {
        "prompt": "Ticket: my invoice has the wrong address\nReply:",
        "chosen": " Sorry! Which address should it have?",
        "rejected": " Not my team.",
    },
)


@dataclass(frozen=True, kw_only=True)
class Preference(Task):
    """`prompt`, `chosen`, `rejected`: texts exactly as written, or TRL's lists of messages.

    Of lists of messages, `prompt` may be absent where `chosen` and `rejected` hold the whole conversation. They differ
    in their last message, of the assistant, which is what is compared. Rows with two equal answers are left out.

    Reference: the preference form of TRL; Rafailov et al. 2023, arXiv:2305.18290.
    Example:
        >>> Preference().causal(Row(_SAMPLES[0], "samples", 0)).candidates
        (' Sorry about that! We are looking into it.', ' Works here.')
    """

    name: str = "preference"
    fields: tuple[str, ...] = ("chosen", "rejected")
    objective: str | None = "dpo"
    append_eos: bool = True
    samples: tuple[Mapping[str, Any], ...] = field(default=_SAMPLES, compare=False, repr=False)

    def label(self, row: Row) -> None:
        return None

    def skips(self, row: Row) -> str | None:
        return "chosen and rejected are equal" if row.value("chosen") == row.value("rejected") else None

    def conversation(self, row: Row) -> Conversation | None:
        if not is_messages(row.value("chosen")):
            return None
        chosen, rejected = (self._turns(row, name) for name in ("chosen", "rejected"))
        if chosen[:-1] != rejected[:-1] or {chosen[-1]["role"], rejected[-1]["role"]} != {"assistant"}:
            raise MezoError(
                f"{row.where}: expected 'chosen' and 'rejected' to be one conversation up to their last messages, which "
                "are the assistant's; found others"
            )
        whole = conversation_in(
            Row({**row.fields, "messages": chosen}, row.source, row.number, row.is_line), "messages"
        )
        return Conversation(whole.messages, whole.tools, rejected=rejected[-1])

    @staticmethod
    def _turns(row: Row, name: str) -> list[dict[str, Any]]:
        """All messages of an answer, its prompt's included."""
        answer, prompt = messages_in(row, name), row.fields.get("prompt")
        if isinstance(prompt, str) and not is_messages(prompt):
            return answer if len(answer) > 1 else [{"role": "user", "content": prompt}, *answer]
        return answer if prompt is None else [*messages_in(row, "prompt"), *answer]

    def causal(self, row: Row) -> TextExample:
        if is_messages(row.value("chosen")):
            raise MezoError(
                f"{row.where}: a conversation is written out by a chat template, and this model's tokenizer has none: "
                "give --chat-template chatml (or plain, or a FILE)"
            )
        answers = row.text("chosen"), row.text("rejected")
        for name, answer in zip(("chosen", "rejected"), answers, strict=True):
            if not answer:
                raise MezoError(f"{row.where}: expected some text in field {name!r}, found none")
        return TextExample(row.text("prompt"), answers, 0, references=(answers[0].strip(),))
