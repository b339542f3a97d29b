"""What a study runs: its cases (the baseline and each variant, as configs), and each case's runs, one a seed."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mezo.ablation.binding.bind import Bound
from mezo.config import MeZOConfig

BASELINE = "baseline"
_CURVE = 10  # evaluations of a run after its start, by default


@dataclass(frozen=True, slots=True)
class Case:
    """The baseline or one variant, before its seeds and its share of the budget."""

    study: str | None  # None: the baseline, of every study
    label: str
    settings: Mapping[str, Any] = field(hash=False)  # the changes to the baseline
    config: MeZOConfig = field(hash=False)  # with the baseline's own seed and number of steps
    note: str = ""

    @property
    def key(self) -> str:
        return key_of(self.config)

    @property
    def name(self) -> str:
        return self.label if self.study is None else f"{self.study}: {self.label}"

    def run(self, number: int, steps: int, eval_every: int | None) -> "Run":
        """The run of the case's seed `number` (from 0), `steps` long.

        eval_every: steps between evaluations; None: a tenth of the run. The case's own settings override both.
        """
        own = {n: self.settings[n] for n in ("num_steps", "warmup_steps", "eval_every") if n in self.settings}
        steps = int(own.get("num_steps", steps))
        changes = {
            "num_steps": steps,
            "warmup_steps": self.config.warmup_steps * steps // self.config.num_steps,
            "eval_every": -(-steps // _CURVE) if eval_every is None else eval_every,
            "seed": (self.config.seed + number) % 2**64,
        }
        return Run(self, number, MeZOConfig.build(**{**self.config.model_dump(), **changes, **own}))


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a study. Runs of equal keys are made once."""

    case: Case
    number: int  # of its seed, from 0: variants are compared with the baseline's run of the same number
    config: MeZOConfig

    @property
    def key(self) -> str:
        return key_of(self.config)

    @property
    def name(self) -> str:
        return f"{self.case.name}, seed {self.config.seed}"


def cases_of(bound: Bound, config: MeZOConfig) -> list[Case]:
    """The baseline `config`, then every bound variant in the plan's order."""
    cases = [Case(None, BASELINE, {}, config)]
    for variant in bound.variants:
        changed = MeZOConfig.build(**{**config.model_dump(), **variant.settings})
        cases.append(Case(variant.study, variant.label, dict(variant.settings), changed, variant.note))
    return cases


def runs_of(cases: Iterable[Case], seeds: int, steps: Mapping[str, int], eval_every: int | None) -> list[Run]:
    """All runs in their order: seed by seed, so that a study that is stopped early has compared every variant.

    steps: of a run, by its case's key.
    """
    cases = list(cases)
    return [case.run(number, steps[case.key], eval_every) for number in range(seeds) for case in cases]


def key_of(config: MeZOConfig) -> str:
    """Sixteen hexadecimal digits that identify a config.

    Settings at their default are left out, so a later version with more settings finds the runs of an earlier one.
    """
    values = config.model_dump(mode="json", exclude_defaults=True)
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
