"""`mezo chat`: a conversation with a model, the tuned one and its base in turn."""

import contextlib
import sys
from typing import TYPE_CHECKING

from mezo.cli.generate import (
    Adapter,
    Device,
    Dtype,
    Length,
    Prefill,
    Seed,
    Stop,
    System,
    Target,
    Temperature,
    Template,
    TopK,
    TopP,
    answer,
    begins,
    ends,
    to_stderr,
)
from mezo.cli.output import say

if TYPE_CHECKING:
    from mezo.runs.outputs.tuned import TunedModel
    from mezo.util.writing import Writing

EPILOG = r"""
[bold]Examples[/bold]

  mezo chat runs/lora

  mezo chat smollm2-135m --system "You are brief." --temperature 0.7
"""
_COMMANDS = "/base and /tuned switch the model, /reset forgets the conversation, /exit ends it"


def chat(
    target: Target,
    adapter: Adapter = None,
    max_new_tokens: Length = 512,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    top_k: TopK = 0,
    seed: Seed = 0,
    stop: Stop = None,
    prefill: Prefill = None,
    system: System = None,
    chat_template: Template = None,
    dtype: Dtype = None,
    device: Device = "auto",
) -> None:
    """Talk to a model through its chat template.

    /base and /tuned switch between the base model and the tuned one, /reset forgets the conversation, /exit ends it.
    Ctrl-C ends the answer that is being written. Each answer is drawn by the seed and its number.
    """
    from mezo.engines.transformers.reply import chat_tokens
    from mezo.runs.outputs.tuned import open_tuned
    from mezo.util.writing import Writing

    tuned = open_tuned(
        target, adapter=adapter, dtype=dtype, device=device, chat_template=chat_template, note=to_stderr
    )
    chat_tokens(
        tuned.tokenizer, [{"role": "user", "content": "Hello"}]
    )  # is there a template, and does it work?
    if sys.stdin.isatty():
        say(_COMMANDS)
    writing = Writing(max_new_tokens, ends(tuned, stop), temperature, top_p, top_k)
    Talk(tuned, writing, seed, system=system, prefill=begins(tuned, prefill)).go_on()


class Talk:
    """The conversation so far, and which model answers next."""

    def __init__(
        self, tuned: "TunedModel", writing: "Writing", seed: int, *, system: str | None, prefill: str
    ) -> None:
        self.tuned, self.writing, self.seed, self.prefill = tuned, writing, seed, prefill
        self.answered = 0
        self.start = [] if system is None else [{"role": "system", "content": system}]
        self.messages, self.base = list(self.start), False

    def go_on(self) -> None:
        """Read lines until /exit or the end of the input."""
        from mezo.errors import MezoError

        while (line := _read()) is not None and line != "/exit":
            try:
                if line.startswith("/"):
                    self.command(line)
                elif line:
                    self.ask(line)
            except MezoError as error:
                to_stderr(f"mezo: {error}")

    def command(self, line: str) -> None:
        """A line that begins with a slash."""
        if line == "/reset":
            self.messages = list(self.start)
            to_stderr("a new conversation")
        elif line == "/base" and not self.tuned.has_base:
            to_stderr("there is no other model: give a RUN, or a model with --adapter")
        elif line in ("/base", "/tuned"):
            self.base = line == "/base"
            to_stderr(f"the {'base' if self.base else 'tuned'} model answers from here on")
        else:
            to_stderr(f"unknown command {line}: {_COMMANDS}")

    def ask(self, line: str) -> None:
        """Answer one message. One that has no answer, or only a part of one, is not remembered."""
        from mezo.engines.transformers.reply import chat_tokens, seed_of

        messages = [*self.messages, {"role": "user", "content": line}]
        ids = chat_tokens(self.tuned.tokenizer, messages)
        try:
            written = answer(
                self.tuned,
                ids,
                self.writing,
                seed_of(self.seed, self.answered),
                prefill=self.prefill,
                base=self.base,
            )
        except KeyboardInterrupt:
            to_stderr("\n(stopped; this message is forgotten)")
            return
        self.messages = [*messages, {"role": "assistant", "content": written.text}]
        self.answered += 1


def _read() -> str | None:
    """The next line, without the space around it; None at the end of the input."""
    if not sys.stdin.isatty():
        line = sys.stdin.readline()
        return line.strip() if line else None
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  # input() then has a history and can be edited
    try:
        return input("> ").strip()
    except EOFError:
        print()
        return None
