"""`mezo generate`: what a tuned model, or any model, writes after a prompt."""

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mezo.cli.options import strings
from mezo.cli.output import say
from mezo.config import MeZOConfig
from mezo.util.parsing import printable

if TYPE_CHECKING:
    from mezo.engines.transformers.reply import Reply
    from mezo.runs.outputs.tuned import TunedModel
    from mezo.util.writing import Seeded, Writing

EPILOG = r"""
[bold]Examples[/bold]

  mezo generate runs/first "What is a good name for a cat?"

  mezo generate runs/lora "Is this film good?" --compare

  mezo generate smollm2-135m - --raw --temperature 0.8 --seed 3 < prompt.txt
"""
# Options that `mezo chat` has too.
Target = Annotated[
    str, typer.Argument(metavar="RUN|MODEL", help="Folder of a run, an adapter or a model; or a hub id.")
]
Adapter = Annotated[Path | None, typer.Option("--adapter", "-a", help="A peft adapter to put on MODEL.")]
Length = Annotated[int, typer.Option("--max-new-tokens", min=1, help="The longest answer, in tokens.")]
Temperature = Annotated[
    float, typer.Option(min=0.0, help="0: always the likeliest token. Higher values draw more freely.")
]
TopP = Annotated[
    float,
    typer.Option("--top-p", min=1e-6, max=1.0, help="Draw from the likeliest tokens of this probability."),
]
TopK = Annotated[
    int, typer.Option("--top-k", min=0, help="Draw from so many of the likeliest tokens; 0: all.")
]
Seed = Annotated[int, typer.Option(min=0, max=2**64 - 1, help="Of the draws.")]
Stop = Annotated[
    str | None,
    typer.Option(
        help="Strings that end an answer, by comma or as a JSON list, \\n a new line; eos: its end token alone. Default: the "
        "run's, if it was one by rewards, or eos.",
    ),
]
Prefill = Annotated[
    str | None,
    typer.Option(help="Text that the answer begins with. Default: the run's, if it was one by rewards."),
]
System = Annotated[str | None, typer.Option(help="A system prompt.")]
Template = Annotated[
    str | None, typer.Option("--chat-template", metavar="NAME|FILE", help="chatml, plain or a Jinja file.")
]
Dtype = Annotated[
    str | None, typer.Option(help="float32, bfloat16 or float16; default: the run's, or float32.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]


def generate(
    target: Target,
    prompt: Annotated[str, typer.Argument(help="The prompt; - reads it from standard input.")],
    adapter: Adapter = None,
    max_new_tokens: Length = 256,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    top_k: TopK = 0,
    seed: Seed = 0,
    stop: Stop = None,
    prefill: Prefill = None,
    system: System = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="The prompt as it is, without the chat template.")
    ] = False,
    compare: Annotated[
        bool, typer.Option("--compare", help="The base model's answer first, then the tuned one's.")
    ] = False,
    chat_template: Template = None,
    dtype: Dtype = None,
    device: Device = "auto",
) -> None:
    """Print what a model writes after a prompt, as it is written.

    The prompt goes through the model's chat template where there is one. Tokens are drawn as in a run by rewards: with the
    same seed and prompt the answer is that of the first row of its first step, at the weights that are there.
    """
    from mezo.engines.transformers.reply import prompt_tokens, seed_of
    from mezo.errors import MezoError
    from mezo.runs.outputs.tuned import open_tuned
    from mezo.util.writing import Writing

    text = sys.stdin.read().removesuffix("\n") if prompt == "-" else prompt
    tuned = open_tuned(
        target, adapter=adapter, dtype=dtype, device=device, chat_template=chat_template, note=to_stderr
    )
    if compare and not tuned.has_base:
        raise MezoError(f"{target}: nothing to compare with: give a RUN, or a model with --adapter")
    if not raw and not tuned.tokenizer.chat_template:
        to_stderr("this model has no chat template: the prompt goes in as it is")
    ids = prompt_tokens(tuned.tokenizer, text, system=system, raw=raw)
    said, begun = (
        Writing(max_new_tokens, ends(tuned, stop), temperature, top_p, top_k),
        begins(tuned, prefill),
    )
    if compare:
        print("--- base")
        answer(tuned, ids, said, seed_of(seed), prefill=begun, base=True)
        print("--- tuned")
    answer(tuned, ids, said, seed_of(seed), prefill=begun)


def ends(tuned: "TunedModel", stop: str | None) -> tuple[str, ...]:
    """What ends an answer: as --stop says, or as in the run."""
    return tuned.stop if stop is None else MeZOConfig.build(stop=strings(stop)).stop


def begins(tuned: "TunedModel", prefill: str | None) -> str:
    """What an answer begins with: as --prefill says, or as in the run."""
    return tuned.prefill if prefill is None else prefill.replace("\\n", "\n")


def answer(
    tuned: "TunedModel",
    ids: list[int],
    writing: "Writing",
    seeded: "Seeded",
    *,
    prefill: str = "",
    base: bool = False,
) -> "Reply":
    """Print an answer piece by piece, and on standard error why it is over if the model did not end it."""
    from mezo.data.tokens import continuation
    from mezo.engines.transformers.reply import write

    show = shower()
    if prefill:
        ids = [*ids, *continuation(tuned.tokenizer, prefill)]
        show(prefill)
    with tuned.base() if base else contextlib.nullcontext(tuned.model) as model:
        written = write(model, tuned.tokenizer, ids, writing, seeded, show)
    print(flush=True)
    if not written.ended:
        to_stderr(f"cut after {written.tokens} tokens; --max-new-tokens sets how many")
    return written._replace(text=prefill + written.text)


def shower() -> Callable[[str], None]:
    """What prints pieces of text. A terminal gets nothing that it would act upon; a file gets the text as it is."""
    plain = sys.stdout.isatty()

    def show(text: str) -> None:
        print("\t".join(map(printable, text.split("\t"))) if plain else text, end="", flush=True)

    return show


def to_stderr(text: str) -> None:
    say(text, to=sys.stderr)
