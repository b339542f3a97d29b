"""Settings for unbound variants of a plan, proposed by a language model. They are shown and written, not run."""

import json
from dataclasses import dataclass
from typing import Any

from mezo.ablation.binding.bind import stated
from mezo.ablation.binding.case import Bound, Unbound
from mezo.ablation.binding.checks import built_with
from mezo.ablation.binding.part import settable, table
from mezo.ablation.planner.endpoint import Answers
from mezo.ablation.planner.prompts import object_in, prompt
from mezo.ablation.plans.plan import Plan, Study
from mezo.config import MeZOConfig
from mezo.errors import MezoError


@dataclass(frozen=True)
class Proposal:
    """What a model proposes for one variant that is not bound."""

    item: Unbound
    settings: dict[str, Any] | None  # None: no settings stand for it
    problem: str = ""  # why the settings are invalid

    @property
    def usable(self) -> bool:
        return self.settings is not None and not self.problem

    def __str__(self) -> str:
        shown = "no settings" if self.settings is None else stated(self.settings)
        invalid = f": invalid: {self.problem}" if self.problem else ""
        return f"{self.item.study}, {self.item.text}: {shown}{invalid}"


def propose(plan: Plan, bound: Bound, config: MeZOConfig, model: Answers) -> list[Proposal]:
    """Ask once for settings of everything in `bound` that is unbound, and check each against the table of settings.

    Raises MezoError if the answer is not the JSON object asked for, and as `model.ask` does.
    """
    studies = {study.name: study for study in plan.studies}
    variants = [
        {
            "variant": number,
            "study": item.study,
            "ablated_part": studies[item.study].ablated_part,
            "action": studies[item.study].action,
            "replacement": item.text,
            "not read because": item.reason,
        }
        for number, item in enumerate(bound.unbound, start=1)
    ]
    question = "\n".join(json.dumps(variant, ensure_ascii=False) for variant in variants)
    system = {"role": "system", "content": prompt("propose") + table()}
    answer = model.ask([system, {"role": "user", "content": question}])
    try:
        found = {int(each["variant"]): each["set"] for each in object_in(answer, "proposals")["proposals"]}
    except (ValueError, KeyError, TypeError) as error:
        raise MezoError(
            f"the model's answer is not the JSON object asked for ({type(error).__name__}: {error}): {answer:.200}"
        ) from None
    if unknown := found.keys() - set(range(1, len(variants) + 1)):
        raise MezoError(f"the model's answer names variant {min(unknown)}; there are {len(variants)}")
    return [_checked(item, found.get(n), config) for n, item in enumerate(bound.unbound, start=1)]


def proposed_plan(plan: Plan, bound: Bound, proposals: list[Proposal]) -> Plan:
    """The plan with every valid proposal in its `set`; null leaves a variant to its words."""
    studies = tuple(_with_proposals(study, bound, proposals) for study in plan.studies)
    return plan.model_copy(update={"studies": studies})


def _with_proposals(study: Study, bound: Bound, proposals: list[Proposal]) -> Study:
    usable = {p.item.place: p.settings for p in proposals if p.usable and p.item.study == study.name}
    if not usable:
        return study
    shared = study.set if isinstance(study.set, dict) else {}
    results = [r for r in (*bound.variants, *bound.unbound) if r.study == study.name]
    before: list[dict[str, Any] | None] = [None] * (max(r.place for r in results) + 1)
    if isinstance(study.set, list):
        before = study.set
    elif shared:  # one mapping for all: as settings of each
        bound_at = {v.place: v.settings for v in reversed(bound.variants) if v.study == study.name}
        before = [bound_at.get(place) for place in range(len(before))]
    settings = [{**(usable[n] or {}), **shared} if n in usable else each for n, each in enumerate(before)]
    return study.model_copy(update={"set": settings})


def _checked(item: Unbound, settings: Any, config: MeZOConfig) -> Proposal:
    if settings is None:
        return Proposal(item, None)
    if not isinstance(settings, dict) or not settings:
        return Proposal(item, {}, f"expected a mapping of settings, found {settings!r:.80}")
    known = settable()
    if fixed := [name for name in settings if name in MeZOConfig.model_fields and name not in known]:
        return Proposal(item, settings, f"a plan does not vary {', '.join(fixed)}")
    try:
        built_with(settings, config)
    except MezoError as error:
        return Proposal(item, settings, str(error))
    return Proposal(item, settings)
