"""Every rule of the table can be broken, is then an error that names both settings, and otherwise holds."""

from typing import Any

import pytest
from tools import reference

from mezo.combinations import RULES, Rule, Values, broken, check_combination
from mezo.config import MeZOConfig, choices_of
from mezo.errors import MezoError

# values that are not among a setting's few names
OTHERS: dict[str, Any] = {
    "tensor_parallel": (1, 2),
    "activation_cache_mb": (0, 5),
    "normalize_perturbations": (False, True),
    "num_directions": (1, 2),
    "final_directions": (None, 2),
    "row_directions": (1, 2),
    "learning_rate": (0.1, "auto"),
    "groups": (1, 2),
    "samples": (1, 2),
    "temperature": (0.0, 0.7),
}


def value(values: Values, *, inside: bool) -> Any:
    """One that holds, or one that does not."""
    every = OTHERS.get(values.setting) or (*choices_of(values.setting), None)
    return next(v for v in every if ((v in values.names) != values.but) == inside)


@pytest.mark.parametrize(
    "rule", RULES, ids=lambda rule: f"{' and '.join(map(str, rule.when))}: {rule.needs.setting}"
)
def test_a_rule_that_is_broken_is_an_error(rule: Rule) -> None:
    settings = {v.setting: value(v, inside=True) for v in rule.when}
    found = MeZOConfig.build(**settings, **{rule.needs.setting: value(rule.needs, inside=False)})
    assert rule in broken(found)
    with pytest.raises(MezoError) as error:
        check_combination(found)
    assert all(name in str(error.value) for name in (*settings, "needs", "found", "change one of them"))
    kept = MeZOConfig.build(**settings, **{rule.needs.setting: value(rule.needs, inside=True)})
    assert rule not in broken(kept)
    assert f"`{rule.needs}`" in reference.settings()


def test_the_defaults_and_the_paper_go_together() -> None:
    check_combination(MeZOConfig.build())
    for family in ("roberta", "opt"):
        for tuning in ("full", "lora", "prefix"):
            check_combination(MeZOConfig.paper(family, tuning))
