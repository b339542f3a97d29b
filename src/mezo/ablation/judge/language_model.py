"""The judge by a language model: blinded, shuffled sides, several votes."""

import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from mezo.ablation.planner.endpoint import Answers
from mezo.ablation.planner.prompts import object_in, prompt
from mezo.ablation.plans.plan import Plan, Study
from mezo.errors import MezoError

_SHOWN = ("ablated_part", "action", "replacement")  # names and order could reveal the author
_MORE = "That was not the JSON object asked for: {problem}. Answer with the JSON object alone."


@dataclass(frozen=True)
class LanguageModelJudge:
    """Asks a model `votes` times which studies match.

    Each vote shuffles the studies of both sides and draws which side is called A, by `seed`, so that neither place nor
    side influences the result.
    """

    model: Answers
    votes: int = 3
    seed: int = 0

    def __call__(self, plan: Plan, gold: Plan) -> list[list[float]]:
        """For each study of the plan and each of the reference the share of votes that match them; 0 without a majority.

        The model is asked again after an invalid answer; after a second one the vote is void.
        Raises MezoError if at least half of the votes are void, or as the model does.
        """
        counts: Counter[tuple[int, int]] = Counter()
        valid, problem = 0, ""
        for vote in range(self.votes):
            try:
                counts.update(self._vote(plan, gold, random.Random(f"{self.seed}/{vote}")))
                valid += 1
            except _NoMatches as error:
                problem = str(error)
        if 2 * valid <= self.votes:
            raise MezoError(
                f"the judge gave {self.votes - valid} of {self.votes} answers that are no matches: {problem}"
            )
        shares = {pair: count / valid for pair, count in counts.items() if 2 * count > valid}
        return [[shares.get((n, m), 0.0) for m in range(len(gold.studies))] for n in range(len(plan.studies))]

    def _vote(self, plan: Plan, gold: Plan, chance: random.Random) -> set[tuple[int, int]]:
        """The pairs of one vote, as places in the plan and in the reference."""
        mine, theirs = (chance.sample(range(len(p.studies)), len(p.studies)) for p in (plan, gold))
        sides = [[plan.studies[n] for n in mine], [gold.studies[n] for n in theirs]]
        swapped = chance.random() < 0.5
        first, second = reversed(sides) if swapped else sides
        question = f"List A:\n{_listed(first)}\n\nList B:\n{_listed(second)}"
        messages = [{"role": "system", "content": prompt("judge")}, {"role": "user", "content": question}]
        answer = self.model.ask(messages)
        try:
            found = _pairs(answer, len(first), len(second))
        except _NoMatches as error:
            again = {"role": "user", "content": _MORE.format(problem=error)}
            answer = self.model.ask([*messages, {"role": "assistant", "content": answer}, again])
            found = _pairs(answer, len(first), len(second))
        return {(mine[b], theirs[a]) if swapped else (mine[a], theirs[b]) for a, b in found}


class _NoMatches(ValueError):
    """An invalid answer; str() says why."""


def _listed(studies: Sequence[Study]) -> str:
    shown = ({name: getattr(study, name) for name in _SHOWN} for study in studies)
    lines = ({"number": number, **fields} for number, fields in enumerate(shown, start=1))
    return "\n".join(json.dumps(line, ensure_ascii=False) for line in lines)


def _pairs(answer: str, first: int, second: int) -> set[tuple[int, int]]:
    """Places, from 0, of the studies that an answer matches. Raises _NoMatches for an invalid answer."""
    try:
        matches = object_in(answer, "matches")["matches"]
    except ValueError as error:
        raise _NoMatches(str(error)) from None
    if not isinstance(matches, list):
        raise _NoMatches('no list under "matches"')
    pairs: set[tuple[int, int]] = set()
    for match in matches:
        a, b = (match.get("a"), match.get("b")) if isinstance(match, dict) else (None, None)
        if not (type(a) is int and type(b) is int and 1 <= a <= first and 1 <= b <= second):
            raise _NoMatches(
                f"{json.dumps(match)[:80]} is no pair of numbers from 1 to {first} and 1 to {second}"
            )
        pairs.add((a - 1, b - 1))
    if any(len({pair[side] for pair in pairs}) < len(pairs) for side in (0, 1)):
        raise _NoMatches("a study is matched twice")
    return pairs
