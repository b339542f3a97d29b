"""From a paper to an ablation plan, by asking a language model: the question, the check, one more try."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mezo.ablation.binding.bind import bind
from mezo.ablation.binding.case import Bound
from mezo.ablation.binding.part import table
from mezo.ablation.formats.files import parse, write_plan
from mezo.ablation.planner.endpoint import Answers
from mezo.ablation.planner.papers import Paper
from mezo.ablation.planner.prompts import prompt
from mezo.ablation.plans.plan import Plan
from mezo.config import MeZOConfig
from mezo.errors import MezoError
from mezo.util.atomic_files import write_text
from mezo.util.endpoint import Messages, Truncated

PAGE, PLAN, REPLY = "plan.md", "plan.yaml", "reply.txt"
_MOST_ERRORS = 600  # characters of the problems that the model is shown


@dataclass(frozen=True)
class Planned:
    """A plan that was read from an answer, and what of it can be run."""

    plan: Plan
    bound: Bound
    replies: tuple[str, ...]  # as they came; the last one is the plan's, unless a second answer was worse
    notes: tuple[str, ...]  # problems that were recovered from


class Unusable(MezoError):
    """No answer contained a plan. replies: the answers."""

    def __init__(self, message: str, replies: tuple[str, ...]):
        super().__init__(message)
        self.replies = replies


def messages_for(
    paper: Paper, count: int, tokens: int, counter: Callable[[str], int] | None = None
) -> Messages:
    """The question. tokens: of the paper's text at most; see `Paper.fit`."""
    text = paper.fit(tokens, counter)
    return (
        {"role": "system", "content": prompt("plan") + table()},
        {"role": "user", "content": prompt("paper").format(count=count, title=paper.title, text=text)},
    )


def without_the_paper(paper: Paper, count: int) -> str:
    """All text of both questions except the paper's own and the first answer, to count its tokens."""
    first = "\n".join(message["content"] for message in messages_for(Paper(paper.title, ()), count, 1))
    again = prompt("again").format(errors="." * _MOST_ERRORS)
    return f"{first}\n{again}"


def plan_paper(messages: Messages, count: int, model: Answers, *, title: str = "") -> Planned:
    """Ask for a plan, and once more if the answer is no plan, contradicts itself or cannot be run at all.

    Raises Unusable if no answer is a plan, and what the first `model.ask` raises. A reply that was cut
    off counts as an answer.
    """
    config, found = MeZOConfig(), None
    replies: list[str] = []
    notes: list[str] = []
    for _ in range(2):
        try:
            reply, wrong = model.ask(messages), ""
        except Truncated as error:
            reply, wrong = error.reply, str(error)
        except MezoError as error:
            if not replies:
                raise
            notes.append(f"asked again: {error}")  # the first answer is not lost
            break
        replies.append(reply)
        try:
            plan = None if wrong else parse(reply, ".jsonl")
        except MezoError as error:
            plan, wrong = None, str(error)
        if plan is not None:
            bound = bind(plan, config)
            wrong = _problem(bound)
            found = plan if found is None or bound.variants or not wrong else found
            if not wrong:
                break
        notes.append(f"answer {len(replies)}: {wrong}")
        again = {"role": "user", "content": prompt("again").format(errors=wrong[:_MOST_ERRORS])}
        messages = (*messages, {"role": "assistant", "content": reply}, again)
    if found is None:
        answers = "one answer" if len(replies) == 1 else "two answers"
        raise Unusable(f"no plan in {answers}: {'; '.join(notes)}", tuple(replies))
    if len(found.studies) > count:
        notes.append(f"{len(found.studies)} studies came, {count} were asked for: the first are kept")
    found = found.model_copy(update={"studies": found.studies[:count], "title": found.title or title})
    return Planned(found, bind(found, config), tuple(replies), tuple(notes))


def write_planned(planned: Planned, folder: Path) -> list[Path]:
    """Write FOLDER/plan.md, plan.yaml and reply.txt, each whole or not at all; the paths written."""
    write_replies(planned.replies, folder)
    for name in (PAGE, PLAN):
        write_plan(planned.plan, folder / name)
    return [folder / name for name in (PAGE, PLAN, REPLY)]


def write_replies(replies: tuple[str, ...], folder: Path) -> Path:
    """Keep the answers: one of them byte for byte, several under a line each."""
    folder.mkdir(parents=True, exist_ok=True)
    headed = [f"===== answer {n} =====\n{reply}\n" for n, reply in enumerate(replies, start=1)]
    write_text(folder / REPLY, replies[0] if len(replies) == 1 else "".join(headed))
    return folder / REPLY


def _problem(bound: Bound) -> str:
    """Why a plan is asked for again: it contradicts itself, or nothing of it can be run."""
    if bound.disagreements:
        return f"words and set say different things: {'; '.join(bound.disagreements)}"
    if bound.variants:
        return ""
    near = "nearest parts that can be varied"
    reasons = [f"{u} ({near}: {', '.join(u.nearest)})" if u.nearest else str(u) for u in bound.unbound]
    return f"nothing in it can be run here: {'; '.join(reasons)}"
